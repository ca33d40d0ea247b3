//! Packets that other workers have sent, oldest first.
//!
//! In: packets of this worker's flows from rings. Out: packets of settled flows counted where they
//! stand, all others on their way with their headers.
//! Cost: a batch looked at as a burst is; what is only counted is not copied, and no other ring is
//! asked while its turn has not come.
//! Invariants: the order of all rings together is that of the packets' clocks; a ring that is empty is
//! waited for, with a live source not longer than the hold.
//! Source: ARCHITECTURE.md, "The loop".

use crate::app::Speech;
use crate::capture::Source;
use crate::copies::{CopyTable, Invariant};
use crate::decode::brief::{Fields, InBrief};
use crate::decode::{Brief, Headers, Marks};
use crate::index::{Sender, WindowNumber};
use crate::spread::ring::{AHEAD_PACKETS, CLOSED, PAYLOAD_OCTETS_MAX, Passed, QUIET};
use crate::time::Timestamp;

use super::burst::Standing;
use super::{Ahead, Worker, WorkerParts};

/// Packets taken over from other workers in a turn at most.
const TAKE_PACKETS_MAX: usize = 256;

/// What is known of a packet of another worker's batch before its turn comes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    ahead: Ahead,
    sender: Sender,
    /// Of a packet in brief; `None` where all its headers are needed.
    fields: Option<Fields>,
}

/// Which ring is to be taken from.
#[derive(Clone, Copy, Debug)]
struct RingTurn {
    from: usize,
    /// While its packets are not later, no other ring's come first.
    until: Timestamp,
}

impl RingTurn {
    /// Of the clock and the head of each ring. A ring without packets is waited for where its clock is
    /// behind the oldest head, unless that is `older_than` what is not waited for any more.
    #[inline]
    fn next(
        rings: impl Iterator<Item = (Timestamp, Option<Timestamp>)>,
        older_than: Option<u64>,
    ) -> Option<Self> {
        let mut oldest: Option<(usize, Timestamp)> = None;
        let (mut until, mut read_up_to) = (Timestamp(u64::MAX), Timestamp(u64::MAX));
        for (place, (clock, head)) in rings.enumerate() {
            match (head, oldest) {
                // Where two are equal, the ring that stands first comes first.
                (Some(head), Some((_, best))) if head >= best => until = until.min(head),
                (Some(head), before) => {
                    until = before.map_or(until, |(_, best)| Timestamp(best.0.saturating_sub(1)));
                    oldest = Some((place, head));
                }
                (None, _) => read_up_to = read_up_to.min(clock),
            }
        }
        let (from, clock) = oldest?;
        if clock <= read_up_to {
            return Some(Self { from, until: until.min(read_up_to) });
        }
        let waited_up_to = Timestamp(older_than?.checked_sub(1)?);
        (clock <= waited_up_to).then_some(Self { from, until: until.min(waited_up_to) })
    }
}

/// Packets taken over that are booked alike.
#[derive(Clone, Copy, Debug)]
struct Run {
    booking: (WindowNumber, bool),
    packets: u64,
}

impl Run {
    /// Of none; what is late is booked anew.
    const EMPTY: Self = Self { booking: (WindowNumber(0), true), packets: 0 };
}

impl Taken {
    /// Reads what more than counting needs.
    #[inline]
    fn look(&mut self, packet: &InBrief, copies: Option<&CopyTable>, wants_fields: bool) {
        if !wants_fields {
            self.fields = Some(Fields::default());
            return;
        }
        self.fields = packet.fields();
        let Some(copies) = copies else { return };
        self.ahead.digest = match &self.fields {
            Some(fields) => copies.digest_of(&Invariant::of_brief(packet.brief(), fields)),
            None => {
                let mut headers = Headers::default();
                packet.write_headers(&mut headers);
                copies.digest(&headers)
            }
        };
    }
}

