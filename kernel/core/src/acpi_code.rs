//! The one value that the kernel needs out of ACPI's byte code (AML): the sleep types of `\_S5`, power off.
//!
//! `Name (_S5, Package () {a, b, …})` has a fixed encoding (ACPI 6.5, chapter 20.2), so it is found by its
//! bytes.

const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;
const ZERO_OP: u8 = 0x00;
const ONE_OP: u8 = 0x01;
const BYTE_PREFIX: u8 = 0x0a;

/// The values for the sleep-type fields of PM1a and PM1b that power the machine off, if the code defines
/// them.
pub fn sleep_types_of_s5(code: &[u8]) -> Option<(u16, u16)> {
    let at = code.windows(4).position(|name| name == b"_S5_")?;
    let named = |back: usize| at.checked_sub(back).and_then(|index| code.get(index)).copied();
    let is_name = named(1) == Some(NAME_OP) || (named(1) == Some(b'\\') && named(2) == Some(NAME_OP));
    let rest = code.get(at + 4..)?.strip_prefix(&[PACKAGE_OP])?;
    // The package's length takes one byte and as many more as the first one's top two bits say; then the
    // element count.
    let extra = usize::from(rest.first()? >> 6);
    let mut elements = rest.get(1 + extra + 1..)?;
    let mut next = || -> Option<u16> {
        let (&first, rest) = elements.split_first()?;
        elements = rest;
        match first {
            ZERO_OP | ONE_OP => Some(first.into()),
            BYTE_PREFIX => {
                let (&value, rest) = elements.split_first()?;
                elements = rest;
                Some(value.into())
            }
            _ => None,
        }
    };
    let types = (next()?, next()?);
    (is_name && types.0 < 8 && types.1 < 8).then_some(types)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_both_encodings_of_small_numbers() {
        assert_eq!(
            sleep_types_of_s5(b"xx\x08_S5_\x12\x06\x04\x00\x00\x00\x00"),
            Some((0, 0))
        );
        assert_eq!(
            sleep_types_of_s5(b"\x08\\_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00"),
            Some((5, 5))
        );
        assert_eq!(sleep_types_of_s5(b"\x08_S4_\x12\x06\x04\x00\x00"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(mut code in proptest::collection::vec(any::<u8>(), 0..40), at in 0usize..40) {
            if at + 5 <= code.len() {
                code[at..at + 5].copy_from_slice(b"\x08_S5_");
            }
            let found = sleep_types_of_s5(&code);
            prop_assert!(found.is_none_or(|(a, b)| a < 8 && b < 8));
        }
    }
}
