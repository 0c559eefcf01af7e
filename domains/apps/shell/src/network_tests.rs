//! What the operator is told of the network, over a card and a balancer that are played.

use crate::tests::fixture;
use interface::balance::{
    BackendState, BackendStatus, BalanceError, Balancer, Name, Protocol, ServiceStatus,
};
use interface::net::{
    DeviceInfo, Exchanged, LinkState, MacAddress, NetConfiguration, NetDevice, NetError, NetStatistics,
    WaitResult,
};
use rref::{PacketBatch, Text};
use std::net::IpAddr;

pub struct Card;

impl NetDevice for Card {
    fn info(&self) -> Result<DeviceInfo, NetError> {
        Ok(DeviceInfo {
            mac: MacAddress([2, 0, 0, 0, 0, 0xab]),
            queues: 4,
            frame_limit_bytes: 9000,
            receive_checksum: true,
            transmit_checksum: true,
        })
    }

    fn configure(&self, _: NetConfiguration) -> Result<(), NetError> {
        Err(NetError::Unsupported)
    }

    fn link(&self) -> Result<LinkState, NetError> {
        Ok(LinkState {
            up: true,
            speed_mbps: 10_000,
            changes: 1,
        })
    }

    fn exchange(&self, _: u16, _: PacketBatch, _: PacketBatch) -> Result<Exchanged, NetError> {
        Err(NetError::Unsupported)
    }

    fn wait(&self, _: u16, _: u64) -> Result<WaitResult, NetError> {
        Err(NetError::Unsupported)
    }

    fn statistics(&self) -> Result<NetStatistics, NetError> {
        Ok(NetStatistics {
            received_frames: 42,
            ..NetStatistics::default()
        })
    }
}

/// One service with two backends, of which one can be changed.
pub struct Balance;

impl Balancer for Balance {
    fn service(&self, index: u16) -> Result<Option<ServiceStatus>, BalanceError> {
        Ok((index == 0).then(|| ServiceStatus {
            name: Name::new("web"),
            address: IpAddr::from([10, 82, 99, 100]),
            port: 80,
            protocol: Protocol::Tcp,
            backends: 2,
            packets: 10,
            bytes: 640,
            connections: 3,
            dropped: 0,
            tracked: 3,
        }))
    }

    fn backend(&self, _service: Name, index: u16) -> Result<Option<BackendStatus>, BalanceError> {
        Ok((index < 2).then(|| BackendStatus {
            name: Text::format(format_args!("b{}", index + 1)),
            address: IpAddr::from([10, 82, 99, 11]),
            mac: None,
            weight: 1,
            state: BackendState::Active,
            slots: 32_768,
            packets: 5,
            bytes: 320,
            connections: 1,
        }))
    }

    fn add(&self, _: Name, _: Name, _: IpAddr, weight: u16) -> Result<(), BalanceError> {
        if weight == 0 {
            Err(BalanceError::BadWeight)
        } else {
            Ok(())
        }
    }

    fn drain(&self, _: Name, backend: Name) -> Result<(), BalanceError> {
        if backend.as_str() == "b1" {
            Ok(())
        } else {
            Err(BalanceError::NoBackend)
        }
    }

    fn activate(&self, _: Name, _: Name) -> Result<(), BalanceError> {
        Ok(())
    }

    fn remove(&self, _: Name, _: Name) -> Result<(), BalanceError> {
        Err(BalanceError::NoService)
    }

    fn revision(&self) -> Result<u64, BalanceError> {
        Ok(1)
    }
}

#[test]
fn a_dead_domain_is_said_to_be_and_its_successor_is_found() {
    let mut fixture = fixture();
    assert!(
        fixture
            .session
            .answer("maglev")
            .starts_with("web: tcp 10.82.99.100 port 80")
    );
    host_platform::kill("balancer");
    assert_eq!(
        fixture.session.answer("maglev"),
        "The load balancer can't be reached: the provider is not up."
    );
    host_platform::provide_mortal::<dyn Balancer>("balancer", &Balance);
    assert!(fixture.session.answer("maglev").starts_with("web"));
    assert!(
        fixture
            .session
            .answer("ip")
            .starts_with("The TCP/IP stack can't be reached"),
        "there is none in this test"
    );
}
