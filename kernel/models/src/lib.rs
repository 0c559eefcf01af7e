//! What several CPUs touch at once, under a model checker (docs/soundness.md).
//!
//! loom runs each test once for every order in which its threads' steps can interleave and every value that a load may then return,
//! with at most as many preemptions as [`check`] allows. Three kinds of files are here:
//! - the kernel's own: `real` compiles them from where they are, with the checker's atomics in place of the processor's ([`x86`]);
//! - tests of these;
//! - models of what can't be compiled here since it is assembly or an interrupt ([`machine`], `crossing`). They follow the kernel step
//!   by step and name the functions that they stand for.
//!
//! A checker that finds nothing proves little unless it would have found something: beside each property there is a mutant of the
//! protocol, and a test which expects that it is found.
//!
//! The crate is empty but for tests: `cargo test --package models`.
#![forbid(unsafe_code)]

#[cfg(test)]
mod broadcast;
#[cfg(test)]
mod crossing;
#[cfg(test)]
mod halting;
#[cfg(test)]
mod line;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod parking;
#[cfg(test)]
#[allow(
    dead_code,
    reason = "of the kernel's files and of the processor, no model needs all"
)]
mod real;
#[cfg(test)]
mod waiting;
#[cfg(test)]
#[allow(
    dead_code,
    reason = "of the kernel's files and of the processor, no model needs all"
)]
mod weak;
#[cfg(test)]
#[allow(
    dead_code,
    reason = "of the kernel's files and of the processor, no model needs all"
)]
mod x86;

/// Checks `model` in every order that needs at most `preemptions` of a running thread by another.
#[cfg(test)]
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}
