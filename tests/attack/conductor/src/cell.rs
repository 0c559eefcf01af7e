//! One cell of the matrix: an attack in a position, and the judgement.

use crate::MS;
use crate::attacks::{Attack, Mode};
use crate::position::{Answer, Call, Cpus, Place, Position, Raiser};
use crate::scene::Scene;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use attack::Fault;
use attack_interface::victim::{Dwell, Goods, Seen, Victim, VictimError};
use core::ops::RangeInclusive;
use domain_rt::sync::Mutex;
use domain_rt::{Handle, clock, thread};
use fastrand::Rng;
use interface::kernel::{DeathCause, DomainState};
use rref::{Packet, PacketBatch, RRef};

/// How long deaths may take to come.
const DEATH_LIMIT_NS: u64 = 5_000 * MS;
/// How long the caller may take to come back then.
const RETURN_LIMIT_NS: u64 = 2_000 * MS;
/// How long a call stays that nobody cuts short or releases.
const STAY_US: u32 = 4_000_000;
/// Faults and orders come at random within this time.
const DELAY_US: u32 = 3_000;
/// A cell after which something is missing is tried again, so often: what only grew for the first time stays as it is then.
const TRIES: u32 = 4;

/// What a cell showed.
pub enum Outcome {
    /// All as it must be.
    Green,
    /// It is no fault there.
    Inapplicable,
    /// What was wrong.
    Red(String),
}

/// Tries a cell, with `repeat` times as many rounds as the position says.
pub fn try_out(
    scene: &mut Scene,
    position: &Position,
    attack: Attack,
    repeat: u32,
    random: &mut Rng,
) -> Outcome {
    if attack.causes(position.mode()).is_empty() {
        return Outcome::Inapplicable;
    }
    let mut missing = String::new();
    for _ in 0..TRIES {
        match try_once(scene, position, attack, repeat, random) {
            Ok(None) => return Outcome::Green,
            Ok(Some(difference)) => missing = difference,
            Err(reason) => {
                clear_up(scene);
                return Outcome::Red(reason);
            }
        }
    }
    Outcome::Red(format!("{missing}, and so each time"))
}

/// One try with all its rounds; what is different afterwards.
fn try_once(
    scene: &mut Scene,
    position: &Position,
    attack: Attack,
    repeat: u32,
    random: &mut Rng,
) -> Result<Option<String>, String> {
    let before = scene.settled_figures()?;
    for _ in 0..position.rounds.saturating_mul(repeat) {
        round(scene, position, attack, random)?;
    }
    Ok(scene.wait_for_figures(&before).err())
}

/// A victim that is to die.
struct Doomed {
    place: Place,
    index: u16,
    handle: Handle<dyn Victim>,
}

