//! The line that is being typed: editing and history, as pure logic.
//!
//! Each key gives what the terminal is to be sent. A character at the end of the line is simply echoed, so that what a script
//! types reads back as it was typed; every other change draws the line anew.

use crate::keys::Key;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;

/// Characters at most; further ones are not taken.
const LENGTH_LIMIT: usize = 240;
/// Lines that the history keeps.
const HISTORY_LIMIT: usize = 100;

/// What a key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Edited, or nothing.
    Edited,
    /// The line is complete; a new one has begun.
    Entered(String),
    /// The line was dropped; a new one has begun.
    Cancelled,
    /// Tab: the line up to the cursor is to be completed.
    Complete,
    /// The screen was cleared; the line is as before.
    Cleared,
}

/// The line and its history.
#[derive(Default)]
pub struct Line {
    /// ASCII only, so bytes are characters.
    text: String,
    cursor: usize,
    history: VecDeque<String>,
    /// How many lines back the history is being looked at; 0 for not at all.
    back: usize,
    /// What was typed before that.
    typed: String,
}

impl Line {
    /// The text.
    #[cfg(test)]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text before the cursor.
    pub fn before_cursor(&self) -> &str {
        self.text.get(..self.cursor).unwrap_or("")
    }

    /// Takes a key; what the terminal is to be sent is added to `echo`.
    pub fn key(&mut self, key: Key, prompt: &str, echo: &mut String) -> Event {
        match key {
            Key::Character(character) => {
                let mut bytes = [0; 4];
                self.insert(character.encode_utf8(&mut bytes), prompt, echo);
                return Event::Edited;
            }
            Key::Enter => {
                *echo += "\n";
                return Event::Entered(self.enter());
            }
            Key::Cancel => {
                *echo += "^C\n";
                self.set(String::new());
                self.back = 0;
                return Event::Cancelled;
            }
            Key::Tab => return Event::Complete,
            Key::ClearScreen => {
                *echo += "\x1b[H\x1b[2J";
                self.draw(prompt, echo);
                return Event::Cleared;
            }
            Key::Backspace => {
                if let Some(before) = self.cursor.checked_sub(1) {
                    self.text.remove(before);
                    self.cursor = before;
                }
            }
            Key::Delete => {
                if self.cursor < self.text.len() {
                    self.text.remove(self.cursor);
                }
            }
            Key::Left => self.cursor = self.cursor.saturating_sub(1),
            Key::Right => self.cursor = (self.cursor + 1).min(self.text.len()),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.text.len(),
            Key::DeleteToStart => {
                self.text.drain(..self.cursor);
                self.cursor = 0;
            }
            Key::DeleteToEnd => self.text.truncate(self.cursor),
            Key::DeleteWord => {
                let kept = self.before_cursor().trim_end_matches(' ');
                let start = kept.rfind(' ').map_or(0, |space| space + 1);
                self.text.drain(start..self.cursor);
                self.cursor = start;
            }
            Key::Up => self.look_back(self.back + 1),
            Key::Down => self.look_back(self.back.saturating_sub(1)),
        }
        self.draw(prompt, echo);
        Event::Edited
    }

    /// Inserts text at the cursor, as far as there is room.
    pub fn insert(&mut self, text: &str, prompt: &str, echo: &mut String) {
        if !text.is_ascii() || self.text.len() + text.len() > LENGTH_LIMIT {
            *echo += "\x07";
            return;
        }
        let at_end = self.cursor == self.text.len();
        self.text.insert_str(self.cursor, text);
        self.cursor += text.len();
        if at_end {
            *echo += text;
        } else {
            self.draw(prompt, echo);
        }
    }

    /// Draws the prompt and the line over whatever is on the terminal's line.
    pub fn draw(&self, prompt: &str, echo: &mut String) {
        *echo += &format!("\r{prompt}{}\x1b[K", self.text);
        let behind = self.text.len() - self.cursor;
        if behind > 0 {
            *echo += &format!("\x1b[{behind}D");
        }
    }

