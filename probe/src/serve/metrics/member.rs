//! Metrics of `vmprobe correlate`.
//!
//! In: the newest [`Status`]. Out: families of what was read and joined, what was left out and why, how far
//! behind it is, and how much of its room is taken.
//! Cost: rendered each time that it is asked for: some hundred lines.
//! Invariants: labels are tables, topics, partitions, sinks, and names of the program.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{self, HeaderMap};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{
    Families, OPEN_METRICS, Sample, TEXT_FORMAT, Text, encoded, float, sample, sinks, text_format,
    wants_open_metrics,
};
use crate::correlate::{LaneStatus, PartitionStatus, Status, StatusCell, TopicStatus};
use crate::export::SinkReport;

/// `GET /metrics`.
pub(in super::super) async fn metrics(
    State(status): State<StatusCell>,
    headers: HeaderMap,
) -> Response {
    let open = encoded(Box::new(StatusCollector(status.load_full())));
    if wants_open_metrics(&headers) {
        ([(header::CONTENT_TYPE, OPEN_METRICS)], open).into_response()
    } else {
        ([(header::CONTENT_TYPE, TEXT_FORMAT)], text_format(&open)).into_response()
    }
}

#[derive(Debug)]
struct StatusCollector(Arc<Status>);

impl Collector for StatusCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let (status, mut text) = (&*self.0, Text(encoder));
        let mut families = Families(&mut text);
        member(status, &mut families)?;
        counts(status, &mut families)?;
        topics(status, &mut families)?;
        partitions(status, &mut families)?;
        rooms(status, &mut families)?;
        let live: Vec<_> = status.sinks.iter().map(SinkReport::live).collect();
        sinks(&live, &mut families)
    }
}

fn member(status: &Status, families: &mut Families<'_>) -> fmt::Result {
    let labels = [
        ("member", status.member.to_string()),
        ("domain", status.domain.to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let help = "Who this member is; always 1.";
    families.gauges("vmprobe_correlate_info", help, [sample(labels, 1.0)])?;
    let gauge = |value: fn(&LaneStatus) -> u64| {
        let lanes = status.lanes.iter();
        lanes.map(move |lane| sample([("table", lane.table.to_owned())], float(value(lane))))
    };
    families.gauges(
        "vmprobe_correlate_reducing",
        "1 where this member adds up what all have joined, or runs the detectors, else 0.",
        gauge(|lane| u64::from(lane.reduces)),
    )?;
    families.gauges(
        "vmprobe_correlate_alerts_open",
        "Alerts that are open at this member.",
        gauge(|lane| lane.open_alerts),
    )
}

fn counts(status: &Status, families: &mut Families<'_>) -> fmt::Result {
    let of = |name: &'static str, left_out: bool| {
        let lanes = status.lanes.iter();
        lanes.flat_map(move |lane| {
            lane.counts(left_out).filter(|(what, _)| *what != "messages").map(
                move |(what, count)| {
                    sample([("table", lane.table.to_owned()), (name, what.to_owned())], count)
                },
            )
        })
    };
    families.counters(
        "vmprobe_correlate_results",
        "What came of the messages: packets joined, contacts taken, windows and records given out.",
        of("result", false),
    )?;
    families.counters(
        "vmprobe_correlate_left_out",
        "What was left out, by cause; clock_ahead also where a message counts as sent now.",
        of("cause", true),
    )
}

/// Values of each topic.
fn of_topics<N>(
    status: &Status,
    value: impl Fn(&TopicStatus) -> Option<N>,
) -> impl Iterator<Item = Sample<N>> {
    let topics = status.lanes.iter().flat_map(|lane| &lane.topics);
    topics.filter_map(move |topic| Some(sample([("topic", topic.topic.clone())], value(topic)?)))
}

fn topics(status: &Status, families: &mut Families<'_>) -> fmt::Result {
    families.counters(
        "vmprobe_correlate_read_messages",
        "Messages read, by topic.",
        of_topics(status, |topic| Some(topic.messages)),
    )?;
    families.counters(
        "vmprobe_correlate_kafka_errors",
        "What the client said of brokers that do not do what they should, by topic.",
        of_topics(status, |topic| Some(topic.errors)),
    )?;
    families.gauges(
        "vmprobe_correlate_brokers_up",
        "Brokers with a connection, by the topic that it is for.",
        of_topics(status, |topic| topic.brokers_up.map(float)),
    )
}

/// Values of each partition that is this member's.
fn of_partitions(
    status: &Status,
    value: impl Fn(&PartitionStatus) -> Option<f64>,
) -> impl Iterator<Item = Sample<f64>> {
    let topics = status.lanes.iter().flat_map(|lane| &lane.topics);
    let partitions =
        topics.flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)));
    partitions.filter_map(move |(topic, partition)| {
        let number = partition.partition.to_string();
        Some(sample([("topic", topic.topic.clone()), ("partition", number)], value(partition)?))
    })
}

