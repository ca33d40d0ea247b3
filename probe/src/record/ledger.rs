//! The account of a window as records: the probe, each stage, each worker, each NIC port, each sink.
//!
//! In: the account now and at the view before. Out: [`LedgerRecord`]s of what happened between.
//! Invariants: of each scope the rows add up: received = accounted + Σ causes + what came to be in
//! flight.

use super::LedgerRecord;
use crate::aggregate::WindowView;
use crate::aggregate::live::LivePort;
use crate::counters::{CauseCounts, DropCause, WorkerTotals};
use crate::export::SinkLedger;
use crate::time::Timestamp;

/// Rows of the probe and its stages.
pub(super) fn ledger_rows(view: &WindowView) -> Vec<LedgerRecord> {
    let (now, before) = (&view.ledger, &view.ledger_before);
    let probe = Rower { window_start: view.start, scope: "probe", name: "probe".to_owned() };
    let mut rows = vec![
        probe.row("received", now.received.saturating_sub(before.received)),
        probe.row("accounted", now.accounted.saturating_sub(before.accounted)),
        probe.row("in_flight", now.in_flight),
    ];
    probe.causes(&now.causes, &before.causes, &mut rows);
    rows.push(LedgerRecord {
        unaccounted: Some(now.unaccounted),
        ..probe.row("unaccounted", now.unaccounted.unsigned_abs())
    });
    for (now, before) in now.stages().iter().zip(before.stages()) {
        let name = now.stage.name().to_owned();
        let stage = Rower { window_start: view.start, scope: "stage", name };
        rows.push(stage.row("in", now.packets_in.saturating_sub(before.packets_in)));
        rows.push(stage.row("left_out", now.left_out.saturating_sub(before.left_out)));
        rows.push(stage.row("out", now.packets_out.saturating_sub(before.packets_out)));
    }
    rows
}

/// Rows of the workers. Which worker owns which flow follows the secret of the run, so a replay,
/// which is repeatable, leaves them to its report.
pub fn workers_rows(view: &WindowView) -> Vec<LedgerRecord> {
    let nothing = WorkerTotals::default();
    let mut rows = Vec::new();
    for (place, worker) in view.workers.iter().enumerate() {
        let before = view.workers_before.get(place).unwrap_or(&nothing);
        worker_rows(view.start, place, worker, before, &mut rows);
    }
    rows
}

fn worker_rows(
    window_start: Timestamp,
    place: usize,
    now: &WorkerTotals,
    before: &WorkerTotals,
    rows: &mut Vec<LedgerRecord>,
) {
    let worker = Rower { window_start, scope: "worker", name: format!("worker-{place}") };
    rows.push(worker.row("received", now.received_packets - before.received_packets));
    rows.push(worker.row("spread_in", now.spread_in_packets - before.spread_in_packets));
    rows.push(worker.row("spread_out", now.spread_out_packets - before.spread_out_packets));
    rows.push(worker.row("booked", now.booked_packets - before.booked_packets));
    rows.push(worker.row("held", now.held_packets));
    worker.causes(&now.causes, &before.causes, rows);
    let unaccounted = now.unaccounted();
    rows.push(LedgerRecord {
        unaccounted: Some(unaccounted),
        ..worker.row("unaccounted", unaccounted.unsigned_abs())
    });
}

/// Rows of NIC ports: counts since their start.
pub fn port_rows(window_start: Timestamp, ports: &[LivePort]) -> Vec<LedgerRecord> {
    let mut rows = Vec::new();
    for port in ports {
        let name = port.port.clone();
        let port_row = Rower { window_start, scope: "nic_port", name };
        rows.push(port_row.row("received", port.received));
        rows.push(port_row.row("missed", port.missed));
        rows.push(port_row.row("errors", port.errors));
        rows.push(port_row.row("no_mbuf", port.no_mbuf));
    }
    rows
}

/// Rows of a sink, in records since its start.
pub fn sink_rows(window_start: Timestamp, name: &str, ledger: &SinkLedger) -> Vec<LedgerRecord> {
    let sink = Rower { window_start, scope: "sink", name: name.to_owned() };
    vec![
        sink.row("made", ledger.made),
        sink.row("delivered", ledger.delivered),
        sink.row("queued", ledger.queued),
        sink.row("dropped", ledger.dropped_sum()),
    ]
}

/// Makes rows of one scope.
struct Rower {
    window_start: Timestamp,
    scope: &'static str,
    name: String,
}

impl Rower {
    fn row(&self, measure: &str, packets: u64) -> LedgerRecord {
        LedgerRecord {
            window_start_ns: self.window_start.0,
            scope: self.scope,
            name: self.name.as_str().into(),
            measure: measure.into(),
            packet_count: packets,
            unaccounted: None,
            estimate: false,
        }
    }

    fn causes(&self, now: &CauseCounts, before: &CauseCounts, rows: &mut Vec<LedgerRecord>) {
        for cause in DropCause::ALL {
            let packets = now.of(*cause).saturating_sub(before.of(*cause));
            if packets > 0 {
                rows.push(self.row(cause.name(), packets));
            }
        }
    }
}
