//! TCP byte streams, and the frames that a mirror shows of them.
//!
//! In: what is said both ways; how it is cut, merged, delayed and duplicated. Out: frames with
//! their times, and what must be counted of them.
//! Cost: all frames of a talk in memory.
//! Invariants: the ends lose nothing and repeat nothing; each packet has an identification of its
//! own, its duplicate the same; who answers waits until all of a burst has passed, so no frame is
//! later than a round trip; at most [`LATE_MAX`] frames of a burst are late.
//! Source: merging, Linux `tcp_gro_receive` (net/ipv4/tcp_offload.c).

use etherparse::{IpFragOffset, IpHeaders, IpNumber, Ipv4Header, PacketBuilder, TcpHeader};
use etherparse::{TcpOptionElement, TcpOptions};

pub(super) const MS: u64 = 1_000_000;
/// 900 ms into a second, so that talks cross the end of a window.
pub(super) const START_NS: u64 = 1_767_225_600_900_000_000;
/// From the tap to either end and back.
pub(super) const HALF_TRIP_NS: u64 = 5 * MS;
/// The addresses: of the initiator, of the responder.
pub(super) const ADDRESSES: [[u8; 4]; 2] = [[10, 8, 0, 1], [10, 8, 0, 2]];

/// Between frames of a burst.
const GAP_NS: u64 = 10_000;
/// A late frame comes no later than this behind its place: less than a round trip.
const LATE_NS: u64 = 4 * MS;
/// Of these in a burst: the measures follow five holes at a time.
const LATE_MAX: u32 = 4;
/// A duplicate comes no later than this: less than `copies.window_ms`.
const TWICE_NS: u64 = 2 * MS;

/// What two ends say to one another.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    /// Sequence numbers of the SYNs.
    pub(super) first: [u32; 2],
    /// Octets of requests and responses.
    pub(super) rounds: Vec<[u32; 2]>,
    /// Whether segments carry timestamps.
    pub(super) is_stamped: bool,
    /// Whether the responder's FIN comes with its last octets.
    pub(super) ends_with_octets: bool,
}

impl Talk {
    /// Octets that each end says.
    pub(super) fn octets(&self) -> [u64; 2] {
        [0, 1].map(|side| self.rounds.iter().map(|round| u64::from(round[side])).sum())
    }

    /// Octets of the headers of IP and TCP in each packet.
    pub(super) const fn header_octets(&self) -> u64 {
        if self.is_stamped { 52 } else { 40 }
    }
}

/// How a mirror shows a talk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) seed: u64,
    /// Segments are cut at random up to this.
    pub(super) segment_octets_max: u32,
    /// Neighbours merged into one frame at most; 1 merges none.
    pub(super) merged_max: u32,
    /// Frames of a burst that come late at most.
    pub(super) late_max: u32,
    /// Percent of frames shown twice.
    pub(super) twice_percent: u32,
}

impl Shape {
    /// Full segments, each by itself, in order, once.
    pub(super) const PLAIN: Self =
        Self { seed: 0, segment_octets_max: 1_448, merged_max: 1, late_max: 0, twice_percent: 0 };
}

/// One frame at the mirror.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) at_ns: u64,
    pub(super) octets: Vec<u8>,
    pub(super) side: usize,
    /// First octet of the stream in it, from 0 (SYN).
    pub(super) begin: u32,
    /// Behind the last.
    pub(super) end: u32,
    pub(super) payload_octets: u32,
    pub(super) is_copy: bool,
}

/// What must be counted of frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) packets: u64,
    pub(super) payload_octets: u64,
    pub(super) duplicates: u64,
    /// Behind a hole that was not there before.
    pub(super) gaps: u64,
    /// Below what was seen.
    pub(super) out_of_order: u64,
}

/// What must be counted of the frames of one talk, in their order.
pub(super) fn counted(frames: &[Shown]) -> [Counted; 2] {
    let (mut counted, mut highest) = ([Counted::default(); 2], [0; 2]);
    for frame in frames {
        let (of, highest) = (&mut counted[frame.side], &mut highest[frame.side]);
        if frame.is_copy {
            of.duplicates += 1;
            continue;
        }
        of.packets += 1;
        of.payload_octets += u64::from(frame.payload_octets);
        of.gaps += u64::from(frame.begin > *highest);
        of.out_of_order += u64::from(frame.begin < *highest);
        *highest = frame.end.max(*highest);
    }
    counted
}

/// The frames that a mirror shows of a talk from `port` of the initiator, in their order.
pub(super) fn shown(talk: &Talk, port: u16, shape: Shape) -> Vec<Shown> {
    let seed = shape.seed ^ (u64::from(port) << 40) | 1;
    let mut mirror = Mirror {
        talk,
        shape,
        port,
        chance: Chance(seed),
        now_ns: START_NS + u64::from(port) * 1_000,
        next: [0; 2],
        identification: [0; 2],
        frames: Vec::new(),
    };
    mirror.whole_talk();
    mirror.frames.sort_by_key(|frame| frame.at_ns);
    mirror.frames
}

/// Xorshift (Marsaglia 2003): the same frames for the same seed.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    /// A number in `0..limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }

    fn below_u32(&mut self, limit: u32) -> u32 {
        u32::try_from(self.below(limit.into())).expect("less than the limit")
    }
}

const SYN: u8 = 1;
const FIN: u8 = 2;
const PSH: u8 = 4;

