//! Requests that change the inventory.
//!
//! In: a method, headers, a body. Out: changes to the keeper's queue; what was done.
//! Cost: a pass over the body; a lock that only other such requests want, while nothing is read or waited
//! for.
//! Invariants: a request with a key that was taken before is answered as it was and changes nothing; an
//! event of a VM that is older than what was told of that VM, or as old, is passed over. Both hold over a
//! restart where a journal is kept. Requests are taken one at a time, so that what is checked still holds
//! when the changes are handed over.
//! Source: draft-ietf-httpapi-idempotency-key-header; RFC 9110 section 15.5 (409, 415, 422).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::super::problem::Problem;
use super::super::routes::Shared;
use super::{entry, unknown_vm};
use crate::index::content_id;
use crate::inventory::Uuid;
use crate::sources::json::{Event, Fault, Reader, Said};
use crate::sources::requests::{RequestNote, Requests, Taken};
use crate::time::wall_clock;

/// Header with the client's key.
const KEY: &str = "idempotency-key";
/// Header of an answer that was given before.
const REPLAYED: &str = "idempotency-replayed";
/// Longest key, in octets.
const KEY_OCTETS_MAX: usize = 255;

/// A request that was let in.
#[derive(Serialize)]
struct Accepted {
    /// Since when it is known.
    known_ns: u64,
    /// Changes of attributes.
    changes: u64,
    /// Events that were passed over.
    stale_events: u64,
}

impl From<Taken> for Accepted {
    fn from(taken: Taken) -> Self {
        let Taken { known, changes, stale, .. } = taken;
        Self { known_ns: known.0, changes, stale_events: stale }
    }
}

/// A body that is wrong.
#[derive(Serialize)]
struct Wrong {
    error: &'static str,
    allowed: &'static str,
    faults: Vec<Fault>,
}

/// What is asked.
pub(super) struct Request<'a> {
    /// Method.
    pub(super) method: &'static str,
    /// What it is about, in one way only.
    pub(super) target: &'a str,
    /// Headers.
    pub(super) headers: &'a HeaderMap,
    /// Body, of a method that has one.
    pub(super) body: Option<&'a Bytes>,
    /// A VM that has to be known.
    pub(super) of: Option<Uuid>,
}

impl<'a> Request<'a> {
    /// Of whatever VMs.
    pub(super) fn new(
        method: &'static str,
        target: &'a str,
        headers: &'a HeaderMap,
        body: Option<&'a Bytes>,
    ) -> Self {
        Self { method, target, headers, body, of: None }
    }

    /// Reads the body and hands over what it says.
    pub(super) fn change(
        &self,
        shared: &Shared,
        read: impl FnOnce(Reader<'_>, &serde_json::Value) -> Result<Said, Vec<Fault>>,
    ) -> Response {
        let Some(handle) = &shared.inventory.handle else {
            let error = "requests may not change the inventory";
            let problem = Problem::new(StatusCode::FORBIDDEN, error, "inventory.api = true");
            return problem.into_response();
        };
        if handle.is_stopping() {
            return ending();
        }
        let (key, body) = match self.key().and_then(|key| Ok((key, self.parsed()?))) {
            Ok(parsed) => parsed,
            Err(problem) => return problem.into_response(),
        };
        let now = wall_clock();
        let mut said = match read(Reader::new(&shared.inventory.plan.domains, now), &body) {
            Ok(said) => said,
            Err(faults) => return wrong(faults),
        };
        let digest = self.digest();
        let mut requests = shared.inventory.requests.lock();
        let taken = key.as_ref().and_then(|key| requests.taken(key));
        if let Some(taken) = taken {
            return again(taken, digest);
        }
        if let Some(vm) = self.of
            && !requests.was_told(vm)
            && entry(&shared.inventory.view.inventory.load(), vm).is_none()
        {
            return unknown_vm(vm).into_response();
        }
        if self.method != "POST"
            && let Err(problem) = newest(&said, &requests)
        {
            return problem.into_response();
        }
        let (stale, revisions) = pass_over(&mut said, &requests);
        let says = |event: &&Event| event.changes.iter().any(|change| change.value.is_some());
        let told: Vec<Uuid> = said.events.iter().filter(says).map(|event| event.vm).collect();
        let batch = said.into_batch();
        let changes = batch.changes.len() as u64;
        let taken = Taken { digest, known: now, changes, stale };
        let note = RequestNote { key: key.map(|key| (key, taken)), revisions };
        if (changes > 0 || !note.is_empty()) && handle.send_noted(batch, note.clone(), now).is_err()
        {
            let error = "too many changes wait already";
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, error, "the same, later");
            return ([(header::RETRY_AFTER, "1")], problem).into_response();
        }
        // What was handed over before the end began is applied; of this nobody knows.
        if handle.is_stopping() {
            return ending();
        }
        requests.note(&note);
        requests.tell(&told);
        (StatusCode::ACCEPTED, Json(Accepted::from(taken))).into_response()
    }

