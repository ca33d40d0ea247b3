//! What applications say, of any octets: no panic, every bound holds.
//!
//! The first octet says what it is: 0 DNS over UDP, 1 DNS over TCP, 2 TLS, 3 HTTP. The rest are messages,
//! each with an octet before it that says who sent it and after how many seconds, and two for its length.

use vmprobe::aggregate::apps::Apps;
use vmprobe::app::{Application, Excerpt};
use vmprobe::index::Sender;
use vmprobe::spread::FlowKey;
use vmprobe::time::Timestamp;
use vmprobe::window::ExcerptBlock;

const SECOND: u64 = 1_000_000_000;
const LATEST: Timestamp = Timestamp(u64::MAX);
/// Messages of an input at most.
const MESSAGES_MAX: usize = 64;

/// How many transactions an input tells of.
pub(crate) fn exercise(input: &[u8]) -> usize {
    let Some((kind, mut rest)) = input.split_first() else { return 0 };
    let (protocol, application) = match kind & 3 {
        0 => (17, Application::Dns),
        1 => (6, Application::Dns),
        2 => (6, Application::Tls),
        _ => (6, Application::Http),
    };
    let key = FlowKey { protocol, ip_version: 4, ..FlowKey::default() };
    let mut apps = Apps::new(kind & 4 != 0);
    let (mut at, mut messages, mut sequences) = (0, 0, [0_u32; 2]);
    while let Some(([who, high, low], behind)) = rest.split_first_chunk::<3>()
        && messages < MESSAGES_MAX
    {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (octets, behind) = behind.split_at(length);
        rest = behind;
        at += u64::from(who >> 1) * SECOND;
        let sender = if who & 1 == 0 { Sender::Low } else { Sender::High };
        let sequence = sequences[sender.place()];
        let payload_octets = u32::try_from(length).unwrap_or(u32::MAX);
        sequences[sender.place()] = sequence.wrapping_add(payload_octets);
        let excerpt = Excerpt {
            key,
            application,
            sender,
            at: Timestamp(at),
            sequence,
            payload_octets,
            ..Excerpt::default()
        };
        apps.take(&ExcerptBlock::of(&excerpt, octets));
        apps.expire(Timestamp(at));
        messages += 1;
    }
    apps.end();
    let (told, [lost, malformed]) = apps.done(LATEST);
    // A message has one transaction at most, but for an answer that is late.
    assert!(told.len() <= 2 * messages && lost + malformed <= messages as u64);
    assert!(apps.done(LATEST).0.is_empty(), "the end tells all");
    told.len()
}
