//! Plans of `[[inventory.libvirt]]`.

use super::super::document::{Report, Section};
use super::super::plan::LibvirtPlan;
use super::domain;

/// One libvirt; `None` where its name or URI was not allowed, which is a problem already.
pub(super) fn libvirt(
    section: &Section<'_>,
    domains: &[String],
    report: &mut Report,
) -> Option<LibvirtPlan> {
    let mut plan = LibvirtPlan::new(section.get("name")?, section.get("uri")?);
    section.read_some("host", &mut plan.host);
    section.read("program", &mut plan.program);
    if let Some(name) = section.get::<String>("domain") {
        plan.domain = domain(section, &name, domains, report);
    }
    section.read("vlan_segments", &mut plan.vlan_segments);
    plan.tenant_ids = section.get::<String>("tenant").is_some_and(|word| word == "id");
    section.read("read_s", &mut plan.read_s);
    section.read("usage_s", &mut plan.usage_s);
    section.read("timeout_ms", &mut plan.timeout_ms);
    section.read("retry_max_ms", &mut plan.retry_max_ms);
    section.read("stale_after_ms", &mut plan.stale_after_ms);
    section.read("vms_max", &mut plan.vms_max);
    Some(plan)
}
