//! Sorted sets: members with scores, found by either.

use super::limits::Limits;
use super::ordered::{Ordered, Range, Scored};
use super::range::{LexRange, ScoreRange};
use crate::value::{Collection, Kind, Malformed, Value};
use alloc::boxed::Box;
use alloc::sync::Arc;
use foldhash::fast::FixedState;
use indexmap::IndexMap;

/// Memory that a member takes beside its bytes: its counts, its place in the table and in the order.
const MEMBER_BYTES: usize = 24 + 40 + 8 + 32;

/// A sorted set.
pub struct SortedSet {
    scores: IndexMap<Arc<[u8]>, f64, FixedState>,
    order: Ordered,
    bytes: usize,
    large: bool,
}

impl SortedSet {
    /// An empty one. Who sends the members can't choose them to collide, as long as `seed` is a secret.
    pub fn new(seed: u64) -> SortedSet {
        SortedSet {
            scores: IndexMap::with_hasher(FixedState::with_seed(seed)),
            order: Ordered::default(),
            bytes: 0,
            large: false,
        }
    }

    /// A member's score.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// Gives a member this score, which isn't NaN; the score it had.
    pub fn set(&mut self, member: &[u8], score: f64, limits: &Limits) -> Option<f64> {
        let (member, old) = match self.scores.get_full_mut(member) {
            Some((_, name, present)) => {
                let old = *present;
                *present = score;
                // -0 is stored as such but stands where 0 does.
                if old == score {
                    let name = name.clone();
                    self.order.remove(old, &name);
                    self.order.insert(Scored { score, member: name });
                    return Some(old);
                }
                (name.clone(), Some(old))
            }
            None => {
                self.bytes += member.len();
                self.large |= member.len() > limits.sorted_set_value_bytes;
                let name: Arc<[u8]> = Arc::from(member);
                self.scores.insert(name.clone(), score);
                self.large |= self.scores.len() > limits.sorted_set_entries;
                (name, None)
            }
        };
        if let Some(old) = old {
            self.order.remove(old, &member);
        }
        self.order.insert(Scored { score, member });
        old
    }

    /// Removes a member; its score, if it was there.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = match self.large {
            true => self.scores.swap_remove(member),
            false => self.scores.shift_remove(member),
        }?;
        self.order.remove(score, member);
        self.bytes -= member.len();
        Some(score)
    }

    /// How many members are before this one.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        let score = self.score(member)?;
        Some(self.order.rank(score, member))
    }

    /// The member at a rank.
    pub fn at_rank(&self, rank: usize) -> Option<&Scored> {
        self.order.get(rank)
    }

    /// The member and score at a place from 0 to `len() - 1`, in no order; places change with removals.
    pub fn at(&self, place: usize) -> Option<(&[u8], f64)> {
        self.scores
            .get_index(place)
            .map(|(member, score)| (&**member, *score))
    }

    /// The members with ranks from `start` up to but not including `end`.
    pub fn range(&self, start: usize, end: usize) -> Range<'_> {
        self.order.range(start, end)
    }

    /// All members in order.
    pub fn iter(&self) -> Range<'_> {
        self.order.iter()
    }

    /// The ranks, from the first up to but not including the second, of scores in `range`.
    pub fn ranks_by_score(&self, range: &ScoreRange) -> (usize, usize) {
        let start = self.order.partition_point(|entry| range.is_below(entry.score));
        let end = self.order.partition_point(|entry| !range.is_above(entry.score));
        (start, end.max(start))
    }

    /// The ranks of scores from `first` to before `end`.
    pub fn ranks_from(&self, first: f64, end: f64) -> (usize, usize) {
        let start = self.order.partition_point(|entry| entry.score < first);
        let end = self.order.partition_point(|entry| entry.score < end);
        (start, end.max(start))
    }

    /// The ranks of members in `range`; meant for sets whose scores are all the same.
    pub fn ranks_by_member(&self, range: &LexRange<'_>) -> (usize, usize) {
        let start = self.order.partition_point(|entry| range.is_below(&entry.member));
        let end = self.order.partition_point(|entry| !range.is_above(&entry.member));
        (start, end.max(start))
    }

    /// Whether a scan gives all at once.
    pub fn is_small(&self) -> bool {
        !self.large
    }
}

impl Collection for SortedSet {
    fn kind(&self) -> Kind {
        Kind::SortedSet
    }

    fn len(&self) -> usize {
        self.scores.len()
    }

    fn memory_bytes(&self) -> usize {
        self.bytes + self.scores.len() * MEMBER_BYTES
    }

    fn encoding(&self) -> &'static str {
        if self.large { "skiplist" } else { "listpack" }
    }

    fn load_element(&mut self, element: &[u8], value: &[u8]) -> Result<(), Malformed> {
        let score = f64::from_le_bytes(value.try_into().map_err(|_| Malformed)?);
        if score.is_nan() {
            return Err(Malformed);
        }
        self.set(element, score, &Limits::DEFAULT);
        Ok(())
    }

    fn for_each_element(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (member, score) in &self.scores {
            visit(member, &score.to_le_bytes());
        }
    }

    fn drain_elements(&mut self, limit: usize, visit: &mut dyn FnMut(&[u8])) {
        self.order = Ordered::default();
        for _ in 0..limit {
            let Some((member, _)) = self.scores.pop() else {
                return;
            };
            self.bytes -= member.len();
            visit(&member);
        }
    }

    fn duplicate(&self, seed: u64) -> Value {
        let mut copy = SortedSet::new(seed);
        copy.scores.reserve(self.scores.len());
        for Scored { score, member } in self.iter() {
            copy.scores.insert(member.clone(), *score);
            copy.order.insert(Scored {
                score: *score,
                member: member.clone(),
            });
        }
        copy.bytes = self.bytes;
        copy.large = self.large;
        Value::Collection(Box::new(copy))
    }
}
