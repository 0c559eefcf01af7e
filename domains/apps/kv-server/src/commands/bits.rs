//! Strings as bits: SETBIT, BITCOUNT, BITOP, BITFIELD and their kin.

use super::strings::part;
use crate::command::{Command, Context, Flags, Keys, ONE_KEY, command};
use crate::error::CommandError;
use crate::keyspace::Events;
use crate::stable_map::Slot;
use alloc::vec::Vec;

const READ: Flags = Flags::READONLY;
const WRITE: Flags = Flags::WRITE.union(Flags::DENYOOM);

/// The table.
pub const COMMANDS: &[Command] = &[
    command("setbit", 4, WRITE, ONE_KEY, set),
    command("getbit", 3, READ.union(Flags::FAST), ONE_KEY, get),
    command("bitcount", -2, READ, ONE_KEY, count),
    command("bitpos", -3, READ, ONE_KEY, position),
    command(
        "bitop",
        -4,
        WRITE,
        Keys {
            first: 2,
            last: -1,
            step: 1,
        },
        combine,
    ),
    command("bitfield", -2, WRITE, ONE_KEY, |context| field(context, false)),
    command("bitfield_ro", -2, READ.union(Flags::FAST), ONE_KEY, |context| {
        field(context, true)
    }),
];

const NO_OFFSET: CommandError = CommandError::Plain("ERR bit offset is not an integer or out of range");
const NO_BIT: CommandError = CommandError::Plain("ERR bit is not an integer or out of range");

fn offset(context: &Context<'_>, index: usize) -> Result<u64, CommandError> {
    let offset = context.integer(index).map_err(|_| NO_OFFSET)?;
    u64::try_from(offset)
        .ok()
        .filter(|offset| offset / 8 < context.server.config.bulk_limit_bytes)
        .ok_or(NO_OFFSET)
}

/// The byte of a string at an index; zero behind its end.
fn byte_at(context: &mut Context<'_>, slot: Option<Slot>, index: u64) -> Result<u8, CommandError> {
    let Some(slot) = slot else { return Ok(0) };
    let bytes = context.bytes_between(slot, index, index + 1)?;
    Ok(bytes.first().copied().unwrap_or_default())
}

fn set(context: &mut Context<'_>) -> Result<(), CommandError> {
    let key = context.argument(1);
    let offset = offset(context, 2)?;
    let on = match context.integer(3) {
        Ok(0) => false,
        Ok(1) => true,
        _ => return Err(NO_BIT),
    };
    let slot = context.string(key)?;
    let before = byte_at(context, slot, offset / 8)?;
    let mask = 0x80 >> (offset % 8);
    let after = if on { before | mask } else { before & !mask };
    let slot = match slot {
        Some(slot) => slot,
        None => context.set_string(key, b"", false)?,
    };
    if before != after || offset / 8 >= context.string_length(slot) {
        let slot = context.write_at(key, slot, offset / 8, &[after])?;
        context.changed(slot, Events::STRING, "setbit", key);
    }
    context.reply.flag(before & mask != 0);
    Ok(())
}

fn get(context: &mut Context<'_>) -> Result<(), CommandError> {
    let offset = offset(context, 2)?;
    let slot = context.string(context.argument(1))?;
    let byte = byte_at(context, slot, offset / 8)?;
    context.reply.flag(byte & (0x80 >> (offset % 8)) != 0);
    Ok(())
}

/// A range that a command gives in bytes or bits: first bit and the one behind the last.
fn bit_range(context: &Context<'_>, first: usize, length: u64) -> Result<Option<(u64, u64)>, CommandError> {
    let in_bits = match context.arguments.len() - first {
        0..=2 => false,
        _ if context.arguments.is(first + 2, "bit") => true,
        _ if context.arguments.is(first + 2, "byte") => false,
        _ => return Err(CommandError::Syntax),
    };
    let start = context.integer(first)?;
    let end = if context.arguments.len() > first + 1 {
        context.integer(first + 1)?
    } else {
        -1
    };
    let (total, unit) = if in_bits { (length * 8, 1) } else { (length, 8) };
    Ok(part(start, end, total).map(|(start, end)| (start * unit, end * unit)))
}

/// The bytes around a range of bits, the bits outside of it set to `filler`, and the first bit of the first byte.
fn bits_of(
    context: &mut Context<'_>,
    slot: Slot,
    start: u64,
    end: u64,
    filler: bool,
) -> Result<(Vec<u8>, u64), CommandError> {
    let (first, last) = (start / 8, end.div_ceil(8));
    let mut bytes = context.bytes_between(slot, first, last)?.into_owned();
    let head = 0xff_u8.checked_shr((start % 8) as u32).unwrap_or_default();
    let tail = if end.is_multiple_of(8) {
        0xff
    } else {
        !(0xff_u8 >> (end % 8))
    };
    let mut keep = |index: usize, mask: u8| {
        if let Some(byte) = bytes.get_mut(index) {
            *byte = *byte & mask | if filler { !mask } else { 0 };
        }
    };
    keep(0, head);
    keep((last - first) as usize - 1, tail);
    Ok((bytes, first * 8))
}