    fn key(&self) -> Result<Option<Arc<str>>, Problem> {
        let mut keys = self.headers.get_all(KEY).iter();
        let (Some(key), more) = (keys.next(), keys.next()) else { return Ok(None) };
        let text = key.to_str().unwrap_or_default().trim();
        let visible = text.bytes().all(|octet| octet.is_ascii_graphic());
        if more.is_some() || !(1..=KEY_OCTETS_MAX).contains(&text.len()) || !visible {
            let allowed = format!("one of 1 to {KEY_OCTETS_MAX} visible ASCII characters");
            return Err(Problem::bad_request("Idempotency-Key is none", allowed));
        }
        Ok(Some(text.into()))
    }

    /// The same for the same request.
    fn digest(&self) -> u64 {
        let body = self.body.map(|body| body.iter()).into_iter().flatten();
        let asked = self.method.as_bytes().iter().chain(b" ").chain(self.target.as_bytes());
        content_id(asked.chain(b"\n").chain(body))
    }

    fn parsed(&self) -> Result<serde_json::Value, Problem> {
        let Some(body) = self.body else { return Ok(serde_json::Value::Null) };
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let error = "the body is not announced as JSON";
            let allowed = "Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error, allowed));
        }
        serde_json::from_slice(body).map_err(|error| {
            Problem::bad_request(format!("the body is no JSON: {error}"), "one object")
        })
    }
}

/// The answer to a request whose key was used before.
fn again(taken: Taken, digest: u64) -> Response {
    if taken.digest != digest {
        let error = "the Idempotency-Key was used for another request";
        let allowed = "a key of its own for each request, the same one to send it again";
        return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error, allowed).into_response();
    }
    (StatusCode::ACCEPTED, [(REPLAYED, "true")], Json(Accepted::from(taken))).into_response()
}

/// Who says something of one VM should know that another one has said something newer.
fn newest(said: &Said, requests: &Requests) -> Result<(), Problem> {
    for event in &said.events {
        let (Some(known), Some(given)) = (requests.revision(event.vm), event.revision) else {
            continue;
        };
        if given < known {
            let error = format!("revision {given} is older than {known}, which is known already");
            return Err(Problem::new(StatusCode::CONFLICT, error, "a newer revision"));
        }
    }
    Ok(())
}

/// Takes events out that say nothing newer of their VM than what was told before this request, or are older
/// than another one of it; gives their number, and the revisions of the rest.
fn pass_over(said: &mut Said, requests: &Requests) -> (u64, Vec<(Uuid, u64)>) {
    let mut given: BTreeMap<Uuid, u64> = BTreeMap::new();
    let before = said.events.len();
    said.events.retain(|event| {
        let Some(revision) = event.revision else { return true };
        let newer = requests.revision(event.vm).is_none_or(|known| known < revision);
        let newest = given.get(&event.vm).is_none_or(|other| *other <= revision);
        if newer && newest {
            given.insert(event.vm, revision);
        }
        newer && newest
    });
    ((before - said.events.len()) as u64, given.into_iter().collect())
}

/// Nobody takes changes any more. One that was under way may have been taken or not, which the key tells.
fn ending() -> Response {
    let error = "the probe ends, and takes no changes any more";
    let allowed = "the same with the same Idempotency-Key, once it runs again";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, error, allowed);
    ([(header::RETRY_AFTER, "1")], problem).into_response()
}

fn wrong(faults: Vec<Fault>) -> Response {
    let error = "the body is wrong; nothing of it was taken";
    let wrong = Wrong { error, allowed: "see faults", faults };
    (StatusCode::BAD_REQUEST, Json(wrong)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Scope;

    fn event(vm: u128, revision: Option<u64>) -> Event {
        Event { vm: Uuid(vm), revision, changes: Vec::new() }
    }

    #[test]
    fn an_older_event_is_passed_over() {
        let mut requests = Requests::default();
        requests.note(&RequestNote { key: None, revisions: vec![(Uuid(1), 5)] });
        let events = [(1, 4), (1, 5), (1, 6), (1, 6), (2, 3), (2, 2), (2, 3)];
        let mut events: Vec<_> =
            events.into_iter().map(|(vm, revision)| event(vm, Some(revision))).collect();
        events.push(event(1, None));
        let mut said = Said { events, spaces: Vec::new(), scope: Scope::Some };
        assert!(newest(&said, &requests).is_err());
        let (stale, revisions) = pass_over(&mut said, &requests);
        assert_eq!((stale, revisions), (3, vec![(Uuid(1), 6), (Uuid(2), 3)]));
        let left: Vec<_> = said.events.iter().map(|event| (event.vm.0, event.revision)).collect();
        assert_eq!(left, [(1, Some(6)), (1, Some(6)), (2, Some(3)), (2, Some(3)), (1, None)]);
        assert!(newest(&said, &requests).is_ok());
    }
}
