//! Extended BPF programs for the device control of v2 cgroups.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::checked;

/// One instruction, `struct bpf_insn`: `registers` is the source (high) and destination (low) nibble.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// Source and destination register.
    pub registers: u8,
    /// Offset of a load or a jump.
    pub offset: i16,
    /// Operand.
    pub immediate: i32,
}

const CGROUP_DEVICE: u32 = 6; // BPF_CGROUP_DEVICE
const ALLOW_MULTI: u32 = 2; // BPF_F_ALLOW_MULTI

#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a program of the type `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let load = Load {
        program_type: 15,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let (command, size) = (5, size_of::<Load>()); // BPF_PROG_LOAD
    // SAFETY: all pointers in `load` outlive the call; the kernel verifies the program.
    let fd = checked(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const load, size) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to a v2 cgroup, whose life it then shares.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attach = Attach {
        target: u32::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?,
        program: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    let (command, size) = (8, size_of::<Attach>()); // BPF_PROG_ATTACH
    // SAFETY: `attach` outlives the call, and both descriptors are open.
    checked(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attach, size) }).map(drop)
}
