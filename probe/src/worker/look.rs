//! A look at a burst of the own source, before its packets are handled.
//!
//! In: frames. Out: what each packet needs, in brief where that may do, else its headers; and where its flow
//! is, fetched.
//! Cost: several loops, each over the whole burst and each with the registers for itself: frames, buckets,
//! what stands behind them.
//! Invariants: nothing is counted here, and no table changes.
//! Source: ARCHITECTURE.md, "The loop" and "Settled flows".

use crate::capture::{Burst, Frame, Source};
use crate::copies::Invariant;
use crate::counters::DropCause;
use crate::decode::Brief;
use crate::decode::brief::{Fields, FramePlace};
use crate::flow::Guess;
use crate::index::{PortIndex, TapIndex, WindowNumber};
use crate::path::PathStage;
use crate::spread::{name_brief, name_flow};
use crate::time::Timestamp;

use super::{Ahead, Worker, WorkerParts};

/// Octets of an Ethernet header without tags.
const ETHERNET_OCTETS: usize = 14;

/// What is known of one frame of a burst.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    /// Valid where something was read in brief; elsewhere only the hash of its flow's key is, once its
    /// headers were read: 0 where it was rejected.
    pub(super) brief: Brief,
    /// The same, where something more than counting is to be done.
    pub(super) fields: Fields,
    pub(super) ahead: Ahead,
}

/// What is known of a burst as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overview {
    /// Frames of which not enough was read in brief.
    pub(super) unread: usize,
    /// The largest stamp of the source up to its last packet, which is this one's clock.
    pub(super) latest: Timestamp,
    /// There are packets, each is known in brief, of one tap, and there is no other worker; only then the
    /// rest means anything.
    pub(super) is_alike: bool,
    pub(super) tap: TapIndex,
    /// The smallest stamp.
    pub(super) earliest: Timestamp,
    /// On the wire, of all.
    pub(super) octets: u64,
    /// A mirror gave numbers to some.
    pub(super) is_sequenced: bool,
}

/// How much was read of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Kind {
    /// Nothing yet but its clock.
    #[default]
    Unread,
    /// The brief, but all headers are needed.
    BriefAlone,
    /// The brief, of a flow that goes to its owner through a ring.
    BriefElsewhere,
    /// The brief, and what is read beside it where more than counts is wanted.
    Brief,
    /// The same, of a packet that its mirror gave a number.
    BriefSequenced,
    /// All headers.
    Headers,
    /// All headers, in vain.
    Rejected(DropCause),
}

impl<S: Source> Worker<S> {
    /// Reads what each packet needs: in brief where that may do, else all headers. The loops of a
    /// burst stand apart, so that each has the registers for itself.
    pub(super) fn look(&mut self, burst: &impl Burst, packets: usize) -> Overview {
        if !self.may_be_brief() {
            self.look_in_full(burst, packets);
            return Overview::default();
        }
        let (parts, seen) = (&self.parts, &mut self.seen[..packets]);
        let wants_fields = parts.copies.is_some() || parts.flows.measures();
        let overview = if wants_fields {
            look_in_brief::<true>(parts, burst, seen, self.read_clock)
        } else {
            look_in_brief::<false>(parts, burst, seen, self.read_clock)
        };
        self.read_clock = overview.latest;
        if overview.unread > 0 {
            self.look_at_others(burst, packets);
        }
        overview
    }

    /// Whether nothing has to be asked of a packet but which flow it is of.
    fn may_be_brief(&self) -> bool {
        let parts = &self.parts;
        let follows_all = parts.path.as_ref().is_some_and(PathStage::follows_all);
        parts.filters.is_empty() && parts.shedder.keeps_all() && !follows_all
    }

    /// Reads all headers of a burst's frames.
    #[inline(never)]
    fn look_in_full(&mut self, burst: &impl Burst, packets: usize) {
        for place in 0..packets {
            self.read_clock = self.read_clock.max(burst.frame(place).timestamp);
            self.decode(&burst.frame(place), self.read_clock, place);
            self.fetch_first(place);
        }
    }

    /// Reads all headers of what was looked at in brief in vain.
    #[inline(never)]
    fn look_at_others(&mut self, burst: &impl Burst, packets: usize) {
        for place in 0..packets {
            match self.seen[place].kind {
                Kind::Unread => {
                    self.decode(&burst.frame(place), self.seen[place].brief.clock, place);
                }
                Kind::BriefAlone => self.read_known(&burst.frame(place), place),
                _ => continue,
            }
            self.fetch_first(place);
        }
    }

    /// Has fetched what is looked at first of a packet all of whose headers were read.
    #[inline]
    fn fetch_first(&self, place: usize) {
        let Seen { brief, ahead, .. } = &self.seen[place];
        self.parts.flows.table().fetch_bucket(brief.hash);
        if let Some(copies) = &self.parts.copies {
            copies.fetch(&ahead.digest);
        }
    }

