//! A sender and a receiver of TCP, one at each side, that answer to what the link does.
//!
//! In: how much to send, a seed, impairments. Out: the captures of both taps and the truth.
//! Cost: a table of ranges out of order, at most a window long.
//! Invariants: time is virtual; each segment has an identification and a timestamp of its own; ends
//! when all is acknowledged, or at [`TIME_MAX_NS`].
//! Source: retransmission after three duplicate acknowledgements, RFC 5681 §3.2, with RFC 6582's
//! partial acknowledgements; after a timeout, RFC 6298 (a fixed one here). The window stands still:
//! this is a source of packets, not a model of a stack.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::engine::{Link, Outlet};
use super::impairments::{Direction, Impairments, Side};
use super::offline::Captures;
use super::packet::{ACK, FIN, PSH, SYN, correct_tcp, parse};
use super::truth::Truth;

/// 2026-01-01T00:00:00Z.
pub const START_NS: u64 = 1_767_225_600_000_000_000;
/// No transfer takes longer.
pub const TIME_MAX_NS: u64 = 3_600_000_000_000;
/// The sender.
pub const SENDER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 7, 0, 1));
/// The receiver.
pub const RECEIVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 7, 0, 2));
/// Its port.
pub const PORT: u16 = 5001;

/// Payload of a segment: 1,500 octets of IP without headers and the timestamp option.
const SEGMENT_OCTETS: u32 = 1_448;
/// Segments under way.
const WINDOW_SEGMENTS: u32 = 32;
/// Between two segments that are sent together: 1,514 octets at 1 Gbit/s, rounded.
const GAP_NS: u64 = 12_000;
const TIMEOUT_NS: u64 = 200_000_000;
/// What a stack takes to answer.
const ANSWER_NS: u64 = 20_000;

/// Sends `octets` from A to B over a link; writes captures and truth into `folder`.
///
/// # Errors
/// What the file system says.
pub fn transfer(
    octets: u32,
    seed: u64,
    impairments: Impairments,
    folder: &Path,
) -> io::Result<([PathBuf; 2], Truth)> {
    let mut link = Link::new(seed, impairments);
    let mut world = World { captures: Captures::create(folder)?, arrived: Vec::new() };
    let mut sender = Sender::new(octets);
    let mut receiver = Receiver::default();
    let mut ready: BTreeMap<(u64, u64), (Direction, Vec<u8>)> = BTreeMap::new();
    let mut made = 0;
    let mut now_ns = START_NS;
    while now_ns < START_NS + TIME_MAX_NS && !sender.is_done() {
        for (direction, at_ns, frame) in sender.send(now_ns) {
            made += 1;
            ready.insert((at_ns, made), (direction, frame));
        }
        let next_sent = ready.keys().next().map(|(at_ns, _)| *at_ns);
        let next = [next_sent, link.next_ns(), sender.timeout_ns].into_iter().flatten().min();
        now_ns = next.unwrap_or(now_ns + TIMEOUT_NS).max(now_ns);
        link.advance(now_ns, &mut world);
        if let Some(entry) = ready.first_entry().filter(|entry| entry.key().0 <= now_ns) {
            let (direction, frame) = entry.remove();
            let wire_octets = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            link.enter(direction, now_ns, frame, wire_octets, &mut world);
        }
        for (to, at_ns, frame) in std::mem::take(&mut world.arrived) {
            if to == Side::A {
                sender.take(at_ns, &frame);
                continue;
            }
            let answer = receiver.take(at_ns, &frame);
            made += 1;
            ready.extend(answer.map(|frame| ((at_ns + ANSWER_NS, made), (Direction::BToA, frame))));
        }
        sender.expire(now_ns);
    }
    let truth = link.end(&mut world);
    let paths = world.captures.finish()?;
    truth.write(folder)?;
    Ok((paths, truth))
}

struct World {
    captures: Captures,
    arrived: Vec<(Side, u64, Vec<u8>)>,
}

