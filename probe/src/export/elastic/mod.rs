//! Elasticsearch and what speaks its `_bulk`: one document a record.
//!
//! In: batches of documents as lines. Out: `POST /_bulk` with `create`.
//! Cost: a request a batch; several where the server finds one too long.
//! Invariants: a document's id is the batch's token and its number in it, so what an earlier attempt has
//! stored is a conflict at the next one, and counts as stored; each item of an answer is looked at: as long
//! as one may still be taken the batch is tried again, and what never will be is counted.
//! Source: Elasticsearch, "Bulk API"; names, Elastic Common Schema.

mod ecs;

use serde::Deserialize;
use serde_json::Value;

use super::hidden::Hidden;
use super::http::{Answer as HttpAnswer, Client};
use super::parts::{self, Part, Parts};
use super::sink::{Batch, Delivered, Driver, Failure};
use crate::config::{ElasticPlan, secret};

pub(super) use ecs::Documents;
pub use ecs::template;

/// Delivers batches.
pub(super) struct Bulk {
    plan: ElasticPlan,
    timeout_ms: u32,
    client: Option<Client>,
    parts: Parts,
    /// That documents are refused was logged, and none was taken whole since.
    told: bool,
}

/// An answer to `_bulk`.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
    #[serde(default)]
    error: Value,
}

impl Bulk {
    pub(super) fn new(plan: &ElasticPlan, timeout_ms: u32) -> Self {
        Self { plan: plan.clone(), timeout_ms, client: None, parts: Parts::new(), told: false }
    }

    fn send(&mut self, batch: &Batch, part: Part<'_>) -> Result<parts::Answer, Failure> {
        let posted = self.post(&body(&self.plan.index, batch, part));
        let answer = posted.map_err(|error| Failure::again(&error))?;
        let status = answer.status;
        let said =
            |text: &str| format!("{} answers {status}: {}", self.plan.url, answer.shown(text));
        match status {
            // Each document has an outcome, with a text if it is not taken: of fewer the answer is shorter.
            200 if answer.is_cut && part.records > 1 => {
                Ok(parts::Answer::TooLong(said("more than is read of an answer")))
            }
            200 => {
                let outcome = outcome(&answer.body, part.records);
                let (refused, error) = outcome.map_err(|text| Failure::again(&said(&text)))?;
                if let Some(error) = &error
                    && !self.told
                {
                    let error = answer.shown(&error.to_string());
                    tracing::error!(error, "Elasticsearch takes a document never");
                }
                self.told = error.is_some();
                Ok(parts::Answer::Taken { refused })
            }
            413 => Ok(parts::Answer::TooLong(said(&answer.text()))),
            // The request itself is wrong: a bug.
            400 => Err(Failure::refused(&said(&answer.text()))),
            _ => Err(Failure::again(&said(&answer.text()))),
        }
    }

    fn post(&mut self, body: &[u8]) -> Result<HttpAnswer, String> {
        let credentials = Credentials::of(&self.plan)?;
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let ca_file = self.plan.url.tls.then_some(self.plan.access.ca_file.as_path());
                Client::new(ca_file, self.timeout_ms)?
            }
        };
        let url = format!(
            "{}/_bulk?filter_path=items.*.status,items.*.error.type,items.*.error.reason",
            self.plan.url.as_str().trim_end_matches('/')
        );
        let mut headers = vec![("Content-Type", "application/x-ndjson")];
        let mut secrets = Vec::new();
        if let Some(Credentials { secret, header }) = &credentials {
            headers.push(("Authorization", header));
            secrets = vec![secret.as_str(), header.rsplit(' ').next().unwrap_or_default()];
        }
        let hidden = Hidden::new(&self.plan.url, &secrets);
        let answer = client.post(&url, &headers, body, hidden)?;
        self.client = Some(client);
        Ok(answer)
    }
}

/// How the probe shows who it is.
struct Credentials {
    secret: String,
    /// With the secret in it.
    header: String,
}

impl Credentials {
    fn of(plan: &ElasticPlan) -> Result<Option<Self>, String> {
        let read = |place| secret::read(place).map_err(|error| error.to_string());
        if let Some(place) = &plan.api_key {
            let secret = read(place)?;
            return Ok(Some(Self { header: format!("ApiKey {secret}"), secret }));
        }
        let (Some(user), Some(place)) = (&plan.access.user, &plan.access.password) else {
            return Ok(None);
        };
        let secret = read(place)?;
        let header = format!("Basic {}", base64(format!("{user}:{secret}").as_bytes()));
        Ok(Some(Self { secret, header }))
    }
}

impl Driver for Bulk {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        let mut parts = std::mem::replace(&mut self.parts, Parts::new());
        let delivered = parts.deliver(batch, |part| self.send(batch, part));
        self.parts = parts;
        delivered
    }
}