    /// Reads all headers of a frame.
    fn decode(&mut self, frame: &Frame<'_>, clock: Timestamp, place: usize) {
        let (headers, seen) = (&mut self.headers[place], &mut self.seen[place]);
        match self.parts.decoder.decode(frame, clock, headers) {
            Ok(()) => {
                name_flow(headers, self.parts.seed);
                if let Some(copies) = &self.parts.copies {
                    seen.ahead.digest = copies.digest(headers);
                }
                (seen.brief.hash, seen.kind) = (headers.hash, Kind::Headers);
            }
            Err(cause) => (seen.brief.hash, seen.kind) = (0, Kind::Rejected(cause)),
        }
    }

    /// The same for a frame that was read in brief.
    fn read_known(&mut self, frame: &Frame<'_>, place: usize) {
        let (headers, seen) = (&mut self.headers[place], &mut self.seen[place]);
        seen.brief.write_headers(seen.brief.packet_in(frame), headers);
        if let Some(copies) = &self.parts.copies {
            seen.ahead.digest = copies.digest(headers);
        }
        seen.kind = Kind::Headers;
    }

    /// Looks at where the flows and digests of the burst lie, so that memory is fetched for all at
    /// once; their buckets were looked at before. `ONLY_COUNTS` says what [`WorkerParts::only_counts`] does.
    #[inline(never)]
    pub(super) fn fetch_tables<const ONLY_COUNTS: bool>(&mut self, packets: usize) {
        let (flows, seen) = (&self.parts.flows, &mut self.seen[..packets]);
        if self.parts.workers > 1 {
            fetch_own(&self.parts, seen, |kind| !matches!(kind, Kind::BriefElsewhere));
        } else {
            fetch_own(&self.parts, seen, |_| true);
        }
        // A loop each: the one has no more to ask than it needs.
        if !ONLY_COUNTS && flows.measures() {
            fetch_behind::<true>(&self.parts, seen, self.newest_active);
        } else {
            fetch_behind::<false>(&self.parts, seen, self.newest_active);
        }
    }
}

/// Reads in brief what can be of a burst's frames, with `FIELDS` also what is needed for more than
/// counting. `clock` is the source's before the burst.
#[inline(never)]
fn look_in_brief<const FIELDS: bool>(
    parts: &WorkerParts,
    burst: &impl Burst,
    seen: &mut [Seen],
    clock: Timestamp,
) -> Overview {
    let (mut latest, mut earliest, mut octets) = (clock, Timestamp(u64::MAX), 0);
    let (mut unread, mut is_alike) = (0, true);
    let mut enclosed = Enclosed::default();
    let mut port = PortIndex(0);
    let mut untagged = parts.decoder.place_of_untagged(port);
    // There are so many; known to the compiler, it need not check that for each of them.
    let packets = seen.len().min(burst.len());
    for (place, seen) in (0..packets).zip(seen) {
        // Asked for anew where one is given away: this one stays in registers.
        let frame = burst.frame(place);
        latest = latest.max(frame.timestamp);
        earliest = earliest.min(frame.timestamp);
        octets += u64::from(frame.wire_octets);
        if frame.port != port {
            is_alike &= place == 0;
            port = frame.port;
            untagged = parts.decoder.place_of_untagged(port);
        }
        if let Some(untagged) = untagged
            && parts.decoder.brief((&frame, latest), untagged, &mut seen.brief).is_some()
        {
            name_brief(&mut seen.brief, parts.seed);
            // Where the packet begins is known here, and that it is long enough.
            let packet = frame.bytes.get(ETHERNET_OCTETS..).unwrap_or_default();
            if look_further::<FIELDS>(parts, packet, seen) {
                continue;
            }
        } else {
            // In memory: it would take registers from the others.
            let (seen, frame) = ((seen, &mut enclosed), (&burst.frame(place), latest));
            if look_inside::<FIELDS>(parts, frame, seen, untagged) {
                continue;
            }
        }
        unread += 1;
    }
    is_alike &= packets != 0 && unread == 0 && parts.workers == 1;
    let port_tap = untagged.map_or(TapIndex(0), FramePlace::tap);
    let Enclosed { other_tap_packets, other_tap, are_of_several, is_sequenced } = enclosed;
    let tap = if other_tap_packets == 0 { port_tap } else { other_tap };
    is_alike &= other_tap_packets == 0 || (other_tap_packets == packets && !are_of_several);
    Overview { unread, latest, is_alike, tap, earliest, octets, is_sequenced }
}

