//! Messages by syslog over TCP or TLS.
//!
//! In: records. Out: a message each, framed by its length.
//! Cost: one connection, kept; a batch is written at once.
//! Invariants: at least once as far as the protocol goes: it has no acknowledgement, so what the
//! receiver's machine had taken and its program had not read when it died is lost, and nobody can know.
//! Source: messages, RFC 5424; framing, RFC 6587 §3.4.1 (octet counting); TLS, RFC 5425; Common Event
//! Format, ArcSight's "CEF Implementation Standard".

mod cef;

use std::io::Write as _;
use std::sync::Arc;

use super::json;
use super::sink::{Batch, Delivered, Driver, Encoder, Failure, Row};
use super::stream::Stream;
use crate::config::{SyslogFormat, SyslogPlan};
use crate::record::{Origin, Table};
use crate::time::{Timestamp, monotonic_ns, ms};

/// local0, RFC 5424 §6.2.1.
const FACILITY: u8 = 16;
/// Octets that are written between two looks at the clock.
const WRITE_OCTETS: usize = 64 << 10;

/// Writes messages.
pub(super) struct Messages {
    format: SyslogFormat,
    probe: Arc<str>,
    message: Vec<u8>,
}

impl Messages {
    pub(super) fn new(plan: &SyslogPlan, origin: &Origin) -> Self {
        let probe = Arc::clone(&origin.probe_id);
        Self { format: plan.format, probe, message: Vec::new() }
    }
}

impl Encoder for Messages {
    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        let Self { format, probe, message } = self;
        message.clear();
        let priority = FACILITY * 8 + severity(row);
        let (time, table) = (time_text(row.time()), row.table().name());
        // Writing into memory cannot fail.
        let _ = write!(message, "<{priority}>1 {time} {probe} vmprobe - {table} - ");
        match format {
            SyslogFormat::Json => json::write_row(row, message),
            SyslogFormat::Cef => cef::write(row, message),
        }
        let _ = write!(out, "{} ", message.len());
        out.append(message);
    }
}

/// RFC 5424 §6.2.1: 2 critical, 3 error, 4 warning, 5 notice, 6 informational.
fn severity(row: Row<'_>) -> u8 {
    if row.table() != Table::Alerts {
        return 6;
    }
    match row.named("severity").text() {
        Some("critical") => 2,
        Some("high") => 3,
        Some("medium") => 4,
        Some("low") => 5,
        _ => 6,
    }
}

/// RFC 5424 §6.2.3: at most six digits of a second.
fn time_text(time: Timestamp) -> String {
    let (seconds, ns) = (time.as_ns() / 1_000_000_000, time.as_ns() % 1_000_000_000);
    let time = i64::try_from(seconds)
        .ok()
        .zip(u32::try_from(ns).ok())
        .and_then(|(seconds, ns)| chrono::DateTime::from_timestamp(seconds, ns));
    time.map_or_else(|| "-".to_owned(), |it| it.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

/// Delivers batches.
pub(super) struct Output {
    plan: SyslogPlan,
    timeout_ms: u32,
    stream: Option<Stream>,
}

impl Output {
    pub(super) fn new(plan: &SyslogPlan, timeout_ms: u32) -> Self {
        Self { plan: plan.clone(), timeout_ms, stream: None }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let url = &self.plan.url;
        let end_ns = monotonic_ns().saturating_add(ms(self.timeout_ms.into()));
        let kept = self.stream.take().and_then(|mut it| (!it.is_closed()).then_some(it));
        let mut stream = match kept {
            Some(stream) => stream,
            None => Stream::open(url, &self.plan.ca_file, self.timeout_ms)?,
        };
        for part in bytes.chunks(WRITE_OCTETS) {
            stream.write(part).map_err(|error| format!("{url}: {error}"))?;
            if monotonic_ns() > end_ns {
                return Err(format!("{url} takes messages too slowly (timeout_ms)"));
            }
        }
        stream.flush().map_err(|error| format!("{url}: {error}"))?;
        self.stream = Some(stream);
        Ok(())
    }
}

impl Driver for Output {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        self.write(&batch.bytes).map_err(|error| Failure::again(&error))?;
        Ok(Delivered::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sink::TableRows;
    use crate::record::{AlertRecord, Rows};

    #[test]
    fn a_message_has_the_parts_of_the_rfc_and_its_length_before_it() {
        let alert = AlertRecord {
            severity: "high",
            title: "ü\n".into(),
            last_seen_ns: 1_700_000_000_123_456_789,
            ..AlertRecord::default()
        };
        let rows = Rows { alerts: vec![alert], ..Rows::default() };
        let origin = Origin::new("probe-1", "d");
        let (parts, _) = TableRows::of(&rows, &origin, Timestamp::ZERO, |_| true);
        let plan = SyslogPlan {
            url: "tcp://127.0.0.1:1".parse().expect("a URL"),
            ca_file: "".into(),
            format: SyslogFormat::Json,
        };
        let mut out = Vec::new();
        Messages::new(&plan, &origin).row(parts[0].rows().next().expect("a row"), &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        let (length, message) = text.split_once(' ').expect("a length");
        assert_eq!(length.parse(), Ok(message.len()));
        let head = "<131>1 2023-11-14T22:13:20.123456Z probe-1 vmprobe - alerts - ";
        let json = message.strip_prefix(head).expect(message);
        let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(json["title"], "ü\n");
    }

    #[test]
    fn times_of_all_centuries_have_a_text() {
        assert_eq!(time_text(Timestamp::ZERO), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time_text(Timestamp(u64::MAX)), "2554-07-21T23:34:33.709551Z");
    }
}
