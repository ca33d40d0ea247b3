//! Frames of few flows, most of them usual and some odd in every way that a probe may trip over.
//!
//! In: a [`Random`], how rare oddities are. Out: [`Record`]s in order of arrival.
//! Invariants: IPv4 in Ethernet, in what a mirror puts around it; stamps go back now and then, copies
//! come from other ports, frames are cut, padded, tagged and fragmented, lengths lie, numbers of a mirror
//! are missing or come late.

use crate::random::Random;

/// One frame as a source gives it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Captured octets.
    pub bytes: Vec<u8>,
    /// Octets on the wire.
    pub wire_octets: u32,
    /// Receive time in ns.
    pub at_ns: u64,
    /// Port.
    pub port: u16,
    /// The tag that the NIC stripped.
    pub stripped_tci: Option<u16>,
}

/// What a mirror puts around a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mirror {
    /// Nothing.
    #[default]
    Port,
    /// A VLAN tag: 100.
    Rspan,
    /// ERSPAN type II with a sequence number; session 5 or 6.
    Erspan,
    /// GRE with key 7 or 8 and a sequence number.
    Gre,
    /// VXLAN with VNI 9: an overlay, and no mirror.
    Vxlan,
}

impl Mirror {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Port, Self::Rspan, Self::Erspan, Self::Gre, Self::Vxlan];
}

/// How often something odd happens.
#[derive(Clone, Debug)]
pub struct Traffic {
    random: Random,
    /// Oddities are so many times rarer.
    calm: u64,
    ports: u64,
    /// Of most frames.
    mirror: Mirror,
    /// Number of the last frame of a mirror that numbers them.
    number: u32,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Flows below this one are TCP.
const TCP_FLOWS: u8 = 5;
const FLOWS: u8 = 9;
const SERVICES: [u16; FLOWS as usize] = [443, 80, 22, 53, 0, 53, 5_247, 3_544, 7_777];
/// Without ports, as later fragments are of which the first was not seen: those are of its flow.
const WITHOUT_PORTS: u8 = 4;

/// Offset of 16 octets, the last one.
const LATER_FRAGMENT: u16 = 2;

/// An IPv6 packet without payload, as Teredo has them, between addresses that are not its.
const BARE_IPV6: [u8; 40] = {
    let mut packet = [7; 40];
    [packet[0], packet[4], packet[5], packet[6]] = [0x60, 0, 0, 59];
    packet
};
const PAYLOADS: [&[u8]; 8] = [
    &[],
    &[],
    &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 9, 9, 9, 9, 9, 9, 9],
    b"GET / HTTP/1.1\r\n\r\n",
    b"SSH-2.0-OpenSSH_9",
    &[0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3],
    b"hello",
    &BARE_IPV6,
];

impl Traffic {
    /// With oddities `calm` times rarer than at their most frequent, on `ports` ports.
    pub const fn new(random: Random, calm: u64, ports: u64) -> Self {
        Self { random, calm, ports, mirror: Mirror::Port, number: 0 }
    }

    /// With most frames as this mirror sends them.
    #[must_use]
    pub const fn mirrored(self, mirror: Mirror) -> Self {
        Self { mirror, ..self }
    }

    /// At least `count` frames.
    pub fn records(&mut self, count: usize) -> Vec<Record> {
        let mut at_ns = 1_700_000_000_000_000_000 + self.random.below(1_000_000_000);
        let mut records = Vec::new();
        while records.len() < count {
            at_ns += match self.random.below(400) {
                0 => self.random.below(9_000_000_000),
                1..=5 => self.random.below(600_000_000),
                6..=100 => self.random.below(10_000_000),
                _ => self.random.below(200_000),
            };
            let record = self.record(at_ns);
            records.push(record.clone());
            self.add_copies(&record, &mut records);
        }
        records
    }

    fn rare(&mut self, of: u64) -> bool {
        self.random.one_in(of * self.calm)
    }

    fn record(&mut self, at_ns: u64) -> Record {
        let back_ns = match self.random.below(60) {
            0 => self.random.below(3_000_000_000),
            1..=4 => self.random.below(300_000_000),
            5..=9 => self.random.below(3_000_000),
            _ => 0,
        };
        let frame = self.frame();
        let mut bytes = self.around(frame);
        let mut wire_octets = u32::try_from(bytes.len()).expect("short");
        match self.random.below(50 * self.calm) {
            0 => bytes.truncate(20 + usize::from(self.random.octet_below(60))),
            1 => wire_octets += u32::from(self.random.octet_below(255)),
            _ => {}
        }
        let usual_port = self.calm > 1 && !self.rare(3);
        let port = if usual_port { 0 } else { self.any_port() };
        let stripped_tci = self.rare(80).then(|| self.random.octet_below(3).into());
        Record { bytes, wire_octets, at_ns: at_ns - back_ns, port, stripped_tci }
    }

