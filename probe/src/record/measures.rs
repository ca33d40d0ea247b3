//! Measures of TCP as columns of records.
//!
//! In: what was measured of a conversation, or of a flow. Out: groups of columns of
//! [`super::WindowRecord`] and [`super::FlowRecord`].
//! Cost: nothing where nothing was measured or nothing happened; else 800 bytes a conversation.
//! Invariants: one list names each column and says where its values come from; a measure that is not
//! taken is null, a measured nothing is 0.
//! Source: docs/measures.md.

use std::sync::Arc;

use super::column::{Column, Element, Kind};
use super::group::{Cell, Columns, Group, joined, length};
use crate::aggregate::{Direction, Extra};
use crate::flow::{EndedFlow, FlowTotals};
use crate::index::Sender;
use crate::measure::histogram::{Sparse, Summary};
use crate::measure::tcp::{Cause, Event, Method};
use crate::window::What;

use Direction::{Forward, Reverse};

const fn column(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    meaning: &'static str,
) -> Column {
    Column { name, kind, nullable: true, unit, element: Element::None, meaning }
}

/// Two columns for each count: of what the initiator sent, and of what the responder sent.
macro_rules! counts {
    ($whats:ident, $columns:ident: $($what:expr => $name:literal, $unit:literal, $meaning:literal;)+) => {
        const $whats: [What; [$($name),+].len()] = [$($what),+];
        const $columns: &[Column] = &[$(
            column(
                $name,
                Kind::U64,
                $unit,
                concat!($meaning, ", initiator to responder; null where it is not measured."),
            ),
            column(
                concat!("reverse_", $name),
                Kind::U64,
                $unit,
                concat!($meaning, ", responder to initiator; null where it is not measured."),
            ),
        )+];
    };
}

/// Seven columns for each kind of delay.
macro_rules! delays {
    ($($method:expr, $direction:expr => $name:literal, $of:literal;)+) => {
        const DELAYS: [(Method, Direction); [$($name),+].len()] = [$(($method, $direction)),+];
        const DELAY_COLUMNS: &[Column] = &[$(
            column(
                concat!($name, "_sample_count"),
                Kind::U64,
                "samples",
                concat!("Samples of ", $of, "; null where it is not measured."),
            ),
            delay(concat!($name, "_min_ns"), "Least of these samples; null without one."),
            delay(concat!($name, "_max_ns"), "Largest of these samples; null without one."),
            delay(concat!($name, "_sum_ns"), "Sum of these samples; null without one."),
            delay(concat!($name, "_p50_ns"), "Median of these samples; null without one."),
            delay(concat!($name, "_p90_ns"), "90th percentile of these samples; null without one."),
            delay(concat!($name, "_p99_ns"), "99th percentile of these samples; null without one."),
        )+];
    };
}

const fn delay(name: &'static str, meaning: &'static str) -> Column {
    column(name, Kind::U64, "ns", meaning)
}

delays! {
    Method::HandshakeServer, Forward => "handshake_server_rtt", "the delay from SYN to SYN-ACK";
    Method::HandshakeClient, Reverse => "handshake_client_rtt", "the delay from SYN-ACK to its ACK";
    Method::TcpTimestamp, Forward => "tcp_timestamp_rtt",
        "the delay from a TCP timestamp of the initiator to the responder's echo of it";
    Method::TcpTimestamp, Reverse => "reverse_tcp_timestamp_rtt",
        "the delay from a TCP timestamp of the responder to the initiator's echo of it";
    Method::SequenceAck, Forward => "sequence_ack_rtt",
        "the delay from data of the initiator to the responder's acknowledgement";
    Method::SequenceAck, Reverse => "reverse_sequence_ack_rtt",
        "the delay from data of the responder to the initiator's acknowledgement";
    Method::Response, Forward => "response_time",
        "the time from the end of a request of the initiator to the first octet of the responder's response";
}

