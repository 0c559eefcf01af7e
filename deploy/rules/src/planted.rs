//! Shows that the rules notice: each is broken in a copy of the tree, and must say so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::project::{Layer, Package, Project};
use crate::{census, dependencies, layers, unsafe_code};

/// A planted violation and whether it was noticed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was planted, where.
    pub what: String,
    /// Whether the rule named that place.
    pub noticed: bool,
}

/// Plants a violation of each rule in a copy of the tree at `root`; `linked` is what [`dependencies::linked`] says of the tree.
///
/// # Errors
/// When the tree can't be copied or read.
pub fn check(root: &Path, linked: &BTreeSet<String>) -> Result<Vec<Outcome>> {
    let copy = copy(root)?;
    let root = copy.path();
    let project = Project::read(root)?;
    let mut outcomes = Vec::new();
    for package in subjects(&project) {
        outcomes.push(plant_unsafe(&project, package)?);
        outcomes.push(plant_missing_forbid(&project, package)?);
    }
    if let Some(package) = of_layer(&project, Layer::Kernel).next() {
        for (what, text) in UNARGUED {
            outcomes.push(plant_source(&project, package, what, text)?);
        }
        outcomes.push(plant_uncounted(&project, package)?);
    }
    let domains: Vec<&Package> = of_layer(&project, Layer::Domain).collect();
    if let [one, .., other] = domains.as_slice() {
        outcomes.push(plant_dependency(root, one, other)?);
    }
    if let (Some(domain), Some(library)) = (domains.first(), project.package(layers::ATTACK_LIBRARY)) {
        outcomes.push(plant_dependency(root, domain, library)?);
    }
    for (lower, upper) in [
        (Layer::Kernel, Layer::Interface),
        (Layer::Interface, Layer::Library),
        (Layer::Library, Layer::Domain),
    ] {
        if let (Some(lower), Some(upper)) =
            (of_layer(&project, lower).last(), of_layer(&project, upper).next())
        {
            outcomes.push(plant_dependency(root, lower, upper)?);
        }
    }
    outcomes.push(plant_unlisted(root, linked)?);
    Ok(outcomes)
}

/// One package of each layer that must have no `unsafe`.
fn subjects(project: &Project) -> impl Iterator<Item = &Package> {
    [
        Layer::Interface,
        Layer::Library,
        Layer::Domain,
        Layer::Attack,
        Layer::Host,
    ]
    .into_iter()
    .filter_map(|layer| of_layer(project, layer).find(|package| !package.target_roots.is_empty()))
}

fn of_layer(project: &Project, layer: Layer) -> impl Iterator<Item = &Package> {
    project
        .packages
        .iter()
        .filter(move |package| package.layer == Some(layer))
}

fn plant_unsafe(project: &Project, package: &Package) -> Result<Outcome> {
    plant_source(
        project,
        package,
        "`unsafe`",
        "fn read(address: *const u8) -> u8 {\n    unsafe { *address }\n}\n",
    )
}

/// Plants a source whose second line breaks the rules.
fn plant_source(project: &Project, package: &Package, what: &str, text: &str) -> Result<Outcome> {
    with_source(project, package, text, |file| {
        let noticed = unsafe_code::check_package(project, package)?
            .iter()
            .any(|violation| violation.file == file && violation.line == Some(2));
        Ok(Outcome {
            what: format!("{what} in {}", file.display()),
            noticed,
        })
    })
}

/// Runs `check` with a source more in a package: a module that nothing includes, because the rules must not depend on what is compiled.
fn with_source(
    project: &Project,
    package: &Package,
    text: &str,
    check: impl FnOnce(&Path) -> Result<Outcome>,
) -> Result<Outcome> {
    let file = package.directory.join("src/planted_by_the_rules_test.rs");
    let path = project.root.join(&file);
    fs::write(&path, text)?;
    let outcome = check(&file);
    fs::remove_file(&path)?;
    outcome
}

/// What kernel/ may have only with an argument; the second line is the one to be named.
const UNARGUED: [(&str, &str); 5] = [
    (
        "an unargued block",
        "fn f(a: *const u8) -> u8 {\n    unsafe { *a }\n}\n",
    ),
    (
        "an unargued implementation",
        "struct A;\nunsafe impl Send for A {}\n",
    ),
    (
        "an unargued declaration",
        "\nunsafe extern \"C\" {\n    fn f();\n}\n",
    ),
    ("a function without its contract", "/// It.\nunsafe fn f() {}\n"),
    (
        "an implemented function without an argument",
        "impl T for A {\n    unsafe fn f() {}\n}\n",
    ),
];

