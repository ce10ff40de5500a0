//! Device rules as text for v1 cgroups, and as a BPF program for v2 ones.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use orlop_sys::bpf::{Instruction, attach_device_program, load_device_program};

/// `BPF_DEVCG_DEV_*` and `BPF_DEVCG_ACC_*` of `linux/bpf.h`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// A rule as `devices.allow` and `devices.deny` take it.
pub(crate) fn line(rule: &LinuxDeviceCgroup) -> String {
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => "b",
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => "c",
        _ => "a",
    };
    let number = |value: Option<i64>| match value {
        Some(value) if value >= 0 => value.to_string(),
        _ => "*".to_owned(),
    };
    let access = rule.access().as_deref().unwrap_or("rwm");
    format!(
        "{kind} {}:{} {access}",
        number(rule.major()),
        number(rule.minor())
    )
}

/// Attaches the rules to a v2 cgroup.
pub(crate) fn attach(cgroup: &Path, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    let cgroup = File::open(cgroup)?;
    let program = load_device_program(&compile(rules))?;
    attach_device_program(cgroup.as_fd(), program.as_fd())
}

/// The last rule that fits decides, as in v1; without one the access is denied. Registers: 2 kind,
/// 3 access, 4 major, 5 minor, 6 scratch, 0 result.
fn compile(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    let mut program = vec![
        load(2, 1, 0), // access << 16 | kind
        copy(3, 2),
        immediate(0x57, 2, 0xffff), // r2 &= 0xffff
        immediate(0x77, 3, 16),     // r3 >>= 16
        load(4, 1, 4),
        load(5, 1, 8),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
    }
    program.extend([immediate(0xb7, 0, 0), exit()]);
    program
}

/// Returns the rule's answer, or goes on behind itself.
fn block(rule: &LinuxDeviceCgroup) -> Vec<Instruction> {
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => Some(BLOCK),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHARACTER),
        _ => None,
    };
    let access = rule.access().as_deref().unwrap_or("rwm");
    let bit = |letter, bit| if access.contains(letter) { bit } else { 0 };
    let access = bit('m', MKNOD) | bit('r', READ) | bit('w', WRITE);
    let number = |value: Option<i64>| {
        value
            .and_then(|value| i32::try_from(value).ok())
            .filter(|v| *v >= 0)
    };
    let mut tests = vec![];
    tests.extend(kind.map(|kind| vec![(2, kind)]).unwrap_or_default());
    tests.extend(number(rule.major()).map(|major| (4, major)));
    tests.extend(number(rule.minor()).map(|minor| (5, minor)));
    // An allowing rule fits if it covers all of the access, a denying one if it covers any.
    let (jump, expected) = if rule.allow() { (0x55, 0) } else { (0x15, 0) };
    let scratch = if rule.allow() { !access } else { access };
    let mut program = vec![
        copy(6, 3),
        immediate(0x57, 6, scratch),
        skip_if(jump, 6, expected),
    ];
    program.extend(
        tests
            .into_iter()
            .map(|(register, value)| skip_if(0x55, register, value)),
    );
    program.extend([immediate(0xb7, 0, i32::from(rule.allow())), exit()]);
    let length = program.len();
    for (at, instruction) in program.iter_mut().enumerate() {
        if matches!(instruction.code, 0x15 | 0x55) {
            instruction.offset = i16::try_from(length - at - 1).unwrap_or(i16::MAX);
        }
    }
    program
}

fn load(to: u8, from: u8, offset: i16) -> Instruction {
    Instruction {
        code: 0x61,
        registers: from << 4 | to,
        offset,
        immediate: 0,
    }
}

fn copy(to: u8, from: u8) -> Instruction {
    Instruction {
        code: 0xbf,
        registers: from << 4 | to,
        offset: 0,
        immediate: 0,
    }
}

fn immediate(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: register,
        offset: 0,
        immediate,
    }
}

fn skip_if(code: u8, register: u8, value: i32) -> Instruction {
    Instruction {
        code,
        registers: register,
        offset: 0,
        immediate: value,
    }
}

fn exit() -> Instruction {
    Instruction {
        code: 0x95,
        registers: 0,
        offset: 0,
        immediate: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_the_kernel_reads_them() {
        let rule = |text| serde_json::from_str::<LinuxDeviceCgroup>(text).unwrap();
        assert_eq!(
            line(&rule(r#"{"allow":false,"access":"rwm"}"#)),
            "a *:* rwm"
        );
        let null = r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}"#;
        assert_eq!(line(&rule(null)), "c 1:3 rw");
    }

    #[test]
    fn b24_the_program_is_accepted_by_the_kernel() {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(
            r#"[{"allow":false,"access":"rwm"},
                {"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},
                {"allow":true,"type":"c","major":136,"access":"rw"}]"#,
        )
        .unwrap();
        load_device_program(&compile(&rules)).unwrap();
        let all: LinuxDeviceCgroup =
            serde_json::from_str(r#"{"allow":true,"type":"a","access":"rwm"}"#).unwrap();
        assert_eq!(line(&all), "a *:* rwm");
        load_device_program(&compile(&[all])).unwrap();
    }
}
