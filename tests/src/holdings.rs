//! What everybody holds, before and after deaths: the same, but for what is named here.
//!
//! The shell's answers and those of the injector's console are compared alike.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use progress::Step;
use serde_json::Value;

use crate::context::Context;
use crate::running_lab::RunningLab;
use crate::typist::Typist;

/// Time for all domains to run and for memory to be what it was.
const RETURN_LIMIT: Duration = Duration::from_secs(60);
/// By how many pages what remembers deaths may grow: the kernel's heap grows by 256 at a time, the supervisor keeps 1,024 records.
const KERNEL_HEAP_GROWTH: i64 = 768;
const SUPERVISOR_GROWTH: i64 = 256;
/// By how many shared objects what a domain owns varies while nothing happens but ARP: those that are just under way.
const OBJECTS_UNDER_WAY: i64 = 64;
/// By how many pages a fresh incarnation's heap may differ from another's, for what it was asked to do.
const HEAP_GROWTH: i64 = 64;
/// Threads of the supervisor on the lab's two CPUs: two for each, and one for each domain that may be dead at the same time.
const SUPERVISOR_THREADS: i64 = 16;
/// Page tables are as many as the addresses need that stacks happen to be at.
const PAGE_TABLE_GROWTH: i64 = 8;
/// Requests that are answered before a look.
const LAST_REQUESTS: u64 = 200;

/// What everybody holds.
pub struct Snapshot {
    memory: Value,
    holdings: Value,
    leaks: Value,
}

impl Snapshot {
    fn take(lab: &RunningLab) -> Result<Self> {
        Ok(Self {
            // First: looking takes memory of the kernel's.
            leaks: lab.console_json("leaks --json")?,
            memory: lab.console_json("memory --json")?,
            holdings: lab.console_json("holdings --json")?,
        })
    }

    fn pages(&self, usage: &str) -> i64 {
        self.memory["uses"][usage].as_i64().unwrap_or_default()
    }

    fn held(&self, domain: &str, what: &str) -> i64 {
        self.holdings[domain][what].as_i64().unwrap_or_default()
    }
}

/// What is held once every domain is a fresh incarnation, runs, and nothing changes any more.
pub fn settled(lab: &RunningLab, victims: &[String]) -> Result<Snapshot> {
    let step = Step::start("Waiting until every domain runs and is at rest");
    let until = Instant::now() + RETURN_LIMIT;
    wait_until_all_run(lab, until)?;
    for victim in victims {
        Typist::open(&lab.report().serial)?.kill(victim)?;
        wait_until_all_run(lab, until)?;
    }
    // Whatever is connected when it is first needed is connected now.
    for to in [lab.server()?, lab.vip()?] {
        lab.connections(to, LAST_REQUESTS, 1)?;
    }
    let mut last = Snapshot::take(lab)?;
    loop {
        thread::sleep(Duration::from_secs(2));
        let now = Snapshot::take(lab)?;
        if now.holdings == last.holdings && now.memory["free_pages"] == last.memory["free_pages"] {
            step.done("");
            return Ok(now);
        }
        ensure!(
            Instant::now() < until,
            "what the domains hold changes all the time\nbefore: {}\nafter:  {}",
            last.holdings,
            now.holdings
        );
        last = now;
    }
}

fn wait_until_all_run(lab: &RunningLab, until: Instant) -> Result<()> {
    loop {
        let listing = lab.console_json("domains --json")?;
        let domains = listing.as_array().context("`domains` printed no list")?;
        if domains.iter().all(|domain| domain["state"] == "running") {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{RETURN_LIMIT:?} after the last kill not all domains run: {listing}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Fails unless every domain holds what it held, and the machine has the pages that it had.
pub fn compare(context: &Context, before: &Snapshot, after: &Snapshot) -> Result<()> {
    let details = || {
        format!(
            "before: {} {}\nafter:  {} {}",
            before.memory, before.holdings, after.memory, after.holdings
        )
    };
    ensure!(
        after.leaks["found"] == 0,
        "`leaks` finds {}\n{}",
        after.leaks["findings"],
        details()
    );
    let domains = after
        .holdings
        .as_object()
        .context("`holdings` printed no object")?;
    let mut heaps = 0;
    for domain in domains.keys() {
        let counts = [
            "image_pages",
            "stack_pages",
            "threads",
            "handles",
            "exports",
            "dma_pages",
            "interrupts",
            "devices",
        ];
        let heap = after.held(domain, "heap_pages") - before.held(domain, "heap_pages");
        let limit = if domain == "init" {
            SUPERVISOR_GROWTH
        } else {
            HEAP_GROWTH
        };
        ensure!(
            heap <= limit,
            "{domain}'s heap has {heap} pages more than before\n{}",
            details()
        );
        heaps += heap;
        let objects = after.held(domain, "shared_objects") - before.held(domain, "shared_objects");
        ensure!(
            objects <= OBJECTS_UNDER_WAY,
            "{domain} owns {objects} shared objects more than before\n{}",
            details()
        );
        // The supervisor keeps a thread for each death that it once had in hand at the same time.
        let kept = |what: &str| domain == "init" && matches!(what, "threads" | "stack_pages");
        for what in counts.into_iter().filter(|what| !kept(what)) {
            let (was, is) = (before.held(domain, what), after.held(domain, what));
            ensure!(
                was == is,
                "{domain} had {was} {what} before, and {is} after\n{}",
                details()
            );
        }
    }
    let threads = |snapshot: &Snapshot| snapshot.held("init", "threads");
    ensure!(
        threads(after) <= SUPERVISOR_THREADS,
        "the supervisor has {} threads\n{}",
        threads(after),
        details()
    );
    let stacks = after.held("init", "stack_pages") - before.held("init", "stack_pages");
    for (usage, growth) in [("stacks", stacks), ("images", 0), ("dma", 0), ("other", 0)] {
        let (was, is) = (before.pages(usage) + growth, after.pages(usage));
        ensure!(
            was == is,
            "{usage} took {was} pages before, and {is} after\n{}",
            details()
        );
    }
    let growth = after.pages("kernel_heap") - before.pages("kernel_heap");
    ensure!(
        growth <= KERNEL_HEAP_GROWTH,
        "the kernel's heap grew by {growth} pages\n{}",
        details()
    );
    let free = |snapshot: &Snapshot| snapshot.memory["free_pages"].as_i64().unwrap_or_default();
    let tables = after.pages("page_tables") - before.pages("page_tables");
    ensure!(
        tables <= PAGE_TABLE_GROWTH,
        "page tables took {tables} pages more\n{}",
        details()
    );
    // The shared heap keeps an empty span of each size; the rest of what is missing must be explained.
    let shared = after.pages("shared_heap") - before.pages("shared_heap");
    let lost = free(before) - free(after) - growth - heaps - shared - stacks - tables;
    ensure!(lost == 0, "{lost} pages were lost\n{}", details());
    context.figure("free_pages_before", free(before), "");
    context.figure("free_pages_after", free(after), "");
    context.figure("of_it_kernel_heap", growth, "pages");
    context.figure("of_it_private_heaps", heaps, "pages");
    context.figure("of_it_supervisors_stacks", stacks, "pages");
    context.figure("of_it_shared_heap", shared, "pages");
    context.figure(
        "kernel_heap_used_growth",
        after.leaks["kernel_heap_used_bytes"].as_i64().unwrap_or_default()
            - before.leaks["kernel_heap_used_bytes"]
                .as_i64()
                .unwrap_or_default(),
        "bytes",
    );
    Ok(())
}
