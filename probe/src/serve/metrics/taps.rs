//! Metrics of taps and of the ways between them.
//!
//! In: the newest snapshot. Out: families with the label `tap`, or `from` and `to`.
//! Invariants: as many series as taps, and as ways in the snapshot, which bounds both; a figure
//! that is not known has no sample.

use std::fmt;

use crate::aggregate::live::{LivePath, LiveSnapshot, LiveTap};

use super::{Families, Label, sample, signed_float};

/// Health of each tap.
pub(super) fn taps(live: &LiveSnapshot, families: &mut Families<'_>) -> fmt::Result {
    let mut family = |name, help, value: fn(&LiveTap) -> Option<u64>| {
        let taps = live.taps.iter();
        let known = taps.filter_map(|tap| Some((tap, value(tap)?)));
        families.counters(name, help, known.map(|(tap, value)| sample(tap_label(tap), value)))
    };
    family("vmprobe_tap_packets", "Frames as captured.", |tap| Some(tap.packets))?;
    family("vmprobe_tap_octets", "Octets of those frames on the wire.", |tap| Some(tap.octets))?;
    family("vmprobe_tap_duplicate_packets", "Packets seen twice at the tap.", |tap| {
        Some(tap.duplicates)
    })?;
    family("vmprobe_tap_ambiguous_packets", "Packets that may be duplicates, and count.", |tap| {
        Some(tap.ambiguous)
    })?;
    family("vmprobe_tap_copy_packets", "Packets counted at another tap.", |tap| Some(tap.copies))?;
    family("vmprobe_tap_snapped_packets", "Packets of which only a part was captured.", |tap| {
        Some(tap.snapped)
    })?;
    family(
        "vmprobe_tap_unmapped_packets",
        "Packets whose segment the configured map did not know.",
        |tap| Some(tap.segment_unmapped),
    )?;
    family(
        "vmprobe_tap_mirror_gap_packets",
        "Packets missing from the mirror's own sequence numbers, where it has them.",
        |tap| tap.mirror_gaps,
    )?;
    let coverage = live
        .taps
        .iter()
        .filter_map(|tap| Some((tap, tap.recent.coverage_percent? / 100.0)))
        .map(|(tap, share)| sample(tap_label(tap), share));
    families.gauges(
        "vmprobe_tap_coverage_ratio",
        "Share of TCP conversations of the last minutes seen in both directions, 0 to 1.",
        coverage,
    )
}

/// Delay and loss on each way.
pub(super) fn paths(live: &LiveSnapshot, families: &mut Families<'_>) -> fmt::Result {
    let outcomes = live.paths.iter().flat_map(|path| {
        let total = &path.total;
        let named = [
            ("matched", total.matched),
            ("first_tap_missed", total.first_tap_missed),
            ("network_loss", total.network_loss),
            ("mirror_loss", total.mirror_loss),
            ("unresolved_loss", total.unresolved_loss),
            ("ambiguous", total.ambiguous),
        ];
        named.map(|(outcome, count)| {
            let [from, to] = way_labels(path);
            sample([from, to, ("outcome", outcome.to_owned())], count)
        })
    });
    families.counters(
        "vmprobe_path_packets",
        "Packets followed from tap to tap, by what became of them.",
        outcomes,
    )?;
    let mut seconds = |name, help, ns: fn(&LivePath) -> Option<i64>| {
        let known = live.paths.iter().filter_map(|path| Some((path, ns(path)?)));
        let samples = known.map(|(path, ns)| sample(way_labels(path), signed_float(ns) / 1e9));
        families.gauges(name, help, samples)
    };
    seconds(
        "vmprobe_path_delay_mean_seconds",
        "Mean time from tap to tap by their clocks, in the last window with verdicts.",
        |path| path.delay_mean_ns,
    )?;
    seconds("vmprobe_path_delay_p99_seconds", "99th percentile of these times.", |path| {
        path.delay_p99_ns
    })?;
    seconds(
        "vmprobe_path_delay_excess_mean_seconds",
        "Mean time less the least of the last 60 s: free of a constant clock offset.",
        |path| path.delay_excess_mean_ns,
    )?;
    seconds(
        "vmprobe_path_clock_offset_seconds",
        "Estimate of how far the later tap's clock is ahead of the first one's.",
        |path| path.clock_offset_ns,
    )?;
    seconds(
        "vmprobe_path_clock_offset_bound_seconds",
        "The estimated offset is off by no more than this.",
        |path| path.clock_offset_bound_ns.map(u64::cast_signed),
    )
}

fn tap_label(tap: &LiveTap) -> [Label; 1] {
    [("tap", tap.name.clone())]
}

fn way_labels(path: &LivePath) -> [Label; 2] {
    [("from", path.from_tap.clone()), ("to", path.to_tap.clone())]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{open_metrics, text_format};
    use super::*;
    use crate::aggregate::live::{LivePathCounts, TapHealth};

    fn text(live: LiveSnapshot) -> String {
        text_format(&open_metrics(&Arc::new(live), Arc::default()))
    }

    #[test]
    fn ways_have_their_series() {
        let path = LivePath {
            from_tap: "a".to_owned(),
            to_tap: "b".to_owned(),
            delay_mean_ns: Some(-2_000_000_000),
            clock_offset_ns: Some(-500_000_000),
            clock_offset_bound_ns: Some(250_000_000),
            total: LivePathCounts { network_loss: 7, matched: 90, ..LivePathCounts::default() },
            ..LivePath::default()
        };
        let text = text(LiveSnapshot { paths: vec![path], ..LiveSnapshot::default() });
        for line in [
            "vmprobe_path_packets_total{from=\"a\",to=\"b\",outcome=\"network_loss\"} 7",
            "vmprobe_path_packets_total{from=\"a\",to=\"b\",outcome=\"matched\"} 90",
            "vmprobe_path_delay_mean_seconds{from=\"a\",to=\"b\"} -2.0",
            "vmprobe_path_clock_offset_seconds{from=\"a\",to=\"b\"} -0.5",
            "vmprobe_path_clock_offset_bound_seconds{from=\"a\",to=\"b\"} 0.25",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in\n{text}");
        }
        assert!(
            !text.contains("\nvmprobe_path_delay_p99_seconds{"),
            "no sample, no figure\n{text}"
        );
    }

    #[test]
    fn what_a_tap_does_not_know_has_no_sample() {
        let numbered = LiveTap {
            name: "n".to_owned(),
            mirror_gaps: Some(0),
            recent: TapHealth { coverage_percent: Some(75.0), ..TapHealth::default() },
            ..LiveTap::default()
        };
        let plain = LiveTap { name: "p".to_owned(), ..LiveTap::default() };
        let text = text(LiveSnapshot { taps: vec![numbered, plain], ..LiveSnapshot::default() });
        assert!(text.contains("\nvmprobe_tap_mirror_gap_packets_total{tap=\"n\"} 0\n"), "{text}");
        assert!(text.contains("\nvmprobe_tap_coverage_ratio{tap=\"n\"} 0.75\n"), "{text}");
        assert!(text.contains("\nvmprobe_tap_ambiguous_packets_total{tap=\"p\"} 0\n"), "{text}");
        for name in ["mirror_gap_packets_total", "coverage_ratio"] {
            assert!(!text.contains(&format!("vmprobe_tap_{name}{{tap=\"p\"}}")), "{text}");
        }
    }
}
