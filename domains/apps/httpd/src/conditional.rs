//! Conditional and range requests (RFC 9110, 13 and 14): what of a file is to be sent, if anything.
//!
//! One range is served; a list of several is answered with the whole file, as 14.2 allows.

use crate::date;
use crate::request::{Conditions, Single, list};
use crate::site::File;

/// What a conditional request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The whole file.
    Whole,
    /// Bytes from `start` to before `end`, at least one.
    Part {
        /// First byte.
        start: u64,
        /// Behind the last byte.
        end: u64,
    },
    /// The client's copy is current.
    NotModified,
    /// A precondition doesn't hold.
    PreconditionFailed,
    /// The range is behind the file's end.
    NotSatisfiable,
}

/// Evaluates the conditions in the order of RFC 9110, 13.2.2. `partial` says whether the method may have a range (GET).
pub fn select(file: &File, conditions: &Conditions<'_>, partial: bool, now_s: u64) -> Selection {
    match conditions.if_match {
        Single::Absent => {
            if let Some(time) = time(conditions.if_unmodified_since, now_s)
                && file.modified.is_some_and(|modified| modified > time)
            {
                return Selection::PreconditionFailed;
            }
        }
        Single::Value(value) if matches(file, value, true) => {}
        _ => return Selection::PreconditionFailed,
    }
    match conditions.if_none_match {
        Single::Absent => {
            if let Some(time) = time(conditions.if_modified_since, now_s)
                && file.modified.is_some_and(|modified| modified <= time)
            {
                return Selection::NotModified;
            }
        }
        Single::Value(value) if matches(file, value, false) => return Selection::NotModified,
        _ => {}
    }
    let Some(value) = conditions.range.value().filter(|_| partial) else {
        return Selection::Whole;
    };
    let applies = match conditions.if_range {
        Single::Absent => true,
        Single::Value(value) if value.first() == Some(&b'"') => value == file.etag.as_bytes(),
        Single::Value(value) => {
            let time = date::parse(value, now_s);
            time.is_some() && time == file.modified
        }
        Single::Repeated => false,
    };
    if applies {
        range(value, file.length)
    } else {
        Selection::Whole
    }
}

fn time(field: Single<'_>, now_s: u64) -> Option<u64> {
    date::parse(field.value()?, now_s)
}

/// Whether a list of entity tags names the file's; `strong` as in RFC 9110, 8.8.3.2.
fn matches(file: &File, value: &[u8], strong: bool) -> bool {
    if value == b"*" {
        return true;
    }
    // No tag of ours has a comma in it, so where a foreign one is torn apart its pieces match nothing.
    let own = file.etag.as_bytes();
    !own.is_empty()
        && list(value)
            .any(|tag| tag == own || (!strong && tag.strip_prefix(b"W/").is_some_and(|tag| tag == own)))
}

/// A Range field's value; anything that isn't one byte range is as if it weren't there.
fn range(value: &[u8], length: u64) -> Selection {
    let parsed = parse_range(value);
    match parsed {
        None => Selection::Whole,
        Some(Range::Suffix(0)) => Selection::NotSatisfiable,
        Some(Range::Suffix(_)) if length == 0 => Selection::NotSatisfiable,
        Some(Range::Suffix(count)) => Selection::Part {
            start: length.saturating_sub(count),
            end: length,
        },
        Some(Range::From(start, _)) if start >= length => Selection::NotSatisfiable,
        Some(Range::From(start, last)) => Selection::Part {
            start,
            end: last.map_or(length, |last| last.saturating_add(1).min(length)),
        },
    }
}

enum Range {
    From(u64, Option<u64>),
    Suffix(u64),
}

fn parse_range(value: &[u8]) -> Option<Range> {
    let (unit, set) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut ranges = list(set);
    let (range, None) = (ranges.next()?, ranges.next()) else {
        return None;
    };
    let dash = range.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (range.get(..dash)?, range.get(dash + 1..)?);
    if first.is_empty() {
        return Some(Range::Suffix(number(last)?));
    }
    let first = number(first)?;
    if last.is_empty() {
        return Some(Range::From(first, None));
    }
    let last = number(last)?;
    (first <= last).then_some(Range::From(first, Some(last)))
}

