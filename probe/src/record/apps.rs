//! Transactions to records, with names and virtual machines.
//!
//! In: what the aggregation of transactions gives. Out: [`AppRecord`]s.
//! Invariants: a column of another protocol is null, and so is what was not seen.

use std::sync::Arc;

use super::from_views::flow_id;
use super::{AppRecord, RecordMaker};
use crate::aggregate::apps::{Said, Transaction};
use crate::app::dns::message::{Message, class_name, rcode_name, type_name};
use crate::app::http::head::{RequestHead, ResponseHead};
use crate::app::tls::hello::{ClientHello, ServerHello};
use crate::app::tls::ja4::ja4;
use crate::inventory::Interval;

impl RecordMaker {
    /// Records of transactions.
    pub fn apps(&mut self, transactions: &[Transaction]) -> Vec<AppRecord> {
        transactions.iter().map(|transaction| self.app(transaction)).collect()
    }

    fn app(&mut self, transaction: &Transaction) -> AppRecord {
        let flow = &transaction.flow;
        let key = &flow.key;
        let (source, destination) =
            (key.address(flow.initiator), key.address(flow.initiator.other()));
        let last = transaction.answered.unwrap_or(flow.at).max(flow.at);
        let ends = self.endpoints(
            key.space,
            key.ip_version,
            (source, flow.stations[0]),
            (destination, flow.stations[1]),
            Interval { from: flow.at, to: last + 1 },
        );
        let [source_vm, destination_vm] = ends.vms;
        let mut record = AppRecord {
            transaction_start_ns: flow.at.0,
            response_time_ns: transaction.answered.map(|answered| answered.since_ns(flow.at)),
            transaction_state: state(transaction),
            is_truncated: transaction.is_cut,
            flow_id: flow_id(key, flow.first_seen),
            segment: self.names.segment(flow.segment),
            address_space: self.space(key.space),
            source_address: source.to_ip(key.ip_version),
            destination_address: destination.to_ip(key.ip_version),
            source_port: key.port(flow.initiator),
            destination_port: key.port(flow.initiator.other()),
            protocol_identifier: key.protocol,
            application_name: flow.application.name(),
            tap: self.names.tap(flow.tap),
            source_virtual_station_uuid: source_vm.uuid,
            source_virtual_station_name: source_vm.name,
            source_virtual_station_tenant: source_vm.tenant,
            destination_virtual_station_uuid: destination_vm.uuid,
            destination_virtual_station_name: destination_vm.name,
            destination_virtual_station_tenant: destination_vm.tenant,
            traffic_class: ends.class.name(),
            ..AppRecord::default()
        };
        match &transaction.said {
            Said::Dns { message, answer } => dns(&mut record, message, answer.as_deref()),
            Said::Tls { client, server } => tls(&mut record, client.as_deref(), server.as_deref()),
            Said::Http { request, response } => {
                http(&mut record, request.as_deref(), response.as_deref());
            }
        }
        record
    }
}

fn state(transaction: &Transaction) -> &'static str {
    let has_answer = match &transaction.said {
        Said::Dns { answer, .. } => answer.is_some(),
        Said::Tls { server, .. } => server.is_some(),
        Said::Http { response, .. } => response.is_some(),
    };
    match (transaction.answered, has_answer) {
        (Some(_), _) => "answered",
        (None, true) => "answer_only",
        (None, false) => "unanswered",
    }
}

fn text(text: &str) -> Option<Arc<str>> {
    Some(text.into())
}

fn dns(record: &mut AppRecord, message: &Message, answer: Option<&Message>) {
    record.dns_id = Some(message.id);
    record.dns_flags = Some(answer.unwrap_or(message).flags);
    if let Some(question) = &message.question {
        record.dns_question_name = text(&question.name);
        record.dns_question_type = text(&type_name(question.kind));
        record.dns_question_class = text(&class_name(question.class));
    }
    if let Some(answer) = answer {
        record.dns_response_code = text(&rcode_name(answer.rcode()));
        record.dns_answer_count = Some(answer.answer_count);
        record.dns_answers = answer.answers_json().and_then(|all| text(&all.to_string()));
    }
}

fn tls(record: &mut AppRecord, client: Option<&ClientHello>, server: Option<&ServerHello>) {
    if let Some(client) = client {
        record.tls_server_name = client.server_name.as_deref().map(Into::into);
        record.tls_offered_version = text(&version_name(client.version()));
        if !client.protocols.is_empty() {
            let names: Vec<_> =
                client.protocols.iter().map(|name| String::from_utf8_lossy(name)).collect();
            record.tls_offered_protocols = text(&names.join(","));
        }
        record.tls_ja4 = text(&ja4(client));
    }
    if let Some(server) = server {
        record.tls_version = text(&version_name(server.version));
        record.tls_cipher_suite = Some(server.cipher);
        record.tls_protocol =
            server.protocol.as_ref().and_then(|name| text(&String::from_utf8_lossy(name)));
    }
}

/// As Suricata names versions.
fn version_name(version: u16) -> String {
    match version {
        0x0304 => "TLS 1.3".to_owned(),
        0x0303 => "TLS 1.2".to_owned(),
        0x0302 => "TLS 1.1".to_owned(),
        0x0301 => "TLSv1".to_owned(),
        0x0300 => "SSLv3".to_owned(),
        other => format!("0x{other:04x}"),
    }
}

fn http(record: &mut AppRecord, request: Option<&RequestHead>, response: Option<&ResponseHead>) {
    if let Some(request) = request {
        record.http_request_method = text(&request.method);
        record.http_request_host = request.host.as_deref().map(Into::into);
        record.http_request_target = text(&request.target);
        record.http_message_version = text(&request.version);
        record.http_user_agent = request.user_agent.as_deref().map(Into::into);
    }
    if let Some(response) = response {
        record.http_message_version.get_or_insert_with(|| response.version.as_str().into());
        record.http_status_code = Some(response.status);
        record.http_content_type = response.content_type.as_deref().map(Into::into);
        record.http_content_length = response.content_length;
    }
}
