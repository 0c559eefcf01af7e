//! Tests of `estate.rs`: what is left, to whom, in which order, and that each object has one end.

use super::*;
use crate::shared_heap::tests::{HostSpans, owner, push, set_owner};
use abi::object::HEADER_BYTES;
use proptest::prelude::*;

type Heap = SharedHeap<HostSpans>;

/// Where rings of these tests are, by queue.
fn ring(queue: u16) -> TransmitPlace {
    TransmitPlace::first(0x10_0000 * (usize::from(queue) + 1), queue, 64)
}

fn plain(heap: &mut Heap, slot: u16, tag: u64) -> usize {
    let payload = heap
        .allocate(100, ObjectKind::Plain, owner(slot))
        .expect("memory");
    // SAFETY: Allocated above.
    unsafe { header_of(payload) }.tag.store(tag, Ordering::Relaxed);
    payload
}

fn packet(heap: &mut Heap, slot: u16, verdict: Verdict, place: TransmitPlace) -> usize {
    let payload = heap
        .allocate(size_of::<Packet>(), ObjectKind::Packet, owner(slot))
        .expect("memory");
    // SAFETY: Allocated above.
    unsafe {
        header_of(payload).place.store(place.0, Ordering::Relaxed);
        (*(payload as *mut Packet)).verdict = verdict;
    }
    payload
}

fn batch(heap: &mut Heap, slot: u16) -> usize {
    heap.allocate(size_of::<BatchBody>(), ObjectKind::Batch, owner(slot))
        .expect("memory")
}

fn block(heap: &mut Heap, slot: u16) -> usize {
    heap.allocate(size_of::<rref::Block>(), ObjectKind::Block, owner(slot))
        .expect("memory")
}

/// A batch with so many blocks.
fn requests(heap: &mut Heap, slot: u16, count: usize) -> (usize, Vec<usize>) {
    let batch = batch(heap, slot);
    let blocks: Vec<usize> = (0..count).map(|_| block(heap, slot)).collect();
    for &block in &blocks {
        push(batch, block);
        set_owner(block, OwnerId::NESTED);
    }
    (batch, blocks)
}

/// What `heir` takes of blocks, sorted.
fn inherited_blocks(heap: &mut Heap, heir: OwnerId) -> Vec<usize> {
    let mut blocks: Vec<usize> = core::iter::from_fn(|| heap.inherit(heir, ObjectKind::Block, 0)).collect();
    blocks.sort_unstable();
    blocks
}

fn sorted(mut payloads: Vec<usize>) -> Vec<usize> {
    payloads.sort_unstable();
    payloads
}

fn inherited(heap: &mut Heap, slot: u16) -> Vec<usize> {
    core::iter::from_fn(|| heap.inherit(owner(slot), ObjectKind::Packet, 0)).collect()
}

fn no_ring(_: TransmitPlace) -> Option<bool> {
    None
}

#[test]
fn tagged_objects_go_to_the_heir_whichever_of_its_incarnations_asks() {
    let mut heap = Heap::new(HostSpans);
    let kept = plain(&mut heap, 1, 7);
    plain(&mut heap, 1, 0);
    let reclaimed = heap.reclaim_for(owner(1), 2, true, no_ring);
    assert_eq!(reclaimed.owned, 2);
    assert_eq!(heap.owned_bytes(OwnerId::estate(2)), reclaimed.left_bytes);
    assert_eq!(heap.inherit(owner(2), ObjectKind::Plain, 8), None, "another tag");
    assert_eq!(
        heap.inherit(owner(2), ObjectKind::Packet, 7),
        None,
        "another kind"
    );
    assert_eq!(
        heap.inherit(owner(3), ObjectKind::Plain, 7),
        None,
        "another domain"
    );
    let next = OwnerId::new(2, 5);
    assert_eq!(heap.inherit(next, ObjectKind::Plain, 7), Some(kept));
    assert_eq!(heap.inherit(next, ObjectKind::Plain, 7), None, "it is taken once");
    assert_eq!(heap.reclaim(next), 1);
    assert_eq!(heap.usage().used_bytes, 0);
}

