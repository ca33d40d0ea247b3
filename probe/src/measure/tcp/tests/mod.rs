//! Flows packet by packet, as docs/measures.md draws them.

mod recut;
mod streams;

use crate::decode::tcp_flag::{ACK, FIN, RST, SYN};
use crate::index::Sender::{High, Low};

use super::*;

const MS: u64 = 1_000_000;

/// A flow at one place, with what was measured of it. Low is the client.
#[derive(Default)]
struct Bench {
    flow: TcpFlow,
    rare: Rare,
    tally: Tally,
    terms: Terms,
    now: Timestamp,
    no_room: bool,
}

impl Bench {
    /// A connection between 1000 and 5000, 10 ms to the server and 20 ms to the client.
    fn open() -> Self {
        let mut bench = Self::default();
        let scale =
            Options { window_scale: Some(2), segment_octets_max: 1000, ..Options::default() };
        bench.with(Low, 0, SYN, (999, 0, 0), scale);
        bench.with(High, 10, SYN | ACK, (4999, 1000, 0), scale);
        bench.send(Low, 30, ACK, (1000, 5000, 0));
        bench
    }

    /// A segment at `ms`: sequence, acknowledgement, payload.
    fn send(&mut self, sender: Sender, ms: u64, flags: u16, numbers: (u32, u32, u32)) {
        self.with(sender, ms, flags, numbers, Options::default());
    }

    fn with(
        &mut self,
        sender: Sender,
        ms: u64,
        flags: u16,
        (sequence, acknowledgement, payload_octets): (u32, u32, u32),
        options: Options,
    ) {
        let at = Timestamp(ms * MS);
        let window = 1000;
        self.take(&Segment {
            at,
            sequence,
            acknowledgement,
            payload_octets,
            flags,
            window,
            sender,
            tap: TapIndex::default(),
            options,
        });
    }

    fn take(&mut self, segment: &Segment) {
        self.now = segment.at;
        let (rare, no_room) = (&mut self.rare, self.no_room);
        let lend = || (!no_room).then_some(rare);
        self.flow.segment(segment, lend, &self.terms, &mut self.tally);
    }

    fn window(&mut self, sender: Sender, ms: u64, numbers: (u32, u32), window: u16) {
        let (sequence, acknowledgement) = numbers;
        self.take(&Segment {
            at: Timestamp(ms * MS),
            sequence,
            acknowledgement,
            flags: ACK,
            window,
            sender,
            ..Segment::default()
        });
    }

    fn end(&mut self) -> Tally {
        self.flow.end(&mut self.rare, self.now, &mut self.tally);
        self.tally
    }

    fn lost(&self, cause: Cause) -> (u64, u64) {
        let lost = self.tally.lost(cause, Low);
        (lost.octets, lost.packets)
    }

    fn low(&self, events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| self.tally.events(*event, Low)).collect()
    }
}

fn no_loss(tally: &Tally) -> bool {
    let causes =
        [Cause::NetworkUpstream, Cause::NetworkDownstream, Cause::Mirror, Cause::Unresolved];
    [Low, High]
        .iter()
        .all(|sender| causes.iter().all(|cause| tally.lost(*cause, *sender).octets == 0))
}

#[test]
fn handshake_halves() {
    let mut bench = Bench::open();
    let tally = bench.end();
    assert_eq!(tally.delay(Method::HandshakeServer, High).sum_ns, 10 * MS);
    assert_eq!(tally.delay(Method::HandshakeClient, Low).sum_ns, 20 * MS);
    assert_eq!((bench.flow.opening(), bench.flow.initiator()), (Opening::Open, Some(Low)));
}

