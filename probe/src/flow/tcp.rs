//! TCP state of a flow, as far as one who listens can tell.
//!
//! In: flags and numbers of each segment. Out: [`TcpState`], handshake times, events.
//! Cost: one test of flags on a line that is loaded already, but for handshakes and endings.
//! Invariants: a state is only left forwards; a new SYN with another number makes a new flow.
//! Source: RFC 9293 §3.3.2 (states), Karn and Partridge 1987 (no sample from repeated segments).

use crate::decode::{Headers, tcp_flag};
use crate::index::Sender;
use crate::time::Timestamp;

use super::event;
use super::measures::Measures;
use super::state::{Flow, Rest};

/// State of a TCP connection; `NotTcp` for everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// Another protocol.
    #[default]
    NotTcp = 0,
    /// First seen without SYN.
    Midstream = 1,
    /// SYN, no answer yet.
    SynSent = 2,
    /// SYN-ACK, not acknowledged yet.
    SynReceived = 3,
    /// Handshake complete.
    Established = 4,
    /// One side sent FIN.
    HalfClosed = 5,
    /// Both sides sent FIN.
    Closed = 6,
    /// RST.
    Reset = 7,
}

impl TcpState {
    /// The word in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTcp => "none",
            Self::Midstream => "midstream",
            Self::SynSent => "syn_sent",
            Self::SynReceived => "syn_received",
            Self::Established => "established",
            Self::HalfClosed => "half_closed",
            Self::Closed => "closed",
            Self::Reset => "reset",
        }
    }

    /// Whether the connection is over.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Closed | Self::Reset)
    }
}

const HANDSHAKE: u16 = tcp_flag::SYN | tcp_flag::ACK;

/// Whether this segment opens another connection than the flow's: a SYN with another number than
/// that direction began with.
#[inline]
pub(super) fn opens_another(flow: &Flow, rest: &Rest, headers: &Headers) -> bool {
    let sender = headers.sender.place();
    headers.tcp_flags & HANDSHAKE == tcp_flag::SYN && flow.tcp_control_bits[sender] != 0 && {
        rest.initial_sequence
    }[sender]
        != headers.tcp_sequence
}

/// What of a segment the state of its connection depends on.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) sender: Sender,
    pub(super) at: Timestamp,
}

impl Segment {
    #[inline]
    pub(super) const fn of(headers: &Headers) -> Self {
        Self {
            flags: headers.tcp_flags,
            sequence: headers.tcp_sequence,
            sender: headers.sender,
            at: headers.timestamp,
        }
    }
}

/// Flags that may change the connection's state.
const CHANGES: u16 = tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST;

/// Whether this segment changes nothing but the flags that were seen; then they are noted.
#[inline]
pub(super) fn is_plain(flow: &mut Flow, sender: Sender, flags: u16) -> bool {
    let bits = &mut flow.tcp_control_bits[sender.place()];
    let plain = flags & CHANGES == 0 && *bits != 0 && flow.tcp != TcpState::SynReceived;
    if plain {
        *bits |= flags.to_le_bytes()[0];
    }
    plain
}

/// Takes any segment of the flow in.
pub(super) fn segment(
    flow: &mut Flow,
    rest: &mut Rest,
    measures: Option<&mut Measures>,
    segment: Segment,
) {
    let Segment { flags, sequence, sender, at } = segment;
    if flow.tcp_control_bits[sender.place()] == 0 {
        rest.initial_sequence[sender.place()] = sequence;
    }
    flow.tcp_control_bits[sender.place()] |= flags.to_le_bytes()[0];
    if flags & tcp_flag::RST != 0 {
        flow.tcp = TcpState::Reset;
    } else if flags & HANDSHAKE == tcp_flag::SYN {
        syn(flow, measures, at);
    } else if flags & HANDSHAKE == HANDSHAKE {
        syn_ack(flow, measures, at);
    } else if flags & tcp_flag::ACK != 0
        && sender == flow.initiator()
        && flow.tcp == TcpState::SynReceived
    {
        established(flow, measures, at);
    }
    if flags & tcp_flag::FIN != 0 {
        fin(flow, sender);
    }
}

fn syn(flow: &mut Flow, measures: Option<&mut Measures>, at: Timestamp) {
    if let Some(measures) = measures {
        measures.syn(at, flow.events & event::SYN == 0);
    }
    flow.events |= event::SYN;
    if matches!(flow.tcp, TcpState::NotTcp | TcpState::Midstream) {
        flow.tcp = TcpState::SynSent;
    }
}

