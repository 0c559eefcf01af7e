//! Clients that know nothing of the appliance: redis-cli, redis-benchmark, redis-py, and Redis' own tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use progress::Step;
use provision::Program;
use serde_json::Value;

use crate::context::Context;
use crate::kv_load::wait_until_loaded;
use crate::running_lab::{RunningLab, finish};

/// Requests of each of redis-benchmark's tests.
const REQUESTS: &str = "2000";
/// The release of redis-py.
const REDIS_PY: &str = "redis==8.1.0";
const PYTHON: Program = Program {
    name: "python3",
    package: "python3",
};
const PIP: Program = Program {
    name: "pip3",
    package: "python3-pip",
};

/// The test.
pub fn work(context: &Context) -> Result<()> {
    provision::ensure_programs(&[Program::REDIS_CLI, Program::REDIS_BENCHMARK, PYTHON, PIP])?;
    let redis_py = redis_py()?;
    let suite = context.program("redis-suite")?;
    let lab = context.boot_store("kv-clients", None)?;
    lab.judge(wait_until_loaded(&lab).and_then(|()| {
        command_line(&lab)?;
        benchmark(context, &lab)?;
        python(context, &lab, &redis_py)?;
        own_tests(context, &lab, &suite)
    }))
}

fn command_line(lab: &RunningLab) -> Result<()> {
    let step = Step::start("redis-cli");
    for (words, expected) in [
        ("set greeting hello", "OK"),
        ("get greeting", "hello"),
        ("-3 get greeting", "hello"),
        ("strlen greeting", "5"),
        ("incr counter", "1"),
        ("rpush list a b c", "3"),
        ("lrange list 0 -1", "a\nb\nc"),
        ("get missing", ""),
        ("type list", "list"),
        (
            "lpush greeting x",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
        (
            "nonsense",
            "ERR unknown command 'nonsense', with args beginning with:",
        ),
        ("del greeting counter list", "3"),
    ] {
        let answer = cli(lab, &words.split(' ').collect::<Vec<_>>())?;
        ensure!(
            answer.trim() == expected,
            "redis-cli {words}: `{}` instead of `{expected}`",
            answer.trim()
        );
    }
    // What it looks at by itself.
    for words in [
        ["info", "server"].as_slice(),
        &["--scan"],
        &["--bigkeys"],
        &["command", "docs", "get"],
    ] {
        cli(lab, words)?;
    }
    step.done("");
    Ok(())
}

fn cli(lab: &RunningLab, words: &[&str]) -> Result<String> {
    let address = lab.store()?;
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut all = vec!["-h", &host, "-p", &port];
    all.extend(words);
    lab.run("client", "redis-cli", &all)
}

fn benchmark(context: &Context, lab: &RunningLab) -> Result<()> {
    let address = lab.store()?;
    for pipeline in ["1", "16"] {
        let step = Step::start(format!("redis-benchmark -P {pipeline}"));
        let text = lab.run(
            "client",
            "redis-benchmark",
            &[
                "-h",
                &address.ip().to_string(),
                "-p",
                &address.port().to_string(),
                "-n",
                REQUESTS,
                "-P",
                pipeline,
                "--csv",
            ],
        )?;
        let tests: Vec<(&str, f64)> = text.lines().skip(1).filter_map(row).collect();
        // What redis-benchmark of Redis 7 does without `-t`.
        const TESTS: usize = 20;
        ensure!(
            tests.len() >= TESTS && !text.contains("rror"),
            "redis-benchmark did {} of {TESTS} tests:\n{text}",
            tests.len()
        );
        step.done(format!("{} tests", tests.len()));
        context.figure(&format!("benchmark_tests_p{pipeline}"), tests.len(), "");
    }
    Ok(())
}

/// Name and rate in a line of redis-benchmark's table.
fn row(line: &str) -> Option<(&str, f64)> {
    let (name, rest) = line.strip_prefix('"')?.split_once("\",\"")?;
    let (rate, _) = rest.split_once('"')?;
    Some((name, rate.parse().ok()?))
}

/// redis-py in the cache.
fn redis_py() -> Result<PathBuf> {
    let folder = provision::cache_directory()?.join(REDIS_PY.replace("==", "-py-"));
    if !folder.join("redis/__init__.py").is_file() {
        let step = Step::start("Fetching redis-py");
        let mut command = Command::new("python3");
        command
            .args(["-m", "pip", "install", "--quiet", "--root-user-action", "ignore"])
            .args(["--disable-pip-version-check", "--target"])
            .arg(&folder)
            .arg(REDIS_PY);
        finish(command, "pip install")?;
        step.done(REDIS_PY);
    }
    Ok(folder)
}

fn python(context: &Context, lab: &RunningLab, redis_py: &Path) -> Result<()> {
    let step = Step::start("redis-py");
    let address = lab.store()?;
    let mut command = lab.command_in("client", "python3")?;
    command
        .env("PYTHONPATH", redis_py)
        .arg(context.root.join("tests/clients/redis_py.py"))
        .args([address.ip().to_string(), address.port().to_string()]);
    let checks = finish(command, "the redis-py script")?;
    let checks: u64 = checks.trim().parse().context("the script told no number")?;
    step.done(format!("{checks} answers as expected"));
    context.figure("redis_py_checks", checks, "");
    Ok(())
}

fn own_tests(context: &Context, lab: &RunningLab, suite: &Path) -> Result<()> {
    let address = lab.store()?.to_string();
    // Fetches what is missing before it is in a network without a way out.
    let mut prepare = Command::new(suite);
    prepare.args(["--to", &address, "--prepare", "--json"]);
    finish(prepare, "redis-suite --prepare")?;
    let step = Step::start("Redis' own tests");
    let output = lab
        .command_in("client", suite)?
        .args(["--to", &address, "--json"])
        .args(&context.storage.suite)
        // It says how far it is.
        .stderr(Stdio::inherit())
        .output()
        .context("redis-suite can't be run")?;
    let results: Value = serde_json::from_slice(&output.stdout).context("redis-suite failed")?;
    let count = |name: &str| results[name].as_u64().unwrap_or_default();
    step.done(format!("{} passed, {} failed", count("passed"), count("failed")));
    for file in results["files"].as_array().into_iter().flatten() {
        let name = file["file"].as_str().unwrap_or_default();
        let failures = file["failures"].as_array().map_or(0, Vec::len);
        let counts = format!(
            "{} passed, {failures} failed, {} skipped",
            file["passed"], file["skipped"]
        );
        context.figure(&format!("redis_tests {name}"), counts, "");
    }
    context.figure("redis_tests_passed", count("passed"), "");
    context.figure("redis_tests_failed", count("failed"), "");
    context.figure("redis_tests_skipped", count("skipped"), "");
    check_surprises(&results)
}

/// Fails on a test that fails and isn't known to, and on one that is known to and doesn't (deploy/redis-suite/expected.toml).
fn check_surprises(results: &Value) -> Result<()> {
    let surprises: Vec<&str> = results["surprises"]
        .as_array()
        .context("redis-suite told no surprises")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    ensure!(
        surprises.is_empty(),
        "Redis' tests end otherwise than docs/redis-tests.md explains:\n{}",
        surprises.join("\n")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        assert_eq!(row("\"SET\",\"100.5\",\"1\""), Some(("SET", 100.5)));
        assert_eq!(row("WARNING"), None);
    }

    #[test]
    fn only_what_is_expected_is_let_through() {
        let results = |surprises: &[&str]| serde_json::json!({ "surprises": surprises });
        assert!(check_surprises(&results(&[])).is_ok());
        assert!(check_surprises(&results(&["unit/x: GET fails"])).is_err());
        assert!(check_surprises(&serde_json::json!({})).is_err());
    }
}
