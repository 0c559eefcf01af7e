//! The loop of one queue.
//!
//! A turn exchanges one batch with the device, hands what arrived on, and keeps what is to be sent for the next turn, which
//! follows at once. Nothing here allocates while traffic is steady, takes a lock that others hold, or looks further into a packet
//! than its destination.

use crate::destination::Recent;
use crate::processor::{Answer, Processor};
use crate::services::Services;
use crate::stock::Stock;
use alloc::collections::VecDeque;
use domain_rt::clock;
use domain_rt::thread::Wake;
use domain_rt::{Handle, OwnerId, thread};
use interface::net::{Exchanged, NetDevice, NetError};
use log::{error, warn};
use rref::packet::{Marks, Verdict};
use rref::{BATCH_CAPACITY, OutOfMemory, Packet, PacketBatch};

/// Frames that make an exchange worth its fixed cost: when fewer came, the next ones are let gather for a while.
const GATHER: usize = 8;
/// How long they are, nanoseconds: what network cards' interrupt moderation waits too, far less than a ring takes to fill.
const GATHER_NS: u64 = 50_000;
/// The same for a stream of packets for the balancer, of which two turns bring at least so many: what Linux' ixgbe does for bulk traffic (its
/// adaptive moderation: 8,000 interrupts a second).
const STREAM: usize = 4;
/// Packets of a stream that make an exchange worth its cost.
const STREAM_GATHER: usize = 16;
/// How long those of a stream are let gather at most, nanoseconds.
const STREAM_GATHER_NS: u64 = 125_000;
/// How long at least: a pause is made shorter while more than a batch comes in it, so that a fast stream doesn't fill the ring meanwhile.
const STREAM_GATHER_FLOOR_NS: u64 = 8_000;
/// How long frames are let gather that come while the stack's applications have nothing to say, nanoseconds: they are at work on what came before, or wait
/// for the rest of a request. One of them that writes ends the pause. Each time that they have nothing to say again it is twice as long as before, up to
/// [`LONGEST_QUIET_GATHER_NS`]: whoever waits for a disk takes no requests meanwhile.
const QUIET_GATHER_NS: u64 = 100_000;
/// How long such a pause is at most, nanoseconds.
const LONGEST_QUIET_GATHER_NS: u64 = 400_000;
/// How long a queue without traffic is looked at every [`GATHER_NS`] before it sleeps until the next interrupt, nanoseconds.
const AWAKE_NS: u64 = 200_000;
/// The stack is called at least this often while other traffic keeps the loop busy, nanoseconds: what applications write waits for it.
const STACK_POLL_NS: u64 = 100_000;
/// How long a queue sleeps at most while the device takes no more frames, nanoseconds.
const BLOCKED_WAIT_NS: u64 = 1_000_000;
/// Batches that wait for the device at most; frames beyond are dropped, as by any full queue.
const PENDING_LIMIT: usize = 8;
/// Batches that wait for the device while the stack isn't asked for more.
const PENDING_ENOUGH: usize = 2;
/// Empty packets that go with an exchange at least, so that receiving gets going again.
const EMPTY_FLOOR: usize = 4;
/// Pause after an error that a pause may cure, milliseconds.
const ERROR_PAUSE_MS: u64 = 10;
/// How long one try to reach another NIC waits, milliseconds.
const NIC_WAIT_MS: u64 = 1_000;

/// Names of the imports in the manifest.
pub struct Imports {
    /// The network device.
    pub nic: &'static str,
    /// The local stack's packet path.
    pub stack: &'static str,
    /// The balancer's packet path.
    pub balancer: &'static str,
    /// The balancer's list of services.
    pub services: &'static str,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Packets moved, or there are some to move.
    Busy,
    /// Nothing to do.
    Idle,
}

