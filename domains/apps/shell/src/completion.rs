//! What Tab makes of a line: which names can come next, and how far they agree.

use crate::command::MAGLEV_ACTIONS;
use crate::usage::USAGES;
use alloc::string::String;
use alloc::vec::Vec;

/// What the word under the cursor can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// One of these.
    Words(&'static [&'static str]),
    /// A command.
    Command,
    /// A domain's name.
    Domain,
    /// A virtual service's name.
    Service,
    /// A backend's name of this service.
    Backend(&'a str),
    /// Nothing that is known.
    Nothing,
}

/// Splits the line before the cursor into what its last word can be, and that word.
pub fn wanted(before_cursor: &str) -> (Wanted<'_>, &str) {
    let start = before_cursor.rfind(' ').map_or(0, |space| space + 1);
    let (before, partial) = before_cursor.split_at(start);
    let words: Vec<&str> = before.split_whitespace().collect();
    let wanted = match *words {
        ["kill", _] if partial.starts_with('-') => Wanted::Words(&["--force"]),
        _ if partial.starts_with('-') => Wanted::Words(&["--json"]),
        [] | ["help"] => Wanted::Command,
        ["domains" | "kill" | "stop" | "start" | "restart" | "release" | "update"] => Wanted::Domain,
        ["update", _] => Wanted::Words(&["spare", "upload"]),
        ["deaths"] => Wanted::Words(&["last"]),
        ["disk"] => Wanted::Words(crate::disk::WORDS),
        ["disk", "bench"] => Wanted::Words(&["read", "write"]),
        ["disk", "verify"] => Wanted::Words(&["depth", "kill", "seconds"]),
        ["disk", "verify", .., "kill"] => Wanted::Domain,
        ["disk", "create", _] => Wanted::Words(&["scratch", "store"]),
        ["kv"] => Wanted::Words(crate::kv::WORDS),
        ["nvme"] => Wanted::Words(crate::nvme::WORDS),
        ["maglev"] => Wanted::Words(MAGLEV_ACTIONS),
        ["maglev", "add" | "activate" | "drain" | "remove"] => Wanted::Service,
        ["maglev", "activate" | "drain" | "remove", service] => Wanted::Backend(service),
        _ => Wanted::Nothing,
    };
    (wanted, partial)
}

/// The names of all commands.
pub fn commands() -> Vec<String> {
    let mut names: Vec<String> = USAGES
        .iter()
        .filter(|usage| !usage.name.contains(' '))
        .map(|usage| usage.name.into())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What to insert, and what to choose from when that isn't all.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Completion {
    /// Text for the cursor's place.
    pub insert: String,
    /// The names that go on differently.
    pub choices: Vec<String>,
}

/// Completes `partial` from `names`.
pub fn complete(partial: &str, names: Vec<String>) -> Completion {
    let mut choices: Vec<String> = names
        .into_iter()
        .filter(|name| name.starts_with(partial))
        .collect();
    let Some(first) = choices.first() else {
        return Completion::default();
    };
    let mut common = first.as_str();
    for name in &choices {
        let length = common
            .bytes()
            .zip(name.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        // Names are ASCII (the line editor takes nothing else); others agree up to where they can be cut.
        common = common.get(..length).unwrap_or("");
    }
    let mut insert = String::from(common.get(partial.len()..).unwrap_or(""));
    if choices.len() == 1 {
        insert.push(' ');
        choices.clear();
    } else if !insert.is_empty() {
        choices.clear();
    }
    Completion { insert, choices }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| String::from(*name)).collect()
    }

    #[test]
    fn a_words_place_says_what_it_can_be() {
        assert_eq!(wanted("do"), (Wanted::Command, "do"));
        assert_eq!(wanted(""), (Wanted::Command, ""));
        assert_eq!(wanted("kill ix"), (Wanted::Domain, "ix"));
        assert_eq!(wanted("kill ixgbe "), (Wanted::Nothing, ""));
        assert_eq!(wanted("stop ma"), (Wanted::Domain, "ma"));
        assert_eq!(wanted("kill init --"), (Wanted::Words(&["--force"]), "--"));
        assert_eq!(wanted("maglev dr"), (Wanted::Words(MAGLEV_ACTIONS), "dr"));
        assert_eq!(wanted("maglev drain "), (Wanted::Service, ""));
        assert_eq!(wanted("maglev drain web b"), (Wanted::Backend("web"), "b"));
        assert_eq!(
            wanted("maglev add web b"),
            (Wanted::Nothing, "b"),
            "a new one has no name yet"
        );
        assert_eq!(wanted("domains --"), (Wanted::Words(&["--json"]), "--"));
    }

    #[test]
    fn one_name_is_completed_several_as_far_as_they_agree() {
        let domains = || names(&["netstack", "nic-shadow", "maglev"]);
        assert_eq!(complete("ma", domains()).insert, "glev ");
        let both = complete("n", domains());
        assert_eq!((both.insert.as_str(), both.choices.len()), ("", 2));
        let agree = complete("d", names(&["deaths", "death"]));
        assert_eq!((agree.insert.as_str(), agree.choices.len()), ("eath", 0));
        assert_eq!(complete("x", domains()), Completion::default());
        assert_eq!(complete("", Vec::new()), Completion::default());
    }
}