    fn enter(&mut self) -> String {
        let text = core::mem::take(&mut self.text);
        self.set(String::new());
        self.back = 0;
        if !text.trim().is_empty() && self.history.front() != Some(&text) {
            self.history.push_front(text.clone());
            self.history.truncate(HISTORY_LIMIT);
        }
        text
    }

    fn set(&mut self, text: String) {
        self.cursor = text.len();
        self.text = text;
    }

    fn look_back(&mut self, back: usize) {
        if back > self.history.len() || back == self.back {
            return;
        }
        if self.back == 0 {
            self.typed = core::mem::take(&mut self.text);
        }
        let text = match back.checked_sub(1) {
            Some(index) => self.history.get(index).cloned().unwrap_or_default(),
            None => core::mem::take(&mut self.typed),
        };
        self.back = back;
        self.set(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn typed(line: &mut Line, keys: &[Key]) -> (Vec<Event>, String) {
        let mut echo = String::new();
        let events = keys.iter().map(|key| line.key(*key, "> ", &mut echo)).collect();
        (events, echo)
    }

    fn characters(text: &str) -> Vec<Key> {
        text.chars().map(Key::Character).collect()
    }

    #[test]
    fn what_is_typed_at_the_end_is_echoed_as_it_is() {
        let mut line = Line::default();
        let keys = [characters("kill ixgbe"), vec![Key::Enter]].concat();
        let (events, echo) = typed(&mut line, &keys);
        assert_eq!(echo, "kill ixgbe\n");
        assert_eq!(events.last(), Some(&Event::Entered("kill ixgbe".into())));
        assert_eq!(line.text(), "");
    }

    #[test]
    fn keys_edit_where_the_cursor_is() {
        let mut line = Line::default();
        typed(&mut line, &characters("maglev drian"));
        typed(
            &mut line,
            &[
                Key::Left,
                Key::Left,
                Key::Backspace,
                Key::Left,
                Key::Right,
                Key::Character('a'),
            ],
        );
        typed(
            &mut line,
            &[Key::Left, Key::Left, Key::Delete, Key::Character('r')],
        );
        assert_eq!(line.text(), "maglev draan");
        typed(&mut line, &[Key::End, Key::DeleteWord]);
        assert_eq!(line.text(), "maglev ");
        typed(
            &mut line,
            &[Key::DeleteWord, Key::Character('x'), Key::Home, Key::DeleteToEnd],
        );
        assert_eq!(line.text(), "");
        typed(&mut line, &characters("ab"));
        typed(&mut line, &[Key::Left, Key::DeleteToStart]);
        assert_eq!(line.text(), "b");
        let (events, _) = typed(&mut line, &[Key::Cancel]);
        assert_eq!((events, line.text()), (vec![Event::Cancelled], ""));
    }

    #[test]
    fn the_history_goes_back_and_returns_to_what_was_typed() {
        let mut line = Line::default();
        for text in ["first", "second", "second", " "] {
            typed(&mut line, &[characters(text), vec![Key::Enter]].concat());
        }
        typed(&mut line, &characters("new"));
        let mut seen = Vec::new();
        for key in [Key::Up, Key::Up, Key::Up, Key::Down, Key::Down, Key::Down] {
            typed(&mut line, &[key]);
            seen.push(line.text().to_owned());
        }
        assert_eq!(seen, ["second", "first", "first", "second", "new", "new"]);
    }

    proptest! {
        /// After any keys the cursor is inside the line, the line is bounded, and a redraw shows exactly it.
        #[test]
        fn any_keys_leave_a_valid_line(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = crate::keys::Decoder::default();
            let mut line = Line::default();
            for byte in bytes {
                let Some(key) = decoder.key(byte) else { continue };
                let mut echo = String::new();
                line.key(key, "> ", &mut echo);
                prop_assert!(line.before_cursor().len() <= line.text().len());
                prop_assert!(line.text().len() <= LENGTH_LIMIT);
            }
            let mut echo = String::new();
            line.draw("> ", &mut echo);
            let expected = format!("\r> {}\x1b[K", line.text());
            prop_assert!(echo.starts_with(&expected));
        }
    }
}