impl<S: Source> Worker<S> {
    /// Takes packets over from other workers, oldest first. A ring that is empty is waited for
    /// until its worker has read further, with a live source not longer than the hold.
    pub(super) fn take_over(&mut self) -> usize {
        if self.parts.incoming.is_empty() {
            return 0;
        }
        let mut taken = 0;
        while taken < TAKE_PACKETS_MAX {
            let Some(turn) = self.oldest_ring() else { break };
            self.look_at_batch(turn.from);
            let (counted, judged) = self.take_settled(turn, TAKE_PACKETS_MAX - taken);
            taken += counted;
            // What was judged is over only when it is taken; else the first of a turn is.
            if judged.is_some() || counted == 0 {
                self.take_next(turn.from, judged);
                taken += 1;
            }
        }
        if taken == 0 {
            self.advance_by_rings();
        }
        taken
    }

    /// Counts packets of settled flows where they stand, until one needs more or it is another ring's
    /// turn: how many, and what the next one was found to be if it was judged.
    #[inline(never)]
    fn take_settled(&mut self, turn: RingTurn, most: usize) -> (usize, Option<Standing>) {
        // Out of the worker while their packets are counted: nothing waits for room meanwhile.
        let mut incoming = std::mem::take(&mut self.parts.incoming);
        let taken = std::mem::take(&mut self.taken);
        let (mut counted, mut judged) = (0, None);
        let mut run = Run::EMPTY;
        if let (Some(ring), Some(taken)) = (incoming.get_mut(turn.from), taken.get(turn.from)) {
            while counted < most
                && let Some(brief) = ring.next_in_brief().map(InBrief::brief)
                && brief.clock <= turn.until
                && brief.clock < self.next_event
                && let Some(Taken { ahead, fields: Some(fields), .. }) = taken.get(ring.place())
            {
                let standing = self.parts.standing(brief, fields, ahead);
                if standing != Standing::Counts {
                    judged = Some(standing);
                    break;
                }
                self.clock = self.clock.max(brief.clock);
                let Run { booking: (window, late), .. } = run;
                if late || !self.booking.stays_in(window, brief.timestamp, brief.clock) {
                    self.add_run(&mut run);
                    let (window, late) = self.booking.book(brief.timestamp, brief.clock);
                    run.booking = self.open_window(window, late);
                }
                run.packets += 1;
                let speech = || Speech::with_payload(brief, fields, &[]);
                self.count_settled(ahead.guess, (brief, fields), run.booking, speech);
                ring.advance();
                counted += 1;
            }
        }
        self.add_run(&mut run);
        self.totals.spread_in_packets += counted as u64;
        (self.parts.incoming, self.taken) = (incoming, taken);
        (counted, judged)
    }

    /// Adds what was counted to what was booked.
    fn add_run(&mut self, run: &mut Run) {
        if run.packets > 0 {
            self.note_booked(run.booking, run.packets);
        }
        run.packets = 0;
    }

    /// Takes the next packet of a ring over, whatever it is.
    #[inline(never)]
    fn take_next(&mut self, from: usize, judged: Option<Standing>) {
        if self.parts.incoming[from].payload().is_empty() {
            self.take_head(from, judged, &[]);
        } else {
            self.take_speaking(from);
        }
    }

    /// The same of one that came with its payload.
    #[inline(never)]
    fn take_speaking(&mut self, from: usize) {
        let mut octets = [0; PAYLOAD_OCTETS_MAX];
        let payload = self.parts.incoming[from].payload();
        let kept = payload.len().min(PAYLOAD_OCTETS_MAX);
        octets[..kept].copy_from_slice(&payload[..kept]);
        self.take_head(from, None, &octets[..kept]);
    }

    /// Takes the head of a ring over. All of it is copied first: who waits for room may take over the rest
    /// of the batch, and use it again.
    #[inline]
    fn take_head(&mut self, from: usize, judged: Option<Standing>, payload: &[u8]) {
        let ring = &mut self.parts.incoming[from];
        let known = self.taken[from][ring.place()];
        match ring.head() {
            Some(Passed::InBrief(&packet)) => {
                ring.advance();
                self.take_in_brief(&packet, &known, judged, payload);
            }
            Some(Passed::Headers(&headers)) => {
                ring.advance();
                self.take_headers(&headers, &known.ahead, payload);
            }
            None => {}
        }
    }

