//! pcapng files.
//!
//! In: windows that begin at a block. Out: one [`Step`] a window; ports for the interfaces.
//! Cost: a block that holds a packet is read once, without copy; options only where they are; an
//! interface is named once, however many follow.
//! Invariants: a block is looked at only when it is whole; at most [`BLOCK_BYTES_MAX`] bytes are
//! held for one. Interfaces get their ports when the first packet after them comes, because only
//! then it is clear whether the file has one or several.
//! Source: draft-ietf-opsawg-pcapng sections 3 and 4; Packet Block, its appendix A.

use std::collections::HashMap;

use super::error::Damage;
use super::interface::{Interface, option};
use super::ports::Ports;
use super::record::{Fields, Order, Packet, Step};
use super::{BLOCK_BYTES_MAX, CAPTURED_OCTETS_MAX, PORTS_MAX};
use crate::index::PortIndex;
use crate::time::Timestamp;

/// Type of the section header block: the same number in both byte orders, and the first four
/// octets of a file.
pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;

const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Type and length in front of each block.
const BLOCK_HEAD_BYTES: usize = 8;
/// Type, length, length again.
const BLOCK_BYTES_MIN: u32 = 12;

/// `epb_flags` and `pack_flags`.
const OPTION_PACKET_FLAGS: u16 = 2;
/// State of one file.
#[derive(Debug)]
pub(super) struct Pcapng {
    order: Order,
    stem: String,
    interfaces: Vec<Interface>,
    /// How many of `interfaces` have their ports.
    named: usize,
    /// How often each name stood among them.
    name_counts: HashMap<String, usize>,
    /// Port of each interface of the file, by name and how many of that name stood before it in
    /// its section. An interface that comes again in a later section keeps its port.
    ports: HashMap<(String, usize), PortIndex>,
    /// Stamp of the packet before, for packets without one.
    last: Timestamp,
}

impl Pcapng {
    pub(super) fn new(stem: String) -> Self {
        Self {
            order: Order::Little,
            stem,
            interfaces: Vec::new(),
            named: 0,
            name_counts: HashMap::new(),
            ports: HashMap::new(),
            last: Timestamp::ZERO,
        }
    }

