//! The first instructions: from what the boot protocols leave (32-bit protected mode, no paging) to 64-bit
//! Rust.
//!
//! Maps the first 4 GiB twice with 2 MiB pages, at 0 and at the physical map's address, writable and
//! executable, only until `memory::initialise` has built the real tables; turns on SSE, which all compiled
//! code uses.

use super::{PROTOCOL_MULTIBOOT2, PROTOCOL_PVH, boot_main};

/// Bytes of the boot CPU's first stack. A guard page lies below it.
pub const BOOT_STACK_BYTES: usize = 64 * 1024;

core::arch::global_asm!(
    r#"
    .section .multiboot2, "a", @progbits
    .balign 8
    multiboot2_header:
        .long 0xe85250d6
        .long 0
        .long multiboot2_header_end - multiboot2_header
        .long -(0xe85250d6 + 0 + (multiboot2_header_end - multiboot2_header))
        /* Modules aligned to pages. */
        .short 6, 0
        .long 8
        .short 0, 0
        .long 8
    multiboot2_header_end:

    .section .note.xen, "a", @note
    .balign 4
        .long 4
        .long 4
        .long 18
        .asciz "Xen"
        .long pvh_start

    .section .bss.boot, "aw", @nobits
    .balign 4096
    boot_page_tables:
        .skip 6 * 4096
    .global boot_stack_guard
    boot_stack_guard:
        .skip 4096
    boot_stack:
        .skip {stack_bytes}
    boot_stack_top:

    .section .data.boot, "aw", @progbits
    .balign 8
    boot_gdt:
        .quad 0
        .quad 0x00af9b000000ffff
        .quad 0x00cf93000000ffff
    boot_gdt_pointer:
        .short 23
        .quad boot_gdt

    .section .text.boot, "ax", @progbits
    .code32
    .global pvh_start
    pvh_start:
        mov edi, {pvh}
        jmp 1f
    .global multiboot2_start
    multiboot2_start:
        mov edi, {multiboot2}
    1:  cli
        cld
        mov esi, ebx
        lea esp, [boot_stack_top]
        rdtsc
        push edx
        push eax

        /* One table of the third level, used at 0 and at the physical map; four of the second with 2 MiB pages. */
        lea ebx, [boot_page_tables]
        lea eax, [ebx + 0x1003]
        mov [ebx], eax
        mov [ebx + 256 * 8], eax
        lea eax, [ebx + 0x2003]
        xor ecx, ecx
    2:  mov [ebx + 0x1000 + ecx * 8], eax
        add eax, 0x1000
        inc ecx
        cmp ecx, 4
        jb 2b
        mov eax, 0x83
        xor ecx, ecx
    3:  mov [ebx + 0x2000 + ecx * 8], eax
        add eax, 0x200000
        inc ecx
        cmp ecx, 2048
        jb 3b

        mov cr3, ebx
        /* PAE, OSFXSR, OSXMMEXCPT */
        mov eax, cr4
        or eax, 0x620
        mov cr4, eax
        /* Long mode, no-execute */
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x900
        wrmsr
        /* Paging, write protection, FPU present and not emulated */
        mov eax, cr0
        and eax, 0xfffffff3
        or eax, 0x80010023
        mov cr0, eax
        lgdt [boot_gdt_pointer]
        push 8
        lea eax, [boot_long_mode]
        push eax
        retf

    .code64
    boot_long_mode:
        mov eax, 16
        mov ds, eax
        mov es, eax
        mov ss, eax
        xor eax, eax
        mov fs, eax
        mov gs, eax
        pop rdx
        mov edi, edi
        mov esi, esi
        xor ebp, ebp
        lea rsp, [boot_stack_top]
        call {main}
        ud2
    "#,
    stack_bytes = const BOOT_STACK_BYTES,
    pvh = const PROTOCOL_PVH,
    multiboot2 = const PROTOCOL_MULTIBOOT2,
    main = sym boot_main,
);
