//! TCP state of a flow, as far as one who listens can tell.
//!
//! In: flags and numbers of each segment. Out: [`TcpState`], handshake times, events.
//! Cost: a few compares on lines that are loaded already.
//! Invariants: a state is only left forwards; a new SYN with another number makes a new flow.
//! Source: RFC 9293 §3.3.2 (states), Karn and Partridge 1987 (no sample from repeated segments).

use crate::decode::{Headers, tcp_flag};
use crate::spread::Sender;
use crate::time::Timestamp;

use super::{Flow, event};

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
pub(super) fn opens_another(flow: &Flow, headers: &Headers, sender: Sender) -> bool {
    headers.tcp_flags & HANDSHAKE == tcp_flag::SYN
        && flow.initial_sequence[sender.place()]
            .is_some_and(|initial| initial != headers.tcp_sequence)
}

/// Takes a segment of the flow in.
pub(super) fn segment(flow: &mut Flow, headers: &Headers, sender: Sender) {
    let flags = headers.tcp_flags;
    let by_initiator = sender == flow.initiator;
    flow.tcp_control_bits[sender.place()] |= flags.to_le_bytes()[0];
    if flow.initial_sequence[sender.place()].is_none() {
        flow.initial_sequence[sender.place()] = Some(headers.tcp_sequence);
    }
    if flags & tcp_flag::RST != 0 {
        flow.tcp = TcpState::Reset;
    } else if flags & HANDSHAKE == tcp_flag::SYN {
        syn(flow, headers.timestamp);
    } else if flags & HANDSHAKE == HANDSHAKE {
        syn_ack(flow, headers.timestamp);
    } else if flags & tcp_flag::ACK != 0 && by_initiator && flow.tcp == TcpState::SynReceived {
        established(flow, headers.timestamp);
    }
    if flags & tcp_flag::FIN != 0 {
        fin(flow, sender);
    }
}

fn syn(flow: &mut Flow, at: Timestamp) {
    if flow.events & event::SYN == 0 {
        flow.syn_seen = at;
        raise(flow, event::SYN);
    } else {
        flow.repeated[0] = true;
    }
    if matches!(flow.tcp, TcpState::NotTcp | TcpState::Midstream) {
        flow.tcp = TcpState::SynSent;
    }
}

fn syn_ack(flow: &mut Flow, at: Timestamp) {
    if flow.events & event::SYN_ACK == 0 {
        flow.syn_ack_seen = at;
        raise(flow, event::SYN_ACK);
        if flow.events & event::SYN != 0 && !flow.repeated[0] {
            flow.handshake_server_rtt_ns = Some(at.since_ns(flow.syn_seen));
        }
    } else {
        flow.repeated[1] = true;
    }
    if matches!(flow.tcp, TcpState::NotTcp | TcpState::Midstream | TcpState::SynSent) {
        flow.tcp = TcpState::SynReceived;
    }
}

fn established(flow: &mut Flow, at: Timestamp) {
    flow.tcp = TcpState::Established;
    raise(flow, event::ESTABLISHED);
    if !flow.repeated[1] {
        flow.handshake_client_rtt_ns = Some(at.since_ns(flow.syn_ack_seen));
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

/// Notes an event of this window and of the flow.
pub(super) fn raise(flow: &mut Flow, event: u8) {
    flow.window_events |= event;
    flow.events |= event;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tcp_flag::{ACK, FIN, RST, SYN};

    fn run(segments: &[(Sender, u16, u64)]) -> Flow {
        let mut flow = Flow { tcp: TcpState::Midstream, ..Flow::default() };
        for (number, (sender, flags, at_ns)) in (1_u32..).zip(segments) {
            let headers = Headers {
                tcp_flags: *flags,
                tcp_sequence: number,
                timestamp: Timestamp(*at_ns),
                ..Headers::default()
            };
            segment(&mut flow, &headers, *sender);
        }
        flow
    }

    #[test]
    fn a_whole_connection() {
        use Sender::{High, Low};
        let flow = run(&[(Low, SYN, 100), (High, SYN | ACK, 130), (Low, ACK, 150)]);
        assert_eq!(flow.tcp, TcpState::Established);
        assert_eq!(
            (flow.handshake_server_rtt_ns, flow.handshake_client_rtt_ns),
            (Some(30), Some(20))
        );
        let flow = run(&[(Low, SYN, 1), (High, SYN | ACK, 2), (Low, ACK, 3), (Low, FIN | ACK, 4)]);
        assert_eq!(flow.tcp, TcpState::HalfClosed);
        let flow = run(&[(Low, FIN | ACK, 4), (High, FIN | ACK, 5)]);
        assert_eq!(flow.tcp, TcpState::Closed);
    }

    #[test]
    fn repeated_segments_give_no_sample() {
        use Sender::{High, Low};
        let flow =
            run(&[(Low, SYN, 100), (Low, SYN, 110), (High, SYN | ACK, 130), (Low, ACK, 150)]);
        assert_eq!((flow.handshake_server_rtt_ns, flow.handshake_client_rtt_ns), (None, Some(20)));
        let flow = run(&[
            (Low, SYN, 100),
            (High, SYN | ACK, 130),
            (High, SYN | ACK, 140),
            (Low, ACK, 150),
        ]);
        assert_eq!((flow.handshake_server_rtt_ns, flow.handshake_client_rtt_ns), (Some(30), None));
    }

    #[test]
    fn reset_is_final_and_a_new_syn_is_another_connection() {
        use Sender::{High, Low};
        let flow = run(&[(Low, SYN, 100), (High, RST | ACK, 130), (Low, FIN, 150)]);
        assert_eq!(flow.tcp, TcpState::Reset);
        let again = Headers { tcp_flags: SYN, tcp_sequence: 99, ..Headers::default() };
        assert!(opens_another(&flow, &again, Low));
        let repeated = Headers { tcp_flags: SYN, tcp_sequence: 1, ..Headers::default() };
        assert!(!opens_another(&flow, &repeated, Low));
    }
}
