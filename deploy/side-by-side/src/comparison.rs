//! Rounds in turns, and figures of them.

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::Round;

/// Our code against C: the budget of the design.
pub const BUDGET_RATIO: f64 = 1.1;

/// Medians of both sides, their ratio, and how sure that is. What is serialised is the ratio; the times are for reports, which name their unit.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Of our side, nanoseconds a unit of work.
    #[serde(skip)]
    pub ours_ns: f64,
    /// Of the C program's.
    #[serde(skip)]
    pub theirs_ns: f64,
    /// Ours of theirs.
    pub ratio: f64,
    /// The lower and upper quartile of the rounds' ratios.
    pub ratio_quartiles: [f64; 2],
    /// What the ratio may be.
    pub budget_ratio: f64,
    /// Whether it is.
    pub within_budget: bool,
}

/// Runs rounds of `units` of work each on both sides, and one before that fills caches and doesn't count. `before` is told each round's number.
///
/// # Errors
/// When a side fails, or the two have not done the same.
pub fn compare<const RESULTS: usize>(
    rounds: u32,
    units: usize,
    before: impl Fn(u32),
    mut ours: impl FnMut() -> Result<Round<RESULTS>>,
    mut theirs: impl FnMut() -> Result<Round<RESULTS>>,
) -> Result<Comparison> {
    let (mut our_times, mut their_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        before(round);
        // Taking turns at going first, so that neither always finds the machine as the other left it.
        let (our_round, their_round) = if round % 2 == 0 {
            let our_round = ours()?;
            (our_round, theirs()?)
        } else {
            let their_round = theirs()?;
            (ours()?, their_round)
        };
        ensure!(
            our_round.results == their_round.results,
            "the two sides have not done the same: {our_round:?} here, {their_round:?} in C"
        );
        if round > 0 {
            let (our_time, their_time) = (our_round.nanoseconds as f64, their_round.nanoseconds as f64);
            our_times.push(our_time / units as f64);
            their_times.push(their_time / units as f64);
            ratios.push(our_time / their_time);
        }
    }
    let (ours_ns, theirs_ns) = (quantile(&mut our_times, 0.5), quantile(&mut their_times, 0.5));
    let ratio = ours_ns / theirs_ns;
    Ok(Comparison {
        ours_ns,
        theirs_ns,
        ratio,
        ratio_quartiles: [quantile(&mut ratios, 0.25), quantile(&mut ratios, 0.75)],
        budget_ratio: BUDGET_RATIO,
        within_budget: ratio <= BUDGET_RATIO,
    })
}

impl Comparison {
    /// The columns of a table that [`Comparison::cells`] fills.
    pub fn heading() -> String {
        format!(
            "{:>9}  {:>9}  {:>5}  {:<11}  budget",
            "Rust ns", "C ns", "ratio", "quartiles"
        )
    }

    /// These figures as cells of a table.
    pub fn cells(&self) -> String {
        let [lower, upper] = self.ratio_quartiles;
        format!(
            "{:>9.2}  {:>9.2}  {:>5.2}  {lower:.2} – {upper:.2}  {} {}",
            self.ours_ns,
            self.theirs_ns,
            self.ratio,
            self.budget_ratio,
            if self.within_budget { "met" } else { "MISSED" },
        )
    }
}

/// The value below which the given part of the values lie; 0 of none.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    values
        .get((last * part).round() as usize)
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&mut [5.0, 1.0, 3.0], 0.5), 3.0);
        assert_eq!(quantile(&mut [5.0, 1.0, 3.0, 4.0, 2.0], 0.25), 2.0);
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }

    fn round(nanoseconds: u64, result: u64) -> Result<Round<1>> {
        Ok(Round {
            nanoseconds,
            results: [result],
        })
    }

    #[test]
    fn medians_of_the_rounds_that_count() {
        let number = Cell::new(0);
        // The first round takes a hundred times as long, and doesn't count.
        let time = |base: u64| if number.get() == 0 { base * 100 } else { base };
        let compared = compare(
            3,
            10,
            |round| number.set(round),
            || round(time(50), 1),
            || round(time(100), 1),
        );
        let compared = compared.unwrap();
        assert_eq!((compared.ours_ns, compared.theirs_ns), (5.0, 10.0));
        assert_eq!((compared.ratio, compared.within_budget), (0.5, true));
    }

    #[test]
    fn other_results_are_no_figures() {
        let error = compare(3, 10, |_| {}, || round(1, 1), || round(1, 2)).unwrap_err();
        assert!(error.to_string().contains("not done the same"), "{error}");
    }
}