fn count(context: &mut Context<'_>) -> Result<(), CommandError> {
    if context.arguments.len() == 3 || context.arguments.len() > 5 {
        return Err(CommandError::Syntax);
    }
    let slot = context.string(context.argument(1))?;
    let length = slot.map_or(0, |slot| context.string_length(slot));
    let range = if context.arguments.len() == 2 {
        (length > 0).then_some((0, length * 8))
    } else {
        bit_range(context, 2, length)?
    };
    let mut total = 0;
    if let (Some(slot), Some((start, end))) = (slot, range) {
        let (bytes, _) = bits_of(context, slot, start, end, false)?;
        total = bytes.iter().map(|byte| i64::from(byte.count_ones())).sum();
    }
    context.reply.integer(total);
    Ok(())
}

fn position(context: &mut Context<'_>) -> Result<(), CommandError> {
    let wanted = match context.integer(2) {
        Ok(0) => false,
        Ok(1) => true,
        Ok(_) => return Err(CommandError::Plain("ERR The bit argument must be 1 or 0.")),
        Err(error) => return Err(error),
    };
    if context.arguments.len() > 6 {
        return Err(CommandError::Syntax);
    }
    let has_range = context.arguments.len() > 3;
    let has_end = context.arguments.len() > 4;
    let slot = context.string(context.argument(1))?;
    let length = slot.map_or(0, |slot| context.string_length(slot));
    let range = if has_range {
        bit_range(context, 3, length)?
    } else {
        (length > 0).then_some((0, length * 8))
    };
    let Some(slot) = slot else {
        context.reply.integer(if wanted { -1 } else { 0 });
        return Ok(());
    };
    let Some((start, end)) = range else {
        context.reply.integer(-1);
        return Ok(());
    };
    let (bytes, base) = bits_of(context, slot, start, end, !wanted)?;
    let skip = if wanted { 0 } else { 0xff };
    let found = bytes.iter().position(|byte| *byte != skip).map(|index| {
        let byte = bytes.get(index).copied().unwrap_or_default();
        let inside = if wanted {
            byte.leading_zeros()
        } else {
            byte.leading_ones()
        };
        base + index as u64 * 8 + u64::from(inside)
    });
    let answer = match found {
        Some(bit) => bit as i64,
        // Behind the end of a string there are zeros, unless the caller said where to stop.
        None if !wanted && !has_end => (length * 8) as i64,
        None => -1,
    };
    context.reply.integer(answer);
    Ok(())
}

fn combine(context: &mut Context<'_>) -> Result<(), CommandError> {
    let operation = context.argument(1).to_ascii_lowercase();
    let target = context.argument(2);
    let sources = context.arguments.len() - 3;
    if !matches!(operation.as_slice(), b"and" | b"or" | b"xor" | b"not") {
        return Err(CommandError::Syntax);
    }
    if operation == b"not" && sources != 1 {
        return Err(CommandError::Plain(
            "ERR BITOP NOT must be called with a single source key.",
        ));
    }
    let mut inputs: Vec<Vec<u8>> = Vec::with_capacity(sources);
    for key in context.arguments.from(3) {
        inputs.push(match context.string(key)? {
            Some(slot) => context.bytes(slot)?.into_owned(),
            None => Vec::new(),
        });
    }
    let length = inputs.iter().map(Vec::len).max().unwrap_or_default();
    let mut inputs = inputs.into_iter();
    let mut result = inputs.next().unwrap_or_default();
    result.resize(length, 0);
    if operation == b"not" {
        result.iter_mut().for_each(|byte| *byte = !*byte);
    }
    for input in inputs {
        let bytes = input.iter().copied().chain(core::iter::repeat(0));
        for (to, from) in result.iter_mut().zip(bytes) {
            match operation.as_slice() {
                b"and" => *to &= from,
                b"or" => *to |= from,
                _ => *to ^= from,
            }
        }
    }
    if result.is_empty() {
        if let Some(slot) = context.find(target) {
            context.remove(slot);
            context.notify(Events::GENERIC, "del", target);
        }
    } else {
        let slot = context.set_string(target, &result, false)?;
        context.changed(slot, Events::STRING, "set", target);
    }
    context.reply.count(length);
    Ok(())
}

/// What BITFIELD does with numbers that don't fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

/// An integer of some bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Width {
    signed: bool,
    bits: u32,
}

impl Width {
    fn range(self) -> (i128, i128) {
        if self.signed {
            (-(1_i128 << (self.bits - 1)), (1_i128 << (self.bits - 1)) - 1)
        } else {
            (0, (1_i128 << self.bits) - 1)
        }
    }