#[test]
fn repeated_handshakes_give_no_time() {
    let mut bench = Bench::default();
    bench.send(Low, 0, SYN, (999, 0, 0));
    bench.send(Low, 1000, SYN, (999, 0, 0));
    bench.send(High, 1010, SYN | ACK, (4999, 1000, 0));
    bench.send(High, 2010, SYN | ACK, (4999, 1000, 0));
    bench.send(Low, 2030, ACK, (1000, 5000, 0));
    let tally = bench.end();
    assert_eq!(tally.delay(Method::HandshakeServer, High).count, 0);
    assert_eq!(tally.delay(Method::HandshakeClient, Low).count, 0);
    assert_eq!(tally.events(Event::Retransmission, Low), 1);
    assert_eq!(tally.events(Event::Timeout, High), 1);
    assert!(no_loss(&tally));
}

#[test]
fn how_far_openings_come() {
    let mut bench = Bench::default();
    assert_eq!(bench.flow.opening(), Opening::Unseen);
    bench.send(Low, 0, SYN, (999, 0, 0));
    assert_eq!(bench.flow.opening(), Opening::Unanswered);
    let mut refused = Bench::default();
    refused.send(Low, 0, SYN, (999, 0, 0));
    refused.send(High, 1, RST | ACK, (0, 1000, 0));
    assert_eq!(refused.flow.opening(), Opening::Refused);
    assert_eq!(refused.tally.total(Event::Refused), 1);
    bench.send(High, 10, SYN | ACK, (4999, 1000, 0));
    assert_eq!(bench.flow.opening(), Opening::HalfOpen);
    bench.send(Low, 20, RST | ACK, (1000, 5000, 0));
    assert_eq!((bench.tally.total(Event::Reset), bench.tally.total(Event::Refused)), (1, 0));
}

#[test]
fn response_is_from_the_end_of_the_request() {
    let mut bench = Bench::open();
    bench.send(Low, 100, ACK, (1000, 5000, 1000));
    bench.send(Low, 103, ACK, (2000, 5000, 500));
    bench.send(High, 110, ACK, (5000, 2500, 0));
    bench.send(High, 150, ACK, (5000, 2500, 700));
    let delay = bench.tally.delay(Method::Response, High);
    assert_eq!((delay.count, delay.sum_ns), (1, 47 * MS));
    assert_eq!(bench.tally.delay(Method::SequenceAck, High).sum_ns, 10 * MS);
    // A response that does not acknowledge the whole request is no answer to it.
    bench.send(Low, 200, ACK, (2500, 5700, 500));
    bench.send(High, 201, ACK, (5700, 2500, 500));
    assert_eq!(bench.tally.delay(Method::Response, High).count, 1);
}

#[test]
fn timestamps_are_matched_by_value() {
    let times = |value, echo| Options {
        timestamps: Some(Timestamps { value, echo }),
        ..Options::default()
    };
    let mut bench = Bench::open();
    bench.with(Low, 100, ACK, (1000, 5000, 10), times(70, 1));
    bench.with(Low, 101, ACK, (1010, 5000, 10), times(70, 1));
    bench.with(High, 115, ACK, (5000, 1020, 0), times(900, 70));
    bench.with(High, 116, ACK, (5000, 1020, 5), times(901, 70));
    bench.with(Low, 126, ACK, (1020, 5005, 0), times(75, 901));
    assert_eq!(bench.tally.delay(Method::TcpTimestamp, High).sum_ns, 15 * MS);
    // 900 came without payload, and asks for nothing; 901 did.
    assert_eq!(bench.tally.delay(Method::TcpTimestamp, Low).sum_ns, 10 * MS);
}

#[test]
fn lost_before_the_tap_and_repeated() {
    let mut bench = Bench::open();
    bench.send(Low, 100, ACK, (1000, 5000, 1000));
    bench.send(Low, 101, ACK, (3000, 5000, 1000));
    for ms in [110, 111, 112, 113] {
        bench.send(High, ms, ACK, (5000, 2000, 0));
    }
    bench.send(Low, 140, ACK, (2000, 5000, 1000));
    bench.send(High, 150, ACK, (5000, 4000, 0));
    let events =
        [Event::Gap, Event::Retransmission, Event::Fast, Event::Episode, Event::OutOfOrder];
    assert_eq!(bench.low(&events), [1, 1, 1, 1, 0]);
    assert_eq!(bench.tally.events(Event::DuplicateAck, High), 3);
    assert_eq!(bench.lost(Cause::NetworkUpstream), (1000, 1));
    assert!(!bench.flow.keeps_rare(), "nothing is open any more");
}

