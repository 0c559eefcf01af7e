//! What the driver does when the controller doesn't do what it should.

use crate::support::{Ask, Board, ask, batch, read, write};
use interface::block::{BlockDevice, BlockError, WaitResult};
use interface::storage_health::{ControllerState, EventKind, StorageHealth};
use rref::BlockBatch;
use rref::block::{Fault, Operation};
use std::time::Duration;

#[test]
fn completions_for_nobody_and_second_ones_are_dropped() {
    let board = Board::new();
    let driver = board.up(1);
    board.model().faults.stray = Some(0x1234);
    board.model().faults.twice = true;
    for round in 0..20u8 {
        // Few enough that the queue of completions has room for all three of each.
        let asks: Vec<Ask> = (0..10).map(|index| write(index * 16, 8, round)).collect();
        assert!(driver.run(&asks).iter().all(|told| told.result.is_ok()));
    }
    let statistics = driver.block.statistics().unwrap();
    assert_eq!((statistics.writes, statistics.errors), (200, 0));
    assert_eq!(driver.block.controller(0).unwrap().unwrap().resets, 0);
}

#[test]
fn a_lost_interrupt_costs_time_only() {
    let board = Board::new();
    let driver = board.up(1);
    board.model().faults.no_interrupts = true;
    board.model().faults.hold = true;
    let left = driver.block.exchange(0, batch(&[read(0, 8)])).unwrap();
    assert!(left.is_empty());
    let releasing = board.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        releasing.model().release();
    });
    let deadline = domain_rt::clock::now_ns() + 10_000_000_000;
    assert_eq!(driver.block.wait(0, deadline), Ok(WaitResult::Ready));
    thread.join().unwrap();
    assert_eq!(driver.block.exchange(0, left).unwrap().len(), 1);
}

/// An abort that works gives the request another chance.
#[test]
fn an_aborted_command_is_tried_again() {
    let board = Board::new();
    let driver = board.up(1);
    board.model().faults.hold = true;
    board.model().faults.aborts_work = true;
    driver.submit(&[write(0, 8, 3)]);
    std::thread::sleep(Duration::from_millis(30));
    driver.device.service();
    board.model().faults.hold = false;
    let told = driver.collect(0, 1, BlockBatch::new().unwrap());
    assert_eq!(told[0].result, Ok(()));
    let statistics = driver.block.statistics().unwrap();
    assert_eq!(
        (statistics.timeouts, statistics.aborts, statistics.resets),
        (1, 1, 0)
    );
    assert_eq!(board.model().namespaces[0].data[0], 3);
    board.assert_clean();
}

/// A completion that comes after the abort was answered, and a second one, find nobody: the identifier isn't used again.
#[test]
fn late_completions_after_an_abort_do_no_harm() {
    let board = Board::new();
    board.model().queue_entries = 4;
    let driver = board.up(1);
    board.model().faults.hold = true;
    board.model().faults.abort_answers_twice = true;
    driver.submit(&[write(0, 8, 3)]);
    std::thread::sleep(Duration::from_millis(30));
    driver.device.service();
    let aborted = board.model().commands[0].id;
    board.model().faults.hold = false;
    let told = driver.collect(0, 1, BlockBatch::new().unwrap());
    assert_eq!(told[0].result, Ok(()));
    board.model().commands.clear();
    for _ in 0..600 {
        assert_eq!(driver.run(&[read(0, 8)])[0].result, Ok(()));
    }
    let model = board.model();
    assert!(
        model
            .commands
            .iter()
            .all(|entry| entry.id.to_le_bytes()[0] != aborted.to_le_bytes()[0])
    );
}

/// A command that an abort doesn't end is ended by a reset, and what was under way is carried out then: all of it, and once for its sender.
#[test]
fn a_hang_is_ended_by_a_reset_and_nothing_is_lost() {
    let board = Board::new();
    let driver = board.up(2);
    board.model().faults.hold = true;
    let asks: Vec<Ask> = (0..12)
        .map(|index| write(index * 16, 8, index as u8 + 1))
        .collect();
    assert!(driver.block.exchange(0, batch(&asks)).unwrap().is_empty());
    assert!(
        driver
            .block
            .exchange(1, batch(&[ask(Operation::Flush, 0, 0)]))
            .unwrap()
            .is_empty()
    );
    while driver.block.statistics().unwrap().resets == 0 {
        // Until the reset finds a controller that works.
        let mut model = board.model();
        model.faults.hold = model.resets == 0;
        drop(model);
        driver.device.service();
        std::thread::sleep(Duration::from_millis(1));
    }
    board.model().faults.hold = false;
    board.model().release();
    let told = driver.collect(0, 12, BlockBatch::new().unwrap());
    assert!(told.iter().all(|told| told.result.is_ok()), "{told:?}");
    assert_eq!(driver.collect(1, 1, BlockBatch::new().unwrap())[0].result, Ok(()));
    for index in 0..12 {
        assert_eq!(board.model().namespaces[0].data[index * 8192], index as u8 + 1);
    }
    let info = driver.block.controller(0).unwrap().unwrap();
    assert_eq!(
        info.last_reset.as_str(),
        "a command isn't answered, nor its abort"
    );
    board.assert_clean();
}

