//! What `dma::nvme` refuses to a driver that does what it shouldn't.

use crate::support::Board;
use dma::nvme::{
    AdminCommand, CLASS, CommandKind, Controller, ControllerError, IoQueue, Namespace, QueueError, Transfer,
};
use dma::{ClaimError, Class, Device, Identity};
use rref::block::Operation;
use rref::{Block, RRef};
use std::sync::Arc;

const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 1,
};

fn controller(board: &Arc<Board>) -> Controller {
    Controller::new(Device::of_model_with_class(IDENTITY, CLASS, board.clone())).expect("an NVMe controller")
}

fn on(board: &Arc<Board>) -> Controller {
    let mut controller = controller(board);
    controller.turn_off().expect("it goes off");
    controller.turn_on().expect("it comes on");
    controller
}

fn namespace(controller: &mut Controller, number: u32) -> Namespace {
    let admin = controller.admin().expect("it is on");
    admin
        .submit(AdminCommand::identify(0, number))
        .expect("there is room");
    let answer = admin.completion().expect("the model answers at once");
    answer.namespace().expect("a namespace")
}

fn queue(controller: &mut Controller, number: u16) -> IoQueue {
    let mut queue = controller.io_queue(number, 16).expect("a queue");
    start(controller, &mut queue);
    queue
}

fn start(controller: &mut Controller, queue: &mut IoQueue) {
    queue.start().expect("it is empty");
    let admin = controller.admin().expect("it is on");
    for command in [
        AdminCommand::create_completion_queue(queue, None),
        AdminCommand::create_submission_queue(queue),
    ] {
        admin.submit(command).expect("there is room");
        assert_eq!(admin.completion().expect("an answer").status, 0);
    }
}

fn block(address: u64, count: u32) -> RRef<Block> {
    let mut block = Block::allocate().expect("memory");
    block.request(Operation::Read, address, count);
    block
}

#[test]
fn other_devices_are_refused() {
    let board = Board::new();
    let ethernet = Class {
        class: 2,
        subclass: 0,
        interface: 0,
    };
    let result = Controller::new(Device::of_model_with_class(IDENTITY, ethernet, board));
    assert!(matches!(result, Err(ClaimError::WrongDevice(IDENTITY))));
}

/// Memory lets the device master the bus, so there is none before it was seen off.
#[test]
fn there_is_no_memory_before_the_controller_was_seen_off() {
    let board = Board::new();
    drop(on(&board));
    let mut next = controller(&board);
    assert!(matches!(next.io_queue(1, 16), Err(QueueError::NotTurnedOff)));
    assert!(matches!(next.turn_on(), Err(ControllerError::Timeout(_))));
    assert!(next.admin().is_none());
}

#[test]
fn registers_with_addresses_are_not_the_drivers() {
    let board = Board::new();
    let controller = controller(&board);
    for offset in [0x14, 0x20, 0x24, 0x28, 0x2C, 0x30, 0x34, 0x50, 0x1000, 0x1008] {
        assert!(!controller.registers().is_writable(offset), "{offset:#x}");
    }
}

/// A block that the controller may still use doesn't come out, whatever the driver does with the queue.
#[test]
fn blocks_stay_while_the_controller_may_use_them() {
    let board = Board::new();
    let mut controller = on(&board);
    let namespace = namespace(&mut controller, 1);
    let mut queue = queue(&mut controller, 1);
    board.model().faults.hold = true;
    assert!(queue.submit_one(&namespace, Transfer::Read, block(0, 8)).is_ok());
    queue.publish();
    assert!(queue.take_back().is_none());
    assert!(queue.finished().is_none());
    assert_eq!(queue.start(), Err(QueueError::Busy));
    controller.turn_off().expect("it goes off");
    assert!(queue.submit_one(&namespace, Transfer::Read, block(0, 8)).is_err());
    assert_eq!(queue.start(), Err(QueueError::Busy), "it isn't empty");
    assert!(queue.take_back().is_some());
    assert!(queue.take_back().is_none());
    controller.turn_on().expect("it comes on");
    start(&mut controller, &mut queue);
    board.assert_clean();
}