#[test]
fn late_within_a_round_trip_is_out_of_order() {
    let mut bench = Bench::open();
    bench.send(Low, 100, ACK, (2000, 5000, 1000));
    bench.send(Low, 101, ACK, (1000, 5000, 1000));
    bench.send(High, 115, ACK, (5000, 3000, 0));
    assert_eq!(bench.low(&[Event::Gap, Event::OutOfOrder, Event::Retransmission]), [1, 1, 0]);
    assert!(no_loss(&bench.end()));
}

#[test]
fn what_was_asked_for_is_no_reordering() {
    // Without a handshake the round trip is not known, and may be much less than 3 ms.
    let mut bench = Bench::default();
    bench.send(High, 99, ACK, (5000, 1000, 0));
    bench.send(Low, 100, ACK, (1000, 5000, 1000));
    bench.send(Low, 101, ACK, (3000, 5000, 1000));
    bench.send(High, 101, ACK, (5000, 2000, 0));
    for _ in 0..3 {
        bench.send(High, 101, ACK, (5000, 2000, 0));
    }
    bench.send(Low, 102, ACK, (2000, 5000, 1000));
    assert_eq!(bench.low(&[Event::Fast, Event::OutOfOrder]), [1, 0]);
    assert_eq!(bench.lost(Cause::NetworkUpstream), (1000, 1));
}

#[test]
fn lost_behind_the_tap() {
    let mut bench = Bench::open();
    bench.send(Low, 100, ACK, (1000, 5000, 1000));
    bench.send(Low, 101, ACK, (2000, 5000, 1000));
    // Nothing comes back; the timer runs out, twice.
    bench.send(Low, 500, ACK, (1000, 5000, 1000));
    bench.send(Low, 1300, ACK, (1000, 5000, 1000));
    bench.send(High, 1312, ACK, (5000, 3000, 0));
    assert_eq!(bench.low(&[Event::Retransmission, Event::Timeout, Event::Episode]), [2, 2, 1]);
    assert_eq!(bench.lost(Cause::NetworkDownstream), (0, 0), "a D-SACK may come yet");
    bench.send(Low, 1400, ACK, (3000, 5000, 10));
    assert_eq!(bench.lost(Cause::NetworkDownstream), (2000, 2));
}

#[test]
fn a_dsack_takes_the_loss_back() {
    let mut bench = Bench::open();
    bench.send(Low, 100, ACK, (1000, 5000, 1000));
    bench.send(Low, 400, ACK, (1000, 5000, 1000));
    bench.send(High, 410, ACK, (5000, 2000, 0));
    let duplicate = Some(Range { begin: 1000, end: 2000 });
    bench.with(High, 411, ACK, (5000, 2000, 0), Options { duplicate, ..Options::default() });
    assert_eq!(bench.low(&[Event::Retransmission, Event::Spurious]), [1, 1]);
    assert!(no_loss(&bench.end()));
}

#[test]
fn an_acknowledgement_that_is_too_quick_was_for_the_first_one() {
    let mut bench = Bench::open();
    bench.send(Low, 100, ACK, (1000, 5000, 1000));
    bench.send(Low, 400, ACK, (1000, 5000, 1000));
    bench.send(High, 402, ACK, (5000, 2000, 0));
    assert_eq!(bench.low(&[Event::Retransmission, Event::Spurious]), [1, 1]);
    assert!(no_loss(&bench.end()));
}