    /// A packet of the common shape, judged already or not. Time first: what closes with it does not
    /// hold this packet yet.
    #[inline]
    fn take_in_brief(
        &mut self,
        packet: &InBrief,
        known: &Taken,
        judged: Option<Standing>,
        payload: &[u8],
    ) {
        let brief = packet.brief();
        self.advance(brief.clock);
        self.totals.spread_in_packets += 1;
        let standing = match (judged, &known.fields) {
            (Some(standing), _) => standing,
            (None, Some(fields)) => self.own_in_brief(brief, fields, &known.ahead, payload),
            (None, None) => Standing::NotSettled,
        };
        if standing != Standing::Counts {
            self.own_in_full((packet, payload), &known.ahead, standing);
        }
    }

    /// The same of which more is to be done than counting.
    #[inline(never)]
    fn own_in_full(
        &mut self,
        (packet, payload): (&InBrief, &[u8]),
        ahead: &Ahead,
        standing: Standing,
    ) {
        let mut headers = Headers::default();
        packet.write_headers(&mut headers);
        self.own_further((&headers, payload), ahead, standing);
    }

    /// A packet that was not only counted, whether or not it is known already if it is a copy.
    fn own_further(&mut self, packet: (&Headers, &[u8]), ahead: &Ahead, standing: Standing) {
        match standing {
            Standing::MayBeCopy(verdict) => self.own_as(packet, ahead, verdict),
            Standing::NotSettled | Standing::Counts => self.own(packet, ahead),
        }
    }

    /// Any other packet, or what an ICMP error quotes.
    fn take_headers(&mut self, headers: &Headers, ahead: &Ahead, payload: &[u8]) {
        self.advance(headers.clock);
        if headers.is_quote() {
            self.take_quote(headers);
            return;
        }
        self.totals.spread_in_packets += 1;
        let unresolved =
            headers.marks.has(Marks::FRAGMENT) && !headers.marks.has(Marks::PORTS_RESOLVED);
        if unresolved {
            self.resolve_fragment(headers);
            return;
        }
        let standing = Brief::of(headers).map_or(Standing::NotSettled, |brief| {
            let fields = Fields::of_headers(headers);
            self.own_in_brief(&brief, &fields, ahead, payload)
        });
        if standing != Standing::Counts {
            let headers = &Headers { payload_offset: 0, ..*headers };
            self.own_further((headers, payload), ahead, standing);
        }
    }

    /// A packet of this worker's, if its flow is settled: it is only counted.
    #[inline]
    fn own_in_brief(
        &mut self,
        brief: &Brief,
        fields: &Fields,
        ahead: &Ahead,
        payload: &[u8],
    ) -> Standing {
        let standing = self.parts.standing(brief, fields, ahead);
        if standing != Standing::Counts {
            return standing;
        }
        let (window, late) = self.booking.book(brief.timestamp, brief.clock);
        let booking = self.open_window(window, late);
        let speech = || Speech::with_payload(brief, fields, payload);
        self.count_settled(ahead.guess, (brief, fields), booking, speech);
        self.note_booked(booking, 1);
        standing
    }

