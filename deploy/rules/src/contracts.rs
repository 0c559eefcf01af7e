//! Every `unsafe` of kernel/ says why it is sound (docs/soundness.md, invariant 1).
//!
//! Blocks, implementations and foreign declarations have a `SAFETY:` comment above them; functions and traits state their contract in a `# Safety`
//! section. A function of an implemented trait has the trait's contract, and a `SAFETY:` comment that says what it makes of it, its own or that of
//! the `unsafe impl` around it. Clippy checks blocks
//! and public functions of code that it compiles; this checks private ones too, what macros write, and what is compiled under some configuration only.

use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// An `unsafe` that needs an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its line, from 1.
    pub line: usize,
    /// What it is.
    pub what: Place,
    /// Whether it has its argument.
    pub is_argued: bool,
}

/// What needs an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An `unsafe` block.
    Block,
    /// An `unsafe impl`.
    Implementation,
    /// An `unsafe extern` block.
    Foreign,
    /// An `unsafe fn`.
    Function,
    /// An `unsafe fn` of a trait's implementation.
    Implemented,
    /// An `unsafe trait`.
    Trait,
}

impl Place {
    /// What the comment above it must have.
    fn wanted(self) -> &'static str {
        match self {
            Place::Block | Place::Implementation | Place::Foreign | Place::Implemented => "SAFETY:",
            Place::Function | Place::Trait => "# Safety",
        }
    }

    /// The complaint.
    pub fn message(self) -> &'static str {
        match self {
            Place::Block => "an `unsafe` block without a `// SAFETY:` comment",
            Place::Implementation => "an `unsafe impl` without a `// SAFETY:` comment",
            Place::Foreign => "an `unsafe extern` block without a `// SAFETY:` comment",
            Place::Function => "an `unsafe fn` without a `# Safety` section",
            Place::Implemented => {
                "a trait's `unsafe fn` without a `// SAFETY:` comment on how its contract is used"
            }
            Place::Trait => "an `unsafe trait` without a `# Safety` section",
        }
    }
}

/// Every place of a source that needs an argument, or nothing if the text has no tokens.
pub fn places(text: &str) -> Option<Vec<Found>> {
    let tokens = TokenStream::from_str(text).ok()?;
    let mut places = Vec::new();
    collect(tokens, Inside::Other, &mut places);
    let lines: Vec<&str> = text.lines().collect();
    for place in &mut places {
        place.is_argued = is_argued(&lines, place.line, place.what);
    }
    Some(places)
}

/// What the tokens are the inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// The implementation of a trait.
    Implementation,
    /// An `unsafe` one, whose argument is for its functions too.
    UnsafeImplementation,
    /// Anything else.
    Other,
}