/// What is known of the packets of a burst that stood behind tags or in tunnels.
#[derive(Clone, Copy, Debug, Default)]
struct Enclosed {
    /// Those of another tap than their port's.
    other_tap_packets: usize,
    /// The newest tap of these.
    other_tap: TapIndex,
    /// They are of several taps.
    are_of_several: bool,
    is_sequenced: bool,
}

impl Enclosed {
    /// Notes a packet that came by a port whose untagged frames belong there.
    #[inline]
    fn note(&mut self, brief: &Brief, untagged: Option<&FramePlace>) {
        self.is_sequenced |= brief.sequence().is_some();
        if untagged.is_none_or(|untagged| untagged.tap() != brief.tap) {
            self.are_of_several |= self.other_tap_packets != 0 && self.other_tap != brief.tap;
            self.other_tap = brief.tap;
            self.other_tap_packets += 1;
        }
    }
}

/// Reads the fields of a packet that is known in brief, if it is this worker's, and has fetched what is
/// looked at next. `false` where that may not be.
#[inline(always)]
#[expect(clippy::inline_always, reason = "most packets are read in one place")]
fn look_further<const FIELDS: bool>(parts: &WorkerParts, packet: &[u8], seen: &mut Seen) -> bool {
    if parts.workers > 1 && parts.passes_on(seen.brief.hash) {
        // Nothing is fetched for it here.
        seen.kind = Kind::BriefElsewhere;
        return true;
    }
    if FIELDS {
        if seen.fields.read(packet, &seen.brief).is_none() {
            seen.kind = Kind::BriefAlone;
            return false;
        }
        if let Some(copies) = &parts.copies {
            let invariant = Invariant::of_brief(&seen.brief, &seen.fields);
            seen.ahead.digest = copies.digest_of(&invariant);
            copies.fetch(&seen.ahead.digest);
        }
    }
    seen.kind = Kind::Brief;
    parts.flows.table().fetch_bucket(seen.brief.hash);
    true
}

/// Guesses the flows of packets that are this worker's, and has them fetched.
#[inline]
fn fetch_own(parts: &WorkerParts, seen: &mut [Seen], is_own: impl Fn(Kind) -> bool) {
    let table = parts.flows.table();
    for Seen { ahead, brief, kind, .. } in &mut *seen {
        ahead.guess = if is_own(*kind) { table.guess_and_fetch(brief.hash) } else { Guess::NONE };
    }
}

/// Has what flows point to fetched; with `MEASURES` also what is measured of them, and once more the digest,
/// for what is asked for too much at once may be dropped (`FlowTable::fetch_again`).
#[inline(always)]
#[expect(clippy::inline_always, reason = "a part of `Worker::fetch_tables`")]
fn fetch_behind<const MEASURES: bool>(parts: &WorkerParts, seen: &[Seen], window: WindowNumber) {
    for Seen { ahead, brief, .. } in seen {
        // Without a brief it is another packet's sender, and at worst something is fetched in vain.
        let next = (brief.sender, window);
        ahead.fetch_behind::<MEASURES>(&parts.flows, &parts.handoff, next);
        if MEASURES && let Some(copies) = &parts.copies {
            copies.fetch(&ahead.digest);
        }
    }
}

