//! Questions to the name servers of networks.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::members::in_network;
use super::support::{PATIENCE, Place};
use crate::network::Attachment;

/// What the name server of a network says to a container in it: a code, then records.
pub(super) async fn lookup(
    from: &Attachment,
    network: &str,
    name: &str,
    kind: RecordType,
) -> Vec<String> {
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let question = question.to_vec().unwrap();
    let (place, server) = (Place::of(from), in_network(from, network).gateway);
    let asked = place.meanwhile(move |place| {
        let by_stream = place.exchange_tcp(server, 53, &question).unwrap();
        let by_datagram = place.exchange_udp(server, 53, &question, PATIENCE).unwrap();
        (by_stream, by_datagram)
    });
    let (by_stream, by_datagram) = asked.await;
    let answer = Message::from_vec(&by_datagram).unwrap();
    let other = Message::from_vec(&by_stream).unwrap();
    assert_eq!(answer.answers.len(), other.answers.len());
    let mut said = vec![answer.metadata.response_code.to_string()];
    said.extend(answer.answers.iter().map(|record| record.data.to_string()));
    said[1..].sort();
    said
}

pub(super) fn yes(records: &[String]) -> Vec<String> {
    let mut said = vec![ResponseCode::NoError.to_string()];
    said.extend_from_slice(records);
    said
}