    /// The frame as a mirror sends it.
    fn around(&mut self, frame: Vec<u8>) -> Vec<u8> {
        let mirror = if self.rare(20) { self.random.pick(&Mirror::ALL) } else { self.mirror };
        match mirror {
            Mirror::Port => frame,
            Mirror::Rspan => [&frame[..12], &[0x81, 0, 0, 100], &frame[12..]].concat(),
            Mirror::Erspan => {
                let session = if self.rare(10) { 6 } else { 5 };
                let third = if self.rare(10) { self.random.octet_below(32) & 0xfc } else { 0 };
                let header = [0x10, 44, third, session, 0, 0, 0, 0];
                let gre = [&[0x10, 0, 0x88, 0xbe][..], &self.next_number()].concat();
                outer(47, &[&gre, &header[..], &frame].concat())
            }
            Mirror::Gre => {
                let key = [0, 0, 0, if self.rare(10) { 8 } else { 7 }];
                let gre = [&[0x30, 0, 0x65, 0x58][..], &key, &self.next_number()].concat();
                outer(47, &[&gre[..], &frame].concat())
            }
            Mirror::Vxlan => {
                let mut datagram = vec![0xc0, 0, 0x12, 0xb5];
                datagram.extend((16 + octets(&frame)).to_be_bytes());
                datagram.extend([0, 0, 8, 0, 0, 0, 0, 0, 9, 0]);
                outer(UDP, &[&datagram[..], &frame].concat())
            }
        }
    }

    /// Of a mirror that loses frames, and has some overtake others.
    fn next_number(&mut self) -> [u8; 4] {
        let late = if self.rare(15) { self.random.octet_below(70) } else { 0 };
        if self.rare(15) {
            self.number += u32::from(self.random.octet_below(80));
        }
        self.number += 1;
        self.number.wrapping_sub(late.into()).to_be_bytes()
    }

    fn any_port(&mut self) -> u16 {
        u16::try_from(self.random.below(self.ports)).expect("few")
    }

    /// Now and then the same frame once more, and once as it is behind a router.
    fn add_copies(&mut self, record: &Record, records: &mut Vec<Record>) {
        let copies = match self.random.below(20 * self.calm) {
            0 => 1,
            1 => 2,
            2 if self.random.one_in(4) => 6,
            _ => 0,
        };
        for _ in 0..copies {
            let mut copy = record.clone();
            copy.at_ns += self.random.below(8_000_000);
            copy.port = self.any_port();
            if self.random.one_in(2)
                && let Some(time_to_live) = copy.bytes.get_mut(22)
            {
                *time_to_live = time_to_live.wrapping_sub(1);
            }
            records.push(copy);
        }
    }

    fn frame(&mut self) -> Vec<u8> {
        let flow = self.random.octet_below(FLOWS);
        let is_back = self.random.one_in(2);
        let (packet, source) = self.packet(flow, is_back);
        let mut bytes = self.link_header(flow, is_back);
        let is_tagged = bytes.len() > 14;
        bytes.extend(&packet);
        if self.rare(60) && !is_tagged {
            bytes.truncate(14);
            bytes.extend(self.error_about(&packet, source));
        }
        if self.rare(60) {
            bytes[12] = 0x86;
        }
        if self.rare(60) {
            bytes[14] = 0x46;
        }
        if bytes.len() < 60 && !self.random.one_in(6) {
            bytes.resize(60, 0);
        } else if self.random.one_in(3) {
            bytes.extend([0; 4]);
        }
        bytes
    }

    fn link_header(&mut self, flow: u8, is_back: bool) -> Vec<u8> {
        let mut client = [2, 0, 0, 0, 0, flow];
        if self.rare(40) {
            client[3] = self.random.octet_below(3);
        }
        let server = [2, 0, 0, 0, 1, 0];
        let ends = if is_back { [client, server] } else { [server, client] };
        let mut bytes = ends.concat();
        match self.random.below(30 * self.calm) {
            0 => bytes.extend([0x81, 0, 0, 0]),
            1 => bytes.extend([0x81, 0, 0xe0, 7]),
            _ => {}
        }
        bytes.extend([8, 0]);
        bytes
    }

    /// An IPv4 packet and its source.
    fn packet(&mut self, flow: u8, is_back: bool) -> (Vec<u8>, [u8; 4]) {
        let mut ends = [[10, 0, 0, 1 + flow], [10, 0, 1, 1]];
        let client = 40_000 + u16::from(self.random.octet_below(2));
        let client = if flow == WITHOUT_PORTS { 0 } else { client };
        let mut ports = [client, SERVICES[usize::from(flow)]];
        if is_back {
            ends.reverse();
            ports.reverse();
        }
        let ports = ports.map(u16::to_be_bytes).concat();
        let payload = self.random.pick(&PAYLOADS);
        let (protocol, behind) = if flow < TCP_FLOWS {
            (TCP, self.segment(&ports, payload))
        } else {
            (UDP, self.datagram(&ports, payload))
        };
        let mut packet = vec![0x45, self.random.octet_below(4)];
        packet.extend((20 + octets(&behind)).to_be_bytes());
        let identification =
            if self.random.one_in(3) { 0 } else { u16::from(self.random.octet_below(50)) };
        packet.extend(identification.to_be_bytes());
        packet.extend(self.fragment_bits(flow).to_be_bytes());
        packet.extend([64 - self.random.octet_below(2), protocol, 0, 0]);
        packet.extend(ends.concat());
        packet.extend(behind);
        (packet, ends[0])
    }

