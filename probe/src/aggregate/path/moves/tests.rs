use super::*;
use crate::hash::KeyedMap;

const A: TapIndex = TapIndex(0);
const B: TapIndex = TapIndex(1);
const C: TapIndex = TapIndex(2);
const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// Millisecond, MAC and address of the sender, address of the receiver, tap.
type Packet = (u64, (u8, u8), u8, TapIndex);

fn address(last: u8) -> Address {
    Address::v4([10, 0, 0, last])
}

/// Windows of a second, in order.
fn moves_of(packets: &[Packet]) -> Vec<Move> {
    moves_in(&mut Moves::default(), packets)
}

fn moves_in(moves: &mut Moves, packets: &[Packet]) -> Vec<Move> {
    let mut windows: BTreeMap<u64, Vec<&Packet>> = BTreeMap::new();
    for packet in packets {
        windows.entry(packet.0 / 1_000).or_default().push(packet);
    }
    let mut found = Vec::new();
    for (number, packets) in windows {
        let (mut sent, mut shown): (Vec<Sent>, Vec<Shown>) = (Vec::new(), Vec::new());
        let mut names: KeyedMap<(u8, u8, u8, TapIndex), u32> = KeyedMap::default();
        for (at_ms, (mac, source), peer, tap) in packets {
            let at = Timestamp(at_ms * MS);
            let name = *names.entry((*mac, *source, *peer, *tap)).or_insert_with(|| {
                sent.push(Sent {
                    station: Station { mac: Mac([*mac; 6]), ..Station::default() },
                    segment: Segment::default(),
                    source: (4, address(*source)),
                    peer: address(*peer),
                    tap: *tap,
                    order: Certainty::Certain,
                    set: TapSet::of_taps(&[*tap]),
                    packets: 0,
                    first: at,
                    last: at,
                    name: (u32::try_from(sent.len()).expect("few"), 7),
                });
                u32::try_from(sent.len() - 1).expect("few")
            });
            let one = &mut sent[name as usize];
            one.packets += 1;
            (one.first, one.last) = (one.first.min(at), one.last.max(at));
            shown.push(Shown { at, ends: name, span: 7 });
        }
        // They come in any order.
        shown.reverse();
        found.extend(moves.window(Timestamp(number * SECOND), &mut sent, &shown));
    }
    found
}

/// One every so many milliseconds.
fn train(
    from_ms: u64,
    to_ms: u64,
    every_ms: u64,
    sender: (u8, u8),
    peer: u8,
    tap: TapIndex,
) -> Vec<Packet> {
    (from_ms..to_ms)
        .step_by(usize::try_from(every_ms).expect("small"))
        .map(|at| (at, sender, peer, tap))
        .collect()
}

const VM: (u8, u8) = (1, 1);

fn silences(moves: &[Move]) -> Vec<(u64, u64, TapIndex, TapIndex)> {
    moves.iter().map(|it| (it.last.0 / MS, it.first.0 / MS, it.from, it.to)).collect()
}

#[test]
fn who_sends_at_another_tap_to_the_same_peer_has_moved() {
    let stays = train(0, 2_331, 10, VM, 9, A);
    for (to_ms, first_ms) in [(5_000, 2_517), (4_000, 3_000), (6_000, 5_001)] {
        let goes = train(first_ms, to_ms + 3_000, 10, VM, 9, B);
        let moves = moves_of(&[stays.clone(), goes].concat());
        assert_eq!(silences(&moves), [(2_330, first_ms, A, B)]);
        let it = moves[0];
        assert_eq!((it.mac, it.address, it.peers), (Mac([1; 6]), address(1), 1));
        assert_eq!(it.blackout_ns(), (first_ms - 2_330) * MS);
    }
}

#[test]
fn who_goes_back_has_moved_twice() {
    let packets = [
        train(0, 3_000, 50, VM, 9, A),
        train(3_200, 6_000, 50, VM, 9, B),
        train(6_300, 9_000, 50, VM, 9, A),
    ];
    let moves = moves_of(&packets.concat());
    assert_eq!(silences(&moves), [(2_950, 3_200, A, B), (5_950, 6_300, B, A)]);
    let soon = [
        train(0, 3_000, 50, VM, 9, A),
        train(3_200, 4_000, 50, VM, 9, B),
        train(4_300, 6_000, 50, VM, 9, A),
    ];
    let moves = moves_of(&soon.concat());
    assert_eq!(silences(&moves), [(2_950, 3_200, A, B), (3_950, 4_300, B, A)]);
}

