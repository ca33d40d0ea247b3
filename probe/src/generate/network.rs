//! The wires of the cloud: cards, hosts, taps, and the way between them.
//!
//! In: packets that nodes send, and what is to happen at which time. Out: two captures, and the
//! packets that arrive.
//! Cost: a heap of what is under way; nothing else grows with the length of a scenario but the
//! set of flows.
//! Invariants: time never goes back, so each capture is in order; packets between two nodes
//! never overtake one another; every stamp is a whole microsecond.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::path::Path;

use super::cloud::{Cloud, Endpoint, HOSTS, NodeIndex, Place, vlan_of};
use super::event::{Action, ConnectionIndex, Delivery, Event};
use super::frame::{self, IpFields, Overlay};
use super::pcap::PcapWriter;
use super::random::Random;
use super::talk::Side;
use super::truth::{FlowKey, TapPair, Truth};

/// 2026-01-01T00:00:00Z in microseconds since the epoch.
pub(super) const START_US: u64 = 1_767_225_600_000_000;

/// Time that a node takes to answer at all.
const STACK_US: u64 = 9;
/// Cards send at 1 Gbit/s: 8 ns an octet.
const NS_PER_OCTET: u64 = 8;
/// Between two VMs on one host.
const SWITCH_US: u64 = 15;
/// Between the taps of the two hosts, with an even spread of jitter above it.
const PATH_US: u64 = 120;
const PATH_JITTER_US: u64 = 30;
/// Between the gateway and a host's tap.
const GATEWAY_US: u64 = 60;
const OUTSIDE_JITTER_US: u64 = 300;
/// Losses between the taps, per thousand packets.
const PATH_LOSS_PER_MILLE: u64 = 5;
/// Losses outside, per thousand packets and direction.
const OUTSIDE_LOSS_PER_MILLE: u64 = 1;
/// TTL of what VMs send, and of what has crossed the outside.
const TTL_VM: u8 = 64;
const TTL_OUTSIDE: u8 = 52;

/// Who takes a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiver {
    /// The node of the packet's destination.
    Node,
    /// Nobody has the address.
    Nobody,
    /// Everybody in the segment.
    Everybody,
}

/// A packet under way.
pub(super) struct Packet {
    pub(super) from: Endpoint,
    pub(super) to: Endpoint,
    pub(super) receiver: Receiver,
    /// The tenant's frame.
    pub(super) inner: Vec<u8>,
    /// `None`: no IP.
    pub(super) flow: Option<FlowKey>,
    /// Place of the attack that it belongs to.
    pub(super) attack: Option<usize>,
    pub(super) delivery: Delivery,
    leg: Leg,
    /// A tap has seen it; what follows are copies.
    copies: bool,
    /// When the first tap saw it.
    sent_us: u64,
    outer_identification: u16,
}

/// The way that a packet takes, as its sender's host knew it; hosts by their place.
#[derive(Clone, Copy)]
enum Leg {
    Within(usize),
    Between(usize, usize),
    Out(usize),
    In(usize),
}

impl Packet {
    /// A packet that is about to be sent.
    pub(super) fn new(from: Endpoint, to: Endpoint, inner: Vec<u8>, delivery: Delivery) -> Self {
        Self {
            from,
            to,
            receiver: Receiver::Node,
            inner,
            flow: None,
            attack: None,
            delivery,
            leg: Leg::Within(0),
            copies: false,
            sent_us: 0,
            outer_identification: 0,
        }
    }
}

/// A TCP segment that was lost between two taps.
pub(super) struct Loss {
    pub(super) connection: ConnectionIndex,
    /// The side that sent it.
    pub(super) side: Side,
    /// First offset of its range.
    pub(super) from: u64,
    pub(super) path: TapPair,
}

/// The network while a scenario runs.
pub(super) struct Network {
    pub(super) now_us: u64,
    pub(super) cloud: Cloud,
    pub(super) random: Random,
    pub(super) truth: Truth,
    /// Segments lost since somebody looked.
    pub(super) losses: Vec<Loss>,
    queue: BinaryHeap<Reverse<Event>>,
    sequence: u64,
    taps: Vec<PcapWriter>,
    /// Last arrival between two hosts, so that jitter never reorders.
    path_busy_until_us: [[u64; HOSTS.len()]; HOSTS.len()],
    outer_identification: u16,
    scratch: Vec<u8>,
}

