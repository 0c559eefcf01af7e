//! The project as Cargo sees it: its packages, their layers and what they depend on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Where a package belongs, by its first directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// kernel/: the trusted computing base.
    Kernel,
    /// interface/: the contracts.
    Interface,
    /// domains/lib/: safe code that domains share.
    Library,
    /// drivers/, domains/, rv6/: what runs isolated.
    Domain,
    /// firmware/: the kernel's image.
    Firmware,
    /// tests/attack/: domains that fault on purpose, and their contracts.
    Attack,
    /// deploy/ and the rest of tests/: what runs on the host.
    Host,
}

/// A package of the project.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its directory, relative to the root.
    pub directory: PathBuf,
    /// Its layer; `None` when its directory is none of the house's.
    pub layer: Option<Layer>,
    /// Root files of its targets (libraries, programs, tests, build scripts), relative to the root.
    pub target_roots: Vec<PathBuf>,
    /// Whether it is a procedural macro, which runs in the compiler.
    pub procedural_macro: bool,
    /// Packages that its targets link.
    pub links: Vec<String>,
    /// Packages that only its tests use.
    pub tests_with: Vec<String>,
}

/// All packages of the project.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its root directory.
    pub root: PathBuf,
    /// Its packages.
    pub packages: Vec<Package>,
}

impl Project {
    /// Reads the project at `root`.
    ///
    /// # Errors
    /// When Cargo can't make sense of it.
    pub fn read(root: &Path) -> Result<Self> {
        // Without the registry's packages: only what manifests say counts here.
        let metadata = MetadataCommand::new()
            .current_dir(root)
            .no_deps()
            .exec()
            .with_context(|| format!("cargo metadata failed in {}", root.display()))?;
        let root = metadata.workspace_root.as_std_path().to_path_buf();
        let relative = |path: &Path| path.strip_prefix(&root).unwrap_or(path).to_path_buf();
        let packages = metadata
            .workspace_packages()
            .into_iter()
            .map(|package| {
                let directory = package
                    .manifest_path
                    .parent()
                    .map(|path| relative(path.as_std_path()));
                let directory = directory.unwrap_or_default();
                let of_kind = |test: bool| {
                    package
                        .dependencies
                        .iter()
                        .filter(|dependency| (dependency.kind == DependencyKind::Development) == test)
                        .map(|dependency| dependency.name.clone())
                        .collect()
                };
                Package {
                    name: package.name.to_string(),
                    layer: layer_of(&directory),
                    target_roots: package
                        .targets
                        .iter()
                        .map(|target| relative(target.src_path.as_std_path()))
                        .collect(),
                    procedural_macro: package.targets.iter().any(|target| target.is_proc_macro()),
                    links: of_kind(false),
                    tests_with: of_kind(true),
                    directory,
                }
            })
            .collect();
        Ok(Self { root, packages })
    }

    /// A package by its name.
    pub fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }
}

fn layer_of(directory: &Path) -> Option<Layer> {
    if directory.starts_with("tests/attack") {
        return Some(Layer::Attack);
    }
    if directory.starts_with("domains/lib") {
        return Some(Layer::Library);
    }
    match directory.components().next()?.as_os_str().to_str()? {
        "kernel" => Some(Layer::Kernel),
        "interface" => Some(Layer::Interface),
        "drivers" | "domains" | "rv6" => Some(Layer::Domain),
        "firmware" => Some(Layer::Firmware),
        "deploy" | "tests" => Some(Layer::Host),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_follow_the_house() {
        assert_eq!(layer_of(Path::new("kernel/rref")), Some(Layer::Kernel));
        assert_eq!(layer_of(Path::new("domains/net/maglev")), Some(Layer::Domain));
        assert_eq!(layer_of(Path::new("domains/lib/outage")), Some(Layer::Library));
        assert_eq!(layer_of(Path::new("tests")), Some(Layer::Host));
        assert_eq!(layer_of(Path::new("tests/attack/victim")), Some(Layer::Attack));
        assert_eq!(layer_of(Path::new("attic/old")), None);
    }

    #[test]
    fn this_project_is_read() {
        let project = Project::read(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let rules = project.package("rules").unwrap();
        assert_eq!(rules.directory, Path::new("deploy/rules"));
        assert!(rules.links.contains(&"anyhow".to_owned()));
        assert!(
            rules
                .target_roots
                .contains(&PathBuf::from("deploy/rules/src/lib.rs"))
        );
    }
}
