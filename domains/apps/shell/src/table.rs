//! Tables and quantities as people read them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Space between two columns.
const GAP: usize = 2;

/// Rows of text under headings, in columns as wide as they need to be.
pub struct Table {
    rows: Vec<Vec<String>>,
    headings: bool,
}

impl Table {
    /// A table with these headings; none for none. A heading that begins with `>` is of numbers, set to the right.
    pub fn new(headings: &[&str]) -> Table {
        Table {
            rows: match headings {
                [] => Vec::new(),
                headings => Vec::from([headings.iter().map(ToString::to_string).collect()]),
            },
            headings: !headings.is_empty(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn is_number(&self, column: usize) -> bool {
        let heading = self.rows.first().filter(|_| self.headings);
        heading
            .and_then(|row| row.get(column))
            .is_some_and(|cell| cell.starts_with('>'))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let text = |cell: &'_ String| {
            cell.strip_prefix('>')
                .map(str::to_string)
                .unwrap_or_else(|| cell.clone())
        };
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| text(cell).chars().count()).max().unwrap_or(0)
            })
            .collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column > 0 {
                    line.extend([' '; GAP]);
                }
                let cell = text(cell);
                if self.is_number(column) {
                    line += &format!("{cell:>width$}");
                } else {
                    line += &format!("{cell:<width$}");
                }
            }
            let end = if number + 1 == self.rows.len() { "" } else { "\n" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Bytes, in the largest unit that keeps one digit before the point.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!(
        "{}.{} {}",
        tenths / 10,
        tenths % 10,
        UNITS.get(unit).unwrap_or(&"")
    )
}

/// A time since boot, in seconds and milliseconds.
pub fn seconds(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1_000)
}

/// A short span, in milliseconds and microseconds.
pub fn milliseconds(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000, ns / 1_000 % 1_000)
}

/// A long span in words: the two largest units.
pub fn span(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let parts = [
        (seconds / 86_400, "day"),
        (seconds / 3_600 % 24, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
    ];
    let words: Vec<String> = parts
        .iter()
        .skip_while(|(count, unit)| *count == 0 && *unit != "second")
        .take(2)
        .map(|(count, unit)| format!("{count} {unit}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&["NAME", ">COUNT", "STATE"]);
        table.row(["ixgbe", "12", "running"].map(String::from));
        table.row(["a-long-name", "3", "dead"].map(String::from));
        assert_eq!(
            table.to_string(),
            "NAME         COUNT  STATE\nixgbe           12  running\na-long-name      3  dead"
        );
        assert_eq!(Table::new(&[]).to_string(), "");
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!(
            [0, 1023, 1024, 1536, 10 << 20, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10.0 MiB", "16383.9 PiB"]
        );
        assert_eq!(seconds(12_345_678_901), "12.345");
        assert_eq!(milliseconds(4_205_999), "4.205");
        assert_eq!(
            [0, 61, 3_600, 90_000, 172_800].map(|seconds| span(seconds * 1_000_000_000)),
            [
                "0 seconds",
                "1 minute 1 second",
                "1 hour 0 minutes",
                "1 day 1 hour",
                "2 days 0 hours"
            ]
        );
    }
}
