//! Ownership through real handles, crossings and the kernel's shared heap, against a model that knows who owns what
//! (docs/soundness.md, invariants 3, 4 and 7).
//!
//! Random sequences of all that domains can do with objects: allocate, move in a call and back, pass on through a third domain, lend, put
//! into batches and take out, drop; and of deaths: at rest, in a call before and after the callee has done its work, under another
//! domain's call, followed by a restart. After each step every domain owns what the model says, in number and in content, and at the end
//! everything is back.

mod support;

use host_platform::host_domain;
use proptest::prelude::*;
use rref::{Batch, Exchange, Handle, OwnerId, RRef, RpcError, Share, interface};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::{BATCH_BYTES, Heap, OBJECT_BYTES};

/// An object whose content says which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
struct Tagged {
    tag: u64,
    inverse: u64,
}

impl Tagged {
    fn new(tag: u64) -> Tagged {
        Tagged { tag, inverse: !tag }
    }
}

fn tag_of(object: &Tagged) -> u64 {
    assert_eq!(object.inverse, !object.tag, "the object was overwritten");
    object.tag
}

/// When the callee dies in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange)]
enum Dies {
    Never,
    /// What it was given is on its stack.
    Before,
    /// What it was given is in its private heap.
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange)]
enum PeerError {
    Dead(RpcError),
    Refused,
}

impl From<RpcError> for PeerError {
    fn from(error: RpcError) -> Self {
        PeerError::Dead(error)
    }
}

#[interface]
trait Peer {
    /// Makes an object of the callee's own.
    fn make(&self, tag: u64, dies: Dies) -> Result<(), PeerError>;
    /// Gives an object for good.
    fn keep(&self, object: RRef<Tagged>, dies: Dies) -> Result<(), PeerError>;
    /// Gives a batch for good.
    fn keep_batch(&self, batch: Batch<Tagged>, dies: Dies) -> Result<(), PeerError>;
    /// Takes the callee's oldest object.
    fn give(&self, dies: Dies) -> Result<Option<RRef<Tagged>>, PeerError>;
    /// Takes the callee's oldest batch.
    fn give_batch(&self, dies: Dies) -> Result<Option<Batch<Tagged>>, PeerError>;
    /// Lends an object.
    fn look(&self, object: &RRef<Tagged>, dies: Dies) -> Result<u64, PeerError>;
    /// The first object of the batch for the callee, the rest back, an object of the callee's at its end.
    fn trade(&self, batch: Batch<Tagged>, dies: Dies) -> Result<Batch<Tagged>, PeerError>;
    /// Has the callee give the object to the `to`-th peer for good. It may be killed while that one has it.
    fn pass_on(&self, object: RRef<Tagged>, to: u32, killed_meanwhile: bool) -> Result<(), PeerError>;
    /// The callee drops its oldest object.
    fn discard(&self, dies: Dies) -> Result<(), PeerError>;
}

const PEERS: usize = 3;
const NAMES: [&str; PEERS] = ["first", "second", "third"];

/// A domain's private heap.
#[derive(Default)]
struct Private {
    objects: VecDeque<RRef<Tagged>>,
    batches: VecDeque<Batch<Tagged>>,
    /// Handles to the others, and whom the next call into this domain kills.
    peers: Vec<Handle<dyn Peer>>,
    kills: Option<usize>,
}

struct Domain {
    index: usize,
    private: Mutex<Private>,
}

static DOMAINS: [Domain; PEERS] = [Domain::new(0), Domain::new(1), Domain::new(2)];

impl Domain {
    const fn new(index: usize) -> Domain {
        Domain {
            index,
            private: Mutex::new(Private {
                objects: VecDeque::new(),
                batches: VecDeque::new(),
                peers: Vec::new(),
                kills: None,
            }),
        }
    }

    fn private(&self) -> MutexGuard<'_, Private> {
        self.private.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dies here, at this instruction: what the kernel does with a thread whose domain is dead.
    fn perhaps_die(&self, dies: Dies, now: Dies) {
        if dies == now && now != Dies::Never {
            host_platform::kill(NAMES[self.index]);
            host_platform::look_for_deaths();
            (abi::sys().check_death)();
            unreachable!("a dead domain runs on");
        }
    }

    /// Someone else dies while this domain runs.
    fn kills(&self) {
        let killed = self.private().kills.take();
        if let Some(index) = killed {
            host_platform::kill(NAMES[index]);
            host_platform::look_for_deaths();
        }
    }
}