fn partitions(status: &Status, families: &mut Families<'_>) -> fmt::Result {
    families.gauges(
        "vmprobe_correlate_lag_messages",
        "Messages of a partition of this member that are there and not read.",
        of_partitions(status, |partition| partition.lag_messages.map(float)),
    )?;
    families.gauges(
        "vmprobe_correlate_behind_seconds",
        "How long ago that was sent which this member has read last of a partition.",
        of_partitions(status, |partition| partition.behind_ms.map(|ms| float(ms) / 1e3)),
    )
}

fn rooms(status: &Status, families: &mut Families<'_>) -> fmt::Result {
    let of = |value: fn((u64, u64)) -> u64| {
        let lanes = status.lanes.iter();
        lanes.flat_map(move |lane| {
            lane.rooms.iter().map(move |(what, taken, max)| {
                let labels = [("table", lane.table.to_owned()), ("what", what.to_owned())];
                sample(labels, float(value((taken, max))))
            })
        })
    };
    families.gauges(
        "vmprobe_correlate_room_taken",
        "What is held in memory, in entries.",
        of(|(taken, _)| taken),
    )?;
    families.gauges(
        "vmprobe_correlate_room_max",
        "Entries that there is room for; beyond it, what comes is left out, or waits.",
        of(|(_, max)| max),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::PartitionStatus;

    #[test]
    fn what_a_member_reads_and_how_far_behind_it_is_has_its_families() {
        let topic = |name: &str, messages| TopicStatus {
            topic: name.to_owned(),
            messages,
            errors: 2,
            brokers_up: Some(3),
            partitions: vec![PartitionStatus {
                partition: 5,
                lag_messages: Some(40),
                behind_ms: Some(1_500),
            }],
            ..TopicStatus::default()
        };
        let lane = LaneStatus {
            table: "windows",
            reduces: true,
            open_alerts: 4,
            topics: [topic("vmprobe.windows", 7), topic("vmprobe.contacts", 8)],
            ..LaneStatus::default()
        };
        let status = Status { lanes: vec![lane], ..Status::default() };
        let text = text_format(&encoded(Box::new(StatusCollector(Arc::new(status)))));
        for line in [
            "vmprobe_correlate_reducing{table=\"windows\"} 1.0",
            "vmprobe_correlate_alerts_open{table=\"windows\"} 4.0",
            "vmprobe_correlate_read_messages_total{topic=\"vmprobe.windows\"} 7",
            "vmprobe_correlate_kafka_errors_total{topic=\"vmprobe.contacts\"} 2",
            "vmprobe_correlate_brokers_up{topic=\"vmprobe.contacts\"} 3.0",
            "vmprobe_correlate_lag_messages{topic=\"vmprobe.windows\",partition=\"5\"} 40.0",
            "vmprobe_correlate_behind_seconds{topic=\"vmprobe.windows\",partition=\"5\"} 1.5",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in\n{text}");
        }
    }
}
