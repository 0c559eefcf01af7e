//! What the compiler refuses to let cross (docs/soundness.md, invariant 2): every program in `refused/` fails, at exactly the lines and
//! with exactly the errors that its comments name, so that none fails for another reason; `allowed.rs` compiles.
//!
//! A line with an error ends in `//~ CODE part of the message`; there is no code for what a macro says. A comparison of whole outputs would
//! break with every type that becomes exchangeable, since the compiler lists others that are.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An error, by the line it is at: code and message.
type Errors = BTreeMap<usize, Vec<(String, String)>>;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refused")
}

/// A package with each source as a program of its own, which depends on this crate.
fn package(programs: &[String]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("refusals");
    fs::create_dir_all(&directory).expect("a directory for the package");
    let mut manifest = format!(
        "[package]\nname = \"refusals\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n[workspace]\n\n[dependencies]\nrref = {{ path = {:?} }}\n",
        env!("CARGO_MANIFEST_DIR")
    );
    for program in programs {
        let path = sources().join(format!("{program}.rs"));
        manifest += &format!("\n[[bin]]\nname = {program:?}\npath = {path:?}\n");
    }
    fs::write(directory.join("Cargo.toml"), manifest).expect("the package's manifest");
    // The project's own versions of everything: nothing is fetched.
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    fs::copy(lock, directory.join("Cargo.lock")).expect("the lock file");
    directory
}

/// What the compiler says of each program.
fn compile(programs: &[String]) -> BTreeMap<String, Errors> {
    let directory = package(programs);
    let output = Command::new(env!("CARGO"))
        .args([
            "check",
            "--bins",
            "--keep-going",
            "--offline",
            "--message-format=json",
        ])
        .current_dir(&directory)
        .env("CARGO_TARGET_DIR", directory.join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo");
    let mut errors: BTreeMap<String, Errors> = programs
        .iter()
        .map(|name| (name.clone(), Errors::new()))
        .collect();
    let mut answered = false;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        answered |= message["reason"] == "build-finished";
        let program = message["target"]["name"].as_str().unwrap_or_default();
        let diagnostic = &message["message"];
        let is_summary = diagnostic["spans"].as_array().is_none_or(Vec::is_empty);
        if message["reason"] != "compiler-message" || diagnostic["level"] != "error" || is_summary {
            continue;
        }
        let Some(errors) = errors.get_mut(program) else {
            panic!(
                "{program}: {}",
                diagnostic["rendered"].as_str().unwrap_or_default()
            );
        };
        let entry = (
            diagnostic["code"]["code"].as_str().unwrap_or_default().to_owned(),
            diagnostic["message"].as_str().unwrap_or_default().to_owned(),
        );
        errors.entry(line_of(diagnostic)).or_default().push(entry);
    }
    assert!(answered, "{}", String::from_utf8_lossy(&output.stderr));
    errors
}

/// The line of the program that a diagnostic is about.
fn line_of(diagnostic: &Value) -> usize {
    let spans = diagnostic["spans"].as_array().into_iter().flatten();
    let primary = spans.clone().find(|span| span["is_primary"] == true);
    let mut span = primary.unwrap_or(&Value::Null);
    // Out of macros, to where they were called.
    while !span["expansion"]["span"].is_null() && span["expansion"]["span"]["file_name"] != span["file_name"]
    {
        span = &span["expansion"]["span"];
    }
    span["line_start"].as_u64().unwrap_or_default() as usize
}

fn expected(program: &str) -> Errors {
    let text = fs::read_to_string(sources().join(format!("{program}.rs"))).expect("a program");
    let mut errors = Errors::new();
    for (index, line) in text.lines().enumerate() {
        for comment in line.split("//~ ").skip(1) {
            let (first, rest) = comment.trim().split_once(' ').unwrap_or((comment.trim(), ""));
            let is_number = first
                .strip_prefix('E')
                .is_some_and(|number| number.parse::<u16>().is_ok());
            let is_code = is_number || first == "unsafe_code";
            let entry = if is_code {
                (first, rest)
            } else {
                ("", comment.trim())
            };
            errors
                .entry(index + 1)
                .or_default()
                .push((entry.0.to_owned(), entry.1.to_owned()));
        }
    }
    errors
}

/// What is wrong with the errors of one program.
fn differences(program: &str, expected: &Errors, actual: &Errors) -> Vec<String> {
    let mut wrong = Vec::new();
    for (line, wanted) in expected {
        let found = actual.get(line).map_or(&[][..], Vec::as_slice);
        for (code, part) in wanted {
            if !found
                .iter()
                .any(|(is, message)| is == code && message.contains(part))
            {
                wrong.push(format!(
                    "{program}.rs:{line}: no error {code} `{part}`, but {found:?}"
                ));
            }
        }
    }
    for (line, found) in actual {
        let counts = (expected.get(line).map_or(0, Vec::len), found.len());
        if counts.0 != counts.1 && counts.0 != 0 {
            wrong.push(format!(
                "{program}.rs:{line}: {} errors, not {}: {found:?}",
                counts.1, counts.0
            ));
        }
        let wanted = expected.get(line).map_or(&[][..], Vec::as_slice);
        for (code, message) in found {
            if !wanted
                .iter()
                .any(|(is, part)| is == code && message.contains(part))
            {
                wrong.push(format!("{program}.rs:{line}: unexpected {code} `{message}`"));
            }
        }
    }
    wrong
}

#[test]
fn what_must_not_cross_is_refused_for_the_right_reason() {
    let mut programs: Vec<String> = fs::read_dir(sources())
        .expect("the programs")
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    programs.sort();
    let compiled = compile(&programs);
    let mut wrong = Vec::new();
    let mut count = 0;
    for (program, actual) in &compiled {
        let expected = expected(program);
        assert_eq!(
            expected.is_empty(),
            program == "allowed",
            "{program}.rs names its errors"
        );
        count += expected.values().map(Vec::len).sum::<usize>();
        wrong.extend(differences(program, &expected, actual));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{count} refusals in {} programs", compiled.len() - 1);
}

#[test]
fn a_missing_error_and_an_unexpected_one_are_noticed() {
    let error =
        |line: usize, message: &str| Errors::from([(line, vec![("E0277".to_owned(), message.to_owned())])]);
    assert!(differences("p", &error(1, "not"), &error(1, "is not satisfied")).is_empty());
    assert_eq!(differences("p", &error(1, "not"), &Errors::new()).len(), 1);
    assert_eq!(differences("p", &Errors::new(), &error(1, "not")).len(), 1);
    assert_eq!(differences("p", &error(1, "not"), &error(2, "not")).len(), 2);
    assert_eq!(differences("p", &error(1, "one"), &error(1, "other")).len(), 2);
}