fn plant_uncounted(project: &Project, package: &Package) -> Result<Outcome> {
    let text = "// SAFETY: None.\nunsafe impl Send for A {}\n";
    with_source(project, package, text, |_| {
        let noticed = census::check(project)?
            .iter()
            .any(|violation| violation.file == Path::new(census::PAGE));
        Ok(Outcome {
            what: format!("an `unsafe` more in {} than {} says", package.name, census::PAGE),
            noticed,
        })
    })
}

fn plant_missing_forbid(project: &Project, package: &Package) -> Result<Outcome> {
    let file = package.target_roots.first().cloned().unwrap_or_default();
    let noticed = changed(
        &project.root.join(&file),
        |text| text.replace("forbid(unsafe_code)", "warn(unsafe_code)"),
        || {
            Ok(unsafe_code::check_package(project, package)?
                .iter()
                .any(|violation| violation.file == file))
        },
    )?;
    Ok(Outcome {
        what: format!("{} without `#![forbid(unsafe_code)]`", file.display()),
        noticed,
    })
}

fn plant_dependency(root: &Path, from: &Package, to: &Package) -> Result<Outcome> {
    let file = from.directory.join("Cargo.toml");
    let line = format!("{} = {{ path = {:?} }}\n", to.name, root.join(&to.directory));
    let noticed = changed(
        &root.join(&file),
        |text| with_dependency(text, &line),
        || {
            Ok(layers::check(&Project::read(root)?)
                .iter()
                .any(|violation| violation.file == file))
        },
    )?;
    Ok(Outcome {
        what: format!("`{}` depending on `{}`", from.name, to.name),
        noticed,
    })
}

fn plant_unlisted(root: &Path, linked: &BTreeSet<String>) -> Result<Outcome> {
    let list = root.join(dependencies::LIST);
    let noticed = changed(&list, without_first_entry, || {
        Ok(dependencies::check(root, linked)?
            .iter()
            .any(|violation| violation.message.contains("not listed")))
    })?;
    Ok(Outcome {
        what: format!("an entry missing from {}", dependencies::LIST),
        noticed,
    })
}

/// Runs `check` with a file changed, and puts the file back.
fn changed(
    path: &Path,
    change: impl FnOnce(&str) -> String,
    check: impl FnOnce() -> Result<bool>,
) -> Result<bool> {
    let before = fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    fs::write(path, change(&before))?;
    let result = check();
    fs::write(path, before)?;
    result
}

fn with_dependency(manifest: &str, line: &str) -> String {
    match manifest.split_once("\n[dependencies]\n") {
        Some((before, after)) => format!("{before}\n[dependencies]\n{line}{after}"),
        None => format!("{manifest}\n[dependencies]\n{line}"),
    }
}

fn without_first_entry(list: &str) -> String {
    let mut parts = list.splitn(3, "[[dependency]]");
    let head = parts.next().unwrap_or_default();
    let rest = parts.nth(1).unwrap_or_default();
    format!("{head}[[dependency]]{rest}")
}

/// Copies manifests, sources and pages; builds, version control and hidden files stay behind.
fn copy(root: &Path) -> Result<TempDir> {
    let copy = tempfile::tempdir().context("a temporary directory can't be made")?;
    copy_directory(root, copy.path())?;
    Ok(copy)
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{} can't be read", from.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        let (path, target): (PathBuf, PathBuf) = (entry.path(), to.join(&name));
        if path.is_dir() {
            if !hidden && name != "target" {
                copy_directory(&path, &target)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| ["rs", "toml", "lock", "md"].iter().any(|kept| extension == *kept))
        {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_lands_in_its_table() {
        let manifest = "[package]\nname = \"a\"\n\n[dependencies]\nb = \"1\"\n";
        assert!(with_dependency(manifest, "c = \"2\"\n").contains("[dependencies]\nc = \"2\"\nb"));
        assert!(with_dependency("[package]\n", "c = \"2\"\n").ends_with("[dependencies]\nc = \"2\"\n"));
    }

    #[test]
    fn the_first_entry_goes() {
        let list = "# head\n[[dependency]]\nname = \"a\"\n[[dependency]]\nname = \"b\"\n";
        assert_eq!(
            without_first_entry(list),
            "# head\n[[dependency]]\nname = \"b\"\n"
        );
    }
}
