//! The time of an answer: the Date field, written once a second.

use crate::date;
use crate::status::Status;
use alloc::string::String;

/// The second that is now, as answers say it.
pub struct Clock {
    unix_s: u64,
    /// `Date: …\r\n`
    date: String,
    /// The status line of 200 and the date: how most answers begin.
    ok: String,
}

impl Clock {
    /// A clock that shows `unix_s`, seconds since 1970.
    pub fn new(unix_s: u64) -> Clock {
        let mut date = String::from("Server: redleaf\r\nDate: ");
        date.extend(date::format(unix_s).map(char::from));
        date.push_str("\r\n");
        let ok = String::from(Status::Ok.line()) + &date;
        Clock { unix_s, date, ok }
    }

    /// Shows `unix_s` from now on.
    pub fn set(&mut self, unix_s: u64) {
        if unix_s != self.unix_s {
            *self = Clock::new(unix_s);
        }
    }

    /// Seconds since 1970.
    pub fn unix_s(&self) -> u64 {
        self.unix_s
    }

    /// The fields that every answer has, Server and Date.
    #[inline]
    pub fn fields(&self) -> &[u8] {
        self.date.as_bytes()
    }

    /// The same behind the status line of 200.
    #[inline]
    pub fn ok(&self) -> &[u8] {
        self.ok.as_bytes()
    }
}
