//! Numbers in requests, as strictly as Redis reads them.

/// A decimal integer: no blanks, no plus sign, no leading zeros.
#[inline]
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] if !negative => return Some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    if digits.len() > 19 {
        return None;
    }
    let mut value: u64 = 0;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits fit.
        value = value * 10 + u64::from(digit);
    }
    if negative {
        0_i64.checked_sub_unsigned(value)
    } else {
        i64::try_from(value).ok()
    }
}

/// A floating-point number: no blanks, `inf` and `infinity` with a sign or without, no NaN.
pub fn float(text: &[u8]) -> Option<f64> {
    let text = core::str::from_utf8(text).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let value = if let Some(digits) = unsigned
        .strip_prefix("0x")
        .or_else(|| unsigned.strip_prefix("0X"))
    {
        let magnitude = u64::from_str_radix(digits, 16).ok()? as f64;
        if text.starts_with('-') {
            -magnitude
        } else {
            magnitude
        }
    } else {
        text.parse::<f64>().ok()?
    };
    let named = unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity");
    // A number that is too large for the type is no number; one that says that it is infinite is.
    if value.is_nan() || value.is_infinite() && !named {
        return None;
    }
    Some(value)
}

/// The decimal digits of an integer.
pub struct Digits(itoa::Buffer);

impl Default for Digits {
    fn default() -> Self {
        Digits(itoa::Buffer::new())
    }
}

impl Digits {
    /// The text of `value`.
    #[inline]
    pub fn of(&mut self, value: i64) -> &[u8] {
        self.0.format(value).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_read_strictly() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
        ] {
            assert_eq!(integer(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn floats_are_read_strictly() {
        assert_eq!(float(b"1.5"), Some(1.5));
        assert_eq!(float(b"-inf"), Some(f64::NEG_INFINITY));
        assert_eq!(float(b"+Infinity"), Some(f64::INFINITY));
        assert_eq!(float(b"nan"), None);
        assert_eq!(float(b"1e999"), None);
        assert_eq!(float(b" 1"), None);
        assert_eq!(float(b""), None);
    }

    proptest! {
        #[test]
        fn an_integer_comes_back(value: i64) {
            let mut digits = Digits::default();
            prop_assert_eq!(integer(digits.of(value)), Some(value));
        }
    }
}
