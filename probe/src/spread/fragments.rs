//! Ports for fragments: only the first one of a datagram carries them.
//!
//! In: fragments, at the one worker that owns their datagram. Out: the same fragments with ports.
//! Cost: one map look-up a fragment; unfragmented packets never come here. A fragment lets go of
//! its own datagram and one other at most, each with at most [`WAITING_MAX`] fragments; time lets go
//! of those that waited for too long, and of no others.
//! Invariants: at most `slots` datagrams and `slots` waiting fragments; nothing is dropped: a
//! fragment whose first one does not come in time, or finds no room, goes on with ports 0, and is
//! counted. A full table forgets whole datagrams first, then the one that was longest without a
//! fragment; one that waits for its first fragment leaves only for a first fragment, so that
//! fragments without a first one cannot fill the table for the others.
//! Source: RFC 791 §3.2 and RFC 8200 §4.5 (identification, offset), RFC 7011 §3.3 leaves ports of
//! later fragments open.

mod datagram;
mod slots;
mod waiting;

use crate::decode::{Headers, Marks};
use crate::time::{Timestamp, ms};

use self::datagram::{Datagram, DatagramKey};
use self::slots::{Queue, Slots};
use self::waiting::WaitingFragments;

/// How long ports that are known are remembered after the datagram's newest fragment: longer than
/// a datagram takes on a slow link and than its copy takes to another tap, shorter than a busy
/// sender takes to use the identification again.
const KNOWN_MS: u64 = 1_000;

/// Fragments of one datagram that wait at most. The largest datagram has 45 where frames have
/// 1,500 octets, and 120 where they have 576.
const WAITING_MAX: u32 = 255;

/// Datagrams whose fragments are on their way.
pub struct FragmentTable {
    slots: Slots,
    waiting: WaitingFragments,
    /// The earliest deadline of the datagrams that wait for their first fragment.
    next_deadline: Option<Timestamp>,
    timeout_ns: u64,
    known_ns: u64,
    unresolved: u64,
}

impl FragmentTable {
    /// For `slots` datagrams, whose fragments wait for their first one for `timeout_ms`.
    pub fn new(slots: u32, timeout_ms: u32) -> Self {
        let timeout_ns = ms(u64::from(timeout_ms));
        Self {
            slots: Slots::new(slots),
            waiting: WaitingFragments::new(slots),
            next_deadline: None,
            timeout_ns,
            known_ns: timeout_ns.min(ms(KNOWN_MS)),
            unresolved: 0,
        }
    }

    /// Takes a fragment in. What can go on now, in order, is appended to `ready` with ports.
    pub fn resolve(&mut self, headers: &Headers, ready: &mut Vec<Headers>) {
        let later = headers.marks.has(Marks::LATER_FRAGMENT);
        match self.slot_of(headers, later, ready) {
            Some(slot) if later => self.later(slot, headers, ready),
            Some(slot) => self.first(slot, headers, ready),
            None => self.go_on_without(headers, ready),
        }
        self.next_deadline = self.first_deadline();
    }

    /// Forgets datagrams that waited for their first fragment up to `clock`; their fragments go on
    /// with ports 0. Others are forgotten when their key comes again too late, or their place is
    /// needed.
    pub fn expire(&mut self, clock: Timestamp, ready: &mut Vec<Headers>) {
        while let Some((slot, deadline)) = self.slots.oldest(Queue::Unknown)
            && deadline <= clock
        {
            self.forget(slot, deadline, ready);
        }
        self.next_deadline = self.first_deadline();
    }

