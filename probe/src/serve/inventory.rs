//! The inventory over HTTP: who is who, what the sources do, and changes.
//!
//! In: the newest snapshot of the inventory, requests. Out: JSON; changes to the keeper's queue.
//! Cost: an answer reads one snapshot; what was known at an earlier time is made anew from the facts, on a
//! thread that may block.
//! Invariants: nothing waits for the keeper. A change needs a body of JSON, which no page of another
//! origin can send, and is let in as a whole or not at all. Sending it again changes nothing.
//! Source: RFC 9110 (methods), RFC 6901 (pointers in faults).

mod change;
mod shown;
#[cfg(test)]
mod tests;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::Serialize;
use std::sync::Arc;

use super::list::{self, Filter, Pairs};
use super::problem::{Problem, repeated};
use super::routes::Shared;
use crate::config::Plan;
use crate::inventory::{Address, Inventory, Mac, Segment, Uuid, VmEntry};
use crate::sources::json::{ended, parse_time};
use crate::sources::requests::Requests;
use crate::sources::{InventoryStatus, InventoryView, SourceHandle};
use crate::time::{Timestamp, wall_clock};

use change::Request;
pub(super) use shown::ShownVm;

/// Octets of a request that changes the inventory.
pub(super) const BODY_OCTETS_MAX: usize = 8 << 20;

/// What the server side holds of the inventory.
#[derive(Clone, Debug)]
pub struct InventoryApi {
    /// The inventory.
    pub view: InventoryView,
    /// The way in; `None` where requests may not change it.
    pub handle: Option<SourceHandle>,
    /// Names of domains.
    pub plan: Arc<Plan>,
    /// Requests that were taken.
    pub requests: Arc<Mutex<Requests>>,
}

impl InventoryApi {
    /// Of an inventory that nobody changes.
    pub fn of(inventory: Inventory) -> Self {
        let view = InventoryView::of(inventory);
        Self { view, handle: None, plan: Arc::default(), requests: Arc::default() }
    }
}

/// Ways to choose VMs.
pub(super) const VM_FILTERS: &[Filter<ShownVm>] = &[
    Filter { name: "name", values: &[], passes: |vm, value| vm.name.as_deref() == Some(value) },
    Filter { name: "tenant", values: &[], passes: |vm, value| vm.tenant.as_deref() == Some(value) },
    Filter { name: "host", values: &[], passes: |vm, value| vm.host.as_deref() == Some(value) },
    Filter { name: "at", values: &[], passes: |_, _| true },
    Filter {
        name: "learned",
        values: &["true", "false"],
        passes: |vm, value| vm.learned == (value == "true"),
    },
];

