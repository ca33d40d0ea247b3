//! Signed HTTP requests, for programs that act on alerts.
//!
//! In: batches of JSON lines. Out: one POST a batch, `{"table": …, "records": […]}`.
//! Cost: a request a batch; a batch of alerts is what one window brought, as a rule.
//! Invariants: the signature covers the time and the body, so nobody without the key can make, change or
//! repeat one unnoticed; the id of a batch is the same in each attempt.
//! Source: HMAC-SHA-256, RFC 2104 and FIPS 180-4; headers, docs/sinks/webhook.md.

use ring::hmac;

use super::http::Client;
use super::sink::{Batch, Delivered, Driver, Failure};
use crate::config::WebhookPlan;
use crate::config::secret;
use crate::record::SCHEMA_VERSION;
use crate::time::wall_clock;

/// What is shown of an answer that refuses.
const SHOWN_CHARACTERS: usize = 200;

/// Delivers batches.
pub(super) struct Requests {
    plan: WebhookPlan,
    timeout_ms: u32,
    probe: String,
    client: Option<Client>,
}

impl Requests {
    pub(super) fn new(plan: &WebhookPlan, timeout_ms: u32, probe: &str) -> Self {
        Self { plan: plan.clone(), timeout_ms, probe: probe.to_owned(), client: None }
    }

    fn post(&mut self, batch: &Batch) -> Result<(u16, String), String> {
        let secret = secret::read(&self.plan.secret).map_err(|error| error.to_string())?;
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let ca_file = self.plan.url.tls.then_some(self.plan.ca_file.as_path());
                Client::new(ca_file, self.timeout_ms)?
            }
        };
        let body = body(batch);
        let time_s = (wall_clock().as_ns() / 1_000_000_000).to_string();
        let signature = format!("v1={}", signature(&secret, &time_s, &body));
        let headers = [
            ("Content-Type", "application/json"),
            ("X-Vmprobe-Probe", &self.probe),
            ("X-Vmprobe-Batch", &batch.token),
            ("X-Vmprobe-Time", &time_s),
            ("X-Vmprobe-Signature", &signature),
        ];
        let answer = client.post(self.plan.url.as_str(), &headers, &body)?;
        self.client = Some(client);
        let text = String::from_utf8_lossy(&answer.body);
        Ok((answer.status, text.chars().take(SHOWN_CHARACTERS).collect()))
    }
}

impl Driver for Requests {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        let (status, text) = self.post(batch).map_err(|error| Failure::again(&error))?;
        let said = || format!("{} answers {status}: {text:?}", self.plan.url);
        match status {
            200..=299 => Ok(Delivered::default()),
            // The request itself is wrong in the eyes of the receiver; another one would be too.
            400 | 405 | 410 | 413 | 415 | 422 => Err(Failure::refused(&said())),
            _ => Err(Failure::again(&said())),
        }
    }
}

/// The JSON lines of a batch as one object.
fn body(batch: &Batch) -> Vec<u8> {
    let table = batch.table.name();
    let mut body =
        format!("{{\"schema_version\":{SCHEMA_VERSION},\"table\":\"{table}\",\"records\":[")
            .into_bytes();
    let lines = batch.bytes.strip_suffix(b"\n").unwrap_or(&batch.bytes);
    body.extend(lines.iter().map(|octet| if *octet == b'\n' { b',' } else { *octet }));
    body.extend_from_slice(b"]}");
    body
}

/// HMAC-SHA-256 over the time, a dot and the body, in hexadecimal.
fn signature(secret: &str, time_s: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(time_s.as_bytes());
    context.update(b".");
    context.update(body);
    let mut text = String::new();
    for octet in context.sign().as_ref() {
        text.push_str(&format!("{octet:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Table;

    #[test]
    fn the_signature_is_the_one_of_openssl() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        let made = signature("key", "1700000000", b"{\"a\":1}");
        assert_eq!(made, "a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03");
    }

    #[test]
    fn a_batch_is_one_object() {
        let batch = Batch {
            table: Table::Alerts,
            records: 2,
            token: "t".to_owned(),
            bytes: b"{\"a\":1}\n{\"a\":2}\n".to_vec(),
        };
        let read: serde_json::Value = serde_json::from_slice(&body(&batch)).expect("JSON");
        assert_eq!(read["table"], "alerts");
        assert_eq!(read["records"], serde_json::json!([{"a": 1}, {"a": 2}]));
    }
}
