//! The members of a sorted set in order of (score, member), with ranks.
//!
//! A tree whose inner nodes count what is below them, so that a rank is found, and a member by its rank, in the time of one descent. All
//! leaves are equally deep. It knows nothing of which members there are: [`super::SortedSet`] keeps the table of scores beside it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// Entries of a leaf, and children of an inner node, at most.
const CAPACITY: usize = 64;
/// Below this a node is joined with a neighbour if both fit into one.
const LOW: usize = CAPACITY / 3;

/// A member and its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The score; never NaN.
    pub score: f64,
    /// The member.
    pub member: Arc<[u8]>,
}

impl Scored {
    /// How this entry stands to (`score`, `member`).
    pub fn compare(&self, score: f64, member: &[u8]) -> Ordering {
        self.score
            .partial_cmp(&score)
            .unwrap_or(Ordering::Equal)
            .then_with(|| (*self.member).cmp(member))
    }
}

enum Node {
    Leaf(Vec<Scored>),
    Inner(Vec<Child>),
}

struct Child {
    /// No entry of `node` is before this one, and all of the child before are; the first child's is not looked at.
    bound: Scored,
    /// Entries in `node`.
    count: usize,
    node: Node,
}

impl Node {
    fn width(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.len(),
            Node::Inner(children) => children.len(),
        }
    }

    /// Adds an entry; the new right neighbour if the node was full.
    fn insert(&mut self, entry: Scored) -> Option<Child> {
        match self {
            Node::Leaf(entries) => {
                let at = entries.partition_point(|other| other.compare(entry.score, &entry.member).is_lt());
                entries.insert(at, entry);
                if entries.len() <= CAPACITY {
                    return None;
                }
                // Sorted input fills the tree from one end: there the old leaf is left nearly full.
                let cut = if at + 1 == entries.len() {
                    CAPACITY - 4
                } else {
                    CAPACITY / 2
                };
                let upper = entries.split_off(cut);
                Some(Child {
                    bound: upper.first()?.clone(),
                    count: upper.len(),
                    node: Node::Leaf(upper),
                })
            }
            Node::Inner(children) => {
                let at = Self::child_before(children, |bound| {
                    bound.compare(entry.score, &entry.member).is_le()
                });
                let child = children.get_mut(at)?;
                child.count += 1;
                let upper = child.node.insert(entry)?;
                child.count -= upper.count;
                children.insert(at + 1, upper);
                if children.len() <= CAPACITY {
                    return None;
                }
                let cut = if at + 2 == children.len() {
                    CAPACITY - 4
                } else {
                    CAPACITY / 2
                };
                let upper = children.split_off(cut);
                Some(Child {
                    bound: upper.first()?.bound.clone(),
                    count: upper.iter().map(|child| child.count).sum(),
                    node: Node::Inner(upper),
                })
            }
        }
    }

    /// The last child whose bound is `before`, or the first.
    fn child_before(children: &[Child], mut before: impl FnMut(&Scored) -> bool) -> usize {
        children
            .get(1..)
            .unwrap_or(&[])
            .partition_point(|child| before(&child.bound))
    }

    /// Takes the entry at `rank` out.
    fn remove(&mut self, mut rank: usize) -> Option<Scored> {
        match self {
            Node::Leaf(entries) => (rank < entries.len()).then(|| entries.remove(rank)),
            Node::Inner(children) => {
                let at = children.iter().position(|child| {
                    let here = rank < child.count;
                    if !here {
                        rank -= child.count;
                    }
                    here
                })?;
                let child = children.get_mut(at)?;
                let removed = child.node.remove(rank)?;
                child.count -= 1;
                if child.node.width() < LOW {
                    Self::join(children, at);
                }
                Some(removed)
            }
        }
    }

    /// Joins the child `at` with a neighbour, if one is small enough; drops it when it is empty.
    fn join(children: &mut Vec<Child>, at: usize) {
        let width = |at: usize| children.get(at).map(|child| child.node.width());
        let Some(own) = width(at) else { return };
        if own == 0 {
            children.remove(at);
            return;
        }
        let fits = |other: Option<usize>| other.is_some_and(|other| own + other <= CAPACITY - LOW / 2);
        let left = if at > 0 && fits(width(at - 1)) {
            at - 1
        } else if fits(width(at + 1)) {
            at
        } else {
            return;
        };
        let upper = children.remove(left + 1);
        let Some(lower) = children.get_mut(left) else {
            return;
        };
        lower.count += upper.count;
        match (&mut lower.node, upper.node) {
            (Node::Leaf(to), Node::Leaf(from)) => to.extend(from),
            (Node::Inner(to), Node::Inner(from)) => to.extend(from),
            // All leaves are equally deep, so neighbours are of one kind.
            (Node::Leaf(_), Node::Inner(_)) | (Node::Inner(_), Node::Leaf(_)) => {}
        }
    }
}