/// One that hangs every time is given up at last, without taking others along.
#[test]
fn a_request_that_always_hangs_fails_in_the_end() {
    let board = Board::new();
    let driver = board.up(1);
    board.model().faults.hold = true;
    let told = driver.run(&[read(0, 8)]);
    assert_eq!(told[0].result, Err(Fault::TimedOut));
    board.model().faults.hold = false;
    board.model().release();
    assert_eq!(driver.run(&[read(8, 8)])[0].result, Ok(()));
    assert!(driver.block.statistics().unwrap().resets >= 2);
}

#[test]
fn a_fatal_error_is_cured_by_a_reset() {
    let board = Board::new();
    let driver = board.up(1);
    board.model().faults.hold = true;
    driver.submit(&[write(0, 8, 3)]);
    board.model().fail();
    board.model().faults.hold = false;
    let told = driver.collect(0, 1, BlockBatch::new().unwrap());
    assert_eq!(told[0].result, Ok(()));
    assert_eq!(driver.block.statistics().unwrap().resets, 1);
    assert_eq!(
        driver.block.info().unwrap().changes,
        1,
        "the units are what they were"
    );
    board.assert_clean();
}

#[test]
fn requests_of_a_controller_that_is_gone_fail() {
    for nothing in [u32::MAX, 0] {
        let board = Board::new();
        let driver = board.up(1);
        board.model().faults.hold = true;
        driver.submit(&[write(0, 8, 3)]);
        board.model().faults.gone = Some(nothing);
        let told = driver.collect(0, 1, BlockBatch::new().unwrap());
        assert_eq!(told[0].result, Err(Fault::Gone));
        assert_eq!(driver.run(&[read(0, 8)])[0].result, Err(Fault::Gone));
        assert_eq!(driver.block.info(), Err(BlockError::NoDevice));
        let info = driver.block.controller(0).unwrap().unwrap();
        assert_eq!(info.state, ControllerState::Removed);
        assert!(driver.block.reset(0).is_err());
    }
}

#[test]
fn a_controller_that_does_not_come_up_is_given_up() {
    for mute in [false, true] {
        let board = Board::new();
        board.model().faults.never_ready = !mute;
        board.model().faults.mute_admin = mute;
        let driver = board.up(1);
        assert_eq!(driver.device.state(), ControllerState::Failed);
        assert_eq!(driver.run(&[read(0, 8)])[0].result, Err(Fault::Gone));
        assert_eq!(driver.block.info(), Err(BlockError::Failed));
    }
}

/// A controller that finds fault with a queue (its address: "PRP Offset Invalid", its number or size: "Invalid Queue Identifier", "Invalid Queue Size") says so, and is
/// told of it once more after a reset; if it keeps to that it is given up.
#[test]
fn a_queue_that_is_refused_is_an_error_and_no_queue() {
    for status in [0x4013, 0x4101, 0x4102] {
        let board = Board::new();
        board.model().faults.queue_refusals = vec![status];
        let driver = board.up(2);
        assert_eq!(driver.device.state(), ControllerState::Ready);
        assert_eq!(driver.run(&[write(0, 8, 1)])[0].result, Ok(()));
        board.assert_clean();

        let board = Board::new();
        board.model().faults.queue_refusals = vec![status; 10];
        let driver = board.up(2);
        assert_eq!(driver.device.state(), ControllerState::Failed);
        assert_eq!(driver.run(&[write(0, 8, 1)])[0].result, Err(Fault::Gone));
        board.assert_clean();
    }
}