counts! {
    SEGMENTS, SEGMENT_COLUMNS:
    What::Event(Event::Retransmission) => "retransmission_packet_count", "packets",
        "Segments whose range was sent before, all classes; keep-alives and window probes apart";
    What::Event(Event::Fast) => "fast_retransmission_packet_count", "packets",
        "Retransmissions after duplicate acknowledgements";
    What::Event(Event::Timeout) => "timeout_retransmission_packet_count", "packets",
        "Retransmissions after a timeout";
    What::Event(Event::Spurious) => "spurious_retransmission_packet_count", "packets",
        "Retransmissions of what had arrived";
    What::Event(Event::OutOfOrder) => "out_of_order_packet_count", "packets",
        "Segments that arrived after a later one and are no retransmission";
    What::Event(Event::DuplicateAck) => "duplicate_ack_count", "packets",
        "Duplicate acknowledgements";
    What::Event(Event::ZeroWindow) => "zero_window_count", "packets",
        "Segments that announce a window of 0";
    What::Event(Event::Tail) => "tail_retransmission_packet_count", "packets",
        "Retransmissions of the last segment before the timeout";
    What::Event(Event::Episode) => "retransmission_episode_count", "rows",
        "Rows of retransmissions";
    What::Event(Event::WindowFull) => "window_full_count", "packets",
        "Segments that fill the window";
    What::Event(Event::KeepAlive) => "keep_alive_count", "packets", "Keep-alives";
    What::Event(Event::WindowProbe) => "window_probe_count", "packets", "Probes of a window of 0";
    What::Event(Event::Gap) => "gap_count", "packets",
        "Segments behind octets that were not seen (yet)";
    What::Event(Event::Reset) => "reset_count", "packets", "Resets sent";
    What::Stalled => "zero_window_ns", "ns",
        "How long the sender's own window was 0, counted when that ends";
}

counts! {
    LOST_PACKETS, LOST_PACKET_COLUMNS:
    What::LostPackets(Cause::NetworkUpstream) => "network_upstream_loss_packet_count", "packets",
        "Lost before this tap: a hole that the sender filled later: packets, by an estimate";
    What::LostPackets(Cause::NetworkDownstream) => "network_downstream_loss_packet_count", "packets",
        "Lost behind this tap: seen, repeated, and not in vain (an estimate): packets, by an estimate";
    What::LostPackets(Cause::Mirror) => "mirror_loss_packet_count", "packets",
        "Not seen, though the receiver has it: lost by the mirror or the probe: packets, by an estimate";
    What::LostPackets(Cause::Unresolved) => "unresolved_loss_packet_count", "packets",
        "Not seen, and nothing tells why: packets, by an estimate";
}

counts! {
    LOST_OCTETS, LOST_OCTET_COLUMNS:
    What::LostOctets(Cause::NetworkUpstream) => "network_upstream_loss_octet_count", "octets",
        "Lost before this tap: a hole that the sender filled later: octets of payload";
    What::LostOctets(Cause::NetworkDownstream) => "network_downstream_loss_octet_count", "octets",
        "Lost behind this tap: seen, repeated, and not in vain (an estimate): octets of payload";
    What::LostOctets(Cause::Mirror) => "mirror_loss_octet_count", "octets",
        "Not seen, though the receiver has it: lost by the mirror or the probe: octets of payload";
    What::LostOctets(Cause::Unresolved) => "unresolved_loss_octet_count", "octets",
        "Not seen, and nothing tells why: octets of payload";
}

const SHARE_COLUMNS: &[Column] = &[
    column(
        "loss_low",
        Kind::F64,
        "0–1",
        "Share of packets lost in the network, initiator to responder: both network causes over the \
         packets of this row and the lost ones that were not seen; null without packets.",
    ),
    column(
        "loss_high",
        Kind::F64,
        "0–1",
        "The same with what is unresolved, initiator to responder.",
    ),
    column(
        "reverse_loss_low",
        Kind::F64,
        "0–1",
        "Share of packets lost in the network, responder to initiator: both network causes over the \
         packets of this row and the lost ones that were not seen; null without packets.",
    ),
    column(
        "reverse_loss_high",
        Kind::F64,
        "0–1",
        "The same with what is unresolved, responder to initiator.",
    ),
];

