//! Tests of the learner: through the store, so that what is checked is what look-ups see.

use proptest::prelude::*;

use super::super::evidence::HostName;
use super::*;
use crate::inventory::{
    AddressSpace, ClassRules, SegmentKind, SourceId, SourceKind, SourceName, Spaces, Store,
    StoreLimits,
};

const SECOND: u64 = 1_000_000_000;
const SILENCE_S: u64 = 600;

fn plan() -> LearnedPlan {
    LearnedPlan { enabled: true, silence_s: 600, ..LearnedPlan::default() }
}

fn evidence(mac: u8, address: u8, second: u64) -> Evidence {
    Evidence::by_arp(mac.into(), address.into(), Timestamp(second * SECOND))
}

fn leased(lease_s: u32, name: &str, evidence: Evidence) -> Evidence {
    let name = HostName::new(name.as_bytes()).unwrap_or_default();
    Evidence { means: Means::Dhcp, lease_s, name, ..evidence }
}

struct Rig {
    learner: Learner,
    store: Store,
    changes: usize,
}

impl Rig {
    fn new(plan: &LearnedPlan) -> Self {
        let source = SourceName { kind: SourceKind::Learned, name: "learned".into(), rank: 5 };
        let limits = StoreLimits { learned_max: plan.endpoints_max(), ..StoreLimits::default() };
        let store = Store::new(limits, Spaces::default(), ClassRules::default(), vec![source]);
        Self { learner: Learner::new(plan), store: store.with_rows(), changes: 0 }
    }

    fn apply(&mut self, known: Timestamp) -> usize {
        let changes = self.learner.take_changes();
        let count = changes.len();
        self.changes += count;
        if count > 0 {
            self.store.apply(SourceId(0), known, changes.into());
        }
        count
    }

    /// How many changes it brought.
    fn take(&mut self, evidence: &Evidence) -> usize {
        self.learner.take(evidence);
        self.apply(evidence.at)
    }

    fn advance(&mut self, second: u64) -> usize {
        self.learner.advance(Timestamp(second * SECOND));
        self.apply(Timestamp(second * SECOND))
    }

    /// The last octet of the MAC address of who has an address.
    fn who(&self, address: u8, second: u64) -> Option<u8> {
        self.who_at(&evidence(0, address, 0), second)
    }

    fn who_at(&self, what: &Evidence, second: u64) -> Option<u8> {
        let inventory = self.store.inventory();
        let space = AddressSpace::of_segment(what.segment);
        let at = Timestamp(second * SECOND);
        let vm = inventory.resolve(space, what.address, what.ip_version, None, at)?;
        let [.., last] = inventory.vm(vm)?.interfaces.first()?.id.mac.0;
        Some(last)
    }

    fn unlearned(&mut self) -> Vec<(&'static str, u64)> {
        self.learner.unlearned().into_iter().map(|(why, count)| (why.name(), count)).collect()
    }
}

#[test]
fn an_address_holds_from_its_packet_until_silence() {
    let mut rig = Rig::new(&plan());
    assert!(rig.take(&evidence(1, 1, 100)) > 0);
    assert_eq!(rig.take(&evidence(1, 1, 129)), 0, "just before");
    assert_eq!(rig.take(&evidence(1, 1, 200)), 0, "its time is not half over");
    assert_eq!([99, 100, 699, 700].map(|at| rig.who(1, at)), [None, Some(1), Some(1), None]);
    assert!(rig.take(&evidence(1, 1, 450)) > 0);
    let end = 450 + SILENCE_S;
    assert_eq!(
        [100, 900, end - 1, end].map(|at| rig.who(1, at)),
        [Some(1), Some(1), Some(1), None]
    );
    assert_eq!(rig.advance(end - 1), 0);
    assert_eq!(rig.learner.addresses(), 1);
    assert!(rig.advance(end) > 0, "it is over");
    assert_eq!(rig.learner.addresses(), 0);
    // It comes again: what was in between stays nobody's.
    assert!(rig.take(&evidence(1, 1, 2_000)) > 0);
    let times = [500, end, 1_999, 2_000, 2_599, 2_600];
    assert_eq!(times.map(|at| rig.who(1, at)), [Some(1), None, None, Some(1), Some(1), None]);
    assert_eq!(rig.store.inventory().learned_count(), 1);
}

