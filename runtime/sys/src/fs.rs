//! `EXT4_IOC_SHUTDOWN`, which ends a file system as a loss of power would.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::checked;

/// `_IOR('X', 125, __u32)`, from the kernel's `fs/ext4/ext4.h`.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// What is not in the journal yet never gets there.
const NO_LOG_FLUSH: u32 = 2;

/// Ends the ext4 file system that `file` is on: what was not synced is lost, and every later operation
/// on it fails. For tests of what survives; needs `CAP_SYS_ADMIN`.
pub fn cut_power(file: BorrowedFd<'_>) -> io::Result<()> {
    let flag = NO_LOG_FLUSH;
    // SAFETY: the kernel reads one `u32` at the pointer, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_SHUTDOWN as _, &raw const flag) };
    checked(result.into()).map(drop)
}
