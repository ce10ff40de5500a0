//! What follows from a question. Questions are hostile: they are parsed by hickory, and what it does not
//! understand gets no answer.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Seconds that an answer is good for. A container's address changes with its restart.
const TTL: u32 = 5;
/// Addresses in an answer: more do not fit into a datagram of 512 bytes.
const ADDRESSES_MAX: usize = 24;
/// The same of IPv6, which are longer.
const IPV6_ADDRESSES_MAX: usize = 14;

/// What is known here.
pub(super) trait Names {
    /// Of a name in lower case; none: it is nobody's.
    fn addresses(&self, name: &str) -> Vec<IpAddr>;
    /// The name of who has an address.
    fn name(&self, address: IpAddr) -> Option<String>;
}

/// What follows from a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This.
    Answer(Vec<u8>),
    /// Others must know.
    Elsewhere,
    /// It is none.
    Nothing,
}

/// Judges a message.
pub(super) fn to(message: &[u8], names: &impl Names) -> Verdict {
    let Some((message, query)) = parse(message) else {
        return Verdict::Nothing;
    };
    if query.query_class() != DNSClass::IN {
        return Verdict::Elsewhere;
    }
    let records = match query.query_type() {
        RecordType::PTR => pointer(&query, names),
        _ => addresses(&query, names),
    };
    match records {
        Some(records) => respond(&message, query, ResponseCode::NoError, records)
            .map_or(Verdict::Nothing, Verdict::Answer),
        None => Verdict::Elsewhere,
    }
}

/// Says that we do not ask others.
pub(super) fn refusal(message: &[u8]) -> Option<Vec<u8>> {
    let (message, query) = parse(message)?;
    respond(&message, query, ResponseCode::Refused, Vec::new())
}

/// Says that nobody could answer.
pub(super) fn failure(message: &[u8]) -> Option<Vec<u8>> {
    let (message, query) = parse(message)?;
    respond(&message, query, ResponseCode::ServFail, Vec::new())
}

/// A message with exactly one question.
fn parse(message: &[u8]) -> Option<(Message, Query)> {
    let message = Message::from_vec(message).ok()?;
    let asks = message.metadata.message_type == MessageType::Query
        && message.metadata.op_code == OpCode::Query;
    match message.queries.as_slice() {
        [query] if asks => {
            let query = query.clone();
            Some((message, query))
        }
        _ => None,
    }
}

/// `None`: the name is nobody's. A known name has no records of other kinds.
fn addresses(query: &Query, names: &impl Names) -> Option<Vec<Record>> {
    let name = query.name().to_ascii().to_ascii_lowercase();
    let found = names.addresses(name.trim_end_matches('.'));
    if found.is_empty() {
        return None;
    }
    let most = match query.query_type() {
        RecordType::AAAA => IPV6_ADDRESSES_MAX,
        _ => ADDRESSES_MAX,
    };
    let data = found.into_iter().filter_map(|address| match address {
        IpAddr::V4(address) => {
            (query.query_type() == RecordType::A).then_some(RData::A(A(address)))
        }
        IpAddr::V6(address) => {
            (query.query_type() == RecordType::AAAA).then_some(RData::AAAA(AAAA(address)))
        }
    });
    let record = |data| Record::from_rdata(query.name().clone(), TTL, data);
    Some(data.take(most).map(record).collect())
}

fn pointer(query: &Query, names: &impl Names) -> Option<Vec<Record>> {
    let net = query.name().parse_arpa_name().ok()?;
    let whole = net.prefix_len() == net.max_prefix_len();
    let name = names.name(net.addr()).filter(|_| whole)?;
    let name = Name::from_ascii(format!("{name}.")).ok()?;
    let record = Record::from_rdata(query.name().clone(), TTL, RData::PTR(PTR(name)));
    Some(vec![record])
}

