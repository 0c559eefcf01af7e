//! Logs and events.

use crate::support::{Ask, Board, read};
use interface::block::{BlockDevice, BlockError};
use interface::storage_health::{EventKind, HealthError, StorageHealth};
use rref::block::Fault;

#[test]
fn smart_and_errors_are_read() {
    let board = Board::new();
    let driver = board.up(1);
    board.model().errors = vec![(7, 0x4281), (6, 0x4002)];
    assert_eq!(driver.block.smart(0).unwrap().temperature_kelvin, 300);
    let entries: Vec<(u64, u16)> = (0..16)
        .map_while(|index| driver.block.error_entry(0, index).unwrap())
        .map(|entry| (entry.number, entry.status))
        .collect();
    assert_eq!(entries, [(7, 0x4281), (6, 0x4002)]);
    assert_eq!(driver.block.error_entry(0, 16), Ok(None));
    assert_eq!(driver.block.smart(1), Err(HealthError::NoController));
}

#[test]
fn a_warning_is_an_event_and_the_next_one_too() {
    let board = Board::new();
    let driver = board.up(1);
    for (bits, event) in [(1, 0x0002_0201), (4, 0x0002_0001)] {
        board.model().critical_warning = bits;
        board.model().raise(event);
        driver.device.service();
    }
    board.model().raise(0x0001_0300);
    board.model().raise(0x00AB_CD06);
    driver.device.service();
    let kinds: Vec<EventKind> = (1..10)
        .map_while(|number| driver.block.event(0, number).unwrap())
        .map(|event| event.kind)
        .collect();
    assert_eq!(
        kinds,
        [
            EventKind::Started,
            EventKind::Warning(1),
            EventKind::Warning(4),
            EventKind::Error(3),
            EventKind::Other(0x00AB_CD06)
        ]
    );
    board.assert_clean();
}

#[test]
fn namespaces_may_go_and_come_back() {
    let board = Board::new();
    let driver = board.up(1);
    let changes = driver.block.info().unwrap().changes;
    board.model().namespaces[0].active = false;
    board.model().raise(0x0004_0002);
    driver.device.service();
    assert_eq!(driver.block.info().unwrap().changes, changes + 1);
    assert_eq!(
        driver.block.unit(0),
        Err(BlockError::NoUnit { unit: 0, units: 2 })
    );
    let second = Ask {
        unit: 1,
        ..read(0, 1)
    };
    let told = driver.run(&[read(0, 1), second]);
    assert_eq!((told[0].result, told[1].result), (Err(Fault::Gone), Ok(())));
    board.model().namespaces[0].active = true;
    board.model().raise(0x0004_0002);
    driver.device.service();
    assert_eq!(driver.run(&[read(0, 1)])[0].result, Ok(()));
}

/// A caller gets its error, and the controller the reset that it needs.
#[test]
fn a_controller_that_does_not_answer_a_question_is_reset() {
    let board = Board::new();
    let driver = board.up(1);
    board.model().faults.mute_admin = true;
    assert_eq!(driver.block.smart(0), Err(HealthError::TimedOut));
    board.model().faults.mute_admin = false;
    driver.device.service();
    assert_eq!(driver.block.smart(0).map(|smart| smart.critical_warning), Ok(0));
    assert_eq!(driver.block.statistics().unwrap().resets, 1);
    board.assert_clean();
}
