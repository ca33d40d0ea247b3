//! Properties of the model, over any input that passes its checks.

use proptest::prelude::*;

use super::super::{Encapsulation, Mix, Origin};
use super::*;

fn traffic(nic_gbps: f64, frame_octets: u16, flows: f64) -> Traffic {
    let mix = Mix::Frames(frame_octets);
    Traffic { nic_gbps, mix, encapsulation: Encapsulation::None, flows, copies_share: 0.0 }
}

fn costs(ns_per_packet: f64) -> Costs {
    Costs {
        origin: Origin::Generated,
        packets: 1_000_000,
        flows: 100_000,
        ns_per_packet,
        bytes_per_flow: 192,
        poll_gap_p9999_us: Some(100.0),
        spread_ns_per_passed_packet: Some(20.0),
        aggregator_ns_per_row: None,
    }
}

/// Nothing but the measured cost.
fn plain() -> Assumptions {
    Assumptions {
        load_share: 1.0,
        contention_share: 0.0,
        receive_ns: 0.0,
        spread_ns: Some(0.0),
        skew: 1.0,
        flow_lines: 0.0,
        ..Assumptions::default()
    }
}

fn size(traffic: &Traffic, costs: &Costs, assumptions: &Assumptions, cores: u16) -> Sizing {
    let memory = Latencies::of(&[(1 << 20, 3.0), (64 << 20, 12.0), (1 << 30, 25.0)]);
    assumptions.check(&[cores]).expect("makes sense");
    let sizes = Sizes { flow_bytes: 192, row_bytes: 200, ..Sizes::default() };
    Model { traffic, costs, memory: &memory, assumptions, sizes: &sizes }.size(cores)
}

fn is(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0)
}

#[test]
fn without_any_addition_it_is_plain_division() {
    let sizing = size(&traffic(100.0, 64, 1e5), &costs(100.0), &plain(), 5);
    assert_eq!((sizing.workers, sizing.bottleneck), (4, Bottleneck::Workers));
    assert!(is(sizing.packets_per_second, 40e6) && is(sizing.gbps, 40e6 * 84.0 * 8.0 / 1e9));
    // 148.8 million packets a second are 14.88 workers of 10 million each.
    assert_eq!((sizing.workers_needed, sizing.cores_needed), (Some(15), Some(16)));
    // 10 million packets a second and queue for 100 µs are 1,000.
    assert_eq!(sizing.descriptors, Some(1_024));
    assert_eq!((sizing.slots_per_worker, sizing.flow_bytes), (32_768, 4 * 32_768 * 192));
    assert!(is(sizing.records_per_second, 1e5 / 60.0));
    assert!(sizing.rows_per_second > 0.999e5 && sizing.rows_per_second <= 1e5);
    assert!(sizing.memory_bytes > sizing.flow_bytes);
}

#[test]
fn the_line_is_a_bound_and_the_aggregator_another() {
    let slow = traffic(1.0, 1_500, 1e5);
    let sizing = size(&slow, &costs(100.0), &plain(), 8);
    assert_eq!((sizing.bottleneck, sizing.workers_needed), (Bottleneck::Line, Some(1)));
    assert!(is(sizing.line_share, 1.0) && is(sizing.gbps, 1.0));
    let costs = Costs { aggregator_ns_per_row: Some(20_000.0), ..costs(100.0) };
    let sizing = size(&slow, &costs, &plain(), 8);
    assert_eq!(sizing.bottleneck, Bottleneck::Aggregator);
    assert!(sizing.line_share < 1.0 && is(sizing.aggregator_load.expect("measured"), 1.0));
}

#[test]
fn what_is_not_held_is_said() {
    let costs = Costs { poll_gap_p9999_us: None, ..costs(100.0) };
    let sizing = size(&traffic(100.0, 64, 5e6), &costs, &plain(), 81);
    let said = sizing.limits.join("\n");
    for word in ["more than one port", "window.rows_max", "poll gaps", "aggregation thread"] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(sizing.descriptors, None);
}

