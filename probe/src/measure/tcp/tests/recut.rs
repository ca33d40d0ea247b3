//! What another tap shows in other pieces, against what is sent again.

use super::*;

const A: TapIndex = TapIndex(0);
const B: TapIndex = TapIndex(1);

/// The first octet of [`Bench::open`].
const FIRST: u32 = 1000;

/// Octets of a unit: five hundred of them no frame of 1,500 octets holds.
const UNIT: u32 = 4;

/// Payload of the low endpoint at a tap; numbers are in units from the first octet on.
fn piece(tap: TapIndex, ms: u64, sequence: u32, payload: u32) -> Segment {
    Segment {
        at: Timestamp(ms * MS),
        sequence: FIRST.wrapping_add(sequence.wrapping_sub(FIRST).wrapping_mul(UNIT)),
        acknowledgement: 5000,
        payload_octets: payload * UNIT,
        flags: ACK,
        window: 1000,
        sender: Low,
        tap,
        options: Options::default(),
    }
}

fn stamped(segment: Segment, value: u32) -> Segment {
    let timestamps = Some(Timestamps { value, echo: 1 });
    Segment { options: Options { timestamps, ..Options::default() }, ..segment }
}

/// Whether it is a copy; if not, it counts.
fn is_copy(bench: &mut Bench, segment: &Segment) -> bool {
    let rare = bench.flow.keeps_rare().then_some(&bench.rare);
    let is_copy = bench.flow.was_shown_in_other_pieces(segment, rare, 100 * MS);
    if !is_copy {
        bench.take(segment);
    }
    is_copy
}

/// What is made of each segment in turn; `true`: a copy.
fn copies(segments: &[Segment]) -> Vec<bool> {
    let mut bench = Bench::open();
    segments.iter().map(|segment| is_copy(&mut bench, segment)).collect()
}

#[test]
fn merged_and_split_segments_are_copies() {
    let merged = [
        piece(A, 100, 1000, 500),
        piece(A, 100, 1500, 500),
        piece(B, 101, 1000, 1000),
        piece(A, 102, 2000, 900),
        piece(B, 103, 2000, 600),
        piece(B, 103, 2600, 300),
    ];
    assert_eq!(copies(&merged), [false, false, true, false, true, true]);
}

#[test]
fn the_tap_that_is_ahead_counts_though_it_is_the_farther_one() {
    let turned = [
        piece(B, 100, 1000, 1000),
        piece(A, 101, 1000, 500),
        piece(A, 101, 1500, 500),
        // The taps take turns.
        piece(A, 102, 2000, 500),
        piece(B, 103, 2000, 100),
    ];
    assert_eq!(copies(&turned), [false, true, true, false, true]);
}

#[test]
fn what_is_sent_again_is_no_copy() {
    // At the tap that is ahead.
    let repeated = [piece(A, 100, 1000, 1000), piece(B, 101, 1000, 1000), piece(A, 150, 1000, 400)];
    assert_eq!(copies(&repeated), [false, true, false]);
    // By its stamp, at another one: the first one's mirror lost it.
    let first = stamped(piece(A, 100, 1000, 1000), 7);
    let again = |value| [first, stamped(piece(B, 150, 1000, 400), value)];
    assert_eq!(copies(&again(8)), [false, false]);
    assert_eq!(copies(&again(7)), [false, true]);
    // By its time.
    let late = |ms| [piece(A, 100, 1000, 1000), piece(B, ms, 1000, 400)];
    assert_eq!(copies(&late(200)), [false, true]);
    assert_eq!(copies(&late(201)), [false, false]);
}

#[test]
fn what_one_tap_alone_shows_counts() {
    let filled = [
        piece(A, 100, 1000, 500),
        piece(A, 100, 2000, 500),
        // Not seen at A.
        piece(B, 101, 1500, 500),
        piece(B, 102, 1500, 400),
        piece(A, 103, 3000, 500),
    ];
    assert_eq!(copies(&filled), [false, false, false, true, false]);
}

/// Segments that are as long as frames let them be, and shorter ones.
#[test]
fn what_was_not_cut_counts_however_much_is_forgotten() {
    let segment = |tap, ms, place: u32, payload_octets| Segment {
        sequence: FIRST + place * 1_460,
        payload_octets,
        ..piece(tap, ms, 0, 0)
    };
    // The mirror of A loses each second one, more than there is room to note, and B shows them later;
    // then what the receiver has acknowledged already.
    let mut bench = Bench::open();
    for place in (0..40).step_by(2) {
        assert!(!is_copy(&mut bench, &segment(A, 100, place, 1_460)));
    }
    bench.send(High, 101, ACK, (5000, FIRST + 20 * 1_460, 0));
    for place in (1..38).step_by(2) {
        let octets = if place % 3 == 0 { 1_460 } else { 700 };
        assert!(!is_copy(&mut bench, &segment(B, 102, place, octets)), "{place}");
    }
    // A repetition that A's mirror lost, with the time of its sending, which is past.
    let mut bench = Bench::open();
    for place in 0..10 {
        let sent = stamped(segment(A, 100 + u64::from(place), place, 1_460), 100 + place);
        assert!(!is_copy(&mut bench, &sent));
    }
    assert!(!is_copy(&mut bench, &stamped(segment(B, 110, 2, 1_460), 105)));
    // Merged ones are copies all the same, and pieces of what no frame of 1,500 octets holds.
    assert!(is_copy(&mut bench, &stamped(segment(B, 111, 4, 2 * 1_460), 104)));
    assert!(!is_copy(&mut bench, &stamped(segment(A, 112, 10, 1_461), 112)));
    assert!(is_copy(&mut bench, &stamped(segment(B, 113, 10, 1_460), 112)));
}

#[test]
fn the_greater_part_decides() {
    let lost = |octets: u32| {
        let begin = 1000 + octets;
        [piece(A, 100, begin, 1), piece(A, 100, begin + 1, 999 - octets), piece(B, 101, 1000, 1000)]
    };
    let with_hole = |octets: u32| {
        let segments = lost(octets);
        [piece(A, 99, 999, 1), segments[0], segments[1], segments[2]]
    };
    assert!(copies(&with_hole(499))[3]);
    assert!(!copies(&with_hole(500))[3]);
    let ahead = |octets| [piece(A, 100, 1000, octets), piece(B, 101, 1000, 1000)];
    assert!(copies(&ahead(501))[1]);
    assert!(!copies(&ahead(500))[1]);
}

#[test]
fn numbers_go_round_and_nonsense_is_no_copy() {
    // Half of the first one lies behind the largest number.
    let begin = FIRST - FIRST / UNIT - 500;
    let mut bench = Bench::default();
    for (segment, expected) in [
        (piece(A, 100, begin, 1000), false),
        (piece(B, 101, begin, 500), true),
        (piece(B, 101, begin.wrapping_add(500), 500), true),
        (piece(B, 101, begin.wrapping_sub((1 << 30) / UNIT), 500), false),
        (Segment { flags: RST | ACK, ..piece(B, 101, begin, 500) }, false),
        (Segment { payload_octets: 0, ..piece(B, 101, begin, 500) }, false),
    ] {
        assert_eq!(is_copy(&mut bench, &segment), expected, "{segment:?}");
    }
}
