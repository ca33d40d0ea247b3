//! Bursts that are tallied as a whole.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::capture::LinkType;
use crate::config;
use crate::runtime::Build;
use crate::window::{Booking, WindowClock};

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

fn overview_of(frames: &[(u8, u16, u64)], workers: usize) -> Overview {
    let ports = ["a".to_owned(), "b".to_owned()];
    let plan = Arc::new(config::replay_without_file());
    let mut build = Build::new(&plan, None, &ports, (1, workers), true);
    let parts = build.seats.remove(0).parts();
    let frames = frames
        .iter()
        .map(|(protocol, port, ms)| (frame(*protocol), PortIndex(*port), Timestamp(ms * MS)));
    let burst = Frames(frames.collect());
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
    assert!(overview_of(&[(UDP, 1, 7), (UDP, 1, 7)], 1).is_alike, "of the second port");
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

proptest! {
    #[test]
    fn a_burst_that_is_tallied_as_a_whole_holds_packets_that_are_tallied_one_by_one(
        before_ms in 0_u64..3_000,
        clock_ms in 0_u64..3_000,
        stamps_ms in prop::collection::vec(900_u64..2_400, 1..8),
    ) {
        let mut booking = Booking::new(WindowClock::new(1_000, 200));
        let (at, clock) = (Timestamp(before_ms * MS), Timestamp(before_ms.max(clock_ms) * MS));
        let (_, late) = booking.book(at, clock);
        let booked = if late { Booked::default() } else { booking.booked() };
        let tally = Tally { tap: TapIndex(1), booked, ..Tally::default() };
        let mut latest = clock;
        let mut briefs = Vec::new();
        for ms in &stamps_ms {
            let timestamp = Timestamp(ms * MS);
            latest = latest.max(timestamp);
            briefs.push(Brief { tap: TapIndex(1), timestamp, clock: latest, ..Brief::default() });
        }
        let earliest = briefs.iter().map(|brief| brief.timestamp).min().expect("at least one");
        let is_alike = true;
        let seen = Overview { is_alike, tap: TapIndex(1), earliest, latest, ..Overview::default() };
        let are_held = briefs.iter().all(|brief| tally.holds(brief));
        prop_assert!(!tally.holds_all(&seen) || are_held);
        // Where the clock has not left the window, it is the same question.
        if tally.booked.holds(latest, latest) {
            prop_assert_eq!(tally.holds_all(&seen), are_held);
        }
        let (other, mixed) =
            (Overview { tap: TapIndex(2), ..seen }, Overview { is_alike: false, ..seen });
        prop_assert!(!tally.holds_all(&other) && !tally.holds_all(&mixed));
    }
}
