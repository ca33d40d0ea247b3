//! TCP state of a flow, as far as one who listens can tell.
//!
//! In: flags and numbers of each segment. Out: [`TcpState`], events.
//! Cost: one test of flags on a line that is loaded already, but for handshakes and endings.
//! Invariants: a state is only left forwards; a new SYN with another number makes a new flow.
//! Source: RFC 9293 §3.3.2 (states).

use crate::decode::tcp_flag;
use crate::index::Sender;

use super::event;
use super::packet::Packet;
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
pub(super) fn opens_another(flow: &Flow, rest: &Rest, packet: &impl Packet) -> bool {
    let sender = packet.sender().place();
    u16::from(packet.tcp_flags()) & HANDSHAKE == tcp_flag::SYN
        && flow.tcp_control_bits[sender] != 0
        && { rest.initial_sequence }[sender] != packet.tcp_sequence()
}

/// What of a segment the state of its connection depends on.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    flags: u8,
    sequence: u32,
    sender: Sender,
}

impl Segment {
    #[inline]
    pub(super) fn of(packet: &impl Packet) -> Self {
        Self { flags: packet.tcp_flags(), sequence: packet.tcp_sequence(), sender: packet.sender() }
    }
}

/// Flags that may change the connection's state.
const CHANGES: u16 = tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST;

/// Whether this segment changes nothing but the flags that were seen; then they are noted.
#[inline]
pub(super) fn is_plain(flow: &mut Flow, sender: Sender, flags: u8) -> bool {
    let bits = &mut flow.tcp_control_bits[sender.place()];
    let opens = matches!(flow.tcp, TcpState::SynSent | TcpState::SynReceived);
    let plain = u16::from(flags) & CHANGES == 0 && *bits != 0 && !opens;
    if plain {
        *bits |= flags;
    }
    plain
}

/// Whether a segment of a settled flow, which has neither SYN nor RST and is not the first of its
/// sender, changes more than the flags that were seen; those are noted. Of another protocol there are
/// none.
#[inline]
pub(super) const fn changes_settled(flow: &mut Flow, sender: Sender, flags: u8) -> bool {
    debug_assert!(
        matches!(flow.tcp, TcpState::NotTcp) || flow.tcp_control_bits[sender.place()] != 0,
        "the first segment of its sender"
    );
    flow.tcp_control_bits[sender.place()] |= flags;
    flags as u16 & tcp_flag::FIN != 0
        || matches!(flow.tcp, TcpState::SynSent | TcpState::SynReceived)
}

/// Takes such a segment in that changes more: it acknowledges, or ends its sender's direction.
#[inline]
pub(super) const fn settled_segment(flow: &mut Flow, sender: Sender, flags: u8) {
    let flags = flags as u16;
    if flags & tcp_flag::ACK != 0 {
        flow.events |= event::ACKNOWLEDGED;
        acknowledge(flow, sender);
    }
    if flags & tcp_flag::FIN != 0 {
        fin(flow, sender);
    }
}

/// Takes any segment of the flow in.
#[inline]
pub(super) fn segment(flow: &mut Flow, rest: &mut Rest, segment: Segment) {
    let Segment { flags, sequence, sender } = segment;
    if flow.tcp_control_bits[sender.place()] == 0 {
        rest.initial_sequence[sender.place()] = sequence;
    }
    flow.tcp_control_bits[sender.place()] |= flags;
    let flags = u16::from(flags);
    if flags & (tcp_flag::ACK | tcp_flag::SYN | tcp_flag::RST) == tcp_flag::ACK {
        flow.events |= event::ACKNOWLEDGED;
    }
    if flags & tcp_flag::RST != 0 {
        flow.tcp = TcpState::Reset;
    } else if flags & HANDSHAKE == tcp_flag::SYN {
        syn(flow);
    } else if flags & HANDSHAKE == HANDSHAKE {
        syn_ack(flow);
    } else if flags & tcp_flag::ACK != 0 {
        acknowledge(flow, sender);
    }
    if flags & tcp_flag::FIN != 0 {
        fin(flow, sender);
    }
}

