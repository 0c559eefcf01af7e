//! The parsers that read bytes from a network, a disk or an operator, as a fuzzer calls them.
//!
//! Each target must return whatever the bytes are; where a result can be held against another way to get it, it is. `cargo xtask fuzz` runs
//! them under libFuzzer (package `fuzz/`, on a nightly compiler); here the inputs stored in `fuzz/corpus/` are run as tests on the stable
//! one, so that what was found once is not lost.
#![forbid(unsafe_code)]

mod stack;

pub use stack::netstack_frames;

use classifier::destination::{Destinations, Recent, VirtualService};
use httpd::request::{self, Parsed};
use interface::balance::Protocol;
use isolation::image::{Expected, Verified, verify};
use maglev::packet;
use maglev::plain_packet::{PlainIpv4, PlainPattern};
use std::sync::LazyLock;

/// A target: its name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("classifier_frame", classifier_frame),
    ("maglev_frame", maglev_frame),
    ("httpd_request", httpd_request),
    ("netstack_frames", netstack_frames),
    ("domain_image", domain_image),
    ("configuration", configuration),
];

/// Whether a frame is for the balancer, with a fresh memory of services and with one that has just been used.
pub fn classifier_frame(frame: &[u8]) {
    static DESTINATIONS: LazyLock<Destinations> = LazyLock::new(|| {
        let service = |address: &str, protocol, port| VirtualService {
            address: address.parse().expect("an address"),
            protocol,
            port,
        };
        Destinations::new(vec![
            service("10.82.99.100", Protocol::Tcp, 80),
            service("10.82.99.100", Protocol::Udp, 53),
            service("fd82:99::100", Protocol::Tcp, 80),
        ])
    });
    let mut recent = Recent::default();
    let first = DESTINATIONS.is_virtual(frame, &mut recent);
    let second = DESTINATIONS.is_virtual(frame, &mut recent);
    assert_eq!(first, second, "what was seen before decides");
}

/// The balancer's three readers agree on plain packets.
pub fn maglev_frame(frame: &[u8]) {
    let parsed = packet::parse(frame);
    if let Some((plain, flags)) = PlainIpv4::parse(frame, |_, flags| flags) {
        assert!(parsed.is_ok(), "{plain:?} is plain, but {parsed:?}");
        let by_its_own_pattern = PlainPattern::of(frame, &plain).parse(frame, |_, flags| flags);
        assert_eq!(by_its_own_pattern, Some((plain, flags)));
    }
}

/// A request's head: found in any longer input, and in none that is shorter.
pub fn httpd_request(bytes: &[u8]) {
    const LIMIT: usize = 8192;
    let Parsed::Complete(whole, length) = request::parse(bytes, LIMIT) else {
        return;
    };
    let head = bytes.get(..length).expect("a head is no longer than its input");
    assert_eq!(request::parse(head, LIMIT), Parsed::Complete(whole, length));
    let shorter = request::parse(&head[..length - 1], LIMIT);
    assert!(!matches!(shorter, Parsed::Complete(..)), "{shorter:?}");
}

/// A domain's image, with and without what a signature would have said first.
pub fn domain_image(file: &[u8]) {
    let expected = Expected {
        public_key: [7; 32],
        compiler: "rustc",
        interface_hash: [0; 32],
    };
    assert!(verify(file, "domain", &expected).is_err(), "nobody signed it");
    let verified = Verified {
        elf: file,
        symbols: &[],
        build: String::new(),
        signature: [0; 64],
    };
    let Ok(plan) = isolation::elf::plan(verified) else {
        return;
    };
    for segment in &plan.segments {
        let mut memory = vec![0; segment.pages * 4096];
        plan.fill(segment, 0xffff_9000_0000_0000, &mut memory);
    }
}

/// The configurations that domains read for themselves.
pub fn configuration(text: &[u8]) {
    let Ok(text) = core::str::from_utf8(text) else {
        return;
    };
    netstack::config::read(text).ok();
    httpd::config::read(text).ok();
    maglev::config::Config::from_toml(text).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn fuzz() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
    }

    /// Runs whatever is in the corpora; a panic names the file.
    #[test]
    fn stored_inputs_pass() {
        let mut count = 0;
        for (name, run) in TARGETS {
            let inputs = fs::read_dir(fuzz().join("corpus").join(name)).expect("every target has inputs");
            for input in inputs {
                let path = input.expect("a readable folder").path();
                let bytes = fs::read(&path).expect("a readable file");
                println!("{}", path.display());
                run(&bytes);
                count += 1;
            }
        }
        assert!(count >= TARGETS.len());
    }

    /// The nightly package has a program for each target, and no other.
    #[test]
    fn each_target_has_its_program() {
        let mut programs: Vec<String> = fs::read_dir(fuzz().join("fuzz_targets"))
            .expect("the programs")
            .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
            .collect();
        programs.sort();
        let mut names = TARGETS.map(|(name, _)| name.to_owned());
        names.sort();
        assert_eq!(programs, names);
    }
}
