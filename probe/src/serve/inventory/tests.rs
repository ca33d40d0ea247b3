//! Requests that change the inventory, beside a keeper that is given its turns by hand.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::to_bytes;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use super::super::Stopping;
use super::super::feed::Published;
use super::*;
use crate::inventory::SourceKind;
use crate::sources::{Keeper, SourceSpec};

const VM: &str = "00000000-0000-0000-0000-000000000003";

struct Rig {
    keeper: Keeper,
    shared: Shared,
    stop: Arc<AtomicBool>,
}

/// What came back.
struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Json,
}

impl Rig {
    fn new() -> Self {
        let (plan, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let spec = SourceSpec {
            kind: SourceKind::Api,
            name: "api".to_owned(),
            rank: 0,
            stale_after_ms: None,
        };
        let (keeper, mut handles) =
            Keeper::new(&plan, vec![spec], Arc::clone(&stop), false, wall_clock());
        let (view, handle) = (keeper.view().clone(), handles.pop());
        let inventory = InventoryApi { view, handle, plan, requests: Arc::default() };
        let published = Published {
            snapshot: Arc::default(),
            sequence: 0,
            noticed_ns: 0,
            event: Bytes::new(),
            json: Bytes::new(),
        };
        let (_, published) = watch::channel(Arc::new(published));
        let (_, stopping) = watch::channel(false);
        let shared = Shared::new(published, Stopping(stopping), (inventory, None));
        Self { keeper, shared, stop }
    }

    fn put(&self, key: &str, body: &Json) -> Answered {
        let mut headers = keyed(key);
        headers.insert("content-type", "application/json".parse().expect("a value"));
        let body = Bytes::from(body.to_string());
        answered(put_vm(State(self.shared.clone()), Path(VM.to_owned()), headers, body))
    }

    fn delete(&self, vm: &str, headers: HeaderMap, revision: Option<&str>) -> Answered {
        let pairs: Pairs =
            revision.map(|text| ("revision".to_owned(), text.to_owned())).into_iter().collect();
        answered(end_vm(State(self.shared.clone()), Path(vm.to_owned()), Query(pairs), headers))
    }

    /// All batches that wait, one after the other.
    fn settle(&mut self) {
        while self.keeper.turn(0) {}
    }

    fn names(&self) -> Vec<String> {
        let inventory = self.shared.inventory.view.inventory.load();
        let entries = inventory.entries().map(|(_, entry)| &entry.history);
        let names = entries.filter_map(|vm| vm.names.at(wall_clock()).map(ToString::to_string));
        names.collect()
    }
}

fn keyed(key: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("idempotency-key", key.parse().expect("a value"));
    headers
}

fn answered(response: impl Future<Output = Response>) -> Answered {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (parts, body) = response.await.into_parts();
        let body = to_bytes(body, BODY_OCTETS_MAX).await.expect("a body");
        let body = serde_json::from_slice(&body).expect("JSON");
        Answered { status: parts.status.as_u16(), headers: parts.headers, body }
    })
}

#[test]
fn nothing_is_let_in_once_nobody_takes_it() {
    let mut rig = Rig::new();
    assert_eq!(rig.put("first", &json!({"name": "web"})).status, 202);
    rig.stop.store(true, Ordering::SeqCst);
    let refused = rig.put("second", &json!({"name": "db"}));
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(refused.body["error"], "the probe ends, and takes no changes any more");
    // It is not remembered either: the same again is new.
    assert!(rig.shared.inventory.requests.lock().taken("second").is_none());
    rig.settle();
    assert_eq!(rig.names(), ["web"], "what was let in is known");
}

#[test]
fn a_vm_ends_although_no_look_up_sees_it_yet() {
    const OTHER: &str = "00000000-0000-0000-0000-000000000004";
    let mut rig = Rig::new();
    assert_eq!(rig.delete(VM, HeaderMap::new(), None).status, 404, "nobody has told of it");
    assert_eq!(rig.put("create", &json!({"name": "web", "revision": 2})).status, 202);
    // The keeper has had no turn.
    assert!(rig.names().is_empty());
    assert_eq!(rig.delete(OTHER, keyed("other"), None).status, 404);
    assert_eq!(rig.delete(VM, keyed("older"), Some("1")).status, 409);
    let ended = rig.delete(VM, keyed("end"), Some("3"));
    assert_eq!((ended.status, &ended.body["changes"]), (202, &json!(1)), "{}", ended.body);
    assert!(!ended.headers.contains_key("idempotency-replayed"));
    rig.settle();
    let inventory = rig.shared.inventory.view.inventory.load_full();
    let uuid = VM.parse().expect("a UUID");
    assert!(entry(&inventory, uuid).is_some_and(|entry| entry.history.ended().is_some()));
    let again = rig.delete(VM, keyed("end"), Some("3"));
    assert_eq!((again.status, &again.body), (202, &ended.body));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(rig.delete(VM, keyed("end"), Some("4")).status, 422, "another request");
}

/// A probe may have forgotten the VM since.
#[test]
fn a_key_that_was_taken_counts_before_anything_else() {
    let rig = Rig::new();
    assert_eq!(rig.put("create", &json!({"name": "web"})).status, 202);
    let ended = rig.delete(VM, keyed("end"), None);
    assert_eq!(ended.status, 202, "{}", ended.body);
    let requests = rig.shared.inventory.requests.lock().clone();
    let mut anew = Rig::new();
    // As a journal gives them back.
    let notes = requests.notes();
    for note in &notes {
        anew.shared.inventory.requests.lock().note(note);
    }
    let again = anew.delete(VM, keyed("end"), None);
    assert_eq!((again.status, &again.body), (202, &ended.body));
    assert_eq!(anew.delete(VM, keyed("new"), None).status, 404);
    anew.settle();
    assert!(anew.names().is_empty(), "nothing was told again");
}