fn syn(flow: &mut Flow) {
    flow.events |= event::SYN;
    if matches!(flow.tcp, TcpState::NotTcp | TcpState::Midstream) {
        flow.tcp = TcpState::SynSent;
    }
}

fn syn_ack(flow: &mut Flow) {
    flow.events |= event::SYN_ACK;
    if matches!(flow.tcp, TcpState::NotTcp | TcpState::Midstream | TcpState::SynSent) {
        flow.tcp = TcpState::SynReceived;
    }
}

const fn acknowledge(flow: &mut Flow, sender: Sender) {
    if matches!(flow.tcp, TcpState::SynReceived) && sender as u8 == flow.initiator() as u8 {
        flow.tcp = TcpState::Established;
        flow.events |= event::ESTABLISHED;
    }
}

const fn fin(flow: &mut Flow, sender: Sender) {
    let other = flow.tcp_control_bits[sender.other().place()];
    flow.tcp = match flow.tcp {
        TcpState::Reset => TcpState::Reset,
        _ if other as u16 & tcp_flag::FIN != 0 => TcpState::Closed,
        TcpState::Closed => TcpState::Closed,
        _ => TcpState::HalfClosed,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Headers;
    use crate::decode::tcp_flag::{ACK, FIN, RST, SYN};

    fn run(segments: &[(Sender, u16)]) -> (Flow, Rest) {
        let mut flow = Flow::default();
        flow.tcp = TcpState::Midstream;
        let mut rest = Rest::default();
        for (number, (sender, flags)) in (1_u32..).zip(segments) {
            let headers = Headers {
                tcp_flags: *flags,
                tcp_sequence: number,
                sender: *sender,
                ..Headers::default()
            };
            if !is_plain(&mut flow, *sender, headers.tcp_flags.to_le_bytes()[0]) {
                segment(&mut flow, &mut rest, Segment::of(&headers));
            }
        }
        (flow, rest)
    }

    #[test]
    fn a_whole_connection() {
        use Sender::{High, Low};
        let (flow, _) = run(&[(Low, SYN), (High, SYN | ACK), (Low, ACK)]);
        assert_eq!(flow.tcp, TcpState::Established);
        let (flow, _) = run(&[(Low, SYN), (High, SYN | ACK), (Low, ACK), (Low, FIN | ACK)]);
        assert_eq!(flow.tcp, TcpState::HalfClosed);
        let (flow, _) = run(&[(Low, FIN | ACK), (High, FIN | ACK)]);
        assert_eq!(flow.tcp, TcpState::Closed);
    }

    #[test]
    fn an_acknowledgement_is_known_though_one_direction_alone_is_seen() {
        use Sender::{High, Low};
        let acknowledged = |segments: &[(Sender, u16)]| {
            run(segments).0.events & event::ACKNOWLEDGED == event::ACKNOWLEDGED
        };
        assert!(acknowledged(&[(Low, SYN), (Low, ACK)]));
        assert!(acknowledged(&[(High, SYN | ACK), (High, ACK)]));
        assert!(acknowledged(&[(Low, ACK)]) && acknowledged(&[(Low, FIN | ACK)]));
        assert!(!acknowledged(&[(Low, SYN), (Low, SYN), (High, RST | ACK)]));
        assert!(!acknowledged(&[(High, SYN | ACK), (High, SYN | ACK), (High, RST)]));
    }

    #[test]
    fn reset_is_final_and_a_new_syn_is_another_connection() {
        use Sender::{High, Low};
        let (flow, rest) = run(&[(Low, SYN), (High, RST | ACK), (Low, FIN)]);
        assert_eq!(flow.tcp, TcpState::Reset);
        let again = Headers { tcp_flags: SYN, tcp_sequence: 99, ..Headers::default() };
        assert!(opens_another(&flow, &rest, &again));
        let repeated = Headers { tcp_flags: SYN, tcp_sequence: 1, ..Headers::default() };
        assert!(!opens_another(&flow, &rest, &repeated));
    }
}
