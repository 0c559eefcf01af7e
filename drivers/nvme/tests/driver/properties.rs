//! Whatever is asked and whatever goes wrong: each request comes back once, and the medium holds what was written.

use crate::support::{Ask, Board};
use interface::block::BlockDevice;
use proptest::prelude::*;
use rref::block::Operation;

fn any_request() -> impl Strategy<Value = Ask> {
    let operation = prop_oneof![
        4 => Just(Operation::Read),
        4 => Just(Operation::Write),
        1 => Just(Operation::Flush),
        1 => Just(Operation::WriteZeroes),
        1 => Just(Operation::Deallocate),
    ];
    (operation, 0u16..3, 0u64..40, 0u32..10, any::<u8>()).prop_map(
        |(operation, unit, address, count, fill)| Ask {
            operation,
            unit,
            address,
            count,
            fill,
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Requests(Vec<Ask>),
    Reset,
    Fail,
    Stray(u16),
    Passing(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(any_request(), 1..32).prop_map(Step::Requests),
        1 => Just(Step::Reset),
        1 => Just(Step::Fail),
        1 => any::<u16>().prop_map(Step::Stray),
        1 => (0u64..40).prop_map(Step::Passing),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The medium's content is that of a plain array under the same writes, as far as they don't overlap within one batch.
    #[test]
    fn the_medium_holds_what_was_written(steps in prop::collection::vec(any_step(), 1..12), power in 1u8..6, entries in 2u32..40) {
        let board = Board::new();
        {
            let mut model = board.model();
            model.transfer_power = power;
            model.queue_entries = entries;
            model.range_blocks = 5;
        }
        let driver = board.up(1);
        let mut expected = [vec![0u8; 512 * 4096], vec![0u8; 4096 * 512]];
        for step in steps {
            match step {
                Step::Requests(asks) => {
                    // One block at a time where order would matter: requests of a batch have none.
                    let mut taken = std::collections::BTreeSet::new();
                    let asks: Vec<Ask> = asks
                        .into_iter()
                        .filter(|ask| {
                            let range: Vec<(u16, u64)> = (ask.address..ask.address + u64::from(ask.count))
                                .map(|block| (ask.unit, block))
                                .collect();
                            let free = range.iter().all(|block| !taken.contains(block));
                            taken.extend(range);
                            free
                        })
                        .collect();
                    let told = driver.run(&asks);
                    for (ask, told) in asks.iter().zip(told) {
                        if told.result.is_err() {
                            continue;
                        }
                        let bytes = [512usize, 4096][usize::from(ask.unit)];
                        let start = ask.address as usize * bytes;
                        let range = start..start + ask.count as usize * bytes;
                        let medium = &mut expected[usize::from(ask.unit)];
                        match ask.operation {
                            Operation::Write => medium[range].fill(ask.fill),
                            Operation::WriteZeroes | Operation::Deallocate => medium[range].fill(0),
                            Operation::Read => {
                                prop_assert_eq!(&told.data[..range.len()], &medium[range]);
                            }
                            Operation::Flush => {}
                        }
                    }
                }
                Step::Reset => {
                    driver.device.reset("a test", false);
                }
                Step::Fail => {
                    board.model().fail();
                    driver.device.service();
                }
                Step::Stray(id) => {
                    board.model().complete(1, id | 0xFF, 0, 0);
                    // Taken at once: the queue has room for as many completions as there are commands.
                    let nothing = rref::BlockBatch::new().expect("memory");
                    prop_assert!(driver.block.exchange(0, nothing).is_ok_and(|batch| batch.is_empty()));
                }
                Step::Passing(address) => {
                    board.model().faults.statuses.insert((1, address), (0x0006, 1));
                }
            }
        }
        for (unit, expected) in expected.iter().enumerate() {
            prop_assert!(board.model().namespaces[unit].data == *expected);
        }
        let statistics = driver.block.statistics().unwrap();
        prop_assert_eq!(statistics.timeouts, 0);
        prop_assert_eq!(&board.model().violations, &Vec::<String>::new());
    }
}