/// Finds what needs an argument.
fn collect(tokens: TokenStream, inside: Inside, places: &mut Vec<Found>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    // Between `impl` and the braces: what is in the braces. It implements a trait if there is a `for` that isn't of `for<'a>`.
    let mut header = None;
    let mut is_unsafe = false;
    for (index, token) in tokens.iter().enumerate() {
        let next = tokens.get(index + 1);
        match token {
            TokenTree::Ident(word) if word == "impl" => header = Some(Inside::Other),
            TokenTree::Ident(word) if word == "for" && header.is_some() && !is_punct(next, '<') => {
                header = Some(match is_unsafe {
                    true => Inside::UnsafeImplementation,
                    false => Inside::Implementation,
                });
            }
            TokenTree::Ident(word) if word == "unsafe" => {
                let what = place(tokens.get(index + 1..).unwrap_or_default());
                is_unsafe = what == Some(Place::Implementation);
                let what = match (what, inside) {
                    (Some(Place::Function), Inside::Implementation) => Some(Place::Implemented),
                    (Some(Place::Function), Inside::UnsafeImplementation) => None,
                    (what, _) => what,
                };
                places.extend(what.map(|what| Found {
                    line: word.span().start().line,
                    what,
                    is_argued: false,
                }));
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => header = None,
            TokenTree::Group(group) => {
                let is_body = group.delimiter() == Delimiter::Brace;
                let inside = header.filter(|_| is_body).unwrap_or(Inside::Other);
                collect(group.stream(), inside, places);
                if is_body {
                    (header, is_unsafe) = (None, false);
                }
            }
            _ => {}
        }
    }
}

/// What an `unsafe` with these tokens after it is; nothing if it is an attribute or the type of a function.
fn place(after: &[TokenTree]) -> Option<Place> {
    let mut after = after.iter().peekable();
    let mut is_extern = false;
    loop {
        match after.next()? {
            TokenTree::Ident(word) if word == "impl" => return Some(Place::Implementation),
            TokenTree::Ident(word) if word == "trait" => return Some(Place::Trait),
            TokenTree::Ident(word) if word == "extern" => is_extern = true,
            TokenTree::Ident(word) if word == "fn" => {
                return matches!(after.peek(), Some(TokenTree::Ident(_))).then_some(Place::Function);
            }
            // The ABI's name, or `auto` and the like.
            TokenTree::Literal(_) | TokenTree::Ident(_) => {}
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                return Some(if is_extern { Place::Foreign } else { Place::Block });
            }
            _ => return None,
        }
    }
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

/// Whether the comments and attributes above a place, or above the statement that it is in, have what it wants.
fn is_argued(lines: &[&str], line: usize, what: Place) -> bool {
    let wanted = what.wanted();
    let above = lines.get(..line).unwrap_or_default();
    let mut above = above.iter().rev().map(|line| line.trim());
    // Code before it on its own line belongs to the statement.
    if above.next().is_some_and(|line| line.contains(wanted)) {
        return true;
    }
    let mut in_comment = false;
    for line in above {
        let is_comment = line.starts_with("//");
        if line.contains(wanted) && is_comment {
            return true;
        }
        let is_attribute = line.starts_with("#[");
        let ends_other = line.is_empty() || line.ends_with([';', '{', '}']);
        if !is_comment && !is_attribute && (ends_other || in_comment) {
            return false;
        }
        in_comment |= is_comment;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, Place)> {
        let places = places(text).expect("a source");
        places
            .into_iter()
            .filter(|place| !place.is_argued)
            .map(|place| (place.line, place.what))
            .collect()
    }

    #[test]
    fn blocks_need_an_argument() {
        assert_eq!(found("fn f() {\n    unsafe { g() }\n}\n"), [(2, Place::Block)]);
        assert_eq!(
            found("fn f() {\n    // SAFETY: It is.\n    unsafe { g() }\n}\n"),
            []
        );
        assert_eq!(
            found(
                "fn f() {\n    // SAFETY: It is,\n    // really.\n    let x =\n        unsafe { g() };\n}\n"
            ),
            []
        );
        assert_eq!(
            found("fn f() {\n    // SAFETY: It is.\n    let x = unsafe { g() };\n    unsafe { g() }\n}\n"),
            [(4, Place::Block)],
            "one argument is for one statement"
        );
        assert_eq!(
            found("macro_rules! m {\n    () => {\n        unsafe { g() }\n    };\n}\n"),
            [(3, Place::Block)]
        );
    }

    #[test]
    fn implementations_and_foreign_declarations_need_an_argument() {
        assert_eq!(found("unsafe impl Send for A {}\n"), [(1, Place::Implementation)]);
        assert_eq!(found("// SAFETY: It is.\nunsafe impl Send for A {}\n"), []);
        assert_eq!(
            found("unsafe extern \"C\" {\n    fn f();\n}\n"),
            [(1, Place::Foreign)]
        );
    }

    #[test]
    fn functions_and_traits_need_a_contract() {
        assert_eq!(found("unsafe fn f() {}\n"), [(1, Place::Function)]);
        assert_eq!(
            found("/// It.\n///\n/// # Safety\n/// Once.\n#[inline]\npub unsafe extern \"C\" fn f() {}\n"),
            []
        );
        assert_eq!(found("/// It.\npub unsafe trait T {}\n"), [(2, Place::Trait)]);
        assert_eq!(
            found("// SAFETY: Not here.\nunsafe fn f() {}\n"),
            [(2, Place::Function)]
        );
    }

    #[test]
    fn what_implements_a_trait_has_the_traits_contract() {
        assert_eq!(
            found("impl T for A {\n    unsafe fn f() {}\n}\n"),
            [(2, Place::Implemented)]
        );
        assert_eq!(
            found("impl T for A {\n    // SAFETY: As the trait says, once.\n    unsafe fn f() {}\n}\n"),
            []
        );
        assert_eq!(
            found(
                "// SAFETY: It is.\nunsafe impl T for A {\n    unsafe fn f() {}\n}\nimpl U for A {\n    unsafe fn f() {}\n}\n"
            ),
            [(6, Place::Implemented)],
            "the argument of an implementation is for its functions"
        );
        assert_eq!(
            found("impl A {\n    unsafe fn f() {}\n}\n"),
            [(2, Place::Function)]
        );
        assert_eq!(
            found("impl<F: for<'a> Fn(&'a u8)> A<F> {\n    unsafe fn f() {}\n}\n"),
            [(2, Place::Function)]
        );
        assert_eq!(
            found("impl T for A {\n    fn f() {\n        unsafe { g() }\n    }\n}\n"),
            [(3, Place::Block)]
        );
    }

    #[test]
    fn places_count_whether_they_are_argued_or_not() {
        let text = "// SAFETY: It is.\nunsafe impl Send for A {}\nfn f() {\n    unsafe { g() }\n}\n";
        let places = places(text).expect("a source");
        let argued: Vec<bool> = places.iter().map(|place| place.is_argued).collect();
        assert_eq!(argued, [true, false]);
    }

    #[test]
    fn types_and_attributes_need_nothing() {
        assert_eq!(found("#[unsafe(no_mangle)]\nstatic F: unsafe fn() = f;\n"), []);
        assert_eq!(found("// unsafe { }\nconst A: &str = \"unsafe { }\";\n"), []);
        assert!(places("fn f( {").is_none());
    }
}
