//! The packet filter's own netlink messages (`include/uapi/linux/netfilter/nf_tables.h`): a batch of
//! changes that the kernel makes all at once or not at all. No `nft` program, no library.

pub(crate) mod expression;

use std::io;

use rustix::net::netlink;

use self::expression::Expression;
use super::family::Family;
use super::netlink::{
    Answer, Message, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, Notice, Socket,
};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
const GET_RULE: u16 = 7;
/// What takes from a table: tables, chains, rules, sets.
const DELETIONS: [u16; 4] = [DELETE_TABLE, 5, 8, 11];
/// `NFNLGRP_NFTABLES`, as a bit.
pub(crate) const CHANGES: u32 = 1 << 6;
/// `struct nfgenmsg`.
const NFGENMSG_BYTES: usize = 4;
const TABLE_NAME: u16 = 1;

const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const SET_IS_MAP: u32 = 8;
/// What `nft` packs each of the types of a concatenation into.
const TYPE_BITS: u32 = 6;

/// Where a chain is called from: `enum nf_inet_hooks`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    Prerouting = 0,
    #[cfg(test)]
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ChainType {
    Filter,
    Nat,
}

/// The types of map keys and values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FieldType {
    Address(Family),
    Protocol,
    Port,
}

/// A map from a concatenation to a concatenation.
#[derive(Debug)]
pub(crate) struct Map<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: Vec<FieldType>,
    pub(crate) value: Vec<FieldType>,
}

/// One entry of a map: fields, each padded to 4 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Changes to one table, and to others of the same name, made all at once.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    table: &'a str,
    family: Family,
    messages: Vec<Message>,
}

impl<'a> Batch<'a> {
    /// No changes yet; those to come are to the table of family `ip`.
    pub(crate) fn new(table: &'a str) -> Self {
        Self {
            table,
            family: Family::V4,
            messages: Vec::new(),
        }
    }

    /// Changes to come are to the table of this family.
    pub(crate) fn of(self, family: Family) -> Self {
        Self { family, ..self }
    }

    /// Makes the table, if it is not there.
    pub(crate) fn add_table(self) -> Self {
        let table = self.table;
        self.push(NEW_TABLE, NLM_F_CREATE, |m| m.text(1, table).be32(2, 0))
    }

    /// Removes the table and all in it.
    pub(crate) fn delete_table(self) -> Self {
        let table = self.table;
        self.push(DELETE_TABLE, 0, |m| m.text(1, table))
    }

    /// Adds a chain that a hook calls; what no rule decides is accepted.
    pub(crate) fn add_base_chain(
        self,
        name: &str,
        kind: ChainType,
        hook: Hook,
        priority: i32,
    ) -> Self {
        let table = self.table;
        let kind = match kind {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        self.push(NEW_CHAIN, NLM_F_CREATE, |m| {
            m.text(1, table)
                .text(3, name)
                .nest(4, |m| {
                    m.be32(1, hook as u32).attribute(2, &priority.to_be_bytes())
                })
                .text(7, kind)
        })
    }

    /// Adds a chain that other chains jump to.
    pub(crate) fn add_chain(self, name: &str) -> Self {
        let table = self.table;
        self.push(NEW_CHAIN, NLM_F_CREATE, |m| m.text(1, table).text(3, name))
    }

    /// Adds a rule at the end of a chain.
    pub(crate) fn add_rule(self, chain: &str, expressions: &[Expression<'_>]) -> Self {
        let table = self.table;
        self.push(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, |m| {
            m.text(1, table)
                .text(2, chain)
                .nest_each(4, expressions, |m, expression| {
                    m.nest(LIST_ELEMENT, |m| expression.write(m))
                })
        })
    }

    /// Adds an empty map.
    pub(crate) fn add_map(self, map: &Map<'_>) -> Self {
        let table = self.table;
        let id = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        self.push(NEW_SET, NLM_F_CREATE, |m| {
            m.text(1, table)
                .text(2, map.name)
                .be32(3, SET_IS_MAP)
                .be32(4, concatenated(&map.key))
                .be32(5, length(&map.key))
                .be32(6, concatenated(&map.value))
                .be32(7, length(&map.value))
                .be32(10, id)
        })
    }

    /// Adds entries to a map. None is no change.
    pub(crate) fn add_entries(self, map: &str, entries: &[Entry]) -> Self {
        self.entries(NEW_ELEMENTS, NLM_F_CREATE, map, entries)
    }

    /// Removes entries from a map; the kernel refuses the batch if one is not there.
    pub(crate) fn delete_entries(self, map: &str, entries: &[Entry]) -> Self {
        self.entries(DELETE_ELEMENTS, 0, map, entries)
    }

    fn entries(self, kind: u16, flags: u16, map: &str, entries: &[Entry]) -> Self {
        /// An attribute's length is 16 bits; an entry takes less than 64 bytes.
        const PER_MESSAGE: usize = 512;
        let table = self.table;
        entries.chunks(PER_MESSAGE).fold(self, |batch, chunk| {
            batch.push(kind, flags, |m| {
                m.text(1, table)
                    .text(2, map)
                    .nest_each(3, chunk, |m, entry| {
                        m.nest(LIST_ELEMENT, |m| {
                            let m = m.nest(1, |m| m.attribute(DATA_VALUE, &entry.key));
                            match kind {
                                NEW_ELEMENTS => {
                                    m.nest(2, |m| m.attribute(DATA_VALUE, &entry.value))
                                }
                                _ => m,
                            }
                        })
                    })
            })
        })
    }

    fn push(mut self, kind: u16, flags: u16, write: impl FnOnce(Message) -> Message) -> Self {
        let message = Message::new(SUBSYSTEM << 8 | kind, flags | NLM_F_ACK);
        self.messages
            .push(write(message.fixed(&[self.family as u8, 0, 0, 0])));
        self
    }

    /// The messages as they travel.
    pub(crate) fn finish(self) -> Vec<Message> {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        let frame = |kind| Message::new(kind, 0).fixed(&[0, 0, high, low]);
        let mut messages = vec![frame(BATCH_BEGIN)];
        messages.extend(self.messages);
        messages.push(frame(BATCH_END));
        messages
    }

    /// Makes the changes, in the network namespace of this thread. No changes is no error.
    pub(crate) fn commit(self) -> io::Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        Socket::open(Some(netlink::NETFILTER))?.request(self.finish())
    }
}

/// How many rules a table has; 0 for one that is not there.
pub(crate) fn count_rules(family: Family, table: &str) -> io::Result<usize> {
    let message = Message::new(SUBSYSTEM << 8 | GET_RULE, NLM_F_DUMP)
        .fixed(&[family as u8, 0, 0, 0])
        .text(TABLE_NAME, table);
    match Socket::open(Some(netlink::NETFILTER))?.dump(message) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        rules => Ok(rules?.iter().filter(|rule| is_of(rule, table)).count()),
    }
}

