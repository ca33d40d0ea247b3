//! Measures of TCP as columns of records.
//!
//! In: what was measured of a conversation, or of a flow. Out: columns of [`WindowRecord`] and
//! [`FlowRecord`].
//! Cost: a few compares for each column.
//! Invariants: a measure that is not taken stays null, a measured nothing is 0.
//! Source: docs/measures.md.

use super::{FlowRecord, WindowRecord};
use crate::aggregate::{Direction, Extra};
use crate::flow::{EndedFlow, FlowTotals};
use crate::measure::histogram::Sparse;
use crate::measure::tcp::{Cause, Event, Method, Opening};

use Direction::{Forward, Reverse};

/// One kind of delay.
#[derive(Clone, Copy, Default)]
struct Delays {
    count: Option<u64>,
    min: Option<u64>,
    max: Option<u64>,
    sum: Option<u64>,
    p50: Option<u64>,
    p90: Option<u64>,
    p99: Option<u64>,
}

impl Delays {
    fn of(samples: Option<&Sparse>) -> Self {
        let Some(samples) = samples else { return Self { count: Some(0), ..Self::default() } };
        let summary = samples.summary();
        Self {
            count: Some(summary.count),
            min: Some(summary.min_ns),
            max: Some(summary.max_ns),
            sum: Some(summary.sum_ns),
            p50: samples.percentile_ns(500),
            p90: samples.percentile_ns(900),
            p99: samples.percentile_ns(990),
        }
    }
}

/// Fills in what was measured of a conversation with so many packets, forward and reverse.
pub(super) fn of_conversation(record: &mut WindowRecord, extra: &Extra, packets: [u64; 2]) {
    delays(record, extra);
    events(record, extra);
    losses(record, extra);
    [record.loss_low, record.loss_high] = shares(extra, Forward, packets[0]);
    [record.reverse_loss_low, record.reverse_loss_high] = shares(extra, Reverse, packets[1]);
}

/// Lost in the network over all there were, and the same with what is unresolved.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits than a double has")]
fn shares(extra: &Extra, direction: Direction, packets: u64) -> [Option<f64>; 2] {
    let lost = |cause| extra.lost(cause, direction).packets;
    let upstream = lost(Cause::NetworkUpstream);
    let network = upstream + lost(Cause::NetworkDownstream);
    let unresolved = lost(Cause::Unresolved);
    let all = packets + upstream + lost(Cause::Mirror) + unresolved;
    let share = |part: u64| (packets != 0).then(|| part.min(all) as f64 / all as f64);
    [share(network), share(network + unresolved)]
}