#[test]
fn a_router_a_new_peer_and_a_few_packets_are_no_move() {
    // What comes through a router is seen where its receivers are, one after the other.
    let router = |second: u64, peer, tap| {
        train(second * 1_000, second * 1_000 + 300, 20, (7, 70 + peer), peer, tap)
    };
    let there = [router(0, 1, A), router(1, 2, B), router(2, 1, A), router(4, 2, B)].concat();
    assert!(moves_of(&there).is_empty());
    // Another peer at the other tap: a user who asks another server.
    let asks = [train(0, 2_000, 50, VM, 9, A), train(3_000, 9_000, 50, VM, 8, B)].concat();
    assert!(moves_of(&asks).is_empty());
    // Fewer than can be lost in a row.
    let few = [train(0, 2_000, 50, VM, 9, A), train(3_000, 3_003, 1, VM, 9, B)].concat();
    assert!(moves_of(&few).is_empty());
    let short = [train(0, 3, 1, VM, 9, A), train(3_000, 9_000, 50, VM, 9, B)].concat();
    assert!(moves_of(&short).is_empty());
    // A mirror that loses one packet in ten: the other tap alone shows it.
    let lossy: Vec<_> = train(0, 9_000, 10, VM, 9, A)
        .into_iter()
        .enumerate()
        .map(|(place, it)| if place % 10 == 5 { (it.0, it.1, it.2, B) } else { it })
        .collect();
    assert!(moves_of(&lossy).is_empty());
}

#[test]
fn what_the_mirrors_lose_does_not_hide_a_move() {
    let mut packets = train(0, 4_500, 10, VM, 9, A);
    packets.extend(train(4_700, 9_000, 10, VM, 9, B));
    for (place, packet) in packets.iter_mut().enumerate() {
        if place % 19 == 7 {
            packet.3 = if packet.3 == A { B } else { A };
        }
    }
    assert_eq!(silences(&moves_of(&packets)), [(4_490, 4_700, A, B)]);
}

#[test]
fn a_move_of_one_is_no_move_of_those_who_talk_to_it() {
    // Users behind a router that nothing else is seen of, and a VM with two peers that moves.
    let mut packets = Vec::new();
    for (from, to, tap) in [(0, 3_000, A), (3_200, 6_000, B)] {
        for user in [50, 51] {
            packets.extend(train(from, to, 20, (5, user), 1, tap));
            packets.extend(train(from + 1, to, 20, VM, user, tap));
        }
    }
    packets.sort_unstable();
    let moves = moves_of(&packets);
    assert_eq!(moves.iter().map(|it| it.mac).collect::<Vec<_>>(), [Mac([1; 6])]);
    assert_eq!(moves[0].peers, 2);
}

#[test]
fn tables_are_bounded_and_those_that_are_there_go_on() {
    let mut moves = Moves::default();
    moves_in(&mut moves, &train(0, 3_000, 50, VM, 9, A));
    for number in 0..u32::try_from(STATIONS_MAX).expect("small") + 10 {
        let [_, a, b, c] = number.to_be_bytes();
        let station = Station { mac: Mac([9, 9, 9, a, b, c]), ..Station::default() };
        let at = Timestamp(3 * SECOND);
        let sent = Sent {
            station,
            segment: Segment::default(),
            source: (4, address(1)),
            peer: address(2),
            tap: A,
            order: Certainty::Certain,
            set: TapSet::of_taps(&[A]),
            packets: 1,
            first: at,
            last: at,
            name: (0, 0),
        };
        moves.window(at, &mut [sent], &[]);
    }
    assert_eq!(moves.stands.len(), STATIONS_MAX);
    assert!(moves.pairs.len() <= PAIRS_MAX);
    let found = moves_in(&mut moves, &train(4_000, 6_000, 50, VM, 9, B));
    assert_eq!(silences(&found), [(2_950, 4_000, A, B)]);
    moves.window(Timestamp(200 * SECOND), &mut [], &[]);
    assert!(moves.stands.is_empty() && moves.pairs.is_empty() && moves.recent.is_empty());
}

/// A second's packets to one peer: the tap they are taken to have passed first, how that is known, all
/// that showed them, and how many milliseconds of the second they are sent in.
type Stretch<'a> = (TapIndex, Certainty, &'a [TapIndex], (u64, u64));

fn stretch(second: u64, (tap, order, taps, (from_ms, to_ms)): Stretch) -> Sent {
    let at = second * SECOND;
    Sent {
        station: Station { mac: Mac([1; 6]), ..Station::default() },
        segment: Segment::default(),
        source: (4, address(1)),
        peer: address(9),
        tap,
        order,
        set: TapSet::of_taps(taps),
        packets: 100,
        first: Timestamp(at + from_ms * MS),
        last: Timestamp(at + to_ms * MS),
        name: (0, 0),
    }
}

/// What each second shows; the seconds that show a move, with last and first packet.
fn moved_in(seconds: &[&[Stretch]]) -> Vec<(usize, (u64, u64, TapIndex, TapIndex))> {
    moved_of(Moves::new(true), seconds)
}

fn moved_of(
    mut moves: Moves,
    seconds: &[&[Stretch]],
) -> Vec<(usize, (u64, u64, TapIndex, TapIndex))> {
    let mut found = Vec::new();
    for (number, stretches) in seconds.iter().enumerate() {
        let second = number as u64;
        let mut sent: Vec<_> = stretches.iter().map(|it| stretch(second, *it)).collect();
        let moved = silences(&moves.window(Timestamp(second * SECOND), &mut sent, &[]));
        found.extend(moved.into_iter().map(|it| (number, it)));
    }
    found
}

const ALL: (u64, u64) = (0, 900);