impl Peer for Domain {
    fn make(&self, tag: u64, dies: Dies) -> Result<(), PeerError> {
        let object = RRef::new(Tagged::new(tag)).map_err(|_| PeerError::Refused)?;
        self.perhaps_die(dies, Dies::Before);
        self.private().objects.push_back(object);
        self.perhaps_die(dies, Dies::After);
        Ok(())
    }

    fn keep(&self, object: RRef<Tagged>, dies: Dies) -> Result<(), PeerError> {
        assert_eq!(object.owner(), abi::current().owner());
        self.kills();
        self.perhaps_die(dies, Dies::Before);
        self.private().objects.push_back(object);
        self.perhaps_die(dies, Dies::After);
        Ok(())
    }

    fn keep_batch(&self, batch: Batch<Tagged>, dies: Dies) -> Result<(), PeerError> {
        self.perhaps_die(dies, Dies::Before);
        self.private().batches.push_back(batch);
        self.perhaps_die(dies, Dies::After);
        Ok(())
    }

    fn give(&self, dies: Dies) -> Result<Option<RRef<Tagged>>, PeerError> {
        self.perhaps_die(dies, Dies::Before);
        let object = self.private().objects.pop_front();
        self.perhaps_die(dies, Dies::After);
        Ok(object)
    }

    fn give_batch(&self, dies: Dies) -> Result<Option<Batch<Tagged>>, PeerError> {
        self.perhaps_die(dies, Dies::Before);
        let batch = self.private().batches.pop_front();
        self.perhaps_die(dies, Dies::After);
        Ok(batch)
    }

    fn look(&self, object: &RRef<Tagged>, dies: Dies) -> Result<u64, PeerError> {
        self.perhaps_die(dies, Dies::Before);
        let tag = tag_of(object);
        self.perhaps_die(dies, Dies::After);
        Ok(tag)
    }

    fn trade(&self, mut batch: Batch<Tagged>, dies: Dies) -> Result<Batch<Tagged>, PeerError> {
        self.perhaps_die(dies, Dies::Before);
        let first = batch.pop_front();
        let own = self.private().objects.pop_front();
        if let Some(Err(refused)) = own.map(|own| batch.push(own)) {
            self.private().objects.push_front(refused);
        }
        self.private().objects.extend(first);
        self.perhaps_die(dies, Dies::After);
        Ok(batch)
    }

    fn pass_on(&self, object: RRef<Tagged>, to: u32, killed_meanwhile: bool) -> Result<(), PeerError> {
        if killed_meanwhile && let Some(next) = DOMAINS.get(to as usize) {
            next.private().kills = Some(self.index);
        }
        let peer = self.private().peers.get(to as usize).cloned();
        let result = peer.ok_or(PeerError::Refused)?.keep(object, Dies::Never);
        assert!(!killed_meanwhile, "a dead domain runs on");
        result
    }

    fn discard(&self, dies: Dies) -> Result<(), PeerError> {
        self.perhaps_die(dies, Dies::Before);
        let object = self.private().objects.pop_front();
        drop(object);
        self.perhaps_die(dies, Dies::After);
        Ok(())
    }
}

/// What somebody owns, by tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Belongings {
    objects: VecDeque<u64>,
    batches: VecDeque<VecDeque<u64>>,
}

impl Belongings {
    fn owned_bytes(&self) -> u64 {
        self.objects.len() as u64 * OBJECT_BYTES + self.batches.len() as u64 * BATCH_BYTES
    }

    fn all_bytes(&self) -> u64 {
        let nested: usize = self.batches.iter().map(VecDeque::len).sum();
        self.owned_bytes() + nested as u64 * OBJECT_BYTES
    }

    fn of(private: &Private) -> Belongings {
        Belongings {
            objects: private.objects.iter().map(|object| tag_of(object)).collect(),
            batches: private
                .batches
                .iter()
                .map(|batch| batch.iter().map(tag_of).collect())
                .collect(),
        }
    }
}

/// The host's own things, the peers' incarnations, and the model of it all.
struct World {
    heap: &'static Heap,
    mine: Private,
    incarnations: [OwnerId; PEERS],
    next_tag: u64,
    model_mine: Belongings,
    model: [Belongings; PEERS],
}