    /// Looks at where flows, rows and digests of a ring's next batch lie, so that their memory is
    /// fetched for all at once.
    fn look_at_batch(&mut self, from: usize) {
        let WorkerParts { incoming, flows, copies, handoff, .. } = &mut self.parts;
        let copies = copies.as_ref();
        let Some(batch) = incoming[from].fresh_batch() else { return };
        for place in 0..batch.len() {
            if let Some(later) = batch.get(place + AHEAD_PACKETS) {
                later.fetch();
            }
            if let Some(packet) = batch.get(place) {
                flows.table().fetch_bucket(packet.hash());
            }
        }
        let all = &mut self.taken[from][..batch.len()];
        let wants_fields = copies.is_some() || flows.measures();
        for (place, known) in all.iter_mut().enumerate() {
            let Some(packet) = batch.get(place) else { break };
            match packet {
                Passed::InBrief(packet) => {
                    known.sender = packet.brief().sender;
                    known.ahead.guess = flows.table().guess_and_fetch(packet.brief().hash);
                    known.look(packet, copies, wants_fields);
                }
                Passed::Headers(headers) => {
                    known.sender = headers.sender;
                    known.ahead = Ahead::of(headers, flows, copies);
                    flows.table().fetch(known.ahead.guess);
                }
            }
        }
        if let Some(copies) = copies {
            for known in &*all {
                copies.fetch(&known.ahead.digest);
            }
        }
        for known in all {
            let next = (known.sender, self.newest_active);
            if flows.measures() {
                known.ahead.fetch_behind::<true>(flows, handoff, next);
            } else {
                known.ahead.fetch_behind::<false>(flows, handoff, next);
            }
        }
    }

    /// The ring whose head is to be taken next, if it may be.
    fn oldest_ring(&mut self) -> Option<RingTurn> {
        let hold_ns = if self.parts.waits { u64::MAX } else { self.parts.hold_ns };
        let older_than = self.read_clock.0.checked_sub(hold_ns);
        let incoming = self.parts.incoming.iter_mut();
        // A ring's clock is read before its head.
        RingTurn::next(
            incoming.map(|ring| (ring.clock(), ring.head().map(Passed::clock))),
            older_than,
        )
    }

    /// With all rings empty, time goes on as far as all workers have read.
    fn advance_by_rings(&mut self) {
        let mut read_up_to = Timestamp(u64::MAX);
        for ring in &mut self.parts.incoming {
            let clock = ring.clock();
            if ring.head().is_some() {
                return;
            }
            read_up_to = read_up_to.min(clock);
        }
        if read_up_to < QUIET && read_up_to != Timestamp::ZERO {
            self.advance(read_up_to);
        }
    }

    pub(super) fn incoming_ended(&mut self) -> bool {
        self.parts.incoming.iter_mut().all(|ring| ring.clock() == CLOSED && ring.head().is_none())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by one look for each packet: the ring with the oldest head, the first of equal ones.
    fn next_alone(rings: &[(u64, Vec<u64>)], older_than: Option<u64>) -> Option<usize> {
        let heads = rings.iter().enumerate().filter(|(_, (_, packets))| !packets.is_empty());
        let (from, (_, packets)) =
            heads.min_by_key(|(place, (_, packets))| (packets[0], *place))?;
        let is_read = rings
            .iter()
            .filter(|(_, packets)| packets.is_empty())
            .all(|(clock, _)| packets[0] <= *clock);
        (is_read || older_than.is_some_and(|than| packets[0] < than)).then_some(from)
    }

    proptest! {
        #[test]
        fn packets_of_a_turn_come_in_the_order_of_one_at_a_time(
            clocks in prop::collection::vec(
                (0_u64..40, prop::collection::vec(0_u64..30, 0..12)), 1..5),
            older_than in prop::option::of(0_u64..40),
        ) {
            let mut rings = clocks;
            for (_, packets) in &mut rings {
                packets.sort_unstable();
            }
            let mut alone = rings.clone();
            loop {
                let heads = rings.iter().map(|(clock, packets)| {
                    (Timestamp(*clock), packets.first().copied().map(Timestamp))
                });
                let Some(turn) = RingTurn::next(heads, older_than) else { break };
                let (_, packets) = &mut rings[turn.from];
                let stretch = packets.partition_point(|packet| *packet <= turn.until.0);
                prop_assert!(stretch > 0, "the oldest is taken");
                for packet in packets.drain(..stretch) {
                    prop_assert_eq!(next_alone(&alone, older_than), Some(turn.from));
                    prop_assert_eq!(alone[turn.from].1.remove(0), packet);
                }
            }
            prop_assert_eq!(next_alone(&alone, older_than), None);
        }
    }
}
