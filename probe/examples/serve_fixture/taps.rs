//! Taps and the ways between them.

use vmprobe::aggregate::live::{
    LiveMigration, LivePath, LivePathCounts, LiveTap, TapCounts, TapHealth,
};
use vmprobe::aggregate::path::PathCounts;
use vmprobe::counters::TapTotals;

use super::{START_NS, WINDOW_NS, known, noise};

/// Verdicts come so many windows later.
const LAG_WINDOWS: u64 = 8;
/// Windows that sums of the last minutes are over.
const RECENT_WINDOWS: u64 = 255;

/// Name, host, frames a second, source and bound of its clock.
type Tap = (&'static str, &'static str, u64, &'static str, Option<u64>);

const OVS_1: Tap = ("rack12-ovs1", "hv-12-01", 19_400, "hardware", Some(250));
const OVS_2: Tap = ("rack12-ovs2", "hv-12-02", 14_900, "tsc", Some(38_000));
const BORDER: Tap = ("border-erspan", "leaf-3", 10_360, "tsc", Some(38_000));

/// What `windows` windows count at a tap.
fn health(tap: Tap, windows: u64) -> TapHealth {
    let packets = tap.2 * windows;
    let numbered = tap.0 == BORDER.0;
    let talks = 80 * windows;
    let counts = TapCounts {
        totals: TapTotals {
            packets,
            octets: packets * 612,
            duplicates: packets / 22,
            ambiguous: packets / 5_000,
            copies_other_tap: packets / 45,
            snapped: packets / 900,
            mirror_gaps: windows / 4,
            ..TapTotals::default()
        },
        has_sequence: numbered,
        segment_unknown: Some(packets / 700),
        tcp_conversations: talks,
        // The border's mirror copies one direction only.
        tcp_one_way_conversations: if numbered { talks * 3 / 4 } else { talks / 100 },
    };
    TapHealth::new(&counts, windows * 1_000)
}

fn tap(tap: Tap, tick: u64) -> LiveTap {
    let (name, host, _, clock, bound) = tap;
    let all = health(tap, tick);
    LiveTap {
        name: name.to_owned(),
        host: known(host),
        packets: all.packets,
        octets: all.octets,
        duplicates: all.duplicates,
        ambiguous: all.ambiguous,
        copies: all.copies,
        snapped: all.snapped,
        segment_unmapped: 0,
        mirror_gaps: all.mirror_gaps,
        clock_source: clock.to_owned(),
        clock_error_bound_ns: bound,
        window: health(tap, 1),
        recent: health(tap, RECENT_WINDOWS),
    }
}

pub(super) fn taps(tick: u64) -> Vec<LiveTap> {
    [OVS_1, OVS_2, BORDER].map(|it| tap(it, tick)).to_vec()
}

/// Packets of `windows` windows, of which so many in a thousand are lost.
fn counts(windows: u64, network: u64, unresolved: u64) -> LivePathCounts {
    let sampled = 1_000 * windows;
    let counts = PathCounts {
        matched: sampled - (network + unresolved + 2) * windows,
        recut: 12 * windows,
        network: network * windows,
        mirror: windows,
        first_missed: windows,
        unresolved: unresolved * windows,
        ..PathCounts::default()
    };
    LivePathCounts::new(&counts, windows * 1_000)
}

/// A way of which the clocks alone take `shift_ns`.
fn path(from: Tap, to: Tap, tick: u64, shift_ns: i64) -> LivePath {
    let jitter = i64::try_from(noise(tick, 77) % 900).unwrap_or(0);
    let at = |ns: i64| Some(shift_ns + 38_000 + ns + jitter);
    LivePath {
        from_tap: from.0.to_owned(),
        to_tap: to.0.to_owned(),
        from_host: known(from.1),
        to_host: known(to.1),
        window_start_ns: START_NS + (tick - LAG_WINDOWS) * WINDOW_NS,
        delay_sample_count: 985,
        delay_mean_ns: at(9_400),
        delay_min_ns: at(0),
        delay_max_ns: at(1_420_000),
        delay_p50_ns: at(6_200),
        delay_p90_ns: at(21_000),
        delay_p99_ns: at(164_000),
        delay_excess_mean_ns: Some(9_400 + jitter),
        clock_offset_ns: Some(shift_ns),
        clock_offset_bound_ns: Some(38_400),
        answered_pairs: 42,
        first_tap_one_way_pairs: 0,
        later_tap_one_way_pairs: 0,
        window: counts(1, 0, 1),
        recent: counts(RECENT_WINDOWS, 0, 1),
        total: counts(tick, 0, 1),
    }
}

pub(super) fn paths(tick: u64) -> Vec<LivePath> {
    // Nothing comes back this way, so nothing is known of the clocks; the last window had losses
    // alone.
    let one_way = LivePath {
        delay_sample_count: 0,
        delay_mean_ns: None,
        delay_min_ns: None,
        delay_max_ns: None,
        delay_p50_ns: None,
        delay_p90_ns: None,
        delay_p99_ns: None,
        delay_excess_mean_ns: None,
        clock_offset_ns: None,
        clock_offset_bound_ns: None,
        later_tap_one_way_pairs: 42,
        window: counts(0, 0, 0),
        recent: counts(RECENT_WINDOWS, 8, 14),
        ..path(OVS_2, BORDER, tick, 0)
    };
    vec![path(OVS_1, OVS_2, tick, -1_250_000), path(OVS_2, OVS_1, tick, 1_250_000), one_way]
}

/// One that is reported and seen, one that is only seen, one that is only reported.
pub(super) fn migrations(tick: u64) -> Vec<LiveMigration> {
    let at = |seconds_ago: u64| START_NS + tick.saturating_sub(seconds_ago) * WINDOW_NS;
    let seen = LiveMigration {
        time_ns: at(12),
        detected: true,
        from_host: known(OVS_1.1),
        to_host: known(OVS_2.1),
        from_tap: known(OVS_1.0),
        to_tap: known(OVS_2.0),
        segment: known("default/vxlan/4242"),
        address: known("10.0.0.20"),
        mac: known("02:00:00:00:10:20"),
        last_seen_ns: Some(at(12)),
        first_seen_ns: Some(at(12) + 184_000_000),
        blackout_ns: Some(184_000_000),
        blackout_clock_bound_ns: Some(120_000),
        peer_count: Some(7),
        estimate: true,
        ..LiveMigration::default()
    };
    let reported = LiveMigration {
        virtual_station_uuid: known("5f0c9a52-7c1e-4b7e-9d67-0d2f6a1b3c04"),
        virtual_station_name: known("red-app-1"),
        virtual_station_tenant: known("red"),
        reported_by: known("openstack"),
        ..seen.clone()
    };
    let unseen = LiveMigration {
        time_ns: at(300),
        detected: false,
        from_tap: None,
        to_tap: None,
        last_seen_ns: None,
        first_seen_ns: None,
        blackout_ns: None,
        blackout_clock_bound_ns: None,
        peer_count: None,
        estimate: false,
        ..reported.clone()
    };
    let other = LiveMigration {
        time_ns: at(90),
        address: known("10.0.0.31"),
        mac: known("02:00:00:00:10:31"),
        ..seen
    };
    vec![reported, other, unseen]
}