#[test]
fn a_domain_may_be_its_own_heir_again_and_again() {
    let mut heap = Heap::new(HostSpans);
    let kept = plain(&mut heap, 1, 7);
    for generation in 1..20 {
        heap.reclaim_for(OwnerId::new(1, generation), 1, true, no_ring);
        assert_eq!(
            heap.inherit(OwnerId::new(1, generation + 1), ObjectKind::Plain, 7),
            Some(kept)
        );
    }
}

#[test]
fn an_heir_that_dies_before_it_has_taken_all_leaves_the_rest_too() {
    let mut heap = Heap::new(HostSpans);
    let objects = [plain(&mut heap, 1, 7), plain(&mut heap, 1, 8)];
    heap.reclaim_for(owner(1), 1, true, no_ring);
    for generation in 2..6 {
        let incarnation = OwnerId::new(1, generation);
        assert_eq!(heap.inherit(incarnation, ObjectKind::Plain, 7), Some(objects[0]));
        heap.reclaim_for(incarnation, 1, true, no_ring);
    }
    let last = OwnerId::new(1, 6);
    assert_eq!(heap.inherit(last, ObjectKind::Plain, 8), Some(objects[1]));
    assert_eq!(heap.inherit(last, ObjectKind::Plain, 7), Some(objects[0]));
}

#[test]
fn names_that_nobody_asks_for_do_not_pile_up() {
    let mut heap = Heap::new(HostSpans);
    for generation in 1..100 {
        let payload = plain(&mut heap, 1, generation);
        set_owner(payload, OwnerId::new(1, generation));
        heap.reclaim_for(OwnerId::new(1, generation), 2, true, no_ring);
        assert!(heap.usage().used_bytes <= 10 * size_of_object(payload));
    }
}

#[test]
fn what_nobody_takes_goes_with_the_next_death() {
    let mut heap = Heap::new(HostSpans);
    for generation in 1..20 {
        let payload = plain(&mut heap, 1, 7);
        set_owner(payload, OwnerId::new(1, generation));
        heap.reclaim_for(OwnerId::new(1, generation), 2, true, no_ring);
        assert_eq!(heap.usage().used_bytes, heap.owned_bytes(OwnerId::estate(2)));
    }
    let one = heap.usage().used_bytes;
    assert!(one < 1000, "{one} bytes are more than one object");
}

#[test]
fn unsent_packets_are_left_in_the_order_of_their_ring() {
    let mut heap = Heap::new(HostSpans);
    // Counts that wrap, allocated in another order than they were put in.
    let counts = [0xf_ffff, 0x10_0001, 0xf_fffd, 0x10_0000, 0xf_fffe];
    let packets: Vec<(u32, usize)> = counts
        .iter()
        .map(|&count| (count, packet(&mut heap, 1, Verdict::Transmit, ring(3).at(count))))
        .collect();
    packet(&mut heap, 1, Verdict::Empty, ring(3).at(0xf_ffff));
    let waiting = batch(&mut heap, 1);
    for verdict in [Verdict::Transmit, Verdict::Received] {
        // A place of an earlier round, which means nothing.
        let nested = packet(&mut heap, 1, verdict, ring(3).at(0xf_fffc));
        push(waiting, nested);
        set_owner(nested, OwnerId::NESTED);
    }
    // The device has reported 0xffffe, and so 0xffffd.
    let sent =
        |place: TransmitPlace| (place.base() == ring(3).base()).then_some(place == ring(3).at(0xf_fffe));
    heap.reclaim_for(owner(1), 2, true, sent);

    let left = inherited(&mut heap, 2);
    let expected: Vec<usize> = [0xf_ffff, 0x10_0000, 0x10_0001]
        .iter()
        .filter_map(|count| packets.iter().find(|(of, _)| of == count))
        .map(|(_, payload)| *payload)
        .collect();
    assert_eq!(left.len(), 4, "three of the ring, one of the batch");
    assert_eq!(left[..3], expected);
    // SAFETY: They live, and are packets.
    assert!(left[..3].iter().all(|&payload| {
        // SAFETY: The payload of a live packet that this test owns.
        unsafe { (*(payload as *const Packet)).queue == 3 }
    }));
    heap.free_all(&left);
    assert_eq!(heap.usage().used_bytes, 0, "the batch and the others are free");
}

