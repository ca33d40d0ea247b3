//! Packets of a given number of live flows, made one after the other.
//!
//! In: how many flows, and how long each lives. Out: frames of 60 octets, in an order in which
//! every flow comes once a round.
//! Cost: no memory a flow, so that making a packet takes nothing from the caches that the tables
//! want: what a frame holds follows from its flow and its round alone.
//! Invariants: all flows differ in their key; the packets of a flow are a conversation as two hosts
//! lead it, with a handshake, sequence numbers that go on, and an end; no two packets are equal.
//! The order changes from round to round and is that of no memory.
//! Source: TCP, RFC 9293; a bijection by multiplication and shifts as in `splitmix64`.

/// Octets of a frame without FCS.
pub(super) const FRAME_OCTETS: usize = 60;

/// Flows at most: so many keys differ in every generation.
pub(super) const FLOWS_MAX: u32 = 1 << 26;

/// Rounds of a life at least: handshake and end are six of them.
const LIFE_ROUNDS_MIN: u32 = 8;

/// Octets that a data segment carries.
const SEGMENT_OCTETS: u32 = 6;

/// A frame, where a receive ring would hold it: on a cache line of its own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Slot(pub(super) [u8; FRAME_OCTETS]);

/// Makes the packets.
pub(super) struct Pattern {
    flows: u32,
    /// After so many packets another flow takes a flow's place.
    life_rounds: Option<u32>,
    bits: u32,
    round: u32,
    place: u32,
}

/// A packet of a flow, by what it is made from.
#[derive(Clone, Copy)]
struct Packet {
    flow: u32,
    generation: u32,
    /// Packets of the flow before this one.
    number: u32,
    is_udp: bool,
    life_rounds: Option<u32>,
}

impl Pattern {
    /// Of `flows` flows, 1 to [`FLOWS_MAX`], each of `life_rounds` packets (at least 8) or without
    /// end.
    pub(super) fn new(flows: u32, life_rounds: Option<u32>) -> Self {
        let flows = flows.clamp(1, FLOWS_MAX);
        Self {
            flows,
            life_rounds: life_rounds.map(|rounds| rounds.max(LIFE_ROUNDS_MIN)),
            bits: flows.next_power_of_two().trailing_zeros().max(4),
            round: 0,
            place: 0,
        }
    }

    /// Writes the next packet.
    pub(super) fn write(&mut self, slot: &mut Slot) {
        let flow = self.next_flow();
        self.packet(flow).write(&mut slot.0);
    }

    /// Flows in the order of the round; places that are no flow are passed over.
    fn next_flow(&mut self) -> u32 {
        loop {
            // Not before the next packet is asked for: the last one still is of the round.
            if self.place == 1 << self.bits {
                self.place = 0;
                self.round = self.round.wrapping_add(1);
            }
            let flow = shuffle(self.place, self.round, self.bits);
            self.place += 1;
            if flow < self.flows {
                return flow;
            }
        }
    }

    fn packet(&self, flow: u32) -> Packet {
        let is_udp = mix(flow).is_multiple_of(4);
        let life_rounds = self.life_rounds;
        let Some(life) = life_rounds else {
            return Packet { flow, generation: 0, number: self.round, is_udp, life_rounds };
        };
        // Not all flows end in the same round.
        let age = self.round.wrapping_add(mix(!flow) % life);
        Packet { flow, generation: age / life, number: age % life, is_udp, life_rounds }
    }
}

impl Packet {
    fn write(self, frame: &mut [u8; FRAME_OCTETS]) {
        frame.fill(0);
        let payload_octets = if self.is_udp { 18 } else { self.tcp(frame) };
        let header_octets = if self.is_udp { 8 } else { 20 };
        if self.is_udp {
            self.udp(frame);
        }
        let (from, to) = self.ends();
        for (place, address) in [(0, to), (6, from)] {
            frame[place..place + 2].copy_from_slice(&[0x52, 0x54]);
            frame[place + 2..place + 6].copy_from_slice(&address);
        }
        let total_octets = 20 + header_octets + payload_octets;
        let identification = mix(self.flow) & 0xffff;
        let fields = [
            (12, 0x0800),
            (14, 0x4500),
            (16, total_octets),
            (18, identification.wrapping_add(self.number) & 0xffff),
            (20, 0x4000),
            (22, if self.is_udp { 0x4011 } else { 0x4006 }),
        ];
        for (place, value) in fields {
            put16(frame, place, value);
        }
        frame[26..30].copy_from_slice(&from);
        frame[30..34].copy_from_slice(&to);
        let checksum = checksum(&frame[14..34]);
        put16(frame, 24, checksum);
    }

    /// Client and server of 64 tenants with 64 clients and 64 servers each.
    fn ends(self) -> ([u8; 4], [u8; 4]) {
        let part = |shift: u32| (self.flow >> shift & 63).to_le_bytes()[0];
        let client = [10, part(12), 0, part(0) + 1];
        let server = [10, part(12), 1, part(6) + 1];
        if self.is_from_client() { (client, server) } else { (server, client) }
    }