fn round(scene: &mut Scene, position: &Position, attack: Attack, random: &mut Rng) -> Result<(), String> {
    scene.forget_deaths();
    scene.orders.clear();
    let doomed = position
        .dead
        .iter()
        .map(|&place| {
            Ok(Doomed {
                place,
                index: scene.index(place)?,
                handle: scene.connect(place)?,
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let first = scene.connect(Place::A)?;
    let last_cpu = thread::cpu_count().saturating_sub(1);
    prepare(&first, position, last_cpu)?;
    let call = start_call(scene, &first, position, attack, last_cpu)?;
    let cpus = match position.cpus {
        Cpus::Same => last_cpu..=last_cpu,
        Cpus::Other => 0..=0,
        Cpus::All => 0..=last_cpu,
    };
    raise(scene, position, attack, &doomed, cpus, random)?;

    wait_for_deaths(scene, position, attack, &doomed)?;
    if let Some(call) = call {
        // Those whose callers died stay until now.
        scene
            .connect(Place::C)?
            .release()
            .map_err(|error| format!("victim-c can't be released: {error}"))?;
        let answer = call.wait()?;
        judge(position, answer, &doomed)?;
    }
    for victim in &doomed {
        match victim.handle.ping() {
            Err(VictimError::Dead(error))
                if error.target() == victim.handle.target() && !error.during_call() => {}
            other => return Err(format!("a dead {} answers {other:?}", victim.place.domain())),
        }
        scene.wait_until_runs_after(victim.index, victim.handle.target().generation())?;
        scene
            .connect(victim.place)?
            .ping()
            .map_err(|error| format!("the new {} doesn't answer: {error}", victim.place.domain()))?;
    }
    match scene.next_death(0) {
        None => Ok(()),
        Some(other) => Err(format!(
            "{} died too: {}: {}",
            scene.name(other.domain),
            other.cause,
            other.detail
        )),
    }
}

/// What is there before the fault.
fn prepare(first: &Handle<dyn Victim>, position: &Position, cpu: u16) -> Result<(), String> {
    let failed = |error: VictimError| format!("victim-a can't be prepared: {error}");
    if let Some((way, threads)) = position.crowd {
        first.crowd(way, threads, cpu).map_err(failed)?;
    }
    for (index, work) in (0..).zip(position.work) {
        first.labour(*work, index % thread::cpu_count()).map_err(failed)?;
    }
    Ok(())
}

/// What a call came back with.
type CallResult = Result<Option<Seen>, VictimError>;

/// A call on a thread of its own.
struct Pending(Arc<Mutex<Option<CallResult>>>);

impl Pending {
    /// Waits for its end.
    fn wait(&self) -> Result<CallResult, String> {
        let limit_ns = clock::now_ns() + RETURN_LIMIT_NS;
        loop {
            if let Some(result) = *self.0.lock() {
                return Ok(result);
            }
            if clock::now_ns() > limit_ns {
                return Err("the caller doesn't come back".into());
            }
            thread::sleep_ms(1);
        }
    }
}

/// Makes the position's call, and waits until it is where it is to be.
fn start_call(
    scene: &Scene,
    first: &Handle<dyn Victim>,
    position: &Position,
    attack: Attack,
    cpu: u16,
) -> Result<Option<Pending>, String> {
    let in_call = match attack {
        Attack::Fault(fault) if position.raiser == Raiser::Call => Some(fault),
        _ => None,
    };
    let hops = match position.call {
        Call::None => return Ok(None),
        Call::Fault(hops) | Call::Dwell(_, hops) | Call::Hold(hops) => hops,
    };
    let innermost = match hops {
        0 => Place::A,
        1 => Place::B,
        _ => Place::C,
    };
    let before = scene.crossings(innermost)?;
    let (call, target) = (position.call, first.clone());
    let result = Arc::new(Mutex::new(None));
    let pending = Pending(result.clone());
    thread::spawn("caller", Some(cpu), move || {
        let answer = match (call, in_call) {
            (Call::None, _) => Ok(None),
            (Call::Fault(hops), Some(fault)) => target.fault(fault, hops).map(Some),
            (Call::Fault(hops), None) => target.dwell(Dwell::Spin, hops, STAY_US).map(Some),
            (Call::Dwell(way, hops), _) => target.dwell(way, hops, STAY_US).map(Some),
            (Call::Hold(hops), fault) => hold(&target, fault, hops),
        };
        *result.lock() = Some(answer);
    })
    .map_err(|_| "there is no memory for a caller")?;
    if in_call.is_none() {
        let limit_ns = clock::now_ns() + RETURN_LIMIT_NS;
        while scene.crossings(innermost)? == before {
            if clock::now_ns() > limit_ns {
                return Err(format!("the call doesn't reach {}", innermost.domain()));
            }
            thread::yield_now();
        }
    }
    Ok(Some(pending))
}

/// A call with objects.
fn hold(target: &Handle<dyn Victim>, fault: Option<Fault>, hops: u8) -> CallResult {
    let object = RRef::new([1; 64]).map_err(|_| VictimError::OutOfMemory)?;
    let lent = RRef::new([2; 64]).map_err(|_| VictimError::OutOfMemory)?;
    let mut batch = PacketBatch::new().map_err(|_| VictimError::OutOfMemory)?;
    while !batch.is_full() {
        drop(batch.push(Packet::allocate().map_err(|_| VictimError::OutOfMemory)?));
    }
    let goods = Goods { object, batch };
    target.hold(goods, &lent, fault, hops, STAY_US).map(|_| None)
}

/// Makes the doomed die.
fn raise(
    scene: &Scene,
    position: &Position,
    attack: Attack,
    doomed: &[Doomed],
    cpus: RangeInclusive<u16>,
    random: &mut Rng,
) -> Result<(), String> {
    if position.raiser == Raiser::Start {
        return raise_in_start(scene, attack, doomed, random);
    }
    match attack {
        Attack::Order => {
            spin_us(random.u32(0..DELAY_US));
            doomed.iter().try_for_each(|victim| scene.kill(victim.place))
        }
        Attack::Fault(fault) if position.raiser == Raiser::Threads => doomed.iter().try_for_each(|victim| {
            // The same for all threads of a victim: they are to meet.
            let delay_us = DELAY_US / 2 + random.u32(0..DELAY_US);
            cpus.clone()
                .try_for_each(|cpu| victim.handle.fault_later(fault, cpu, delay_us))
                .or_else(|error| match error {
                    // On a busy host the fault may come before this call has returned. Whether it was this fault is looked at as always.
                    VictimError::Dead(_) => Ok(()),
                    other => Err(format!(
                        "{} doesn't take its order: {other}",
                        victim.place.domain()
                    )),
                })
        }),
        Attack::Fault(_) => Ok(()),
    }
}

fn spin_us(time_us: u32) {
    let until_ns = clock::now_ns() + u64::from(time_us) * 1_000;
    while clock::now_ns() < until_ns {
        core::hint::spin_loop();
    }
}

/// Kills the first victim, so that its next start faults, or is killed too.
fn raise_in_start(scene: &Scene, attack: Attack, doomed: &[Doomed], random: &mut Rng) -> Result<(), String> {
    let Some(victim) = doomed.first() else {
        return Ok(());
    };
    match attack {
        Attack::Fault(fault) => {
            scene.orders.set(victim.index, fault);
            scene.kill(victim.place)
        }
        Attack::Order => {
            scene.orders.set(victim.index, Fault::Sleep);
            scene.kill(victim.place)?;
            let limit_ns = clock::now_ns() + RETURN_LIMIT_NS;
            loop {
                let status = scene.status(victim.index)?;
                if status.state == DomainState::Starting {
                    spin_us(random.u32(0..DELAY_US));
                    return scene.kill(victim.place);
                }
                if clock::now_ns() > limit_ns {
                    return Err("the victim isn't started again".into());
                }
                thread::yield_now();
            }
        }
    }
}

/// Waits until the doomed have died of the right cause, and nobody else.
fn wait_for_deaths(
    scene: &mut Scene,
    position: &Position,
    attack: Attack,
    doomed: &[Doomed],
) -> Result<(), String> {
    let causes = attack.causes(position.mode());
    let mut wanted: Vec<(u16, &[DeathCause])> = doomed.iter().map(|victim| (victim.index, causes)).collect();
    if position.mode() == Mode::Start {
        wanted.extend(
            doomed
                .iter()
                .map(|victim| (victim.index, &[DeathCause::Killed][..])),
        );
    }
    let limit_ns = clock::now_ns() + DEATH_LIMIT_NS;
    while !wanted.is_empty() {
        let Some(death) = scene.next_death(limit_ns) else {
            let missing: Vec<_> = wanted.iter().map(|(index, _)| scene.name(*index)).collect();
            return Err(format!("not dead: {missing:?}"));
        };
        let found = wanted
            .iter()
            .position(|(index, causes)| *index == death.domain && causes.contains(&death.cause));
        match found {
            Some(index) => drop(wanted.swap_remove(index)),
            None => {
                return Err(format!(
                    "{} died of the wrong cause: {}: {}",
                    scene.name(death.domain),
                    death.cause,
                    death.detail
                ));
            }
        }
    }
    Ok(())
}

/// Whether the call came back with the right answer.
fn judge(position: &Position, answer: CallResult, doomed: &[Doomed]) -> Result<(), String> {
    let target = |place: Place| {
        doomed
            .iter()
            .find(|victim| victim.place == place)
            .map(|victim| victim.handle.target())
    };
    let is_dead = |owner| doomed.iter().any(|victim| victim.handle.target() == owner);
    let right = match (position.answer, answer) {
        (Answer::Nothing, _) => true,
        (Answer::Error(place), Err(VictimError::Dead(error))) => Some(error.target()) == target(place),
        (Answer::Seen(place), Ok(Some(seen))) => seen.died.is_some() && seen.died == target(place),
        (Answer::OfOneDead, Err(VictimError::Dead(error))) => is_dead(error.target()),
        (Answer::OfOneDead, Ok(Some(seen))) => seen.died.is_some_and(is_dead),
        _ => false,
    };
    if right {
        Ok(())
    } else {
        Err(format!(
            "the caller got {answer:?} in place of {:?}",
            position.answer
        ))
    }
}

/// After a cell that went wrong: fresh victims for the next one.
fn clear_up(scene: &mut Scene) {
    scene.orders.clear();
    for place in [Place::A, Place::B, Place::C] {
        scene.kill(place).ok();
    }
    thread::sleep_ms(50);
    scene.wait_until_all_run();
    scene.forget_deaths();
}