#[test]
fn who_drives_no_device_leaves_no_packets() {
    let mut heap = Heap::new(HostSpans);
    let batch = batch(&mut heap, 1);
    let nested = packet(&mut heap, 1, Verdict::Transmit, TransmitPlace::NONE);
    push(batch, nested);
    set_owner(nested, OwnerId::NESTED);
    plain(&mut heap, 1, 7);
    heap.reclaim_for(owner(1), 1, false, no_ring);
    assert_eq!(inherited(&mut heap, 1), []);
    assert_eq!(heap.usage().used_bytes, heap.owned_bytes(OwnerId::estate(1)));
    assert!(heap.inherit(owner(1), ObjectKind::Plain, 7).is_some());
}

#[test]
fn a_report_stands_for_its_own_ring_only() {
    let mut heap = Heap::new(HostSpans);
    let one = packet(&mut heap, 1, Verdict::Transmit, ring(0).at(5));
    packet(&mut heap, 1, Verdict::Transmit, ring(1).at(6));
    let last = packet(&mut heap, 1, Verdict::Transmit, ring(1).at(7));
    heap.reclaim_for(owner(1), 2, true, |place| Some(place == ring(1).at(6)));
    assert_eq!(inherited(&mut heap, 2), [one, last]);
}

#[test]
fn a_block_begins_a_page() {
    let mut heap = Heap::new(HostSpans);
    for _ in 0..40 {
        let block = block(&mut heap, 1);
        assert_eq!((block + rref::Block::DATA_OFFSET) % rref::block::BLOCK_BYTES, 0);
    }
}

#[test]
fn all_requests_of_a_driver_are_left_wherever_they_are() {
    let mut heap = Heap::new(HostSpans);
    let (_, mut blocks) = requests(&mut heap, 1, 5);
    blocks.push(block(&mut heap, 1));
    // Death in the middle of a push: in the batch, and still under its owner's name.
    let half = block(&mut heap, 1);
    let other = batch(&mut heap, 1);
    push(other, half);
    blocks.push(half);
    block(&mut heap, 2);
    heap.reclaim_for(owner(1), 2, true, no_ring);
    assert_eq!(inherited_blocks(&mut heap, owner(3)), []);
    assert_eq!(inherited_blocks(&mut heap, owner(2)), sorted(blocks));
    heap.reclaim(owner(2));
    assert_eq!(heap.usage().used_bytes, 0);
}

#[test]
fn requests_outlast_any_number_of_their_drivers_deaths() {
    let mut heap = Heap::new(HostSpans);
    let mut blocks = requests(&mut heap, 1, 5).1;
    for generation in 1..100 {
        let incarnation = OwnerId::new(1, generation);
        if generation > 1 {
            let later = block(&mut heap, 1);
            set_owner(later, incarnation);
            blocks.push(later);
        }
        heap.reclaim_for(incarnation, 2, true, no_ring);
    }
    assert_eq!(inherited_blocks(&mut heap, OwnerId::new(2, 7)), sorted(blocks));
}

#[test]
fn requests_go_with_the_heir_that_waits_for_them() {
    let mut heap = Heap::new(HostSpans);
    requests(&mut heap, 1, 5);
    heap.reclaim_for(owner(1), 2, true, no_ring);
    heap.reclaim(owner(3));
    assert_ne!(heap.usage().used_bytes, 0);
    heap.reclaim(owner(2));
    assert_eq!(heap.usage().used_bytes, 0);
    requests(&mut heap, 1, 5);
    heap.reclaim_for(owner(1), 2, true, no_ring);
    heap.reclaim_for(owner(2), 4, false, no_ring);
    assert_eq!(heap.usage().used_bytes, 0, "with an heir of its own too");
}