/// Reads in brief what stands behind a tag or in a tunnel.
#[inline(never)]
fn look_inside<const FIELDS: bool>(
    parts: &WorkerParts,
    (frame, clock): (&Frame<'_>, Timestamp),
    (seen, enclosed): (&mut Seen, &mut Enclosed),
    untagged: Option<&FramePlace>,
) -> bool {
    if parts.decoder.brief_of_enclosed(frame, clock, &mut seen.brief).is_none() {
        seen.kind = Kind::Unread;
        seen.brief.clock = clock;
        return false;
    }
    name_brief(&mut seen.brief, parts.seed);
    let packet = seen.brief.packet_in(frame);
    if !look_further::<FIELDS>(parts, packet, seen) {
        return false;
    }
    if matches!(seen.kind, Kind::Brief) && seen.brief.sequence().is_some() {
        seen.kind = Kind::BriefSequenced;
    }
    enclosed.note(&seen.brief, untagged);
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::capture::LinkType;
    use crate::config::{self, TapMatch, TapPlan};
    use crate::runtime::Build;

    const MS: u64 = 1_000_000;
    const UDP: u8 = 17;
    const ICMP: u8 = 1;

    /// Frames with what they are received by: port and time.
    struct Frames(Vec<(Vec<u8>, PortIndex, Timestamp)>);

    impl Burst for Frames {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn frame(&self, place: usize) -> Frame<'_> {
            let (bytes, port, timestamp) = &self.0[place];
            Frame {
                bytes,
                wire_octets: u32::try_from(bytes.len()).expect("short"),
                timestamp: *timestamp,
                link: LinkType::Ethernet,
                port: *port,
                stripped_vlan: None,
            }
        }
    }

    /// IPv4 without payload, padded as on a wire.
    fn frame(protocol: u8) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([
            8, 0, 0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        frame.extend([0x10, 0, 0x20, 0, 0, 8, 0, 0]);
        frame.resize(60, 0);
        frame
    }

    /// In ERSPAN type II of a session, with this number.
    fn erspan(session: u8, number: u8) -> Vec<u8> {
        let mut outer = vec![0; 12];
        outer.extend([8, 0, 0x45, 0, 0, 96, 0, 1, 0x40, 0, 64, 47, 0, 0]);
        outer.extend([172, 16, 0, 1, 172, 16, 0, 2, 0x10, 0, 0x88, 0xbe, 0, 0, 0, number]);
        outer.extend([0x10, 0, 0, session, 0, 0, 0, 0]);
        outer.extend(frame(UDP));
        outer
    }

    fn overview_of(frames: &[(u8, u16, u64)], workers: usize) -> Overview {
        let frames = frames
            .iter()
            .map(|(protocol, port, ms)| (frame(*protocol), PortIndex(*port), Timestamp(ms * MS)));
        overview_with(&[], frames.collect(), workers)
    }

    /// Of frames of the first port, where sessions 1 and 2 name taps.
    fn overview_of_mirrors(frames: &[Vec<u8>]) -> Overview {
        let frames = frames.iter().map(|frame| (frame.clone(), PortIndex(0), Timestamp(6 * MS)));
        overview_with(&[1, 2], frames.collect(), 1)
    }

    fn overview_with(
        sessions: &[u16],
        frames: Vec<(Vec<u8>, PortIndex, Timestamp)>,
        workers: usize,
    ) -> Overview {
        let ports = ["a".to_owned(), "b".to_owned()];
        let mut plan = config::replay_without_file();
        plan.flow.slots_per_worker = 1 << 10;
        plan.copies.slots = 1 << 10;
        plan.decode.fragment_slots = 1 << 10;
        plan.taps.extend(sessions.iter().map(|session| TapPlan {
            matches: TapMatch { erspan_session: Some(*session), ..TapMatch::default() },
            ..TapPlan::default()
        }));
        let mut build = Build::new(&Arc::new(plan), None, &ports, (1, workers), true);
        let parts = build.seats.remove(0).parts();
        let burst = Frames(frames);
        let mut seen = vec![Seen::default(); burst.len()];
        look_in_brief::<true>(&parts, &burst, &mut seen, Timestamp(5 * MS))
    }

    #[test]
    fn what_is_all_in_brief_and_of_one_port_is_alike() {
        let seen = overview_of(&[(UDP, 0, 7), (UDP, 0, 6), (UDP, 0, 9)], 1);
        assert!(seen.is_alike && seen.unread == 0);
        assert_eq!(
            (seen.earliest, seen.latest, seen.octets),
            (Timestamp(6 * MS), Timestamp(9 * MS), 180)
        );
        let second = overview_of(&[(UDP, 1, 7), (UDP, 1, 7)], 1);
        assert!(second.is_alike && second.tap == TapIndex(1), "of the second port");
    }

    #[test]
    fn what_is_not_is_mixed() {
        let no_brief = overview_of(&[(UDP, 0, 7), (ICMP, 0, 8)], 1);
        assert!(!no_brief.is_alike && no_brief.unread == 1);
        assert!(!overview_of(&[(UDP, 0, 7), (UDP, 1, 7)], 1).is_alike, "two ports");
        assert!(!overview_of(&[(UDP, 0, 7)], 2).is_alike, "packets may be another worker's");
        let nothing = overview_of(&[], 1);
        assert!(!nothing.is_alike);
        assert_eq!(nothing.latest, Timestamp(5 * MS), "the clock stays");
    }

    #[test]
    fn what_one_tap_claims_of_a_port_is_alike_and_what_several_do_is_mixed() {
        let [one, next, other] = [erspan(1, 7), erspan(1, 8), erspan(2, 9)];
        let nobodys = erspan(3, 9);
        let all = overview_of_mirrors(&[one.clone(), next.clone()]);
        assert!(all.is_alike && all.is_sequenced && all.tap == TapIndex(0));
        let ports = overview_of_mirrors(&[frame(UDP), nobodys.clone()]);
        assert!(ports.is_alike && ports.is_sequenced && ports.tap == TapIndex(2));
        assert!(!overview_of_mirrors(&[frame(UDP)]).is_sequenced);
        for mixed in [[one.clone(), other], [one.clone(), frame(UDP)], [one, nobodys]] {
            let seen = overview_of_mirrors(&mixed);
            assert!(!seen.is_alike && seen.unread == 0);
        }
    }
}
