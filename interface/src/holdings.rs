//! What a domain holds, and whether all of it adds up.

use rref::{Exchange, Share, Text};

/// What one domain holds now. Shared objects are those that it owns, whoever made them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct Holdings {
    /// Pages of its image: they stay with the domain over its deaths.
    pub image_pages: u64,
    /// Pages of its private heap.
    pub heap_pages: u64,
    /// Pages of its threads' stacks.
    pub stack_pages: u64,
    /// Threads that it started.
    pub threads: u32,
    /// Handles to other domains.
    pub handles: u32,
    /// Interfaces that it offers.
    pub exports: u32,
    /// Shared objects, those inside of batches not counted.
    pub shared_objects: u64,
    /// Bytes of them, with their headers.
    pub shared_bytes: u64,
    /// Pages of ring memory for its devices.
    pub dma_pages: u64,
    /// Interrupts that it can wait for.
    pub interrupts: u32,
    /// PCI functions.
    pub devices: u32,
}

/// Pages of RAM by what they are used for. Together they are all that isn't free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Exchange, Share)]
pub struct FrameUses {
    /// The kernel's own heap. It grows in steps and doesn't shrink.
    pub kernel_heap: u64,
    /// Page tables.
    pub page_tables: u64,
    /// Stacks of threads.
    pub stacks: u64,
    /// Images of domains.
    pub images: u64,
    /// Private heaps of domains.
    pub private_heaps: u64,
    /// The shared heap.
    pub shared_heap: u64,
    /// Ring memory of devices.
    pub dma: u64,
    /// Anything else of the kernel's.
    pub other: u64,
}

/// Findings that a [`LeakReport`] has room for.
pub const FINDINGS: usize = 8;

/// What a comparison of all holdings with the allocators has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub struct LeakReport {
    /// Things that don't add up. What was only under way while the kernel looked is not among them.
    pub found: u32,
    /// The first of them, as sentences.
    pub findings: [Text<120>; FINDINGS],
    /// Pages of RAM that the allocator manages.
    pub total_pages: u64,
    /// Free ones.
    pub free_pages: u64,
    /// The others.
    pub uses: FrameUses,
    /// Bytes of the kernel's heap in use.
    pub kernel_heap_used_bytes: u64,
    /// Threads of domains.
    pub domain_threads: u32,
    /// Threads of the kernel's own.
    pub kernel_threads: u32,
    /// Shared objects in use, those inside of batches counted too.
    pub shared_objects: u64,
}