    /// What becomes of `value`; `None` if it doesn't fit and that is to fail.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i128> {
        let (least, most) = self.range();
        if (least..=most).contains(&value) {
            return Some(value);
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(value.clamp(least, most)),
            Overflow::Wrap => {
                let bits = value & ((1_i128 << self.bits) - 1);
                Some(if bits > most {
                    bits - (1_i128 << self.bits)
                } else {
                    bits
                })
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Get,
    Set(i64),
    Add(i64),
}

struct Operation {
    width: Width,
    offset: u64,
    overflow: Overflow,
    step: Step,
}

fn width(text: &[u8]) -> Option<Width> {
    let (signed, digits) = match text {
        [b'i' | b'I', digits @ ..] => (true, digits),
        [b'u' | b'U', digits @ ..] => (false, digits),
        _ => return None,
    };
    let bits = crate::number::integer(digits)?;
    let most = if signed { 64 } else { 63 };
    (1..=most).contains(&bits).then_some(Width {
        signed,
        bits: bits as u32,
    })
}

fn field_offset(context: &Context<'_>, index: usize, width: Width) -> Result<u64, CommandError> {
    let text = context.argument(index);
    let (digits, unit) = match text {
        [b'#', digits @ ..] => (digits, u64::from(width.bits)),
        digits => (digits, 1),
    };
    crate::number::integer(digits)
        .and_then(|number| u64::try_from(number).ok())
        .and_then(|number| number.checked_mul(unit))
        .filter(|offset| (offset + u64::from(width.bits) - 1) / 8 < context.server.config.bulk_limit_bytes)
        .ok_or(NO_OFFSET)
}

fn operations(context: &Context<'_>, read_only: bool) -> Result<Vec<Operation>, CommandError> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut index = 2;
    while index < context.arguments.len() {
        let left = context.arguments.len() - index - 1;
        if context.arguments.is(index, "overflow") && left >= 1 {
            overflow = match context.argument(index + 1).to_ascii_lowercase().as_slice() {
                b"wrap" => Overflow::Wrap,
                b"sat" => Overflow::Saturate,
                b"fail" => Overflow::Fail,
                _ => return Err(CommandError::Plain("ERR Invalid OVERFLOW type specified")),
            };
            index += 2;
            continue;
        }
        let (is_get, is_set, is_add) = (
            context.arguments.is(index, "get"),
            context.arguments.is(index, "set"),
            context.arguments.is(index, "incrby"),
        );
        let takes = if is_get { 2 } else { 3 };
        if !(is_get || is_set || is_add) || left < takes {
            return Err(CommandError::Syntax);
        }
        let width = width(context.argument(index + 1)).ok_or(CommandError::Plain(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        ))?;
        let offset = field_offset(context, index + 2, width)?;
        let step = if is_get {
            Step::Get
        } else if is_set {
            Step::Set(context.integer(index + 3)?)
        } else {
            Step::Add(context.integer(index + 3)?)
        };
        if read_only && !is_get {
            return Err(CommandError::Plain(
                "ERR BITFIELD_RO only supports the GET subcommand",
            ));
        }
        operations.push(Operation {
            width,
            offset,
            overflow,
            step,
        });
        index += takes + 1;
    }
    Ok(operations)
}

/// The bytes that a field is in, and how many bits behind it are in the last of them.
fn place(operation: &Operation) -> (u64, u64, u32) {
    let end = operation.offset + u64::from(operation.width.bits);
    (
        operation.offset / 8,
        end.div_ceil(8),
        (end.div_ceil(8) * 8 - end) as u32,
    )
}

fn field(context: &mut Context<'_>, read_only: bool) -> Result<(), CommandError> {
    let operations = operations(context, read_only)?;
    let key = context.argument(1);
    let mut slot = context.string(key)?;
    let mut written = false;
    context.reply.array(operations.len());
    for operation in &operations {
        let (first, last, behind) = place(operation);
        let mut bytes = match slot {
            Some(slot) => context.bytes_between(slot, first, last)?.into_owned(),
            None => Vec::new(),
        };
        bytes.resize((last - first) as usize, 0);
        let all = bytes
            .iter()
            .fold(0_u128, |all, byte| all << 8 | u128::from(*byte));
        let mask = (1_u128 << operation.width.bits) - 1;
        let raw = ((all >> behind) & mask) as i128;
        let (_, most) = operation.width.range();
        let before = if raw > most {
            raw - (1_i128 << operation.width.bits)
        } else {
            raw
        };
        let after = match operation.step {
            Step::Get => {
                context.reply.integer(before as i64);
                continue;
            }
            Step::Set(value) => operation.width.fit(i128::from(value), operation.overflow),
            Step::Add(by) => operation.width.fit(before + i128::from(by), operation.overflow),
        };
        let Some(after) = after else {
            context.reply.null();
            continue;
        };
        let answer = if matches!(operation.step, Step::Set(_)) {
            before
        } else {
            after
        };
        context.reply.integer(answer as i64);
        let all = all & !(mask << behind) | ((after as u128) & mask) << behind;
        for (byte, shift) in bytes.iter_mut().rev().zip((0..).step_by(8)) {
            *byte = (all >> shift) as u8;
        }
        let at = match slot {
            Some(slot) => slot,
            None => context.set_string(key, b"", false)?,
        };
        if before != after || last > context.string_length(at) {
            slot = Some(context.write_at(key, at, first, &bytes)?);
            written = true;
        }
    }
    if written && let Some(slot) = slot {
        context.changed(slot, Events::STRING, "setbit", key);
    }
    Ok(())
}
