//! The account of a window as records: the probe, each stage, each worker, each NIC port, each sink.
//!
//! In: the account now and at the view before. Out: [`LedgerRecord`]s of what happened between;
//! `in_flight`, `held` and `queued` are how much there is now.
//! Invariants: of each scope the rows add up: received = accounted + Σ causes + what came to be in
//! flight. Stages count packets when their way is over.

use super::LedgerRecord;
use crate::aggregate::WindowView;
use crate::aggregate::live::LivePort;
use crate::aggregate::path::PathView;
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
    if view.late_packets > 0 {
        rows.push(probe.row("late_rows", view.late_packets));
    }
    if view.measures_lost > 0 {
        rows.push(probe.row("measures_lost", view.measures_lost));
    }
    for (now, before) in now.stages().iter().zip(before.stages()) {
        let name = now.stage.name().to_owned();
        let stage = Rower { window_start: view.start, scope: "stage", name };
        rows.push(stage.row("in", now.packets_in.saturating_sub(before.packets_in)));
        rows.push(stage.row("left_out", now.left_out.saturating_sub(before.left_out)));
        rows.push(stage.row("out", now.packets_out.saturating_sub(before.packets_out)));
    }
    rows
}

/// Samples of delays whose tenant found no room in a window.
pub(super) fn tenant_delays_lost(view: &WindowView, samples: u64) -> LedgerRecord {
    let probe = Rower { window_start: view.start, scope: "probe", name: "probe".to_owned() };
    probe.row("tenant_delays_lost", samples)
}

/// Migrations that found no room.
pub fn migrations_lost(window_start: Timestamp, migrations: u64) -> LedgerRecord {
    let probe = Rower { window_start, scope: "probe", name: "probe".to_owned() };
    probe.row("migrations_lost", migrations)
}

/// Messages of applications of which no transaction tells: those that found no room, and those that are
/// none.
pub fn app_messages(
    window_start: Timestamp,
    [lost, malformed]: [u64; 2],
) -> impl Iterator<Item = LedgerRecord> {
    let probe = Rower { window_start, scope: "probe", name: "probe".to_owned() };
    let counts = [("app_messages_lost", lost), ("app_messages_malformed", malformed)];
    let some = counts.into_iter().filter(|(_, messages)| *messages > 0);
    some.map(move |(measure, messages)| probe.row(measure, messages))
}

/// Packets that were followed between taps and that no way counts, because there were too many endpoints,
/// or too many packets at one tap alone; those that came after their own window was given out; and those
/// whose sightings found no room in `path_samples`, or among those of which it is known when they were
/// seen. Also endpoints of which something was not remembered.
pub(super) fn path_rows(view: &PathView) -> Vec<LedgerRecord> {
    let probe = Rower { window_start: view.start, scope: "probe", name: "probe".to_owned() };
    let counts = [
        ("path_rows_full", view.full_packets),
        ("path_late", view.late_packets),
        ("path_samples_full", view.full_samples),
        ("path_times_full", view.full_times),
        ("path_ways_full", view.forgotten.ways),
        ("path_places_full", view.forgotten.places),
        ("path_stations_full", view.forgotten.stations),
    ];
    let some = counts.into_iter().filter(|(_, packets)| *packets > 0);
    some.map(|(measure, packets)| probe.row(measure, packets)).collect()
}

/// Rows of the workers, named by `names` in their order: `port/queue` where one reads a queue.
pub fn workers_rows(view: &WindowView, names: &[String]) -> Vec<LedgerRecord> {
    let nothing = WorkerTotals::default();
    let mut rows = Vec::new();
    for (place, worker) in view.workers.iter().enumerate() {
        let before = view.workers_before.get(place).unwrap_or(&nothing);
        let name = names.get(place).cloned().unwrap_or_else(|| format!("worker-{place}"));
        let rower = Rower { window_start: view.start, scope: "worker", name };
        worker_rows(&rower, worker, before, &mut rows);
    }
    rows
}

fn worker_rows(
    worker: &Rower,
    now: &WorkerTotals,
    before: &WorkerTotals,
    rows: &mut Vec<LedgerRecord>,
) {
    rows.push(worker.row("received", now.received_packets - before.received_packets));
    rows.push(worker.row("spread_in", now.spread_in_packets - before.spread_in_packets));
    rows.push(worker.row("spread_out", now.spread_out_packets - before.spread_out_packets));
    rows.push(worker.row("booked", now.booked_packets - before.booked_packets));
    rows.push(worker.row("held", now.held_packets));
    worker.causes(&now.causes, &before.causes, rows);
    let beside = now.beside_balance().into_iter().zip(before.beside_balance());
    for ((measure, now), (_, before)) in beside {
        let count = now - before;
        // They are no part of the balance, so a row of 0 would say nothing.
        if count > 0 {
            rows.push(worker.row(measure, count));
        }
    }
    let unaccounted = now.unaccounted();
    rows.push(LedgerRecord {
        unaccounted: Some(unaccounted),
        ..worker.row("unaccounted", unaccounted.unsigned_abs())
    });
}

