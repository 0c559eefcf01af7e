//! Every cross-domain contract: traits and the exchangeable types in them. Read this first.
//!
//! One file a subject. A trait marked `#[interface]` is called through a generated proxy: arguments and results move from one
//! domain's ownership to the other's, and a call into a dead domain comes back as an error. Who may hold a handle to what is in
//! config/domains.toml.
#![no_std]
#![forbid(unsafe_code)]

pub mod balance;
pub mod black_box;
pub mod block;
pub mod holdings;
pub mod kernel;
pub mod key_value;
pub mod metrics;
pub mod net;
pub mod partition;
pub mod path;
pub mod socket;
pub mod storage_health;
pub mod supervise;
pub mod update;

use rref::{Interface, ProxyFactory};

/// Every interface: what the kernel can make proxies of.
pub const FACTORIES: &[ProxyFactory] = &[
    <dyn net::NetDevice>::FACTORY,
    <dyn path::PacketProcessor>::FACTORY,
    <dyn path::Neighbours>::FACTORY,
    <dyn balance::Balancer>::FACTORY,
    <dyn socket::Sockets>::FACTORY,
    <dyn block::BlockDevice>::FACTORY,
    <dyn partition::Disks>::FACTORY,
    <dyn storage_health::StorageHealth>::FACTORY,
    <dyn key_value::KeyValueStore>::FACTORY,
    <dyn metrics::Metrics>::FACTORY,
    <dyn supervise::Supervisor>::FACTORY,
    <dyn supervise::Operator>::FACTORY,
    <dyn update::Updates>::FACTORY,
    <dyn update::Uploads>::FACTORY,
    <dyn update::ImageControl>::FACTORY,
    <dyn kernel::DomainControl>::FACTORY,
    <dyn black_box::BlackBoxes>::FACTORY,
    <dyn kernel::SerialConsole>::FACTORY,
    <dyn kernel::LogReader>::FACTORY,
    <dyn kernel::Power>::FACTORY,
];
