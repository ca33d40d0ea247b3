//! Plan of `[inventory.learned]`.

use super::super::document::Section;
use super::super::plan::{LearnedPlan, Lessons};

/// What is learned.
pub(super) fn learned(section: &Section<'_>) -> LearnedPlan {
    let mut plan = LearnedPlan::default();
    section.read("enabled", &mut plan.enabled);
    if section.has("protocols") {
        let protocols = section.items::<String>("protocols");
        let has = |wanted: &str| protocols.iter().any(|(_, name)| name == wanted);
        plan.lessons = Lessons { arp: has("arp"), nd: has("nd"), dhcp: has("dhcp") };
    }
    section.read("networks", &mut plan.networks);
    section.read("silence_s", &mut plan.silence_s);
    section.read("addresses_max", &mut plan.addresses_max);
    section.read("addresses_per_segment_max", &mut plan.addresses_per_segment_max);
    section.read("addresses_per_mac_max", &mut plan.addresses_per_mac_max);
    section.read("stale_after_ms", &mut plan.stale_after_ms);
    plan
}
