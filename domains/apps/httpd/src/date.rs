//! Dates of HTTP fields (RFC 9110, 5.6.7).
//!
//! Writes the one form that may be sent, IMF-fixdate, and reads all three that may be received. Times are seconds since 1970-01-01
//! 00:00 UTC. Where the time comes from is `clock`'s.

/// Bytes of an IMF-fixdate, as in `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_BYTES: usize = 29;

const DAY_SECONDS: u64 = 86_400;
const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
/// The last second of the year 9999: later ones don't fit the format.
const LATEST: u64 = 253_402_300_799;

/// The IMF-fixdate of `unix_s`; times after the year 9999 are given as its last second.
pub fn format(unix_s: u64) -> [u8; DATE_BYTES] {
    let unix_s = unix_s.min(LATEST);
    let (day_number, second) = (unix_s / DAY_SECONDS, unix_s % DAY_SECONDS);
    let (year, month, day) = civil(day_number);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(field) = text.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    put(0, DAYS.get((day_number % 7) as usize).copied().unwrap_or(b"Thu"));
    put(5, &two_digits(day));
    put(8, MONTHS.get(month as usize - 1).copied().unwrap_or(b"Jan"));
    put(12, &two_digits(year / 100));
    put(14, &two_digits(year % 100));
    put(17, &two_digits(second / 3600));
    put(20, &two_digits(second / 60 % 60));
    put(23, &two_digits(second % 60));
    text
}

fn two_digits(value: u64) -> [u8; 2] {
    [b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]
}

/// Year, month (from 1) and day (from 1) of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Counts in years that begin on 1 March, so that the leap day is a year's last.
fn civil(day_number: u64) -> (u64, u64, u64) {
    let from_era = day_number + 719_468; // days from 0000-03-01 to 1970-01-01
    let (era, day_of_era) = (from_era / 146_097, from_era % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to a date; `None` before 1970 and for dates that don't exist.
fn day_number(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year_from_march = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let days = 365 * year_from_march + year_from_march / 4 - year_from_march / 100 + year_from_march / 400;
    let number = (days + day_of_year).checked_sub(719_468)?;
    (civil(number) == (year, month, day)).then_some(number)
}

/// Reads a date in any of the three forms; `None` for anything else and for times before 1970.
///
/// `now_s` tells which century a two-digit year is in: one that would be over 50 years ahead is in the past.
pub fn parse(text: &[u8], now_s: u64) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?;
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let weekday = words.next()?;
    let (year, month, day, time);
    if let Some(weekday) = weekday.strip_suffix(',') {
        let second = words.next()?;
        if let Some((first, rest)) = second.split_once('-') {
            // Sunday, 06-Nov-94 08:49:37 GMT
            if weekday.len() <= 3 {
                return None;
            }
            let (name, short_year) = rest.split_once('-')?;
            day = number(first, 2)?;
            month = month_number(name)?;
            year = full_year(number(short_year, 2)?, now_s);
        } else {
            // Sun, 06 Nov 1994 08:49:37 GMT
            if weekday.len() != 3 {
                return None;
            }
            day = number(second, 2)?;
            month = month_number(words.next()?)?;
            year = number(words.next()?, 4)?;
        }
        time = words.next()?;
        if words.next()? != "GMT" {
            return None;
        }
    } else {
        // Sun Nov  6 08:49:37 1994
        month = month_number(words.next()?)?;
        let text = words.next()?;
        day = number(text, text.len().clamp(1, 2))?;
        time = words.next()?;
        year = number(words.next()?, 4)?;
    }
    if words.next().is_some() {
        return None;
    }
    let mut parts = time.split(':');
    let hour = number(parts.next()?, 2)?;
    let minute = number(parts.next()?, 2)?;
    let second = number(parts.next()?, 2)?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(day_number(year, month, day)? * DAY_SECONDS + hour * 3600 + minute * 60 + second)
}

fn number(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn month_number(name: &str) -> Option<u64> {
    let index = MONTHS
        .iter()
        .position(|month| month.as_slice() == name.as_bytes())?;
    Some(index as u64 + 1)
}

fn full_year(short: u64, now_s: u64) -> u64 {
    let (this_year, _, _) = civil(now_s.min(LATEST) / DAY_SECONDS);
    let year = this_year / 100 * 100 + short;
    if year > this_year + 50 { year - 100 } else { year }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const EXAMPLE: u64 = 784_111_777;

    #[test]
    fn the_specifications_example_in_its_three_forms() {
        assert_eq!(&format(EXAMPLE), b"Sun, 06 Nov 1994 08:49:37 GMT");
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text.as_bytes(), 1_700_000_000), Some(EXAMPLE), "{text}");
        }
    }

    #[test]
    fn known_days() {
        assert_eq!(&format(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&format(951_782_400), b"Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(&format(4_107_542_400), b"Mon, 01 Mar 2100 00:00:00 GMT");
        assert_eq!(&format(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "0",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes(), EXAMPLE), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(unix_s in 0..=LATEST) {
            prop_assert_eq!(parse(&format(unix_s), 0), Some(unix_s));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(text: Vec<u8>, now_s: u64) {
            parse(&text, now_s);
        }
    }
}