fn delays(record: &mut WindowRecord, extra: &Extra) {
    let of = |method, direction| Delays::of(extra.delay(method, direction));
    let all = of(Method::HandshakeServer, Forward);
    record.handshake_server_rtt_sample_count = all.count;
    record.handshake_server_rtt_min_ns = all.min;
    record.handshake_server_rtt_max_ns = all.max;
    record.handshake_server_rtt_sum_ns = all.sum;
    record.handshake_server_rtt_p50_ns = all.p50;
    record.handshake_server_rtt_p90_ns = all.p90;
    record.handshake_server_rtt_p99_ns = all.p99;
    let all = of(Method::HandshakeClient, Reverse);
    record.handshake_client_rtt_sample_count = all.count;
    record.handshake_client_rtt_min_ns = all.min;
    record.handshake_client_rtt_max_ns = all.max;
    record.handshake_client_rtt_sum_ns = all.sum;
    record.handshake_client_rtt_p50_ns = all.p50;
    record.handshake_client_rtt_p90_ns = all.p90;
    record.handshake_client_rtt_p99_ns = all.p99;
    let all = of(Method::TcpTimestamp, Forward);
    record.tcp_timestamp_rtt_sample_count = all.count;
    record.tcp_timestamp_rtt_min_ns = all.min;
    record.tcp_timestamp_rtt_max_ns = all.max;
    record.tcp_timestamp_rtt_sum_ns = all.sum;
    record.tcp_timestamp_rtt_p50_ns = all.p50;
    record.tcp_timestamp_rtt_p90_ns = all.p90;
    record.tcp_timestamp_rtt_p99_ns = all.p99;
    let all = of(Method::TcpTimestamp, Reverse);
    record.reverse_tcp_timestamp_rtt_sample_count = all.count;
    record.reverse_tcp_timestamp_rtt_min_ns = all.min;
    record.reverse_tcp_timestamp_rtt_max_ns = all.max;
    record.reverse_tcp_timestamp_rtt_sum_ns = all.sum;
    record.reverse_tcp_timestamp_rtt_p50_ns = all.p50;
    record.reverse_tcp_timestamp_rtt_p90_ns = all.p90;
    record.reverse_tcp_timestamp_rtt_p99_ns = all.p99;
    let all = of(Method::SequenceAck, Forward);
    record.sequence_ack_rtt_sample_count = all.count;
    record.sequence_ack_rtt_min_ns = all.min;
    record.sequence_ack_rtt_max_ns = all.max;
    record.sequence_ack_rtt_sum_ns = all.sum;
    record.sequence_ack_rtt_p50_ns = all.p50;
    record.sequence_ack_rtt_p90_ns = all.p90;
    record.sequence_ack_rtt_p99_ns = all.p99;
    let all = of(Method::SequenceAck, Reverse);
    record.reverse_sequence_ack_rtt_sample_count = all.count;
    record.reverse_sequence_ack_rtt_min_ns = all.min;
    record.reverse_sequence_ack_rtt_max_ns = all.max;
    record.reverse_sequence_ack_rtt_sum_ns = all.sum;
    record.reverse_sequence_ack_rtt_p50_ns = all.p50;
    record.reverse_sequence_ack_rtt_p90_ns = all.p90;
    record.reverse_sequence_ack_rtt_p99_ns = all.p99;
    let all = of(Method::Response, Forward);
    record.response_time_sample_count = all.count;
    record.response_time_min_ns = all.min;
    record.response_time_max_ns = all.max;
    record.response_time_sum_ns = all.sum;
    record.response_time_p50_ns = all.p50;
    record.response_time_p90_ns = all.p90;
    record.response_time_p99_ns = all.p99;
}

fn events(record: &mut WindowRecord, extra: &Extra) {
    let of = |event, direction| Some(extra.events(event, direction));
    record.retransmission_packet_count = of(Event::Retransmission, Forward);
    record.reverse_retransmission_packet_count = of(Event::Retransmission, Reverse);
    record.fast_retransmission_packet_count = of(Event::Fast, Forward);
    record.reverse_fast_retransmission_packet_count = of(Event::Fast, Reverse);
    record.timeout_retransmission_packet_count = of(Event::Timeout, Forward);
    record.reverse_timeout_retransmission_packet_count = of(Event::Timeout, Reverse);
    record.spurious_retransmission_packet_count = of(Event::Spurious, Forward);
    record.reverse_spurious_retransmission_packet_count = of(Event::Spurious, Reverse);
    record.out_of_order_packet_count = of(Event::OutOfOrder, Forward);
    record.reverse_out_of_order_packet_count = of(Event::OutOfOrder, Reverse);
    record.duplicate_ack_count = of(Event::DuplicateAck, Forward);
    record.reverse_duplicate_ack_count = of(Event::DuplicateAck, Reverse);
    record.zero_window_count = of(Event::ZeroWindow, Forward);
    record.reverse_zero_window_count = of(Event::ZeroWindow, Reverse);
    record.tail_retransmission_packet_count = of(Event::Tail, Forward);
    record.reverse_tail_retransmission_packet_count = of(Event::Tail, Reverse);
    record.retransmission_episode_count = of(Event::Episode, Forward);
    record.reverse_retransmission_episode_count = of(Event::Episode, Reverse);
    record.window_full_count = of(Event::WindowFull, Forward);
    record.reverse_window_full_count = of(Event::WindowFull, Reverse);
    record.keep_alive_count = of(Event::KeepAlive, Forward);
    record.reverse_keep_alive_count = of(Event::KeepAlive, Reverse);
    record.window_probe_count = of(Event::WindowProbe, Forward);
    record.reverse_window_probe_count = of(Event::WindowProbe, Reverse);
    record.gap_count = of(Event::Gap, Forward);
    record.reverse_gap_count = of(Event::Gap, Reverse);
    record.reset_count = of(Event::Reset, Forward);
    record.reverse_reset_count = of(Event::Reset, Reverse);
    record.zero_window_ns = Some(extra.stalled_ns(Forward));
    record.reverse_zero_window_ns = Some(extra.stalled_ns(Reverse));
}