/// The loop of one queue.
pub struct Runner {
    queue: u16,
    nic_import: &'static str,
    nic: Handle<dyn NetDevice>,
    stack: Processor,
    balancer: Processor,
    services: Services,
    stock: Stock,
    /// A few empty packets for asking the stack whether it has something.
    probe: Option<PacketBatch>,
    /// Frames for the device, oldest first.
    pending: VecDeque<PacketBatch>,
    /// The device gave frames back: its ring is full.
    blocked: bool,
    /// The stack may have something to send although it didn't say so: an application ran, or woke this thread.
    ask_stack: bool,
    /// What the last exchange received, and how many empty packets it was given.
    received: usize,
    given: usize,
    /// What the one before that received.
    received_before: usize,
    /// How long a stream's packets are let gather, nanoseconds.
    stream_pause_ns: u64,
    /// When the queue became idle.
    idle_since_ns: Option<u64>,
    /// The last time without traffic ended while the queue was looked at: the next one probably does so too. Else it is slept through.
    looking_pays: bool,
    /// When this thread last came back from a park: it knows of all that applications wrote before.
    parked_ns: u64,
    /// It has just come back from one.
    parked: bool,
    /// The stack's frames wait for the device: peers and applications wait for them.
    urgent: bool,
    /// What the last turn brought for the stack has led to nothing to be sent.
    unanswered: bool,
    /// How long frames are let gather the next time that this is so, nanoseconds.
    quiet_pause_ns: u64,
    /// All of the last batch was the balancer's: then the next one's is looked at for that first.
    all_virtual: bool,
    /// What came was let gather before this turn, so what it brought goes on without another pause.
    gathered: bool,
}

impl Runner {
    /// A runner of `queue`; it connects to the processors as it goes.
    pub fn new(queue: u16, nic: Handle<dyn NetDevice>, imports: &Imports) -> Runner {
        Runner {
            queue,
            nic_import: imports.nic,
            nic,
            stack: Processor::new(imports.stack, queue),
            balancer: Processor::new(imports.balancer, queue),
            services: Services::new(imports.services),
            stock: Stock::new(),
            probe: None,
            pending: VecDeque::with_capacity(PENDING_LIMIT + 1),
            blocked: false,
            ask_stack: false,
            received: 0,
            given: 0,
            received_before: 0,
            stream_pause_ns: STREAM_GATHER_NS,
            idle_since_ns: None,
            looking_pays: true,
            parked_ns: 0,
            parked: false,
            urgent: false,
            unanswered: false,
            quiet_pause_ns: QUIET_GATHER_NS,
            gathered: false,
            all_virtual: false,
        }
    }

    /// Runs the loop for the domain's life.
    pub fn run(mut self) {
        loop {
            let now_ns = clock::now_ns();
            let (_, awake_ns) = self.looks();
            match self.turn(now_ns) {
                Ok(Turn::Busy) => {
                    if let Some(since_ns) = self.idle_since_ns.take() {
                        self.looking_pays = now_ns.saturating_sub(since_ns) < awake_ns;
                    }
                    self.gather_if_few(now_ns);
                }
                Ok(Turn::Idle) => self.rest(now_ns),
                Err(error) => self.fail(error),
            }
        }
    }

