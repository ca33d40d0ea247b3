//! Whole streams, changed in ways that lose nothing; and noise.

use proptest::prelude::*;

use super::super::flow::pair;
use super::*;

const RTT_MS: u64 = 10;

/// One direction of data and its acknowledgements, as a list of segments in order.
fn stream(cuts: &[u32], acks_each: usize) -> Vec<Segment> {
    let mut list = Vec::new();
    let mut sequence = 1000_u32.wrapping_sub(3000);
    let mut at = 1000 * MS;
    for (number, octets) in cuts.iter().enumerate() {
        at += MS / 10;
        let data = Segment {
            at: Timestamp(at),
            sequence,
            acknowledgement: 5000,
            payload_octets: *octets,
            flags: ACK,
            window: 60_000,
            sender: Low,
            tap: TapIndex::default(),
            options: Options::default(),
        };
        list.push(data);
        sequence = sequence.wrapping_add(*octets);
        if number % acks_each == acks_each - 1 {
            let ack = Segment {
                at: Timestamp(at + RTT_MS * MS),
                sequence: 5000,
                acknowledgement: sequence,
                payload_octets: 0,
                sender: High,
                ..data
            };
            list.push(ack);
        }
    }
    list.sort_by_key(|segment| segment.at);
    list
}

fn opened() -> Bench {
    let mut bench = Bench::default();
    let begin = 1000_u32.wrapping_sub(3000);
    bench.send(Low, 0, SYN, (begin.wrapping_sub(1), 0, 0));
    bench.send(High, RTT_MS, SYN | ACK, (4999, begin, 0));
    bench.send(Low, 2 * RTT_MS, ACK, (begin, 5000, 0));
    bench
}

/// Octets seen for the first time, and the tally.
fn measured(segments: &[Segment]) -> (u32, Tally) {
    let mut bench = opened();
    for segment in segments {
        bench.take(segment);
    }
    let begin = 1000_u32.wrapping_sub(3000);
    (bench.flow.halves[0].next.wrapping_sub(begin), bench.end())
}

/// Neighbouring data segments in one, as GRO hands them over.
fn merged(segments: &[Segment], choose: &[bool]) -> Vec<Segment> {
    let mut list: Vec<Segment> = Vec::new();
    for (segment, joins) in segments.iter().zip(choose.iter().cycle()) {
        match list.last_mut() {
            Some(last)
                if *joins
                    && last.sender == segment.sender
                    && segment.payload_octets != 0
                    && last.payload_octets + segment.payload_octets < 65_000 =>
            {
                last.payload_octets += segment.payload_octets;
            }
            _ => list.push(*segment),
        }
    }
    list
}

/// Data segments that change places with one of the few before them, within a round trip; the
/// stamps stay in order.
fn reordered(segments: &[Segment], moves: &[u8]) -> Vec<Segment> {
    let mut list = segments.to_vec();
    for (place, steps) in moves.iter().enumerate() {
        let to = place.saturating_sub(usize::from(steps % 4));
        let data = |at: usize| list.get(at).is_some_and(|segment| segment.sender == Low);
        if (to..=place).all(data) && place < list.len() {
            let (early, late) = (list[to].at, list[place].at);
            list.swap(to, place);
            (list[to].at, list[place].at) = (early, late);
        }
    }
    list
}

fn cuts() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1_u32..1460, 2..80)
}

