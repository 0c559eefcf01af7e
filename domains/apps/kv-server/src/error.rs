//! What a command answers when it doesn't do what it was asked: Redis' texts, which clients take apart.

use alloc::string::String;
use core::fmt;

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The key holds another type.
    WrongType,
    /// The arguments aren't what the command takes.
    Syntax,
    /// An argument or value is no integer, or doesn't fit 64 bits.
    NotInteger,
    /// An argument or value is no floating-point number.
    NotFloat,
    /// An index is beyond what there is.
    IndexOutOfRange,
    /// The key must exist.
    NoSuchKey,
    /// A string would be longer than allowed.
    StringTooLong,
    /// The key's name is longer than allowed.
    KeyTooLong,
    /// The number of arguments is wrong for this command.
    Arity(String),
    /// The store can't give a value that is there.
    Store(interface::key_value::StoreError),
    /// Another text, with its code.
    Plain(&'static str),
    /// The same, made for the case.
    Text(String),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CommandError::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            CommandError::Syntax => "ERR syntax error",
            CommandError::NotInteger => "ERR value is not an integer or out of range",
            CommandError::NotFloat => "ERR value is not a valid float",
            CommandError::IndexOutOfRange => "ERR index out of range",
            CommandError::NoSuchKey => "ERR no such key",
            CommandError::StringTooLong => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            CommandError::KeyTooLong => "ERR key exceeds maximum allowed size (16368 bytes)",
            CommandError::Arity(name) => {
                return write!(f, "ERR wrong number of arguments for '{name}' command");
            }
            CommandError::Store(error) => return write!(f, "ERR the store failed: {error}"),
            CommandError::Plain(text) => text,
            CommandError::Text(text) => text,
        })
    }
}
