//! Sums of decimal numbers as INCRBYFLOAT gives them: exact to 17 places, without exponents.

use crate::error::CommandError;
use crate::number;
use alloc::format;
use alloc::string::String;

/// Places behind the point.
const PLACES: u32 = 17;
/// One, in units of the last place.
const ONE: i128 = 10_i128.pow(PLACES);
/// Numbers from here on are summed as floating-point numbers, in units of the last place.
const LIMIT: i128 = 10_i128.pow(PLACES + 19);

/// The sum of two numbers, as text.
///
/// # Errors
/// When one is no number, or the sum is infinite.
pub fn add(first: &[u8], second: &[u8]) -> Result<String, CommandError> {
    let (left, right) = (
        number::float(first).ok_or(CommandError::NotFloat)?,
        number::float(second).ok_or(CommandError::NotFloat)?,
    );
    if let (Some(left), Some(right)) = (fixed(first), fixed(second)) {
        return Ok(text(left + right));
    }
    let sum = left + right;
    if !sum.is_finite() {
        return Err(CommandError::Plain("ERR increment would produce NaN or Infinity"));
    }
    Ok(trim(format!("{sum:.17}")))
}

/// A number in units of the last place; `None` if it is too large for that.
fn fixed(text: &[u8]) -> Option<i128> {
    let text = core::str::from_utf8(text).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut value: i128 = 0;
    let mut scale = i32::try_from(PLACES).ok()? + exponent;
    let mut round_up = false;
    // Digits count until the last place; the first one behind it rounds.
    for (index, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        if !digit.is_ascii_digit() {
            return None;
        }
        if index >= whole.len() {
            scale -= 1;
            if scale < 0 {
                round_up = scale == -1 && digit >= b'5';
                if scale < -1 {
                    break;
                }
                continue;
            }
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        if value > LIMIT {
            return None;
        }
    }
    for _ in 0..scale.clamp(0, 60) {
        value = value.checked_mul(10)?;
        if value > LIMIT {
            return None;
        }
    }
    if exponent < 0 && scale < 0 && fraction.is_empty() {
        return None;
    }
    value += i128::from(round_up);
    Some(if negative { -value } else { value })
}

fn text(value: i128) -> String {
    let magnitude = value.unsigned_abs();
    let one = ONE.unsigned_abs();
    let sign = if value < 0 { "-" } else { "" };
    trim(format!("{sign}{}.{:017}", magnitude / one, magnitude % one))
}

/// Takes off zeros behind the point, and the point.
fn trim(mut text: String) -> String {
    if text.contains('.') {
        let length = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(length);
    }
    if text == "-0" {
        text.remove(0);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_where_people_look() {
        for (first, second, sum) in [
            ("10.50", "0.1", "10.6"),
            ("0.1", "0.2", "0.3"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "1.5", "4.5"),
            ("17179869184", "1", "17179869185"),
            ("1", "-1", "0"),
            ("-1.1", "0.1", "-1"),
            ("1e-3", "0", "0.001"),
        ] {
            assert_eq!(
                add(first.as_bytes(), second.as_bytes()).as_deref(),
                Ok(sum),
                "{first} + {second}"
            );
        }
        assert!(add(b"1e300", b"1").is_ok());
        assert_eq!(add(b"x", b"1"), Err(CommandError::NotFloat));
        assert!(add(b"inf", b"1").is_err());
    }
}