fn syn_ack(flow: &mut Flow, measures: Option<&mut Measures>, at: Timestamp) {
    if let Some(measures) = measures {
        let asked = flow.events & event::SYN != 0;
        measures.syn_ack(at, flow.events & event::SYN_ACK == 0, asked);
    }
    flow.events |= event::SYN_ACK;
    if matches!(flow.tcp, TcpState::NotTcp | TcpState::Midstream | TcpState::SynSent) {
        flow.tcp = TcpState::SynReceived;
    }
}

fn established(flow: &mut Flow, measures: Option<&mut Measures>, at: Timestamp) {
    flow.tcp = TcpState::Established;
    flow.events |= event::ESTABLISHED;
    if let Some(measures) = measures {
        measures.established(at);
    }
}

fn fin(flow: &mut Flow, sender: Sender) {
    let other = flow.tcp_control_bits[sender.other().place()];
    flow.tcp = match flow.tcp {
        TcpState::Reset => TcpState::Reset,
        _ if u16::from(other) & tcp_flag::FIN != 0 => TcpState::Closed,
        TcpState::Closed => TcpState::Closed,
        _ => TcpState::HalfClosed,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tcp_flag::{ACK, FIN, RST, SYN};

    fn run(segments: &[(Sender, u16, u64)]) -> (Flow, Rest, Measures) {
        let mut flow = Flow::default();
        flow.tcp = TcpState::Midstream;
        let (mut rest, mut measures) = (Rest::default(), Measures::default());
        for (number, (sender, flags, at_ns)) in (1_u32..).zip(segments) {
            let headers = Headers {
                tcp_flags: *flags,
                tcp_sequence: number,
                timestamp: Timestamp(*at_ns),
                sender: *sender,
                ..Headers::default()
            };
            if !is_plain(&mut flow, *sender, *flags) {
                segment(&mut flow, &mut rest, Some(&mut measures), Segment::of(&headers));
            }
        }
        (flow, rest, measures)
    }

    fn times(measures: &Measures) -> (Option<u64>, Option<u64>) {
        (measures.handshake_server_rtt_ns(), measures.handshake_client_rtt_ns())
    }

    #[test]
    fn a_whole_connection() {
        use Sender::{High, Low};
        let (flow, _, measures) = run(&[(Low, SYN, 100), (High, SYN | ACK, 130), (Low, ACK, 150)]);
        assert_eq!(flow.tcp, TcpState::Established);
        assert_eq!(times(&measures), (Some(30), Some(20)));
        let (flow, ..) =
            run(&[(Low, SYN, 1), (High, SYN | ACK, 2), (Low, ACK, 3), (Low, FIN | ACK, 4)]);
        assert_eq!(flow.tcp, TcpState::HalfClosed);
        let (flow, ..) = run(&[(Low, FIN | ACK, 4), (High, FIN | ACK, 5)]);
        assert_eq!(flow.tcp, TcpState::Closed);
    }

    #[test]
    fn repeated_segments_give_no_sample() {
        use Sender::{High, Low};
        let (.., measures) =
            run(&[(Low, SYN, 100), (Low, SYN, 110), (High, SYN | ACK, 130), (Low, ACK, 150)]);
        assert_eq!(times(&measures), (None, Some(20)));
        let (.., measures) = run(&[
            (Low, SYN, 100),
            (High, SYN | ACK, 130),
            (High, SYN | ACK, 140),
            (Low, ACK, 150),
        ]);
        assert_eq!(times(&measures), (Some(30), None));
        // A SYN that comes again after its answer hides nothing.
        let (.., measures) = run(&[(Low, SYN, 100), (High, SYN | ACK, 130), (Low, SYN, 140)]);
        assert_eq!(times(&measures), (Some(30), None));
    }

    #[test]
    fn reset_is_final_and_a_new_syn_is_another_connection() {
        use Sender::{High, Low};
        let (flow, rest, _) = run(&[(Low, SYN, 100), (High, RST | ACK, 130), (Low, FIN, 150)]);
        assert_eq!(flow.tcp, TcpState::Reset);
        let again = Headers { tcp_flags: SYN, tcp_sequence: 99, ..Headers::default() };
        assert!(opens_another(&flow, &rest, &again));
        let repeated = Headers { tcp_flags: SYN, tcp_sequence: 1, ..Headers::default() };
        assert!(!opens_another(&flow, &rest, &repeated));
    }
}
