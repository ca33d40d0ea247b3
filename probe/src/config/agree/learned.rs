//! What must agree in `[inventory.learned]`.

use super::super::document::{Report, Section};
use super::unique_items;

/// Checks what is learned.
pub(super) fn check(section: &Section<'_>, report: &mut Report) {
    let protocols = section.items::<String>("protocols");
    let is_on = section.get::<bool>("enabled") == Some(true);
    if is_on && section.has("protocols") && protocols.is_empty() {
        let what = "names none, so nothing is learned (allowed: arp, nd, dhcp)";
        report.problem(section.at("protocols"), section.path("protocols"), what);
    }
    unique_items(protocols, &section.path("protocols"), report);
    let all: u64 = section.get("addresses_max").unwrap_or(32_768);
    for part in ["addresses_per_segment_max", "addresses_per_mac_max"] {
        if let Some(of_one) = section.get::<u64>(part).filter(|of_one| *of_one > all) {
            let what = format!("{of_one} is more than addresses_max (allowed: at most {all})");
            report.problem(section.at(part), section.path(part), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::load::{Mode, parse};

    #[test]
    fn bounds_agree_and_protocols_are_named_once() {
        let problems = |rest: &str| {
            let text = format!("[inventory.learned]\nenabled = true\n{rest}");
            let read = parse(&text, "x", std::path::Path::new(""), Mode::Replay);
            read.err().map(|problems| problems.to_string()).unwrap_or_default()
        };
        assert_eq!(problems(""), "");
        assert_eq!(problems("addresses_max = 16\naddresses_per_segment_max = 16\n"), "");
        let found = problems("addresses_max = 16\naddresses_per_segment_max = 17\n");
        assert!(found.contains("per_segment_max: 17 is more than addresses_max"), "{found}");
        let found = problems("protocols = []\n");
        assert!(found.contains("protocols: names none"), "{found}");
        assert!(problems("protocols = [\"arp\", \"arp\"]\n").contains("twice"));
    }
}