#[test]
fn a_driver_that_hoards_requests_leaves_so_many_and_the_oldest() {
    let mut heap = Heap::new(HostSpans);
    let first = requests(&mut heap, 1, 5).1;
    heap.reclaim_for(owner(1), 2, true, no_ring);
    for generation in 2..12 {
        for _ in 0..4096 {
            let hoarded = block(&mut heap, 1);
            set_owner(hoarded, OwnerId::new(1, generation));
        }
        heap.reclaim_for(OwnerId::new(1, generation), 2, true, no_ring);
    }
    let left = inherited_blocks(&mut heap, owner(2));
    assert!(left.len() <= REQUEST_LIMIT);
    assert!(first.iter().all(|block| left.contains(block)));
}

#[test]
fn what_a_dead_driver_could_not_be_given_is_its_heirs() {
    let mut heap = Heap::new(HostSpans);
    let (batch, mut blocks) = requests(&mut heap, 2, 5);
    let packet = packet(&mut heap, 2, Verdict::Transmit, TransmitPlace::NONE);
    push(batch, packet);
    set_owner(packet, OwnerId::NESTED);
    let held = requests(&mut heap, 1, 3).1;
    blocks.extend(held);
    heap.leave_undelivered(batch, owner(2), owner(1));
    heap.reclaim_for(owner(1), 2, true, no_ring);
    assert_eq!(inherited_blocks(&mut heap, owner(2)), sorted(blocks));
    heap.reclaim(owner(2));
    assert_eq!(heap.usage().used_bytes, 0);
}

#[derive(Clone, Debug)]
enum Form {
    Block,
    Plain(u64),
    Packet(bool),
    /// With its packets and blocks.
    Batch(Vec<(usize, Form)>),
}

#[derive(Clone, Debug)]
struct Object {
    payload: usize,
    slot: u16,
    form: Form,
}

fn size_of_object(payload: usize) -> u64 {
    // SAFETY: The model says that it lives.
    unsafe { header_of(payload) }.size + HEADER_BYTES as u64
}

