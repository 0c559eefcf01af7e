//! Sets.

use super::limits::Limits;
use crate::number;
use crate::value::{Collection, Kind, Malformed, Value};
use alloc::boxed::Box;
use foldhash::fast::FixedState;
use indexmap::IndexSet;

/// Memory that a member takes beside its bytes: the box with its heap overhead, the hash and the index.
const MEMBER_BYTES: usize = 16 + 8 + 16 + 8;

/// What Redis would keep it as, from the smallest form to the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Integers,
    Packed,
    Table,
}

/// A set.
pub struct Set {
    members: IndexSet<Box<[u8]>, FixedState>,
    bytes: usize,
    form: Form,
}

impl Set {
    /// An empty one. Who sends the members can't choose them to collide, as long as `seed` is a secret.
    pub fn new(seed: u64) -> Set {
        Set {
            members: IndexSet::with_hasher(FixedState::with_seed(seed)),
            bytes: 0,
            form: Form::Integers,
        }
    }

    /// Whether it is a member.
    pub fn contains(&self, member: &[u8]) -> bool {
        self.members.contains(member)
    }

    /// The member at a place from 0 to `len() - 1`; places change with removals.
    pub fn at(&self, place: usize) -> Option<&[u8]> {
        self.members.get_index(place).map(|member| &**member)
    }

    /// Adds a member; whether it is new.
    pub fn add(&mut self, member: &[u8], limits: &Limits) -> bool {
        if self.members.contains(member) {
            return false;
        }
        self.members.insert(Box::from(member));
        self.bytes += member.len();
        self.fit(member, limits);
        true
    }

    /// Chooses the form that fits now that `member` is new.
    fn fit(&mut self, member: &[u8], limits: &Limits) {
        let count = self.members.len();
        if self.form == Form::Integers && (number::integer(member).is_none() || count > limits.set_integers) {
            self.form = Form::Packed;
            // Integers are short, but there may be more of them than a packed set takes.
        }
        if self.form == Form::Packed && (member.len() > limits.set_value_bytes || count > limits.set_entries)
        {
            self.form = Form::Table;
        }
    }

    /// Removes a member; whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let removed = match self.form {
            Form::Table => self.members.swap_remove(member),
            Form::Integers | Form::Packed => self.members.shift_remove(member),
        };
        self.bytes -= if removed { member.len() } else { 0 };
        removed
    }

    /// Whether a scan gives all at once.
    pub fn is_small(&self) -> bool {
        self.form != Form::Table
    }

    /// All members.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.members.iter().map(|member| &**member)
    }
}

impl Collection for Set {
    fn kind(&self) -> Kind {
        Kind::Set
    }

    fn len(&self) -> usize {
        self.members.len()
    }

    fn memory_bytes(&self) -> usize {
        self.bytes + self.members.len() * MEMBER_BYTES
    }

    fn encoding(&self) -> &'static str {
        match self.form {
            Form::Integers => "intset",
            Form::Packed => "listpack",
            Form::Table => "hashtable",
        }
    }

    fn load_element(&mut self, element: &[u8], _: &[u8]) -> Result<(), Malformed> {
        self.add(element, &Limits::DEFAULT);
        Ok(())
    }

    fn for_each_element(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for member in self.iter() {
            visit(member, &[]);
        }
    }

    fn drain_elements(&mut self, limit: usize, visit: &mut dyn FnMut(&[u8])) {
        for _ in 0..limit {
            let Some(member) = self.members.pop() else { return };
            self.bytes -= member.len();
            visit(&member);
        }
    }

    fn duplicate(&self, seed: u64) -> Value {
        let mut copy = Set::new(seed);
        copy.members.reserve(self.members.len());
        copy.members.extend(self.members.iter().cloned());
        copy.bytes = self.bytes;
        copy.form = self.form;
        Value::Collection(Box::new(copy))
    }
}
