//! What a crossing costs on this host's CPU, beside a plain virtual call and a `getppid` system call in the same run.
//!
//! The proxies are the generated ones of an interface, with liveness, generation and ownership as on the appliance; only the
//! kernel under them is a host process. A shadow is a second object of the same interface that calls the first through its own
//! proxy. Kinds of calls are measured in turns of short rounds, so that the machine's other work falls on all of them, and each kind's
//! figure is the median of its rounds.
#![forbid(unsafe_code)]

use rref::{Exchange, Handle, OwnerId, RRef, RpcError, Share, interface};
use serde::Serialize;
use std::hint::black_box;
use std::time::Instant;

/// Calls in one round.
const ROUND: u32 = 20_000;
/// Rounds of each kind.
const ROUNDS: usize = 301;

/// The error of the measured interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Exchange, Share)]
pub enum BenchError {
    /// The callee is dead.
    Dead(RpcError),
}

impl From<RpcError> for BenchError {
    fn from(error: RpcError) -> Self {
        BenchError::Dead(error)
    }
}

/// The measured interface.
#[interface]
pub trait Target {
    /// Adds one.
    fn call(&self, value: u64) -> Result<u64, BenchError>;

    /// Takes an object and gives it back.
    fn exchange(&self, object: RRef<u64>) -> Result<RRef<u64>, BenchError>;
}

struct Callee;

impl Target for Callee {
    #[inline(never)]
    fn call(&self, value: u64) -> Result<u64, BenchError> {
        Ok(value + 1)
    }

    #[inline(never)]
    fn exchange(&self, mut object: RRef<u64>) -> Result<RRef<u64>, BenchError> {
        *object += 1;
        Ok(object)
    }
}

struct Shadow(Handle<dyn Target>);

impl Target for Shadow {
    fn call(&self, value: u64) -> Result<u64, BenchError> {
        self.0.call(value)
    }

    fn exchange(&self, object: RRef<u64>) -> Result<RRef<u64>, BenchError> {
        self.0.exchange(object)
    }
}

/// One kind of call.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was called.
    pub name: &'static str,
    /// Median over the rounds, nanoseconds a call.
    pub nanoseconds: f64,
    /// Share of the system call's time.
    pub of_system_call: f64,
    /// The share that section 11 of the design allows, where it gives one.
    pub budget: Option<f64>,
}

/// Everything that one run measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What is measured.
    pub bench: &'static str,
    /// Unit of `nanoseconds`.
    pub unit: &'static str,
    /// The peer that ratios are to.
    pub peer: &'static str,
    /// The kinds of calls.
    pub figures: Vec<Figure>,
}

fn nanoseconds(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..ROUND {
        call();
    }
    start.elapsed().as_nanos() as f64 / f64::from(ROUND)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Why nothing could be measured.
#[derive(Debug)]
pub struct BenchFailure(String);

impl std::fmt::Display for BenchFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchFailure {}

/// Measures, on the calling thread.
pub fn run() -> Result<Report, BenchFailure> {
    host_platform::attach();
    let fail = |what: &dyn std::fmt::Display| BenchFailure(what.to_string());
    let connect =
        |name: &str| Handle::<dyn Target>::connect(name, OwnerId::NONE, 0).map_err(|error| fail(&error));
    host_platform::provide::<dyn Target>("target", Box::leak(Box::new(Callee)));
    let crossing = connect("target")?;
    host_platform::provide::<dyn Target>("shadow", Box::leak(Box::new(Shadow(crossing.clone()))));
    let shadow = connect("shadow")?;
    let direct: Box<dyn Target> = black_box(Box::new(Callee));

    let mut object = Some(RRef::new(0u64).map_err(|error| fail(&error))?);
    let mut exchange = |target: &dyn Target| {
        if let Some(moved) = object.take() {
            object = target.exchange(black_box(moved)).ok();
        }
    };
    let mut samples: [Vec<f64>; 7] = std::array::from_fn(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        samples[0].push(nanoseconds(|| {
            black_box(nix::unistd::getppid());
        }));
        samples[1].push(nanoseconds(|| {
            black_box(black_box(&*direct).call(black_box(1)).ok());
        }));
        samples[2].push(nanoseconds(|| {
            black_box(crossing.call(black_box(1)).ok());
        }));
        samples[3].push(nanoseconds(|| exchange(black_box(&*direct))));
        samples[4].push(nanoseconds(|| exchange(&*crossing)));
        samples[5].push(nanoseconds(|| {
            black_box(shadow.call(black_box(1)).ok());
        }));
        samples[6].push(nanoseconds(|| exchange(&*shadow)));
    }
    if object.is_none() {
        return Err(BenchFailure("a crossing lost its object".into()));
    }
    let names: [(&'static str, Option<f64>); 7] = [
        ("getppid system call", None),
        ("virtual call", None),
        ("crossing", Some(1.0 / 15.0)),
        ("virtual call with an RRef", None),
        ("crossing with an RRef", Some(1.0 / 8.0)),
        ("crossing through a shadow", Some(1.0 / 8.0)),
        ("crossing through a shadow with an RRef", Some(1.0 / 5.0)),
    ];
    let medians = samples.map(median);
    let system_call = medians[0];
    let figures = names
        .into_iter()
        .zip(medians)
        .map(|((name, budget), nanoseconds)| Figure {
            name,
            nanoseconds,
            of_system_call: nanoseconds / system_call,
            budget,
        })
        .collect();
    Ok(Report {
        bench: "crossing",
        unit: "ns",
        peer: "getppid system call",
        figures,
    })
}

impl Report {
    /// The report as a table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<42}{:>10}{:>18}{:>10}\n",
            "call", "ns", "of a getppid", "budget"
        );
        for figure in &self.figures {
            let share = format!("1/{:.1}", 1.0 / figure.of_system_call);
            let budget = figure
                .budget
                .map_or(String::new(), |budget| format!("1/{:.0}", 1.0 / budget));
            text += &format!(
                "{:<42}{:>10.1}{share:>18}{budget:>10}\n",
                figure.name, figure.nanoseconds
            );
        }
        text
    }

    /// The report as one JSON object.
    pub fn json(&self) -> String {
        // A report holds numbers and texts only, which always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kind_of_call_is_measured() {
        let report = super::run().expect("nothing here can fail on a host");
        assert_eq!(report.figures.len(), 7);
        assert!(report.figures.iter().all(|figure| figure.nanoseconds > 0.0));
        assert!(report.json().contains("\"peer\":\"getppid system call\""));
    }
}