impl Network {
    /// Opens one capture a tap in `folder`.
    pub(super) fn open(
        cloud: Cloud,
        random: Random,
        truth: Truth,
        folder: &Path,
    ) -> Result<Self, (String, io::Error)> {
        let open = |host: &super::cloud::Host| {
            let name = format!("{}.pcap", host.tap);
            PcapWriter::create(&folder.join(&name)).map_err(|error| (name, error))
        };
        let taps = HOSTS.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self {
            now_us: 0,
            cloud,
            random,
            truth,
            losses: Vec::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
            taps,
            path_busy_until_us: [[0; HOSTS.len()]; HOSTS.len()],
            outer_identification: 0,
            scratch: Vec::with_capacity(2_048),
        })
    }

    /// Lets something happen at a time; not before now.
    pub(super) fn schedule(&mut self, at_us: u64, action: Action) {
        self.sequence += 1;
        let at_us = at_us.max(self.now_us);
        self.queue.push(Reverse(Event { at_us, sequence: self.sequence, action }));
    }

    /// Goes on to what happens next.
    pub(super) fn next(&mut self) -> Option<Action> {
        let Reverse(event) = self.queue.pop()?;
        self.now_us = event.at_us;
        Some(event.action)
    }

    /// The header fields of the next packet that `from` sends.
    pub(super) fn ip_fields(&mut self, from: &Endpoint) -> IpFields {
        let node = self.cloud.node(from.node);
        let identification = node.identification;
        node.identification = identification.wrapping_add(1).max(1);
        let ttl = if node.vm.is_some() { TTL_VM } else { TTL_OUTSIDE };
        IpFields { identification, ttl }
    }

    /// The next ephemeral port of a node.
    pub(super) fn ephemeral_port(&mut self, node: NodeIndex) -> u16 {
        let node = self.cloud.node(node);
        let port = node.port;
        // Linux: ip_local_port_range ends at 60999.
        node.port = if port >= 60_999 { 32_768 } else { port + 1 };
        port
    }

    /// When a node runs again, if a migration has stopped it.
    pub(super) fn paused_until(&mut self, node: NodeIndex) -> Option<u64> {
        self.cloud.node(node).paused_until_us
    }

    /// Hands a packet to its sender's card.
    pub(super) fn send(&mut self, packet: Packet) {
        self.send_after(packet, 0);
    }

    /// Hands a packet to its sender's card after some work; what is sent later waits for it.
    pub(super) fn send_after(&mut self, packet: Packet, work_us: u64) {
        let wire_ns = packet.inner.len() as u64 * NS_PER_OCTET;
        let ready_us = self.now_us + STACK_US + work_us;
        let node = self.cloud.node(packet.from.node);
        let at_us = node.card_free_us.max(ready_us) + wire_ns / 1_000 + 1;
        node.card_free_us = at_us;
        self.schedule(at_us, Action::Emit(Box::new(packet)));
    }

    /// A packet leaves its sender's card.
    pub(super) fn emit(&mut self, mut packet: Box<Packet>) -> io::Result<()> {
        self.outer_identification = self.outer_identification.wrapping_add(1).max(1);
        packet.outer_identification = self.outer_identification;
        let to = self.cloud.node(packet.to.node).place;
        match (self.cloud.node(packet.from.node).place, packet.receiver, to) {
            (Place::Host(here), Receiver::Nobody, _) => {
                packet.leg = Leg::Within(here);
                self.capture(&packet, here)?;
            }
            (Place::Host(here), Receiver::Everybody, _) => {
                packet.leg = Leg::Between(here, 1 - here);
                self.capture(&packet, here)?;
                self.cross(packet, here, 1 - here);
            }
            (Place::Host(here), Receiver::Node, Place::Host(there)) if here == there => {
                packet.leg = Leg::Within(here);
                self.capture(&packet, here)?;
                self.schedule(self.now_us + SWITCH_US, Action::Arrive(packet));
            }
            (Place::Host(here), Receiver::Node, Place::Host(there)) => {
                packet.leg = Leg::Between(here, there);
                self.capture(&packet, here)?;
                self.cross(packet, here, there);
            }
            (Place::Host(here), Receiver::Node, Place::Outside) => {
                packet.leg = Leg::Out(here);
                self.capture(&packet, here)?;
                self.leave(packet);
            }
            (Place::Outside, _, Place::Host(there)) => {
                packet.leg = Leg::In(there);
                self.enter(packet);
            }
            (Place::Outside, _, Place::Outside) => {}
        }
        Ok(())
    }

    /// A packet arrives where it was sent to. Gives it, unless nobody takes it there.
    pub(super) fn arrive(&mut self, mut packet: Box<Packet>) -> io::Result<Option<Box<Packet>>> {
        let goal = match packet.leg {
            Leg::Within(here) => Place::Host(here),
            Leg::Out(_) => Place::Outside,
            Leg::In(there) => {
                self.capture(&packet, there)?;
                Place::Host(there)
            }
            Leg::Between(here, there) => {
                if packet.is_routed() {
                    frame::route(&mut packet.inner, &packet.to);
                }
                packet.copies = true;
                self.capture(&packet, there)?;
                if packet.flow.is_some() {
                    let delay_ns = (self.now_us - packet.sent_us) * 1_000;
                    self.truth.delayed((HOSTS[here].tap, HOSTS[there].tap), delay_ns);
                }
                Place::Host(there)
            }
        };
        let node = self.cloud.node(packet.to.node);
        let taken = node.place == goal && node.paused_until_us.is_none();
        Ok((taken && packet.receiver == Receiver::Node).then_some(packet))
    }

    /// Over the fabric, from one tap to the other.
    fn cross(&mut self, mut packet: Box<Packet>, here: usize, there: usize) {
        packet.sent_us = self.now_us;
        let is_ip = packet.flow.is_some();
        if is_ip && self.random.chance(PATH_LOSS_PER_MILLE, 1_000) {
            let path = (HOSTS[here].tap, HOSTS[there].tap);
            self.truth.lost(path);
            if let Delivery::Tcp(connection, receiver, segment) = packet.delivery
                && let Some(from) = segment.range_start()
            {
                self.losses.push(Loss { connection, side: receiver.other(), from, path });
            }
            return;
        }
        let jitter_us = self.random.between(0, PATH_JITTER_US);
        let busy_until_us = &mut self.path_busy_until_us[here][there];
        let at_us = (self.now_us + PATH_US + jitter_us).max(*busy_until_us);
        *busy_until_us = at_us;
        self.schedule(at_us, Action::Arrive(packet));
    }

    /// Through the gateway to the outside.
    fn leave(&mut self, packet: Box<Packet>) {
        if self.random.chance(OUTSIDE_LOSS_PER_MILLE, 1_000) {
            self.truth.lost_after_tap();
            return;
        }
        let at_us = self.outside_arrival(packet.to.node, Direction::Out);
        self.schedule(at_us, Action::Arrive(packet));
    }

    /// From the outside through the gateway.
    fn enter(&mut self, packet: Box<Packet>) {
        if packet.flow.is_some() && self.random.chance(OUTSIDE_LOSS_PER_MILLE, 1_000) {
            self.truth.lost_before_tap();
            return;
        }
        let at_us = self.outside_arrival(packet.from.node, Direction::In);
        self.schedule(at_us, Action::Arrive(packet));
    }

    fn outside_arrival(&mut self, node: NodeIndex, direction: Direction) -> u64 {
        let jitter_us = self.random.between(0, OUTSIDE_JITTER_US);
        let now_us = self.now_us;
        let node = self.cloud.node(node);
        let busy_until_us = &mut node.line_busy_until_us[direction as usize];
        let at_us = (now_us + GATEWAY_US + node.distance_us + jitter_us).max(*busy_until_us);
        *busy_until_us = at_us;
        at_us
    }

    /// The tap of a host copies a frame.
    fn capture(&mut self, packet: &Packet, at: usize) -> io::Result<()> {
        let segment = if packet.copies { packet.to.segment } else { packet.from.segment };
        let bytes = if vlan_of(segment).is_some() {
            &packet.inner
        } else {
            packet.overlay(at, segment.id()).write(&packet.inner, &mut self.scratch);
            &self.scratch
        };
        self.taps[at].write(START_US + self.now_us, bytes)?;
        self.truth.frame(HOSTS[at].tap, bytes.len() as u64);
        match packet.flow {
            None => self.truth.not_ip(),
            Some(_) if packet.copies => self.truth.copy(),
            Some(flow) => {
                let sender = self.cloud.node(packet.from.node).vm;
                let sender = sender.map(|vm| self.cloud.vms[vm].uuid.as_str());
                let octets = frame::ip_octets(&packet.inner, &packet.from);
                self.truth.logical(flow, sender, octets);
                if let Some(attack) = packet.attack {
                    self.truth.attack(attack, (START_US + self.now_us) * 1_000);
                }
            }
        }
        Ok(())
    }

    /// Closes the captures.
    pub(super) fn finish(self) -> Result<Truth, (&'static str, io::Error)> {
        for (tap, host) in self.taps.into_iter().zip(&HOSTS) {
            tap.finish().map_err(|error| (host.tap, error))?;
        }
        Ok(self.truth)
    }
}

/// Which way through the gateway.
#[derive(Clone, Copy)]
enum Direction {
    Out = 0,
    In = 1,
}

impl Packet {
    /// Whether a router stands between its ends.
    fn is_routed(&self) -> bool {
        self.from.segment != self.to.segment
    }

    /// The overlay as the tap of host `at` sees it. A packet that is routed between hosts goes
    /// to the router and comes from there.
    fn overlay(&self, at: usize, vni: u32) -> Overlay {
        let (from, to) = match self.leg {
            Leg::Within(here) => (Place::Host(here), Place::Host(here)),
            Leg::Out(here) => (Place::Host(here), Place::Outside),
            Leg::In(there) => (Place::Outside, Place::Host(there)),
            Leg::Between(_, there) if self.is_routed() && self.copies => {
                (Place::Outside, Place::Host(there))
            }
            Leg::Between(here, _) if self.is_routed() => (Place::Host(here), Place::Outside),
            Leg::Between(here, there) => (Place::Host(here), Place::Host(there)),
        };
        let identification = self.outer_identification;
        let source_port = 0xc000 | self.flow.map_or(0, |flow| flow.entropy()) & 0x3fff;
        Overlay { from, to, at, vni, identification, source_port }
    }
}