/// What it holds can't be taken back while it may still use it, so it goes off the bus.
#[test]
fn a_controller_that_does_not_go_off_is_taken_off_the_bus() {
    let board = Board::new();
    let driver = board.up(1);
    board.model().faults.hold = true;
    driver.submit(&[write(0, 8, 3)]);
    board.model().faults.never_off = true;
    driver.block.reset(0).unwrap();
    let told = driver.collect(0, 1, BlockBatch::new().unwrap());
    assert_eq!(told[0].result, Err(Fault::Gone));
    assert_eq!(driver.device.state(), ControllerState::Failed);
}

#[test]
fn errors_of_the_medium_are_told_and_passing_ones_hidden() {
    let board = Board::new();
    let driver = board.up(1);
    {
        let statuses = &mut board.model().faults.statuses;
        statuses.insert((2, 0), (0x0281, 10));
        statuses.insert((1, 8), (0x0280, 10));
        statuses.insert((2, 16), (0x0006, 2));
        statuses.insert((2, 32), (0x4006, 1));
        statuses.insert((1, 48), (0x0081, 10));
    }
    let told = driver.run(&[
        read(0, 8),
        write(8, 8, 1),
        read(16, 8),
        read(32, 8),
        write(48, 8, 1),
    ]);
    let results: Vec<_> = told.iter().map(|told| told.result).collect();
    assert_eq!(
        results,
        [
            Err(Fault::Unreadable),
            Err(Fault::WriteFault),
            Ok(()),
            Err(Fault::Internal),
            Err(Fault::NoSpace)
        ]
    );
}

/// Of several requests in one command only those fail that would fail alone.
#[test]
fn a_bad_block_fails_its_own_request_only() {
    let board = Board::new();
    let driver = board.up(1);
    {
        let statuses = &mut board.model().faults.statuses;
        statuses.insert((2, 0), (0x4281, 1));
        statuses.insert((2, 16), (0x4281, 10));
    }
    let told = driver.run(&(0..6).map(|page| read(page * 8, 8)).collect::<Vec<_>>());
    let failed: Vec<bool> = told.iter().map(|told| told.result.is_err()).collect();
    assert_eq!(failed, [false, false, true, false, false, false]);
}

#[test]
fn what_is_abandoned_comes_back_to_nobody() {
    let board = Board::new();
    let driver = board.up(1);
    board.model().faults.hold = true;
    let asks: Vec<Ask> = (0..6).map(|index| write(index * 16, 8, 1)).collect();
    assert!(driver.block.exchange(0, batch(&asks)).unwrap().is_empty());
    let releasing = board.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        releasing.model().release();
    });
    driver.block.abandon().unwrap();
    thread.join().unwrap();
    assert_eq!(board.model().held(), 0);
    let left = driver.block.exchange(0, BlockBatch::new().unwrap()).unwrap();
    assert!(left.is_empty());
    board.model().faults.hold = false;
    assert_eq!(driver.run(&[read(0, 8)])[0].result, Ok(()));
}

#[test]
fn a_driver_that_follows_a_dead_one_begins_with_a_reset() {
    let board = Board::new();
    let driver = board.up(1);
    board.model().faults.hold = true;
    driver.submit(&[write(0, 8, 3)]);
    // Nothing of it runs again.
    std::mem::forget(driver);
    let resets = board.model().resets;
    let next = board.up(1);
    assert_eq!(board.model().resets, resets + 1);
    board.model().faults.hold = false;
    board.model().release();
    assert_eq!(
        next.run(&[read(0, 8)])[0].data[0],
        0,
        "the old one's write was forgotten"
    );
    board.assert_clean();
}

#[test]
fn a_shutdown_lets_what_is_under_way_finish() {
    let board = Board::new();
    let driver = board.up(1);
    assert!(driver.run(&[write(0, 8, 3)])[0].result.is_ok());
    driver.block.shut_down(0).unwrap();
    assert_eq!(driver.device.state(), ControllerState::ShutDown);
    assert_eq!(driver.run(&[read(0, 8)])[0].result, Err(Fault::Gone));
    driver.block.shut_down(0).unwrap();
    let kinds: Vec<EventKind> = (1..10)
        .map_while(|number| driver.block.event(0, number).unwrap())
        .map(|event| event.kind)
        .collect();
    assert_eq!(kinds, [EventKind::Started, EventKind::ShutDown]);
    // A reset brings it back.
    driver.block.reset(0).unwrap();
    driver.device.service();
    assert_eq!(driver.run(&[read(0, 8)])[0].data[0], 3);
}