    fn is_from_client(self) -> bool {
        match (self.is_udp, self.to_end()) {
            (true, _) => self.number.is_multiple_of(2),
            (false, Some(1 | 3)) => true,
            (false, Some(2)) => false,
            // SYN, SYN-ACK, ACK, then data in turns.
            (false, _) => matches!(self.number, 0 | 2) || (self.number > 2 && self.number % 2 == 1),
        }
    }

    /// Packets that are left with this one, where the end of the flow is near: FIN, FIN, ACK.
    fn to_end(self) -> Option<u32> {
        let left = self.life_rounds? - self.number;
        (left <= 3).then_some(left)
    }

    fn ports(self, frame: &mut [u8; FRAME_OCTETS], server_port: u32) {
        let client_port = 1_024 + ((self.flow >> 18) + self.generation.wrapping_mul(256)) % 64_512;
        let (from, to) = if self.is_from_client() {
            (client_port, server_port)
        } else {
            (server_port, client_port)
        };
        put16(frame, 34, from);
        put16(frame, 36, to);
    }

    fn udp(self, frame: &mut [u8; FRAME_OCTETS]) {
        self.ports(frame, 4_433);
        put16(frame, 38, 8 + 18);
        frame[42..46].copy_from_slice(&self.number.to_be_bytes());
    }

    /// Octets of payload.
    fn tcp(self, frame: &mut [u8; FRAME_OCTETS]) -> u32 {
        const SERVER_PORTS: [u32; 4] = [443, 80, 5_432, 9_092];
        self.ports(frame, SERVER_PORTS[(mix(self.flow) >> 8 & 3) as usize]);
        let [fin, syn, psh, ack] = [1, 2, 8, 16];
        let ended = self.to_end();
        let (flags, payload_octets) = match (self.number, ended) {
            (0, _) => (syn, 0),
            (1, _) => (syn | ack, 0),
            (2, _) | (_, Some(1)) => (ack, 0),
            (_, Some(_)) => (fin | ack, 0),
            _ => (psh | ack, SEGMENT_OCTETS),
        };
        let [client, server] = self.sent();
        let (sequence, acknowledged) =
            if self.is_from_client() { (client, server) } else { (server, client) };
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        if flags & ack != 0 {
            frame[42..46].copy_from_slice(&acknowledged.to_be_bytes());
        }
        put16(frame, 46, 5 << 12 | flags);
        put16(frame, 48, 64_240);
        if payload_octets > 0 {
            frame[54..58].copy_from_slice(&self.number.to_be_bytes());
        }
        payload_octets
    }

    /// Sequence numbers of client and server before this packet.
    fn sent(self) -> [u32; 2] {
        let number = self.number;
        // What is sent from the end on carries no data.
        let data_until = self.life_rounds.map_or(number, |life| number.min(life - 3));
        let client_segments = data_until.saturating_sub(2) / 2;
        let server_segments = data_until.saturating_sub(3) / 2;
        let syn = [u32::from(number > 0), u32::from(number > 1)];
        let left = self.to_end().unwrap_or(u32::MAX);
        let fin = [u32::from(left < 3), u32::from(left < 2)];
        let first = mix(self.flow ^ self.generation.rotate_left(16));
        let of = |side: usize, segments: u32| {
            (first.rotate_left(16 * u32::from(side == 1)))
                .wrapping_add(segments.wrapping_mul(SEGMENT_OCTETS))
                .wrapping_add(syn[side] + fin[side])
        };
        [of(0, client_segments), of(1, server_segments)]
    }
}

fn put16(frame: &mut [u8; FRAME_OCTETS], place: usize, value: u32) {
    let [_, _, high, low] = value.to_be_bytes();
    frame[place] = high;
    frame[place + 1] = low;
}

/// Internet checksum (RFC 1071) of octets in which its own place holds 0.
fn checksum(octets: &[u8]) -> u32 {
    let sum: u32 =
        octets.chunks_exact(2).map(|two| u32::from_be_bytes([0, 0, two[0], two[1]])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) & 0xffff
}

/// Another number for each number of `bits` bits, differently in each round.
fn shuffle(place: u32, round: u32, bits: u32) -> u32 {
    let mask = (1 << bits) - 1;
    let mut value = (place ^ mix(round)) & mask;
    for factor in [0x9e37_79b1_u32, 0x85eb_ca6b] {
        value = value.wrapping_mul(factor) & mask;
        value ^= value >> (bits / 2);
    }
    value
}