fn losses(record: &mut WindowRecord, extra: &Extra) {
    let of = |cause, direction| Some(extra.lost(cause, direction).packets);
    record.network_upstream_loss_packet_count = of(Cause::NetworkUpstream, Forward);
    record.reverse_network_upstream_loss_packet_count = of(Cause::NetworkUpstream, Reverse);
    record.network_downstream_loss_packet_count = of(Cause::NetworkDownstream, Forward);
    record.reverse_network_downstream_loss_packet_count = of(Cause::NetworkDownstream, Reverse);
    record.mirror_loss_packet_count = of(Cause::Mirror, Forward);
    record.reverse_mirror_loss_packet_count = of(Cause::Mirror, Reverse);
    record.unresolved_loss_packet_count = of(Cause::Unresolved, Forward);
    record.reverse_unresolved_loss_packet_count = of(Cause::Unresolved, Reverse);
}

/// Fills in what was measured of a flow; without totals nothing happened to it.
pub(super) fn of_flow(record: &mut FlowRecord, ended: &EndedFlow, totals: Option<&FlowTotals>) {
    static NOTHING: FlowTotals = FlowTotals::NOTHING;
    let totals = totals.unwrap_or(&NOTHING);
    let measured = &ended.flow.measured;
    record.handshake_server_rtt_ns = measured.handshake_server_rtt_ns;
    record.handshake_client_rtt_ns = measured.handshake_client_rtt_ns;
    record.connection_opening = measured.opening.map(Opening::name);
    if measured.packets {
        let (forward, reverse) = (ended.flow.initiator, ended.flow.initiator.other());
        record.duplicate_packet_count = Some(totals.duplicates(forward));
        record.reverse_duplicate_packet_count = Some(totals.duplicates(reverse));
        record.icmp_error_count = Some(totals.icmp_errors(forward));
        record.reverse_icmp_error_count = Some(totals.icmp_errors(reverse));
        record.fragment_count = Some(totals.fragments.into());
        record.snapped_packet_count = Some(totals.snapped.into());
    }
    if measured.segments {
        flow_events(record, ended, totals);
    }
    if measured.losses {
        flow_losses(record, ended, totals);
    }
}

fn flow_events(record: &mut FlowRecord, ended: &EndedFlow, totals: &FlowTotals) {
    let (forward, reverse) = (ended.flow.initiator, ended.flow.initiator.other());
    let of = |event, sender| Some(totals.events(event, sender));
    record.retransmission_packet_count = of(Event::Retransmission, forward);
    record.reverse_retransmission_packet_count = of(Event::Retransmission, reverse);
    record.fast_retransmission_packet_count = of(Event::Fast, forward);
    record.reverse_fast_retransmission_packet_count = of(Event::Fast, reverse);
    record.timeout_retransmission_packet_count = of(Event::Timeout, forward);
    record.reverse_timeout_retransmission_packet_count = of(Event::Timeout, reverse);
    record.spurious_retransmission_packet_count = of(Event::Spurious, forward);
    record.reverse_spurious_retransmission_packet_count = of(Event::Spurious, reverse);
    record.out_of_order_packet_count = of(Event::OutOfOrder, forward);
    record.reverse_out_of_order_packet_count = of(Event::OutOfOrder, reverse);
    record.duplicate_ack_count = of(Event::DuplicateAck, forward);
    record.reverse_duplicate_ack_count = of(Event::DuplicateAck, reverse);
    record.zero_window_count = of(Event::ZeroWindow, forward);
    record.reverse_zero_window_count = of(Event::ZeroWindow, reverse);
    record.tail_retransmission_packet_count = of(Event::Tail, forward);
    record.reverse_tail_retransmission_packet_count = of(Event::Tail, reverse);
    record.retransmission_episode_count = of(Event::Episode, forward);
    record.reverse_retransmission_episode_count = of(Event::Episode, reverse);
    record.window_full_count = of(Event::WindowFull, forward);
    record.reverse_window_full_count = of(Event::WindowFull, reverse);
    record.keep_alive_count = of(Event::KeepAlive, forward);
    record.reverse_keep_alive_count = of(Event::KeepAlive, reverse);
    record.window_probe_count = of(Event::WindowProbe, forward);
    record.reverse_window_probe_count = of(Event::WindowProbe, reverse);
    record.gap_count = of(Event::Gap, forward);
    record.reverse_gap_count = of(Event::Gap, reverse);
    record.reset_count = of(Event::Reset, forward);
    record.reverse_reset_count = of(Event::Reset, reverse);
    record.zero_window_ns = Some(totals.stalled_ns(forward));
    record.reverse_zero_window_ns = Some(totals.stalled_ns(reverse));
}