/// Rows of NIC ports, which are in the same order each time; the first ones count since the start.
pub fn port_rows(
    window_start: Timestamp,
    now: &[LivePort],
    before: &[LivePort],
) -> Vec<LedgerRecord> {
    let nothing = LivePort::default();
    let mut rows = Vec::new();
    for (place, port) in now.iter().enumerate() {
        let before = before.get(place).unwrap_or(&nothing);
        let rower = Rower { window_start, scope: "nic_port", name: port.port.clone() };
        // A driver that begins anew counts from 0 again.
        let mut row = |measure, now: u64, before: u64| {
            rows.push(rower.row(measure, now.saturating_sub(before)));
        };
        row("received", port.received, before.received);
        row("missed", port.missed, before.missed);
        row("errors", port.errors, before.errors);
        row("no_mbuf", port.no_mbuf, before.no_mbuf);
    }
    rows
}

/// Rows of the sinks of one name, in records: the one that runs, and those of that name that were taken
/// away. The accounts are their sums, so that a window has one row of a name and measure.
pub fn sink_rows(
    window_start: Timestamp,
    name: &str,
    now: &SinkLedger,
    before: &SinkLedger,
) -> Vec<LedgerRecord> {
    let sink = Rower { window_start, scope: "sink", name: name.to_owned() };
    let since = |of: fn(&SinkLedger) -> u64| of(now).saturating_sub(of(before));
    vec![
        sink.row("made", since(|it| it.made)),
        sink.row("delivered", since(|it| it.delivered)),
        sink.row("queued", now.queued),
        sink.row("dropped", since(SinkLedger::dropped_sum)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::path::Forgotten;

    fn sum(rows: &[LedgerRecord], measure: &str) -> u64 {
        let of = |row: &&LedgerRecord| &*row.measure == measure;
        rows.iter().filter(of).map(|row| row.packet_count).sum()
    }

    #[test]
    fn what_a_worker_let_go_has_its_row() {
        let before = WorkerTotals { flow_records_lost: 3, ..WorkerTotals::default() };
        let now = WorkerTotals {
            flow_records_lost: 7,
            flows_evicted: [2, 1],
            digests_evicted: 5,
            icmp_quotes_lost: 9,
            fragments_unresolved: 6,
            late_packets: 8,
            ..WorkerTotals::default()
        };
        let name = "p/0".to_owned();
        let worker = Rower { window_start: Timestamp(1), scope: "worker", name };
        let mut rows = Vec::new();
        worker_rows(&worker, &now, &before, &mut rows);
        let sums = ["flow_records_lost", "flows_evicted", "digests_evicted", "icmp_quotes_lost"];
        assert_eq!(sums.map(|measure| sum(&rows, measure)), [4, 3, 5, 9]);
        assert_eq!(["fragments_unresolved", "late"].map(|measure| sum(&rows, measure)), [6, 8]);
        assert!(rows.iter().all(|row| &*row.name == "p/0"));
    }

    #[test]
    fn packets_that_no_way_counts_have_their_rows() {
        let view = |full_packets, late_packets, full_samples, full_times| PathView {
            start: Timestamp(7),
            end: Timestamp(8),
            rows: Vec::new(),
            samples: Vec::new(),
            late_packets,
            full_packets,
            full_samples,
            full_times,
            moves: Vec::new(),
            forgotten: Forgotten {
                ways: full_packets * 10,
                places: late_packets * 10,
                stations: full_times * 10,
            },
        };
        let rows = path_rows(&view(3, 2, 9, 4));
        let sums = ["path_rows_full", "path_late", "path_samples_full", "path_times_full"];
        assert_eq!(sums.map(|measure| sum(&rows, measure)), [3, 2, 9, 4]);
        let sums = ["path_ways_full", "path_places_full", "path_stations_full"];
        assert_eq!(sums.map(|measure| sum(&rows, measure)), [30, 20, 40]);
        assert!(rows.iter().all(|row| row.window_start_ns == 7 && row.scope == "probe"));
        assert!(path_rows(&view(0, 0, 0, 0)).is_empty());
    }

    #[test]
    fn rows_of_ports_and_sinks_add_up_over_windows() {
        let port = |received, missed| LivePort {
            port: "p".to_owned(),
            received,
            missed,
            ..LivePort::default()
        };
        let mut sinks = [SinkLedger::default(); 3];
        sinks[1].queue(5);
        sinks[2].queue(9);
        sinks[2].deliver(6);
        let ports = [vec![], vec![port(10, 1)], vec![port(25, 1)]];
        let mut rows = Vec::new();
        for place in 1..3 {
            let start = Timestamp(place as u64);
            rows.extend(port_rows(start, &ports[place], &ports[place - 1]));
            rows.extend(sink_rows(start, "parquet", &sinks[place], &sinks[place - 1]));
        }
        assert_eq!((sum(&rows, "received"), sum(&rows, "missed")), (25, 1));
        assert_eq!((sum(&rows, "made"), sum(&rows, "delivered")), (9, 6));
    }
}
