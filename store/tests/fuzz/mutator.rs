//! Changes to bytes, the same ones for the same seed: a search that needs no compiler of its own and
//! repeats itself. (`bolero` would need one more crate and a harness to do no more on stable.)

use crate::smith::seal;

const BLOCK: usize = 512;
const MAGIC: [&[u8]; 14] = [
    b"\0",
    b"\xff",
    b"\x80",
    b"7777777",
    b"99999999999999999999",
    b"-1",
    b"../",
    b"/",
    b".wh.",
    b"\n",
    b"=",
    b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"{}",
    b"null",
];

pub(crate) struct Mutator(u64);

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Up to a number, by xorshift.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }

    /// One of the seeds, changed in a few places. With `sealed`, blocks that look like headers of tar
    /// get their checksum again, which would otherwise end every search.
    pub(crate) fn next(&mut self, seeds: &[Vec<u8>], sealed: bool) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut input, seeds);
        }
        if sealed && self.below(8) > 0 {
            for block in input.chunks_exact_mut(BLOCK) {
                if block[257..262] == *b"ustar" {
                    seal(block.try_into().unwrap());
                }
            }
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len()).max(at);
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = u8::try_from(self.below(256)).unwrap(),
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            4 => {
                let magic = MAGIC[self.below(MAGIC.len())];
                input.splice(at..at, magic.iter().copied());
            }
            5 => {
                let magic = MAGIC[self.below(MAGIC.len())];
                let end = (at + magic.len()).min(input.len());
                input.splice(at..end, magic.iter().copied());
            }
            6 => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len() + 1) / BLOCK * BLOCK;
                let at = at / BLOCK * BLOCK;
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(at),
        }
    }
}