fn respond(
    message: &Message,
    query: Query,
    code: ResponseCode,
    records: Vec<Record>,
) -> Option<Vec<u8>> {
    let mut response = Message::error_msg(message.metadata.id, OpCode::Query, code);
    response.metadata.recursion_desired = message.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_query(query);
    response.add_answers(records);
    response.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const BOTH: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);

    struct Web;

    fn many(last: u8) -> [IpAddr; 2] {
        let ipv6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, last.into());
        [Ipv4Addr::new(10, 0, 1, last).into(), ipv6.into()]
    }

    impl Names for Web {
        fn addresses(&self, name: &str) -> Vec<IpAddr> {
            match name {
                "web" => vec![Ipv4Addr::new(10, 0, 0, 2).into()],
                "both" => vec![Ipv4Addr::new(10, 0, 0, 3).into(), BOTH.into()],
                "many" => (0..=255).flat_map(many).collect(),
                _ => Vec::new(),
            }
        }

        fn name(&self, address: IpAddr) -> Option<String> {
            let web = IpAddr::from(Ipv4Addr::new(10, 0, 0, 2));
            (address == web || address == IpAddr::from(BOTH)).then(|| "web.front".to_owned())
        }
    }

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn answers(name: &str, kind: RecordType) -> Vec<String> {
        let Verdict::Answer(answer) = to(&question(name, kind), &Web) else {
            return vec!["elsewhere".to_owned()];
        };
        assert!(answer.len() <= 512, "{} bytes", answer.len());
        let message = Message::from_vec(&answer).unwrap();
        assert_eq!(message.metadata.id, 7);
        let records = message.answers.iter();
        records.map(|record| record.data.to_string()).collect()
    }

    #[test]
    fn names_of_containers_are_answered_in_any_case_and_others_are_elsewhere() {
        assert_eq!(answers("web.", RecordType::A), ["10.0.0.2"]);
        assert_eq!(answers("WEB.", RecordType::A), ["10.0.0.2"]);
        assert!(answers("web.", RecordType::AAAA).is_empty());
        assert_eq!(answers("example.org.", RecordType::A), ["elsewhere"]);
        assert_eq!(answers("many.", RecordType::A).len(), ADDRESSES_MAX);
    }

    #[test]
    fn each_family_has_its_own_records() {
        assert_eq!(answers("both.", RecordType::A), ["10.0.0.3"]);
        assert_eq!(answers("both.", RecordType::AAAA), ["fd00::3"]);
        assert!(answers("both.", RecordType::TXT).is_empty());
        let many = answers("many.", RecordType::AAAA);
        assert_eq!(many.len(), IPV6_ADDRESSES_MAX);
    }

    #[test]
    fn an_address_of_a_container_has_its_name() {
        let of = |name| answers(name, RecordType::PTR);
        assert_eq!(of("2.0.0.10.in-addr.arpa."), ["web.front."]);
        let six = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
        assert_eq!(of(six), ["web.front."]);
        assert_eq!(of("3.0.0.10.in-addr.arpa."), ["elsewhere"]);
        assert_eq!(of("0.0.10.in-addr.arpa."), ["elsewhere"]);
        assert_eq!(of("in-addr.arpa.example."), ["elsewhere"]);
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        let Verdict::Answer(answer) = to(&question("web.", RecordType::A), &Web) else {
            unreachable!("a name that is known");
        };
        for message in [&answer[..], b"", b"GET / HTTP/1.0", &answer[..20]] {
            assert_eq!(to(message, &Web), Verdict::Nothing);
        }
        let two = {
            let mut message = Message::from_vec(&question("web.", RecordType::A)).unwrap();
            message.add_query(message.queries[0].clone());
            message.to_vec().unwrap()
        };
        assert_eq!(to(&two, &Web), Verdict::Nothing);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_a_panic(
            noise in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
            at in 0..29_usize,
        ) {
            let mut message = question("web.front.example.", RecordType::A);
            for (offset, byte) in noise.iter().enumerate().take(4) {
                if let Some(place) = message.get_mut(at + offset) {
                    *place = *byte;
                }
            }
            for message in [&message, &noise] {
                to(message, &Web);
                refusal(message);
            }
        }
    }

    #[test]
    fn a_refusal_repeats_the_question_and_its_number() {
        let refused = refusal(&question("example.org.", RecordType::A)).unwrap();
        let refused = Message::from_vec(&refused).unwrap();
        assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
        assert_eq!(refused.metadata.id, 7);
        assert_eq!(refused.queries.len(), 1);
    }
}
