//! Metrics for Prometheus.
//!
//! In: the newest snapshot; of `vmprobe correlate` the newest state of the member. Out: `/metrics`, as OpenMetrics where the client asks for it, else
//! in the text format 0.0.4.
//! Cost: rendered once a window, however often it is scraped.
//! Invariants: labels come from configuration (ports, workers, taps, sinks, sources) or from an
//! enumeration (causes, classes), never from traffic, so the number of series is bounded.
//! Source: OpenMetrics 1.0; Prometheus, "Metric and label naming".

mod inventory;
mod member;
mod store;
mod taps;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{self, HeaderMap};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::aggregate::live::{LiveMode, LiveSink, LiveSnapshot, Volume};

use super::routes::Shared;
use crate::sources::InventoryStatus;

pub(super) use member::metrics as member_metrics;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Characters of a label's value.
const LABEL_CHARS_MAX: usize = 128;

/// Both forms of one window's metrics.
#[derive(Debug)]
pub(super) struct Rendered {
    sequence: u64,
    open_metrics: Bytes,
    text_format: Bytes,
}

/// `GET /metrics`.
pub(super) async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let rendered = rendered(&shared);
    if wants_open_metrics(&headers) {
        ([(header::CONTENT_TYPE, OPEN_METRICS)], rendered.open_metrics.clone()).into_response()
    } else {
        ([(header::CONTENT_TYPE, TEXT_FORMAT)], rendered.text_format.clone()).into_response()
    }
}

fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|value| value.contains("application/openmetrics-text"))
}

fn rendered(shared: &Shared) -> Arc<Rendered> {
    let published = shared.newest();
    let mut kept = shared.metrics.lock();
    match &*kept {
        Some(rendered) if rendered.sequence == published.sequence => Arc::clone(rendered),
        _ => {
            let status = shared.inventory.view.status.load_full();
            let open_metrics = open_metrics(&published.snapshot, status);
            let rendered = Arc::new(Rendered {
                sequence: published.sequence,
                text_format: text_format(&open_metrics).into(),
                open_metrics: open_metrics.into(),
            });
            *kept = Some(Arc::clone(&rendered));
            rendered
        }
    }
}

fn open_metrics(snapshot: &Arc<LiveSnapshot>, status: Arc<InventoryStatus>) -> String {
    encoded(Box::new(SnapshotCollector(Arc::clone(snapshot), status)))
}

fn encoded(collector: Box<dyn Collector>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(collector);
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("writing to a string cannot fail");
    out
}

/// The older text format names a counter with its `_total` in `HELP` and `TYPE` too.
fn text_format(open_metrics: &str) -> String {
    let is_counter = |name: &str| open_metrics.contains(&format!("# TYPE {name} counter\n"));
    let mut out = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if is_counter(name) => {
                out.push_str(&format!("# {kind} {name}_total {rest}"));
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// One label.
pub(super) type Label = (&'static str, String);

/// One sample of a family.
struct Sample<N> {
    labels: Vec<Label>,
    value: N,
}

fn sample<N>(labels: impl IntoIterator<Item = (&'static str, String)>, value: N) -> Sample<N> {
    let cut = |(name, text): Label| (name, text.chars().take(LABEL_CHARS_MAX).collect());
    Sample { labels: labels.into_iter().map(cut).collect(), value }
}

#[derive(Debug)]
struct SnapshotCollector(Arc<LiveSnapshot>, Arc<InventoryStatus>);

impl Collector for SnapshotCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        all(&self.0, &self.1, &mut Text(encoder))
    }
}

/// All families, to whichever form.
pub(super) fn all(
    live: &LiveSnapshot,
    status: &InventoryStatus,
    output: &mut dyn Output,
) -> fmt::Result {
    let mut families = Families(output);
    probe(live, &mut families)?;
    traffic(live, &mut families)?;
    ledger(live, &mut families)?;
    ports(live, &mut families)?;
    sinks(&live.ledger.sinks, &mut families)?;
    store::store(live, &mut families)?;
    workers(live, &mut families)?;
    taps::taps(live, &mut families)?;
    taps::paths(live, &mut families)?;
    inventory::inventory(status, &mut families)
}

/// Samples of a family by their labels, each once.
pub(super) type Samples<N> = BTreeMap<Vec<Label>, N>;

/// A form that families are written in.
pub(super) trait Output {
    /// Counts that only grow while the probe runs.
    fn counters(&mut self, name: &str, help: &str, samples: Samples<u64>) -> fmt::Result;
    /// Values of now.
    fn gauges(&mut self, name: &str, help: &str, samples: Samples<f64>) -> fmt::Result;
}

/// OpenMetrics.
struct Text<'a>(DescriptorEncoder<'a>);

impl Output for Text<'_> {
    fn counters(&mut self, name: &str, help: &str, samples: Samples<u64>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, sum) in samples {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&sum, None)?;
        }
        Ok(())
    }

    fn gauges(&mut self, name: &str, help: &str, samples: Samples<f64>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

struct Families<'a>(&'a mut dyn Output);