#[test]
fn a_lease_says_how_long_and_what_it_is_called() {
    let mut rig = Rig::new(&plan());
    rig.take(&leased(3_600, "web-1", evidence(1, 1, 100)));
    assert_eq!([3_699, 3_700].map(|at| rig.who(1, at)), [Some(1), None]);
    // ARP does not make it shorter; a renewal makes it longer, with another name.
    rig.take(&evidence(1, 1, 200));
    assert_eq!(rig.who(1, 3_699), Some(1));
    rig.take(&leased(3_600, "web-2", evidence(1, 1, 1_900)));
    assert_eq!([5_499, 5_500].map(|at| rig.who(1, at)), [Some(1), None]);
    let names = |rig: &Rig, at: u64| {
        let (_, entry) = rig.store.inventory().entries().next().expect("one");
        entry.history.names.at(Timestamp(at * SECOND)).map(ToString::to_string)
    };
    assert_eq!(names(&rig, 100).as_deref(), Some("web-1"));
    assert_eq!(names(&rig, 1_900).as_deref(), Some("web-2"));
    assert_eq!(names(&rig, 5_500), None);
    // The same acknowledgement at another tap says nothing new.
    assert_eq!(rig.take(&leased(3_600, "web-2", evidence(1, 1, 1_901))), 0);
    // A lease for ever is one of seven days; one of no time is as ARP.
    rig.take(&leased(u32::MAX, "", evidence(2, 2, 2_000)));
    assert_eq!([606_799, 606_800].map(|at| rig.who(2, at)), [Some(2), None]);
    rig.take(&leased(0, "", evidence(3, 3, 2_000)));
    assert_eq!([2_599, 2_600].map(|at| rig.who(3, at)), [Some(3), None]);
}

#[test]
fn the_last_who_shows_an_address_has_it_and_the_overlap_is_a_conflict() {
    let mut rig = Rig::new(&plan());
    rig.take(&evidence(1, 1, 100));
    rig.take(&evidence(2, 1, 200));
    rig.take(&evidence(1, 1, 300));
    rig.take(&evidence(2, 1, 400));
    let times = [150, 250, 350, 450, 1_100];
    assert_eq!(times.map(|at| rig.who(1, at)), [Some(1), Some(2), Some(1), Some(2), None]);
    assert!(rig.store.inventory().conflict_count() > 0);
    // Within the time in which repetitions say nothing they take it from each other no more often.
    let before = rig.changes;
    for second in 430..458 {
        rig.take(&evidence(1, 1, second));
        rig.take(&evidence(2, 1, second));
    }
    assert!(rig.changes - before <= 8, "{}", rig.changes - before);
}

#[test]
fn of_two_with_one_stamp_the_last_has_it_whatever_comes_later() {
    let mut rig = Rig::new(&plan());
    rig.take(&evidence(2, 1, 100));
    rig.take(&evidence(1, 1, 100));
    assert_eq!([101, 129].map(|at| rig.who(1, at)), [Some(1); 2]);
    rig.take(&evidence(2, 1, 130));
    assert_eq!([101, 129, 130].map(|at| rig.who(1, at)), [Some(1), Some(1), Some(2)]);
}

#[test]
fn a_server_takes_an_address_from_who_had_it() {
    let mut rig = Rig::new(&plan());
    rig.take(&evidence(1, 1, 100));
    rig.take(&leased(600, "", evidence(2, 1, 200)));
    assert_eq!([199, 200, 700].map(|at| rig.who(1, at)), [Some(1), Some(2), Some(2)]);
    assert_eq!(rig.store.inventory().conflict_count(), 0);
    assert_eq!(rig.learner.addresses(), 1);
}

#[test]
fn an_address_that_is_tried_out_holds_if_nobody_answers() {
    let mut rig = Rig::new(&plan());
    let dad = |evidence| Evidence { means: Means::Tentative, ..evidence };
    let nd = |evidence| Evidence { means: Means::Neighbour, ..evidence };
    assert_eq!(rig.take(&dad(evidence(1, 1, 100))), 0);
    assert_eq!(rig.take(&dad(evidence(2, 2, 100))), 0);
    assert_eq!(rig.take(&dad(evidence(3, 3, 100))), 0);
    // The second is answered by another, the third tried by another at once.
    rig.take(&nd(evidence(9, 2, 100)));
    rig.take(&dad(evidence(8, 3, 100)));
    rig.take(&dad(evidence(8, 3, 100)));
    rig.advance(101);
    assert_eq!([100, 101].map(|at| rig.who(1, at)), [None, Some(1)]);
    assert_eq!((rig.who(2, 101), rig.who(3, 200)), (Some(9), None));
    assert_eq!(rig.unlearned(), [("tentative_refused", 2)]);
    // Who has an address already is asked in vain.
    rig.take(&dad(evidence(7, 1, 110)));
    rig.take(&dad(evidence(1, 1, 110)));
    rig.advance(120);
    assert_eq!((rig.who(1, 120), rig.unlearned()), (Some(1), vec![("tentative_refused", 1)]));
}

