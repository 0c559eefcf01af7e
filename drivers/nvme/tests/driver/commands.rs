//! What requests become.

use crate::support::{Ask, Board, ask, batch, read, write};
use interface::block::{BlockDevice, BlockError};
use interface::storage_health::{ControllerState, StorageHealth};
use rref::BlockBatch;
use rref::block::{Fault, Operation};

#[test]
fn a_controller_comes_up_with_its_namespaces() {
    let board = Board::new();
    let driver = board.up(2);
    let info = driver.block.info().unwrap();
    assert_eq!((info.units, info.queues, info.queue_depth), (2, 2, 63));
    assert_eq!(info.model.as_str(), "Model of a controller");
    let [first, second] = [0, 1].map(|unit| driver.block.unit(unit).unwrap());
    assert_eq!((first.block_bytes, first.blocks), (512, 4096));
    assert_eq!((second.block_bytes, second.blocks), (4096, 512));
    assert_eq!(first.name.as_str(), "S1 n1");
    assert_eq!(first.transfer_blocks, 256);
    assert!(first.volatile_cache && first.deallocate && !first.read_only);
    let controller = driver.block.controller(0).unwrap().unwrap();
    assert_eq!(controller.state, ControllerState::Ready);
    assert_eq!((controller.namespaces, controller.resets), (2, 0));
    assert_eq!(driver.block.controller(1).unwrap(), None);
    board.assert_clean();
}

#[test]
fn what_is_written_is_read_in_both_block_sizes() {
    let board = Board::new();
    let driver = board.up(1);
    let of_unit = |unit: u16, ask: Ask| Ask { unit, ..ask };
    let asks = [
        write(8, 8, 0xA1),
        write(24, 3, 0xA2),
        of_unit(1, write(5, 1, 0xB1)),
    ];
    for told in driver.run(&asks) {
        assert_eq!(told.result, Ok(()));
    }
    let asks = [read(8, 8), read(24, 3), of_unit(1, read(5, 1)), read(27, 1)];
    let told = driver.run(&asks);
    assert_eq!(told[0].data, [0xA1; 4096]);
    assert_eq!(told[1].data[..1536], [0xA2; 1536]);
    assert_eq!(told[1].data[1536..], [0; 2560], "no more than was asked for");
    assert_eq!(told[2].data, [0xB1; 4096]);
    assert_eq!(told[3].data[..512], [0; 512]);
    board.assert_clean();
}

/// An exchange that waits gives what there is at once, what comes while it waits, and nothing when its time is over.
#[test]
fn an_exchange_may_wait_for_answers() {
    let board = Board::new();
    let driver = board.up(1);
    let far = || domain_rt::clock::now_ns() + 60_000_000_000;
    let first = driver.block.exchange_until(0, batch(&[write(0, 8, 1)]), far());
    assert_eq!(first.unwrap().len(), 1);

    board.model().faults.hold = true;
    let none = driver
        .block
        .exchange_until(0, batch(&[write(8, 8, 2)]), 0)
        .unwrap();
    assert!(none.is_empty());

    let releasing = board.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(5));
        releasing.model().release();
    });
    let mut answers = none;
    while answers.is_empty() {
        // The interrupt of the first write may end the first wait.
        answers = driver.block.exchange_until(0, answers, far()).unwrap();
    }
    thread.join().unwrap();
    assert_eq!(answers.pop().unwrap().address, 8);
    assert_eq!(
        driver
            .block
            .exchange_until(1, answers, 0)
            .map(|batch| batch.len())
            .unwrap_err(),
        BlockError::NoQueue { queue: 1, queues: 1 }
    );
    board.assert_clean();
}

/// Neighbours become one command, as long as each but the last fills its page.
#[test]
fn neighbours_share_a_command() {
    let board = Board::new();
    let driver = board.up(1);
    let mut asks: Vec<Ask> = (0..20).map(|page| write(page * 8, 8, page as u8)).collect();
    asks.push(write(160, 1, 20));
    asks.push(write(161, 8, 21));
    for told in driver.run(&asks) {
        assert_eq!(told.result, Ok(()));
    }
    let lengths: Vec<u32> = board
        .model()
        .commands
        .iter()
        .map(|entry| entry.words[2] + 1)
        .collect();
    assert_eq!(lengths, [161, 8]);
    let told = driver.run(&(0..20).map(|page| read(page * 8, 8)).collect::<Vec<_>>());
    for (page, told) in told.iter().enumerate() {
        assert_eq!(told.data, [page as u8; 4096]);
    }
    assert_eq!(driver.block.statistics().unwrap().commands, 3);
    board.assert_clean();
}

#[test]
fn a_command_is_no_longer_than_the_controller_takes() {
    let board = Board::new();
    board.model().transfer_power = 1;
    let driver = board.up(1);
    assert_eq!(driver.block.unit(0).unwrap().transfer_blocks, 16);
    for told in driver.run(&(0..5).map(|page| write(page * 8, 8, 7)).collect::<Vec<_>>()) {
        assert_eq!(told.result, Ok(()));
    }
    assert_eq!(board.model().commands.len(), 3);
    board.assert_clean();
}