    /// Exchanges a batch with the device and hands on what came.
    pub fn turn(&mut self, now_ns: u64) -> Result<Turn, NetError> {
        if self.balancer.connect(now_ns) {
            self.services.expire();
        }
        self.stack.connect(now_ns);
        if core::mem::take(&mut self.parked) {
            self.parked_ns = now_ns;
        }

        let transmit = match self.pending.pop_front() {
            Some(transmit) => transmit,
            None => self.stock.blank().map_err(no_memory)?,
        };
        let offered = transmit.len();
        let wanted = if self.blocked {
            // Most of the frames may come back.
            (BATCH_CAPACITY - offered).max(EMPTY_FLOOR)
        } else {
            empty_packets(offered, self.received, self.given)
        };
        let empty = self.stock.take_some(EMPTY_FLOOR, wanted).map_err(no_memory)?;
        self.urgent = false;
        self.given = empty.len();
        let Exchanged { received, spare } = self.nic.exchange(self.queue, transmit, empty)?;
        self.received_before = core::mem::replace(&mut self.received, received.len());
        self.take_spare(spare, offered);

        let (mut local, mut work) = (None, offered > 0 && !self.blocked);
        if received.is_empty() {
            self.stock.put(received);
        } else {
            work = true;
            self.services.refresh(now_ns);
            let (rest, virtual_service) = self.split(received);
            local = rest;
            if let Some(batch) = virtual_service {
                let answer = self.balancer.process(batch, now_ns);
                self.take_answer(answer);
            }
        }
        if self.balancer.is_connected() && (self.balancer.due_ns() <= now_ns || self.balancer.has_more()) {
            let empty = self
                .stock
                .take_some(EMPTY_FLOOR, BATCH_CAPACITY)
                .map_err(no_memory)?;
            let answer = self.balancer.process(empty, now_ns);
            work |= self.take_answer(answer);
        }
        let mut spent = None;
        let is_local = local.is_some();
        if let Some(batch) = local {
            let answer = self.stack.process(batch, now_ns);
            spent = self.take_local_answer(answer);
            // Applications of this CPU run now, and what they answer goes out with the next exchange.
            thread::yield_now();
            // What they wrote is asked for below, so their wake has done its work and must not end the next pause.
            thread::park_until(0);
            self.ask_stack = true;
        }
        if self.stack_has_work(now_ns, work) && self.pending.len() < PENDING_ENOUGH {
            if work && !self.ask_stack {
                // Nothing for the stack came for a while, so applications of this CPU didn't get their turn above.
                thread::yield_now();
            }
            self.ask_stack = false;
            work |= self.ask(spent.take(), now_ns)?;
        }
        if let Some(spent) = spent {
            self.stock.put(spent);
        }
        self.unanswered = is_local && self.pending.is_empty();
        if !self.pending.is_empty() {
            self.quiet_pause_ns = QUIET_GATHER_NS;
        }
        let more = self.stack.has_more() || self.balancer.has_more() || !self.pending.is_empty();
        Ok(if work || (more && !self.blocked) {
            Turn::Busy
        } else {
            Turn::Idle
        })
    }

    /// Has the stack send what it has, in packets that it has used up if there are any; whether it had something.
    #[inline]
    fn ask(&mut self, spent: Option<PacketBatch>, now_ns: u64) -> Result<bool, NetError> {
        let empty = if self.stack.has_more() {
            if let Some(spent) = spent {
                self.stock.put(spent);
            }
            self.stock.take_some(BATCH_CAPACITY, BATCH_CAPACITY)
        } else {
            // An answer to each packet is the rule, and mostly there is nothing when none came; for more the stack says so.
            match spent.or_else(|| self.probe.take()) {
                Some(few) => Ok(few),
                None => self.stock.take_some(EMPTY_FLOOR, EMPTY_FLOOR),
            }
        };
        let answer = self.stack.process(empty.map_err(no_memory)?, now_ns);
        Ok(match answer {
            Answer::Packets(unused) if all_empty(&unused) => {
                if self.probe.is_none() && unused.len() <= EMPTY_FLOOR {
                    self.probe = Some(unused);
                } else {
                    self.stock.put(unused);
                }
                false
            }
            answer => {
                let frames = self.take_answer(answer);
                self.urgent |= frames;
                frames
            }
        })
    }

    #[inline]
    fn stack_has_work(&self, now_ns: u64, busy: bool) -> bool {
        self.stack.is_connected()
            && (self.ask_stack
                || self.stack.has_more()
                || self.stack.due_ns() <= now_ns
                || busy && now_ns.saturating_sub(self.stack.called_ns().max(self.parked_ns)) >= STACK_POLL_NS)
    }

    /// After a turn that moved packets: when it brought few, lets the next ones gather, at most every other turn but where nobody has answered.
    #[inline]
    fn gather_if_few(&mut self, now_ns: u64) {
        let gathered = core::mem::take(&mut self.gathered);
        // A stream for the balancer only: what waits is one of many. Of two turns, since one that follows another at once brings few.
        let (enough, pause_ns) = if self.all_virtual && self.received + self.received_before >= STREAM {
            if gathered {
                self.stream_pause_ns = next_pause_ns(self.stream_pause_ns, self.received);
            }
            (STREAM_GATHER, self.stream_pause_ns)
        } else if self.unanswered {
            (GATHER, self.quiet_pause_ns)
        } else {
            (GATHER, GATHER_NS)
        };
        let few = self.received < enough && self.pending.len() <= 1 && !self.urgent;
        let more = self.stack.has_more() || self.balancer.has_more();
        if !few || more || gathered && !self.unanswered {
            return;
        }
        if self.unanswered {
            self.quiet_pause_ns = (self.quiet_pause_ns * 2).min(LONGEST_QUIET_GATHER_NS);
        }
        self.gather(now_ns, pause_ns);
    }

