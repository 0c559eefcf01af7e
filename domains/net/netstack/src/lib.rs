//! The TCP/IP stack of the appliance, a domain.
//!
//! smoltcp is the TCP machine; everything that makes it a server's stack is here. One shard a receive queue ([`shard`]), each
//! with its own connections, timers and listeners, so that shards share nothing on the packet path. smoltcp looks at every
//! socket of a set for every packet, so each connection has a set of its own ([`connection`]), found by a hash of its
//! 4-tuple ([`demultiplex`], [`table`]), and only connections that have something to do are polled ([`timer`]).
//!
//! A connection needs smoltcp only while it does something that takes choices: more than a segment at a time, loss, closing. Quiet
//! ones and small exchanges go without a socket and without buffers ([`light`], [`headers`], [`rounds`]). [`recovery`] finds losses sooner than smoltcp does.
//!
//! Ethernet is ours: smoltcp sees bare IP packets. Replies go back to the station that a connection's packets come from;
//! [`neighbours`] is asked for connections and datagrams that start here, and for Maglev. Listening, half-open connections
//! and TIME-WAIT are ours too ([`listener`], [`half_open`], [`time_wait`]): they hold no buffers.
//!
//! Other domains see [`interface::socket::Sockets`], [`interface::path::PacketProcessor`] and
//! [`interface::path::Neighbours`], all implemented by [`stack::Stack`].
//!
//! What it leaves out: IP fragments and IPv6 extension headers are dropped (RSS would bring them to another shard than
//! their connection's), and the sender doesn't use SACK (smoltcp doesn't).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod addresses;
pub mod challenge;
pub mod config;
pub mod connection;
pub mod demultiplex;
pub mod device;
pub mod dhcp;
pub mod echo;
pub mod events;
pub mod flush;
pub mod half_open;
pub mod headers;
pub mod light;
pub mod listener;
pub mod neighbours;
pub mod processor;
pub mod receive;
pub mod recovery;
pub mod rounds;
pub mod secret;
pub mod shard;
pub mod sockets;
pub mod stack;
pub mod table;
pub mod time_wait;
pub mod timer;
pub mod transmit;
pub mod udp;

use alloc::boxed::Box;
use alloc::sync::Arc;
use domain_rt::{BootBytes, Handle, OwnerId, StartError, thread};
use interface::net::{DeviceInfo, NetConfiguration, NetDevice};
use interface::path::{Neighbours, PacketProcessor};
use interface::socket::Sockets;

/// The import that is the network device.
const DEVICE: &str = "nic";
/// How long one wait for another device takes at most.
const FOLLOW_WAIT_MS: u64 = 3_600_000;
/// Pause before a device is asked again that refuses its configuration.
const REFUSED_PAUSE_MS: u64 = 1_000;
/// How long the start waits for the network device; then the rest is done when it comes.
const DEVICE_WAIT_MS: u64 = 2_000;
/// How long one that has answered may take to live through its configuration.
const CONFIGURE_WAIT_MS: u64 = 10_000;

/// Starts the domain: reads config/appliance.toml, asks the device what it is, and offers the three interfaces; later, when there is no device yet.
pub fn start() -> Result<(), StartError> {
    if BootBytes::open(settings::PATH).is_none() {
        log::warn!(
            "there is no {}: no address but the link-local one",
            settings::PATH
        );
    }
    let config = settings::at_start(config::read)?;
    let ask = |device: &Handle<dyn NetDevice>| device.info();
    domain_rt::start_with(DEVICE, DEVICE_WAIT_MS, ask, move |_, information| {
        offer(config, &information)
    })
}

/// Configures the device, and offers the three interfaces.
fn offer(config: config::Config, information: &DeviceInfo) -> Result<(), StartError> {
    let stack = Arc::new(stack::Stack::new(config, information));
    let configuration = stack.device_configuration();
    let (device, ()) =
        domain_rt::connect_and(DEVICE, CONFIGURE_WAIT_MS, |device: &Handle<dyn NetDevice>| {
            device.configure(configuration)
        })?;
    thread::spawn("device", None, move || {
        follow_device(device.target(), &configuration)
    })?;
    for address in stack.addresses().own() {
        log::info!("address {}/{}", address.address, address.prefix_length);
    }
    domain_rt::export::<dyn Sockets>(Box::new(stack::Shared(stack.clone())))?;
    domain_rt::export::<dyn Neighbours>(Box::new(stack::Shared(stack.clone())))?;
    domain_rt::export::<dyn PacketProcessor>(Box::new(stack::Shared(stack)))?;
    Ok(())
}

/// Configures each device that follows the one which was `configured`, for as long as the domain lives: nobody else knows how.
fn follow_device(mut configured: OwnerId, configuration: &NetConfiguration) {
    loop {
        // Comes back when there is another one.
        let Ok(device) = domain_rt::reconnect::<dyn NetDevice>(DEVICE, configured, FOLLOW_WAIT_MS) else {
            continue;
        };
        match device.configure(*configuration) {
            Ok(()) => {
                log::info!(
                    "the device's generation {} is configured",
                    device.target().generation()
                );
                configured = device.target();
            }
            Err(_) if !domain_rt::is_live(device.target()) => configured = device.target(),
            Err(error) => {
                log::warn!(
                    "the device's generation {}: {error}",
                    device.target().generation()
                );
                thread::sleep_ms(REFUSED_PAUSE_MS);
            }
        }
    }
}