impl Families<'_> {
    /// A family of counters. Equal labels (names cut to the same text) are added up.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<u64>>,
    ) -> fmt::Result {
        let mut sums = Samples::new();
        for Sample { labels, value } in samples {
            let sum: &mut u64 = sums.entry(labels).or_default();
            *sum = sum.saturating_add(value);
        }
        self.0.counters(name, help, sums)
    }

    /// A family of gauges. Of equal labels the last one counts.
    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<f64>>,
    ) -> fmt::Result {
        let values = samples.into_iter().map(|sample| (sample.labels, sample.value)).collect();
        self.0.gauges(name, help, values)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, [sample([], value)])
    }
}

/// Counts as Prometheus has them; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a gauge of Prometheus is a float")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "a gauge of Prometheus is a float")]
fn signed_float(count: i64) -> f64 {
    count as f64
}

fn probe(live: &LiveSnapshot, families: &mut Families<'_>) -> fmt::Result {
    let mode = if live.mode == LiveMode::Run { "run" } else { "replay" };
    let labels = [
        ("probe", live.probe_id.clone()),
        ("domain", live.domain.clone()),
        ("version", live.version.clone()),
        ("mode", mode.to_owned()),
    ];
    families.gauges("vmprobe_probe_info", "Who this probe is; always 1.", [sample(labels, 1.0)])?;
    families.counters(
        "vmprobe_windows_closed",
        "Windows closed since the start.",
        [sample([], live.window_count)],
    )?;
    families.gauge(
        "vmprobe_window_start_seconds",
        "Start of the last closed window, seconds since the epoch.",
        float(live.window_start_ns) / 1e9,
    )
}

fn traffic(live: &LiveSnapshot, families: &mut Families<'_>) -> fmt::Result {
    let totals = &live.totals;
    families.gauge(
        "vmprobe_packets_per_second",
        "Logical packets per second in the last window.",
        totals.packets_per_s,
    )?;
    families.gauge(
        "vmprobe_octets_per_second",
        "IP octets per second in the last window.",
        totals.octets_per_s,
    )?;
    families.gauge("vmprobe_flows_live", "Flows in the tables.", float(totals.flows_live))?;
    families.gauge(
        "vmprobe_new_flows_per_second",
        "Flows that began in the last window, per second.",
        totals.flows_new_per_s,
    )?;
    let class = |value: fn(&Volume) -> u64| {
        let classes = &live.by_class;
        let named = [
            ("east_west", classes.east_west),
            ("inter_tenant", classes.inter_tenant),
            ("north_south", classes.north_south),
            ("transit", classes.transit),
        ];
        named.map(|(name, volume)| sample([("class", name.to_owned())], float(value(&volume))))
    };
    families.gauges(
        "vmprobe_window_packets",
        "Logical packets of the last window by class of traffic.",
        class(|volume| volume.packets),
    )?;
    families.gauges(
        "vmprobe_window_octets",
        "IP octets of the last window by class of traffic.",
        class(|volume| volume.octets),
    )?;
    let open = |severity: &str| {
        live.alerts
            .iter()
            .filter(|alert| alert.state != "closed" && alert.severity == severity)
            .count()
    };
    families.gauges(
        "vmprobe_alerts_open",
        "Alerts that are open or updated, by severity, among the newest ones.",
        ["info", "low", "medium", "high", "critical"].map(|severity| {
            let count = u64::try_from(open(severity)).unwrap_or(u64::MAX);
            sample([("severity", severity.to_owned())], float(count))
        }),
    )
}

