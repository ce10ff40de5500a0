//! To whom published ports are open: said at `run`, to a person only.

use std::net::IpAddr;

use orlop_proto::runtime::{CreateResponse, PortBinding};

use crate::commands::port;
use crate::ui;

/// Lines that a person reads.
const LINES_MAX: usize = 16;

/// Says it on standard error if that is a terminal.
pub(super) fn say(created: &CreateResponse) {
    if !ui::stderr_is_terminal() {
        return;
    }
    for line in lines(created) {
        ui::note(ui::text::escape(&line));
    }
}

fn lines(created: &CreateResponse) -> Vec<String> {
    let mut lines: Vec<_> = created
        .ports
        .iter()
        .take(LINES_MAX)
        .map(|binding| line(binding, &created.publishing))
        .collect();
    let more = created.ports.len().saturating_sub(LINES_MAX);
    if more > 0 {
        lines.push(format!("… and {more} more"));
    }
    lines
}

fn line(binding: &PortBinding, publishing: &str) -> String {
    let place = match binding.host_port {
        0 => format!("a free port of {}", port::host_address(binding)),
        _ => port::outside(binding),
    };
    let whom = whom(port::host_address(binding), publishing);
    format!("{place} -> {}: open to {whom}", port::inside(binding))
}

fn whom(address: &str, publishing: &str) -> String {
    let address: Option<IpAddr> = address.parse().ok();
    if address.is_some_and(|address| address.is_loopback()) {
        return "this host only".to_owned();
    }
    let reaches = match address.filter(|address| !address.is_unspecified()) {
        Some(address) => format!("who reaches {address}"),
        None => "who reaches this host".to_owned(),
    };
    match publishing {
        "input" => format!("everyone {reaches} and whom its input rules (ufw, firewalld) let in"),
        _ => format!("everyone {reaches}; its input rules (ufw, firewalld) are not asked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(publishing: &str, addresses: &[&str]) -> CreateResponse {
        let binding = |address: &&str| PortBinding {
            container_port: 80,
            host_port: 8080,
            host_address: (*address).to_owned(),
            ..PortBinding::default()
        };
        CreateResponse {
            ports: addresses.iter().map(binding).collect(),
            publishing: publishing.to_owned(),
            ..CreateResponse::default()
        }
    }

    #[test]
    fn it_is_said_who_reaches_a_port_and_whether_rules_are_asked() {
        let said = lines(&created("forward", &["", "127.0.0.1", "192.0.2.1"]));
        assert_eq!(
            said,
            [
                "0.0.0.0:8080 -> 80/tcp: open to everyone who reaches this host; its input rules \
                 (ufw, firewalld) are not asked",
                "127.0.0.1:8080 -> 80/tcp: open to this host only",
                "192.0.2.1:8080 -> 80/tcp: open to everyone who reaches 192.0.2.1; its input rules \
                 (ufw, firewalld) are not asked",
            ]
        );
        let said = lines(&created("input", &[""]));
        assert!(said[0].ends_with("whom its input rules (ufw, firewalld) let in"));
    }

    #[test]
    fn many_ports_are_not_all_told() {
        let said = lines(&created("forward", &[""; LINES_MAX + 3]));
        assert_eq!(said.len(), LINES_MAX + 1);
        assert!(said.last().unwrap().contains("3 more"));
    }
}