impl World {
    fn new() -> World {
        let heap = support::attach();
        let mut world = World {
            heap,
            mine: Private::default(),
            incarnations: [OwnerId::NONE; PEERS],
            next_tag: 1,
            model_mine: Belongings::default(),
            model: Default::default(),
        };
        (0..PEERS).for_each(|index| world.start(index));
        (0..PEERS).for_each(|index| world.connect(index));
        world
    }

    fn start(&mut self, index: usize) {
        let object: &'static dyn Peer = &DOMAINS[index];
        self.incarnations[index] = host_platform::provide_mortal::<dyn Peer>(NAMES[index], object);
    }

    /// Gives everybody handles to the present incarnations.
    fn connect(&mut self, index: usize) {
        let handles = || -> Vec<Handle<dyn Peer>> {
            NAMES
                .iter()
                .map(|name| Handle::connect(name, OwnerId::NONE, 0).expect("it is up"))
                .collect()
        };
        self.mine.peers = handles();
        DOMAINS[index].private().peers = handles();
    }

    /// The death of a peer is noticed: its private heap goes without a destructor, the kernel reaps, the supervisor restarts.
    fn buried(&mut self, index: usize) {
        let private = std::mem::take(&mut *DOMAINS[index].private());
        std::mem::forget(private);
        let _count = self.heap.reclaim(self.incarnations[index]);
        assert_eq!(self.heap.owned_bytes(self.incarnations[index]), 0);
        self.model[index] = Belongings::default();
        self.start(index);
        (0..PEERS).for_each(|index| self.connect(index));
    }

    /// What a call into `index` came to; buries it if it died.
    fn outcome<T>(&mut self, index: usize, dies: Dies, result: Result<T, PeerError>) -> Option<T> {
        match result {
            Ok(value) => {
                assert_eq!(dies, Dies::Never, "it died and answered");
                Some(value)
            }
            Err(PeerError::Dead(error)) => {
                assert_eq!(error.target(), self.incarnations[index]);
                assert!(error.during_call());
                self.buried(index);
                None
            }
            Err(PeerError::Refused) => panic!("nothing is refused here"),
        }
    }

    fn peer(&self, index: usize) -> Handle<dyn Peer> {
        self.mine.peers[index].clone()
    }

    fn new_object(&mut self) {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.mine
            .objects
            .push_back(RRef::new(Tagged::new(tag)).expect("memory"));
        self.model_mine.objects.push_back(tag);
    }

    fn take_object(&mut self) -> (RRef<Tagged>, u64) {
        if self.mine.objects.is_empty() {
            self.new_object();
        }
        let object = self.mine.objects.pop_front().expect("there is one");
        (object, self.model_mine.objects.pop_front().expect("there is one"))
    }

    fn take_batch(&mut self) -> (Batch<Tagged>, VecDeque<u64>) {
        match (self.mine.batches.pop_front(), self.model_mine.batches.pop_front()) {
            (Some(batch), Some(model)) => (batch, model),
            _ => (Batch::new().expect("memory"), VecDeque::new()),
        }
    }

    fn put_batch(&mut self, batch: Batch<Tagged>, model: VecDeque<u64>) {
        self.mine.batches.push_back(batch);
        self.model_mine.batches.push_back(model);
    }