proptest! {
    /// Random allocate, move, nest, free, kill and inherit against a model: everything has one owner and one end.
    #[test]
    fn heirs_follow_the_model(steps in proptest::collection::vec((0u8..11, 0usize..64, 1u16..4, 1u16..4), 1..300)) {
        let mut heap = Heap::new(HostSpans);
        let mut live: Vec<Object> = Vec::new();
        // With who left it, and that one's deaths since.
        let mut left: Vec<(Object, u16, u8)> = Vec::new();
        let mut count = 0;
        for (step, pick, slot, other) in steps {
            let index = pick % live.len().max(1);
            match step {
                0 => {
                    let tag = pick as u64 % 3;
                    live.push(Object { payload: plain(&mut heap, slot, tag), slot, form: Form::Plain(tag) });
                }
                1 => {
                    count += 1;
                    let verdict = if pick % 2 == 0 { Verdict::Transmit } else { Verdict::Received };
                    let payload = packet(&mut heap, slot, verdict, ring(slot).at(count));
                    live.push(Object { payload, slot, form: Form::Packet(pick % 2 == 0) });
                }
                2 => live.push(Object { payload: batch(&mut heap, slot), slot, form: Form::Batch(Vec::new()) }),
                3 if !live.is_empty() => {
                    let object = live.swap_remove(index);
                    // SAFETY: The model says that it lives and is nobody's part.
                    prop_assert!(unsafe { heap.free(object.payload) }, "freed twice");
                }
                4 if !live.is_empty() => {
                    live[index].slot = slot;
                    set_owner(live[index].payload, owner(slot));
                }
                5 => {
                    let packet = live.iter().position(|object| matches!(object.form, Form::Packet(_) | Form::Block));
                    let room = live.iter().position(|object| matches!(&object.form, Form::Batch(nested) if nested.len() < BATCH_CAPACITY));
                    if let (Some(packet), Some(room)) = (packet, room) {
                        let form = live[packet].form.clone();
                        let payload = live[packet].payload;
                        push(live[room].payload, payload);
                        set_owner(payload, OwnerId::NESTED);
                        if let Form::Batch(nested) = &mut live[room].form {
                            nested.push((payload, form));
                        }
                        live.swap_remove(packet);
                    }
                }
                6 => {
                    let tags: Vec<u64> = live.iter().filter(|object| object.slot == slot).filter_map(|object| match object.form {
                        Form::Plain(tag) => Some(tag),
                        _ => None,
                    }).collect();
                    left.retain_mut(|(object, from, passes)| {
                        *passes += u8::from(*from == slot);
                        match object.form {
                            Form::Block => object.slot != slot,
                            Form::Plain(tag) => *from != slot || *passes <= PASSES && !tags.contains(&tag),
                            _ => *from != slot,
                        }
                    });
                    heap.reclaim_for(owner(slot), other, true, |_| Some(false));
                    for object in live.extract_if(.., |object| object.slot == slot) {
                        let heirloom = |payload, form| (Object { payload, slot: other, form }, slot, 0);
                        match object.form {
                            Form::Plain(0) | Form::Packet(false) => {}
                            Form::Plain(_) | Form::Packet(true) | Form::Block => left.push(heirloom(object.payload, object.form)),
                            Form::Batch(nested) => left.extend(nested.into_iter()
                                .filter(|(_, form)| !matches!(form, Form::Packet(false)))
                                .map(|(payload, form)| heirloom(payload, form))),
                        }
                    }
                }
                7 => live.push(Object { payload: block(&mut heap, slot), slot, form: Form::Block }),
                8 => {
                    // A driver in slot `other` was dead before it could have it.
                    let batch = live.iter().position(|object| object.slot == slot && matches!(object.form, Form::Batch(_)));
                    if let Some(batch) = batch {
                        let object = live.swap_remove(batch);
                        heap.leave_undelivered(object.payload, owner(slot), owner(other));
                        if let Form::Batch(nested) = object.form {
                            left.extend(nested.into_iter().filter(|(_, form)| matches!(form, Form::Block))
                                .map(|(payload, form)| (Object { payload, slot, form }, other, 0)));
                        }
                    }
                }
                _ => {
                    let tag = pick as u64 % 4;
                    let kind = [ObjectKind::Packet, ObjectKind::Plain, ObjectKind::Plain, ObjectKind::Block][tag as usize];
                    let taken = heap.inherit(owner(slot), kind, tag);
                    let fits = |object: &Object| object.slot == slot && match object.form {
                        Form::Packet(_) => tag == 0,
                        Form::Plain(of) => tag == of,
                        Form::Block => tag == 3,
                        Form::Batch(_) => false,
                    };
                    prop_assert_eq!(taken.is_some(), left.iter().any(|(object, ..)| fits(object)));
                    if let Some(payload) = taken {
                        let place = left.iter().position(|(object, ..)| object.payload == payload && fits(object));
                        prop_assert!(place.is_some(), "not what was left");
                        live.push(left.swap_remove(place.unwrap_or_default()).0);
                    }
                }
            }
            let expected: u64 = live.iter().chain(left.iter().map(|(object, ..)| object)).map(|object| {
                let nested: u64 = match &object.form {
                    Form::Batch(nested) => nested.iter().map(|(payload, _)| size_of_object(*payload)).sum(),
                    _ => 0,
                };
                size_of_object(object.payload) + nested
            }).sum();
            prop_assert_eq!(heap.usage().used_bytes, expected);
        }
        for slot in 1..4 {
            heap.reclaim(owner(slot));
            for _ in 0..=PASSES {
                heap.reclaim_for(owner(slot), 3, true, no_ring);
            }
        }
        prop_assert_eq!(heap.usage().used_bytes, 0);
    }
}