#[derive(Debug)]
struct Mirror<'a> {
    talk: &'a Talk,
    shape: Shape,
    port: u16,
    chance: Chance,
    now_ns: u64,
    /// What each end says next, from 0 (SYN).
    next: [u32; 2],
    identification: [u16; 2],
    frames: Vec<Shown>,
}

impl Mirror<'_> {
    fn whole_talk(&mut self) {
        self.turn(0, SYN);
        self.turn(1, SYN);
        self.turn(0, 0);
        let talk = self.talk;
        for (place, [request, response]) in talk.rounds.iter().enumerate() {
            let is_last = place + 1 == talk.rounds.len();
            self.burst(0, *request, false);
            self.burst(1, *response, is_last && talk.ends_with_octets);
            self.turn(0, 0);
            self.now_ns += self.chance.below(300 * MS);
        }
        if !talk.ends_with_octets {
            self.turn(1, FIN);
        }
        self.turn(0, FIN);
        self.turn(1, 0);
    }

    /// One packet without payload.
    fn turn(&mut self, side: usize, flags: u8) {
        self.frame(side, 0, flags, self.now_ns);
        self.now_ns += HALF_TRIP_NS;
    }

    /// Segments behind one another; nothing to say is an acknowledgement.
    fn burst(&mut self, side: usize, octets: u32, ends: bool) {
        if octets == 0 {
            return self.turn(side, if ends { FIN } else { 0 });
        }
        let frames = self.merged(octets);
        let count = u64::try_from(frames.len()).expect("few");
        let late: Vec<u64> =
            (0..self.shape.late_max.min(LATE_MAX)).map(|_| self.chance.below(count)).collect();
        let (begin_ns, mut last_ns) = (self.now_ns, self.now_ns);
        for (place, payload_octets) in (0..count).zip(frames) {
            let mut at_ns = begin_ns + place * GAP_NS;
            if late.contains(&place) {
                at_ns += self.chance.below(LATE_NS);
            }
            let flags = match (place + 1 == count, ends) {
                (false, _) => 0,
                (true, false) => PSH,
                (true, true) => PSH | FIN,
            };
            self.frame(side, payload_octets, flags, at_ns);
            last_ns = last_ns.max(at_ns);
        }
        self.now_ns = last_ns + HALF_TRIP_NS;
    }

    /// Payload of each frame: segments, and then neighbours of them taken together.
    fn merged(&mut self, octets: u32) -> Vec<u32> {
        let (mut left, mut frames) = (octets, Vec::new());
        while left > 0 {
            let mut frame = 0;
            for _ in 0..=self.chance.below_u32(self.shape.merged_max) {
                let segment = 1 + self.chance.below_u32(self.shape.segment_octets_max);
                let segment = segment.min(left);
                left -= segment;
                frame += segment;
            }
            frames.push(frame);
        }
        frames
    }

    fn frame(&mut self, side: usize, payload_octets: u32, flags: u8, at_ns: u64) {
        let numbers = payload_octets + u32::from(flags & (SYN | FIN) != 0);
        let begin = self.next[side];
        self.next[side] += numbers;
        self.identification[side] += 1;
        let frame = Shown {
            at_ns,
            octets: self.octets(side, begin, payload_octets, flags),
            side,
            begin,
            end: begin + numbers,
            payload_octets,
            is_copy: false,
        };
        if self.chance.below_u32(100) < self.shape.twice_percent {
            let at_ns = at_ns + 1 + self.chance.below(TWICE_NS);
            self.frames.push(Shown { at_ns, is_copy: true, ..frame.clone() });
        }
        self.frames.push(frame);
    }

    fn octets(&self, side: usize, begin: u32, payload_octets: u32, flags: u8) -> Vec<u8> {
        let other = 1 - side;
        let ports = [self.port, 8_080];
        let sequence = self.talk.first[side].wrapping_add(begin);
        let mut tcp = TcpHeader::new(ports[side], ports[other], sequence, 65_535);
        tcp.syn = flags & SYN != 0;
        tcp.fin = flags & FIN != 0;
        tcp.psh = flags & PSH != 0;
        tcp.ack = side == 1 || !tcp.syn;
        if tcp.ack {
            tcp.acknowledgment_number = self.talk.first[other].wrapping_add(self.next[other]);
        }
        if self.talk.is_stamped {
            // One tick a burst: what is merged has the same options.
            let tick = u32::try_from((self.now_ns - START_NS) / MS).expect("a short talk");
            let stamp = TcpOptionElement::Timestamp(1 + tick, u32::from(tcp.ack) * tick.max(1));
            tcp.options = TcpOptions::try_from_elements(&[
                TcpOptionElement::Noop,
                TcpOptionElement::Noop,
                stamp,
            ])
            .expect("room for a timestamp");
        }
        let ip = Ipv4Header {
            identification: self.identification[side],
            dont_fragment: true,
            fragment_offset: IpFragOffset::ZERO,
            time_to_live: 64,
            protocol: IpNumber::TCP,
            source: ADDRESSES[side],
            destination: ADDRESSES[other],
            ..Ipv4Header::default()
        };
        // What is said depends on its place alone.
        let payload: Vec<u8> =
            (begin..begin + payload_octets).map(|place| place.to_le_bytes()[0]).collect();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ip(IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default()))
            .tcp_header(tcp)
            .write(&mut frame, &payload)
            .expect("it fits");
        frame
    }
}
