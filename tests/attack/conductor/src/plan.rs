//! What to try: the file `attack/plan` of the boot archive, or everything.
//!
//! Lines of a word and its values: `positions NAME…`, `attacks NAME…`, `seed NUMBER`. What isn't there is all, or 1.

use crate::attacks::Attack;
use crate::position::POSITIONS;
use alloc::string::String;
use alloc::vec::Vec;
use domain_rt::{BootBytes, StartError};

/// The file.
const FILE: &str = "attack/plan";

/// Which cells to try.
#[derive(Debug)]
pub struct Plan {
    /// Seed of everything that is random.
    pub seed: u64,
    positions: Option<Vec<String>>,
    attacks: Option<Vec<Attack>>,
}

impl Plan {
    /// The plan of this image.
    pub fn read() -> Result<Plan, StartError> {
        let text = BootBytes::open(FILE).map_or(&[][..], |file| file.as_slice());
        let text = core::str::from_utf8(text).map_err(|_| StartError::from("the plan is not UTF-8"))?;
        Plan::parse(text)
    }

    fn parse(text: &str) -> Result<Plan, StartError> {
        let mut plan = Plan {
            seed: 1,
            positions: None,
            attacks: None,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                None => {}
                Some("seed") => {
                    plan.seed = words
                        .next()
                        .and_then(|word| word.parse().ok())
                        .ok_or("the plan's seed is no number")?;
                }
                Some("positions") => {
                    let names: Vec<String> = words.map(String::from).collect();
                    if let Some(unknown) = names
                        .iter()
                        .find(|name| POSITIONS.iter().all(|position| position.name != name.as_str()))
                    {
                        return Err(StartError::new(format_args!(
                            "the plan names an unknown position, {unknown}"
                        )));
                    }
                    plan.positions = Some(names);
                }
                Some("attacks") => {
                    let attacks = words.map(|word| {
                        Attack::by_name(word).ok_or_else(|| {
                            StartError::new(format_args!("the plan names an unknown attack, {word}"))
                        })
                    });
                    plan.attacks = Some(attacks.collect::<Result<_, _>>()?);
                }
                Some(other) => {
                    return Err(StartError::new(format_args!(
                        "the plan has an unknown line, {other}"
                    )));
                }
            }
        }
        Ok(plan)
    }

    /// Whether to try a position.
    pub fn has_position(&self, name: &str) -> bool {
        self.positions
            .as_ref()
            .is_none_or(|positions| positions.iter().any(|known| known == name))
    }

    /// The attacks to try.
    pub fn attacks(&self) -> impl Iterator<Item = Attack> {
        let chosen = self.attacks.as_ref();
        Attack::all().filter(move |attack| chosen.is_none_or(|chosen| chosen.contains(attack)))
    }
}
