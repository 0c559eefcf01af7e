//! Figures of ours beside the peer's, as a table for a person and as JSON for scripts.

use std::fmt;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

/// One measured quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was done; in JSON the object's name.
    pub name: String,
    /// What was counted; in JSON the name in that object.
    pub quantity: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Ours.
    pub ours: Option<f64>,
    /// The peer's.
    pub peer: Option<f64>,
    /// The most that ours may be.
    pub budget: Option<f64>,
}

/// All of a run.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What the peer is.
    pub peer: String,
    /// The figures, in order.
    pub figures: Vec<Figure>,
}

impl Figure {
    /// Ours as a multiple of the peer's.
    pub fn ratio(&self) -> Option<f64> {
        let (ours, peer) = (self.ours?, self.peer?);
        (peer != 0.0).then(|| ours / peer)
    }
}

/// Prints what a measurement gave, or why it gave nothing: what the program that measures ends with.
pub fn report(outcome: anyhow::Result<Table>, as_json: bool) -> ExitCode {
    match outcome {
        Ok(table) if as_json => println!("{}", json(&table)),
        Ok(table) => print!("{table}"),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The table as one object with every figure, its unit, the peer's, and their ratio.
pub fn json(table: &Table) -> Value {
    let mut all = Map::new();
    all.insert("peer".to_owned(), table.peer.clone().into());
    for figure in &table.figures {
        let entry = all.entry(figure.name.clone()).or_insert_with(|| json!({}));
        let mut value = json!({ "value": figure.ours, "unit": figure.unit, "peer": figure.peer, "ratio": figure.ratio() });
        if let Some(budget) = figure.budget {
            value["budget"] = budget.into();
            value["within_budget"] = figure.ours.map(|ours| ours <= budget).into();
        }
        entry[figure.quantity] = value;
    }
    Value::Object(all)
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<26} {:>14} {:>14} {:>8}  {:<16} peer: {}",
            "", "ours", "peer", "ratio", "", self.peer
        )?;
        for figure in &self.figures {
            let number = |value: Option<f64>| value.map_or("-".to_owned(), rounded);
            let ratio = figure
                .ratio()
                .map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            let judged = match (figure.budget, figure.ours) {
                (Some(budget), Some(ours)) if ours <= budget => format!("within {}", rounded(budget)),
                (Some(budget), Some(_)) => format!("OVER {}", rounded(budget)),
                _ => String::new(),
            };
            writeln!(
                formatter,
                "{:<26} {:>14} {:>14} {:>8}  {:<16} {judged}",
                figure.name,
                number(figure.ours),
                number(figure.peer),
                ratio,
                figure.unit
            )?;
        }
        Ok(())
    }
}

fn rounded(value: f64) -> String {
    if value.abs() < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(ours: f64, peer: Option<f64>, budget: Option<f64>) -> Figure {
        Figure {
            name: "read".to_owned(),
            quantity: "instructions",
            unit: "instructions",
            ours: Some(ours),
            peer,
            budget,
        }
    }

    #[test]
    fn ratios_and_budgets() {
        let table = Table {
            peer: "Linux".to_owned(),
            figures: vec![figure(10.0, Some(40.0), Some(9.0))],
        };
        let object = json(&table);
        assert_eq!(object["read"]["instructions"]["ratio"], 0.25);
        assert_eq!(object["read"]["instructions"]["within_budget"], false);
        assert!(table.to_string().contains("OVER"));
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        assert_eq!(figure(1.0, None, None).ratio(), None);
        assert_eq!(figure(1.0, Some(0.0), None).ratio(), None);
    }
}
