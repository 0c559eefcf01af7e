//! The driver on a model over the test's own heap.

use crate::model::Model;
use dma::host::SharedHeap;
use dma::nvme::{CLASS, Controller};
use dma::{Device as Function, Identity, Wake};
use guest_memory::{Access, GuestMemory};
use interface::block::BlockDevice;
use nvme::device::{Device, Exported, Limits};
use rref::block::{Fault, Operation, Progress};
use rref::{Block, BlockBatch, RRef};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[global_allocator]
static HEAP: SharedHeap = SharedHeap::new(1 << 30);

/// Limits short enough for tests.
pub const LIMITS: Limits = Limits {
    command_ms: 20,
    abort_ms: 20,
    admin_ms: 200,
    health_ms: 200,
    drain_ms: 200,
};

/// The model behind the driver's registers.
pub struct Board {
    model: Mutex<Model>,
}

impl Board {
    /// A model that sees this process's memory.
    pub fn new() -> Arc<Board> {
        host_platform::attach();
        let (file, base, length) = HEAP.window().expect("the heap is a file");
        let mut memory = GuestMemory::new();
        memory
            .map_file(base, length, file.as_fd(), 0, Access::READ_WRITE)
            .expect("the model maps it");
        Arc::new(Board {
            model: Mutex::new(Model::new(memory)),
        })
    }

    /// The model.
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A driver on it, not brought up yet.
    pub fn driver(self: &Arc<Board>, queues: u16) -> Driver {
        host_platform::attach();
        let identity = Identity {
            vendor: 0x1234,
            device: 1,
        };
        let function = Function::of_model_with_class(identity, CLASS, self.clone());
        let controller = Controller::new(function).expect("an NVMe controller");
        let device = Arc::new(Device::new(controller, queues, LIMITS));
        Driver {
            block: Exported(device.clone()),
            device,
        }
    }

    /// A driver that is up.
    pub fn up(self: &Arc<Board>, queues: u16) -> Driver {
        let driver = self.driver(queues);
        driver.device.bring_up();
        driver
    }

    /// Fails when the driver did what it must not.
    pub fn assert_clean(&self) {
        assert_eq!(self.model().violations, Vec::<String>::new());
    }
}

impl dma::host::Model for Board {
    fn read(&self, offset: u32) -> u32 {
        self.model().read(offset)
    }

    fn write(&self, offset: u32, value: u32) {
        self.model().write(offset, value);
    }

    fn wait(&self, entry: u32, deadline_ns: u64) -> Wake {
        loop {
            if self.model().interrupts.remove(&(entry as u16)) {
                return Wake::Interrupt;
            }
            if domain_rt::clock::now_ns() >= deadline_ns {
                return Wake::TimedOut;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn stop(&self) {
        self.model().stop();
    }
}

/// A driver on a model.
pub struct Driver {
    pub device: Arc<Device>,
    pub block: Exported,
}

/// A request to be made.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub operation: Operation,
    pub unit: u16,
    pub address: u64,
    pub count: u32,
    pub fill: u8,
}

/// A request of unit 0.
pub fn ask(operation: Operation, address: u64, count: u32) -> Ask {
    Ask {
        operation,
        unit: 0,
        address,
        count,
        fill: 0,
    }
}

/// A write of unit 0 of one byte over and over.
pub fn write(address: u64, count: u32, fill: u8) -> Ask {
    Ask {
        fill,
        ..ask(Operation::Write, address, count)
    }
}

/// A read of unit 0.
pub fn read(address: u64, count: u32) -> Ask {
    ask(Operation::Read, address, count)
}

/// What became of a request.
pub struct Told {
    pub result: Result<(), Fault>,
    pub data: Vec<u8>,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.result)
    }
}

/// A batch of requests, whose cookies count from 0.
pub fn batch(asks: &[Ask]) -> BlockBatch {
    let mut batch = BlockBatch::new().expect("memory");
    for (cookie, ask) in (0u64..).zip(asks) {
        let mut block = Block::allocate().expect("memory");
        block.request(ask.operation, ask.address, ask.count);
        block.unit = ask.unit;
        block.cookie = cookie;
        block.data_mut().fill(ask.fill);
        assert!(batch.push(block).is_ok(), "at most a batch");
    }
    batch
}

fn told(block: &RRef<Block>) -> Told {
    Told {
        result: match block.fault() {
            Some(fault) => Err(fault),
            None => Ok(()),
        },
        data: block.data().to_vec(),
    }
}

impl Driver {
    /// Hands requests over, none of which is finished at once.
    pub fn submit(&self, asks: &[Ask]) {
        let finished = self
            .block
            .exchange(0, batch(asks))
            .expect("the exchange succeeds");
        assert!(finished.is_empty());
    }

    /// Hands requests over and waits for all of them, with the driver looked after meanwhile.
    pub fn run(&self, asks: &[Ask]) -> Vec<Told> {
        self.collect(0, asks.len(), batch(asks))
    }

    /// Waits until `count` requests with cookies from 0 are finished.
    pub fn collect(&self, queue: u16, count: usize, first: BlockBatch) -> Vec<Told> {
        let mut results: Vec<Option<Told>> = (0..count).map(|_| None).collect();
        let mut batch = first;
        for _ in 0..5000 {
            batch = self.block.exchange(queue, batch).expect("the exchange succeeds");
            let mut again = BlockBatch::new().expect("memory");
            while let Some(block) = batch.pop_front() {
                if block.progress() == Progress::Submitted {
                    assert!(again.push(block).is_ok());
                    continue;
                }
                let place = &mut results[block.cookie as usize];
                assert!(place.is_none(), "a request came back twice");
                *place = Some(told(&block));
            }
            if results.iter().all(Option::is_some) {
                assert!(again.is_empty());
                return results.into_iter().flatten().collect();
            }
            batch = again;
            self.device.service();
            let soon = domain_rt::clock::now_ns() + 1_000_000;
            self.block.wait(queue, soon).expect("the wait succeeds");
        }
        panic!("requests didn't finish: {results:?}");
    }
}