/// `GET /api/v1/inventory`: how the inventory and its sources are doing.
pub(super) async fn status(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Response {
    match list::none_allowed(&pairs) {
        Ok(()) => Json::<&InventoryStatus>(&shared.inventory.view.status.load()).into_response(),
        Err(problem) => problem.into_response(),
    }
}

#[derive(Serialize)]
struct VmPage {
    /// Since when the snapshot is known.
    known_ns: u64,
    /// The instant that is shown.
    at_ns: u64,
    total: usize,
    limit: usize,
    offset: usize,
    items: Vec<ShownVm>,
}

/// `GET /api/v1/inventory/vms`: VMs as they are at a time, now without one; with `learned=true` the
/// endpoints that were only learned instead.
pub(super) async fn vms(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Response {
    answer(vm_page(&shared, &pairs).map(Json))
}

fn vm_page(shared: &Shared, pairs: &Pairs) -> Result<VmPage, Problem> {
    let query = list::read(pairs, VM_FILTERS)?;
    let at = time_of(pairs, "at")?.unwrap_or_else(wall_clock);
    let inventory = shared.inventory.view.inventory.load_full();
    let domains = &shared.inventory.plan.domains;
    let (mut total, mut items) = (0, Vec::new());
    let asks_learned = query.chosen.iter().any(|(filter, _)| filter.name == "learned");
    for (_, entry) in inventory.entries() {
        if entry.history.learned && !asks_learned {
            continue;
        }
        let Some(vm) = ShownVm::at(&entry.history, at, domains) else { continue };
        if query.chosen.iter().all(|(filter, value)| (filter.passes)(&vm, value)) {
            if total >= query.offset && items.len() < query.limit {
                items.push(vm);
            }
            total += 1;
        }
    }
    let (limit, offset) = (query.limit, query.offset);
    Ok(VmPage { known_ns: inventory.known().0, at_ns: at.0, total, limit, offset, items })
}

/// `GET /api/v1/inventory/vms/{uuid}`: a VM with all that was ever said of it.
pub(super) async fn vm(
    State(shared): State<Shared>,
    Path(uuid): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Response {
    if let Err(problem) = list::none_allowed(&pairs) {
        return problem.into_response();
    }
    let inventory = shared.inventory.view.inventory.load_full();
    let shown = uuid_of(&uuid).and_then(|uuid| {
        let entry = entry(&inventory, uuid).ok_or_else(|| unknown_vm(uuid))?;
        Ok(Json(shown::history(entry, &inventory, &shared.inventory.plan.domains)))
    });
    answer(shown)
}

fn entry(inventory: &Inventory, uuid: Uuid) -> Option<&Arc<VmEntry>> {
    let mut entries = inventory.entries();
    let is_it = |entry: &VmEntry| entry.history.uuid == uuid && !entry.history.learned;
    entries.find(|(_, entry)| is_it(entry)).map(|(_, entry)| entry)
}

fn unknown_vm(uuid: Uuid) -> Problem {
    let error = format!("no VM {uuid} is known");
    Problem::new(StatusCode::NOT_FOUND, error, "see /api/v1/inventory/vms")
}

/// `GET /api/v1/inventory/resolve/{address}`: who had an address when, as far as it was known then.
pub(super) async fn resolve(
    State(shared): State<Shared>,
    Path(address): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Response {
    let question = match Question::new(&address, &pairs) {
        Ok(question) => question,
        Err(problem) => return problem.into_response(),
    };
    let inventory = shared.inventory.view.inventory.load_full();
    let plan = Arc::clone(&shared.inventory.plan);
    let answered = tokio::task::spawn_blocking(move || question.ask(inventory, &plan.domains));
    match answered.await {
        Ok(found) => answer(found.map(Json)),
        Err(_) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "it was not found out", "another try")
                .into_response()
        }
    }
}

/// What is asked of an address.
struct Question {
    address: (Address, u8),
    space: String,
    mac: Option<Mac>,
    at: Timestamp,
    known: Option<Timestamp>,
}

#[derive(Serialize)]
struct Resolved {
    at_ns: u64,
    known_ns: u64,
    /// Null: nobody of the inventory.
    vm: Option<ShownVm>,
}

impl Question {
    const NAMES: [&'static str; 4] = ["address_space", "mac", "at", "known"];

    fn new(address: &str, pairs: &Pairs) -> Result<Self, Problem> {
        let ip = address.parse().map_err(|_| {
            let error = format!("{:?} is no address", repeated(address));
            Problem::bad_request(error, "an IPv4 or IPv6 address")
        })?;
        for (place, (name, _)) in pairs.iter().enumerate() {
            let twice = pairs.iter().take(place).any(|(earlier, _)| earlier == name);
            if twice || !Self::NAMES.contains(&name.as_str()) {
                let error = format!("parameter {:?} is unknown, or given twice", repeated(name));
                return Err(Problem::bad_request(error, Self::NAMES.join(", ")));
            }
        }
        let text =
            |wanted: &str| pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        let mac = text("mac").map(|text| text.parse::<Mac>());
        let mac =
            mac.transpose().map_err(|error| Problem::bad_request("mac", error.to_string()))?;
        Ok(Self {
            address: Address::of_ip(ip),
            space: text("address_space").map_or("default/none", String::as_str).to_owned(),
            mac,
            at: time_of(pairs, "at")?.unwrap_or_else(wall_clock),
            known: time_of(pairs, "known")?,
        })
    }

    fn ask(self, newest: Arc<Inventory>, domains: &[String]) -> Result<Resolved, Problem> {
        let inventory = match self.known {
            Some(known) => Arc::new(newest.known_at(known)),
            None => newest,
        };
        let spaces = inventory.spaces();
        let of_segment =
            || Segment::parse(&self.space, domains).map(|segment| spaces.at(segment, self.at));
        let space = spaces.named(&self.space).or_else(of_segment).ok_or_else(|| {
            let error = format!("address_space: {:?} is none", repeated(&self.space));
            Problem::bad_request(error, "the name of a joined address space, or a segment")
        })?;
        let (address, version) = self.address;
        let found = inventory.resolve(space, address, version, self.mac, self.at);
        let vm = found.and_then(|vm| inventory.vm(vm));
        Ok(Resolved {
            at_ns: self.at.0,
            known_ns: self.known.unwrap_or(inventory.known()).0,
            vm: vm.map(|vm| ShownVm::new(vm, self.at, domains)),
        })
    }
}

/// `POST /api/v1/inventory`: events, in bulk.
#[expect(clippy::redundant_closure_for_method_calls, reason = "the method is of one lifetime")]
pub(super) async fn events(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = Request::new("POST", "", &headers, Some(&body));
    request.change(&shared, |reader, body| reader.events(body))
}

/// `PUT /api/v1/inventory/vms/{uuid}`: all that this way says of a VM.
pub(super) async fn put_vm(
    State(shared): State<Shared>,
    Path(target): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let uuid = match uuid_of(&target) {
        Ok(uuid) => uuid,
        Err(problem) => return problem.into_response(),
    };
    let target = &uuid.to_string();
    let request = Request::new("PUT", target, &headers, Some(&body));
    request.change(&shared, |reader, body| reader.vm(uuid, body))
}

/// `DELETE /api/v1/inventory/vms/{uuid}`: the VM ends, now or `at` a time.
pub(super) async fn end_vm(
    State(shared): State<Shared>,
    Path(uuid): Path<String>,
    Query(pairs): Query<Pairs>,
    headers: HeaderMap,
) -> Response {
    let wanted = uuid_of(&uuid).and_then(|uuid| {
        let allowed = ["at", "revision"];
        let unknown = pairs.iter().find(|(name, _)| !allowed.contains(&name.as_str()));
        if let Some((name, _)) = unknown {
            let error = format!("unknown parameter {:?}", repeated(name));
            return Err(Problem::bad_request(error, allowed.join(", ")));
        }
        let revision = pairs.iter().find(|(name, _)| name == "revision").map(|(_, text)| {
            let error = format!("revision: {:?} is none", repeated(text));
            text.parse().map_err(|_| Problem::bad_request(error, "a whole number"))
        });
        let at = time_of(&pairs, "at")?.unwrap_or_else(wall_clock);
        Ok((uuid, at, revision.transpose()?))
    });
    let (uuid, at, revision) = match wanted {
        Ok(wanted) => wanted,
        Err(problem) => return problem.into_response(),
    };
    let target = &format!("{uuid} {pairs:?}");
    let request = Request { of: Some(uuid), ..Request::new("DELETE", target, &headers, None) };
    request.change(&shared, |_, _| Ok(ended(uuid, at, revision)))
}

fn answer<T: IntoResponse>(answer: Result<T, Problem>) -> Response {
    answer.map_or_else(IntoResponse::into_response, IntoResponse::into_response)
}

fn uuid_of(text: &str) -> Result<Uuid, Problem> {
    text.parse().map_err(|error: crate::inventory::NotUuid| {
        let problem = format!("{:?} is no UUID", repeated(text));
        Problem::bad_request(problem, error.to_string())
    })
}

fn time_of(pairs: &Pairs, wanted: &str) -> Result<Option<Timestamp>, Problem> {
    let Some((_, text)) = pairs.iter().find(|(name, _)| name == wanted) else { return Ok(None) };
    parse_time(text).map(Some).ok_or_else(|| {
        let error = format!("{wanted}: {:?} is no time", repeated(text));
        let allowed = "nanoseconds since 1970, or a time with offset such as 2026-01-31T12:00:00Z";
        Problem::bad_request(error, allowed)
    })
}