#[test]
fn numbers_out_of_range_are_errors() {
    let wrong = |change: fn(&mut Assumptions), cores: u16| {
        let mut assumptions = Assumptions::default();
        change(&mut assumptions);
        assumptions.check(&[cores]).is_err()
    };
    assert!(!wrong(|_| {}, 2));
    assert!(wrong(|_| {}, 1) && wrong(|_| {}, 0) && wrong(|_| {}, 2_000));
    assert!(wrong(|given| given.load_share = 0.0, 2));
    assert!(wrong(|given| given.load_share = f64::NAN, 2));
    assert!(wrong(|given| given.skew = 0.5, 2));
    assert!(wrong(|given| given.contention_share = -0.1, 2));
    assert!(wrong(|given| given.window_s = f64::INFINITY, 2));
    assert!(wrong(|given| given.other_cores = 4, 4));
    assert!(traffic(0.0, 64, 1.0).check().is_err() && traffic(100.0, 64, 0.0).check().is_err());
    assert!(traffic(f64::NAN, 64, 1.0).check().is_err());
    assert!(Traffic { copies_share: 1.0, ..traffic(1.0, 64, 1.0) }.check().is_err());
}

prop_compose! {
    fn given()(
        load_share in 0.01..1.0, contention_share in 0.0..1.0, receive_ns in 0.0..200.0,
        spread_ns in proptest::option::of(0.0..500.0), skew in 1.0..4.0, flow_lines in 0.0..10.0,
    ) -> Assumptions {
        Assumptions {
            load_share, contention_share, receive_ns, spread_ns, skew, flow_lines,
            ..Assumptions::default()
        }
    }
}

proptest! {
    #[test]
    fn a_core_more_never_lowers_the_rate_nor_more_packets_the_cores(
        given in given(), ns in 1.0..2_000.0, frame_octets in 64_u16..9_000, flows in 1.0..1e8,
        cores in 2_u16..40,
    ) {
        let traffic = traffic(100.0, frame_octets, flows);
        let costs = Costs { aggregator_ns_per_row: Some(ns), ..costs(ns) };
        let (fewer, more) =
            (size(&traffic, &costs, &given, cores), size(&traffic, &costs, &given, cores + 1));
        prop_assert!(more.packets_per_second >= fewer.packets_per_second * (1.0 - 1e-12));
        prop_assert_eq!(more.workers_needed, fewer.workers_needed);
        prop_assert!(more.line_share <= 1.0 + 1e-12 && more.workers <= more.worker_cores);
        let half = Traffic { nic_gbps: 50.0, ..traffic.clone() };
        let slower = size(&half, &costs, &given, cores);
        if let Some(needed) = fewer.workers_needed {
            prop_assert!(slower.workers_needed.is_some_and(|less| less <= needed));
        }
    }

    #[test]
    fn budget_times_rate_is_a_second_of_each_worker(
        given in given(), ns in 1.0..2_000.0, cores in 2_u16..40, flows in 1.0..1e7,
    ) {
        let traffic = traffic(100.0, 64, flows);
        let sizing = size(&traffic, &costs(ns), &given, cores);
        let arriving = traffic.line_packets_per_second() / f64::from(sizing.workers);
        prop_assert!(is(sizing.budget_ns_per_packet * arriving, 1e9));
        // The busiest worker's load is what is planned with, unless the line is full.
        let skew = if sizing.workers == 1 { 1.0 } else { given.skew };
        let busiest = sizing.packets_per_second / f64::from(sizing.workers) * skew;
        let load = busiest * sizing.cost_ns_per_packet / 1e9;
        prop_assert!(load <= given.load_share * (1.0 + 1e-9));
        if sizing.bottleneck == Bottleneck::Workers {
            prop_assert!((load - given.load_share).abs() < 1e-9);
        }
    }

    #[test]
    fn rows_are_bounded_by_flows_and_by_packets(
        flows in 1.0..1e8, window_s in 0.1..60.0, copies_share in 0.0..0.9,
    ) {
        let traffic = Traffic { copies_share, ..traffic(10.0, 64, flows) };
        let given = Assumptions { window_s, ..Assumptions::default() };
        let sizing = size(&traffic, &costs(200.0), &given, 4);
        let most = sizing.rows_per_second * (1.0 - 1e-9);
        prop_assert!(most <= flows / window_s);
        prop_assert!(most <= sizing.packets_per_second * (1.0 - copies_share));
        prop_assert!(f64::from(sizing.slots_per_worker) * f64::from(sizing.workers) >= flows);
    }

    #[test]
    fn a_higher_cost_never_gives_a_higher_rate(given in given(), ns in 1.0..1_000.0) {
        let traffic = traffic(100.0, 64, 1e6);
        let rate = |ns| size(&traffic, &costs(ns), &given, 8).packets_per_second;
        prop_assert!(rate(ns * 1.1) <= rate(ns));
    }
}