fn flow_losses(record: &mut FlowRecord, ended: &EndedFlow, totals: &FlowTotals) {
    let (forward, reverse) = (ended.flow.initiator, ended.flow.initiator.other());
    let lost = totals.lost(Cause::NetworkUpstream, forward);
    record.network_upstream_loss_packet_count = Some(lost.packets);
    record.network_upstream_loss_octet_count = Some(lost.octets);
    let lost = totals.lost(Cause::NetworkUpstream, reverse);
    record.reverse_network_upstream_loss_packet_count = Some(lost.packets);
    record.reverse_network_upstream_loss_octet_count = Some(lost.octets);
    let lost = totals.lost(Cause::NetworkDownstream, forward);
    record.network_downstream_loss_packet_count = Some(lost.packets);
    record.network_downstream_loss_octet_count = Some(lost.octets);
    let lost = totals.lost(Cause::NetworkDownstream, reverse);
    record.reverse_network_downstream_loss_packet_count = Some(lost.packets);
    record.reverse_network_downstream_loss_octet_count = Some(lost.octets);
    let lost = totals.lost(Cause::Mirror, forward);
    record.mirror_loss_packet_count = Some(lost.packets);
    record.mirror_loss_octet_count = Some(lost.octets);
    let lost = totals.lost(Cause::Mirror, reverse);
    record.reverse_mirror_loss_packet_count = Some(lost.packets);
    record.reverse_mirror_loss_octet_count = Some(lost.octets);
    let lost = totals.lost(Cause::Unresolved, forward);
    record.unresolved_loss_packet_count = Some(lost.packets);
    record.unresolved_loss_octet_count = Some(lost.octets);
    let lost = totals.lost(Cause::Unresolved, reverse);
    record.reverse_unresolved_loss_packet_count = Some(lost.packets);
    record.reverse_unresolved_loss_octet_count = Some(lost.octets);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{ExtraPlace, Extras};
    use crate::index::Sender;
    use crate::window::LateLosses;

    #[test]
    fn shares_are_of_all_there_were() {
        let loss = |cause, packets| crate::measure::tcp::Loss {
            cause,
            sender: Sender::Low,
            octets: 100 * packets,
            packets,
            at: crate::time::Timestamp(1),
        };
        let mut losses = LateLosses::default();
        losses.add(&loss(Cause::NetworkUpstream, 2));
        losses.add(&loss(Cause::NetworkDownstream, 1));
        losses.add(&loss(Cause::Mirror, 3));
        losses.add(&loss(Cause::Unresolved, 5));
        let extra = Extra::of_late(&losses, Sender::Low);
        // 90 seen and 10 that were not, of which 3 and 8 were lost.
        assert_eq!(shares(&extra, Forward, 90), [Some(0.03), Some(0.08)]);
        assert_eq!(shares(&extra, Reverse, 90), [Some(0.0); 2]);
        assert_eq!(shares(&extra, Forward, 0), [None; 2]);
    }

    #[test]
    fn a_measured_nothing_is_0_and_has_no_extremes() {
        let mut record = WindowRecord::default();
        let extras = Extras::default();
        of_conversation(&mut record, extras.get(ExtraPlace::default()).expect("nothing"), [1, 0]);
        assert_eq!(record.response_time_sample_count, Some(0));
        assert_eq!((record.response_time_p99_ns, record.gap_count), (None, Some(0)));
    }
}