#[test]
fn force_unit_access_and_flush_reach_the_controller() {
    let board = Board::new();
    let driver = board.up(1);
    let mut requests = batch(&[write(0, 8, 1), write(8, 8, 2), ask(Operation::Flush, 0, 0)]);
    if let Some(block) = requests.get_mut(1) {
        block.set_force_unit_access(true);
    }
    for told in driver.collect(0, 3, requests) {
        assert_eq!(told.result, Ok(()));
    }
    let forced: Vec<(u8, bool)> = board
        .model()
        .commands
        .iter()
        .map(|entry| (entry.opcode, entry.words[2] >> 30 & 1 != 0))
        .collect();
    assert_eq!(forced, [(1, false), (1, true), (0, false)]);
    board.assert_clean();
}

#[test]
fn without_a_cache_there_is_nothing_to_flush() {
    let board = Board::new();
    board.model().volatile_cache = false;
    let driver = board.up(1);
    assert_eq!(driver.run(&[ask(Operation::Flush, 0, 0)])[0].result, Ok(()));
    assert!(board.model().commands.is_empty());
    assert!(!driver.block.unit(0).unwrap().volatile_cache);
    assert_eq!(driver.block.statistics().unwrap().flushes, 1);
}

#[test]
fn ranges_longer_than_a_command_become_several() {
    let board = Board::new();
    {
        let mut model = board.model();
        model.range_blocks = 100;
        model.zeroes_power = 2;
    }
    let driver = board.up(1);
    board.model().namespaces[0].data.fill(9);
    let told = driver.run(&[
        ask(Operation::WriteZeroes, 10, 70),
        ask(Operation::Deallocate, 1000, 250),
        ask(Operation::Deallocate, 2000, 100),
        ask(Operation::Deallocate, 2200, 1),
    ]);
    assert!(told.iter().all(|told| told.result.is_ok()));
    let model = board.model();
    let zero = |from: usize, to: usize| {
        let data = &model.namespaces[0].data;
        data[from * 512..to * 512].iter().all(|byte| *byte == 0)
            && data[from * 512 - 1] == 9
            && data[to * 512] == 9
    };
    assert!(zero(10, 80) && zero(1000, 1250) && zero(2000, 2100) && zero(2200, 2201));
    let opcodes: Vec<u8> = model.commands.iter().map(|entry| entry.opcode).collect();
    assert_eq!(opcodes.iter().filter(|opcode| **opcode == 8).count(), 3);
    // 250 blocks take three, the two short ranges one.
    assert_eq!(opcodes.iter().filter(|opcode| **opcode == 9).count(), 4);
    drop(model);
    board.assert_clean();
}

#[test]
fn what_cannot_be_is_refused_without_a_command() {
    let board = Board::new();
    let driver = board.up(1);
    let other = Ask {
        unit: 2,
        ..read(0, 1)
    };
    let told = driver.run(&[
        read(4096, 1),
        read(4090, 7),
        read(0, 9),
        read(0, 0),
        read(u64::MAX, 2),
        other,
        ask(Operation::Deallocate, 4000, 97),
        ask(Operation::WriteZeroes, 0, 0),
        read(4088, 8),
    ]);
    let results: Vec<_> = told.iter().map(|told| told.result).collect();
    let range = Err(Fault::OutOfRange);
    assert_eq!(
        results,
        [
            range,
            range,
            range,
            range,
            range,
            Err(Fault::Gone),
            range,
            range,
            Ok(())
        ]
    );
    assert_eq!(board.model().commands.len(), 1);
    assert_eq!(driver.block.statistics().unwrap().errors, 8);
}

/// More requests than a queue holds come back to be handed over again, behind those that are finished.
#[test]
fn a_full_queue_gives_requests_back() {
    let board = Board::new();
    board.model().queue_entries = 8;
    let driver = board.up(1);
    assert_eq!(driver.block.info().unwrap().queue_depth, 7);
    board.model().faults.hold = true;
    let asks: Vec<Ask> = (0..20).map(|index| read(index * 16, 8)).collect();
    let left = driver.block.exchange(0, batch(&asks)).unwrap();
    assert_eq!(left.len(), 13);
    assert!(left.iter().all(|block| block.cookie >= 7));
    board.model().release();
    board.model().faults.hold = false;
    let told = driver.collect(0, 20, left);
    assert!(told.iter().all(|told| told.result.is_ok()));
    board.assert_clean();
}

#[test]
fn doorbells_may_be_far_apart_and_queues_few() {
    let board = Board::new();
    {
        let mut model = board.model();
        model.doorbell_shift = 4;
        model.granted_queues = 2;
        model.queue_entries = 2;
    }
    let driver = board.up(4);
    let info = driver.block.info().unwrap();
    assert_eq!((info.queues, info.queue_depth), (2, 1));
    assert!(driver.block.exchange(2, BlockBatch::new().unwrap()).is_err());
    for queue in 0..2 {
        let asks: Vec<Ask> = (0..6).map(|index| write(index * 16, 8, 5)).collect();
        let told = driver.collect(queue, 6, batch(&asks));
        assert!(told.iter().all(|told| told.result.is_ok()));
    }
    board.assert_clean();
}

#[test]
fn an_appliance_without_a_controller_has_a_device_without_units() {
    host_platform::attach();
    let device = nvme::device::Device::absent(crate::support::LIMITS);
    device.bring_up();
    let exported = nvme::device::Exported(std::sync::Arc::new(device));
    assert_eq!(exported.info(), Err(interface::block::BlockError::NoDevice));
    assert_eq!(exported.controller(0), Ok(None));
    exported.0.service();
}
