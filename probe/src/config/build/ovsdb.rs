//! Plans of `[[inventory.ovsdb]]`.

use std::path::Path;

use super::super::document::{Report, Section};
use super::super::plan::{OvsdbPlan, OvsdbRemote};
use super::{domain, path};

/// One database; `None` where name or address were not allowed, which is a problem already.
pub(super) fn ovsdb(
    section: &Section<'_>,
    base: &Path,
    domains: &[String],
    report: &mut Report,
) -> Option<OvsdbPlan> {
    let address: OvsdbRemote = section.get("address")?;
    let mut plan = OvsdbPlan::new(section.get("name")?, address.below(base));
    section.read_some("host", &mut plan.host);
    if let Some(name) = section.get::<String>("domain") {
        plan.domain = domain(section, &name, domains, report);
    }
    section.read("vlan_segments", &mut plan.vlan_segments);
    plan.ca_file = path(section, "ca_file", base);
    plan.certificate_file = path(section, "certificate_file", base);
    plan.key_file = path(section, "key_file", base);
    section.read("check_name", &mut plan.check_name);
    section.read_some("server_name", &mut plan.server_name);
    section.read("timeout_ms", &mut plan.timeout_ms);
    section.read("echo_ms", &mut plan.echo_ms);
    section.read("retry_max_ms", &mut plan.retry_max_ms);
    section.read("stale_after_ms", &mut plan.stale_after_ms);
    section.read("message_mib_max", &mut plan.message_mib_max);
    section.read("rows_max", &mut plan.rows_max);
    Some(plan)
}