/// How many items are never taken, and why the first is not; an error where some may be taken yet.
fn outcome(answer: &[u8], records: u64) -> Result<(u64, Option<Value>), String> {
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|error| format!("no answer to _bulk: {error}"))?;
    if u64::try_from(answer.items.len()) != Ok(records) {
        return Err(format!("{} outcomes for {records} documents", answer.items.len()));
    }
    let (mut refused, mut first) = (0, None);
    for Item { create: Outcome { status, error } } in answer.items {
        match status {
            // Stored now, or by an attempt whose answer was lost.
            200..=299 | 409 => {}
            // The document fits its index never.
            400 => {
                first.get_or_insert(error);
                refused += 1;
            }
            // Too busy, no index and none may be made, blocked, no right: it may change.
            _ => return Err(format!("documents are not taken: {status} {error}")),
        }
    }
    Ok((refused, first))
}

/// An action before each document.
fn body(index: &str, batch: &Batch, part: Part<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(part.bytes.len() + part.bytes.len() / 4);
    let lines = part.bytes.split(|octet| *octet == b'\n').filter(|line| !line.is_empty());
    for (number, line) in (part.first..).zip(lines) {
        let action = serde_json::json!({ "create": {
            "_index": format!("{index}-{}", batch.table.name()),
            "_id": format!("{}/{number}", batch.token),
        }});
        body.extend_from_slice(action.to_string().as_bytes());
        body.push(b'\n');
        body.extend_from_slice(line);
        body.push(b'\n');
    }
    body
}

/// RFC 4648 §4.
fn base64(octets: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in octets.chunks(3) {
        let number = three.iter().fold(0_usize, |sum, octet| sum << 8 | usize::from(*octet));
        let number = number << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS.get(number >> (18 - 6 * place) & 63).copied().unwrap_or(b'=');
            text.push(if place > three.len() { '=' } else { letter.into() });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::config::SinkAccess;
    use crate::record::Table;

    #[test]
    fn base64_is_the_one_of_the_rfc() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let wanted = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        assert_eq!(texts.map(|text| base64(text.as_bytes())), wanted);
    }

    #[test]
    fn ids_are_the_same_in_each_attempt() {
        let batch = Batch {
            table: Table::Flows,
            records: 2,
            token: "p/s/1/7".to_owned(),
            bytes: b"{\"a\":1}\n{\"a\":2}\n".to_vec(),
        };
        let part = Part { bytes: &batch.bytes, first: 5, records: 2, whole: false };
        let text = String::from_utf8(body("x", &batch, part)).expect("UTF-8");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines[2]["create"]["_id"], "p/s/1/7/6");
        assert_eq!((&lines[0]["create"]["_index"], &lines[3]["a"]), (&"x-flows".into(), &2.into()));
    }

    #[test]
    fn each_item_of_an_answer_counts_by_itself() {
        let answer = |statuses: &[u16]| {
            let items =
                statuses.iter().map(|status| format!("{{\"create\":{{\"status\":{status}}}}}"));
            format!("{{\"items\":[{}]}}", items.collect::<Vec<_>>().join(",")).into_bytes()
        };
        let of = |statuses: &[u16]| outcome(&answer(statuses), 3).map(|(refused, _)| refused);
        assert_eq!((of(&[201, 409, 200]), of(&[201, 400, 400])), (Ok(0), Ok(2)));
        for status in [404, 403, 429, 503] {
            assert!(of(&[201, 400, status]).is_err(), "{status}");
        }
        assert!(of(&[201]).is_err() && outcome(b"<html>", 1).is_err());
    }

    /// Answers each request with a long reason for each of its documents.
    fn refuses_with_reasons(listener: &TcpListener) {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|octets| octets > 2) {
                if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = text.trim().parse().expect("a number");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let documents = std::str::from_utf8(&body).map_or(0, |body| body.lines().count() / 2);
            let reason = "failed to parse field ".repeat(14);
            let item = format!(
                "{{\"create\":{{\"status\":400,\"error\":{{\"type\":\"t\",\"reason\":\"{reason}\"}}}}}}"
            );
            let answer = format!("{{\"items\":[{}]}}", vec![item; documents].join(","));
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}", answer.len());
            // Of an answer that is too long not all is read.
            let _ = write!(reader.get_mut(), "{head}\r\n\r\n{answer}");
        }
    }

    #[test]
    fn documents_whose_reasons_are_too_long_for_one_answer_go_in_several_requests() {
        const RECORDS: u64 = 20_000;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        std::thread::spawn(move || refuses_with_reasons(&listener));
        let plan = ElasticPlan {
            url: url.parse().expect("a URL"),
            access: SinkAccess::default(),
            api_key: None,
            index: "vmprobe".to_owned(),
        };
        let batch = Batch {
            table: Table::Flows,
            records: RECORDS,
            token: "t".to_owned(),
            bytes: b"{}\n".repeat(usize::try_from(RECORDS).expect("few")),
        };
        let delivered = Bulk::new(&plan, 60_000).deliver(&batch);
        assert_eq!(delivered, Ok(Delivered { refused: RECORDS }));
    }
}
