//! The compiled filter against a naive interpreter of the rules, for every system call.

use orlop_sys::syscalls::{SYSCALLS, number};
use proptest::prelude::*;

use super::super::profile::{built_in, from_spec};
use super::*;
use crate::capabilities::Sets;

/// Runs a program as the kernel does.
fn run(program: &[Instruction], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(nr.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let (mut at, mut a) = (0, 0u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            LOAD => a = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
            AND => a &= k,
            JUMP => at += k as usize,
            IF_EQUAL => at += jump(a == k),
            IF_GREATER => at += jump(a > k),
            IF_AT_LEAST => at += jump(a >= k),
            RETURN => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What the rules say, one after another.
fn expected(profile: &Profile, nr: u32, args: [u64; 6]) -> u32 {
    let holds = |condition: &Condition| {
        let arg = args[condition.argument as usize];
        match condition.comparison {
            Comparison::Equal => arg == condition.value,
            Comparison::NotEqual => arg != condition.value,
            Comparison::Less => arg < condition.value,
            Comparison::AtMost => arg <= condition.value,
            Comparison::Greater => arg > condition.value,
            Comparison::AtLeast => arg >= condition.value,
            Comparison::Masked(mask) => arg & mask == condition.value,
        }
    };
    match profile.rules.get(&nr) {
        None => profile.otherwise(nr),
        Some(Rules::Always(action)) => *action,
        Some(Rules::Conditional(rules)) => rules
            .iter()
            .find(|(conditions, _)| conditions.iter().all(holds))
            .map_or(profile.otherwise(nr), |rule| rule.1),
    }
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

fn floor() -> Profile {
    built_in(&Sets::from_spec(None))
}

#[test]
fn every_system_call_is_answered_as_the_rules_say() {
    let profile = floor();
    let program = compile(&profile).unwrap();
    for nr in 0..2000 {
        for first in [
            0,
            1,
            8,
            12,
            16,
            38,
            40,
            0x2000_0000,
            0x1_0000_0000,
            u64::MAX,
        ] {
            let args = [first, 0, 0, 0, 0, 0];
            assert_eq!(
                run(&program, AUDIT_ARCH, nr, args),
                expected(&profile, nr, args),
                "{nr} {first:#x}"
            );
        }
    }
    assert!(program.len() < 400, "{}", program.len());
}

/// The floor as a table: what each system call answers without capabilities and with all of them.
/// `ORLOP_REGENERATE=1` writes it anew.
#[test]
fn c18_every_system_call_answers_as_the_table_says() {
    let all = r#"{"bounding":["CAP_SYS_ADMIN","CAP_SYS_PTRACE","CAP_BPF","CAP_PERFMON","CAP_SYS_TIME",
        "CAP_SYS_MODULE","CAP_SYS_BOOT","CAP_SYS_CHROOT","CAP_SYS_PACCT","CAP_SYS_RAWIO","CAP_SYSLOG",
        "CAP_SYS_TTY_CONFIG","CAP_SYS_NICE","CAP_DAC_READ_SEARCH"]}"#;
    let all = Sets::from_spec(Some(&serde_json::from_str(all).unwrap()));
    let (none, all) = (
        compile(&floor()).unwrap(),
        compile(&built_in(&all)).unwrap(),
    );
    // An argument that no rule lets through, so that what is conditional shows as denied.
    let ask = |program: &[Instruction], nr| match run(program, AUDIT_ARCH, nr, [0x7e02_002e; 6]) {
        ALLOW => "allowed",
        EPERM => "EPERM",
        ENOSYS => "ENOSYS",
        other => panic!("{other:#x}"),
    };
    let line =
        |(name, nr): &(&str, u32)| format!("{name} {} {}\n", ask(&none, *nr), ask(&all, *nr));
    let table: String = SYSCALLS.iter().map(line).collect();
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/seccomp/compile/floor-x86_64.txt"
    );
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    if std::env::var_os("ORLOP_REGENERATE").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    assert!(table == std::fs::read_to_string(path).unwrap(), "{table}");
}

#[test]
fn c18_socket_families_beyond_the_floor_are_denied() {
    let program = compile(&floor()).unwrap();
    let socket = number("socket").unwrap();
    let ask = |family| run(&program, AUDIT_ARCH, socket, [family, 0, 0, 0, 0, 0]);
    for family in [38, 40, 12, 19, 20, 46, 0x1_0000_0002] {
        assert_eq!(ask(family), EPERM, "{family}");
    }
    for family in [1, 2, 10, 16, 17] {
        assert_eq!(ask(family), ALLOW, "{family}");
    }
}

#[test]
fn other_architectures_and_x32_are_refused() {
    let program = compile(&floor()).unwrap();
    let i386 = 0x4000_0003;
    assert_eq!(run(&program, i386, 102, [0; 6]), ENOSYS); // socketcall
    assert_eq!(run(&program, AUDIT_ARCH, 0x4000_0000, [0; 6]), ENOSYS);
}

#[test]
fn dangerous_calls_are_denied_and_new_ones_unknown() {
    let program = compile(&floor()).unwrap();
    let ask = |name| run(&program, AUDIT_ARCH, number(name).unwrap(), [0; 6]);
    for name in [
        "io_uring_setup",
        "add_key",
        "keyctl",
        "userfaultfd",
        "bpf",
        "kexec_load",
        "mount",
        "unshare",
        "setns",
        "perf_event_open",
        "chroot",
        "open_by_handle_at",
    ] {
        assert_eq!(ask(name), EPERM, "{name}");
    }
    assert_eq!(ask("clone3"), ENOSYS);
    assert_eq!(run(&program, AUDIT_ARCH, 1500, [0; 6]), ENOSYS);
    let clone = number("clone").unwrap();
    let new_user = run(&program, AUDIT_ARCH, clone, [0x1000_0000, 0, 0, 0, 0, 0]);
    assert_eq!(new_user, EPERM);
}

#[test]
fn a_capability_opens_its_calls() {
    let spec = r#"{"bounding":["CAP_SYS_ADMIN","CAP_SYS_CHROOT"]}"#;
    let sets = Sets::from_spec(Some(&serde_json::from_str(spec).unwrap()));
    let program = compile(&built_in(&sets)).unwrap();
    for name in ["mount", "clone3", "chroot"] {
        assert_eq!(
            run(&program, AUDIT_ARCH, number(name).unwrap(), [0; 6]),
            ALLOW,
            "{name}"
        );
    }
}

#[test]
fn c17_an_unusable_profile_is_an_error() {
    let parse = |text: &str| serde_json::from_str::<oci_spec::runtime::LinuxSeccomp>(text);
    assert!(parse("{}").is_err());
    assert!(parse(r#"{"defaultAction":"SCMP_ACT_NONSENSE"}"#).is_err());
    let wrong = parse(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).unwrap();
    assert!(from_spec(&wrong).is_err());
    let wrong = parse(r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_S390X"]}"#);
    assert!(from_spec(&wrong.unwrap()).is_err());
}

proptest! {
    #[test]
    fn any_profile_compiles_to_what_it_says(
        rules in proptest::collection::vec(
            (0usize..SYSCALLS.len(), 0usize..6, 0u64..4, 0u8..7, any::<bool>()), 0..60),
        probes in proptest::collection::vec((0u32..480, any::<[u64; 6]>(), 0u64..4), 50),
    ) {
        let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
        let syscalls: Vec<String> = rules.iter().map(|&(name, index, value, operator, high)| {
            let value = if high { value << 32 | 1 } else { value };
            format!(
                r#"{{"names":["{}"],"action":"SCMP_ACT_ALLOW","args":
                    [{{"index":{index},"value":{value},"valueTwo":{value},"op":"SCMP_CMP_{}"}}]}}"#,
                SYSCALLS[name].0, operators[usize::from(operator)])
        }).collect();
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, syscalls.join(","));
        let profile = from_spec(&serde_json::from_str(&text).unwrap()).unwrap();
        let program = compile(&profile).unwrap();
        for (nr, args, small) in probes {
            for args in [args, [small; 6], [small << 32 | 1; 6]] {
                prop_assert_eq!(
                    run(&program, AUDIT_ARCH, nr, args), expected(&profile, nr, args));
            }
        }
    }
}