    /// Gives the CPU away for a while, or until an application has written something.
    fn gather(&mut self, now_ns: u64, pause_ns: u64) {
        self.gathered = true;
        self.parked = true;
        let deadline_ns = now_ns.saturating_add(pause_ns);
        if thread::park_until(deadline_ns) == Wake::Woken {
            self.ask_stack = true;
        }
    }

    /// How often a queue without traffic is looked at, and for how long before it sleeps, nanoseconds. Less often while applications have nothing to say:
    /// their peers wait for them.
    #[inline]
    fn looks(&self) -> (u64, u64) {
        if self.quiet_pause_ns > QUIET_GATHER_NS {
            (LONGEST_QUIET_GATHER_NS / 2, LONGEST_QUIET_GATHER_NS)
        } else {
            (GATHER_NS, AWAKE_NS)
        }
    }

    /// Looks on every now and then for a little while, then sleeps until the device, a processor or a deadline wants something.
    fn rest(&mut self, now_ns: u64) {
        let since_ns = *self.idle_since_ns.get_or_insert(now_ns);
        let (look_ns, awake_ns) = self.looks();
        if self.looking_pays && now_ns.saturating_sub(since_ns) < awake_ns {
            return self.gather(now_ns, look_ns);
        }
        if self.stack.is_connected() && self.stack.called_ns() < since_ns && !self.blocked {
            // An application may have written after the stack was last called, and the wake for it may have ended another wait of
            // this thread (for the NIC's next driver): ask before sleeping.
            self.ask_stack = true;
            return;
        }
        let mut deadline_ns = self.stack.due_ns().min(self.balancer.due_ns());
        if self.blocked {
            deadline_ns = deadline_ns.min(now_ns.saturating_add(BLOCKED_WAIT_NS));
        }
        let result = self.nic.wait(self.queue, deadline_ns);
        // Whatever ended the wait, it may have been an application that wrote.
        self.ask_stack = true;
        if let Err(error) = result {
            self.fail(error);
        }
    }

    /// Sorts a received batch into the stack's packets and the balancer's. A batch that is all the one's or all the other's,
    /// which is the rule, stays as it is.
    #[inline]
    fn split(&mut self, mut received: PacketBatch) -> (Option<PacketBatch>, Option<PacketBatch>) {
        if self.services.destinations().is_empty() {
            return (Some(received), None);
        }
        if self.all_virtual {
            let destinations = self.services.destinations_mut();
            let is_usual = |packet: &&Packet| {
                packet.marks() == Marks::RECEIVED && destinations.is_usually_virtual(packet.frame())
            };
            if received.iter().take_while(is_usual).count() == received.len() {
                return (None, Some(received));
            }
        }
        let destinations = self.services.destinations();
        let (mut mine, mut continues, mut recent) = (0u32, false, Recent::default());
        for (index, packet) in received.iter().enumerate() {
            // The parts of a long frame go where its head goes.
            let is_virtual = if continues {
                mine >> (index - 1) & 1 != 0
            } else {
                packet.vlan().is_none() && destinations.is_virtual(packet.frame(), &mut recent)
            };
            mine |= u32::from(is_virtual) << index;
            continues = packet.continues;
        }
        let count = mine.count_ones() as usize;
        self.all_virtual = count == received.len();
        if count == 0 {
            return (Some(received), None);
        }
        if count == received.len() {
            return (None, Some(received));
        }
        let (Ok(mut local), Ok(mut virtual_service)) = (self.stock.blank(), self.stock.blank()) else {
            // Out of memory for a batch: what arrived is lost.
            self.stock.recycle(received);
            return (None, None);
        };
        while let Some(packet) = received.pop_front() {
            let batch = if mine & 1 != 0 {
                &mut virtual_service
            } else {
                &mut local
            };
            mine >>= 1;
            // There is room: the parts are smaller than the whole.
            drop(batch.push(packet));
        }
        self.stock.put(received);
        (Some(local), Some(virtual_service))
    }

