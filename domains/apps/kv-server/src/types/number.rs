//! Floating-point numbers as Redis writes them: doubles in the shortest form that reads back the same, decimal sums
//! (INCRBYFLOAT) without the noise of binary fractions.

use crate::number::float;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// Integers up to here are doubles without loss, and are written as integers.
const EXACT_INTEGER: f64 = 4_503_599_627_370_496.0;
/// Decimal places that a sum is rounded to.
const SUM_PLACES: u32 = 17;

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
    if number.abs() <= EXACT_INTEGER && number as i64 as f64 == number {
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

/// A decimal number: `digits` times ten to the power of `-places`.
#[derive(Clone, Copy)]
struct Decimal {
    digits: i128,
    places: u32,
}

impl Decimal {
    /// Reads the plain form and the one with an exponent; `None` when it isn't a number or has too many digits to be kept exactly.
    fn parse(text: &str) -> Option<Decimal> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (negative, whole) = match whole.strip_prefix('-') {
            Some(whole) => (true, whole),
            None => (false, whole.strip_prefix('+').unwrap_or(whole)),
        };
        let mut digits = 0_i128;
        for byte in whole.bytes().chain(fraction.bytes()) {
            if !byte.is_ascii_digit() {
                return None;
            }
            digits = digits.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
        }
        let mut places = fraction.len() as i32 - exponent;
        while places < 0 {
            digits = digits.checked_mul(10)?;
            places += 1;
        }
        Some(Decimal {
            digits: if negative { -digits } else { digits },
            places: u32::try_from(places).ok().filter(|&places| places <= 30)?,
        })
    }

    fn at(self, places: u32) -> Option<i128> {
        self.digits
            .checked_mul(10_i128.checked_pow(places.checked_sub(self.places)?)?)
    }

    /// The sum, written plainly: no exponent, no zeros at the end of the fraction.
    fn add(self, other: Decimal) -> Option<String> {
        let places = self.places.max(other.places);
        let mut sum = self.at(places)?.checked_add(other.at(places)?)?;
        let mut kept = places;
        if places > SUM_PLACES {
            let unit = 10_i128.checked_pow(places - SUM_PLACES)?;
            sum = (sum + sum.signum() * (unit / 2)) / unit;
            kept = SUM_PLACES;
        }
        let unit = 10_u128.checked_pow(kept)?;
        let (whole, fraction) = (sum.unsigned_abs() / unit, sum.unsigned_abs() % unit);
        let mut text = String::new();
        let sign = if sum < 0 { "-" } else { "" };
        let _ = match fraction {
            0 => write!(text, "{sign}{whole}"),
            _ => write!(text, "{sign}{whole}.{fraction:0width$}", width = kept as usize),
        };
        if fraction != 0 {
            text.truncate(text.trim_end_matches('0').len());
        }
        Some(text)
    }
}

/// Why there is no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumError {
    /// One of the two isn't a number.
    NotANumber,
    /// The sum would be infinite or not a number.
    OutOfRange,
}

/// `number + increment`, both written as decimals, exactly where they have up to about 30 digits, else as doubles.
///
/// # Errors
/// When one isn't a number, or the sum isn't a finite one.
pub fn add_decimal(number: &[u8], increment: &[u8]) -> Result<Vec<u8>, SumError> {
    let double = |text| float(text).ok_or(SumError::NotANumber);
    let sum = double(number)? + double(increment)?;
    if !sum.is_finite() {
        return Err(SumError::OutOfRange);
    }
    let decimal = |text| core::str::from_utf8(text).ok().and_then(Decimal::parse);
    let exact = decimal(number)
        .zip(decimal(increment))
        .and_then(|(number, increment)| number.add(increment));
    let text = exact.unwrap_or_else(|| {
        let mut text = String::new();
        let _ = write!(text, "{sum}");
        text
    });
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn doubles_read_back(bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(!number.is_nan());
            prop_assert_eq!(float(format_double(number).as_bytes()), Some(number));
        }

        /// Sums of hundredths are exact, whatever binary fractions make of them.
        #[test]
        fn sums_of_hundredths_are_exact(first in -1_000_000_000_i64..1_000_000_000, second in -1_000_000_000_i64..1_000_000_000) {
            let text = |number: i64| alloc::format!("{}{}.{:02}", if number < 0 { "-" } else { "" }, number.abs() / 100, number.abs() % 100);
            let sum = add_decimal(text(first).as_bytes(), text(second).as_bytes()).unwrap();
            let sum = core::str::from_utf8(&sum).unwrap().to_string();
            let wanted = text(first + second);
            let wanted = wanted.trim_end_matches('0').trim_end_matches('.');
            prop_assert_eq!(sum, if wanted.is_empty() || wanted == "-0" { "0" } else { wanted });
        }

        #[test]
        fn any_bytes_are_answered(first: Vec<u8>, second: Vec<u8>) {
            let _ = add_decimal(&first, &second);
        }
    }

    #[test]
    fn doubles_are_written_as_redis_does() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-5.5, "-5.5"),
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

    #[test]
    fn sums_are_plain() {
        let sum = |first: &str, second: &str| {
            add_decimal(first.as_bytes(), second.as_bytes())
                .map(|text| String::from_utf8(text).unwrap_or_default())
        };
        assert_eq!(sum("10.5", "0.1").as_deref(), Ok("10.6"));
        assert_eq!(sum("5.0e3", "2.0e2").as_deref(), Ok("5200"));
        assert_eq!(sum("0", "1.23").as_deref(), Ok("1.23"));
        assert_eq!(sum("1", "-1.0").as_deref(), Ok("0"));
        assert_eq!(sum("1.5", "abc"), Err(SumError::NotANumber));
        assert_eq!(sum("1", "+inf"), Err(SumError::OutOfRange));
        assert_eq!(sum("17179869184", "1.5").as_deref(), Ok("17179869185.5"));
        assert_eq!(sum("1e300", "1").map(|text| text.len()), Ok(301));
    }
}