fn ledger(live: &LiveSnapshot, families: &mut Families<'_>) -> fmt::Result {
    let ledger = &live.ledger;
    families.counters(
        "vmprobe_packets_received",
        "Packets that the workers took from their sources.",
        [sample([], ledger.received)],
    )?;
    families.counters(
        "vmprobe_packets_accounted",
        "Packets booked in a window.",
        [sample([], ledger.accounted)],
    )?;
    families.counters(
        "vmprobe_packets_late_rows",
        "Accounted packets of rows that came after their window was given out.",
        [sample([], ledger.late_rows)],
    )?;
    families.counters(
        "vmprobe_packets_dropped",
        "Packets that ended otherwise, by cause.",
        ledger.causes.iter().map(|(cause, count)| sample([("cause", cause.clone())], *count)),
    )?;
    families.gauge(
        "vmprobe_packets_in_flight",
        "Packets in open windows, held back, or in rings between workers.",
        float(ledger.in_flight),
    )?;
    families.gauge(
        "vmprobe_packets_unaccounted",
        "Received less accounted, in flight and all causes; anything but 0 is a bug.",
        signed_float(ledger.unaccounted),
    )
}

fn ports(live: &LiveSnapshot, families: &mut Families<'_>) -> fmt::Result {
    let mut family = |name, help, value: fn(&crate::aggregate::live::LivePort) -> u64| {
        let ports = live.ledger.nic.iter();
        families.counters(
            name,
            help,
            ports.map(|port| sample([("port", port.port.clone())], value(port))),
        )
    };
    family("vmprobe_port_received_packets", "Packets that the port handed over.", |port| {
        port.received
    })?;
    family("vmprobe_port_missed_packets", "Packets that found the receive ring full.", |port| {
        port.missed
    })?;
    family("vmprobe_port_error_packets", "Packets with receive errors.", |port| port.errors)?;
    family("vmprobe_port_no_buffer_packets", "Packets without a free buffer.", |port| port.no_mbuf)
}

fn sinks(all: &[LiveSink], families: &mut Families<'_>) -> fmt::Result {
    let mut sinks: Vec<_> = all.iter().collect();
    // Those that run come last, so that theirs are the gauges of a name that another one had before.
    sinks.sort_by_key(|sink| sink.state != "retired");
    let label = |name: &str| [("sink", name.to_owned())];
    let records = sinks.iter().map(|sink| sample(label(&sink.name), sink.made));
    families.counters("vmprobe_sink_made_records", "Records made for the sink.", records)?;
    let records = sinks.iter().map(|sink| sample(label(&sink.name), sink.delivered));
    families.counters("vmprobe_sink_delivered_records", "Records that the sink has.", records)?;
    let records = sinks.iter().map(|sink| sample(label(&sink.name), sink.dropped));
    families.counters("vmprobe_sink_dropped_records", "Records lost before the sink.", records)?;
    let records = sinks.iter().map(|sink| sample(label(&sink.name), float(sink.queued)));
    families.gauges("vmprobe_sink_queued_records", "Records that wait for the sink.", records)?;
    let records = sinks.iter().map(|sink| sample(label(&sink.name), float(sink.spooled)));
    let help = "Records that wait for the sink on disk, among the queued ones.";
    families.gauges("vmprobe_sink_spooled_records", help, records)?;
    let failing = |state: &str| u64::from(!matches!(state, "ok" | "retired"));
    let sinks = sinks.iter().map(|sink| sample(label(&sink.name), float(failing(&sink.state))));
    families.gauges("vmprobe_sink_failing", "1 while the sink takes no records, else 0.", sinks)
}