/// Whether the kernel says that something of this table is gone.
pub(crate) fn removes_from(notice: &Notice, table: &str) -> bool {
    let deletes = |kind: &u16| notice.kind == SUBSYSTEM << 8 | *kind;
    DELETIONS.iter().any(deletes) && is_of(&notice.body, table)
}

fn is_of(answer: &Answer, table: &str) -> bool {
    let name = answer.attribute(NFGENMSG_BYTES, TABLE_NAME);
    name.and_then(|name| name.strip_suffix(&[0])) == Some(table.as_bytes())
}

fn concatenated(fields: &[FieldType]) -> u32 {
    fields
        .iter()
        .fold(0, |packed, field| packed << TYPE_BITS | field.number())
}

fn length(fields: &[FieldType]) -> u32 {
    fields.iter().map(|field| field.registers() * 4).sum()
}

impl FieldType {
    /// What `nft` shows it by.
    fn number(self) -> u32 {
        match self {
            Self::Address(Family::V4) => 7,
            Self::Address(Family::V6) => 8,
            Self::Protocol => 12,
            Self::Port => 13,
        }
    }

    /// Of 4 bytes, that a value takes.
    pub(crate) fn registers(self) -> u32 {
        match self {
            Self::Address(Family::V6) => 4,
            Self::Address(Family::V4) | Self::Protocol | Self::Port => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(batch: Batch<'_>) -> Vec<u8> {
        let messages = batch.finish().into_iter().enumerate();
        messages
            .flat_map(|(sequence, message)| message.finish(u32::try_from(sequence).unwrap()))
            .collect()
    }

    #[test]
    fn a_batch_is_framed_for_the_subsystem() {
        let expected: Vec<u8> = [
            &[
                20, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
            ][..],
            &[28, 0, 0, 0, 2, 10, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0],
            &[6, 0, 1, 0, b't', 0, 0, 0],
            &[
                20, 0, 0, 0, 0x11, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
            ],
        ]
        .concat();
        assert_eq!(bytes(Batch::new("t").delete_table()), expected);
    }

    #[test]
    fn an_entry_is_key_and_value() {
        let entry = Entry {
            key: vec![6, 0, 0, 0, 0x1f, 0x90, 0, 0],
            value: vec![172, 18, 0, 2, 0, 80, 0, 0],
        };
        let all = bytes(Batch::new("t").add_entries("m", &[entry]));
        let expected: Vec<u8> = [
            &[6, 0, 1, 0, b't', 0, 0, 0][..], // table
            &[6, 0, 2, 0, b'm', 0, 0, 0],     // map
            &[40, 0, 3, 0x80],                // elements
            &[36, 0, 1, 0x80],                // element
            &[16, 0, 1, 0x80, 12, 0, 1, 0],   // key
            &[6, 0, 0, 0, 0x1f, 0x90, 0, 0],
            &[16, 0, 2, 0x80, 12, 0, 1, 0], // value
            &[172, 18, 0, 2, 0, 80, 0, 0],
        ]
        .concat();
        let start = 20 + 20;
        assert_eq!(&all[start..start + expected.len()], expected);
    }

    #[test]
    fn types_are_packed_as_nft_shows_them() {
        let key = [FieldType::Protocol, FieldType::Port];
        assert_eq!(concatenated(&key), 12 << 6 | 13);
        assert_eq!(length(&key), 8);
        assert_eq!(
            length(&[FieldType::Address(Family::V6), FieldType::Port]),
            20
        );
    }
}