/// A decimal number; one that doesn't fit is as good as the largest.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Site;
    use crate::testing::boot_file;
    use proptest::prelude::*;

    const MODIFIED: u64 = 784_111_777;
    const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &[u8] = b"Sun, 06 Nov 1994 08:49:36 GMT";

    fn site() -> Site {
        Site::new([("/a", boot_file(b"0123456789"))], Some(MODIFIED))
    }

    fn one<'b>(set: impl FnOnce(&mut Conditions<'b>)) -> Conditions<'b> {
        let mut conditions = Conditions {
            any: true,
            ..Conditions::default()
        };
        set(&mut conditions);
        conditions
    }

    fn selected(set: impl FnOnce(&mut Conditions<'_>)) -> Selection {
        select(site().file(0).unwrap(), &one(set), true, MODIFIED)
    }

    #[test]
    fn ranges() {
        use Selection::{NotSatisfiable, Part, Whole};
        for (value, expected) in [
            ("bytes=0-0", Part { start: 0, end: 1 }),
            ("bytes=2-4", Part { start: 2, end: 5 }),
            ("Bytes=2-", Part { start: 2, end: 10 }),
            ("bytes=9-99", Part { start: 9, end: 10 }),
            ("bytes=-3", Part { start: 7, end: 10 }),
            ("bytes=-30", Part { start: 0, end: 10 }),
            ("bytes=0-99999999999999999999999", Part { start: 0, end: 10 }),
            ("bytes= 1-2 ,", Part { start: 1, end: 3 }),
            ("bytes=10-", NotSatisfiable),
            ("bytes=-0", NotSatisfiable),
            ("bytes=99999999999999999999999-", NotSatisfiable),
            ("bytes=0-1,3-4", Whole),
            ("bytes=4-2", Whole),
            ("bytes=a-", Whole),
            ("bytes=-", Whole),
            ("bytes=", Whole),
            ("lines=1-2", Whole),
            ("", Whole),
        ] {
            assert_eq!(range(value.as_bytes(), 10), expected, "{value}");
        }
        assert_eq!(range(b"bytes=0-", 0), NotSatisfiable);
        assert_eq!(range(b"bytes=-1", 0), NotSatisfiable);
    }

    #[test]
    fn entity_tags_decide_before_dates() {
        let site = site();
        let tag = site.file(0).unwrap().etag.clone();
        let weak = format!("W/{tag}");
        let list = format!("\"x\", {weak}");
        let select = |conditions: Conditions<'_>| select(site.file(0).unwrap(), &conditions, true, MODIFIED);
        for value in [tag.as_str(), &weak, &list, "*"] {
            let conditions = one(|fields| {
                fields.if_none_match = Single::Value(value.as_bytes());
                fields.if_modified_since = Single::Value(EARLIER);
            });
            assert_eq!(select(conditions), Selection::NotModified, "{value}");
        }
        let conditions = one(|fields| {
            fields.if_none_match = Single::Value(b"\"x\"");
            fields.if_modified_since = Single::Value(DATE);
        });
        assert_eq!(select(conditions), Selection::Whole);
        let strong = |value: &str| select(one(|fields| fields.if_match = Single::Value(value.as_bytes())));
        assert_eq!(strong(&tag), Selection::Whole);
        assert_eq!(strong("*"), Selection::Whole);
        assert_eq!(strong(&weak), Selection::PreconditionFailed);
        assert_eq!(strong("\"x\""), Selection::PreconditionFailed);
    }

    #[test]
    fn dates() {
        assert_eq!(
            selected(|fields| fields.if_modified_since = Single::Value(DATE)),
            Selection::NotModified
        );
        assert_eq!(
            selected(|fields| fields.if_modified_since = Single::Value(EARLIER)),
            Selection::Whole
        );
        assert_eq!(
            selected(|fields| fields.if_modified_since = Single::Value(b"soon")),
            Selection::Whole
        );
        assert_eq!(
            selected(|fields| fields.if_unmodified_since = Single::Value(DATE)),
            Selection::Whole
        );
        let earlier = selected(|fields| fields.if_unmodified_since = Single::Value(EARLIER));
        assert_eq!(earlier, Selection::PreconditionFailed);
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        let site = site();
        let file = site.file(0).unwrap();
        let with = |validator: &[u8]| {
            let conditions = one(|fields| {
                fields.range = Single::Value(b"bytes=1-2");
                fields.if_range = Single::Value(validator);
            });
            select(file, &conditions, true, MODIFIED)
        };
        let part = Selection::Part { start: 1, end: 3 };
        assert_eq!(with(file.etag.as_bytes()), part);
        assert_eq!(with(DATE), part);
        assert_eq!(with(EARLIER), Selection::Whole);
        assert_eq!(with(format!("W/{}", file.etag).as_bytes()), Selection::Whole);
        assert_eq!(with(b""), Selection::Whole);
        let head = one(|fields| fields.range = Single::Value(b"bytes=1-2"));
        assert_eq!(select(file, &head, false, MODIFIED), Selection::Whole);
    }

    proptest! {
        #[test]
        fn a_part_is_inside_the_file(value in "bytes=[0-9]{0,22}-?[0-9]{0,22}", length: u64) {
            if let Selection::Part { start, end } = range(value.as_bytes(), length) {
                prop_assert!(start < end && end <= length);
            }
        }
    }
}
