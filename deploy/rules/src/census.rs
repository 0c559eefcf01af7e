//! How much `unsafe` there is in each crate of kernel/, held against what docs/soundness.md says.
//!
//! The table there says for each crate what its unsafe code is for, and in how many places. A number that isn't true is a violation, so a change
//! that adds a place shows it where the argument is made.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::project::{Layer, Project};
use crate::unsafe_code;
use crate::violation::Violation;

/// The page with the table, relative to the root.
pub const PAGE: &str = "docs/soundness.md";
/// How the table's first line begins.
const HEADING: &str = "| crate of kernel/ |";

/// Places in each crate of kernel/ that need an argument, by the crate's name.
///
/// # Errors
/// When a source can't be read.
pub fn count(project: &Project) -> Result<BTreeMap<String, usize>> {
    project
        .packages
        .iter()
        .filter(|package| package.layer == Some(Layer::Kernel))
        .map(|package| {
            // As the table calls it: by its folder.
            let folder = package.directory.file_name().unwrap_or_default();
            Ok((
                folder.to_string_lossy().into_owned(),
                unsafe_code::count(project, package)?,
            ))
        })
        .collect()
}

/// Checks that the table has every crate of kernel/ with the right number.
///
/// # Errors
/// When a source or the page can't be read.
pub fn check(project: &Project) -> Result<Vec<Violation>> {
    let path = project.root.join(PAGE);
    let text = fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
    Ok(compare(&text, count(project)?))
}

fn compare(text: &str, mut counted: BTreeMap<String, usize>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut violate = |line, message| {
        violations.push(Violation {
            file: PathBuf::from(PAGE),
            line,
            message,
        });
    };
    for (line, names, said) in rows(text) {
        let mut there = 0;
        for name in names.split(", ") {
            match counted.remove(name) {
                Some(count) => there += count,
                None => violate(
                    Some(line),
                    format!("kernel/{name} isn't there, or stands here twice"),
                ),
            }
        }
        if said != Some(there) {
            violate(
                Some(line),
                format!(
                    "{names}: {there} places need an argument; say so here, and why in the commit if that is more"
                ),
            );
        }
    }
    for (name, count) in counted {
        violate(
            None,
            format!("the table of unsafe code lacks kernel/{name}, which has {count} places"),
        );
    }
    violations
}

/// The table's rows: line, names, number.
fn rows(text: &str) -> impl Iterator<Item = (usize, &str, Option<usize>)> {
    text.lines()
        .zip(1..)
        .skip_while(|(line, _)| !line.starts_with(HEADING))
        .skip(2)
        .take_while(|(line, _)| line.starts_with('|'))
        .filter_map(|(line, number)| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            Some((number, cells.next()?, cells.next()?.parse().ok()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# Page\n\n| crate of kernel/ | places | for |\n|---|---|---|\n| a | 3 | it |\n| b, c | 2 | that |\n\n| d | 9 | |\n";

    fn complaints(counts: &[(&str, usize)]) -> Vec<Option<usize>> {
        let counted = counts
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        let violations = compare(TABLE, counted);
        violations.iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn the_table_is_held_against_the_tree() {
        assert_eq!(complaints(&[("a", 3), ("b", 0), ("c", 2)]), []);
        assert_eq!(complaints(&[("a", 4), ("b", 0), ("c", 2)]), [Some(5)]);
        assert_eq!(complaints(&[("a", 3), ("b", 1), ("c", 2)]), [Some(6)]);
        assert_eq!(
            complaints(&[("a", 3), ("b", 1), ("c", 1), ("e", 0)]),
            [None],
            "a crate that the table lacks"
        );
        assert_eq!(
            complaints(&[("a", 3), ("b", 2)]),
            [Some(6)],
            "a crate that is gone"
        );
    }
}
