//! The expressions that our rules are made of. An expression reads or writes registers; one that does
//! not match ends its rule.

use crate::network::family::{Address, Family};
use crate::network::netlink::Message;
use crate::network::subnet::Subnet;

const NAME: u16 = 1;
const DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const INTERFACE_NAME_BYTES: usize = 16;

/// A 4-byte register: `NFT_REG32_00` and those after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register(u32);

/// The register that ends a rule when it is written to.
const VERDICT_REGISTER: u32 = 0;

impl Register {
    pub(crate) const R0: Self = Self(8);

    /// The one that many after this.
    pub(crate) fn after(self, registers: u32) -> Self {
        Self(self.0 + registers)
    }
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict<'a> {
    Accept,
    Drop,
    Goto(&'a str),
}

/// `enum nft_meta_keys`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meta {
    InputName = 6,
    OutputName = 7,
    Mark = 3,
    Transport = 16,
}

/// `enum nft_ct_keys`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Conntrack {
    State = 0,
    Status = 2,
    Mark = 3,
}

/// A part of the packet: base, offset, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field {
    SourceAddress(Family),
    DestinationAddress(Family),
    DestinationPort,
}

/// One expression.
#[derive(Clone, Debug)]
pub(crate) enum Expression<'a> {
    /// Loads something about the packet.
    Meta(Meta, Register),
    /// Loads a part of the packet.
    Payload(Field, Register),
    /// Loads something about the connection.
    Conntrack(Conntrack, Register),
    /// Changes something about the packet to what the register has.
    SetMeta(Meta, Register),
    /// Changes something about the connection.
    SetConntrack(Conntrack, Register),
    /// Loads these bytes.
    Value(Register, [u8; 4]),
    /// Loads what kind of address the destination is (`RTN_LOCAL`: the host's own).
    DestinationType(Register),
    /// Register and mask, into the register.
    Mask(Register, Vec<u8>),
    /// Goes on if the register begins with these bytes.
    Equal(Register, Vec<u8>),
    /// Goes on if it does not.
    NotEqual(Register, Vec<u8>),
    /// Looks the registers from `key` on up in a map, into those from `value` on; goes on if found.
    Lookup {
        map: &'a str,
        key: Register,
        value: Register,
    },
    /// Changes the destination to the address and the port in these registers.
    DestinationNat {
        family: Family,
        address: Register,
        port: Register,
    },
    /// Changes the source to the address of the interface that the packet leaves by.
    Masquerade,
    /// Ends the rule.
    Verdict(Verdict<'a>),
}

