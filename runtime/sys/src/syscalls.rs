//! Names and numbers of the system calls, from the kernel's `unistd_64.h` and `asm-generic/unistd.h`
//! up to Linux 6.18.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub use aarch64::SYSCALLS;
#[cfg(target_arch = "x86_64")]
pub use x86_64::SYSCALLS;

/// The architecture's mark in `struct seccomp_data` (`AUDIT_ARCH_*`).
#[cfg(target_arch = "x86_64")]
pub const AUDIT_ARCH: u32 = 0xc000_003e;
/// The architecture's mark in `struct seccomp_data` (`AUDIT_ARCH_*`).
#[cfg(target_arch = "aarch64")]
pub const AUDIT_ARCH: u32 = 0xc000_00b7;

/// The number of a system call, if this architecture has it.
pub fn number(name: &str) -> Option<u32> {
    let known = |entry: &&(&str, u32)| entry.0 == name;
    SYSCALLS.iter().find(known).map(|entry| entry.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_are_those_of_libc() {
        assert!(SYSCALLS.windows(2).all(|pair| pair[0].1 < pair[1].1));
        for (name, expected) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("newfstatat", libc::SYS_newfstatat),
            ("fadvise64", libc::SYS_fadvise64),
            ("futex_waitv", libc::SYS_futex_waitv),
            ("fchmodat2", libc::SYS_fchmodat2),
        ] {
            assert_eq!(number(name).map(i64::from), Some(expected), "{name}");
        }
        assert_eq!(number("nosuch"), None);
    }
}