/// Live, times may say that packets pass two taps in another order than a moment ago.
#[test]
fn an_order_of_taps_that_turns_is_no_move() {
    use Certainty::{Believed, Certain};
    let here: &[Stretch] = &[(A, Certain, &[A], ALL)];
    let away: &[Stretch] = &[(B, Certain, &[A, B], ALL)];
    let turned: &[Stretch] = &[(A, Certain, &[A, B], ALL)];
    let believed: &[Stretch] = &[(A, Believed, &[A, B], ALL)];
    let found = moved_in(&[here, here, away, turned, believed, away, turned, here]);
    assert_eq!(found, [(2, (1_900, 2_000, A, B)), (7, (6_900, 7_000, B, A))]);
}

/// A switch floods what nobody answers: other taps show it, in an order that clocks alone give.
#[test]
fn clocks_alone_show_no_move() {
    use Certainty::{Believed, Certain};
    let here: &[Stretch] = &[(A, Certain, &[A], ALL)];
    let flooded: &[Stretch] = &[(B, Believed, &[A, B], (100, 500))];
    let answered: &[Stretch] = &[(A, Certain, &[A, B], ALL)];
    let away: &[Stretch] = &[(B, Certain, &[A, B], ALL)];
    let gone: &[Stretch] = &[(B, Certain, &[B], ALL)];
    assert_eq!(moved_in(&[here, here, flooded, flooded, answered, answered]), []);
    assert_eq!(moved_in(&[here, here, flooded, here, here]), []);
    // It was in doubt since it moved.
    assert_eq!(moved_in(&[here, here, flooded, flooded, away]), [(4, (1_900, 2_100, A, B))]);
    // It moved when the doubt was over.
    assert_eq!(moved_in(&[here, here, flooded, flooded, gone]), [(4, (3_500, 4_000, A, B))]);
    assert_eq!(moved_in(&[here, here, flooded, here, away]), [(4, (3_900, 4_000, A, B))]);
    // What is certain to one peer counts, whatever is in doubt to it by another protocol.
    let both: &[Stretch] = &[(B, Believed, &[A, B], ALL), (B, Certain, &[B], ALL)];
    assert_eq!(moved_in(&[here, here, both, both]), [(2, (1_900, 2_000, A, B))]);
    // In an order that was taken to be so at first and turns out to be another.
    assert_eq!(moved_in(&[flooded, flooded, answered, answered, gone]).len(), 1);
    // It was only believed where it stood, and then is alone elsewhere.
    let before: &[Stretch] = &[(A, Believed, &[A, C], ALL)];
    assert_eq!(moved_in(&[before, before, gone, gone]), [(2, (1_900, 2_000, A, B))]);
    let within: &[Stretch] = &[
        (A, Believed, &[A, C], (0, 300)),
        (B, Certain, &[B], (500, 900)),
        (B, Certain, &[B], ALL),
    ];
    let found = moved_in(&[before, before, within, gone, gone]);
    assert!(found.iter().all(|(_, (_, _, from, to))| (*from, *to) == (A, B)), "{found:?}");
}

/// Where not all packets are followed, what stays in doubt may have been sent from either place.
#[test]
fn of_some_packets_what_stays_in_doubt_ends_no_silence() {
    use Certainty::{Believed, Certain};
    let here: &[Stretch] = &[(A, Certain, &[A], ALL)];
    let flooded: &[Stretch] = &[(B, Believed, &[A, B], (100, 500))];
    let away: &[Stretch] = &[(B, Certain, &[A, B], ALL)];
    let gone: &[Stretch] = &[(B, Certain, &[B], ALL)];
    let of_some = |seconds: &[&[Stretch]]| moved_of(Moves::new(false), seconds);
    assert_eq!(of_some(&[here, here, flooded, flooded, gone]), [(4, (1_900, 4_000, A, B))]);
    assert_eq!(of_some(&[here, here, flooded, flooded, away]), [(4, (1_900, 4_000, A, B))]);
    assert_eq!(of_some(&[here, here, flooded, here, away]), [(4, (3_900, 4_000, A, B))]);
}

/// Against all cuts tried one by one.
#[test]
fn packets_are_cut_where_fewest_are_wrong() {
    let mut state = 1_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    for _ in 0..2_000 {
        let count = 2 + next(12);
        let packets: Vec<_> = (0..count).map(|at| (Timestamp(at * 3), next(2) == 1)).collect();
        let wrong = |cut: usize| {
            let (before, after) = packets.split_at(cut);
            before.iter().filter(|(_, is_new)| *is_new).count()
                + after.iter().filter(|(_, is_new)| !is_new).count()
        };
        let least = (1..packets.len()).map(wrong).min().expect("there are cuts");
        match Split::of(&packets) {
            Some(split) => {
                let cut = packets.iter().position(|(at, _)| *at == split.first).expect("there");
                assert_eq!(packets[cut - 1].0, split.last);
                assert_eq!((wrong(cut), split.wrong), (least, least as u64), "{packets:?}");
            }
            // Best is not to cut at all: nothing moved.
            None => assert!(wrong(packets.len()) <= least, "{packets:?}"),
        }
    }
}