impl Outlet for World {
    fn show(&mut self, tap: Side, at_ns: u64, frame: &[u8], wire_octets: u32) {
        self.captures.show(tap, at_ns, frame, wire_octets);
    }

    fn deliver(&mut self, to: Side, at_ns: u64, frame: Vec<u8>) {
        self.arrived.push((to, at_ns, frame));
    }
}

/// Sequence numbers begin at 0 (SYN) at both sides; the last is FIN's.
#[derive(Debug)]
struct Sender {
    end: u32,
    acknowledged: u32,
    next: u32,
    repeat: bool,
    duplicate_acks: u32,
    recover: u32,
    echo: u32,
    identification: u16,
    timeout_ns: Option<u64>,
    free_ns: u64,
}

impl Sender {
    const fn new(octets: u32) -> Self {
        Self {
            end: octets + 2,
            acknowledged: 0,
            next: 0,
            repeat: false,
            duplicate_acks: 0,
            recover: 0,
            echo: 0,
            identification: 0,
            timeout_ns: None,
            free_ns: 0,
        }
    }

    const fn is_done(&self) -> bool {
        self.acknowledged == self.end
    }

    /// What may be sent now.
    fn send(&mut self, now_ns: u64) -> Vec<(Direction, u64, Vec<u8>)> {
        let mut out = Vec::new();
        if std::mem::take(&mut self.repeat) {
            let (frame, _) = self.segment(now_ns, self.acknowledged);
            out.push((Direction::AToB, now_ns, frame));
        }
        let window = WINDOW_SEGMENTS * SEGMENT_OCTETS;
        // Nothing but SYN before it is acknowledged.
        let limit =
            if self.acknowledged == 0 { 1 } else { self.end.min(self.acknowledged + window) };
        while self.next < limit {
            let at_ns = now_ns.max(self.free_ns);
            let (frame, octets) = self.segment(at_ns, self.next);
            self.next += octets;
            self.free_ns = at_ns + GAP_NS;
            out.push((Direction::AToB, at_ns, frame));
        }
        if self.timeout_ns.is_none() && !out.is_empty() {
            self.timeout_ns = Some(now_ns + TIMEOUT_NS);
        }
        out
    }

    /// The segment that begins at `sequence`, and how many numbers it takes.
    fn segment(&mut self, at_ns: u64, sequence: u32) -> (Vec<u8>, u32) {
        self.identification = self.identification.wrapping_add(1).max(1);
        let from_a = |flags, payload| Segment {
            from: SENDER,
            to: RECEIVER,
            ports: [40_000, PORT],
            identification: self.identification,
            sequence,
            acknowledgement: u32::from(sequence > 0),
            flags,
            stamp: [stamp(at_ns), self.echo],
            payload_octets: payload,
        };
        let fin = self.end - 1;
        let (segment, octets) = if sequence == 0 {
            (from_a(SYN, 0), 1)
        } else if sequence == fin {
            (from_a(FIN | ACK, 0), 1)
        } else {
            let payload = SEGMENT_OCTETS.min(fin - sequence);
            let flags = if sequence + payload == fin { PSH | ACK } else { ACK };
            (from_a(flags, payload), payload)
        };
        (segment.frame(), octets)
    }

    fn take(&mut self, at_ns: u64, frame: &[u8]) {
        let Some(tcp) = parse(frame).and_then(|headers| headers.tcp) else { return };
        self.echo = frame_stamp(frame).unwrap_or(self.echo);
        let number = tcp.acknowledgement;
        if number > self.acknowledged {
            self.acknowledged = number;
            self.next = self.next.max(number);
            self.duplicate_acks = 0;
            self.timeout_ns = (number < self.next).then_some(at_ns + TIMEOUT_NS);
            // A partial acknowledgement: the next hole was lost too.
            self.repeat = number < self.recover;
        } else if number == self.acknowledged && number < self.next {
            self.duplicate_acks += 1;
            if self.duplicate_acks == 3 && number >= self.recover {
                self.recover = self.next;
                self.repeat = true;
            }
        }
    }