/// One count, forward and reverse.
type BothWays = [u64; 2];

/// Each of `whats`, both ways.
fn counted<const N: usize>(
    whats: &[What; N],
    of: impl Fn(What, Direction) -> u64,
) -> [BothWays; N] {
    whats.map(|what| Direction::BOTH.map(|way| of(what, way)))
}

fn cells_of(counts: &[BothWays]) -> impl Iterator<Item = Cell> {
    counts.as_flattened().iter().map(|count| Cell::Number(Some(*count)))
}

/// What happened by TCP segments, in the order of their columns.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentCounts(pub [BothWays; SEGMENTS.len()]);

impl Columns for SegmentCounts {
    const COLUMNS: &'static [Column] = SEGMENT_COLUMNS;

    fn cells(&self) -> impl Iterator<Item = Cell> {
        cells_of(&self.0)
    }
}

/// What a flow lost, in the order of its columns.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowLosses {
    /// Packets, by cause.
    pub packets: [BothWays; LOST_PACKETS.len()],
    /// Octets of payload, by cause.
    pub octets: [BothWays; LOST_OCTETS.len()],
}

const FLOW_LOSS_PARTS: &[&[Column]] = &[LOST_PACKET_COLUMNS, LOST_OCTET_COLUMNS];

impl Columns for FlowLosses {
    const COLUMNS: &'static [Column] = {
        const ALL: [Column; length(FLOW_LOSS_PARTS)] = joined(FLOW_LOSS_PARTS);
        &ALL
    };

    fn cells(&self) -> impl Iterator<Item = Cell> {
        cells_of(&self.packets).chain(cells_of(&self.octets))
    }
}

/// Samples of one kind of delay, at least one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Delays {
    /// Count, sum and extremes.
    pub summary: Summary,
    /// Median, 90th and 99th percentile in ns.
    pub percentiles_ns: [u64; 3],
}

impl Delays {
    fn of(samples: &Sparse) -> Self {
        let percentile = |per_mille| samples.percentile_ns(per_mille).unwrap_or_default();
        Self { summary: samples.summary(), percentiles_ns: [500, 900, 990].map(percentile) }
    }

    fn cells(delays: Option<&Self>) -> [Cell; 7] {
        let Some(Self { summary, percentiles_ns: [p50, p90, p99] }) = delays else {
            let mut cells = [Cell::Number(None); 7];
            cells[0] = Cell::Number(Some(0));
            return cells;
        };
        let Summary { count, sum_ns, min_ns, max_ns } = *summary;
        [count, min_ns, max_ns, sum_ns, *p50, *p90, *p99].map(|value| Cell::Number(Some(value)))
    }
}

/// What was measured of a conversation, in the order of its columns.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowMeasures {
    /// By kind; `None` without a sample.
    pub delays: [Option<Delays>; DELAYS.len()],
    /// Events.
    pub segments: SegmentCounts,
    /// Packets lost, by cause.
    pub lost_packets: [BothWays; LOST_PACKETS.len()],
    /// Least and largest share of packets lost in the network, forward and reverse; `None` without
    /// packets.
    pub loss: [[Option<f64>; 2]; 2],
}

const WINDOW_PARTS: &[&[Column]] =
    &[DELAY_COLUMNS, SEGMENT_COLUMNS, LOST_PACKET_COLUMNS, SHARE_COLUMNS];

impl Columns for WindowMeasures {
    const COLUMNS: &'static [Column] = {
        const ALL: [Column; length(WINDOW_PARTS)] = joined(WINDOW_PARTS);
        &ALL
    };

    fn cells(&self) -> impl Iterator<Item = Cell> {
        let delays = self.delays.iter().flat_map(|delays| Delays::cells(delays.as_ref()));
        let shares = self.loss.as_flattened().iter().map(|share| Cell::Share(*share));
        delays.chain(self.segments.cells()).chain(cells_of(&self.lost_packets)).chain(shares)
    }
}

