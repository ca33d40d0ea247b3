//! Splunk's HTTP Event Collector: one event a record.
//!
//! In: batches of events. Out: a POST to `/services/collector/event` a batch, and where wanted the wait until
//! it is indexed.
//! Cost: a request a batch, several where the collector finds one too long; with acknowledgement one more every quarter of a second until it comes.
//! Invariants: a batch counts as delivered when the collector has taken it, or with `acknowledge` when it
//! says that it is indexed; the collector knows no ids, so a batch whose answer was lost comes twice, with
//! the same `vmprobe_event_id` in its events' fields.
//! Source: Splunk, "Format events for HTTP Event Collector", "HTTP Event Collector REST API endpoints",
//! "About HTTP Event Collector Indexer Acknowledgment".

use std::io::Write as _;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::hidden::Hidden;
use super::http::{Answer as HttpAnswer, Client};
use super::json;
use super::parts::{self, Part, Parts};
use super::sink::{Batch, Delivered, Driver, Encoder, Failure, Row};
use crate::config::{SplunkPlan, secret};
use crate::inventory::Uuid;
use crate::record::Origin;
use crate::time::{monotonic_ns, ms, sleep_ms};

/// How often it is asked whether a batch is indexed.
const ACKNOWLEDGED_MS: u64 = 250;
/// Writes events.
pub(super) struct Events {
    probe: Arc<str>,
    index: Option<String>,
}

impl Events {
    pub(super) fn new(plan: &SplunkPlan, origin: &Origin) -> Self {
        Self { probe: Arc::clone(&origin.probe_id), index: plan.index.clone() }
    }
}

impl Encoder for Events {
    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        let ns = row.time().as_ns();
        let (seconds, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
        // Writing into memory cannot fail.
        let _ =
            write!(out, "{{\"time\":{seconds}.{rest:09},\"host\":{}", Value::from(&*self.probe));
        let table = row.table().name();
        let _ = write!(out, ",\"source\":\"vmprobe\",\"sourcetype\":\"vmprobe:{table}\"");
        if let Some(index) = &self.index {
            let _ = write!(out, ",\"index\":{}", Value::from(index.as_str()));
        }
        out.extend_from_slice(b",\"event\":");
        json::write_row(row, out);
        out.extend_from_slice(b"}\n");
    }
}

/// Delivers batches.
pub(super) struct Collector {
    plan: SplunkPlan,
    timeout_ms: u32,
    client: Option<Client>,
    /// Whose acknowledgements are asked for; by its own of each driver.
    channel: String,
    parts: Parts,
}

/// What the collector answers.
#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    text: String,
    #[serde(default)]
    code: u32,
    #[serde(rename = "ackId")]
    acknowledgement: Option<u64>,
}

impl Collector {
    pub(super) fn new(plan: &SplunkPlan, timeout_ms: u32, probe: &str) -> Self {
        let channel = channel(probe, monotonic_ns() ^ crate::time::wall_clock().as_ns());
        Self { plan: plan.clone(), timeout_ms, client: None, channel, parts: Parts::new() }
    }

    fn post(&mut self, path: &str, body: &[u8]) -> Result<HttpAnswer, String> {
        let token = secret::read(&self.plan.token).map_err(|error| error.to_string())?;
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let ca_file = self.plan.url.tls.then_some(self.plan.ca_file.as_path());
                Client::new(ca_file, self.timeout_ms)?
            }
        };
        let url = format!("{}{path}", self.plan.url.as_str().trim_end_matches('/'));
        let authorization = format!("Splunk {token}");
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Content-Type", "application/json"),
            ("X-Splunk-Request-Channel", &self.channel),
        ];
        let hidden = Hidden::new(&self.plan.url, &[&token]);
        let answer = client.post(&url, &headers, body, hidden)?;
        self.client = Some(client);
        Ok(answer)
    }

    /// Waits until the batch is indexed.
    fn acknowledged(&mut self, id: u64, end_ns: u64) -> Result<(), Failure> {
        let body = format!("{{\"acks\":[{id}]}}");
        loop {
            let asked = self.post("/services/collector/ack", body.as_bytes());
            let answer = asked.map_err(|error| Failure::again(&error))?;
            if answer.status != 200 {
                return Err(Failure::again(&self.said(&answer)));
            }
            let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if said["acks"][id.to_string()] == true {
                return Ok(());
            }
            if monotonic_ns() > end_ns {
                let what = "the batch is not indexed in timeout_ms; it is sent again";
                return Err(Failure::again(&format!("{}: {what}", self.plan.url)));
            }
            sleep_ms(ACKNOWLEDGED_MS);
        }
    }

    fn said(&self, answer: &HttpAnswer) -> String {
        format!("{} answers {}: {}", self.plan.url, answer.status, answer.text())
    }
}

