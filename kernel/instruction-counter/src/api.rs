//! The part of QEMU's plugin interface, version 7, that is used here (QEMU's `include/plugins/qemu-plugin.h`).
//!
//! Declarations only; the symbols are QEMU's own, found when it loads the plugin.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// A plugin's number.
pub type PluginId = u64;

/// What QEMU says about itself and the guest.
#[repr(C)]
pub struct Info {
    /// Guest architecture.
    pub target_name: *const c_char,
    /// Oldest interface version that is supported.
    pub version_min: c_int,
    /// Newest interface version.
    pub version_current: c_int,
    /// Whether a whole machine is emulated.
    pub system_emulation: bool,
    /// CPUs that the machine starts with.
    pub smp_vcpus: c_int,
    /// CPUs that it can have.
    pub max_vcpus: c_int,
}

/// A block of translated code.
#[repr(C)]
pub struct Block {
    opaque: [u8; 0],
}

/// Memory with an element for each CPU.
#[repr(C)]
pub struct Scoreboard {
    opaque: [u8; 0],
}

/// A 64-bit member of each element.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Entry {
    /// Whose element.
    pub scoreboard: *mut Scoreboard,
    /// Byte offset of the member.
    pub offset: usize,
}

/// What is done inline.
#[repr(C)]
pub enum Operation {
    /// Adds to the member.
    AddU64,
}

// SAFETY: names, arguments and results are those of QEMU's header.
unsafe extern "C" {
    /// Has `callback` called for each CPU when it has been made.
    pub fn qemu_plugin_register_vcpu_init_cb(
        id: PluginId,
        callback: extern "C" fn(c_uint, *mut c_void),
        user_data: *mut c_void,
    );
    /// Has `callback` called for each block that is translated.
    pub fn qemu_plugin_register_vcpu_tb_trans_cb(
        id: PluginId,
        callback: extern "C" fn(*mut Block, *mut c_void),
        user_data: *mut c_void,
    );
    /// Does `operation` on the entry of the CPU that executes the block.
    pub fn qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        block: *mut Block,
        operation: Operation,
        entry: Entry,
        value: u64,
    );
    /// Instructions in a block.
    pub fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    /// Virtual address of a block's first instruction.
    pub fn qemu_plugin_tb_vaddr(block: *const Block) -> u64;
    /// Makes a scoreboard with elements of this size.
    pub fn qemu_plugin_scoreboard_new(element_size: usize) -> *mut Scoreboard;
    /// A CPU's value of an entry.
    pub fn qemu_plugin_u64_get(entry: Entry, cpu: c_uint) -> u64;
}