impl WindowMeasures {
    /// Where nothing happened; by direction, whether there were packets.
    const fn nothing(packets: [bool; 2]) -> Self {
        const fn share(packets: bool) -> [Option<f64>; 2] {
            if packets { [Some(0.0); 2] } else { [None; 2] }
        }
        Self {
            delays: [None; DELAYS.len()],
            segments: SegmentCounts([[0; 2]; SEGMENTS.len()]),
            lost_packets: [[0; 2]; LOST_PACKETS.len()],
            loss: [share(packets[0]), share(packets[1])],
        }
    }

    fn of(extra: &Extra, packets: [u64; 2]) -> Self {
        let delays = |(method, way)| extra.delay(method, way).map(Delays::of);
        let count = |what, way| extra.count(what, way);
        let lost_packets = counted(&LOST_PACKETS, count);
        Self {
            delays: DELAYS.map(delays),
            segments: SegmentCounts(counted(&SEGMENTS, count)),
            lost_packets,
            loss: [0, 1].map(|way| shares(lost_packets.map(|lost| lost[way]), packets[way])),
        }
    }
}

/// Of packets that were lost by cause, and so many that were seen: lost in the network over all there
/// were, and the same with what is unresolved.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits than a double has")]
fn shares(lost: [u64; LOST_PACKETS.len()], packets: u64) -> [Option<f64>; 2] {
    let [upstream, downstream, mirror, unresolved] = lost;
    let network = upstream + downstream;
    let all = packets + upstream + mirror + unresolved;
    let share = |part: u64| (packets != 0).then(|| part.min(all) as f64 / all as f64);
    [share(network), share(network + unresolved)]
}

/// What was measured of a conversation of TCP with so many packets, forward and reverse.
pub(super) fn of_conversation(extra: &Extra, packets: [u64; 2]) -> Group<WindowMeasures> {
    static NOTHING: [[WindowMeasures; 2]; 2] = [
        [WindowMeasures::nothing([false, false]), WindowMeasures::nothing([false, true])],
        [WindowMeasures::nothing([true, false]), WindowMeasures::nothing([true, true])],
    ];
    if extra.is_empty() {
        let [forward, reverse] = packets.map(|packets| usize::from(packets > 0));
        return Group::Same(&NOTHING[forward][reverse]);
    }
    Group::Own(Arc::new(WindowMeasures::of(extra, packets)))
}

