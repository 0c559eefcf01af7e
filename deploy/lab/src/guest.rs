//! QEMU's command line for the appliance.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::state::Sockets;

/// The machine that the appliance runs on.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The boot archive.
    pub archive: Option<PathBuf>,
    /// Words for the kernel's command line.
    pub arguments: String,
    /// CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The disk behind its NVMe controller, if it has one.
    pub disk: Option<Disk>,
    /// A TCG plugin that counts instructions, when they are to be counted.
    pub instruction_counter: Option<PathBuf>,
    /// Whether it also counts by block of code.
    pub profile: bool,
    /// Whether a restart restarts it; otherwise it ends.
    pub restarts: bool,
}

impl Guest {
    /// A machine with this kernel and boot archive, two CPUs and 1 GiB of memory, and nothing else.
    pub fn new(kernel: PathBuf, archive: PathBuf) -> Self {
        Self {
            kernel,
            archive: Some(archive),
            arguments: String::new(),
            cpus: 2,
            memory_mib: 1024,
            disk: None,
            instruction_counter: None,
            profile: false,
            restarts: false,
        }
    }

    /// QEMU's arguments: a q35 with the modelled 82599 behind a root port, so that it is a real Express endpoint, and
    /// nothing else that could carry traffic; an NVMe controller behind another root port, when there is a disk.
    pub fn command_line(&self, sockets: &Sockets, serial_log: &Path) -> Vec<OsString> {
        let memory = self.memory_mib;
        let mut words: Vec<OsString> = Vec::new();
        let mut add = |flag: &str, value: &str| words.extend([flag.into(), value.into()]);
        add("-machine", "q35,memory-backend=memory");
        add("-accel", "tcg,thread=multi");
        add("-cpu", "max");
        add("-smp", &self.cpus.to_string());
        add("-m", &format!("{memory}M"));
        // Shared, because the model of the card reads and writes it directly.
        add(
            "-object",
            &format!("memory-backend-memfd,id=memory,size={memory}M,share=on"),
        );
        add("-device", "pcie-root-port,id=port0,chassis=1,slot=1");
        add(
            "-device",
            &format!(
                r#"{{"driver":"vfio-user-pci","id":"nic0","bus":"port0","rombar":0,"socket":{{"type":"unix","path":"{}"}}}}"#,
                sockets.device.display()
            ),
        );
        add(
            "-chardev",
            &format!(
                "socket,id=serial0,path={},server=on,wait=off,logfile={}",
                sockets.serial.display(),
                serial_log.display()
            ),
        );
        add("-serial", "chardev:serial0");
        add(
            "-qmp",
            &format!("unix:{},server=on,wait=off", sockets.qmp.display()),
        );
        add("-device", "isa-debug-exit,iobase=0xf4,iosize=4");
        add("-display", "none");
        if let (Some(plugin), Some(socket)) = (&self.instruction_counter, &sockets.instructions) {
            add(
                "-plugin",
                &format!(
                    "file={},socket={}{}",
                    plugin.display(),
                    socket.display(),
                    if self.profile { ",profile=on" } else { "" }
                ),
            );
        }
        add("-append", &self.arguments);
        if let Some(disk) = &self.disk {
            words.extend(disk.command_line());
        }
        words.extend(["-nodefaults".into(), "-no-user-config".into()]);
        if !self.restarts {
            words.push("-no-reboot".into());
        }
        words.extend(["-kernel".into(), self.kernel.clone().into()]);
        if let Some(archive) = &self.archive {
            words.extend(["-initrd".into(), archive.clone().into()]);
        }
        words
    }
}