    /// When [`FragmentTable::expire`] has something to do next.
    #[inline]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.next_deadline
    }

    /// Fragments that wait for their first one.
    pub fn held_packets(&self) -> u64 {
        self.waiting.len()
    }

    /// Fragments that went on without ports so far.
    pub fn unresolved_packets(&self) -> u64 {
        self.unresolved
    }

    /// The place of the fragment's datagram; a new one if there is room or can be made.
    fn slot_of(&mut self, headers: &Headers, later: bool, ready: &mut Vec<Headers>) -> Option<u32> {
        let key = DatagramKey::of(headers);
        if let Some(slot) = self.slots.find(&key) {
            if !self.slots.is_over(slot, headers.clock) {
                return Some(slot);
            }
            self.forget(slot, headers.clock, ready);
        }
        if self.slots.is_full() {
            let oldest = |queue| self.slots.oldest(queue);
            let known = oldest(Queue::Whole).or_else(|| oldest(Queue::Known));
            let orphan = || if later { None } else { oldest(Queue::Unknown) };
            let (slot, _) = known.or_else(orphan)?;
            self.forget(slot, headers.clock, ready);
        }
        Some(self.slots.insert(key, headers.clock + self.timeout_ns))
    }

    fn first(&mut self, slot: u32, headers: &Headers, ready: &mut Vec<Headers>) {
        let datagram = self.slots.datagram(slot);
        if datagram.is_whole() {
            // Its identification comes again: of another datagram, or at another tap.
            *datagram = Datagram::default();
        }
        let ports = (headers.source_port, headers.destination_port);
        datagram.ports = Some(ports);
        let chain = datagram.take_waiting();
        ready.push(*headers);
        self.waiting.release(chain, ready, |waiting| with_ports(waiting, ports, headers.clock));
        self.note(slot, headers);
    }

    fn later(&mut self, slot: u32, headers: &Headers, ready: &mut Vec<Headers>) {
        let datagram = self.slots.datagram(slot);
        if let Some(ports) = datagram.ports {
            ready.push(with_ports(headers, ports, headers.clock));
            self.note(slot, headers);
            return;
        }
        datagram.note(headers);
        let room = datagram.waiting < WAITING_MAX;
        let place = room.then(|| self.waiting.add(headers, datagram.newest_waiting)).flatten();
        match place {
            Some(place) => datagram.wait(place),
            None => self.go_on_without(headers, ready),
        }
    }

    /// A fragment of a datagram whose ports are known: it is remembered for a while from now on.
    fn note(&mut self, slot: u32, headers: &Headers) {
        let datagram = self.slots.datagram(slot);
        datagram.note(headers);
        let queue = if datagram.is_whole() { Queue::Whole } else { Queue::Known };
        self.slots.move_to(slot, queue, headers.clock + self.known_ns);
    }

    fn forget(&mut self, slot: u32, clock: Timestamp, ready: &mut Vec<Headers>) {
        let mut datagram = self.slots.remove(slot);
        self.unresolved += u64::from(datagram.waiting);
        let chain = datagram.take_waiting();
        self.waiting.release(chain, ready, |waiting| with_ports(waiting, (0, 0), clock));
    }

    fn first_deadline(&self) -> Option<Timestamp> {
        self.slots.oldest(Queue::Unknown).map(|(_, deadline)| deadline)
    }

    fn go_on_without(&mut self, headers: &Headers, ready: &mut Vec<Headers>) {
        self.unresolved += u64::from(headers.marks.has(Marks::LATER_FRAGMENT));
        ready.push(*headers);
    }
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
        ready.iter().map(|headers| (headers.source_port, headers.destination_port)).collect()
    }

    /// The six fragments of a datagram of 8,000 octets, first to last.
    fn six(identification: u32, clock: u64) -> Vec<Headers> {
        (0_u16..6)
            .map(|number| {
                let mut headers = fragment(number > 0, identification, clock);
                let payload = if number < 5 { 1_480 } else { 600 };
                headers.fragment_offset = number * 1_480;
                headers.octets = payload + 20;
                headers.payload_octets = payload;
                if number < 5 {
                    headers.marks.set(Marks::MORE_FRAGMENTS);
                }
                headers
            })
            .collect()
    }

    /// Runs `datagrams` through a table as large as the default, with a full second of the clock
    /// for each `rate`. The answer is how many fragments came out with and without ports.
    fn run(
        table: &mut FragmentTable,
        rate: u64,
        datagrams: impl Iterator<Item = Vec<Headers>>,
    ) -> (u64, u64) {
        let (mut ready, mut with, mut without) = (Vec::new(), 0, 0);
        for (number, fragments) in (0_u64..).zip(datagrams) {
            let clock = Timestamp(number * 1_000_000_000 / rate);
            table.expire(clock, &mut ready);
            for headers in fragments {
                table.resolve(&Headers { clock, ..headers }, &mut ready);
            }
            assert!(ready.len() <= 2 + 2 * WAITING_MAX as usize, "{}", ready.len());
            for headers in &ready {
                with += u64::from(headers.source_port == 5_000);
                without += u64::from(headers.source_port == 0);
            }
            ready.clear();
        }
        (with, without)
    }

    #[test]
    fn fifteen_thousand_datagrams_a_second_get_their_ports() {
        let mut table = FragmentTable::new(4_096, 30_000);
        let datagrams = (0..45_000_u32).map(|number| {
            let mut fragments = six(number, 0);
            match number % 3 {
                0 => {}
                1 => fragments.reverse(),
                _ => fragments.swap(0, 3),
            }
            fragments
        });
        assert_eq!(run(&mut table, 15_000, datagrams), (270_000, 0));
        assert_eq!((table.unresolved_packets(), table.held_packets()), (0, 0));
    }

    #[test]
    fn datagrams_that_never_end_take_no_room_from_the_others() {
        let mut table = FragmentTable::new(4_096, 30_000);
        // For each whole datagram forty first fragments of others, whose rest never comes.
        let datagrams = (0..5_000_u32).map(|number| {
            let mut fragments = six(number, 0);
            let hostile = (0..40).map(|more| fragment(false, 100_000 + number * 40 + more, 0));
            fragments.splice(3..3, hostile);
            fragments
        });
        assert_eq!(run(&mut table, 10_000, datagrams), (5_000 * 46, 0));
        assert!(table.slots.len() <= 4_096);
    }

    #[test]
    fn fragments_without_a_first_one_are_bounded_and_give_way() {
        let mut table = FragmentTable::new(256, 30_000);
        let datagrams = (0..10_000_u32).map(|number| {
            let mut fragments = six(number, 0);
            fragments.extend((0..3).map(|more| fragment(true, 100_000 + number * 3 + more, 0)));
            fragments
        });
        let (with, without) = run(&mut table, 10_000, datagrams);
        assert_eq!((with, without + table.held_packets()), (60_000, 30_000));
        assert_eq!(table.unresolved_packets(), without);
        assert!(table.slots.len() <= 256 && table.held_packets() <= 256);
    }

    #[test]
    fn one_datagram_has_a_bounded_share_of_what_waits() {
        let mut table = FragmentTable::new(4_096, 1_000);
        let mut ready = Vec::new();
        for _ in 0..1_000 {
            table.resolve(&fragment(true, 1, 0), &mut ready);
        }
        assert_eq!(table.held_packets(), u64::from(WAITING_MAX));
        assert_eq!(ready.len() as u64, 1_000 - u64::from(WAITING_MAX));
    }

    #[test]
    fn known_ports_are_forgotten_a_second_after_the_last_fragment() {
        let mut table = FragmentTable::new(8, 30_000);
        let mut ready = Vec::new();
        table.resolve(&fragment(false, 1, 0), &mut ready);
        table.resolve(&fragment(true, 1, 900_000_000), &mut ready);
        table.resolve(&fragment(true, 1, 1_899_999_999), &mut ready);
        assert_eq!((ports(&ready), table.next_deadline()), (vec![(5_000, 53); 3], None));
        // Of another datagram: it waits for a first fragment of its own.
        table.resolve(&fragment(true, 1, 2_899_999_999), &mut ready);
        assert_eq!((ready.len(), table.held_packets(), table.slots.len()), (3, 1, 1));
        assert_eq!(table.next_deadline(), Some(Timestamp(32_899_999_999)));
    }

    #[test]
    fn an_identification_that_comes_again_has_its_own_ports() {
        let mut table = FragmentTable::new(8, 30_000);
        let mut ready = Vec::new();
        for headers in six(1, 0) {
            table.resolve(&headers, &mut ready);
        }
        for headers in six(1, 5) {
            let first = headers.fragment_offset == 0;
            let source_port = if first { 6_000 } else { headers.source_port };
            table.resolve(&Headers { source_port, ..headers }, &mut ready);
        }
        let sources: Vec<u16> = ready.iter().map(|headers| headers.source_port).collect();
        assert_eq!(sources, [[5_000; 6], [6_000; 6]].concat());
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
