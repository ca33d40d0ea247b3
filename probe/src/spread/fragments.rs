//! Ports for fragments: only the first one of a datagram carries them.
//!
//! In: fragments, at the one worker that owns their datagram. Out: the same fragments with ports.
//! Cost: one map look-up a fragment; unfragmented packets never come here.
//! Invariants: at most `slots` datagrams and `slots` waiting fragments; nothing is dropped: a
//! fragment whose first one does not come in time, or finds no room, goes on with ports 0, and is
//! counted.
//! Source: RFC 791 §3.2 and RFC 8200 §4.5 (identification, offset), RFC 7011 §3.3 leaves ports of
//! later fragments open.

use std::collections::{HashMap, VecDeque};

use crate::decode::{Address, Headers, Marks};
use crate::inventory::AddressSpace;
use crate::time::{Timestamp, ms};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct DatagramKey {
    space: AddressSpace,
    source: Address,
    destination: Address,
    identification: u32,
    protocol: u8,
    ip_version: u8,
}

impl DatagramKey {
    fn of(headers: &Headers) -> Self {
        Self {
            space: headers.space,
            source: headers.source,
            destination: headers.destination,
            identification: headers.ip_identification,
            protocol: headers.protocol,
            ip_version: headers.ip_version,
        }
    }
}

struct Datagram {
    ports: Option<(u16, u16)>,
    waiting_first: Option<u32>,
    deadline: Timestamp,
}

struct Waiting {
    headers: Headers,
    next: Option<u32>,
}

/// Datagrams whose fragments are on their way.
pub struct FragmentTable {
    datagrams: HashMap<DatagramKey, Datagram>,
    deadlines: VecDeque<(Timestamp, DatagramKey)>,
    waiting: Vec<Waiting>,
    free: Vec<u32>,
    slots: usize,
    timeout_ns: u64,
    held: u64,
    unresolved: u64,
}

impl FragmentTable {
    /// For `slots` datagrams, each remembered for `timeout_ms`.
    pub fn new(slots: u32, timeout_ms: u32) -> Self {
        let slots = slots as usize;
        Self {
            datagrams: HashMap::with_capacity(slots),
            deadlines: VecDeque::with_capacity(slots),
            waiting: Vec::new(),
            free: Vec::new(),
            slots,
            timeout_ns: ms(u64::from(timeout_ms)),
            held: 0,
            unresolved: 0,
        }
    }

    /// Takes a fragment in. What can go on now, in order, is appended to `ready` with ports.
    pub fn resolve(&mut self, headers: &Headers, ready: &mut Vec<Headers>) {
        let key = DatagramKey::of(headers);
        let later = headers.marks.has(Marks::LATER_FRAGMENT);
        if !self.datagrams.contains_key(&key) && !self.open(key, headers.clock) {
            self.unresolved += u64::from(later);
            ready.push(*headers);
            return;
        }
        let Some(datagram) = self.datagrams.get_mut(&key) else { return };
        if !later {
            datagram.ports = Some((headers.source_port, headers.destination_port));
            let first_waiting = datagram.waiting_first.take();
            ready.push(*headers);
            self.release(first_waiting, datagram_ports(headers), headers.clock, ready);
        } else if let Some(ports) = datagram.ports {
            ready.push(with_ports(headers, ports, headers.clock));
        } else {
            self.hold(key, headers, ready);
        }
    }

    /// Forgets datagrams whose time is over at `clock`; fragments that still waited go on with
    /// ports 0.
    pub fn expire(&mut self, clock: Timestamp, ready: &mut Vec<Headers>) {
        while let Some(&(deadline, key)) = self.deadlines.front() {
            if deadline > clock {
                return;
            }
            self.deadlines.pop_front();
            if let Some(datagram) = self.datagrams.remove(&key) {
                let before = self.held;
                self.release(datagram.waiting_first, (0, 0), datagram.deadline, ready);
                self.unresolved += before - self.held;
            }
        }
    }

    /// When [`FragmentTable::expire`] has something to do next.
    #[inline]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Fragments that wait for their first one.
    pub fn held_packets(&self) -> u64 {
        self.held
    }

    /// Fragments that went on without ports so far.
    pub fn unresolved_packets(&self) -> u64 {
        self.unresolved
    }

