//! Loading of a seccomp filter.

use std::io;

use crate::checked;

/// One instruction of classic BPF, `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    length: u16,
    filter: *const Instruction,
}

/// Puts `filter` over the calling process for ever. Needs no-new-privileges or `CAP_SYS_ADMIN`.
pub fn load(filter: &[Instruction]) -> io::Result<()> {
    let program = Program {
        length: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr(),
    };
    let (set_mode_filter, flags) = (1u32, 0u32);
    // SAFETY: `program` points to `length` instructions that outlive the call; the kernel verifies them.
    checked(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            set_mode_filter,
            flags,
            &raw const program,
        )
    })
    .map(drop)
}
