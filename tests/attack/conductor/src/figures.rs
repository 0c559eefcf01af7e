//! What the machine and its domains hold, to see that nothing is lost.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use interface::kernel::{ControlError, DomainControl, DomainName};

/// What one domain holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    name: DomainName,
    threads: u32,
    memory_bytes: u64,
    shared_bytes: u64,
}

/// What everybody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    free_pages: u64,
    shared_used_bytes: u64,
    domains: Vec<Holdings>,
}

impl Figures {
    /// As they are now, without the domains at `except`.
    #[allow(
        clippy::result_large_err,
        reason = "the kernel's errors carry their text by value, as all that crosses"
    )]
    pub fn now(control: &dyn DomainControl, except: &[u16]) -> Result<Figures, ControlError> {
        let mut domains = Vec::new();
        for index in 0..u16::MAX {
            let Some(status) = control.status(index)? else {
                break;
            };
            if !except.contains(&index) {
                domains.push(Holdings {
                    name: status.name,
                    threads: status.threads,
                    memory_bytes: status.memory_bytes,
                    shared_bytes: status.shared_bytes,
                });
            }
        }
        let memory = control.memory()?;
        Ok(Figures {
            free_pages: memory.free_pages,
            shared_used_bytes: memory.shared_used_bytes,
            domains,
        })
    }

    /// What is different in `later`, in words.
    pub fn difference(&self, later: &Figures) -> String {
        let mut text = String::new();
        let mut say = |what: &str, before: u64, after: u64| {
            if before != after {
                let separator = if text.is_empty() { "" } else { ", " };
                // Writing to a string doesn't fail.
                write!(text, "{separator}{what} {before} -> {after}").ok();
            }
        };
        say("free pages", self.free_pages, later.free_pages);
        say("shared bytes", self.shared_used_bytes, later.shared_used_bytes);
        for (before, after) in self.domains.iter().zip(&later.domains) {
            let of = |what: &str| alloc::format!("{what} of {}", before.name);
            say(
                &of("threads"),
                u64::from(before.threads),
                u64::from(after.threads),
            );
            say(&of("memory"), before.memory_bytes, after.memory_bytes);
            say(&of("shared memory"), before.shared_bytes, after.shared_bytes);
        }
        text
    }
}
