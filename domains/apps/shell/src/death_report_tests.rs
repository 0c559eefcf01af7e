//! What the operator is told of a death, over black boxes that are played.

use crate::tests::fixture;
use interface::black_box::{
    BlackBox, BlackBoxes, Crossing, EventKind, FaultDetail, Frame, Position, Registers, SeenThread,
    TraceEvent,
};
use interface::kernel::{DomainName, ServiceError};
use rref::Text;
use serde_json::Value;

/// The box of death 2: a page fault in `harvest`, which the classifier had asked for.
pub struct Boxes;

impl BlackBoxes for Boxes {
    fn black_box(&self, number: u64) -> Result<Option<BlackBox>, ServiceError> {
        Ok((number == 2).then(|| BlackBox {
            number,
            domain: DomainName::new("ixgbe"),
            generation: 6,
            uptime_ns: 61_000_000_000,
            crossings: 12,
            crossings_since_boot: 34,
            memory_bytes: 1 << 20,
            threads: 3,
            shared_objects: Some(5),
            shared_bytes: Some(2048),
            seen_threads: 1,
            more_threads: 2,
            events: 2,
        }))
    }

    fn thread(&self, _number: u64, index: u16) -> Result<Option<SeenThread>, ServiceError> {
        Ok((index == 0).then(|| SeenThread {
            id: 33,
            name: Text::new("classifier/rx-0"),
            cpu: 1,
            position: Position::AtFault,
            fault: Some(FaultDetail {
                vector: 14,
                error: 2,
                address: Some(0xdead_0000),
                registers: Registers {
                    rip: 0x1234,
                    ..Registers::default()
                },
            }),
            frames: 2,
            is_exact: true,
            crossings: 2,
        }))
    }

    fn frame(&self, _number: u64, _thread: u16, index: u16) -> Result<Option<Frame>, ServiceError> {
        let frame = |domain, function, offset| Frame {
            address: 0x1234,
            domain: DomainName::new(domain),
            function: Text::new(function),
            offset,
        };
        let frames = [
            frame("ixgbe", "ixgbe::receive::harvest", 0x12),
            frame("classifier", "", 0),
        ];
        Ok(frames.get(usize::from(index)).copied())
    }

    fn crossing(&self, _number: u64, _thread: u16, index: u16) -> Result<Option<Crossing>, ServiceError> {
        let crossing = |callee, method| Crossing {
            callee: DomainName::new(callee),
            generation: 6,
            method: Text::new(method),
        };
        let crossings = [
            crossing("ixgbe", "NetDevice.exchange"),
            crossing("classifier", ""),
        ];
        Ok(crossings.get(usize::from(index)).copied())
    }

    fn event(&self, _number: u64, index: u16) -> Result<Option<TraceEvent>, ServiceError> {
        let event = |kind, text, count| TraceEvent {
            at_ns: 12_000_000_000,
            generation: 6,
            kind,
            text: Text::new(text),
            count,
        };
        let events = [
            event(EventKind::Loaded, "", 1),
            event(EventKind::Refused, "shared memory: quota", 7),
        ];
        Ok(events.get(usize::from(index)).copied())
    }
}

#[test]
fn a_death_is_shown_with_all_that_is_known_of_it() {
    let mut fixture = fixture();
    let report = fixture.session.answer("deaths 2");
    for text in [
        "Death 2: ixgbe, generation 6, 12.345 s after boot",
        "panic: index out of bounds at receive.rs:7",
        "generation 7 ran 4.500 ms later",
        "1 minute 1 second, 12 crossings into it (34 since boot)",
        "3 threads, 1.0 MiB of private memory, 5 shared objects of 2.0 KiB",
        "Thread 33 \"classifier/rx-0\" of classifier on CPU 1, at fault",
        "page fault writing to 0xdead0000: nothing is mapped there (error 0x2)",
        "rip   0000000000001234",
        "in ixgbe (NetDevice.exchange), called by classifier",
        "0  ixgbe       ixgbe::receive::harvest + 0x12",
        "1  classifier  0x1234",
        "and 2 more threads",
        "shared memory: quota (7 times)",
    ] {
        assert!(report.contains(text), "{text} is not in\n{report}");
    }
    let json = fixture.json("deaths 2 --json");
    assert_eq!(json["number"], 2);
    assert_eq!(json["restart_ns"], 4_500_000);
    let thread = &json["black_box"]["threads"][0];
    assert_eq!(thread["stack"][0]["function"], "ixgbe::receive::harvest");
    assert_eq!(thread["stack"][1]["function"], Value::Null);
    assert_eq!(thread["fault"]["registers"]["rip"], 0x1234);
    assert_eq!(thread["crossings"][0]["method"], "NetDevice.exchange");
    assert_eq!(json["black_box"]["events"][1]["count"], 7);

    let old = fixture.session.answer("deaths 1");
    assert!(old.contains("did its first work after 6.000 ms"), "{old}");
    assert!(old.contains("not kept any more"), "{old}");
    assert_eq!(fixture.json("deaths 1 --json")["black_box"], Value::Null);
    assert_eq!(
        fixture.session.answer("deaths 3"),
        "There is no death 3 yet: the newest is 2."
    );
}