/// The bit of `ct state` for established and that for related connections.
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`.
const DESTINATION_CHANGED: u32 = 1 << 5;
const RTN_LOCAL: u32 = 2;

/// Expressions of a rule's condition: the packet came in by this interface.
pub(crate) fn input_is<'a>(name: &str) -> Vec<Expression<'a>> {
    let equal = Expression::Equal(Register::R0, interface(name));
    vec![Expression::Meta(Meta::InputName, Register::R0), equal]
}

/// The packet came in by another interface.
pub(crate) fn input_is_not<'a>(name: &str) -> Vec<Expression<'a>> {
    let differs = Expression::NotEqual(Register::R0, interface(name));
    vec![Expression::Meta(Meta::InputName, Register::R0), differs]
}

/// The packet leaves by this interface.
pub(crate) fn output_is<'a>(name: &str) -> Vec<Expression<'a>> {
    let equal = Expression::Equal(Register::R0, interface(name));
    vec![Expression::Meta(Meta::OutputName, Register::R0), equal]
}

/// The packet leaves by another interface.
pub(crate) fn output_is_not<'a>(name: &str) -> Vec<Expression<'a>> {
    let differs = Expression::NotEqual(Register::R0, interface(name));
    vec![Expression::Meta(Meta::OutputName, Register::R0), differs]
}

/// The packet comes from a subnet.
pub(crate) fn source_in<'a, A: Address>(subnet: Subnet<A>) -> Vec<Expression<'a>> {
    let mut rule = leading_bits(Field::SourceAddress(A::FAMILY), subnet);
    rule.push(Expression::Equal(Register::R0, subnet.network().bytes()));
    rule
}

/// The packet goes into a subnet.
pub(crate) fn destination_in<'a, A: Address>(subnet: Subnet<A>) -> Vec<Expression<'a>> {
    let mut rule = leading_bits(Field::DestinationAddress(A::FAMILY), subnet);
    rule.push(Expression::Equal(Register::R0, subnet.network().bytes()));
    rule
}

/// The packet goes elsewhere.
pub(crate) fn destination_not_in<'a, A: Address>(subnet: Subnet<A>) -> Vec<Expression<'a>> {
    let mut rule = leading_bits(Field::DestinationAddress(A::FAMILY), subnet);
    rule.push(Expression::NotEqual(Register::R0, subnet.network().bytes()));
    rule
}

fn leading_bits<'a, A: Address>(field: Field, subnet: Subnet<A>) -> Vec<Expression<'a>> {
    vec![
        Expression::Payload(field, Register::R0),
        Expression::Mask(Register::R0, subnet.mask().bytes()),
    ]
}

/// The packet is for an address of the host itself.
pub(crate) fn for_this_host<'a>() -> Vec<Expression<'a>> {
    vec![
        Expression::DestinationType(Register::R0),
        Expression::Equal(Register::R0, RTN_LOCAL.to_ne_bytes().to_vec()),
    ]
}

/// The packet belongs to a connection that was let through before.
pub(crate) fn established<'a>() -> Vec<Expression<'a>> {
    connection_has(Conntrack::State, ESTABLISHED_OR_RELATED)
}

/// The connection came through a published port.
pub(crate) fn published<'a>() -> Vec<Expression<'a>> {
    connection_has(Conntrack::Status, DESTINATION_CHANGED)
}

fn connection_has<'a>(key: Conntrack, bits: u32) -> Vec<Expression<'a>> {
    vec![
        Expression::Conntrack(key, Register::R0),
        Expression::Mask(Register::R0, bits.to_ne_bytes().to_vec()),
        Expression::NotEqual(Register::R0, vec![0; 4]),
    ]
}

fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME_BYTES, 0);
    bytes
}

/// Fields of a map's key or value, each padded to a register.
pub(crate) fn concatenation(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend_from_slice(field);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

impl Expression<'_> {
    /// Writes the expression's name and attributes.
    pub(crate) fn write(&self, message: Message) -> Message {
        message
            .text(NAME, self.name())
            .nest(DATA, |m| self.attributes(m))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta(..) | Self::SetMeta(..) => "meta",
            Self::Payload(..) => "payload",
            Self::Conntrack(..) | Self::SetConntrack(..) => "ct",
            Self::DestinationType(_) => "fib",
            Self::Mask(..) => "bitwise",
            Self::Equal(..) | Self::NotEqual(..) => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::DestinationNat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Verdict(_) | Self::Value(..) => "immediate",
        }
    }

    fn attributes(&self, m: Message) -> Message {
        match self {
            Self::Meta(key, to) => m.be32(1, to.0).be32(2, *key as u32),
            Self::Payload(field, to) => {
                let (base, offset, bytes) = field.place();
                m.be32(1, to.0).be32(2, base).be32(3, offset).be32(4, bytes)
            }
            Self::Conntrack(key, to) => m.be32(1, to.0).be32(2, *key as u32),
            Self::SetMeta(key, from) => m.be32(2, *key as u32).be32(3, from.0),
            Self::SetConntrack(key, from) => m.be32(2, *key as u32).be32(4, from.0),
            Self::Value(to, value) => m.be32(1, to.0).nest(2, |m| m.attribute(DATA_VALUE, value)),
            // Result: address type (3); of the destination address (2).
            Self::DestinationType(to) => m.be32(1, to.0).be32(2, 3).be32(3, 2),
            Self::Mask(register, mask) => m
                .be32(1, register.0)
                .be32(2, register.0)
                .be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX))
                .nest(4, |m| m.attribute(DATA_VALUE, mask))
                .nest(5, |m| m.attribute(DATA_VALUE, &vec![0; mask.len()])),
            Self::Equal(register, value) => compare(m, *register, 0, value),
            Self::NotEqual(register, value) => compare(m, *register, 1, value),
            Self::Lookup { map, key, value } => m.text(1, map).be32(2, key.0).be32(3, value.0),
            // Type: destination (1).
            Self::DestinationNat {
                family,
                address,
                port,
            } => m
                .be32(1, 1)
                .be32(2, *family as u32)
                .be32(3, address.0)
                .be32(5, port.0),
            Self::Masquerade => m,
            Self::Verdict(verdict) => m
                .be32(1, VERDICT_REGISTER)
                .nest(2, |m| m.nest(DATA_VERDICT, |m| verdict.write(m))),
        }
    }
}

fn compare(m: Message, register: Register, operator: u32, value: &[u8]) -> Message {
    m.be32(1, register.0)
        .be32(2, operator)
        .nest(3, |m| m.attribute(DATA_VALUE, value))
}

impl Field {
    /// Base (1: network header, 2: transport header), offset and bytes.
    fn place(self) -> (u32, u32, u32) {
        match self {
            Self::SourceAddress(Family::V4) => (1, 12, 4),
            Self::DestinationAddress(Family::V4) => (1, 16, 4),
            Self::SourceAddress(Family::V6) => (1, 8, 16),
            Self::DestinationAddress(Family::V6) => (1, 24, 16),
            Self::DestinationPort => (2, 2, 2),
        }
    }
}

impl Verdict<'_> {
    fn write(self, m: Message) -> Message {
        match self {
            Self::Drop => m.be32(1, 0),
            Self::Accept => m.be32(1, 1),
            Self::Goto(chain) => m.attribute(1, &(-4_i32).to_be_bytes()).text(2, chain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(expression: &Expression<'_>) -> Vec<u8> {
        let message = expression.write(Message::new(0, 0));
        message.finish(0).split_off(16)
    }

    #[test]
    fn a_comparison_with_an_interface_name() {
        let expected: Vec<u8> = [
            &[8, 0, 1, 0, b'c', b'm', b'p', 0, 44, 0, 2, 0x80][..],
            &[8, 0, 1, 0, 0, 0, 0, 8, 8, 0, 2, 0, 0, 0, 0, 0],
            &[24, 0, 3, 0x80, 20, 0, 1, 0],
            b"orlop0\0\0\0\0\0\0\0\0\0\0",
        ]
        .concat();
        assert_eq!(bytes(&input_is("orlop0")[1]), expected);
    }

    #[test]
    fn a_jump_carries_its_chain() {
        let all = bytes(&Expression::Verdict(Verdict::Goto("to")));
        let verdict = [8, 0, 1, 0, 255, 255, 255, 252, 7, 0, 2, 0, b't', b'o', 0, 0];
        assert_eq!(&all[all.len() - verdict.len()..], verdict);
    }

    #[test]
    fn fields_of_a_concatenation_fill_a_register_each() {
        let bytes = concatenation(&[&[6], &80_u16.to_be_bytes()]);
        assert_eq!(bytes, [6, 0, 0, 0, 0, 80, 0, 0]);
    }
}