fn workers(live: &LiveSnapshot, families: &mut Families<'_>) -> fmt::Result {
    use crate::aggregate::live::LiveWorker;
    let label = |worker: &LiveWorker| [("worker", worker.worker.to_string())];
    let mut gauges = |name, help, value: fn(&LiveWorker) -> f64| {
        let workers = live.workers.iter();
        families.gauges(name, help, workers.map(|worker| sample(label(worker), value(worker))))
    };
    gauges("vmprobe_worker_packets_per_second", "Packets taken per second.", |worker| {
        worker.packets_per_s
    })?;
    gauges("vmprobe_worker_busy_ratio", "Share of turns that had packets, 0 to 1.", |worker| {
        worker.busy_percent / 100.0
    })?;
    gauges("vmprobe_worker_flows", "Flows in the worker's table.", |worker| float(worker.flows))?;
    gauges("vmprobe_worker_flow_slots", "Flows that the table can hold.", |worker| {
        float(worker.flow_slots)
    })?;
    gauges(
        "vmprobe_worker_ring_fill_ratio",
        "Highest fill of the receive ring, 0 to 1.",
        |worker| worker.ring_fill_percent / 100.0,
    )?;
    gauges(
        "vmprobe_worker_shed_ratio",
        "Share of flows left out at overload, 0 to 1.",
        |worker| worker.shed_rate,
    )?;
    let mut counters = |name, help, value: fn(&LiveWorker) -> u64| {
        let workers = live.workers.iter();
        families.counters(name, help, workers.map(|worker| sample(label(worker), value(worker))))
    };
    counters(
        "vmprobe_worker_spread_in_packets",
        "Packets that other workers passed to it.",
        |worker| worker.spread_in,
    )?;
    counters(
        "vmprobe_worker_spread_out_packets",
        "Packets that it passed to other workers.",
        |worker| worker.spread_out,
    )?;
    counters(
        "vmprobe_worker_late_packets",
        "Packets that came after their own window was closed.",
        |worker| worker.late_packets,
    )?;
    counters(
        "vmprobe_worker_unresolved_fragments",
        "Fragments that went on without ports.",
        |worker| worker.fragments_unresolved,
    )?;
    counters(
        "vmprobe_worker_lost_flow_records",
        "Records of ended flows lost because the aggregator did not keep up.",
        |worker| worker.flow_records_lost,
    )?;
    counters("vmprobe_worker_evicted_flows", "Flows that left for lack of room.", |worker| {
        worker.flows_evicted
    })?;
    counters(
        "vmprobe_worker_evicted_digests",
        "Digests of packets forgotten before their time.",
        |worker| worker.digests_evicted,
    )?;
    counters(
        "vmprobe_worker_evicted_path_packets",
        "Packets no longer followed between taps, because their place was needed.",
        |worker| worker.path_evicted,
    )?;
    counters(
        "vmprobe_worker_unwatched_path_packets",
        "Packets between taps whose evidence could not be looked for.",
        |worker| worker.path_unwatched,
    )?;
    counters(
        "vmprobe_worker_cut_path_walks",
        "Segments that were not compared with all packets of their flow that wait for evidence.",
        |worker| worker.path_walks_cut,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::live::{LiveTap, LiveWorker};

    fn snapshot() -> Arc<LiveSnapshot> {
        let mut live = LiveSnapshot::default();
        live.ledger.received = 12;
        live.ledger.accounted = 6;
        live.ledger.in_flight = 4;
        live.ledger.causes.insert("duplicate".to_owned(), 2);
        live.ledger.unaccounted = -3;
        let tap = |name: String| LiveTap { name, packets: 5, ..LiveTap::default() };
        live.taps = vec![tap("a\"b\\c\nd".to_owned()), tap("x".repeat(200)), tap("x".repeat(201))];
        Arc::new(live)
    }

    #[test]
    fn both_forms_hold_the_ledger() {
        let open = open_metrics(&snapshot(), Arc::default());
        assert!(open.contains("# TYPE vmprobe_packets_received counter\n"), "{open}");
        assert!(open.contains("vmprobe_packets_received_total{} 12\n"), "{open}");
        assert!(open.ends_with("# EOF\n"));
        let text = text_format(&open);
        assert!(text.contains("# TYPE vmprobe_packets_received_total counter\n"), "{text}");
        assert!(
            text.contains("\nvmprobe_packets_dropped_total{cause=\"duplicate\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("\nvmprobe_packets_unaccounted{} -3.0\n"), "{text}");
        // It falls again, so it is no counter and no cause.
        assert!(text.contains("# TYPE vmprobe_packets_in_flight gauge\n"), "{text}");
        assert!(text.contains("\nvmprobe_packets_in_flight{} 4.0\n"), "{text}");
        assert!(!text.contains("cause=\"in_flight\""), "{text}");
        assert!(!text.contains("EOF"));
    }

    #[test]
    fn what_was_let_go_has_its_families() {
        let mut live = LiveSnapshot::default();
        live.ledger.late_rows = 7;
        live.workers =
            vec![LiveWorker { flow_records_lost: 3, digests_evicted: 4, ..LiveWorker::default() }];
        live.taps = vec![LiveTap { segment_unmapped: 5, ..LiveTap::default() }];
        let text = text_format(&open_metrics(&Arc::new(live), Arc::default()));
        for line in [
            "vmprobe_packets_late_rows_total{} 7",
            "vmprobe_worker_lost_flow_records_total{worker=\"0\"} 3",
            "vmprobe_worker_evicted_digests_total{worker=\"0\"} 4",
            "vmprobe_worker_evicted_flows_total{worker=\"0\"} 0",
            "vmprobe_tap_unmapped_packets_total{tap=\"\"} 5",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_sink_that_was_taken_away_shows_in_no_gauge_of_the_one_that_runs() {
        let sink = |name: &str, state: &str, made, queued| LiveSink {
            name: name.to_owned(),
            state: state.to_owned(),
            made,
            queued,
            ..LiveSink::default()
        };
        let mut live = LiveSnapshot::default();
        live.ledger.sinks = vec![
            sink("a", "failing", 10, 4),
            sink("a", "retired", 100, 90),
            sink("b", "retired", 7, 7),
        ];
        let text = text_format(&open_metrics(&Arc::new(live), Arc::default()));
        for line in [
            "vmprobe_sink_failing{sink=\"a\"} 1.0",
            "vmprobe_sink_failing{sink=\"b\"} 0.0",
            "vmprobe_sink_queued_records{sink=\"a\"} 4.0",
            "vmprobe_sink_queued_records{sink=\"b\"} 7.0",
            "vmprobe_sink_made_records_total{sink=\"a\"} 110",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in\n{text}");
        }
    }

    #[test]
    fn names_are_escaped_and_cut_names_do_not_repeat_a_series() {
        let text = text_format(&open_metrics(&snapshot(), Arc::default()));
        assert!(text.contains("vmprobe_tap_packets_total{tap=\"a\\\"b\\\\c\\nd\"} 5\n"), "{text}");
        let cut = format!("vmprobe_tap_packets_total{{tap=\"{}\"}} 10\n", "x".repeat(128));
        assert!(text.contains(&cut), "{text}");
    }
}
