//! The start of the appliance: the kernel's services, the table of domains, the supervisor. The rest starts from there.

use crate::black_box::{self, Boxes};
use crate::images::Images;
use crate::services::{Console, Control, Log, Machine};
use interface::black_box::BlackBoxes;
use interface::kernel::{DomainControl, LogReader, Power, SerialConsole};
use interface::update::ImageControl;
use isolation::image::Expected;
use kernel::machine::thread::{self, Builder};
use kernel::machine::{boot_information, clock, fault, power, self_test};

/// What the build put in: whose signatures count, and what images must have been built against.
const PUBLIC_KEY: &str = env!("APPLIANCE_PUBLIC_KEY");
const INTERFACE_HASH: &str = env!("APPLIANCE_INTERFACE_HASH");
const COMPILER: &str = env!("APPLIANCE_COMPILER");

const fn digit(character: u8) -> u8 {
    match character {
        b'0'..=b'9' => character - b'0',
        b'a'..=b'f' => character - b'a' + 10,
        _ => panic!("the build passed a key or hash that is not lower-case hexadecimal"),
    }
}

const fn bytes(text: &str) -> [u8; 32] {
    let text = text.as_bytes();
    assert!(
        text.len() == 64,
        "the build passed a key or hash that is not 32 bytes long"
    );
    let mut result = [0; 32];
    let mut index = 0;
    while index < 32 {
        result[index] = digit(text[2 * index]) << 4 | digit(text[2 * index + 1]);
        index += 1;
    }
    result
}

const EXPECTED: Expected<'static> = Expected {
    public_key: bytes(PUBLIC_KEY),
    interface_hash: bytes(INTERFACE_HASH),
    compiler: COMPILER,
};

/// Runs on the kernel's first thread once the machine is up.
pub fn main() {
    self_test::run_if_asked();
    if let Err(error) = isolation::initialise(boot_information().archive(), EXPECTED) {
        log::error!("cannot boot: {error}");
        power::exit(power::ExitStatus::Failure);
    }
    fault::set_domain_name(|thread, out| out.write_str(isolation::domain_name(thread.owner())));
    isolation::register_factories(factories());
    if let Some((domain, import)) = isolation::check_imports() {
        log::error!(
            "cannot boot: domain {domain} imports {import} from a provider or interface that doesn't exist"
        );
        power::exit(power::ExitStatus::Failure);
    }
    isolation::export_kernel_object::<dyn DomainControl>(&Control);
    isolation::export_kernel_object::<dyn ImageControl>(&Images);
    isolation::export_kernel_object::<dyn SerialConsole>(&Console);
    isolation::export_kernel_object::<dyn LogReader>(&Log);
    isolation::export_kernel_object::<dyn BlackBoxes>(&Boxes);
    isolation::export_kernel_object::<dyn Power>(&Machine);
    #[cfg(feature = "inject")]
    {
        isolation::export_kernel_object::<dyn attack_interface::injector::Injector>(
            &crate::injector::Control,
        );
        crate::injector::start();
    }
    if let Err(error) = thread::spawn(Builder::new("death-reports"), black_box::report_deaths) {
        log::warn!("no reports of deaths on the log: {error}");
    }
    supervise();
}

/// The interfaces that domains can talk by.
#[cfg(not(feature = "attack"))]
fn factories() -> &'static [rref::ProxyFactory] {
    interface::FACTORIES
}

/// The same with those of the attack kit.
#[cfg(feature = "attack")]
fn factories() -> &'static [rref::ProxyFactory] {
    [interface::FACTORIES, attack_interface::FACTORIES]
        .concat()
        .leak()
}

/// Starts the supervisor, the first domain of the manifest, and reboots the machine when it dies.
fn supervise() {
    let Some(supervisor) = isolation::domain(0) else {
        log::error!("cannot boot: the system manifest names no domain");
        power::exit(power::ExitStatus::Failure);
    };
    match isolation::start(supervisor) {
        Ok(_) => log::info!(
            "supervisor up {} ms after the first instruction",
            clock::now_ns() / 1_000_000
        ),
        Err(error) => {
            log::error!("cannot boot: {}: {error}", supervisor.manifest.name);
            power::exit(power::ExitStatus::Failure);
        }
    }
    let mut seen = 0;
    loop {
        let Some(death) = isolation::wait_death(seen, u64::MAX) else {
            continue;
        };
        seen = death.number;
        if death.domain == 0 {
            log::error!("the supervisor died: rebooting");
            power::reboot();
        }
    }
}