impl Driver for Collector {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        let mut parts = std::mem::replace(&mut self.parts, Parts::new());
        let delivered = parts.deliver(batch, |part| self.send(batch, part));
        self.parts = parts;
        delivered
    }
}

impl Collector {
    fn send(&mut self, batch: &Batch, part: Part<'_>) -> Result<parts::Answer, Failure> {
        let end_ns = monotonic_ns().saturating_add(ms(self.timeout_ms.into()));
        let posted = self.post("/services/collector/event", &body(batch, part));
        let answer = posted.map_err(|error| Failure::again(&error))?;
        match (answer.status, serde_json::from_slice::<Answer>(&answer.body)) {
            (200, Ok(Answer { code: 0, acknowledgement, .. })) => {
                match (self.plan.acknowledge, acknowledgement) {
                    (false, _) => {}
                    (true, Some(id)) => self.acknowledged(id, end_ns)?,
                    (true, None) => {
                        let what = "this token has no indexer acknowledgement (acknowledge = true)";
                        return Err(Failure::again(&format!("{}: {what}", self.plan.url)));
                    }
                }
                Ok(parts::Answer::Taken { refused: 0 })
            }
            (413, _) => Ok(parts::Answer::TooLong(self.said(&answer))),
            // 5 no data, 6 invalid data format, 12 no event, 13 an empty one. Another attempt would be the
            // same.
            (400, Ok(Answer { code: 5 | 6 | 12 | 13, .. })) => {
                Err(Failure::refused(&self.said(&answer)))
            }
            // Token, index, channel and load may change.
            (status, Ok(Answer { text, code, .. })) if !text.is_empty() => {
                let (url, text) = (&self.plan.url, answer.shown(&text));
                Err(Failure::again(&format!("{url} answers {status}: {text} (code {code})")))
            }
            _ => Err(Failure::again(&self.said(&answer))),
        }
    }
}

/// The events of a batch, each with its id among the fields that Splunk indexes.
fn body(batch: &Batch, part: Part<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(part.bytes.len() + part.bytes.len() / 4);
    let lines =
        part.bytes.split(|octet| *octet == b'\n').filter_map(|line| line.strip_suffix(b"}"));
    for (number, line) in (part.first..).zip(lines) {
        body.extend_from_slice(line);
        let id = Value::from(format!("{}/{number}", batch.token));
        // Writing into memory cannot fail.
        let _ = writeln!(body, ",\"fields\":{{\"vmprobe_event_id\":{id}}}}}");
    }
    body
}

/// What has the form of a UUID, as a channel must, and is another one for each probe and start.
fn channel(probe: &str, start: u64) -> String {
    let probe = u128::from(crc32fast::hash(probe.as_bytes()));
    Uuid(u128::from(start) << 64 | u128::from(std::process::id()) << 32 | probe).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sink::TableRows;
    use crate::record::{AlertRecord, Rows, Table};
    use crate::time::Timestamp;

    #[test]
    fn an_event_has_splunks_keys_and_an_id() {
        let plan = SplunkPlan {
            url: "http://127.0.0.1:8088".parse().expect("a URL"),
            token: "env:T".parse().expect("a place"),
            ca_file: "".into(),
            index: Some("net\"work".to_owned()),
            acknowledge: false,
        };
        let alert = AlertRecord {
            title: "ü\n}".into(),
            last_seen_ns: 1_700_000_000_023_456_789,
            ..AlertRecord::default()
        };
        let origin = Origin::new("p\"1", "d");
        let rows = Rows { alerts: vec![alert.clone(), alert], ..Rows::default() };
        let (parts, _) = TableRows::of(&rows, &origin, Timestamp::ZERO, |_| true);
        let mut bytes = Vec::new();
        let mut encoder = Events::new(&plan, &origin);
        parts[0].rows().for_each(|row| encoder.row(row, &mut bytes));
        let batch = Batch { table: Table::Alerts, records: 2, token: "t".to_owned(), bytes };
        let part = Part { bytes: &batch.bytes, first: 0, records: 2, whole: true };
        let text = String::from_utf8(body(&batch, part)).expect("UTF-8");
        assert!(text.starts_with("{\"time\":1700000000.023456789,"), "{text}");
        let events: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((events.len(), &events[1]["fields"]["vmprobe_event_id"]), (2, &"t/1".into()));
        assert_eq!(
            (&events[0]["host"], &events[0]["index"]),
            (&"p\"1".into(), &"net\"work".into())
        );
        assert_eq!(
            (&events[0]["sourcetype"], &events[0]["event"]["title"]),
            (&"vmprobe:alerts".into(), &"ü\n}".into())
        );
    }

    #[test]
    fn a_channel_is_a_uuid() {
        let made = channel("p", 7);
        assert!(made.parse::<Uuid>().is_ok(), "{made}");
        assert_ne!(made, channel("p", 8));
    }
}
