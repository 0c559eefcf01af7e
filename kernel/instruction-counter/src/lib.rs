//! A TCG plugin that counts the instructions of each virtual CPU.
//!
//! QEMU loads it with `-plugin file=libinstruction_counter.so,socket=PATH`. Each block of guest code gets an inline addition of
//! its number of instructions to its CPU's counter, which costs less than can be measured. Whoever connects to the socket
//! gets one line, `{"instructions":[N,…]}` with a total for each CPU since the start, and the connection is closed; the
//! difference of two readings is what was executed between them.
//!
//! With `profile=on` it also counts the instructions of each block by the block's address (`profile`), and the line has
//! `"blocks":[[ADDRESS,N],…]` too.
//!
//! It runs on the host, inside QEMU, and is no part of the appliance; it is in kernel/ because it can't do without
//! `unsafe`. Written to version 7 of QEMU's plugin interface (QEMU 11.1), which `api` declares.

mod api;
mod profile;
mod serve;

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use api::{Block, Entry, Info, Operation, PluginId, Scoreboard};
use profile::Profile;

/// The version of QEMU's plugin interface that this is written to; QEMU refuses the plugin if it doesn't have it.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 7;

/// One counter for each virtual CPU, in memory that QEMU manages.
pub(crate) struct Counters {
    scoreboard: *mut Scoreboard,
    /// CPUs that the machine starts with.
    cpus: u32,
    /// Those of them that QEMU has made room for.
    initialised: AtomicU32,
    /// Counters of each block, when they were asked for.
    profile: Option<Profile>,
}

// SAFETY: the pointer is only passed to QEMU's own functions, which are meant for plugins with threads. Counters are read
// only after QEMU has made room for every CPU (see `read`), so the memory behind them doesn't move any more.
unsafe impl Send for Counters {}
// SAFETY: as above; the only field that changes is atomic.
unsafe impl Sync for Counters {}

static COUNTERS: OnceLock<Counters> = OnceLock::new();

impl Counters {
    fn entry(&self) -> Entry {
        Entry {
            scoreboard: self.scoreboard,
            offset: 0,
        }
    }

    /// Each CPU's total, or nothing while CPUs are still being made.
    pub(crate) fn read(&self) -> Option<Vec<u64>> {
        if self.initialised.load(Ordering::Acquire) < self.cpus {
            return None;
        }
        let totals = (0..self.cpus).map(|cpu| {
            // SAFETY: the scoreboard was made by QEMU and is never freed; every CPU up to `cpus` has an entry, and none
            // is added later (the machine has no CPU hotplug), so entries stay where they are. A total that is being
            // added to is read as before or after, since aligned 64-bit accesses don't tear on x86-64.
            unsafe { api::qemu_plugin_u64_get(self.entry(), cpu) }
        });
        Some(totals.collect())
    }

    /// Each block's address and instructions on all CPUs; nothing without a profile, or while CPUs are still being made.
    pub(crate) fn read_blocks(&self) -> Option<Vec<(u64, u64)>> {
        if self.initialised.load(Ordering::Acquire) < self.cpus {
            return None;
        }
        self.profile.as_ref().map(|profile| profile.read(self.cpus))
    }
}

/// Called by QEMU when it has loaded the plugin. Returns 0, or something else to make QEMU give up.
///
/// # Safety
/// Only QEMU may call this, once, with a valid `info` for the time of the call and `argc` strings in `argv` that stay valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: PluginId,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: QEMU passes a valid pointer (this function's contract).
    let info = unsafe { &*info };
    // SAFETY: QEMU passes `argc` valid strings (this function's contract).
    let Some(socket) = (unsafe { argument(argc, argv, "socket=") }).map(PathBuf::from) else {
        eprintln!("instruction-counter: needs socket=PATH");
        return 1;
    };
    let Ok(cpus) = u32::try_from(info.smp_vcpus) else {
        return 1;
    };
    // SAFETY: allocates; the size is that of the only member, a u64.
    let scoreboard = unsafe { api::qemu_plugin_scoreboard_new(size_of::<u64>()) };
    // SAFETY: As above.
    let profile = (unsafe { argument(argc, argv, "profile=") } == Some("on")).then(Profile::new);
    let counters = COUNTERS.get_or_init(|| Counters {
        scoreboard,
        cpus,
        initialised: AtomicU32::new(0),
        profile,
    });
    let listener = match serve::listen(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("instruction-counter: {}: {error}", socket.display());
            return 1;
        }
    };
    thread::spawn(move || serve::serve(&listener, counters));
    // SAFETY: `id` is ours; both functions have the signature that version 7 calls, and live as long as the library, which
    // QEMU doesn't unload.
    unsafe {
        api::qemu_plugin_register_vcpu_init_cb(id, cpu_initialised, std::ptr::null_mut());
        api::qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated, std::ptr::null_mut());
    }
    0
}

/// What follows `name` in the argument that begins with it.
///
/// # Safety
/// `argv` must point to `argc` valid strings that stay.
unsafe fn argument(argc: c_int, argv: *const *const c_char, name: &str) -> Option<&'static str> {
    (0..usize::try_from(argc).ok()?).find_map(|index| {
        // SAFETY: `index` is below `argc`, and each of these is a valid string that stays (this function's contract).
        let argument: &'static CStr = unsafe { CStr::from_ptr(*argv.add(index)) };
        argument.to_str().ok()?.strip_prefix(name)
    })
}

extern "C" fn cpu_initialised(_cpu: c_uint, _user_data: *mut c_void) {
    if let Some(counters) = COUNTERS.get() {
        counters.initialised.fetch_add(1, Ordering::Release);
    }
}

extern "C" fn block_translated(block: *mut Block, _user_data: *mut c_void) {
    let Some(counters) = COUNTERS.get() else { return };
    // SAFETY: QEMU passes a block that is valid during this call.
    let instructions = unsafe { api::qemu_plugin_tb_n_insns(block) } as u64;
    // SAFETY: as above; the entry's scoreboard is never freed.
    unsafe {
        api::qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
            block,
            Operation::AddU64,
            counters.entry(),
            instructions,
        );
    }
    if let Some(profile) = &counters.profile {
        // SAFETY: As above.
        let address = unsafe { api::qemu_plugin_tb_vaddr(block) };
        let entry = profile.entry_of(address);
        // SAFETY: As above.
        unsafe {
            api::qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
                block,
                Operation::AddU64,
                entry,
                instructions,
            );
        }
    }
}
