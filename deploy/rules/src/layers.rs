//! The layer rule: kernel → nothing above it; interface → rref; domains → interface, the trusted libraries and domains/lib/, never each
//! other; domains/lib/ → interface and the trusted libraries, never a domain nor one another; firmware → kernel and interface.
//!
//! What raises faults on purpose (kernel/attack) is for the domains of tests/attack alone; the firmware may know their interface, for a
//! build that has them.
//!
//! Registry crates are [`crate::dependencies`]' business. Tests of a domain may also use what stands in for the machine on the
//! host; nothing on the host is restricted.

use crate::project::{Layer, Package, Project};
use crate::violation::Violation;

/// Libraries of kernel/ that domains link.
const TRUSTED_LIBRARIES: [&str; 6] = ["checksum", "dma", "domain-rt", "idl", "prefetch", "rref"];
/// What the contracts are made of.
const INTERFACE_LIBRARIES: [&str; 2] = ["idl", "rref"];
/// Raises faults: for nobody whose code gets into a release.
pub const ATTACK_LIBRARY: &str = "attack";
/// The contracts of attack images.
const ATTACK_INTERFACE: &str = "attack-interface";
/// What stands in for the machine in tests on the host.
const TEST_DOUBLES: [&str; 5] = [
    "guest-memory",
    "host-platform",
    "nic-model",
    "socket-double",
    "virtual-disk",
];

/// Checks every package's dependencies within the project.
pub fn check(project: &Project) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in &project.packages {
        let mut violate = |message: String| {
            violations.push(Violation {
                file: package.directory.join("Cargo.toml"),
                line: None,
                message,
            });
        };
        let Some(layer) = package.layer else {
            violate(format!("`{}` is in none of the project's layers", package.name));
            continue;
        };
        for name in &package.links {
            if let Some(other) = project.package(name)
                && !may_link(layer, other)
            {
                violate(format!(
                    "`{}` may not depend on `{name}` ({})",
                    package.name,
                    place(other)
                ));
            }
        }
        for name in &package.tests_with {
            if let Some(other) = project.package(name)
                && !may_link(layer, other)
                && !may_test_with(layer, other)
            {
                violate(format!(
                    "`{}` may not be tested with `{name}` ({})",
                    package.name,
                    place(other)
                ));
            }
        }
    }
    violations
}

fn may_link(layer: Layer, other: &Package) -> bool {
    let name = other.name.as_str();
    if name == ATTACK_LIBRARY {
        return layer == Layer::Attack;
    }
    match layer {
        Layer::Kernel => other.layer == Some(Layer::Kernel),
        Layer::Interface => INTERFACE_LIBRARIES.contains(&name),
        Layer::Library => is_below_domains(other),
        Layer::Domain => is_below_domains(other) || other.layer == Some(Layer::Library),
        Layer::Firmware => {
            matches!(other.layer, Some(Layer::Kernel | Layer::Interface)) || name == ATTACK_INTERFACE
        }
        Layer::Attack => {
            is_below_domains(other) || other.layer == Some(Layer::Library) || name == ATTACK_INTERFACE
        }
        Layer::Host => true,
    }
}

/// What every domain may link: the contracts and the trusted libraries.
fn is_below_domains(package: &Package) -> bool {
    package.layer == Some(Layer::Interface) || TRUSTED_LIBRARIES.contains(&package.name.as_str())
}

fn may_test_with(layer: Layer, other: &Package) -> bool {
    let name = other.name.as_str();
    match layer {
        Layer::Kernel | Layer::Firmware => false,
        Layer::Interface | Layer::Library | Layer::Domain | Layer::Attack => TEST_DOUBLES.contains(&name),
        Layer::Host => true,
    }
}

fn place(package: &Package) -> String {
    package.directory.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, directory: &str, layer: Layer, links: &[&str], tests_with: &[&str]) -> Package {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        Package {
            name: name.to_owned(),
            directory: directory.into(),
            layer: Some(layer),
            target_roots: Vec::new(),
            procedural_macro: false,
            links: names(links),
            tests_with: names(tests_with),
        }
    }

    fn violations(links: &[&str], tests_with: &[&str], layer: Layer) -> usize {
        let project = Project {
            root: "/".into(),
            packages: vec![
                package("rref", "kernel/rref", Layer::Kernel, &[], &[]),
                package("kernel", "kernel/core", Layer::Kernel, &["rref"], &[]),
                package("interface", "interface", Layer::Interface, &["rref"], &[]),
                package(
                    "maglev",
                    "domains/net/maglev",
                    Layer::Domain,
                    &["interface", "rref"],
                    &[],
                ),
                package(
                    "outage",
                    "domains/lib/outage",
                    Layer::Library,
                    &["interface"],
                    &[],
                ),
                package("host-platform", "kernel/host-platform", Layer::Kernel, &[], &[]),
                package("attack", "kernel/attack", Layer::Kernel, &[], &[]),
                package(
                    "attack-interface",
                    "tests/attack/interface",
                    Layer::Attack,
                    &[],
                    &[],
                ),
                package("subject", "subject", layer, links, tests_with),
            ],
        };
        check(&project).len()
    }

    #[test]
    fn domains_know_each_other_only_through_the_interface() {
        assert_eq!(
            violations(
                &["interface", "rref", "smoltcp"],
                &["host-platform"],
                Layer::Domain
            ),
            0
        );
        assert_eq!(violations(&["maglev"], &[], Layer::Domain), 1);
        assert_eq!(violations(&["kernel"], &[], Layer::Domain), 1);
        assert_eq!(violations(&["host-platform"], &[], Layer::Domain), 1);
        assert_eq!(violations(&[], &["maglev"], Layer::Domain), 1);
    }

    #[test]
    fn what_domains_share_knows_no_domain() {
        assert_eq!(violations(&["outage"], &[], Layer::Domain), 0);
        assert_eq!(
            violations(&["interface", "rref", "toml"], &["host-platform"], Layer::Library),
            0
        );
        assert_eq!(violations(&["maglev"], &[], Layer::Library), 1);
        assert_eq!(violations(&["outage"], &[], Layer::Library), 1);
        assert_eq!(violations(&["kernel"], &[], Layer::Library), 1);
        assert_eq!(violations(&["outage"], &[], Layer::Attack), 0);
        assert_eq!(violations(&["outage"], &[], Layer::Kernel), 1);
        assert_eq!(violations(&["outage"], &[], Layer::Interface), 1);
    }

    #[test]
    fn nothing_below_knows_what_is_above() {
        assert_eq!(violations(&["interface"], &[], Layer::Kernel), 1);
        assert_eq!(violations(&["kernel"], &[], Layer::Interface), 1);
        assert_eq!(violations(&["maglev"], &[], Layer::Firmware), 1);
        assert_eq!(violations(&["maglev", "kernel"], &[], Layer::Host), 0);
    }

    #[test]
    fn faults_are_raised_by_attack_images_only() {
        for layer in [
            Layer::Kernel,
            Layer::Interface,
            Layer::Library,
            Layer::Domain,
            Layer::Firmware,
            Layer::Host,
        ] {
            assert_eq!(violations(&["attack"], &[], layer), 1, "{layer:?}");
        }
        assert_eq!(
            violations(&["attack", "attack-interface", "rref"], &[], Layer::Attack),
            0
        );
        assert_eq!(violations(&["attack-interface"], &[], Layer::Firmware), 0);
        assert_eq!(violations(&["attack-interface"], &[], Layer::Domain), 1);
        assert_eq!(violations(&["maglev"], &[], Layer::Attack), 1);
    }
}
