//! What may be in the store: by what was sent and what was acknowledged.
//!
//! Writes of one key come one after the other, so its state is that of the last acknowledged write, or of a later one that was sent and not acknowledged.
//! Anything else is a loss, or something that was never written.

use std::collections::BTreeMap;
use std::fmt;

use crate::record::Event;
use crate::value;

#[derive(Clone, Debug)]
struct Write {
    version: u64,
    length: Option<usize>,
    /// The mark of its acknowledgement.
    acknowledged: Option<u64>,
}

/// All writes, by key.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    keys: BTreeMap<String, Vec<Write>>,
    /// Acknowledged writes.
    pub acknowledged: u64,
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// An acknowledged write isn't there: nothing is, or an older state.
    Lost {
        /// The key.
        key: String,
        /// The last acknowledged version.
        acknowledged: u64,
        /// The version that is there; `None` when no key is.
        found: Option<u64>,
    },
    /// What is there was never written.
    NeverWritten {
        /// The key.
        key: String,
        /// The value's first bytes.
        value: String,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost {
                key,
                acknowledged,
                found: Some(found),
            } => write!(
                formatter,
                "{key}: version {acknowledged} was acknowledged, version {found} is there"
            ),
            Self::Lost {
                key, acknowledged, ..
            } => write!(
                formatter,
                "{key}: version {acknowledged} was acknowledged, no value is there"
            ),
            Self::NeverWritten { key, value } => {
                write!(formatter, "{key}: this was never written: {value}")
            }
        }
    }
}

impl Oracle {
    /// From a load's record.
    pub fn new(events: &[Event]) -> Self {
        let mut oracle = Self::default();
        for event in events {
            match event {
                Event::Sent { key, version, length } => {
                    oracle.keys.entry(key.clone()).or_default().push(Write {
                        version: *version,
                        length: *length,
                        acknowledged: None,
                    })
                }
                Event::Acknowledged { key, version, mark } => {
                    let writes = oracle.keys.get_mut(key).into_iter().flatten();
                    for write in writes.filter(|write| write.version == *version) {
                        write.acknowledged = Some(*mark);
                        oracle.acknowledged += 1;
                    }
                }
            }
        }
        oracle
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// How many writes had been acknowledged when the other log was at `mark`.
    pub fn acknowledged_by(&self, mark: u64) -> usize {
        self.keys
            .values()
            .flatten()
            .filter(|write| write.acknowledged.is_some_and(|at| at <= mark))
            .count()
    }

    /// Judges a key's value, or that there is none, when the other log was at `mark`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, key: &str, found: Option<&[u8]>, mark: u64) -> Result<(), Wrong> {
        let writes = self.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        let last = writes
            .iter()
            .rposition(|write| write.acknowledged.is_some_and(|at| at <= mark));
        let is_it = |write: &Write| match (write.length, found) {
            (None, None) => true,
            (Some(length), Some(found)) => value::make(key, write.version, length) == found,
            _ => false,
        };
        let allowed = writes.get(last.unwrap_or_default()..).unwrap_or_default();
        if last.is_none() && found.is_none() || allowed.iter().any(is_it) {
            return Ok(());
        }
        let older = writes.iter().rfind(|write| is_it(write));
        match (found, older, last.and_then(|at| writes.get(at))) {
            (None, _, Some(last)) => Err(Wrong::Lost {
                key: key.to_owned(),
                acknowledged: last.version,
                found: None,
            }),
            (Some(_), Some(older), Some(last)) => Err(Wrong::Lost {
                key: key.to_owned(),
                acknowledged: last.version,
                found: Some(older.version),
            }),
            _ => Err(Wrong::NeverWritten {
                key: key.to_owned(),
                value: String::from_utf8_lossy(found.unwrap_or_default())
                    .chars()
                    .take(40)
                    .collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three writes: 1 acknowledged at 100, 2 (a deletion) at 200, 3 sent only.
    fn oracle() -> Oracle {
        let sent = |version, length| Event::Sent {
            key: "k".into(),
            version,
            length,
        };
        let acknowledged = |version, mark| Event::Acknowledged {
            key: "k".into(),
            version,
            mark,
        };
        Oracle::new(&[
            sent(1, Some(20)),
            acknowledged(1, 100),
            sent(2, None),
            acknowledged(2, 200),
            sent(3, Some(30)),
        ])
    }

    #[test]
    fn the_last_acknowledged_state_and_later_ones_may_be_there() {
        let oracle = oracle();
        let (first, third) = (value::make("k", 1, 20), value::make("k", 3, 30));
        for mark in [0, 99] {
            assert_eq!(oracle.check("k", None, mark), Ok(()));
            assert_eq!(oracle.check("k", Some(&first), mark), Ok(()));
        }
        assert_eq!(oracle.check("k", Some(&first), 100), Ok(()));
        assert_eq!(oracle.check("k", None, 100), Ok(()));
        assert_eq!(oracle.check("k", Some(&third), 200), Ok(()));
        assert_eq!(oracle.acknowledged_by(100), 1);
    }

    #[test]
    fn a_lost_write_and_one_that_never_was_are_told_apart() {
        let oracle = oracle();
        let lost = oracle.check("k", Some(&value::make("k", 1, 20)), 200);
        assert!(matches!(
            lost,
            Err(Wrong::Lost {
                acknowledged: 2,
                found: Some(1),
                ..
            })
        ));
        let torn = &value::make("k", 3, 30)[..29];
        assert!(matches!(
            oracle.check("k", Some(torn), 200),
            Err(Wrong::NeverWritten { .. })
        ));
        assert!(matches!(
            oracle.check("other", Some(b"x"), 0),
            Err(Wrong::NeverWritten { .. })
        ));
        assert_eq!(oracle.check("other", None, 0), Ok(()));
    }

    #[test]
    fn an_acknowledged_value_that_is_gone_is_lost() {
        let events = [
            Event::Sent {
                key: "k".into(),
                version: 1,
                length: Some(5),
            },
            Event::Acknowledged {
                key: "k".into(),
                version: 1,
                mark: 10,
            },
        ];
        let oracle = Oracle::new(&events);
        assert_eq!(oracle.check("k", None, 9), Ok(()));
        assert!(matches!(
            oracle.check("k", None, 10),
            Err(Wrong::Lost { found: None, .. })
        ));
    }
}