    fn step(&mut self, step: Step) {
        let Step {
            what,
            peer: index,
            to,
            dies,
        } = step;
        let peer = self.peer(index);
        match what {
            0 => self.new_object(),
            1 => {
                let (object, _) = self.take_object();
                drop(object);
            }
            2 => {
                let (object, tag) = self.take_object();
                let (mut batch, mut model) = self.take_batch();
                match batch.push(object) {
                    Ok(()) => model.push_back(tag),
                    Err(object) => drop(object),
                }
                self.put_batch(batch, model);
            }
            3 | 4 => {
                let (mut batch, mut model) = self.take_batch();
                let (object, tag) = match what {
                    3 => (batch.pop(), model.pop_back()),
                    _ => (batch.pop_front(), model.pop_front()),
                };
                assert_eq!(object.as_deref().map(tag_of), tag);
                self.mine.objects.extend(object);
                self.model_mine.objects.extend(tag);
                self.put_batch(batch, model);
            }
            5 => {
                let (mut first, mut first_model) = self.take_batch();
                let (mut second, mut second_model) = self.take_batch();
                let moved = first.room().min(second.len());
                first.append(&mut second);
                first_model.extend(second_model.drain(..moved));
                self.put_batch(first, first_model);
                self.put_batch(second, second_model);
            }
            6 => drop(self.take_batch()),
            7 => {
                let tag = self.next_tag;
                self.next_tag += 1;
                if self.outcome(index, dies, peer.make(tag, dies)).is_some() {
                    self.model[index].objects.push_back(tag);
                }
            }
            8 => {
                let (object, tag) = self.take_object();
                if self.outcome(index, dies, peer.keep(object, dies)).is_some() {
                    self.model[index].objects.push_back(tag);
                }
            }
            9 => {
                let (batch, model) = self.take_batch();
                if self.outcome(index, dies, peer.keep_batch(batch, dies)).is_some() {
                    self.model[index].batches.push_back(model);
                }
            }
            10 => {
                if let Some(object) = self.outcome(index, dies, peer.give(dies)) {
                    let tag = self.model[index].objects.pop_front();
                    assert_eq!(object.as_deref().map(tag_of), tag);
                    self.mine.objects.extend(object);
                    self.model_mine.objects.extend(tag);
                }
            }
            11 => {
                if let Some(batch) = self.outcome(index, dies, peer.give_batch(dies)) {
                    self.mine.batches.extend(batch);
                    let model = self.model[index].batches.pop_front();
                    self.model_mine.batches.extend(model);
                }
            }
            12 => {
                let (object, tag) = self.take_object();
                if let Some(seen) = self.outcome(index, dies, peer.look(&object, dies)) {
                    assert_eq!(seen, tag);
                }
                // Lent, so it is still here, whatever became of the callee.
                self.mine.objects.push_back(object);
                self.model_mine.objects.push_back(tag);
            }
            13 => {
                let (batch, mut model) = self.take_batch();
                if let Some(batch) = self.outcome(index, dies, peer.trade(batch, dies)) {
                    let first = model.pop_front();
                    if model.len() < rref::BATCH_CAPACITY {
                        model.extend(self.model[index].objects.pop_front());
                    }
                    self.model[index].objects.extend(first);
                    self.put_batch(batch, model);
                }
            }
            14 if index != to => {
                let (object, tag) = self.take_object();
                let killed = dies != Dies::Never;
                let result = peer.pass_on(object, to as u32, killed);
                // The one in the middle may die; what it passed on arrives all the same.
                self.outcome(index, dies, result);
                self.model[to].objects.push_back(tag);
            }
            15 => {
                let discarded = self.outcome(index, dies, peer.discard(dies));
                discarded.and_then(|()| self.model[index].objects.pop_front());
            }
            16 => {
                host_platform::kill(NAMES[index]);
                // Before anybody has noticed, it already answers with an error, and what was to be given to it stays here.
                let (object, _) = self.take_object();
                let result = peer.keep(object, Dies::Never);
                assert!(matches!(result, Err(PeerError::Dead(error)) if !error.during_call()));
                self.buried(index);
            }
            _ => {}
        }
    }

    fn check(&self) {
        assert_eq!(Belongings::of(&self.mine), self.model_mine, "the host's");
        assert_eq!(
            self.heap.owned_bytes(host_domain()),
            self.model_mine.owned_bytes()
        );
        let mut all = self.model_mine.all_bytes();
        for ((domain, model), incarnation) in DOMAINS.iter().zip(&self.model).zip(self.incarnations) {
            assert_eq!(
                Belongings::of(&domain.private()),
                *model,
                "{}",
                NAMES[domain.index]
            );
            assert_eq!(self.heap.owned_bytes(incarnation), model.owned_bytes());
            all += model.all_bytes();
        }
        assert_eq!(self.heap.usage().used_bytes, all, "lost, or freed twice");
    }

    fn end(mut self) {
        for (index, name) in NAMES.iter().enumerate() {
            host_platform::kill(name);
            self.buried(index);
        }
        let heap = self.heap;
        drop(self);
        assert_eq!(heap.usage().used_bytes, 0, "something is lost");
        assert!(heap.released_was_untouched());
    }
}

#[derive(Clone, Copy, Debug)]
struct Step {
    what: u8,
    peer: usize,
    to: usize,
    dies: Dies,
}

fn step() -> impl Strategy<Value = Step> {
    let dies = prop_oneof![4 => Just(Dies::Never), 1 => Just(Dies::Before), 1 => Just(Dies::After)];
    (0u8..17, 0..PEERS, 0..PEERS, dies).prop_map(|(what, peer, to, dies)| Step { what, peer, to, dies })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ownership_follows_the_model_through_calls_and_deaths(steps in proptest::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        world.end();
    }
}
