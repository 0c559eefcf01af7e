//! Shared-heap handles, exchangeable types and crossings.
//!
//! What two domains can do with each other is all here: own an object on the shared heap ([`RRef`], [`Batch`]), hand it
//! over in a call ([`Exchange`]), and make that call through a proxy that survives the callee's death ([`crossing`]).
//! Interface traits are written with [`interface`]; domains never name [`crossing`] themselves.
//!
//! Allocation, reclaiming after a death and the decision who is alive are the kernel's; this library reaches it through
//! `abi::sys()`.
#![no_std]

extern crate alloc;
extern crate self as rref;

pub mod batch;
pub mod block;
pub mod crossing;
pub mod exchange;
pub mod handle;
pub mod heir;
#[cfg(feature = "inject")]
pub mod inject;
pub mod packet;
pub mod reference;
pub mod rpc;
pub mod text;

pub use abi::{BATCH_CAPACITY, OwnerId};
pub use batch::Batch;
pub use block::{Block, BlockBatch};
pub use exchange::{Exchange, Share};
pub use handle::{Handle, Interface, ProxyFactory};
pub use heir::{Plain, SharedSlice, Tag};
pub use idl::{Exchange, Plain, Share, interface};
pub use packet::{Packet, PacketBatch};
pub use reference::{OutOfMemory, RRef};
pub use rpc::{Outcome, RpcError, caller};
pub use text::{BootBytes, Text};
