//! What domains hold and what the allocators have given out, as JSON: the answers of `holdings`, `leaks` and `memory` to scripts.
//!
//! The shell gives them, and the consoles of images that attack themselves, so that tests compare both alike.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use interface::holdings::{FrameUses, Holdings, LeakReport};
use interface::kernel::MemoryStatus;
use serde_json::{Value, json};

/// Bytes in a page.
pub const PAGE_BYTES: u64 = 4096;

/// A domain's holdings.
pub fn holdings(held: &Holdings) -> Value {
    json!({
        "image_pages": held.image_pages,
        "heap_pages": held.heap_pages,
        "stack_pages": held.stack_pages,
        "threads": held.threads,
        "handles": held.handles,
        "exports": held.exports,
        "shared_objects": held.shared_objects,
        "shared_bytes": held.shared_bytes,
        "dma_pages": held.dma_pages,
        "interrupts": held.interrupts,
        "devices": held.devices,
    })
}

/// The machine's memory.
pub fn memory(memory: &MemoryStatus) -> Value {
    json!({
        "total_pages": memory.total_pages,
        "free_pages": memory.free_pages,
        "shared_used_bytes": memory.shared_used_bytes,
        "shared_pages": memory.shared_pages,
        "page_bytes": PAGE_BYTES,
        "uses": uses(&memory.uses),
    })
}

/// What the kernel's comparison of holdings with allocators has found; `findings` in the words of whoever answers.
pub fn leaks(report: &LeakReport, findings: &[String]) -> Value {
    json!({
        "found": report.found,
        "findings": findings,
        "total_pages": report.total_pages,
        "free_pages": report.free_pages,
        "uses": uses(&report.uses),
        "kernel_heap_used_bytes": report.kernel_heap_used_bytes,
        "domain_threads": report.domain_threads,
        "kernel_threads": report.kernel_threads,
        "shared_objects": report.shared_objects,
    })
}

/// Pages in use, by what for.
fn uses(uses: &FrameUses) -> Value {
    json!({
        "kernel_heap": uses.kernel_heap,
        "page_tables": uses.page_tables,
        "stacks": uses.stacks,
        "images": uses.images,
        "private_heaps": uses.private_heaps,
        "shared_heap": uses.shared_heap,
        "dma": uses.dma,
        "other": uses.other,
    })
}
