//! The functions that compiled code calls without naming them: `memcpy`, `memmove`, `memset`, `memcmp`,
//! `bcmp`, `strlen`; and the two symbols of the unwinder that core and alloc refer to but never reach with
//! `panic = "abort"`.
//!
//! Linked into the kernel and every domain image. Written in assembly with 16-byte SSE moves, since a
//! compiler may turn a loop that copies into a call of the very function that contains it. Every size up to
//! 64 bytes is read whole before it is written, so `memcpy` and `memmove` share that code. Only a
//! freestanding image (`panic = "abort"`) gets them; a host program keeps its C library's. Link it with
//! `extern crate freestanding as _;`.

#![no_std]

#[cfg(panic = "abort")]
mod symbols {
    core::arch::global_asm!(
        r#"
        .section .text.memory, "ax", @progbits

        .global memcpy
        .type memcpy, @function
        .balign 32
        memcpy:
            mov rax, rdi
            cmp rdx, 64
            ja 9f
        .Lcopy_at_most_64:
            cmp rdx, 16
            jb 3f
            cmp rdx, 32
            ja 2f
            movups xmm0, [rsi]
            movups xmm1, [rsi + rdx - 16]
            movups [rdi], xmm0
            movups [rdi + rdx - 16], xmm1
            ret
        2:  movups xmm0, [rsi]
            movups xmm1, [rsi + 16]
            movups xmm2, [rsi + rdx - 32]
            movups xmm3, [rsi + rdx - 16]
            movups [rdi], xmm0
            movups [rdi + 16], xmm1
            movups [rdi + rdx - 32], xmm2
            movups [rdi + rdx - 16], xmm3
            ret
        3:  cmp edx, 8
            jb 4f
            mov rcx, [rsi]
            mov r8, [rsi + rdx - 8]
            mov [rdi], rcx
            mov [rdi + rdx - 8], r8
            ret
        4:  cmp edx, 4
            jb 5f
            mov ecx, [rsi]
            mov r8d, [rsi + rdx - 4]
            mov [rdi], ecx
            mov [rdi + rdx - 4], r8d
            ret
        5:  test edx, edx
            je 6f
            movzx ecx, byte ptr [rsi]
            movzx r8d, byte ptr [rsi + rdx - 1]
            mov r10, rdx
            shr r10, 1
            movzx r9d, byte ptr [rsi + r10]
            mov [rdi], cl
            mov [rdi + r10], r9b
            mov [rdi + rdx - 1], r8b
        6:  ret
            /* From some hundred bytes on the processor's own copying is as fast as any loop, and one instruction. */
        9:  cmp rdx, 256
            jb .Lcopy_forward
            mov r8, [rsi + rdx - 8]
            lea r9, [rdi + rdx - 8]
            mov rcx, rdx
            shr rcx, 3
            rep movsq
            mov [r9], r8
            ret
        .Lcopy_forward:
            movups xmm4, [rsi + rdx - 64]
            movups xmm5, [rsi + rdx - 48]
            movups xmm6, [rsi + rdx - 32]
            movups xmm7, [rsi + rdx - 16]
            lea rcx, [rdi + rdx - 64]
            .balign 16
        8:  movups xmm0, [rsi]
            movups xmm1, [rsi + 16]
            movups xmm2, [rsi + 32]
            movups xmm3, [rsi + 48]
            movups [rdi], xmm0
            movups [rdi + 16], xmm1
            movups [rdi + 32], xmm2
            movups [rdi + 48], xmm3
            add rsi, 64
            add rdi, 64
            cmp rdi, rcx
            jb 8b
            movups [rcx], xmm4
            movups [rcx + 16], xmm5
            movups [rcx + 32], xmm6
            movups [rcx + 48], xmm7
            ret

        .global memmove
        .type memmove, @function
        .balign 32
        memmove:
            mov rax, rdi
            cmp rdx, 64
            jbe .Lcopy_at_most_64
            mov rcx, rdi
            sub rcx, rsi
            cmp rcx, rdx
            jae .Lcopy_forward
            /* The destination starts inside the source: from the end downwards, the first 64 bytes read beforehand. */
            movups xmm4, [rsi]
            movups xmm5, [rsi + 16]
            movups xmm6, [rsi + 32]
            movups xmm7, [rsi + 48]
            .balign 16
        2:  movups xmm0, [rsi + rdx - 16]
            movups xmm1, [rsi + rdx - 32]
            movups xmm2, [rsi + rdx - 48]
            movups xmm3, [rsi + rdx - 64]
            movups [rdi + rdx - 16], xmm0
            movups [rdi + rdx - 32], xmm1
            movups [rdi + rdx - 48], xmm2
            movups [rdi + rdx - 64], xmm3
            sub rdx, 64
            cmp rdx, 64
            ja 2b
            movups [rdi], xmm4
            movups [rdi + 16], xmm5
            movups [rdi + 32], xmm6
            movups [rdi + 48], xmm7
            ret

        .global memset
        .type memset, @function
        .balign 32
        memset:
            mov rax, rdi
            movzx esi, sil
            mov rcx, 0x0101010101010101
            imul rsi, rcx
            cmp rdx, 16
            jb 4f
            movq xmm0, rsi
            punpcklqdq xmm0, xmm0
            lea rcx, [rdi + rdx - 16]
            cmp rdx, 64
            jbe 3f
            lea r8, [rdi + rdx - 64]
            .balign 16
        2:  movups [rdi], xmm0
            movups [rdi + 16], xmm0
            movups [rdi + 32], xmm0
            movups [rdi + 48], xmm0
            add rdi, 64
            cmp rdi, r8
            jb 2b
            movups [r8], xmm0
            movups [r8 + 16], xmm0
            movups [r8 + 32], xmm0
            movups [r8 + 48], xmm0
            ret
        3:  movups [rdi], xmm0
            movups [rcx], xmm0
            cmp rdx, 32
            jbe 9f
            movups [rdi + 16], xmm0
            movups [rcx - 16], xmm0
            ret
        4:  cmp edx, 8
            jb 5f
            mov [rdi], rsi
            mov [rdi + rdx - 8], rsi
            ret
        5:  cmp edx, 4
            jb 6f
            mov [rdi], esi
            mov [rdi + rdx - 4], esi
            ret
        6:  test edx, edx
            je 9f
            mov [rdi], sil
            mov [rdi + rdx - 1], sil
            shr edx, 1
            mov [rdi + rdx], sil
        9:  ret

        .global memcmp
        .type memcmp, @function
        .global bcmp
        .type bcmp, @function
        .balign 32
        memcmp:
        bcmp:
            cmp rdx, 16
            jb 4f
            xor ecx, ecx
            lea r8, [rdx - 16]
        2:  movups xmm0, [rdi + rcx]
            movups xmm1, [rsi + rcx]
            pcmpeqb xmm0, xmm1
            pmovmskb eax, xmm0
            xor eax, 0xffff
            jne 3f
            cmp rcx, r8
            jae 9f
            add rcx, 16
            cmp rcx, r8
            cmova rcx, r8
            jmp 2b
        3:  bsf eax, eax
            add rcx, rax
            movzx eax, byte ptr [rdi + rcx]
            movzx edx, byte ptr [rsi + rcx]
            sub eax, edx
            ret
        4:  xor ecx, ecx
        5:  cmp rcx, rdx
            jae 8f
            movzx eax, byte ptr [rdi + rcx]
            movzx r8d, byte ptr [rsi + rcx]
            inc rcx
            sub eax, r8d
            je 5b
            ret
        8:  xor eax, eax
        9:  ret

        .global strlen
        .type strlen, @function
        strlen:
            lea rax, [rdi - 1]
        2:  inc rax
            cmp byte ptr [rax], 0
            jne 2b
            sub rax, rdi
            ret

        .global rust_eh_personality
        .global _Unwind_Resume
        rust_eh_personality:
        _Unwind_Resume:
            ud2
        "#
    );
}
