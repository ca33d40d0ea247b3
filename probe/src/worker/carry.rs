//! Which packets take their payload along to the worker that owns their flow.
//!
//! In: packets that go through a ring. Out: whether the owner may want their payload.
//! Cost: some comparisons for packets with payload; nothing where transactions are not told.
//! Invariants: a function of the packet's first octets, and of the last message of some flow that was not
//! whole. Where two flows share a place the later one has it: a hello of the other stays half, and is
//! told as far as it goes.
//! Source: none.

use crate::app::{self, FirstWords};
use crate::decode::brief::Fields;
use crate::decode::{Brief, Headers};
use crate::index::Sender;

/// Flows of which it is remembered that a message goes on.
const PLACES: usize = 1_024;

/// The choice of one worker.
pub(super) struct Carrier {
    /// By the low bits of a flow's hash: hash and sender of a message that goes on; 0 for none.
    continued: Box<[u64]>,
}

impl Carrier {
    pub(super) fn new() -> Self {
        Self { continued: vec![0; PLACES].into_boxed_slice() }
    }

    /// The payload of a packet of `frame`, if the owner of its flow may want it.
    pub(super) fn payload<'a>(&mut self, headers: &Headers, frame: &'a [u8]) -> &'a [u8] {
        let octets = headers.payload_captured_octets as usize;
        let flow = (headers.hash, headers.sender);
        if octets == 0 || !self.wants(flow, &FirstWords::of(headers)) {
            return &[];
        }
        let behind = frame.get(headers.payload_offset as usize..).unwrap_or_default();
        behind.get(..octets).unwrap_or_default()
    }

    /// The same of a packet with payload that is known in brief, from its IPv4 header on.
    pub(super) fn payload_of<'a>(&mut self, brief: &Brief, packet: &'a [u8]) -> &'a [u8] {
        // Where there are rare options of TCP all headers say it.
        let Some(fields) = Fields::of(packet, brief) else {
            let mut headers = Headers::default();
            brief.write_headers(packet, &mut headers);
            headers.payload_offset = headers.payload_offset.saturating_sub(brief.ip_at.into());
            return self.payload(&headers, packet);
        };
        if !self.wants((brief.hash, brief.sender), &FirstWords::of_brief(brief, &fields)) {
            return &[];
        }
        brief.payload(&fields, packet)
    }

    fn wants(&mut self, (hash, sender): (u64, Sender), words: &FirstWords) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits choose")]
        let Some(continued) = self.continued.get_mut(hash as usize % PLACES) else {
            return false;
        };
        // The lowest bit tells the sender, and that there is one.
        let tag = hash << 2 | (sender.place() as u64) << 1 | 1;
        let goes_on = *continued == tag;
        if app::may_be_taken(words) {
            *continued = if app::is_to_be_continued(words) { tag } else { *continued };
            return true;
        }
        if goes_on {
            *continued = 0;
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(hash: u64, sender: Sender, octets: u32, payload: &[u8]) -> Headers {
        let mut headers = Headers {
            hash,
            sender,
            protocol: 6,
            payload_octets: octets,
            payload_captured_octets: octets,
            ..Headers::default()
        };
        let kept = payload.len().min(headers.payload_head.len());
        headers.payload_head[..kept].copy_from_slice(&payload[..kept]);
        headers
    }

    #[test]
    fn a_message_takes_what_it_goes_on_with_along() {
        let mut carrier = Carrier::new();
        // A record of 1,728 octets.
        let hello = [22, 3, 1, 6, 0xc0, 1, 0, 6, 0xbc, 3, 3];
        let frame = vec![1; 1_500];
        let first = packet(5, Sender::High, 1_400, &hello);
        let second = packet(5, Sender::High, 333, &[1, 2, 3]);
        let answer = packet(5, Sender::Low, 333, &[1, 2, 3]);
        let carried = |carrier: &mut Carrier, headers| carrier.payload(headers, &frame).len();
        assert_eq!(carried(&mut carrier, &second), 0);
        assert_eq!(carried(&mut carrier, &first), 1_400);
        assert_eq!(carried(&mut carrier, &answer), 0);
        assert_eq!((carried(&mut carrier, &second), carried(&mut carrier, &second)), (333, 0));
        // Another flow has the place meanwhile.
        let other = packet(5 + PLACES as u64, Sender::High, 1_400, &hello);
        assert_eq!((carried(&mut carrier, &first), carried(&mut carrier, &other)), (1_400, 1_400));
        assert_eq!(carried(&mut carrier, &second), 0);
    }
}
