//! Consecutive TCP segments become one frame, as a receiver's GRO makes them.
//!
//! In: frames that are about to leave, in their order, with the time. Out: frames, some of them of
//! several parts.
//! Cost: at most [`FLOWS_MAX`] frames that wait, each no longer than [`Merge::frame_octets_max`].
//! Invariants: the octets of a merged segment are those of its parts, in order; frames of one flow
//! never overtake one another here; lengths and checksums of what was merged hold; the second of a
//! frame that leaves twice is never merged.
//! Source: Linux `tcp_gro_receive` (net/ipv4/tcp_offload.c): the same acknowledgement, options,
//! window and flags but for PSH and FIN; ends behind PSH, FIN or a segment shorter than the first.

use super::impairments::Merge;
use super::packet::{ACK, FIN, Headers, PSH, Tcp, correct_tcp, parse};

/// Flows with a frame that waits, at most; as `MAX_GRO_SKBS` in Linux.
const FLOWS_MAX: usize = 8;

/// One frame that came, or its second copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Place of the frame in the log.
    pub(super) frame: usize,
    /// The second of a frame that leaves twice.
    pub(super) is_second: bool,
}

/// A frame that leaves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    pub(super) octets: Vec<u8>,
    pub(super) wire_octets: u32,
    /// At least one.
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
struct Open {
    leaving: Leaving,
    headers: Headers,
    first: Tcp,
    next_sequence: u32,
    deadline_ns: u64,
}

/// Frames of one direction that wait for their successors.
#[derive(Debug)]
pub(super) struct Merger {
    rule: Merge,
    open: Vec<Open>,
}

impl Merger {
    pub(super) const fn new(rule: Merge) -> Self {
        Self { rule, open: Vec::new() }
    }

    /// When the first of the waiting ones leaves at the latest.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.open.iter().map(|open| open.deadline_ns).min()
    }

    /// One whose deadline has come.
    pub(super) fn overdue(&mut self, now_ns: u64) -> Option<Leaving> {
        let due = self.open.iter().enumerate().filter(|(_, open)| open.deadline_ns <= now_ns);
        let place = due.min_by_key(|(_, open)| open.deadline_ns)?.0;
        Some(close(self.open.remove(place)))
    }

    /// Takes a frame; the answer is what leaves now, in order.
    pub(super) fn offer(&mut self, now_ns: u64, leaving: Leaving) -> Vec<Leaving> {
        let mut out = Vec::new();
        let headers = parse(&leaving.octets);
        let same_flow =
            |open: &Open| headers.is_some_and(|headers| is_one_flow(&open.headers, &headers));
        let candidate = headers.and_then(|headers| Some((headers, mergeable(&leaving, &headers)?)));
        if let Some(place) = self.open.iter().position(same_flow) {
            let fits =
                candidate.filter(|(_, tcp)| self.open[place].takes(&leaving, tcp, self.rule));
            let Some((_, tcp)) = fits else {
                out.push(close(self.open.remove(place)));
                return self.begin(now_ns, leaving, candidate, out);
            };
            let open = &mut self.open[place];
            open.append(&leaving, &tcp);
            if ends(&tcp) || tcp.payload_octets < open.first.payload_octets {
                out.push(close(self.open.remove(place)));
            }
            return out;
        }
        self.begin(now_ns, leaving, candidate, out)
    }

    fn begin(
        &mut self,
        now_ns: u64,
        leaving: Leaving,
        candidate: Option<(Headers, Tcp)>,
        mut out: Vec<Leaving>,
    ) -> Vec<Leaving> {
        let Some((headers, first)) = candidate.filter(|(_, tcp)| !ends(tcp)) else {
            out.push(leaving);
            return out;
        };
        if self.open.len() == FLOWS_MAX {
            out.push(close(self.open.remove(0)));
        }
        let next_sequence = first.sequence.wrapping_add(first.payload_octets);
        let deadline_ns = now_ns.saturating_add(self.rule.hold_ns);
        self.open.push(Open { leaving, headers, first, next_sequence, deadline_ns });
        out
    }
}

impl Open {
    fn takes(&self, next: &Leaving, tcp: &Tcp, rule: Merge) -> bool {
        let (here, there) = (&self.leaving.octets, &next.octets);
        let ip_at = self.headers.ip_at;
        let is_same = |from: usize, to: usize| here.get(from..to) == there.get(from..to);
        // MAC addresses, tags, and of the IP header what does not change from packet to packet.
        let ip_is_same = is_same(0, ip_at)
            && if self.headers.source.is_ipv4() {
                is_same(ip_at, ip_at + 2) && is_same(ip_at + 6, ip_at + 10)
            } else {
                is_same(ip_at, ip_at + 4) && is_same(ip_at + 6, ip_at + 8)
            };
        let (at, first) = (self.first.at, &self.first);
        let octets = here.len() + tcp.payload_octets as usize;
        ip_is_same
            && tcp.at == at
            && tcp.payload_at == first.payload_at
            && tcp.sequence == self.next_sequence
            && tcp.acknowledgement == first.acknowledgement
            && tcp.payload_octets <= first.payload_octets
            && is_same(at + 14, at + 16)
            && is_same(at + 20, first.payload_at)
            && octets <= (rule.frame_octets_max as usize).min(ip_at + usize::from(u16::MAX))
    }