#[test]
fn the_mirror_lost_what_the_receiver_has() {
    let mut bench = Bench::open();
    bench.send(Low, 100, ACK, (1000, 5000, 1000));
    bench.send(Low, 101, ACK, (3500, 5000, 1000));
    bench.send(High, 112, ACK, (5000, 4500, 0));
    bench.send(Low, 200, ACK, (4500, 5000, 100));
    assert_eq!(bench.lost(Cause::Mirror), (1500, 2));
    // The same at the end, with nothing behind it.
    bench.send(High, 300, ACK, (5000, 5600, 0));
    bench.end();
    assert_eq!(bench.lost(Cause::Mirror), (2500, 3));
    assert_eq!(bench.lost(Cause::NetworkUpstream), (0, 0));
}

#[test]
fn a_hole_without_evidence_is_unresolved() {
    let mut bench = Bench::open();
    bench.send(Low, 100, ACK, (2000, 5000, 1000));
    bench.flow.settle(&mut bench.rare, Timestamp(5099 * MS), &bench.terms, &mut bench.tally);
    assert!(no_loss(&bench.tally));
    bench.flow.settle(&mut bench.rare, Timestamp(5100 * MS), &bench.terms, &mut bench.tally);
    assert_eq!(bench.lost(Cause::Unresolved), (1000, 1));
    assert!(!bench.flow.keeps_rare());
}

#[test]
fn an_acknowledgement_may_overtake_its_data() {
    let mut bench = Bench::open();
    bench.send(High, 100, ACK, (5000, 2000, 0));
    bench.send(Low, 101, ACK, (1000, 5000, 1000));
    bench.send(Low, 200, ACK, (2000, 5000, 1000));
    assert_eq!(bench.low(&[Event::Gap, Event::OutOfOrder, Event::Retransmission]), [0, 0, 0]);
    assert!(no_loss(&bench.end()));
}

#[test]
fn closed_windows_and_probes() {
    let mut bench = Bench::open();
    bench.send(Low, 100, ACK, (1000, 5000, 1000));
    bench.window(High, 110, (5000, 2000), 0);
    bench.send(Low, 300, ACK, (1999, 5000, 0));
    bench.window(High, 310, (5000, 2000), 0);
    bench.send(Low, 500, ACK, (2000, 5000, 1));
    bench.window(High, 510, (5000, 2001), 10);
    bench.send(Low, 520, ACK, (2001, 5000, 40));
    let tally = bench.end();
    assert_eq!(tally.events(Event::ZeroWindow, High), 2);
    assert_eq!(tally.stalled_ns(High), 400 * MS);
    let events = [Event::WindowProbe, Event::KeepAlive, Event::Retransmission, Event::Gap];
    assert_eq!(bench.low(&events), [2, 0, 0, 0]);
    // 1000 octets against the SYN-ACK's 1000, and 40 against 10 shifted by 2.
    assert_eq!(bench.low(&[Event::WindowFull]), [2]);
}

#[test]
fn keep_alives_are_apart() {
    let mut bench = Bench::open();
    bench.send(Low, 100, ACK, (1000, 5000, 1000));
    bench.send(High, 110, ACK, (5000, 2000, 0));
    for ms in [10_000, 20_000] {
        bench.send(Low, ms, ACK, (1999, 5000, 1));
        bench.send(High, ms + 10, ACK, (5000, 2000, 0));
    }
    let tally = bench.end();
    assert_eq!(bench.low(&[Event::KeepAlive, Event::Retransmission]), [2, 0]);
    assert_eq!(tally.events(Event::DuplicateAck, High), 0, "nothing is on its way");
}

#[test]
fn the_last_segment_repeated_early_is_a_tail_probe() {
    let mut bench = Bench::open();
    bench.send(Low, 100, ACK, (1000, 5000, 1000));
    bench.send(Low, 170, ACK, (1000, 5000, 1000));
    assert_eq!(bench.low(&[Event::Retransmission, Event::Tail, Event::Timeout]), [1, 1, 0]);
}

