//! Trajectories on their way from the members that join them to the one that adds them up.
//!
//! In: a trajectory. Out: JSON, and back.
//! Invariants: what is written reads back equal; taps and address spaces go by name.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::Plan;
use crate::index::WindowNumber;
use crate::path::{Evidence, Sight, Trajectory};
use crate::record::Names;
use crate::time::Timestamp;

use super::{sample, tap_named};

/// A trajectory.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Joined {
    /// When its first sighting was sent, in milliseconds since the epoch.
    sent_ms: i64,
    digest: u64,
    window: u64,
    octets: u32,
    evidence: String,
    space: String,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    sights: Vec<Seen>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    tap: String,
    at: u64,
    ttl: u8,
    untagged: bool,
}

impl Joined {
    pub(super) fn of(trajectory: &Trajectory, sent_ms: i64, names: &mut Names) -> Self {
        let ends = &trajectory.ends;
        let mut seen = |sight: &Sight| Seen {
            tap: names.tap(sight.tap).to_string(),
            at: sight.at.0,
            ttl: sight.ttl,
            untagged: sight.is_untagged,
        };
        Self {
            sent_ms,
            digest: trajectory.digest,
            window: trajectory.window.0,
            octets: trajectory.octets,
            evidence: trajectory.evidence.name().to_owned(),
            sights: trajectory.sights().iter().map(&mut seen).collect(),
            space: names.space(ends.space).to_string(),
            source: ends.source.to_ip(ends.ip_version),
            destination: ends.destination.to_ip(ends.ip_version),
            protocol: ends.protocol,
        }
    }

    /// When its first sighting was sent.
    pub(super) const fn sent_ms(&self) -> i64 {
        self.sent_ms
    }

    /// `None` where it names what the configuration does not have.
    pub(super) fn trajectory(&self, plan: &Plan) -> Option<Trajectory> {
        let space = sample::space_named(plan, &self.space)?;
        let ends = sample::ends(space, (self.source, self.destination), self.protocol)?;
        let sight = |seen: &Seen| {
            Some(Sight {
                tap: tap_named(plan, &seen.tap)?,
                at: Timestamp(seen.at),
                ttl: seen.ttl,
                is_untagged: seen.untagged,
            })
        };
        let sights: Vec<_> = self.sights.iter().map(sight).collect::<Option<_>>()?;
        let window = WindowNumber(self.window);
        let mut trajectory = Trajectory::of(ends, self.digest, window, &sights)?;
        trajectory.octets = self.octets;
        trajectory.evidence = Evidence::named(&self.evidence)?;
        Some(trajectory)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::*;
    use crate::config::TapPlan;
    use crate::index::TapIndex;
    use crate::inventory::{AddressSpace, Segment, SegmentKind};
    use crate::worker::PortNames;

    #[test]
    fn what_is_written_reads_back() {
        let tap = |name: &str| TapPlan { name: name.to_owned(), ..TapPlan::default() };
        let plan = Plan {
            taps: vec![tap("a"), tap("b")],
            domains: vec!["default".to_owned()],
            ..Plan::default()
        };
        let ip = |text: &str| text.parse().expect("an address");
        let space = AddressSpace::of_segment(Segment::new(0, SegmentKind::Vlan, 7));
        let ends = sample::ends(space, (ip("2001:db8::1"), ip("2001:db8::2")), 6);
        let sight = |tap, at| Sight {
            tap: TapIndex(tap),
            at: Timestamp(at),
            ttl: 63,
            is_untagged: tap == 1,
        };
        let ends = ends.unwrap_or_default();
        let sights = [sight(1, 10), sight(0, 5)];
        let before = Trajectory::of(ends, u64::MAX, WindowNumber(7), &sights);
        let mut before = before.expect("few sights");
        (before.octets, before.evidence) = (1_500, Evidence::Repeated);
        let mut names = Names::new(&plan, PortNames::new(&[]));
        let message = Message::Joined(Box::new(Joined::of(&before, -1, &mut names)));
        let text = serde_json::to_string(&message).expect("JSON");
        let Ok(Message::Joined(joined)) = serde_json::from_str(&text) else { panic!("{text}") };
        assert_eq!(joined.sent_ms(), -1);
        let after = joined.trajectory(&plan).expect("known names");
        assert_eq!(format!("{after:?}"), format!("{before:?}"));
        let none = joined.trajectory(&Plan { taps: vec![tap("a")], ..plan });
        assert!(none.is_none(), "a tap that is not there");
    }
}