    /// Takes what a processor made of a batch; whether there are frames to send.
    #[inline]
    fn take_answer(&mut self, answer: Answer) -> bool {
        match answer {
            Answer::Packets(batch) => match self.stock.keep_empty(batch) {
                Some(frames) => {
                    self.send(frames);
                    true
                }
                None => false,
            },
            Answer::Unclaimed(batch) => {
                self.stock.recycle(batch);
                false
            }
            Answer::Lost => {
                self.services.expire();
                false
            }
        }
    }

    /// Takes what the stack made of received packets: frames to send, or packets that it has no use for yet.
    #[inline]
    fn take_local_answer(&mut self, answer: Answer) -> Option<PacketBatch> {
        match answer {
            Answer::Packets(batch) if all_empty(&batch) => Some(batch),
            answer => {
                self.urgent |= self.take_answer(answer);
                None
            }
        }
    }

    /// Queues frames for the device.
    #[inline]
    fn send(&mut self, mut frames: PacketBatch) {
        if let Some(last) = self.pending.back_mut()
            && last.room() >= frames.len()
        {
            last.append(&mut frames);
            self.stock.put(frames);
        } else if self.pending.len() < PENDING_LIMIT {
            self.pending.push_back(frames);
        } else {
            self.stock.recycle(frames);
        }
    }

    /// Takes what the device gave back of an exchange in which it was offered so many frames.
    #[inline]
    fn take_spare(&mut self, spare: PacketBatch, offered: usize) {
        self.blocked = false;
        if offered == 0 {
            return self.stock.put(spare);
        }
        let unsent = spare
            .get(0)
            .is_some_and(|packet| packet.verdict == Verdict::Transmit);
        if !unsent {
            return self.stock.put(spare);
        }
        if let Some(frames) = self.stock.keep_empty(spare) {
            // They go first, whatever waits behind them.
            self.blocked = true;
            self.pending.push_front(frames);
        }
    }

    #[cold]
    fn fail(&mut self, error: NetError) {
        match error {
            NetError::Dead(_) => self.reconnect(),
            error => {
                error!("queue {}: {error}", self.queue);
                thread::sleep_ms(ERROR_PAUSE_MS);
            }
        }
    }

    /// Waits for another NIC; there is nothing to do without one.
    fn reconnect(&mut self) {
        let dead: OwnerId = self.nic.target();
        warn!("queue {}: the NIC is dead; waiting for its successor", self.queue);
        loop {
            match domain_rt::reconnect(self.nic_import, dead, NIC_WAIT_MS) {
                Ok(nic) => {
                    self.nic = nic;
                    return;
                }
                Err(_) => thread::sleep_ms(ERROR_PAUSE_MS),
            }
        }
    }
}

#[inline]
fn all_empty(batch: &PacketBatch) -> bool {
    batch.iter().all(|packet| packet.verdict == Verdict::Empty)
}

fn no_memory(_: OutOfMemory) -> NetError {
    NetError::OutOfMemory
}

/// How long to let a stream's packets gather the next time, when so many came after a pause.
fn next_pause_ns(pause_ns: u64, received: usize) -> u64 {
    let next_ns = match received {
        BATCH_CAPACITY.. => pause_ns / 2,
        STREAM_GATHER.. => pause_ns,
        _ => pause_ns * 2,
    };
    next_ns.clamp(STREAM_GATHER_FLOOR_NS, STREAM_GATHER_NS)
}

/// Empty packets for an exchange: so many that what the device gives back fits the batch that it comes in.
///
/// A device gives back what it was offered to send once that is sent, and the empty packets that it doesn't need: as many as came
/// beyond what it received. When it received as many as it had been given there may be more to come, and it gets twice as many.
fn empty_packets(offered: usize, received: usize, given: usize) -> usize {
    let expected = if received >= given { received * 2 } else { received };
    (BATCH_CAPACITY + expected)
        .saturating_sub(offered)
        .clamp(EMPTY_FLOOR, BATCH_CAPACITY)
}
