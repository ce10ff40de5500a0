//! From rules to a BPF program: a binary search over the numbers of the system calls.
//!
//! The kernel runs the filter once per system call and, when it is loaded, once per known system
//! call to learn which need not be asked about again; both costs grow with the way to an answer,
//! which is some nine comparisons here where a list of rules needs hundreds.

use orlop_sys::seccomp::Instruction;
use orlop_sys::syscalls::AUDIT_ARCH;

use super::profile::{Comparison, Condition, Profile, Rules};
use crate::error::{Error, Result};

/// Instructions of one program, `BPF_MAXINSNS`.
const LENGTH_MAX: usize = 4096;
/// The mark of x32 system calls in the number of an x86-64 one.
const X32: u32 = 0x4000_0000;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// A stretch of numbers with the same answer, up to the next stretch.
struct Stretch<'a> {
    first: u32,
    answer: Answer<'a>,
}

#[derive(Clone, Copy)]
enum Answer<'a> {
    Always(u32),
    Asks(&'a Rules, u32),
}

impl Answer<'_> {
    fn is(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Always(a), Self::Always(b)) if a == b)
    }
}

/// Compiles a profile.
pub(super) fn compile(profile: &Profile) -> Result<Vec<Instruction>> {
    let stretches = stretches(profile);
    let mut program = vec![
        load(4), // seccomp_data.arch
        branch(IF_EQUAL, AUDIT_ARCH, 1, 0),
        ret(profile.foreign),
        load(0), // seccomp_data.nr
        branch(IF_AT_LEAST, X32, 0, 1),
        ret(profile.foreign),
    ];
    program.extend(search(&stretches)?);
    if program.len() > LENGTH_MAX {
        return Err(Error::SeccompProfile(format!(
            "{} instructions",
            program.len()
        )));
    }
    Ok(program)
}

fn stretches(profile: &Profile) -> Vec<Stretch<'_>> {
    let mut all: Vec<Stretch<'_>> = Vec::new();
    for first in 0..=profile.last() + 1 {
        let otherwise = profile.otherwise(first);
        let answer = match profile.rules.get(&first) {
            None => Answer::Always(otherwise),
            Some(Rules::Always(action)) => Answer::Always(*action),
            Some(rules) => Answer::Asks(rules, otherwise),
        };
        if all.last().is_none_or(|before| !before.answer.is(&answer)) {
            all.push(Stretch { first, answer });
        }
    }
    all
}

fn search(stretches: &[Stretch<'_>]) -> Result<Vec<Instruction>> {
    let [only] = stretches else {
        let (low, high) = stretches.split_at(stretches.len() / 2);
        let Some(first) = high.first() else {
            return Err(Error::SeccompProfile("no system call at all".to_owned()));
        };
        let (number, low, high) = (first.first, search(low)?, search(high)?);
        let mut program = jump_if(IF_AT_LEAST, number, low.len());
        program.extend(low);
        program.extend(high);
        return Ok(program);
    };
    match only.answer {
        Answer::Always(action) => Ok(vec![ret(action)]),
        Answer::Asks(rules, otherwise) => leaf(rules, otherwise),
    }
}

/// Skips `distance` instructions if the comparison holds; conditional jumps alone reach only 255.
fn jump_if(code: u16, k: u32, distance: usize) -> Vec<Instruction> {
    match u8::try_from(distance) {
        Ok(short) => vec![branch(code, k, short, 0)],
        Err(_) => {
            let far = u32::try_from(distance).unwrap_or(u32::MAX);
            vec![
                branch(code, k, 0, 1),
                Instruction {
                    code: JUMP,
                    jt: 0,
                    jf: 0,
                    k: far,
                },
            ]
        }
    }
}

/// The rules of one system call, in order; the first whose conditions all hold decides.
fn leaf(rules: &Rules, otherwise: u32) -> Result<Vec<Instruction>> {
    let mut program = Vec::new();
    if let Rules::Conditional(rules) = rules {
        for (conditions, action) in rules {
            let mut block = vec![ret(*action)];
            for condition in conditions.iter().rev() {
                let mut longer = check(condition, block.len())?;
                longer.extend(block);
                block = longer;
            }
            program.extend(block);
        }
    }
    program.push(ret(otherwise));
    Ok(program)
}

/// Falls through if the condition holds, skips itself and `rest` more instructions if not.
fn check(condition: &Condition, rest: usize) -> Result<Vec<Instruction>> {
    let low = 16 + 8 * condition.argument;
    let (high_value, low_value) = halves(condition.value);
    let rest = u8::try_from(rest).unwrap_or(u8::MAX);
    let skip = |more: u8| {
        let long = || Error::SeccompProfile("too many conditions for one system call".to_owned());
        rest.checked_add(more).ok_or_else(long)
    };
    let beyond = |low_code| -> Result<Vec<Instruction>> {
        // high > value: holds; high < value: fails; equal: the low half decides.
        Ok(vec![
            load(low + 4),
            branch(IF_GREATER, high_value, 3, 0),
            branch(IF_EQUAL, high_value, 0, skip(2)?),
            load(low),
            branch(low_code, low_value, 0, skip(0)?),
        ])
    };
    let not_beyond = |low_code| -> Result<Vec<Instruction>> {
        Ok(vec![
            load(low + 4),
            branch(IF_GREATER, high_value, skip(3)?, 0),
            branch(IF_EQUAL, high_value, 0, 2),
            load(low),
            branch(low_code, low_value, skip(0)?, 0),
        ])
    };
    Ok(match condition.comparison {
        Comparison::Equal => vec![
            load(low + 4),
            branch(IF_EQUAL, high_value, 0, skip(2)?),
            load(low),
            branch(IF_EQUAL, low_value, 0, skip(0)?),
        ],
        Comparison::NotEqual => vec![
            load(low + 4),
            branch(IF_EQUAL, high_value, 0, 2),
            load(low),
            branch(IF_EQUAL, low_value, skip(0)?, 0),
        ],
        Comparison::Masked(mask) => {
            let (high_mask, low_mask) = halves(mask);
            let and = |k| Instruction {
                code: AND,
                jt: 0,
                jf: 0,
                k,
            };
            vec![
                load(low + 4),
                and(high_mask),
                branch(IF_EQUAL, high_value, 0, skip(3)?),
                load(low),
                and(low_mask),
                branch(IF_EQUAL, low_value, 0, skip(0)?),
            ]
        }
        Comparison::Greater => beyond(IF_GREATER)?,
        Comparison::AtLeast => beyond(IF_AT_LEAST)?,
        Comparison::AtMost => not_beyond(IF_GREATER)?,
        Comparison::Less => not_beyond(IF_AT_LEAST)?,
    })
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([e, f, g, h]),
        u32::from_le_bytes([a, b, c, d]),
    )
}

fn load(offset: u32) -> Instruction {
    Instruction {
        code: LOAD,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn ret(action: u32) -> Instruction {
    Instruction {
        code: RETURN,
        jt: 0,
        jf: 0,
        k: action,
    }
}

#[cfg(test)]
#[path = "compile/tests.rs"]
mod tests;
