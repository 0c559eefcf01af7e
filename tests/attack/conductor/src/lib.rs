//! The conductor: makes victims fault in every way and every position, and judges what came of it.
//!
//! Runs once the appliance is up, without anybody's help, and says on the log what each cell of the matrix showed; a test on the host
//! reads that. A cell is green when exactly the right domains died of the right cause, their callers got a typed error, every thread
//! came out, the domains run again, and nothing is lost.
//!
//! `plan.rs` says what to try, `attacks.rs` what is done and which cause is right, `position.rs` where, `cell.rs` tries one, `scene.rs` has the
//! domains, `figures.rs` what they hold, `orders.rs` is what victims ask in their start.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod attacks;
mod cell;
mod figures;
mod orders;
mod plan;
mod position;
mod scene;

use alloc::boxed::Box;
use alloc::sync::Arc;
use attack_interface::orders::Orders;
use cell::Outcome;
use domain_rt::{StartError, clock, thread};
use log::{error, info};
use orders::StartOrders;
use plan::Plan;
use position::POSITIONS;
use scene::Scene;

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// Starts the conductor.
pub fn start() -> Result<(), StartError> {
    let plan = Plan::read()?;
    let orders = Arc::new(StartOrders::default());
    let scene = Scene::new(domain_rt::connect("control", 0)?, orders.clone())?;
    domain_rt::export::<dyn Orders>(Box::new(orders::Service::new(orders)))?;
    thread::spawn("conductor", Some(0), move || conduct(&plan, scene))?;
    Ok(())
}

/// Tries every cell of the plan.
fn conduct(plan: &Plan, mut scene: Scene) {
    if !scene.wait_until_all_run() {
        error!("matrix: not all domains came up");
        return;
    }
    info!("matrix: begins with seed {}", plan.seed);
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let (mut green, mut red, mut inapplicable) = (0, 0, 0);
    for position in POSITIONS
        .iter()
        .filter(|position| plan.has_position(position.name))
    {
        for attack in plan.attacks() {
            let begin_ns = clock::now_ns();
            let outcome = cell::try_out(&mut scene, position, attack, &mut random);
            let took_ms = (clock::now_ns() - begin_ns) / MS;
            match outcome {
                Outcome::Green => {
                    green += 1;
                    info!("matrix: {}/{} green {took_ms} ms", position.name, attack.name());
                }
                Outcome::Inapplicable => {
                    inapplicable += 1;
                    info!("matrix: {}/{} inapplicable", position.name, attack.name());
                }
                Outcome::Red(reason) => {
                    red += 1;
                    error!("matrix: {}/{} red: {reason}", position.name, attack.name());
                }
            }
            if !scene.wait_until_all_run() {
                error!("matrix: ended early: not all domains came back");
                return;
            }
        }
    }
    info!("matrix: done, {green} green, {red} red, {inapplicable} inapplicable");
}
