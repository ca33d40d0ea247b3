//! What must agree in `[[inventory.ovsdb]]`.

use super::super::document::{Report, Section};
use super::super::plan::OvsdbRemote;

/// Keys that only mean something inside TLS.
const TLS_KEYS: [&str; 5] =
    ["ca_file", "certificate_file", "key_file", "check_name", "server_name"];

/// Checks one database.
pub(super) fn check(section: &Section<'_>, report: &mut Report) {
    let Some(address) = section.get::<OvsdbRemote>("address") else { return };
    if matches!(address, OvsdbRemote::Tls(_)) {
        tls(section, report);
    } else {
        for name in TLS_KEYS.iter().filter(|name| section.is_written(name)) {
            let what = "has no effect, because the address is not ssl:";
            report.warning(section.at(name), section.path(name), what);
        }
    }
    let echo_ms: u32 = section.get("echo_ms").unwrap_or(5_000);
    let stale_after_ms: u32 = section.get("stale_after_ms").unwrap_or(20_000);
    if stale_after_ms <= echo_ms {
        let what = format!("{stale_after_ms} is not more than echo_ms (allowed: above {echo_ms})");
        report.problem(section.at("stale_after_ms"), section.path("stale_after_ms"), what);
    }
}

fn tls(section: &Section<'_>, report: &mut Report) {
    if !section.is_written("ca_file") {
        let what = "is missing (allowed: a file with the certificates of the authorities, which an \
                    ssl: address needs)";
        report.problem(section.at("address"), section.path("ca_file"), what);
    }
    for (given, other) in [("certificate_file", "key_file"), ("key_file", "certificate_file")] {
        if section.is_written(given) && !section.is_written(other) {
            let what = format!("is missing (allowed: a file, because {given} is given)");
            report.problem(section.at(given), section.path(other), what);
        }
    }
    if section.get("check_name") == Some(false) && section.is_written("server_name") {
        let what = "has no effect, because check_name is false";
        report.warning(section.at("server_name"), section.path("server_name"), what);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::load::{Mode, parse};

    fn problems(rest: &str) -> String {
        let text = format!("[[inventory.ovsdb]]\nname = \"a\"\n{rest}");
        let read = parse(&text, "x", std::path::Path::new(""), Mode::Replay);
        read.err().map(|problems| problems.to_string()).unwrap_or_default()
    }

    #[test]
    fn tls_needs_an_authority_and_both_parts_of_an_identity() {
        let address = "address = \"ssl:h:1\"\n";
        assert!(problems(address).contains("x:3: inventory.ovsdb.ca_file: is missing"));
        let with_ca = format!("{address}ca_file = \"c\"\n");
        assert_eq!(problems(&with_ca), "");
        let half = format!("{with_ca}key_file = \"k\"\n");
        assert!(problems(&half).contains("x:5: inventory.ovsdb.certificate_file: is missing"));
    }

    #[test]
    fn silence_is_asked_about_before_it_is_stale() {
        let address = "address = \"unix:/s\"\n";
        assert_eq!(problems(address), "");
        let found = problems(&format!("{address}echo_ms = 20000\n"));
        assert!(
            found.contains("inventory.ovsdb.stale_after_ms: 20000 is not more than"),
            "{found}"
        );
    }

    #[test]
    fn names_are_unique() {
        let rest =
            "address = \"unix:/s\"\n[[inventory.ovsdb]]\nname = \"a\"\naddress = \"tcp:h\"\n";
        assert!(problems(rest).contains("x:5: inventory.ovsdb.name: \"a\" is used in line 2"));
    }
}