#[test]
fn everything_has_a_bound() {
    let small = LearnedPlan {
        addresses_max: 40,
        addresses_per_segment_max: 30,
        addresses_per_mac_max: 3,
        networks: vec!["10.0.0.0/25".parse().expect("a network")],
        ..plan()
    };
    let mut rig = Rig::new(&small);
    for number in 0..128 {
        rig.take(&evidence(1, number, 100));
    }
    assert_eq!((rig.learner.addresses(), rig.unlearned()), (3, vec![("mac_full", 125)]));
    for number in 10..100 {
        rig.take(&evidence(number, number, 100));
    }
    assert_eq!((rig.learner.addresses(), rig.unlearned()), (30, vec![("segment_full", 63)]));
    let other = Segment::new(0, SegmentKind::Vxlan, 7);
    for number in 0..60 {
        rig.take(&Evidence { segment: other, ..evidence(number, number, 100) });
    }
    assert_eq!((rig.learner.addresses(), rig.unlearned()), (40, vec![("addresses_full", 50)]));
    rig.take(&evidence(1, 200, 100));
    assert_eq!(rig.unlearned(), [("other_network", 1)]);
    // When they are over there is room, and the store keeps twice as many at most.
    for round in 1..20 {
        for number in 0..40 {
            rig.take(&evidence(50 + number, number, 100 + round * 1_000));
        }
        assert!(rig.learner.addresses() <= 40);
        assert!(rig.store.inventory().learned_count() <= 80);
    }
    assert!(rig.store.counts().vms_forgotten == 0);
    assert!(rig.store.source_counts()[0].rejected.is_empty());
    rig.advance(100_000);
    assert_eq!((rig.learner.addresses(), rig.learner.due.len()), (0, 0));
    assert!(rig.learner.by_segment.is_empty() && rig.learner.endpoints.is_empty());
    assert!(rig.learner.holders.is_empty());
}

#[test]
fn many_that_are_tried_out_are_bounded() {
    let mut rig = Rig::new(&plan());
    for number in 0..=u32::try_from(TENTATIVE_MAX).expect("small") {
        let [a, b, c, d] = number.to_be_bytes();
        let tried = Evidence { means: Means::Tentative, ..evidence(1, 1, 100) };
        rig.take(&Evidence { address: Address::v4([10 + a, b, c, d]), ..tried });
    }
    assert_eq!(rig.unlearned(), [("tentative_full", 1)]);
}

/// Some evidence, in order of its time.
fn lessons() -> impl Strategy<Value = Vec<Evidence>> {
    let means =
        prop::sample::select(vec![Means::Arp, Means::Neighbour, Means::Tentative, Means::Dhcp]);
    let one = (0..4_u8, 0..4_u8, 0..120_u64, means, 0..3_u32);
    prop::collection::vec(one, 1..60).prop_map(|all| {
        let mut second = 100;
        let made = all.into_iter().map(|(mac, address, later, means, lease)| {
            second += later;
            let shown = Evidence { means, ..evidence(mac, address, second) };
            if means == Means::Dhcp { leased(lease * 400, "h", shown) } else { shown }
        });
        made.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a replay names does not depend on how far ahead evidence was taken.
    #[test]
    fn later_evidence_changes_nothing_of_before(lessons in lessons(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(lessons.len());
        let until = lessons[cut].at.0 / SECOND;
        let mut part = Rig::new(&plan());
        let mut all = Rig::new(&plan());
        // Of one second all is taken before anything of it is asked.
        for evidence in lessons.iter().filter(|evidence| evidence.at.0 / SECOND <= until) {
            part.take(evidence);
        }
        for evidence in &lessons {
            all.take(evidence);
        }
        for second in (90..=until).step_by(1) {
            for address in 0..4 {
                prop_assert_eq!(part.who(address, second), all.who(address, second), "{} at {}", address, second);
            }
        }
    }

    /// Sent twice, as from two workers, it says the same.
    #[test]
    fn repetitions_say_nothing(lessons in lessons()) {
        let (mut once, mut twice) = (Rig::new(&plan()), Rig::new(&plan()));
        for evidence in &lessons {
            once.take(evidence);
            twice.take(evidence);
            prop_assert_eq!(twice.take(evidence), 0);
        }
        let second = lessons.last().map_or(0, |last| last.at.0 / SECOND);
        for address in 0..4 {
            prop_assert_eq!(once.who(address, second), twice.who(address, second));
        }
    }

    /// Who has an address showed it, at most so long ago.
    #[test]
    fn who_has_an_address_has_shown_it(lessons in lessons()) {
        let mut rig = Rig::new(&plan());
        for evidence in &lessons {
            rig.take(evidence);
        }
        let last = lessons.last().map_or(0, |last| last.at.0 / SECOND);
        for second in 100..last + 1_300 {
            for address in 0..4 {
                let Some(who) = rig.who(address, second) else { continue };
                let shown = lessons.iter().any(|evidence| {
                    let length_s = if evidence.lease_s > 0 { u64::from(evidence.lease_s) } else { SILENCE_S + 1 };
                    let from = evidence.at.0 / SECOND;
                    evidence.address == Address::v4([10, 0, 0, address])
                        && evidence.mac == Mac([2, 0, 0, 0, 0, who])
                        && (from..from + length_s).contains(&second)
                });
                prop_assert!(shown, "{} at {}: {}", address, second, who);
            }
        }
        prop_assert_eq!(rig.learner.due.len(), rig.learner.addresses());
    }
}
