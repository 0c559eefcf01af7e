//! What domains hold, as lines of `/metrics`.

use crate::metrics::{Exposition, Kind};
use core::fmt::Display;
use interface::holdings::{FrameUses, Holdings};
use interface::kernel::DomainName;

const PAGE_BYTES: u64 = 4096;

/// What each domain holds.
pub fn holdings(text: &mut Exposition, domains: &[(DomainName, Holdings)]) {
    type Read = fn(&Holdings) -> u64;
    let families: [(&str, &str, Read); 8] = [
        ("redleaf_domain_handles", "Handles to other domains.", |held| {
            held.handles.into()
        }),
        (
            "redleaf_domain_exports",
            "Interfaces that the domain offers.",
            |held| held.exports.into(),
        ),
        (
            "redleaf_domain_shared_objects",
            "Shared objects that the domain owns, without those inside of batches.",
            |held| held.shared_objects,
        ),
        (
            "redleaf_domain_ring_bytes",
            "Ring memory of its devices.",
            |held| held.dma_pages * PAGE_BYTES,
        ),
        (
            "redleaf_domain_interrupts",
            "Interrupts that the domain can wait for.",
            |held| held.interrupts.into(),
        ),
        (
            "redleaf_domain_devices",
            "PCI functions that it drives.",
            |held| held.devices.into(),
        ),
        ("redleaf_domain_image_bytes", "Its image in memory.", |held| {
            held.image_pages * PAGE_BYTES
        }),
        ("redleaf_domain_heap_bytes", "Its private heap.", |held| {
            held.heap_pages * PAGE_BYTES
        }),
    ];
    for (name, help, read) in families {
        text.each((name, Kind::Gauge, help), domains, |sample, (domain, held)| {
            sample(&[("domain", domain)], read(held));
        });
    }
}

/// What RAM is used for.
pub fn frame_uses(text: &mut Exposition, uses: &FrameUses) {
    let uses = [
        ("kernel_heap", uses.kernel_heap),
        ("page_tables", uses.page_tables),
        ("stacks", uses.stacks),
        ("images", uses.images),
        ("private_heaps", uses.private_heaps),
        ("shared_heap", uses.shared_heap),
        ("rings", uses.dma),
        ("other", uses.other),
    ];
    let family = (
        "redleaf_memory_used_bytes",
        Kind::Gauge,
        "RAM in use, by what for.",
    );
    text.each(family, &uses, |sample, (name, pages)| {
        sample(&[("use", name as &dyn Display)], pages * PAGE_BYTES);
    });
}