    /// Flags and offset.
    fn fragment_bits(&mut self, flow: u8) -> u16 {
        if flow == WITHOUT_PORTS && self.random.one_in(4) {
            return LATER_FRAGMENT;
        }
        match self.random.below(40 * self.calm) {
            0 => 0x8000,
            1 => 0x2000,
            2 => LATER_FRAGMENT,
            3 => 0xc000,
            4..=15 => 0,
            _ => 0x4000,
        }
    }

    fn segment(&mut self, ports: &[u8], payload: &[u8]) -> Vec<u8> {
        let flags = match self.random.below(40 * self.calm) {
            0 | 1 => 0x02,
            2 | 3 => 0x12,
            4 => 0x04,
            5 => 0x11,
            6 => 0x14,
            7 => 0,
            8 => 0x01,
            9 => 0xd0,
            10 => 0x20,
            11 => 0x03,
            12..=20 => 0x18,
            _ => 0x10,
        };
        let options = self.options(flags & 0x02 != 0);
        let words = 5 + options.len().to_le_bytes()[0] / 4;
        let mut segment = ports.to_vec();
        for _number in 0..2 {
            segment.extend((u32::from(self.random.octet_below(6)) * 100).to_be_bytes());
        }
        segment.extend([(words << 4) | u8::from(self.rare(20)), flags]);
        segment.extend((1_000 + u16::from(self.random.octet_below(2))).to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(options);
        segment.extend(payload);
        segment
    }

    fn options(&mut self, is_syn: bool) -> Vec<u8> {
        if is_syn && self.random.one_in(2) {
            return self.options_of_syn();
        }
        match self.random.below(5) {
            0 => {
                let [value, echo] = [0; 2].map(|_: u8| self.random.octet_below(3));
                vec![1, 1, 8, 10, 0, 0, 0, value, 0, 0, 0, echo]
            }
            1 if self.rare(3) => vec![1, 1, 5, 10, 0, 0, 0, 7, 0, 0, 0, 9],
            2 if self.rare(5) => vec![2, 4, 5, 0xb4],
            _ => vec![],
        }
    }

    /// As Linux lays them out, and what is odd: a shift that is too large, wrong lengths, the same twice,
    /// SACK blocks.
    fn options_of_syn(&mut self) -> Vec<u8> {
        let value = self.random.octet_below(3);
        let usual = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, value, 0, 0, 0, 0, 1, 3, 3, 7];
        match self.random.below(8) {
            0 => vec![3, 3, 200, 1],
            1 => vec![2, 3, 5, 3, 4, 7, 7, 0],
            2 => vec![2, 4, 5, 0xb4, 2, 4, 2, 0, 3, 3, 2, 3, 3, 9, 1, 1],
            3 => vec![3, 3, 4, 1, 1, 1, 5, 10, 0, 0, 0, 7, 0, 0, 0, 9],
            4 => vec![1, 1, 8, 10, 0, 0, 0, value, 0, 0, 0, 9],
            _ => usual.to_vec(),
        }
    }

    fn datagram(&mut self, ports: &[u8], payload: &[u8]) -> Vec<u8> {
        let true_octets = 8 + octets(payload);
        let claimed = if self.rare(25) {
            let shorter = true_octets.saturating_sub(3).max(8);
            let header_cut = self.random.octet_below(8).into();
            self.random.pick(&[0, shorter, true_octets + 1, header_cut])
        } else {
            true_octets
        };
        let mut datagram = ports.to_vec();
        datagram.extend(claimed.to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        datagram
    }

    /// Port unreachable, sent by a router to the packet's source.
    fn error_about(&mut self, packet: &[u8], source: [u8; 4]) -> Vec<u8> {
        let quoted = &packet[..28.min(packet.len())];
        let identification = self.random.octet_below(9);
        let mut error = vec![0x45, 0, 0, 56, 0, identification, 0, 0, 64, 1, 0, 0, 10, 0, 9, 9];
        error.extend(source);
        error.extend([3, 3, 0, 0, 0, 0, 0, 0]);
        error.extend(quoted);
        error
    }
}

/// A frame with this IPv4 payload, from one switch to another.
fn outer(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 9, 1, 2, 0, 0, 0, 9, 2, 8, 0, 0x45, 0];
    frame.extend((20 + octets(payload)).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 172, 16, 0, 1, 172, 16, 0, 2]);
    frame.extend(payload);
    frame
}

fn octets(part: &[u8]) -> u16 {
    u16::try_from(part.len()).expect("short")
}
