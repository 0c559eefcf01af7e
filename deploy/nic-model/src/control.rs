//! The control socket: one JSON request a line, one JSON answer a line.
//!
//! `{"cmd":"fault","kind":"drop","direction":"rx","rate":0.01,"seed":7}` is answered with `{"ok":true}`, questions with the
//! answer beside it, and what can't be done with `{"ok":false,"error":"…"}`.

use crate::capture::Capture;
use crate::device::Device;
use crate::faults::{Direction, FrameFault};
use rustix::io::Errno;
use rustix::net::SendFlags;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Longest request line, in bytes.
const LONGEST_LINE: usize = 64 * 1024;

/// Frames that a fault concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Directions {
    /// Towards the guest.
    Rx,
    /// From the guest.
    Tx,
    /// Both.
    #[default]
    Both,
}

/// What can be asked of a running model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Switches a fault of frames on, or off with a rate of zero.
    Fault {
        /// What happens to frames.
        kind: FrameFault,
        /// To which.
        #[serde(default)]
        direction: Directions,
        /// Share of frames, 0 to 1.
        rate: f64,
        /// Seed of the decisions; both directions get generators of their own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<u64>,
    },
    /// Plugs the cable in or pulls it.
    Link {
        /// Whether it is plugged in.
        up: bool,
    },
    /// Stops the DMA engine.
    StopDma,
    /// Starts it again.
    StartDma,
    /// Loses this share of interrupts.
    LoseInterrupts {
        /// 0 to 1.
        rate: f64,
    },
    /// Makes resets hang, or lets the next one work.
    HangOnReset {
        /// Whether they hang.
        on: bool,
    },
    /// Switches every fault off. The cable stays as it is.
    Clear,
    /// What is switched on.
    Faults,
    /// The model's own counters.
    Counters,
    /// What the driver did that it must not do.
    Violations {
        /// Forget them after answering.
        #[serde(default)]
        clear: bool,
    },
    /// Register values.
    Registers {
        /// Only registers whose name starts with this; without it all that aren't zero.
        #[serde(default)]
        prefix: String,
    },
    /// Starts a capture into a file, or ends it.
    Pcap {
        /// The file; none ends the capture.
        #[serde(default)]
        file: Option<PathBuf>,
    },
}

/// Does what a request line asks and gives the answer line.
pub fn answer(device: &mut Device, line: &str) -> String {
    let value = match serde_json::from_str::<Request>(line) {
        Ok(request) => match perform(device, request) {
            Ok(Value::Null) => json!({ "ok": true }),
            Ok(mut value) => {
                value["ok"] = json!(true);
                value
            }
            Err(error) => json!({ "ok": false, "error": error }),
        },
        Err(error) => json!({ "ok": false, "error": format!("not understood: {error}") }),
    };
    value.to_string()
}

fn perform(device: &mut Device, request: Request) -> Result<Value, String> {
    match request {
        Request::Fault {
            kind,
            direction,
            rate,
            seed,
        } => {
            check_rate(rate)?;
            if direction != Directions::Tx {
                device.faults().set(kind, Direction::Rx, rate, seed);
            }
            if direction != Directions::Rx {
                device
                    .faults()
                    .set(kind, Direction::Tx, rate, seed.map(|seed| seed ^ u64::MAX));
            }
        }
        Request::Link { up } => device.set_link(up),
        Request::StopDma => device.set_dma_stopped(true),
        Request::StartDma => device.set_dma_stopped(false),
        Request::LoseInterrupts { rate } => {
            check_rate(rate)?;
            device.faults().set_interrupt_loss(rate);
        }
        Request::HangOnReset { on } => device.set_hang_on_reset(on),
        Request::Clear => device.clear_faults(),
        Request::Faults => return Ok(json!({ "faults": device.faults().summary() })),
        Request::Counters => return Ok(counters(device)),
        Request::Violations { clear } => {
            let value = json!({ "violations": device.violations() });
            if clear {
                device.clear_violations();
            }
            return Ok(value);
        }
        Request::Registers { prefix } => return Ok(json!({ "registers": device.registers(&prefix) })),
        Request::Pcap { file } => {
            let frames = device.captured();
            let capture = match &file {
                Some(path) => Some(Capture::create(path).map_err(|e| format!("{}: {e}", path.display()))?),
                None => None,
            };
            device.set_capture(capture);
            return Ok(json!({ "captured": frames }));
        }
    }
    device.settle();
    Ok(Value::Null)
}

