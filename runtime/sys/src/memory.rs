//! What a process keeps resident without needing it.

use std::ffi::{c_int, c_void};

/// Gives pages of the heap that hold nothing back to the kernel. glibc keeps them, in several arenas if the
/// process has threads; other allocators do it of their own accord.
pub fn release_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointer is passed, and the allocator locks what it changes.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Memory from an address on: whole pages.
#[derive(Clone, Copy, Debug)]
struct Range {
    start: usize,
    length: usize,
}

/// Pages of the program and its libraries that nobody can have written.
#[derive(Debug)]
pub struct Code(Vec<Range>);

impl Code {
    /// Of all objects that are loaded now. They stay: only `dlclose` unloads, which is unsafe to call.
    pub fn loaded() -> Self {
        let mut ranges = Vec::new();
        let found = (&raw mut ranges).cast::<c_void>();
        // SAFETY: `add_object` gets `found` and nothing else as its data, which outlive the call.
        unsafe { libc::dl_iterate_phdr(Some(add_object), found) };
        Self(ranges)
    }

    /// Forgets the pages: the kernel takes each from its file again when it is used.
    pub fn release(&self) {
        for range in &self.0 {
            let start = std::ptr::with_exposed_provenance_mut(range.start);
            // SAFETY: whole pages of a segment that is mapped from a file and was never writable
            // (relocated data are in others). What is read there later is what is there now.
            unsafe { libc::madvise(start, range.length, libc::MADV_DONTNEED) };
        }
    }
}

/// Called with each loaded object.
unsafe extern "C" fn add_object(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    ranges: *mut c_void,
) -> c_int {
    // SAFETY: `dl_iterate_phdr` passes a valid description for the time of the call.
    let info = unsafe { &*info };
    // SAFETY: the caller passes a vector that nobody else uses during the call.
    let ranges = unsafe { &mut *ranges.cast::<Vec<Range>>() };
    let count = usize::from(info.dlpi_phnum);
    // SAFETY: an object's headers are loaded with it, and it is not unloaded during the call.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, count) };
    ranges.extend(headers.iter().filter_map(|header| unwritten(info, header)));
    0
}

/// The whole pages of a segment that is not writable. A page at its edge may be another segment's as well.
fn unwritten(info: &libc::dl_phdr_info, header: &libc::Elf64_Phdr) -> Option<Range> {
    if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
        return None;
    }
    // SAFETY: no pointer is passed.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let begin = usize::try_from(info.dlpi_addr.wrapping_add(header.p_vaddr)).ok()?;
    let end = begin.checked_add(usize::try_from(header.p_filesz).ok()?)?;
    let (start, end) = (begin.next_multiple_of(page), end - end % page);
    let length = end.checked_sub(start).filter(|length| *length > 0)?;
    Some(Range { start, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of pages of files that this process has resident.
    fn of_files() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssFile:"));
        let number = line.unwrap().split_whitespace().next();
        number.unwrap().parse().unwrap()
    }

    #[test]
    fn code_is_forgotten_and_comes_back_when_it_is_used() {
        let code = Code::loaded();
        let before = of_files();
        code.release();
        let after = of_files();
        assert!(after < before, "{after} KiB of {before}");
        assert_eq!(format!("{:>5}", "back"), " back");
    }

    #[test]
    fn what_is_used_stays_when_what_is_freed_goes() {
        let pieces: Vec<Vec<u8>> = (0..64).map(|n| vec![n; 16 * 1024]).collect();
        let kept: Vec<Vec<u8>> = pieces.into_iter().step_by(8).collect();
        release_heap();
        let sum: usize = kept.iter().flatten().map(|byte| usize::from(*byte)).sum();
        assert_eq!(sum, (0..64).step_by(8).sum::<usize>() * 16 * 1024);
    }
}