/// What happened by the segments of a flow, and what they lost; without totals nothing.
pub(super) fn of_flow(
    ended: &EndedFlow,
    totals: Option<&FlowTotals>,
) -> (Group<SegmentCounts>, Group<FlowLosses>) {
    static NOTHING: SegmentCounts = SegmentCounts([[0; 2]; SEGMENTS.len()]);
    static NO_LOSSES: FlowLosses =
        FlowLosses { packets: [[0; 2]; LOST_PACKETS.len()], octets: [[0; 2]; LOST_OCTETS.len()] };
    let count = |totals: &FlowTotals, what, way| {
        let initiator = ended.flow.initiator;
        let sender: Sender = if way == Forward { initiator } else { initiator.other() };
        totals.count(what, sender)
    };
    let segments = match totals {
        _ if !ended.flow.measured.segments => Group::Null,
        None => Group::Same(&NOTHING),
        Some(totals) => {
            let counts = counted(&SEGMENTS, |what, way| count(totals, what, way));
            Group::Own(Arc::new(SegmentCounts(counts)))
        }
    };
    let losses = match totals {
        _ if !ended.flow.measured.losses => Group::Null,
        None => Group::Same(&NO_LOSSES),
        Some(totals) => {
            let counts = |whats| counted(whats, |what, way| count(totals, what, way));
            let (packets, octets) = (counts(&LOST_PACKETS), counts(&LOST_OCTETS));
            Group::Own(Arc::new(FlowLosses { packets, octets }))
        }
    };
    (segments, losses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Biflow, Measured};
    use crate::index::Sender;
    use crate::measure::tcp::Loss;
    use crate::window::LateLosses;

    /// The value of a column of this name.
    fn cell<T: Columns>(group: &Group<T>, name: &str) -> Option<Cell> {
        let place = T::COLUMNS.iter().position(|column| column.name == name).expect(name);
        group.get().map(|values| values.cells().nth(place).expect("a value for each column"))
    }

    fn number(value: u64) -> Option<Cell> {
        Some(Cell::Number(Some(value)))
    }

    fn loss(cause: Cause, packets: u32) -> Loss {
        let (octets, at) = (100 * packets, crate::time::Timestamp(1));
        Loss { cause, sender: Sender::Low, octets, packets, at }
    }

    fn losses() -> LateLosses {
        let mut losses = LateLosses::default();
        losses.add(&loss(Cause::NetworkUpstream, 2));
        losses.add(&loss(Cause::NetworkDownstream, 1));
        losses.add(&loss(Cause::Mirror, 3));
        losses.add(&loss(Cause::Unresolved, 5));
        losses
    }

    #[test]
    fn shares_are_of_all_there_were() {
        let extra = Extra::of_late(&losses(), Sender::Low);
        // 90 seen and 10 that were not, of which 3 and 8 were lost.
        let measures = WindowMeasures::of(&extra, [90, 90]);
        assert_eq!(measures.loss, [[Some(0.03), Some(0.08)], [Some(0.0); 2]]);
        assert_eq!(WindowMeasures::of(&extra, [0, 0]).loss, [[None; 2]; 2]);
    }

    #[test]
    fn each_column_has_its_own_value() {
        let extra = Extra::of_late(&losses(), Sender::High);
        let group = of_conversation(&extra, [1, 90]);
        assert_eq!(cell(&group, "mirror_loss_packet_count"), number(0));
        assert_eq!(cell(&group, "reverse_mirror_loss_packet_count"), number(3));
        assert_eq!(cell(&group, "reverse_unresolved_loss_packet_count"), number(5));
        assert_eq!(cell(&group, "reverse_loss_high"), Some(Cell::Share(Some(0.08))));
        let cells = group.get().expect("measured").cells().count();
        assert_eq!(cells, WindowMeasures::COLUMNS.len());
    }

    #[test]
    fn a_measured_nothing_is_0_has_no_extremes_and_takes_no_memory() {
        for packets in [[0, 0], [0, 7], [7, 0], [7, 7]] {
            let group = of_conversation(&Extra::default(), packets);
            assert!(matches!(group, Group::Same(_)));
            // As if it had been worked out.
            assert_eq!(group.get(), Some(&WindowMeasures::of(&Extra::default(), packets)));
            assert_eq!(cell(&group, "response_time_sample_count"), number(0));
            assert_eq!(cell(&group, "response_time_p99_ns"), Some(Cell::Number(None)));
            assert_eq!(cell(&group, "gap_count"), number(0));
        }
    }

    #[test]
    fn a_flow_has_what_was_looked_at() {
        let mut totals = FlowTotals::default();
        totals.event(Event::Gap, Sender::High);
        totals.stalled(Sender::Low, 9);
        totals.loss(&loss(Cause::Mirror, 4));
        let flow = |segments, losses| EndedFlow {
            flow: Biflow {
                initiator: Sender::High,
                measured: Measured { segments, losses, ..Measured::default() },
                ..Biflow::default()
            },
            ..EndedFlow::default()
        };
        let (segments, losses) = of_flow(&flow(true, true), Some(&totals));
        assert_eq!(cell(&segments, "gap_count"), number(1));
        assert_eq!(cell(&segments, "reverse_gap_count"), number(0));
        assert_eq!(cell(&segments, "reverse_zero_window_ns"), number(9));
        assert_eq!(cell(&losses, "reverse_mirror_loss_packet_count"), number(4));
        assert_eq!(cell(&losses, "reverse_mirror_loss_octet_count"), number(400));
        let (segments, losses) = of_flow(&flow(true, false), None);
        assert!(matches!((&segments, &losses), (Group::Same(_), Group::Null)));
        assert_eq!(cell(&segments, "gap_count"), number(0));
        let (segments, losses) = of_flow(&flow(false, true), Some(&FlowTotals::default()));
        assert_eq!((segments, cell(&losses, "mirror_loss_octet_count")), (Group::Null, number(0)));
    }
}
