//! Signed HTTP requests, for programs that act on alerts.
//!
//! In: batches of JSON lines. Out: one POST a batch, `{"table": …, "records": […]}`.
//! Cost: a request a batch, several where the receiver finds one too long; a batch of alerts is what one window brought, as a rule.
//! Invariants: the second signature covers the time, the id of the batch and the body, so nobody without the
//! key can make or change one, and one that is repeated has the id of before; the first covers time and body
//! alone, for receivers that know no other. The id of a batch is the same in each attempt, and that of a part
//! says which of its records it has.
//! Source: HMAC-SHA-256, RFC 2104 and FIPS 180-4; headers, docs/sinks/webhook.md.

use ring::hmac;

use super::hidden::Hidden;
use super::http::{Answer as HttpAnswer, Client};
use super::parts::{Answer, Part, Parts};
use super::sink::{Batch, Delivered, Driver, Failure};
use crate::config::WebhookPlan;
use crate::config::secret;
use crate::record::{SCHEMA_VERSION, Table};
use crate::time::wall_clock;

/// Delivers batches.
pub(super) struct Requests {
    plan: WebhookPlan,
    timeout_ms: u32,
    probe: String,
    client: Option<Client>,
    parts: Parts,
}

impl Requests {
    pub(super) fn new(plan: &WebhookPlan, timeout_ms: u32, probe: &str) -> Self {
        let probe = probe.to_owned();
        Self { plan: plan.clone(), timeout_ms, probe, client: None, parts: Parts::new() }
    }

    fn post(&mut self, batch: &Batch, part: Part<'_>) -> Result<HttpAnswer, String> {
        let secret = secret::read(&self.plan.secret).map_err(|error| error.to_string())?;
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let ca_file = self.plan.url.tls.then_some(self.plan.ca_file.as_path());
                Client::new(ca_file, self.timeout_ms)?
            }
        };
        let (body, id) = (body(batch.table, part.bytes), id(&batch.token, part));
        let time_s = (wall_clock().as_ns() / 1_000_000_000).to_string();
        let sign = |parts: &[&[u8]]| signature(&secret, parts);
        let of_body = format!("v1={}", sign(&[time_s.as_bytes(), b".", &body]));
        // No header has an end of a line in it, so each text can be taken apart in one way only.
        let of_all = [time_s.as_bytes(), b"\n", id.as_bytes(), b"\n", &body];
        let of_all = format!("v2={}", sign(&of_all));
        let headers = [
            ("Content-Type", "application/json"),
            ("X-Vmprobe-Probe", &self.probe),
            ("X-Vmprobe-Batch", &id),
            ("X-Vmprobe-Time", &time_s),
            ("X-Vmprobe-Signature", &of_body),
            ("X-Vmprobe-Signature-2", &of_all),
        ];
        let hidden = Hidden::new(&self.plan.url, &[&secret]);
        let answer = client.post(self.plan.url.as_str(), &headers, &body, hidden)?;
        self.client = Some(client);
        Ok(answer)
    }
}

impl Requests {
    fn send(&mut self, batch: &Batch, part: Part<'_>) -> Result<Answer, Failure> {
        let answer = self.post(batch, part).map_err(|error| Failure::again(&error))?;
        let status = answer.status;
        let said = || format!("{} answers {status}: {:?}", self.plan.url, answer.text());
        match status {
            200..=299 => Ok(Answer::Taken { refused: 0 }),
            413 => Ok(Answer::TooLong(said())),
            // The request itself is wrong in the eyes of the receiver; another one would be too.
            400 | 405 | 410 | 415 | 422 => Err(Failure::refused(&said())),
            _ => Err(Failure::again(&said())),
        }
    }
}

impl Driver for Requests {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        let mut parts = std::mem::replace(&mut self.parts, Parts::new());
        let delivered = parts.deliver(batch, |part| self.send(batch, part));
        self.parts = parts;
        delivered
    }
}

/// The batch's token; of a part with the numbers of its first and last record, so that no two requests
/// with other records have the same.
fn id(token: &str, part: Part<'_>) -> String {
    if part.whole {
        return token.to_owned();
    }
    format!("{token}/{}-{}", part.first, part.first + part.records.saturating_sub(1))
}

/// JSON lines as one object.
fn body(table: Table, lines: &[u8]) -> Vec<u8> {
    let table = table.name();
    let mut body =
        format!("{{\"schema_version\":{SCHEMA_VERSION},\"table\":\"{table}\",\"records\":[")
            .into_bytes();
    let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
    body.extend(lines.iter().map(|octet| if *octet == b'\n' { b',' } else { *octet }));
    body.extend_from_slice(b"]}");
    body
}

/// HMAC-SHA-256 over all parts, in hexadecimal.
fn signature(secret: &str, parts: &[&[u8]]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    for part in parts {
        context.update(part);
    }
    let mut text = String::new();
    for octet in context.sign().as_ref() {
        text.push_str(&format!("{octet:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_of_openssl() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        let made = signature("key", &[b"1700000000", b".", b"{\"a\":1}"]);
        assert_eq!(made, "a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03");
    }

    #[test]
    fn a_batch_is_one_object() {
        let body = body(Table::Alerts, b"{\"a\":1}\n{\"a\":2}\n");
        let read: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(read["table"], "alerts");
        assert_eq!(read["records"], serde_json::json!([{"a": 1}, {"a": 2}]));
    }

    #[test]
    fn a_part_has_an_id_of_its_own() {
        let part = Part { bytes: b"", first: 5, records: 3, whole: false };
        let ids = [id("t", part), id("t", Part { whole: true, ..part })];
        assert_eq!(ids, ["t/5-7", "t"]);
    }
}
