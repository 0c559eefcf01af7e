//! Floating-point numbers as Redis writes them: the shortest digits that read back the same.

use alloc::string::String;
use core::fmt::Write;

/// Up to here, 2 to the power of 62, whole numbers are written as integers.
const PLAIN_INTEGER: f64 = 4_611_686_018_427_387_904.0;

/// Writes a double as Redis does in replies: integers plainly, else the shortest digits, with an exponent where the plain form would be long.
pub fn format_double(number: f64) -> String {
    let mut text = String::new();
    if number.is_nan() {
        return String::from("nan");
    }
    if number.is_infinite() {
        return String::from(if number > 0.0 { "inf" } else { "-inf" });
    }
    if number == 0.0 {
        return String::from(if number.is_sign_negative() { "-0" } else { "0" });
    }
    if number.abs() <= PLAIN_INTEGER && number as i64 as f64 == number {
        // Writing to a string can't fail.
        let _ = write!(text, "{}", number as i64);
        return text;
    }
    let mut scientific = String::new();
    let _ = write!(scientific, "{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let count = digits.len() as i32;
    // The weight of the last digit, as a power of ten.
    let last = exponent - (count - 1);
    if number < 0.0 {
        text.push('-');
    }
    if last >= 0 && exponent < count + 7 {
        text.push_str(&digits);
        text.extend(core::iter::repeat_n('0', last as usize));
    } else if last < 0 && (last > -7 || exponent.abs() < 4) {
        let whole = count + last;
        if whole <= 0 {
            text.push_str("0.");
            text.extend(core::iter::repeat_n('0', -whole as usize));
            text.push_str(&digits);
        } else {
            let (whole, fraction) = digits.split_at_checked(whole as usize).unwrap_or((&digits, ""));
            text.push_str(whole);
            text.push('.');
            text.push_str(fraction);
        }
    } else {
        let (first, rest) = digits.split_at_checked(1).unwrap_or((&digits, ""));
        text.push_str(first);
        if !rest.is_empty() {
            text.push('.');
            text.push_str(rest);
        }
        let _ = write!(
            text,
            "e{}{}",
            if exponent < 0 { '-' } else { '+' },
            exponent.abs()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::float;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn doubles_read_back(bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(!number.is_nan());
            prop_assert_eq!(float(format_double(number).as_bytes()), Some(number));
        }
    }

    #[test]
    fn doubles_are_written_as_redis_does() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-5.5, "-5.5"),
            (1e16, "10000000000000000"),
            (1e20, "1e+20"),
            (12_345_678_901_234_567_000.0, "12345678901234567000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (0.1, "0.1"),
            (0.001, "0.001"),
            (1e-7, "1e-7"),
            (1.0 / 3.0, "0.3333333333333333"),
            (f64::NEG_INFINITY, "-inf"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
        ] {
            assert_eq!(format_double(number), text, "{number:e}");
        }
    }
}