fn mix(value: u32) -> u32 {
    let mut value = value.wrapping_mul(0x9e37_79b1);
    value ^= value >> 15;
    value = value.wrapping_mul(0x85eb_ca6b);
    value ^ value >> 13
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn frames(flows: u32, life_rounds: Option<u32>, rounds: u32) -> Vec<[u8; FRAME_OCTETS]> {
        let mut pattern = Pattern::new(flows, life_rounds);
        let mut slot = Slot([0; FRAME_OCTETS]);
        (0..flows * rounds)
            .map(|_| {
                pattern.write(&mut slot);
                slot.0
            })
            .collect()
    }

    /// Addresses, ports and protocol, the same for both directions.
    fn key(frame: &[u8; FRAME_OCTETS]) -> ([[u8; 6]; 2], u8) {
        let end = |address: usize, port: usize| {
            let mut end = [0; 6];
            end[..4].copy_from_slice(&frame[address..address + 4]);
            end[4..].copy_from_slice(&frame[port..port + 2]);
            end
        };
        let mut ends = [end(26, 34), end(30, 36)];
        ends.sort_unstable();
        (ends, frame[23])
    }

    #[test]
    fn every_flow_comes_once_a_round_and_no_packet_twice() {
        for flows in [1, 5, 1_000, 5_000] {
            let frames = frames(flows, None, 6);
            for round in frames.chunks(flows as usize) {
                let keys: HashSet<_> = round.iter().map(key).collect();
                assert_eq!(keys.len(), flows as usize, "{flows}");
            }
            assert_eq!(frames.iter().map(key).collect::<HashSet<_>>().len(), flows as usize);
            assert_eq!(frames.iter().collect::<HashSet<_>>().len(), frames.len(), "{flows}");
        }
    }

    #[test]
    fn the_order_is_another_in_each_round_and_no_plain_step() {
        let mut pattern = Pattern::new(1_024, None);
        let mut round = || -> Vec<u32> { (0..1_024).map(|_| pattern.next_flow()).collect() };
        let (first, second) = (round(), round());
        assert_ne!(first, second);
        let steps: HashSet<u32> = first.windows(2).map(|two| two[1].wrapping_sub(two[0])).collect();
        assert!(steps.len() > 100, "{}", steps.len());
    }

    #[test]
    fn a_flow_that_ends_gives_way_to_another() {
        let (flows, rounds) = (200, 40);
        let frames = frames(flows, Some(10), rounds);
        let keys: HashSet<_> = frames.iter().map(key).collect();
        // Each place has four lives in 40 rounds, and the begun one of its phase.
        assert!((800..=1_000).contains(&keys.len()), "{}", keys.len());
        assert_eq!(frames.iter().collect::<HashSet<_>>().len(), frames.len());
    }

    /// What each side has sent, as its peer acknowledges it.
    #[test]
    fn sequence_numbers_go_on_from_syn_to_fin() {
        let mut next: HashMap<([u8; 6], [u8; 6]), u32> = HashMap::new();
        let (mut syns, mut fins, mut data) = (0, 0, 0);
        for frame in frames(64, Some(12), 60).iter().filter(|frame| frame[23] == 6) {
            let at = |place: usize| {
                u32::from_be_bytes([
                    frame[place],
                    frame[place + 1],
                    frame[place + 2],
                    frame[place + 3],
                ])
            };
            let end = |address: usize, port: usize| {
                let mut end = [0; 6];
                end[..4].copy_from_slice(&frame[address..address + 4]);
                end[4..].copy_from_slice(&frame[port..port + 2]);
                end
            };
            let (from, to) = (end(26, 34), end(30, 36));
            let (flags, octets) =
                (frame[47], u32::from(u16::from_be_bytes([frame[16], frame[17]])) - 40);
            let is_syn = flags & 2 != 0;
            if let Some(expected) = next.get(&(from, to)).filter(|_| !is_syn) {
                assert_eq!(at(38), *expected, "{flags:x}");
            }
            if let Some(sent) = next.get(&(to, from)).filter(|_| flags & 16 != 0) {
                assert_eq!(at(42), *sent, "{flags:x}");
            }
            let ends = u32::from(is_syn) + u32::from(flags & 1);
            next.insert((from, to), at(38).wrapping_add(octets + ends));
            syns += u32::from(is_syn);
            fins += u32::from(flags & 1);
            data += u32::from(octets > 0);
        }
        assert!(syns > 300 && fins > 300 && data > 1_000, "{syns} {fins} {data}");
    }

    #[test]
    fn frames_are_what_an_independent_reader_takes_them_for() {
        for frame in &frames(50, Some(9), 12) {
            let sliced = etherparse::SlicedPacket::from_ethernet(frame).expect("well formed");
            let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else { panic!("no IPv4") };
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            match sliced.transport {
                Some(etherparse::TransportSlice::Udp(udp)) => assert_eq!(udp.payload().len(), 18),
                Some(etherparse::TransportSlice::Tcp(tcp)) => {
                    assert!(matches!(tcp.payload().len(), 0 | 6));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