    fn append(&mut self, next: &Leaving, tcp: &Tcp) {
        let frame = &mut self.leaving.octets;
        frame.extend_from_slice(&next.octets[tcp.payload_at..]);
        frame[self.first.at + 13] |= tcp.flags & (PSH | FIN);
        self.next_sequence = self.next_sequence.wrapping_add(tcp.payload_octets);
        self.leaving.parts.extend(&next.parts);
    }
}

fn close(open: Open) -> Leaving {
    let Open { mut leaving, headers, first, .. } = open;
    if leaving.parts.len() > 1 {
        correct_tcp(&mut leaving.octets, &headers, first.at);
        leaving.wire_octets = u32::try_from(leaving.octets.len()).unwrap_or(u32::MAX);
    }
    leaving
}

/// The segment, if it may be merged with others at all.
fn mergeable(leaving: &Leaving, headers: &Headers) -> Option<Tcp> {
    let tcp = headers.tcp?;
    let whole = headers.ip_at + headers.ip_octets as usize;
    let header_octets = if headers.source.is_ipv4() { 20 } else { 40 };
    let is_plain = headers.tunnels == 0
        && leaving.parts.iter().all(|part| !part.is_second)
        && leaving.octets.len() == whole
        && leaving.wire_octets as usize == whole
        && tcp.at == headers.ip_at + header_octets
        && tcp.payload_octets > 0
        && tcp.flags & ACK != 0
        && tcp.flags & !(ACK | PSH | FIN) == 0;
    is_plain.then_some(tcp)
}

const fn ends(tcp: &Tcp) -> bool {
    tcp.flags & (PSH | FIN) != 0
}

fn is_one_flow(one: &Headers, other: &Headers) -> bool {
    let key = |headers: &Headers| {
        let Headers { source, destination, protocol, source_port, destination_port, .. } = *headers;
        (source, destination, protocol, source_port, destination_port)
    };
    key(one) == key(other)
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::{checksums_hold, segment};
    use super::*;

    const RULE: Merge = Merge { frame_octets_max: 3_100, hold_ns: 100 };

    fn leaving(frame: usize, octets: Vec<u8>) -> Leaving {
        let wire_octets = u32::try_from(octets.len()).expect("small");
        Leaving { octets, wire_octets, parts: vec![Part { frame, is_second: false }] }
    }

    fn parts(leaving: &[Leaving]) -> Vec<Vec<usize>> {
        leaving.iter().map(|one| one.parts.iter().map(|part| part.frame).collect()).collect()
    }

    #[test]
    fn segments_in_order_become_one() {
        let mut merger = Merger::new(RULE);
        let payload: Vec<u8> = (0..=255).cycle().take(2_500).collect();
        assert_eq!(merger.offer(0, leaving(0, segment(u32::MAX - 499, &payload[..1_000], 0))), []);
        assert_eq!(merger.offer(5, leaving(1, segment(500, &payload[1_000..2_000], 0))), []);
        assert_eq!(merger.deadline_ns(), Some(100));
        let out = merger.offer(6, leaving(2, segment(1_500, &payload[2_000..], PSH)));
        assert_eq!(parts(&out), [[0, 1, 2]]);
        assert!(checksums_hold(&out[0].octets));
        let tcp = parse(&out[0].octets).and_then(|headers| headers.tcp).expect("TCP");
        assert_eq!(
            (tcp.sequence, tcp.payload_octets, tcp.flags),
            (u32::MAX - 499, 2_500, ACK | PSH)
        );
        assert_eq!(&out[0].octets[tcp.payload_at..], payload);
        assert_eq!(merger.deadline_ns(), None);
    }

    #[test]
    fn what_does_not_follow_ends_what_waits() {
        let mut merger = Merger::new(RULE);
        let data = [7; 1_000];
        assert_eq!(merger.offer(0, leaving(0, segment(0, &data, 0))), []);
        // A hole: what waited leaves, what came waits.
        assert_eq!(parts(&merger.offer(1, leaving(1, segment(2_000, &data, 0)))), [[0]]);
        // No payload: passes behind what waited.
        assert_eq!(parts(&merger.offer(2, leaving(2, segment(3_000, &[], 0)))), [[1], [2]]);
        // Too long for one frame, then too late.
        for (number, sequence) in [(3, 0), (4, 1_000), (5, 2_000)] {
            let out = merger.offer(10, leaving(number, segment(sequence, &data, 0)));
            assert_eq!(parts(&out).len(), usize::from(number == 6), "{number}");
        }
        assert_eq!(parts(&merger.offer(10, leaving(6, segment(3_000, &data, 0)))), [[3, 4, 5]]);
        assert_eq!(merger.overdue(109), None);
        let late = merger.overdue(110).expect("its time has come");
        assert_eq!(parts(&[late]), [[6]]);
        // A short one, or one with PSH, is the last.
        assert_eq!(merger.offer(200, leaving(7, segment(0, &data, 0))), []);
        assert_eq!(parts(&merger.offer(201, leaving(8, segment(1_000, &data[..9], 0)))), [[7, 8]]);
        assert_eq!(parts(&merger.offer(202, leaving(9, segment(1_009, &data, PSH)))), [[9]]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut merger = Merger::new(RULE);
        for number in 0..100_u16 {
            let mut frame = segment(0, &[1; 100], 0);
            frame[34..36].copy_from_slice(&number.to_be_bytes());
            let out = merger.offer(0, leaving(number.into(), frame));
            assert_eq!(out.len(), usize::from(usize::from(number) >= FLOWS_MAX));
        }
        assert_eq!(merger.open.len(), FLOWS_MAX);
    }
}