    /// Reads the block at the begin of `window`.
    #[inline]
    pub(super) fn step(&mut self, window: &[u8], ports: &mut Ports) -> Step {
        let Some(head) = window.first_chunk::<{ BLOCK_HEAD_BYTES + 4 }>() else {
            return Step::More(BLOCK_BYTES_MIN as usize);
        };
        let [k0, k1, k2, k3, l0, l1, l2, l3, o0, o1, o2, o3] = *head;
        if u32::from_le_bytes([k0, k1, k2, k3]) == SECTION_HEADER {
            match byte_order([o0, o1, o2, o3]) {
                Ok(order) => self.order = order,
                Err(damage) => return Step::Broken(damage),
            }
        }
        let length = self.order.u32([l0, l1, l2, l3]);
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&length) || !length.is_multiple_of(4) {
            return Step::Broken(Damage::BlockLength { length_bytes: length });
        }
        let Some(block) = window.get(..length as usize) else {
            return Step::More(length as usize);
        };
        let (_, body) = block.split_at(BLOCK_HEAD_BYTES);
        let Some((body, end)) = body.split_last_chunk() else {
            return Step::Broken(Damage::BlockLength { length_bytes: length });
        };
        let end = self.order.u32(*end);
        if end != length {
            return Step::Broken(Damage::BlockEnd { first_bytes: length, last_bytes: end });
        }
        self.block(self.order.u32([k0, k1, k2, k3]), body, ports).unwrap_or_else(|damage| {
            Step::Broken(damage.unwrap_or(Damage::BlockFields { length_bytes: length }))
        })
    }

    /// Reads one block. An error without value: its fields go beyond its end.
    #[inline]
    fn block(&mut self, kind: u32, body: &[u8], ports: &mut Ports) -> Result<Step, Option<Damage>> {
        let mut fields = Fields { rest: body, order: self.order };
        let packet = match kind {
            ENHANCED_PACKET => self.enhanced(&mut fields, body.len(), ports)?,
            SIMPLE_PACKET => self.simple(&mut fields, body.len(), ports)?,
            PACKET => self.packet(&mut fields, body.len(), ports)?,
            SECTION_HEADER => return self.section(&mut fields, body.len()),
            INTERFACE_DESCRIPTION => return self.interface(&mut fields, body.len()),
            _ => return Ok(pass(body.len())),
        };
        self.last = packet.timestamp;
        Ok(Step::Packet(packet, block_bytes(body.len())))
    }

    fn section(&mut self, fields: &mut Fields<'_>, length: usize) -> Result<Step, Option<Damage>> {
        fields.u32().ok_or(None)?;
        let major = fields.u16().ok_or(None)?;
        let minor = fields.u16().ok_or(None)?;
        if major != 1 {
            return Err(Some(Damage::Version { major, minor }));
        }
        self.interfaces.clear();
        self.named = 0;
        self.name_counts.clear();
        Ok(pass(length))
    }

    fn interface(
        &mut self,
        fields: &mut Fields<'_>,
        length: usize,
    ) -> Result<Step, Option<Damage>> {
        if self.interfaces.len() >= PORTS_MAX {
            return Err(Some(Damage::TooManyInterfaces));
        }
        let interface = Interface::read(fields, self.interfaces.len()).ok_or(None)?;
        self.interfaces.push(interface);
        Ok(pass(length))
    }

    #[inline]
    fn enhanced(
        &mut self,
        fields: &mut Fields<'_>,
        length: usize,
        ports: &mut Ports,
    ) -> Result<Packet, Option<Damage>> {
        let index = fields.u32().ok_or(None)?;
        self.stamped(index, fields, length, ports)
    }

    fn packet(
        &mut self,
        fields: &mut Fields<'_>,
        length: usize,
        ports: &mut Ports,
    ) -> Result<Packet, Option<Damage>> {
        let index = u32::from(fields.u16().ok_or(None)?);
        // Packets that the capture dropped before this one: no part of what was captured.
        fields.u16().ok_or(None)?;
        self.stamped(index, fields, length, ports)
    }

    /// What enhanced and obsolete packets have in common, from the stamp on.
    #[inline]
    fn stamped(
        &mut self,
        index: u32,
        fields: &mut Fields<'_>,
        length: usize,
        ports: &mut Ports,
    ) -> Result<Packet, Option<Damage>> {
        let interface = self.interface_of(index, ports)?;
        let high = fields.u32().ok_or(None)?;
        let low = fields.u32().ok_or(None)?;
        let captured = fields.u32().ok_or(None)?;
        let original_octets = fields.u32().ok_or(None)?;
        if captured > CAPTURED_OCTETS_MAX {
            return Err(Some(Damage::CapturedLength { captured_octets: captured }));
        }
        let begin = BLOCK_HEAD_BYTES + length - fields.rest.len();
        fields.padded(captured as usize).ok_or(None)?;
        let mut link = interface.link;
        if let Some(octets) = packet_fcs_octets(fields) {
            link.fcs_octets = octets;
        }
        Ok(Packet {
            timestamp: interface.clock.timestamp((u64::from(high) << 32) | u64::from(low)),
            begin,
            frame_octets: link.frame_octets(captured, original_octets),
            original_octets,
            link: link.kind,
            port: interface.port,
        })
    }

    /// A simple packet has no stamp: it gets that of the packet before it.
    fn simple(
        &mut self,
        fields: &mut Fields<'_>,
        length: usize,
        ports: &mut Ports,
    ) -> Result<Packet, Option<Damage>> {
        let timestamp = self.last;
        let interface = self.interface_of(0, ports)?;
        let original_octets = fields.u32().ok_or(None)?;
        let snap_octets = if interface.snap_octets == 0 { u32::MAX } else { interface.snap_octets };
        let there = u32::try_from(fields.rest.len()).unwrap_or(u32::MAX);
        let captured = there.min(original_octets).min(snap_octets);
        if captured > CAPTURED_OCTETS_MAX {
            return Err(Some(Damage::CapturedLength { captured_octets: captured }));
        }
        Ok(Packet {
            timestamp,
            begin: BLOCK_HEAD_BYTES + length - fields.rest.len(),
            frame_octets: interface.link.frame_octets(captured, original_octets),
            original_octets,
            link: interface.link.kind,
            port: interface.port,
        })
    }

    #[inline]
    fn interface_of(&mut self, index: u32, ports: &mut Ports) -> Result<&Interface, Damage> {
        if self.named != self.interfaces.len() {
            self.name_interfaces(ports)?;
        }
        let known = self.interfaces.len();
        self.interfaces.get(index as usize).ok_or(Damage::UnknownInterface { index, known })
    }

    /// Gives the interfaces that have none yet their ports.
    #[cold]
    fn name_interfaces(&mut self, ports: &mut Ports) -> Result<(), Damage> {
        // A file that had one interface until now goes by its stem alone.
        let alone = self.ports.is_empty() && self.interfaces.len() == 1;
        for interface in self.interfaces.iter_mut().skip(self.named) {
            let count = self.name_counts.entry(interface.name.clone()).or_insert(0);
            let key = (interface.name.clone(), *count);
            *count += 1;
            interface.port = if let Some(port) = self.ports.get(&key) {
                *port
            } else {
                let wanted =
                    if alone { self.stem.clone() } else { format!("{}:{}", self.stem, key.0) };
                let port = ports.add(&wanted).ok_or(Damage::TooManyInterfaces)?;
                self.ports.insert(key, port);
                port
            };
        }
        self.named = self.interfaces.len();
        Ok(())
    }
}