    fn expire(&mut self, now_ns: u64) {
        if self.timeout_ns.is_some_and(|timeout_ns| timeout_ns <= now_ns) {
            self.timeout_ns = None;
            self.duplicate_acks = 0;
            self.recover = self.next;
            self.repeat = true;
        }
    }
}

#[derive(Debug, Default)]
struct Receiver {
    next: u32,
    /// Begin and end of ranges behind a hole.
    early: BTreeMap<u32, u32>,
    identification: u16,
}

impl Receiver {
    /// Acknowledges each segment.
    fn take(&mut self, at_ns: u64, frame: &[u8]) -> Option<Vec<u8>> {
        let tcp = parse(frame).and_then(|headers| headers.tcp)?;
        let numbers = tcp.payload_octets + u32::from(tcp.flags & (SYN | FIN) != 0);
        let end = tcp.sequence + numbers;
        let longest = self.early.get(&tcp.sequence).copied().unwrap_or(0).max(end);
        self.early.insert(tcp.sequence, longest);
        while let Some(entry) = self.early.first_entry().filter(|entry| *entry.key() <= self.next) {
            self.next = self.next.max(entry.remove());
        }
        self.identification = self.identification.wrapping_add(1).max(1);
        let is_syn = tcp.flags & SYN != 0;
        let answer = Segment {
            from: RECEIVER,
            to: SENDER,
            ports: [PORT, 40_000],
            identification: self.identification,
            sequence: u32::from(!is_syn),
            acknowledgement: self.next,
            flags: if is_syn { SYN | ACK } else { ACK },
            stamp: [stamp(at_ns), frame_stamp(frame).unwrap_or(0)],
            payload_octets: 0,
        };
        Some(answer.frame())
    }
}

/// A TCP segment over IPv4 and Ethernet.
struct Segment {
    from: IpAddr,
    to: IpAddr,
    ports: [u16; 2],
    identification: u16,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    stamp: [u32; 2],
    payload_octets: u32,
}

impl Segment {
    fn frame(&self) -> Vec<u8> {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(_) => [0; 4],
        };
        let (from, to) = (octets(self.from), octets(self.to));
        let mut frame = Vec::with_capacity(66 + self.payload_octets as usize);
        for address in [to, from] {
            frame.extend([2, 0]);
            frame.extend(address);
        }
        frame.extend([0x08, 0x00, 0x45, 0, 0, 0]);
        frame.extend(self.identification.to_be_bytes());
        // Don't fragment; TTL 64; TCP.
        frame.extend([0x40, 0, 64, 6, 0, 0]);
        frame.extend(from);
        frame.extend(to);
        frame.extend(self.ports.iter().flat_map(|port| port.to_be_bytes()));
        frame.extend(self.sequence.to_be_bytes());
        frame.extend(self.acknowledgement.to_be_bytes());
        // Eight words of header; a window of 65,535.
        frame.extend([0x80, self.flags, 0xff, 0xff, 0, 0, 0, 0, 1, 1, 8, 10]);
        frame.extend(self.stamp.iter().flat_map(|value| value.to_be_bytes()));
        let payload = (self.sequence..).take(self.payload_octets as usize);
        frame.extend(payload.map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]));
        let Some(headers) = parse(&frame) else { return frame };
        correct_tcp(&mut frame, &headers, headers.ip_at + 20);
        frame
    }
}

/// Milliseconds since the start, from 1.
fn stamp(at_ns: u64) -> u32 {
    u32::try_from(1 + (at_ns - START_NS) / 1_000_000).unwrap_or(u32::MAX)
}

/// The timestamp value of a frame of this module.
fn frame_stamp(frame: &[u8]) -> Option<u32> {
    let at = parse(frame)?.tcp?.at + 24;
    let octets = frame.get(at..at + 4)?;
    Some(u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]))
}