/// Entries in order.
pub struct Ordered {
    root: Node,
    length: usize,
}

impl Default for Ordered {
    fn default() -> Self {
        Ordered {
            root: Node::Leaf(Vec::new()),
            length: 0,
        }
    }
}

impl Ordered {
    /// Entries.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds an entry that isn't there yet.
    pub fn insert(&mut self, entry: Scored) {
        self.length += 1;
        let low = entry.clone();
        if let Some(upper) = self.root.insert(entry) {
            let lower = core::mem::replace(&mut self.root, Node::Leaf(Vec::new()));
            let lower = Child {
                bound: low,
                count: self.length - upper.count,
                node: lower,
            };
            self.root = Node::Inner(Vec::from([lower, upper]));
        }
    }

    /// Takes the entry at `rank` out.
    pub fn remove_rank(&mut self, rank: usize) -> Option<Scored> {
        let removed = self.root.remove(rank)?;
        self.length -= 1;
        if let Node::Inner(children) = &mut self.root
            && children.len() <= 1
        {
            self.root = children
                .pop()
                .map_or_else(|| Node::Leaf(Vec::new()), |only| only.node);
        }
        Some(removed)
    }

    /// Takes (`score`, `member`) out.
    pub fn remove(&mut self, score: f64, member: &[u8]) -> Option<Scored> {
        let rank = self.rank(score, member);
        match self.get(rank)?.compare(score, member) {
            Ordering::Equal => self.remove_rank(rank),
            _ => None,
        }
    }

    /// How many entries are before (`score`, `member`).
    pub fn rank(&self, score: f64, member: &[u8]) -> usize {
        self.partition_point(|entry| entry.compare(score, member).is_lt())
    }

    /// How many entries `before` holds for; it holds for those up to a place in the order and for none behind it.
    pub fn partition_point(&self, mut before: impl FnMut(&Scored) -> bool) -> usize {
        let mut node = &self.root;
        let mut rank = 0;
        loop {
            match node {
                Node::Leaf(entries) => return rank + entries.partition_point(|entry| before(entry)),
                Node::Inner(children) => {
                    let at = Node::child_before(children, |bound| before(bound));
                    let (passed, rest) = children.split_at_checked(at).unwrap_or((&[], children));
                    rank += passed.iter().map(|child| child.count).sum::<usize>();
                    match rest.first() {
                        Some(child) => node = &child.node,
                        None => return rank,
                    }
                }
            }
        }
    }

    /// The entry at `rank`.
    pub fn get(&self, rank: usize) -> Option<&Scored> {
        let (leaf, at) = self.leaf(rank)?;
        leaf.get(at)
    }

    /// The leaf that holds `rank`, and where in it.
    fn leaf(&self, mut rank: usize) -> Option<(&[Scored], usize)> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(entries) => return Some((entries, rank)),
                Node::Inner(children) => {
                    let child = children.iter().find(|child| {
                        let here = rank < child.count;
                        if !here {
                            rank -= child.count;
                        }
                        here
                    })?;
                    node = &child.node;
                }
            }
        }
    }

    /// The entries from rank `start` up to but not including `end`, from either end.
    pub fn range(&self, start: usize, end: usize) -> Range<'_> {
        let end = end.min(self.length);
        Range {
            ordered: self,
            start: start.min(end),
            end,
            front: [].iter(),
            back: [].iter(),
        }
    }

    /// All entries.
    pub fn iter(&self) -> Range<'_> {
        self.range(0, self.length)
    }
}

/// Entries between two ranks.
pub struct Range<'a> {
    ordered: &'a Ordered,
    /// Ranks not yet given.
    start: usize,
    end: usize,
    /// What is known of the leaf that `start` is in, from there on; and of `end`'s, up to it.
    front: core::slice::Iter<'a, Scored>,
    back: core::slice::Iter<'a, Scored>,
}