fn byte_order(magic: [u8; 4]) -> Result<Order, Damage> {
    [Order::Little, Order::Big]
        .into_iter()
        .find(|order| order.u32(magic) == BYTE_ORDER)
        .ok_or(Damage::ByteOrder(u32::from_be_bytes(magic)))
}

/// FCS octets as the packet's own flags say (bits 5 to 8); `None` if they don't.
#[inline]
fn packet_fcs_octets(fields: &mut Fields<'_>) -> Option<u32> {
    while !fields.rest.is_empty() {
        let (code, value) = option(fields)?;
        if let (OPTION_PACKET_FLAGS, Some(flags)) = (code, value.first_chunk()) {
            return Some((fields.order.u32(*flags) >> 5) & 0xf).filter(|octets| *octets != 0);
        }
    }
    None
}

const fn block_bytes(body: usize) -> usize {
    body + BLOCK_BYTES_MIN as usize
}

const fn pass(body: usize) -> Step {
    Step::Pass(block_bytes(body))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::capture::LinkType;
    use crate::capture::file::tests::{Seen, read};

    /// Writes blocks in one byte order.
    #[derive(Clone, Copy)]
    pub(in crate::capture::file) struct Blocks(pub(in crate::capture::file) Order);

    impl Blocks {
        pub(in crate::capture::file) fn u16(self, value: u16) -> Vec<u8> {
            match self.0 {
                Order::Little => value.to_le_bytes().to_vec(),
                Order::Big => value.to_be_bytes().to_vec(),
            }
        }

        pub(in crate::capture::file) fn u32(self, value: u32) -> Vec<u8> {
            match self.0 {
                Order::Little => value.to_le_bytes().to_vec(),
                Order::Big => value.to_be_bytes().to_vec(),
            }
        }

        pub(in crate::capture::file) fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
            let mut body = body.to_vec();
            body.resize(body.len().next_multiple_of(4), 0);
            let length = self.u32(u32::try_from(body.len()).expect("small") + 12);
            [self.u32(kind), length.clone(), body, length].concat()
        }

        pub(in crate::capture::file) fn section(self) -> Vec<u8> {
            let body = [self.u32(BYTE_ORDER), self.u16(1), self.u16(0), vec![0xff; 8]].concat();
            self.block(SECTION_HEADER, &body)
        }

        pub(in crate::capture::file) fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
            let mut padded = value.to_vec();
            padded.resize(value.len().next_multiple_of(4), 0);
            [self.u16(code), self.u16(u16::try_from(value.len()).expect("small")), padded].concat()
        }

        /// An interface; `options` without their end.
        pub(in crate::capture::file) fn interface(
            self,
            link: u16,
            snap: u32,
            options: &[u8],
        ) -> Vec<u8> {
            let body = [self.u16(link), vec![0; 2], self.u32(snap), options.to_vec(), vec![0; 4]];
            self.block(INTERFACE_DESCRIPTION, &body.concat())
        }

        pub(in crate::capture::file) fn enhanced(
            self,
            interface: u32,
            units: u64,
            octets: &[u8],
            original: u32,
            options: &[u8],
        ) -> Vec<u8> {
            let mut padded = octets.to_vec();
            padded.resize(octets.len().next_multiple_of(4), 0);
            let body = [
                self.u32(interface),
                self.u32(u32::try_from(units >> 32).expect("32 bits")),
                self.u32(u32::try_from(units & 0xffff_ffff).expect("32 bits")),
                self.u32(u32::try_from(octets.len()).expect("small")),
                self.u32(original),
                padded,
                options.to_vec(),
            ];
            self.block(ENHANCED_PACKET, &body.concat())
        }

        pub(in crate::capture::file) fn simple(self, original: u32, octets: &[u8]) -> Vec<u8> {
            self.block(SIMPLE_PACKET, &[self.u32(original), octets.to_vec()].concat())
        }
    }

    const LE: Blocks = Blocks(Order::Little);

    fn one(blocks: &[Vec<u8>]) -> Seen {
        read(&[("t", blocks.concat())])
    }

    #[test]
    fn every_packet_block_in_both_byte_orders() {
        for order in [Order::Little, Order::Big] {
            let b = Blocks(order);
            let old = [
                b.u16(0),
                b.u16(7),
                b.u32(0),
                b.u32(3_000_000),
                b.u32(3),
                b.u32(64),
                b"old\0".to_vec(),
            ];
            let seen = one(&[
                b.section(),
                b.interface(1, 0, &[]),
                b.block(0x0bad, b"unknown"),
                b.enhanced(0, 2_000_001, b"enhanced!", 9, &[]),
                b.simple(1500, b"simple12"),
                b.block(PACKET, &old.concat()),
                b.block(5, &[0; 20]),
            ]);
            assert_eq!(seen.errors, Vec::<String>::new(), "{order:?}");
            assert_eq!(seen.ports, ["t"]);
            let expected: [(u64, &[u8], u32); 3] = [
                (2_000_001_000, b"enhanced!", 9),
                (2_000_001_000, b"simple12", 1500),
                (3_000_000_000, b"old", 64),
            ];
            assert_eq!(seen.frames.len(), expected.len());
            for (frame, (ns, bytes, wire)) in seen.frames.iter().zip(expected) {
                assert_eq!(frame.timestamp, Timestamp(ns));
                assert_eq!((frame.bytes.as_slice(), frame.wire_octets), (bytes, wire));
                assert_eq!(frame.link, LinkType::Ethernet);
            }
        }
    }

    #[test]
    fn each_interface_has_its_own_link_clock_and_port() {
        let nanoseconds = LE.option(9, &[9]);
        let named = [LE.option(2, b"eth1"), LE.option(9, &[0x80 | 32])].concat();
        let offset = [LE.option(14, &100_i64.to_le_bytes()), LE.option(13, &[4])].concat();
        let seen = one(&[
            LE.section(),
            LE.interface(113, 0, &nanoseconds),
            LE.interface(101, 0, &named),
            LE.interface(1, 0, &offset),
            LE.enhanced(2, 1_000_000, &[0; 64], 64, &[]),
            LE.enhanced(1, 3 << 31, b"b", 1, &[]),
            LE.enhanced(0, 5, b"a", 1, &[]),
        ]);
        assert_eq!(seen.errors, Vec::<String>::new());
        assert_eq!(seen.ports, ["t:0", "t:eth1", "t:2"]);
        let facts: Vec<_> = seen
            .frames
            .iter()
            .map(|frame| (frame.port.0, frame.link, frame.timestamp.as_ns(), frame.bytes.len()))
            .collect();
        assert_eq!(
            facts,
            [
                (2, LinkType::Ethernet, 101_000_000_000, 60),
                (1, LinkType::RawIp, 1_500_000_000, 1),
                (0, LinkType::LinuxSll, 5, 1),
            ]
        );
    }

    #[test]
    fn interfaces_may_come_late_and_come_again() {
        let eth = |name: &[u8]| LE.interface(1, 0, &LE.option(2, name));
        let big = Blocks(Order::Big);
        let seen = one(&[
            LE.section(),
            eth(b"x"),
            LE.enhanced(0, 1, b"a", 1, &[]),
            eth(b"y"),
            LE.enhanced(1, 2, b"b", 1, &[]),
            eth(b"y"),
            LE.enhanced(2, 3, b"c", 1, &[]),
            big.section(),
            big.interface(101, 0, &big.option(2, b"y")),
            big.enhanced(0, 4, b"d", 1, &[]),
            LE.section(),
            eth(b"z"),
            eth(b"x"),
            LE.enhanced(1, 5, b"e", 1, &[]),
            LE.enhanced(0, 6, b"f", 1, &[]),
        ]);
        assert_eq!(seen.errors, Vec::<String>::new());
        assert_eq!(seen.ports, ["t", "t:y", "t:y#2", "t:z"]);
        let ports: Vec<_> = seen.frames.iter().map(|frame| frame.port.0).collect();
        assert_eq!(ports, [0, 1, 2, 1, 0, 3]);
        assert_eq!(seen.frames[3].link, LinkType::RawIp);
    }

    #[test]
    fn a_packet_may_state_its_own_fcs() {
        let flags = |octets: u32| LE.option(OPTION_PACKET_FLAGS, &(octets << 5 | 1).to_le_bytes());
        let seen = one(&[
            LE.section(),
            LE.interface(1, 0, &LE.option(13, &[4])),
            LE.enhanced(0, 1, &[0; 64], 64, &[LE.option(1, b"text"), flags(2)].concat()),
            LE.enhanced(0, 1, &[0; 64], 64, &flags(0)),
            LE.enhanced(0, 1, &[0; 64], 64, &LE.option(1, b"text")),
            LE.enhanced(0, 1, &[0; 60], 64, &[]),
        ]);
        let octets: Vec<_> =
            seen.frames.iter().map(|frame| (frame.bytes.len(), frame.wire_octets)).collect();
        assert_eq!(octets, [(62, 64), (60, 64), (60, 64), (60, 64)]);
    }

    #[test]
    fn a_simple_packet_ends_with_snap_length_or_block() {
        let seen = one(&[
            LE.section(),
            LE.interface(1, 6, &[]),
            LE.simple(100, b"12345678"),
            LE.simple(3, b"123"),
        ]);
        let octets: Vec<_> =
            seen.frames.iter().map(|frame| (frame.bytes.clone(), frame.wire_octets)).collect();
        assert_eq!(octets, [(b"123456".to_vec(), 100), (b"123".to_vec(), 3)]);
    }

    #[test]
    fn damaged_blocks_end_the_file_after_whole_packets() {
        let start = [LE.section(), LE.interface(1, 0, &[]), LE.enhanced(0, 1, b"a", 1, &[])];
        let begin = start.concat();
        let mut odd = LE.block(9, &[0; 4]);
        odd[4] = 15;
        let mut large = LE.block(9, &[0; 4]);
        large[4..8].copy_from_slice(&(BLOCK_BYTES_MAX + 4).to_le_bytes());
        let mut differs = LE.block(9, &[0; 4]);
        differs[12] = 20;
        let mut order = LE.section();
        order[8] = 0;
        let mut version = LE.section();
        version[12] = 2;
        let mut captured = LE.enhanced(0, 1, b"abcd", 4, &[]);
        captured[20] = 9;
        let mut huge = LE.enhanced(0, 1, b"abcd", 4, &[]);
        huge[23] = 1;
        for (block, what) in [
            (odd, "corrupt block: length 15 (a multiple of 4 up to 16777216)"),
            (large, "corrupt block: length 16777220 (a multiple of 4 up to 16777216)"),
            (differs, "corrupt block: length 16 at its begin, 20 at its end"),
            (order, "the section header has no byte order: 0x003c2b1a"),
            (version, "version 2.0 of the format is not known"),
            (captured, "corrupt block: its fields go beyond its length 36"),
            (huge, "corrupt record: 16777220 captured octets, 262144 can be"),
            (LE.enhanced(1, 1, b"a", 1, &[]), "packet of interface 1, but the section has 1"),
            (
                LE.block(ENHANCED_PACKET, &[0; 4]),
                "corrupt block: its fields go beyond its length 16",
            ),
            (
                LE.block(INTERFACE_DESCRIPTION, &[]),
                "corrupt block: its fields go beyond its length 12",
            ),
        ] {
            let seen = read(&[("t", [begin.clone(), block].concat())]);
            assert_eq!(seen.packets, 1, "{what}");
            assert_eq!(seen.errors, [format!("t: at byte {}: {what}", begin.len())]);
        }
    }
}