    fn open(&mut self, key: DatagramKey, clock: Timestamp) -> bool {
        if self.datagrams.len() == self.slots {
            return false;
        }
        let deadline = clock + self.timeout_ns;
        self.deadlines.push_back((deadline, key));
        self.datagrams.insert(key, Datagram { ports: None, waiting_first: None, deadline });
        true
    }

    fn hold(&mut self, key: DatagramKey, headers: &Headers, ready: &mut Vec<Headers>) {
        let Some(datagram) = self.datagrams.get_mut(&key) else { return };
        let node = Waiting { headers: *headers, next: datagram.waiting_first };
        let place = if let Some(place) = self.free.pop() {
            self.waiting[place as usize] = node;
            place
        } else if self.waiting.len() < self.slots {
            self.waiting.push(node);
            u32::try_from(self.waiting.len() - 1).expect("slots is a u32")
        } else {
            self.unresolved += 1;
            ready.push(*headers);
            return;
        };
        datagram.waiting_first = Some(place);
        self.held += 1;
    }

    /// Appends the chain that begins at `first`; the chain is newest first, so it is turned.
    fn release(
        &mut self,
        first: Option<u32>,
        ports: (u16, u16),
        clock: Timestamp,
        ready: &mut Vec<Headers>,
    ) {
        let begin = ready.len();
        let mut next = first;
        while let Some(place) = next {
            let node = &self.waiting[place as usize];
            ready.push(with_ports(&node.headers, ports, clock));
            next = node.next;
            self.free.push(place);
            self.held -= 1;
        }
        ready[begin..].reverse();
    }
}

fn datagram_ports(headers: &Headers) -> (u16, u16) {
    (headers.source_port, headers.destination_port)
}

fn with_ports(headers: &Headers, (source, destination): (u16, u16), clock: Timestamp) -> Headers {
    Headers { source_port: source, destination_port: destination, clock, ..*headers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(later: bool, identification: u32, clock: u64) -> Headers {
        let mut headers = Headers {
            ip_identification: identification,
            protocol: 17,
            ip_version: 4,
            clock: Timestamp(clock),
            ..Headers::default()
        };
        headers.marks.set(Marks::FRAGMENT);
        if later {
            headers.marks.set(Marks::LATER_FRAGMENT);
        } else {
            (headers.source_port, headers.destination_port) = (5_000, 53);
        }
        headers
    }

    fn ports(ready: &[Headers]) -> Vec<(u16, u16)> {
        ready.iter().map(datagram_ports).collect()
    }

    #[test]
    fn later_fragments_get_the_ports_of_the_first() {
        let mut table = FragmentTable::new(8, 1_000);
        let mut ready = Vec::new();
        table.resolve(&fragment(false, 1, 0), &mut ready);
        table.resolve(&fragment(true, 1, 1), &mut ready);
        assert_eq!(ports(&ready), [(5_000, 53); 2]);
    }

    #[test]
    fn fragments_before_the_first_wait_in_order() {
        let mut table = FragmentTable::new(8, 1_000);
        let mut ready = Vec::new();
        for octets in [10, 20] {
            table.resolve(&Headers { octets, ..fragment(true, 1, 0) }, &mut ready);
        }
        assert_eq!((ready.len(), table.held_packets()), (0, 2));
        table.resolve(&fragment(false, 1, 5), &mut ready);
        assert_eq!(ports(&ready), [(5_000, 53); 3]);
        assert_eq!([ready[1].octets, ready[2].octets], [10, 20]);
        assert_eq!((ready[1].clock.0, table.held_packets()), (5, 0));
    }

    #[test]
    fn without_a_first_one_they_go_on_portless() {
        let mut table = FragmentTable::new(8, 1);
        let mut ready = Vec::new();
        table.resolve(&fragment(true, 1, 0), &mut ready);
        table.expire(Timestamp(999_999), &mut ready);
        assert!(ready.is_empty());
        table.expire(Timestamp(9_000_000), &mut ready);
        assert_eq!((ports(&ready), ready[0].clock.0), (vec![(0, 0)], 1_000_000));
        assert_eq!((table.unresolved_packets(), table.held_packets()), (1, 0));
    }

    #[test]
    fn a_full_table_loses_nothing() {
        let mut table = FragmentTable::new(2, 1_000);
        let mut ready = Vec::new();
        for identification in 0..5 {
            table.resolve(&fragment(true, identification, 0), &mut ready);
        }
        assert_eq!((ready.len() as u64, table.held_packets()), (3, 2));
    }
}
