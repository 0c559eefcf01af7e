//! Tests of `heritage.rs`: an incarnation goes on where the one before ended.

use alloc::vec::Vec;

use super::*;
use crate::balancer::Balancer;
use crate::frame::Verdict;
use crate::testing::segment;

const CONFIG: &str = r#"
    [[maglev.vip]]
    name = "web"
    address = "10.0.0.100"
    port = 80
    protocol = "tcp"
    backends = [{ name = "one", address = "10.0.0.1" }, { name = "two", address = "10.0.0.2" }, { name = "three", address = "10.0.0.3" }]

    [[maglev.vip]]
    name = "other"
    address = "10.0.0.101"
    port = 80
    protocol = "tcp"
    backends = [{ name = "one", address = "10.0.0.1" }]
"#;
const FLOWS: u16 = 600;
const SECOND: u64 = 1_000_000_000;
const SYN: u8 = 2;
const ACK: u8 = 0x10;

fn config() -> Config {
    Config::from_toml(CONFIG).expect("a good configuration")
}

/// What becomes of each flow's frame.
fn forward(balancer: &mut Balancer, seconds: u64, flags: u8) -> Vec<Verdict> {
    let mut frames: Vec<_> = (0..FLOWS)
        .map(|flow| segment([10, 0, 1, 2], flow, [10, 0, 0, 100], flags))
        .collect();
    let mut verdicts = Vec::from([Verdict::NotMine; FLOWS as usize]);
    balancer.forward(seconds * SECOND, &mut frames, &mut verdicts);
    verdicts
}

/// A balancer in the state in which the last one of this thread died.
fn start(now_seconds: u64) -> (Control, Balancer) {
    host_platform::attach();
    let (kept, left) = Kept::open(now_seconds).expect("unlimited");
    let mut control = match &left.roster {
        Some(roster) => Control::restore(&config(), roster).expect("the same configuration"),
        None => {
            let mut control = Control::new(&config(), HashSeed([9; 16]), [2; 6]).expect("it can exist");
            for number in 1..=4 {
                control.set_neighbour([10, 0, 0, number].into(), Some([8, 0, 0, 0, 0, number]));
            }
            control
        }
    };
    if left.tables {
        control.inherit_tables(now_seconds);
    }
    let balancer = control.balancer().expect("unlimited");
    control.keep_in(kept);
    (control, balancer)
}

fn die(mut control: Control, balancer: Balancer) {
    balancer.die();
    if let Some(kept) = control.kept.take() {
        kept.die();
    }
}

#[test]
fn flows_and_changes_outlive_any_number_of_deaths() {
    let (control, mut balancer) = start(100);
    let first = forward(&mut balancer, 100, SYN);
    assert!(
        first
            .iter()
            .all(|verdict| matches!(verdict, Verdict::Transmit(_)))
    );
    forward(&mut balancer, 100, ACK);
    let mut control = control;
    control.drain("web", "one").expect("it is there");
    let added = BackendSpec {
        name: "four".into(),
        address: [10, 0, 0, 4].into(),
        weight: 7,
    };
    control.add("web", added).expect("there is room");
    control.remove("other", "one").expect("it is there");
    assert_eq!(forward(&mut balancer, 100, ACK), first, "established flows stay");
    let roster = control.roster();
    die(control, balancer);

    for round in 0..10 {
        let now = 101 + round;
        let (mut control, mut balancer) = start(now);
        assert_eq!(control.roster(), roster);
        assert_eq!(forward(&mut balancer, now, ACK), first, "in round {round}");
        control.beat(now);
        die(control, balancer);
    }

    // Slots keep their incarnations: who comes now is nobody that was remembered.
    let (mut control, balancer) = start(200);
    control
        .add(
            "other",
            BackendSpec {
                name: "five".into(),
                address: [10, 0, 0, 5].into(),
                weight: 1,
            },
        )
        .expect("there is room");
    let before: Vec<u16> = roster.slots.iter().map(|(incarnation, _)| *incarnation).collect();
    let after: Vec<u16> = control
        .roster()
        .slots
        .iter()
        .map(|(incarnation, _)| *incarnation)
        .collect();
    assert_eq!(before, after);
    assert_eq!(
        control
            .roster()
            .slots
            .iter()
            .filter(|(_, tenant)| tenant.is_some())
            .count(),
        5
    );
    drop(balancer);
}

#[test]
fn another_configuration_starts_anew() {
    let (control, balancer) = start(1);
    let roster = control.roster();
    drop(balancer);
    for change in [
        ("port = 80", "port = 81"),
        ("[[maglev.vip]]", "[maglev]\ntable_size = 251\n[[maglev.vip]]"),
    ] {
        let config =
            Config::from_toml(&CONFIG.replacen(change.0, change.1, 1)).expect("a good configuration");
        assert_eq!(
            Control::restore(&config, &roster).err(),
            Some(RestoreError::OtherConfiguration)
        );
    }
}

/// Tables that are taken from an earlier VIP's are those that would be built.
#[test]
fn shared_tables_are_the_same_as_built_ones() {
    let text = CONFIG.replace("[{ name = \"one\", address = \"10.0.0.1\" }]\n", 
        "[{ name = \"three\", address = \"10.0.0.3\" }, { name = \"one\", address = \"10.0.0.1\" }, { name = \"two\", address = \"10.0.0.2\" }]\n");
    assert_ne!(text, CONFIG);
    let config = Config::from_toml(&text).expect("a good configuration");
    let control = Control::new(&config, HashSeed([9; 16]), [2; 6]).expect("it can exist");
    let mut built = Control::new(&config, HashSeed([9; 16]), [2; 6]).expect("it can exist");
    assert!(control.table_as_of(0, 1).is_some());
    built.rebuild(0);
    built.rebuild(1);
    for (one, other) in control.vips.iter().zip(&built.vips) {
        assert_eq!(one.table, other.table);
    }
    assert_ne!(control.vips[0].table, control.vips[1].table, "their slots differ");
}
