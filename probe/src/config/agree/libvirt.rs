//! What must agree in `[[inventory.libvirt]]`.

use super::super::document::{Report, Section};

/// Checks one libvirt.
pub(super) fn check(section: &Section<'_>, report: &mut Report) {
    let read_ms = 1_000 * section.get::<u64>("read_s").unwrap_or(60);
    let stale_after_ms: u64 = section.get("stale_after_ms").unwrap_or(90_000);
    if stale_after_ms <= read_ms {
        let what = format!("{stale_after_ms} is not more than read_s (allowed: above {read_ms})");
        report.problem(section.at("stale_after_ms"), section.path("stale_after_ms"), what);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::load::{Mode, parse};

    #[test]
    fn it_is_read_before_it_is_stale() {
        let problems = |rest: &str| {
            let text =
                format!("[[inventory.libvirt]]\nname = \"a\"\nuri = \"test:///default\"\n{rest}");
            let read = parse(&text, "x", std::path::Path::new(""), Mode::Replay);
            read.err().map(|problems| problems.to_string()).unwrap_or_default()
        };
        assert_eq!(problems(""), "");
        let found = problems("read_s = 90\n");
        assert!(found.contains("inventory.libvirt.stale_after_ms: 90000 is not more"), "{found}");
        assert_eq!(problems("read_s = 90\nstale_after_ms = 90001\n"), "");
    }
}
