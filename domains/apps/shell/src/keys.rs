//! From a terminal's bytes to keys (ECMA-48 control sequences, as xterm and its kin send them).

/// A key, or what Ctrl makes of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A printable ASCII character.
    Character(char),
    /// Return.
    Enter,
    /// Tab.
    Tab,
    /// Deletes before the cursor.
    Backspace,
    /// Deletes at the cursor (also Ctrl-D).
    Delete,
    /// One to the left (also Ctrl-B).
    Left,
    /// One to the right (also Ctrl-F).
    Right,
    /// The line before in the history (also Ctrl-P).
    Up,
    /// The line after in the history (also Ctrl-N).
    Down,
    /// Start of the line (also Ctrl-A).
    Home,
    /// End of the line (also Ctrl-E).
    End,
    /// Ctrl-U: deletes to the start.
    DeleteToStart,
    /// Ctrl-K: deletes to the end.
    DeleteToEnd,
    /// Ctrl-W: deletes the word before the cursor.
    DeleteWord,
    /// Ctrl-C: drops the line.
    Cancel,
    /// Ctrl-L: clears the screen.
    ClearScreen,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Plain,
    /// After a carriage return: a line feed belongs to it.
    Returned,
    Escape,
    /// In a control sequence, with its first parameter.
    Sequence(u16),
}

/// Takes bytes one by one.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

impl Decoder {
    /// The key that `byte` ends, if it ends one.
    pub fn key(&mut self, byte: u8) -> Option<Key> {
        let (state, key) = match (self.state, byte) {
            (State::Returned, b'\n') => (State::Plain, None),
            (State::Escape, b'[' | b'O') => (State::Sequence(0), None),
            // Another escape begins anew; anything else after one is no key of ours.
            (State::Escape, 0x1b) => (State::Escape, None),
            (State::Escape, _) => (State::Plain, None),
            (State::Sequence(parameter), b'0'..=b'9') => {
                let parameter = parameter
                    .saturating_mul(10)
                    .saturating_add(u16::from(byte - b'0'));
                (State::Sequence(parameter), None)
            }
            (State::Sequence(parameter), 0x40..=0x7e) => (State::Plain, sequence(parameter, byte)),
            (State::Sequence(parameter), 0x20..=0x3f) => (State::Sequence(parameter), None),
            (_, 0x1b) => (State::Escape, None),
            (_, b'\r') => (State::Returned, Some(Key::Enter)),
            _ => (State::Plain, plain(byte)),
        };
        self.state = state;
        key
    }
}

fn sequence(parameter: u16, end: u8) -> Option<Key> {
    Some(match (end, parameter) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', 1 | 7) => Key::Home,
        (b'F', _) | (b'~', 4 | 8) => Key::End,
        (b'~', 3) => Key::Delete,
        _ => return None,
    })
}

fn plain(byte: u8) -> Option<Key> {
    Some(match byte {
        b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x7f | 0x08 => Key::Backspace,
        0x01 => Key::Home,
        0x02 => Key::Left,
        0x03 => Key::Cancel,
        0x04 => Key::Delete,
        0x05 => Key::End,
        0x06 => Key::Right,
        0x0b => Key::DeleteToEnd,
        0x0c => Key::ClearScreen,
        0x0e => Key::Down,
        0x10 => Key::Up,
        0x15 => Key::DeleteToStart,
        0x17 => Key::DeleteWord,
        0x20..=0x7e => Key::Character(char::from(byte)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|byte| decoder.key(*byte)).collect()
    }

    #[test]
    fn keys_of_common_terminals_are_known() {
        assert_eq!(
            keys(b"a\x1b[A\x1bOB\x1b[1~\x1b[F\x1b[3~\x1b[1;5C\x7f\x08"),
            [
                Key::Character('a'),
                Key::Up,
                Key::Down,
                Key::Home,
                Key::End,
                Key::Delete,
                Key::Right,
                Key::Backspace,
                Key::Backspace
            ]
        );
    }

    #[test]
    fn every_line_ending_is_one_return() {
        assert_eq!(keys(b"\r\n\n\r\r"), [Key::Enter; 4]);
    }

    proptest! {
        /// Any garbage leaves it ready for plain text, after the longest sequence at the latest.
        #[test]
        fn it_recovers_from_garbage(garbage in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut decoder = Decoder::default();
            for byte in garbage {
                decoder.key(byte);
            }
            // Ends whatever sequence was begun.
            decoder.key(b'~');
            decoder.key(b'~');
            prop_assert_eq!(decoder.key(b'x'), Some(Key::Character('x')));
        }
    }
}