/// The number of a queue that the controller may know isn't given to another, whose doorbell would release entries of the first.
#[test]
fn a_queue_that_is_dropped_keeps_its_number_until_the_controller_is_off() {
    let board = Board::new();
    let mut controller = on(&board);
    drop(queue(&mut controller, 1));
    assert!(matches!(
        controller.io_queue(1, 16),
        Err(QueueError::InUse { queue: 1 })
    ));
    let second = queue(&mut controller, 2);
    controller.turn_off().expect("it goes off");
    drop(second);
    assert!(controller.io_queue(2, 16).is_ok());
    assert!(controller.io_queue(0, 16).is_err() && controller.io_queue(64, 16).is_err());
}

/// How long a block of the namespace is decides how much memory a command moves.
#[test]
fn a_namespace_is_believed_of_its_controller_and_until_that_is_off() {
    let (board, other) = (Board::new(), Board::new());
    let (mut controller, mut stranger) = (on(&board), on(&other));
    let foreign = namespace(&mut stranger, 1);
    let mut queue = queue(&mut controller, 1);
    assert!(queue.submit_one(&foreign, Transfer::Read, block(0, 8)).is_err());
    assert!(queue.command(&foreign, CommandKind::Flush).is_none());
    let old = namespace(&mut controller, 1);
    controller.turn_off().expect("it goes off");
    controller.turn_on().expect("it comes on");
    start(&mut controller, &mut queue);
    assert!(queue.submit_one(&old, Transfer::Read, block(0, 8)).is_err());
    let known = namespace(&mut controller, 1);
    assert!(queue.submit_one(&known, Transfer::Read, block(0, 8)).is_ok());
    let answer = |controller: &mut Controller| {
        let admin = controller.admin().expect("it is on");
        admin.submit(AdminCommand::identify(1, 0)).expect("there is room");
        admin.completion().expect("an answer").namespace().is_err()
    };
    assert!(
        answer(&mut controller),
        "of another structure no namespace is made"
    );
}

#[test]
fn a_command_moves_pages_that_follow_each_other_and_no_more() {
    let board = Board::new();
    let mut controller = on(&board);
    let namespace = namespace(&mut controller, 1);
    let mut queue = queue(&mut controller, 1);
    for wrong in [block(0, 0), block(0, 9)] {
        assert!(queue.submit_one(&namespace, Transfer::Write, wrong).is_err());
    }
    let mut command = queue
        .command(&namespace, CommandKind::Read)
        .expect("there is room");
    assert!(command.push(block(0, 9)).is_err(), "more than a page");
    assert!(command.push(block(0, 8)).is_ok());
    assert!(command.push(block(9, 8)).is_err(), "not the next");
    assert!(command.push(block(8, 3)).is_ok());
    assert!(command.push(block(11, 8)).is_err(), "behind half a page");
    assert!(!command.add_range(0, 8), "a read has no ranges");
    assert!(command.submit());
    let empty = queue
        .command(&namespace, CommandKind::Read)
        .expect("there is room");
    assert!(!empty.submit(), "it moves nothing");
    queue.publish();
    let mut finished = queue.finished().expect("the model answers at once");
    assert_eq!((finished.status(), finished.len()), (0, 2));
    assert!(finished.take().is_some());
    drop(finished);
    assert_eq!(queue.room(), 15);
    board.assert_clean();
}

/// A command that creates a queue of an earlier time would have the controller run old entries.
#[test]
fn a_queue_is_created_in_its_own_time_only() {
    let board = Board::new();
    let mut controller = on(&board);
    let queue = queue(&mut controller, 1);
    let create = AdminCommand::create_submission_queue(&queue);
    controller.turn_off().expect("it goes off");
    controller.turn_on().expect("it comes on");
    assert!(controller.admin().expect("it is on").submit(create).is_none());
}
