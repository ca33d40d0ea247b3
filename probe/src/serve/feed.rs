//! Turns each new snapshot into the octets that clients get.
//!
//! In: the aggregator's [`LiveCell`]. Out: a watch channel with the newest [`Published`].
//! Cost: a pointer is compared every [`LOOK_MS`]; a changed snapshot is serialised once.
//! Invariants: the aggregator knows nothing of this; windows that close faster than it looks
//! (a replay at full speed) are passed over, the newest is always shown.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::watch;

use crate::aggregate::live::{LiveCell, LiveSnapshot};
use crate::time::monotonic_ns;

use super::Stopping;

/// Half of the shortest window, so that no window of a live probe is missed.
const LOOK_MS: u64 = 50;

/// One snapshot, ready to be sent.
#[derive(Debug)]
pub(super) struct Published {
    /// The snapshot itself.
    pub(super) snapshot: Arc<LiveSnapshot>,
    /// Counts snapshots; also tells caches apart.
    pub(super) sequence: u64,
    /// When it was noticed, on the monotonic clock.
    pub(super) noticed_ns: u64,
    /// Framed as a server-sent event.
    pub(super) event: Bytes,
    /// As JSON; shares its memory with `event`.
    pub(super) json: Bytes,
}

impl Published {
    fn new(snapshot: Arc<LiveSnapshot>, sequence: u64) -> Result<Self, serde_json::Error> {
        let mut event = format!("id: {sequence}\nevent: live\ndata: ").into_bytes();
        let begin = event.len();
        serde_json::to_writer(&mut event, &*snapshot)?;
        let end = event.len();
        event.extend_from_slice(b"\n\n");
        let event = Bytes::from(event);
        let json = event.slice(begin..end);
        Ok(Self { snapshot, sequence, noticed_ns: monotonic_ns(), event, json })
    }
}

/// Follows `live` until `stopping` says so.
pub(super) fn start(live: LiveCell, stopping: Stopping) -> watch::Receiver<Arc<Published>> {
    let first = Published::new(live.load_full(), 0).unwrap_or_else(|error| {
        tracing::error!(%error, "snapshot cannot be written as JSON");
        Published {
            snapshot: Arc::default(),
            sequence: 0,
            noticed_ns: monotonic_ns(),
            event: Bytes::new(),
            json: Bytes::from_static(b"{}"),
        }
    });
    let (sender, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(follow(live, sender, stopping));
    receiver
}

async fn follow(live: LiveCell, sender: watch::Sender<Arc<Published>>, mut stopping: Stopping) {
    let mut look = tokio::time::interval(Duration::from_millis(LOOK_MS));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => publish_if_new(&live, &sender),
            () = stopping.wait() => return,
        }
    }
}

fn publish_if_new(live: &LiveCell, sender: &watch::Sender<Arc<Published>>) {
    let (shown, sequence) = {
        let published = sender.borrow();
        (Arc::clone(&published.snapshot), published.sequence)
    };
    let newest = live.load_full();
    if Arc::ptr_eq(&shown, &newest) {
        return;
    }
    match Published::new(newest, sequence + 1) {
        Ok(published) => drop(sender.send_replace(Arc::new(published))),
        Err(error) => tracing::error!(%error, "snapshot cannot be written as JSON"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_one_data_line_and_json_is_its_value() {
        let hostile = LiveSnapshot { probe_id: "a\nevent: x\n\n".to_owned(), ..Default::default() };
        let published = Published::new(Arc::new(hostile), 7).expect("serialises");
        let text = std::str::from_utf8(&published.event).expect("UTF-8");
        let lines: Vec<_> = text.split('\n').collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!((lines[0], lines[1]), ("id: 7", "event: live"));
        let value: serde_json::Value = serde_json::from_slice(&published.json).expect("JSON");
        assert_eq!(value["probe_id"], "a\nevent: x\n\n");
    }
}
