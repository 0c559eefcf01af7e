//! No `unsafe` outside kernel/, and none inside it that doesn't say why it is sound (docs/soundness.md, invariant 1).
//!
//! What is inside is for `contracts.rs`. Outside there are two checks, because each alone has a hole: every root file of every target forbids unsafe code, which the compiler then
//! enforces; and no source file has the token, in code that is compiled only under some configuration either. Comments,
//! strings and identifiers such as `unsafe_code` don't count.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};

use crate::contracts::{self, Found};
use crate::project::{Layer, Package, Project};
use crate::violation::Violation;

/// Folders of programs that must not compile, whatever they say.
const REFUSED: &str = "refused";

/// Checks every package.
///
/// # Errors
/// When a source can't be read.
pub fn check(project: &Project) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for package in &project.packages {
        violations.extend(check_package(project, package)?);
    }
    Ok(violations)
}

/// Checks one package.
///
/// # Errors
/// When a source can't be read.
pub fn check_package(project: &Project, package: &Package) -> Result<Vec<Violation>> {
    match package.layer {
        Some(Layer::Kernel) => check_contracts(project, package),
        _ => check_absence(project, package),
    }
}

/// Checks that a package has no `unsafe` and could have none.
fn check_absence(project: &Project, package: &Package) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for root in &package.target_roots {
        if !forbids_unsafe(&read(&project.root.join(root))?) {
            violations.push(Violation {
                file: root.clone(),
                line: None,
                message: "`#![forbid(unsafe_code)]` is missing".to_owned(),
            });
        }
    }
    let mut files = Vec::new();
    sources(&project.root.join(&package.directory), &mut files)?;
    files.sort();
    for path in files {
        let file = path.strip_prefix(&project.root).unwrap_or(&path).to_path_buf();
        let place = |line, message: &str| Violation {
            file: file.clone(),
            line,
            message: message.to_owned(),
        };
        match unsafe_lines(&read(&path)?) {
            Some(lines) => violations.extend(
                lines
                    .into_iter()
                    .map(|line| place(Some(line), "`unsafe` outside kernel/")),
            ),
            // What can't be read as Rust can't be shown to be safe.
            None => violations.push(place(None, "this is no Rust source")),
        }
    }
    Ok(violations)
}

/// Checks that every `unsafe` of a package of kernel/ is argued for.
fn check_contracts(project: &Project, package: &Package) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for (file, place) in argued_places(project, package)? {
        if !place.is_argued {
            violations.push(Violation {
                file,
                line: Some(place.line),
                message: place.what.message().to_owned(),
            });
        }
    }
    Ok(violations)
}

/// How many places of a package of kernel/ need an argument.
///
/// # Errors
/// When a source can't be read.
pub fn count(project: &Project, package: &Package) -> Result<usize> {
    Ok(argued_places(project, package)?.len())
}

/// The places of a package of kernel/ that need an argument, with their files.
fn argued_places(project: &Project, package: &Package) -> Result<Vec<(PathBuf, Found)>> {
    let mut files = Vec::new();
    sources(&project.root.join(&package.directory), &mut files)?;
    files.sort();
    let mut all = Vec::new();
    for path in files {
        if path
            .parent()
            .is_some_and(|directory| directory.ends_with(REFUSED))
        {
            continue;
        }
        let file = path.strip_prefix(&project.root).unwrap_or(&path).to_path_buf();
        let places = contracts::places(&read(&path)?).unwrap_or_default();
        all.extend(places.into_iter().map(|place| (file.clone(), place)));
    }
    Ok(all)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
}

/// Lines with the token `unsafe`, or nothing if the text has no tokens.
fn unsafe_lines(text: &str) -> Option<Vec<usize>> {
    let tokens = TokenStream::from_str(text).ok()?;
    let mut lines = Vec::new();
    collect(tokens, &mut lines);
    Some(lines)
}

fn collect(tokens: TokenStream, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) if word == "unsafe" => lines.push(word.span().start().line),
            TokenTree::Group(group) => collect(group.stream(), lines),
            _ => {}
        }
    }
}

/// Whether the file begins with an inner attribute that forbids unsafe code, unconditionally.
fn forbids_unsafe(text: &str) -> bool {
    let Ok(tokens) = TokenStream::from_str(text) else {
        return false;
    };
    let mut tokens = tokens.into_iter().peekable();
    while matches!(tokens.next(), Some(TokenTree::Punct(punct)) if punct.as_char() == '#') {
        if !matches!(tokens.next(), Some(TokenTree::Punct(punct)) if punct.as_char() == '!') {
            return false;
        }
        let Some(TokenTree::Group(attribute)) = tokens.next() else {
            return false;
        };
        let words: Vec<TokenTree> = attribute.stream().into_iter().collect();
        if let [TokenTree::Ident(level), TokenTree::Group(lints)] = words.as_slice()
            && level == "forbid"
            && lints
                .stream()
                .into_iter()
                .any(|lint| matches!(&lint, TokenTree::Ident(name) if name == "unsafe_code"))
        {
            return true;
        }
    }
    false
}

/// Rust sources below a directory; `target` directories and packages of their own inside it are passed over.
fn sources(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("{} can't be read", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.join("Cargo.toml").exists() {
                sources(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_counts() {
        let text = "// unsafe\n#![forbid(unsafe_code)]\nconst A: &str = \"unsafe { }\";\nfn f() { g(unsafe { *p }) }\n";
        assert_eq!(unsafe_lines(text), Some(vec![4]));
        assert_eq!(
            unsafe_lines("macro_rules! m { () => { unsafe { } } }"),
            Some(vec![1])
        );
        assert_eq!(unsafe_lines("#[unsafe(no_mangle)] fn f() {}"), Some(vec![1]));
        assert_eq!(unsafe_lines("fn f( {"), None);
    }

    #[test]
    fn only_an_unconditional_forbid_counts() {
        assert!(forbids_unsafe(
            "//! Docs.\n#![no_std]\n#![forbid(missing_docs, unsafe_code)]\nuse x;"
        ));
        assert!(!forbids_unsafe("#![deny(unsafe_code)]"));
        assert!(!forbids_unsafe("#![cfg_attr(test, forbid(unsafe_code))]"));
        assert!(!forbids_unsafe("// #![forbid(unsafe_code)]"));
        assert!(!forbids_unsafe("mod a { #![forbid(unsafe_code)] }"));
    }
}