fn check_rate(rate: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&rate) {
        Ok(())
    } else {
        Err(format!("a rate is between 0 and 1, not {rate}"))
    }
}

/// Everything that is counted, in one object.
pub fn counters(device: &mut Device) -> Value {
    let (link_up, link_changes) = device.link_state();
    let (vectors, msi, pin) = device.lines().sent();
    let by_vector: Vec<Value> = vectors
        .iter()
        .enumerate()
        .filter(|(_, sent)| **sent > 0)
        .map(|(vector, sent)| json!({ "vector": vector, "sent": sent }))
        .collect();
    json!({
        "mac": mac_text(device.mac()),
        "link": { "up": link_up, "changes": link_changes },
        "device": device.counters(),
        "interrupts": {
            "msix": vectors.iter().sum::<u64>(),
            "msi": msi,
            "pin": pin,
            "by_vector": by_vector,
        },
        "waiting_frames": device.buffered_frames(),
        "wire_lost": device.wire().lost(),
        "captured": device.captured(),
        "violations": device.violations().iter().map(|v| v.count).sum::<u64>(),
        "faults": device.faults().summary(),
    })
}

/// A MAC address as people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// One connected user of the control socket.
pub struct ControlConnection {
    socket: OwnedFd,
    received: Vec<u8>,
}

impl ControlConnection {
    /// Takes over a connected socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            received: Vec::new(),
        }
    }

    /// The socket, to sleep on.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Answers the lines that have arrived, without waiting; false when the connection has ended.
    pub fn serve(&mut self, device: &mut Device) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match rustix::net::recv(&self.socket, &mut chunk, rustix::net::RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((length, _)) => self
                    .received
                    .extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
            while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let mut reply = answer(device, String::from_utf8_lossy(&line).trim());
                reply.push('\n');
                if self.send(reply.as_bytes()).is_err() {
                    return false;
                }
            }
            if self.received.len() > LONGEST_LINE {
                return false;
            }
        }
        true
    }

    fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL)?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceConfig;
    use crate::wire::MemoryWire;

    fn ask(device: &mut Device, line: &str) -> Value {
        serde_json::from_str(&answer(device, line)).expect("answers are JSON")
    }

    #[test]
    fn requests_are_lines_of_json() {
        let mut device = Device::new(DeviceConfig::default(), Box::new(MemoryWire::new()));
        let answer = ask(
            &mut device,
            r#"{"cmd":"fault","kind":"drop","direction":"both","rate":0.01,"seed":7}"#,
        );
        assert_eq!(answer, json!({ "ok": true }));
        let faults = ask(&mut device, r#"{"cmd":"faults"}"#);
        assert_eq!(faults["faults"]["frames"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            ask(&mut device, r#"{"cmd":"link","up":false}"#)["ok"],
            json!(true)
        );
        assert_eq!(
            ask(&mut device, r#"{"cmd":"counters"}"#)["link"]["up"],
            json!(false)
        );
        let registers = ask(&mut device, r#"{"cmd":"registers","prefix":"STATUS"}"#);
        assert_eq!(registers["registers"][0]["name"], json!("STATUS"));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        let mut device = Device::new(DeviceConfig::default(), Box::new(MemoryWire::new()));
        for line in [
            "",
            "{}",
            r#"{"cmd":"dance"}"#,
            r#"{"cmd":"lose-interrupts","rate":3}"#,
        ] {
            let answer = ask(&mut device, line);
            assert_eq!(answer["ok"], json!(false), "{line}");
            assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()));
        }
    }
}
