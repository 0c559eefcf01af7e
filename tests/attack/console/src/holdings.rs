//! What domains hold and what the allocators have given out, in the shell's words (`holdings`, `leaks`, `memory`), so that tests compare both alike.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use interface::holdings::{FrameUses, Holdings, LeakReport};
use interface::kernel::MemoryStatus;
use serde_json::{Value, json};

/// A domain's holdings.
pub fn held(held: &Holdings) -> Value {
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
        "uses": uses(&memory.uses),
    })
}

/// What the kernel's comparison of holdings with allocators has found.
pub fn leaks(report: &LeakReport) -> Value {
    let findings: Vec<String> = report
        .findings
        .iter()
        .take(usize::try_from(report.found).unwrap_or(usize::MAX))
        .map(ToString::to_string)
        .collect();
    json!({
        "found": report.found,
        "findings": findings,
        "kernel_heap_used_bytes": report.kernel_heap_used_bytes,
        "shared_objects": report.shared_objects,
    })
}

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