/// Anything that a header can say, around few numbers.
fn noise() -> impl Strategy<Value = Segment> {
    let number = prop_oneof![
        (0_u32..12).prop_map(|n| n * 500),
        (0_u32..9).prop_map(|n| (u32::MAX - 3000).wrapping_add(n * 500)),
        any::<u32>()
    ];
    let range = (number.clone(), 0_u32..2000)
        .prop_map(|(begin, octets)| Range { begin, end: begin.wrapping_add(octets) });
    let options = (
        prop::option::of((0_u32..99, 0_u32..99)),
        prop::option::of(range.clone()),
        prop::option::of(range),
        prop::option::of(0_u8..=14),
    );
    let rest = (any::<u16>(), any::<bool>(), options, 0_u64..3_000_000_000);
    let payload = prop_oneof![Just(0_u32), Just(1), Just(500), 0_u32..3000, Just(u32::MAX)];
    let flags = prop_oneof![4 => Just(ACK), 1 => Just(SYN), 1 => Just(FIN | ACK), 1 => 0_u16..512];
    (number.clone(), number, payload, flags, rest).prop_map(
        |(sequence, acknowledgement, payload_octets, flags, (window, high, options, at))| {
            let (times, sacked, duplicate, window_scale) = options;
            Segment {
                at: Timestamp(at),
                sequence,
                acknowledgement,
                payload_octets,
                flags,
                window: window & 3,
                sender: if high { High } else { Low },
                tap: TapIndex(window & 1),
                options: Options {
                    timestamps: times.map(|(value, echo)| Timestamps { value, echo }),
                    sacked,
                    duplicate,
                    window_scale,
                    segment_octets_max: window,
                },
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merging_changes_no_count(cuts in cuts(), choose in prop::collection::vec(any::<bool>(), 7)) {
        let plain = stream(&cuts, 3);
        let (octets, tally) = measured(&plain);
        prop_assert_eq!(octets, cuts.iter().sum::<u32>());
        prop_assert!(no_loss(&tally));
        let (joined, joined_tally) = measured(&merged(&plain, &choose));
        prop_assert_eq!(joined, octets);
        prop_assert!(no_loss(&joined_tally));
        for tally in [tally, joined_tally] {
            prop_assert_eq!(tally.total(Event::Retransmission), 0);
            prop_assert_eq!(tally.total(Event::OutOfOrder), 0);
            prop_assert_eq!(tally.total(Event::Gap), 0);
        }
    }

    #[test]
    fn duplicates_are_no_loss(cuts in cuts(), twice in prop::collection::vec(any::<bool>(), 5)) {
        let plain = stream(&cuts, 2);
        let copies = |(segment, twice): (&Segment, &bool)| {
            std::iter::repeat_n(*segment, 1 + usize::from(*twice))
        };
        let doubled: Vec<_> = plain.iter().zip(twice.iter().cycle()).flat_map(copies).collect();
        let (octets, tally) = measured(&doubled);
        prop_assert_eq!(octets, measured(&plain).0);
        prop_assert!(no_loss(&tally));
        // Without the copies stage before it, each copy of data is a repeat.
        let repeats = doubled.len() - plain.len();
        prop_assert!(tally.total(Event::Retransmission) <= repeats as u64);
        prop_assert_eq!(tally.total(Event::OutOfOrder), 0);
    }

    #[test]
    fn reordering_is_no_loss(cuts in cuts(), moves in prop::collection::vec(any::<u8>(), 80)) {
        let (octets, tally) = measured(&reordered(&stream(&cuts, 5), &moves));
        prop_assert_eq!(octets, cuts.iter().sum::<u32>());
        prop_assert!(no_loss(&tally));
        prop_assert_eq!(tally.total(Event::Retransmission), 0);
    }

    #[test]
    fn each_octet_lost_before_the_tap_is_counted_once(
        cuts in cuts(),
        keep in prop::collection::vec(any::<bool>(), 80),
    ) {
        // Of the data, some is not seen, and comes after 300 ms, at most five holes of it.
        let plain = stream(&cuts, usize::MAX);
        let last = plain.len() - 1;
        let is_lost = |place: usize| place != last && place % 7 == 3 && place < 35 && keep[place];
        let mut list = Vec::new();
        let mut lost = Vec::new();
        for (place, segment) in plain.iter().enumerate() {
            if is_lost(place) { lost.push(*segment) } else { list.push(*segment) }
        }
        let octets: u32 = lost.iter().map(|segment| segment.payload_octets).sum();
        for (number, segment) in (0_u64..).zip(&lost) {
            let at = Timestamp((1300 + number) * MS);
            list.push(Segment { at, ..*segment });
        }
        let (_, tally) = measured(&list);
        prop_assert_eq!(tally.lost(Cause::NetworkUpstream, Low).octets, u64::from(octets));
        prop_assert_eq!(tally.events(Event::Retransmission, Low), lost.len() as u64);
        // Had the receiver said that it has them, they were the mirror's loss.
        let end = plain[last].sequence.wrapping_add(plain[last].payload_octets);
        list.truncate(plain.len() - lost.len());
        let at = Timestamp(1200 * MS);
        list.push(Segment { at, sequence: 5000, acknowledgement: end, payload_octets: 0, sender: High, ..plain[0] });
        let (_, tally) = measured(&list);
        prop_assert_eq!(tally.lost(Cause::Mirror, Low).octets, u64::from(octets));
        prop_assert_eq!(tally.lost(Cause::NetworkUpstream, Low).octets, 0);
    }

    /// Segments as the flow expects them, mostly, go both ways: the orderly one, and that of any.
    #[test]
    fn what_is_orderly_changes_what_anything_would(
        segments in prop::collection::vec((noise(), 0_u8..8, any::<bool>()), 1..60),
    ) {
        let (mut flow, mut tally) = (TcpFlow::default(), Tally::default());
        let mut rare = Rare::default();
        let terms = Terms::default();
        for (segment, expected, carries) in segments {
            let (mine, theirs) = pair(&mut flow.halves, segment.sender);
            let segment = match expected {
                0 => segment,
                1 => Segment { flags: SYN, options: Options::default(), ..segment },
                2 => Segment {
                    flags: SYN | ACK,
                    acknowledgement: theirs.next,
                    options: Options::default(),
                    ..segment
                },
                _ => Segment {
                    sequence: mine.next,
                    acknowledgement: theirs.next,
                    flags: if expected < 5 { FIN | ACK } else { ACK },
                    payload_octets: if carries { segment.payload_octets } else { 0 },
                    options: Options { sacked: None, duplicate: None, ..segment.options },
                    ..segment
                },
            };
            let (mut orderly, mut given) = (flow, tally);
            let takes = !flow.is_plain(&segment) && orderly.orderly(&segment, &mut given);
            prop_assert!(!takes || !flow.asks_rare(&segment));
            if !flow.plain(&segment, &mut tally) {
                let lent = flow.asks_rare(&segment).then_some(&mut rare);
                flow.not_plain(&segment, lent, &terms, &mut tally);
            }
            if takes {
                prop_assert_eq!(format!("{orderly:?}"), format!("{flow:?}"));
                prop_assert_eq!(given, tally);
            }
        }
    }

    #[test]
    fn noise_neither_panics_nor_stays(segments in prop::collection::vec(noise(), 1..120)) {
        let mut bench = Bench::default();
        for segment in &segments {
            bench.take(segment);
        }
        let tally = bench.end();
        prop_assert!(!bench.flow.keeps_rare());
        prop_assert!(tally.total(Event::Fast) <= tally.total(Event::Retransmission));
        prop_assert!(tally.total(Event::Episode) <= tally.total(Event::Retransmission));
        prop_assert!(tally.total(Event::Refused) <= tally.total(Event::Reset));
    }
}