impl<'a> Iterator for Range<'a> {
    type Item = &'a Scored;

    fn next(&mut self) -> Option<&'a Scored> {
        if self.start >= self.end {
            return None;
        }
        if self.front.len() == 0 {
            let (leaf, at) = self.ordered.leaf(self.start)?;
            self.front = leaf.get(at..)?.iter();
        }
        self.start += 1;
        self.front.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end - self.start;
        (left, Some(left))
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.start >= self.end {
            return None;
        }
        if self.back.len() == 0 {
            let (leaf, at) = self.ordered.leaf(self.end - 1)?;
            self.back = leaf.get(..=at)?.iter();
        }
        self.end -= 1;
        self.back.next_back()
    }
}

impl ExactSizeIterator for Range<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn entry(score: u16, member: u8) -> Scored {
        Scored {
            score: f64::from(score),
            member: Arc::from([member].as_slice()),
        }
    }

    fn check(node: &Node, root: bool) -> (usize, usize) {
        match node {
            Node::Leaf(entries) => {
                assert!(root || !entries.is_empty());
                assert!(entries.len() <= CAPACITY);
                (entries.len(), 0)
            }
            Node::Inner(children) => {
                assert!(children.len() <= CAPACITY && (!root || children.len() > 1) && !children.is_empty());
                let below: Vec<_> = children
                    .iter()
                    .map(|child| {
                        let (count, depth) = check(&child.node, false);
                        assert_eq!(count, child.count);
                        depth
                    })
                    .collect();
                assert!(
                    below.windows(2).all(|pair| pair[0] == pair[1]),
                    "leaves are equally deep"
                );
                (children.iter().map(|child| child.count).sum(), below[0] + 1)
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Random insertions and removals give what a sorted set of the standard library gives, ranks included.
        #[test]
        fn agrees_with_a_sorted_set(steps in prop::collection::vec((any::<u16>(), any::<u8>(), 0_u8..5), 1..4_000), shrink: bool) {
            let mut ordered = Ordered::default();
            let mut model = BTreeSet::new();
            for (score, member, kind) in steps {
                if kind < if shrink { 2 } else { 4 } || !model.contains(&(score, member)) {
                    if model.insert((score, member)) {
                        ordered.insert(entry(score, member));
                    }
                } else {
                    model.remove(&(score, member));
                    prop_assert!(ordered.remove(f64::from(score), &[member]).is_some());
                }
                if shrink && kind == 4 && let Some(least) = model.pop_first() {
                    prop_assert_eq!(ordered.remove_rank(0), Some(entry(least.0, least.1)));
                }
            }
            prop_assert_eq!(check(&ordered.root, true).0, model.len());
            prop_assert_eq!(ordered.len(), model.len());
            let expected: Vec<_> = model.iter().map(|&(score, member)| entry(score, member)).collect();
            prop_assert!(ordered.iter().eq(expected.iter()));
            prop_assert!(ordered.iter().rev().eq(expected.iter().rev()));
            for (rank, wanted) in expected.iter().enumerate() {
                prop_assert_eq!(ordered.get(rank), Some(wanted));
                prop_assert_eq!(ordered.rank(wanted.score, &wanted.member), rank);
            }
            let (from, to) = (expected.len() / 3, expected.len() * 2 / 3);
            prop_assert!(ordered.range(from, to).eq(expected[from..to].iter()));
            let mut both = ordered.range(from, to);
            let mut taken = 0;
            while both.next().is_some() {
                taken += 1 + usize::from(both.next_back().is_some());
            }
            prop_assert_eq!(taken, to - from);
        }
    }

    /// Sorted input leaves full leaves behind, and emptying from the front leaves nothing.
    #[test]
    fn grows_and_shrinks_by_its_ends() {
        let mut ordered = Ordered::default();
        for score in 0..20_000_u16 {
            ordered.insert(entry(score, 1));
        }
        check(&ordered.root, true);
        for score in 0..20_000_u16 {
            assert_eq!(ordered.remove_rank(0), Some(entry(score, 1)));
            if score % 997 == 0 {
                check(&ordered.root, true);
            }
        }
        assert!(ordered.is_empty() && matches!(ordered.root, Node::Leaf(_)));
    }
}
