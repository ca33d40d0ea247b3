//! A conversation in as few bytes as nearly all need.
//!
//! In: rows, and the numbers of what they name. Out: [`Packed`], and what it stands for.
//! Cost: 52 bytes. What does not fit, because a count is large or something is there that few
//! conversations have, is kept apart as it is (`Conversations::wide`).
//! Invariants: sums are those of [`Conversation::add`], however they are kept.

use super::conversation::{Counts, counts_of, has_acknowledged};
use super::{Conversation, ExtraPlace, Observers};
use crate::app::Application;
use crate::index::TapIndex;
use crate::window::Row;

/// Which conversation it is: numbers of what all conversations of a window name, and its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Endpoint.
    pub(super) source: u32,
    /// Endpoint.
    pub(super) destination: u32,
    /// Path.
    pub(super) path: u32,
    /// Port of the responder.
    pub(super) destination_port: u16,
    /// IANA protocol number.
    pub(super) protocol: u8,
    /// Application.
    pub(super) application: Application,
}

/// One conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed {
    pub(super) name: Name,
    packets: [u32; 2],
    octets: [u32; 2],
    /// What was measured in it; of a wide one, whose sums say that, its place.
    pub(super) extra: ExtraPlace,
    counts: Counts,
    /// Layer-2 octets are a multiple of it beyond the octets.
    layer2_header_octets: [u8; 2],
    tap: TapIndex,
    /// Number of the least rate.
    rate: u8,
    late_packets: u8,
    /// Bits of [`mark`].
    marks: u8,
}

/// What is known of a conversation beside its sums.
mod mark {
    /// Its sums stand elsewhere.
    pub(super) const WIDE: u8 = 1;
    /// In one of its flows one end has acknowledged what the other sent.
    pub(super) const ACKNOWLEDGED: u8 = 1 << 1;
}

const _: () = assert!(size_of::<Packed>() == 52);

impl Packed {
    /// Without a row.
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            packets: [0; 2],
            octets: [0; 2],
            extra: ExtraPlace::default(),
            counts: [0; 9],
            layer2_header_octets: [0; 2],
            tap: TapIndex(u16::MAX),
            rate: 0,
            late_packets: 0,
            marks: 0,
        }
    }

    /// Its place among the wide ones, if it is one.
    #[inline]
    pub(super) fn wide(&self) -> Option<usize> {
        (self.marks & mark::WIDE != 0).then_some(self.extra.number() as usize)
    }

    /// Makes it a wide one; its sums are at that place from now on.
    pub(super) fn widen(&mut self, place: usize) {
        let number = u32::try_from(place).expect("there are fewer than numbers of entries");
        self.extra = ExtraPlace::of_number(number);
        self.marks |= mark::WIDE;
    }

    /// With one row more, if that fits; not for a wide one. `rate`: number of the least rate
    /// then.
    #[inline]
    pub(super) fn with(&self, row: &Row, rate: u8) -> Option<Self> {
        let mut sum = *self;
        let (packets, octets) = (row.packets(), row.octets());
        let by_side = row.layer2_header_octets();
        for side in 0..2 {
            let header_octets = by_side[side];
            if self.packets[side] == 0 {
                sum.layer2_header_octets[side] = header_octets;
            } else if packets[side] > 0 && self.layer2_header_octets[side] != header_octets {
                return None;
            }
            sum.packets[side] = added(self.packets[side], packets[side])?;
            sum.octets[side] = added(self.octets[side], octets[side])?;
        }
        for (count, more) in sum.counts.iter_mut().zip(counts_of(row)) {
            *count = count.checked_add(more)?;
        }
        sum.late_packets = u8::try_from(u32::from(self.late_packets) + row.late_packets).ok()?;
        sum.rate = rate;
        sum.tap = self.tap.min(row.tap);
        sum.marks |= if has_acknowledged(row) { mark::ACKNOWLEDGED } else { 0 };
        Some(sum)
    }

    /// Number of the least rate.
    #[inline]
    pub(super) const fn rate(&self) -> u8 {
        self.rate
    }

    /// The sums, of one that is not wide. `sampling_rate`: the rate of its number.
    #[inline]
    pub(super) fn sums(&self, sampling_rate: f32) -> Conversation {
        let [packets, octets] = [self.packets, self.octets].map(|sums| sums.map(u64::from));
        let header_octets = self.layer2_header_octets.map(u64::from);
        let [flows, started, contacts, answered, refused, syns, established, unanswered, half_open] =
            self.counts.map(u64::from);
        Conversation {
            flows,
            packets,
            octets,
            layer2_octets: [
                octets[0] + packets[0] * header_octets[0],
                octets[1] + packets[1] * header_octets[1],
            ],
            late_packets: self.late_packets.into(),
            started,
            contacts,
            answered,
            refused,
            syns,
            established,
            unanswered,
            half_open,
            sampling_rate,
            tap: self.tap,
            acknowledged: self.marks & mark::ACKNOWLEDGED != 0,
            extra: self.extra,
            observers: Observers::default(),
        }
    }
}

#[inline]
fn added(sum: u32, more: u64) -> Option<u32> {
    u32::try_from(u64::from(sum) + more).ok()
}