#[test]
fn a_fin_is_repeated_like_data() {
    let mut bench = Bench::open();
    bench.send(Low, 100, FIN | ACK, (1000, 5000, 0));
    bench.send(Low, 400, FIN | ACK, (1000, 5000, 0));
    assert_eq!(bench.low(&[Event::Retransmission, Event::Timeout, Event::KeepAlive]), [1, 1, 0]);
}

#[test]
fn numbers_wrap() {
    let begin = u32::MAX - 1500;
    let mut bench = Bench::default();
    bench.send(Low, 0, SYN, (begin.wrapping_sub(1), 0, 0));
    bench.send(High, 10, SYN | ACK, (4999, begin, 0));
    bench.send(Low, 30, ACK, (begin, 5000, 0));
    bench.send(Low, 100, ACK, (begin, 5000, 1000));
    bench.send(Low, 101, ACK, (begin.wrapping_add(2000), 5000, 1000));
    bench.send(Low, 300, ACK, (begin.wrapping_add(1000), 5000, 1000));
    bench.send(High, 310, ACK, (5000, begin.wrapping_add(3000), 0));
    assert_eq!(bench.low(&[Event::Gap, Event::Retransmission]), [1, 1]);
    assert_eq!(bench.lost(Cause::NetworkUpstream).0, 1000);
    assert!(!bench.flow.keeps_rare());
}

#[test]
fn without_rare_state_no_loss_is_stated() {
    let mut bench = Bench { no_room: true, ..Bench::open() };
    bench.send(Low, 100, ACK, (2000, 5000, 1000));
    bench.send(Low, 101, ACK, (1000, 5000, 1000));
    bench.send(Low, 400, ACK, (1000, 5000, 1000));
    assert_eq!(bench.low(&[Event::Gap, Event::OutOfOrder, Event::Retransmission]), [1, 1, 1]);
    assert!(no_loss(&bench.end()) && !bench.flow.keeps_rare());
}

#[test]
fn one_direction_alone() {
    let mut bench = Bench { no_room: true, ..Bench::default() };
    for number in 0..10 {
        bench.send(High, 100 + u64::from(number), ACK, (5000, 1000 + 500 * number, 0));
    }
    bench.send(High, 120, ACK, (5000, 5500, 0));
    assert_eq!(bench.tally.events(Event::DuplicateAck, High), 1, "on its way for all we know");
    assert!(no_loss(&bench.end()));
    let mut bench = Bench::default();
    for number in [0, 1, 2, 4, 5] {
        bench.send(Low, 100 + u64::from(number), ACK, (1000 + 500 * number, 5000, 500));
    }
    bench.send(Low, 900, ACK, (2500, 5000, 500));
    bench.send(Low, 1900, ACK, (3000, 5000, 500));
    assert_eq!(bench.low(&[Event::Retransmission, Event::Timeout, Event::Gap]), [2, 2, 1]);
    bench.end();
    assert_eq!(bench.lost(Cause::NetworkUpstream), (500, 1));
    assert_eq!(bench.lost(Cause::NetworkDownstream), (500, 1));
}

#[test]
fn what_is_plain_costs_nothing_rare() {
    let mut bench = Bench { no_room: true, ..Bench::open() };
    let mut plain = 0;
    for number in 0..100 {
        let data = Segment {
            at: Timestamp(u64::from(1000 + number) * MS),
            sequence: 1000 + 100 * number,
            acknowledgement: 5000,
            payload_octets: 100,
            flags: ACK,
            window: 1000,
            sender: Low,
            tap: TapIndex::default(),
            options: Options::default(),
        };
        plain += u32::from(bench.flow.plain(&data, &mut bench.tally));
        let answer = Segment {
            sequence: 5000,
            acknowledgement: 1100 + 100 * number,
            payload_octets: 0,
            sender: High,
            ..data
        };
        plain += u32::from(bench.flow.plain(&answer, &mut bench.tally));
    }
    assert_eq!(plain, 200);
}
