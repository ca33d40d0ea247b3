//! What a probe that sees both taps should say, held against what it said.
//!
//! In: a truth, a ledger. Out: nothing, or the test fails.
//! Cost: a pass over the log.
//! Invariants: exact, but for packets without an identification, of which a probe may count a
//! duplicate as a packet, and one that repeats another which the other tap alone showed as its copy;
//! both are in the truth and bounded by it.

use std::collections::BTreeMap;

use super::truth::Truth;

/// Counts of a probe that the truth knows too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Packets taken in.
    pub received: u64,
    /// Packets booked in windows.
    pub accounted: u64,
    /// Packets that ended otherwise, by cause.
    pub causes: BTreeMap<String, u64>,
}

impl Truth {
    /// Panics unless a probe counted the union of both taps, each packet once. Not for links that
    /// merge: there it depends on which copy is seen first.
    pub fn assert_union(&self, counted: &Counted) {
        let total = self.total();
        assert_eq!((total.merged, total.frames > 0), (0, true), "a link that does not merge");
        let shown: u64 = self.taps.iter().map(|tap| tap.shown).sum();
        let not_ip: u64 = self.taps.iter().map(|tap| tap.shown_not_ip).sum();
        assert_eq!(shown, total.shown_frames() + not_ip, "the truth is even: {total:?}");
        assert_eq!(counted.received, shown, "{counted:?}");
        let of = |cause: &str| counted.causes.get(cause).copied().unwrap_or(0);
        let causes = of("not_ip_arp") + of("duplicate") + of("copy_other_tap");
        assert_eq!(counted.causes.values().sum::<u64>(), causes, "no other cause: {counted:?}");
        assert_eq!(of("not_ip_arp"), not_ip, "{counted:?}");
        // A duplicate without an identification may count as a packet, or as the copy of one; a packet
        // without that is alike to one that the other tap alone showed, as a copy of that.
        let unsure = total.duplicates_without_identification;
        let repeated = total.repeated_without_identification;
        let within = |count: u64, least: u64, most: u64| (least..=most).contains(&count);
        let [copies, duplicates] = [of("copy_other_tap"), of("duplicate")];
        let say = || format!("{counted:?} {total:?}");
        assert!(within(copies, total.copies, total.copies + unsure + repeated), "{}", say());
        assert!(within(duplicates, total.duplicates - unsure, total.duplicates), "{}", say());
        let [least, most] = [total.logical_packets - repeated, total.logical_packets + unsure];
        assert!(within(counted.accounted, least, most), "{}", say());
        let sum = counted.accounted + causes;
        assert_eq!(sum, counted.received, "{counted:?} {total:?}");
    }
}
