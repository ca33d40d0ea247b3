//! Plans of `[[inventory.openstack]]`.

use std::path::Path;

use super::super::document::{Report, Section, quoted};
use super::super::plan::{CloudApiPlan, CloudAuth, OpenstackPlan, Secret, SecretPlace};
use super::{domain, path};

/// One cloud; `None` where its name or brokers were not allowed, which is a problem already.
pub(super) fn openstack(
    section: &Section<'_>,
    base: &Path,
    domains: &[String],
    report: &mut Report,
) -> Option<OpenstackPlan> {
    let urls = section.items("urls").into_iter().map(|(_, url)| url).collect();
    let mut plan = OpenstackPlan::new(section.get("name")?, urls);
    section.read("user", &mut plan.user);
    plan.password = section.get("password").map(Secret);
    plan.password_file = path(section, "password_file", base);
    plan.ca_file = path(section, "ca_file", base).unwrap_or(plan.ca_file);
    section.read("exchanges", &mut plan.exchanges);
    section.read("topics", &mut plan.topics);
    section.read("queue", &mut plan.queue);
    section.read("queue_messages_max", &mut plan.queue_messages_max);
    section.read("queue_expires_s", &mut plan.queue_expires_s);
    section.read("prefetch", &mut plan.prefetch);
    section.read("message_bytes_max", &mut plan.message_bytes_max);
    section.read("heartbeat_s", &mut plan.heartbeat_s);
    section.read("timeout_ms", &mut plan.timeout_ms);
    section.read("retry_max_ms", &mut plan.retry_max_ms);
    section.read("stale_after_ms", &mut plan.stale_after_ms);
    if let Some(name) = section.get::<String>("domain") {
        plan.domain = domain(section, &name, domains, report);
    }
    for (at, text) in section.items::<String>("physical_domains") {
        let Some((network, name)) = text.split_once('=').filter(|(network, _)| !network.is_empty())
        else {
            let what = format!("{} is not PHYSICAL_NETWORK=DOMAIN", quoted(&text));
            report.problem(at, section.path("physical_domains"), what);
            continue;
        };
        match (0..).zip(domains).find(|(_, domain)| *domain == name) {
            Some((place, _)) => plan.physical_domains.push((network.to_owned(), place)),
            None => {
                let allowed = domains.join(", ");
                let what = format!("{} is no domain (allowed: {allowed})", quoted(name));
                report.problem(at, section.path("physical_domains"), what);
            }
        }
    }
    plan.api = api(section, base);
    plan.tenant_ids = section.get::<String>("tenant").is_some_and(|word| word == "id");
    Some(plan)
}

/// The APIs; what is missing to ask them is a problem already (`agree`).
fn api(section: &Section<'_>, base: &Path) -> CloudApiPlan {
    let auth = match section.get::<String>("api_auth").as_deref() {
        Some("password") => CloudAuth::Password,
        Some("application_credential") => CloudAuth::Credential,
        Some("none") => CloudAuth::None,
        _ => CloudAuth::Off,
    };
    let mut plan = CloudApiPlan {
        auth,
        identity_url: section.get("api_identity_url"),
        network_url: section.get("api_network_url"),
        compute_url: section.get("api_compute_url"),
        region: section.get("api_region"),
        user: section.get("api_user"),
        project: section.get("api_project"),
        credential_id: section.get("api_credential_id"),
        secret: section.get::<SecretPlace>("api_secret").map(|place| place.below(base)),
        ..CloudApiPlan::default()
    };
    section.read("api_interface", &mut plan.interface);
    section.read("api_user_domain", &mut plan.user_domain);
    section.read("api_project_domain", &mut plan.project_domain);
    plan.ca_file = path(section, "api_ca_file", base).unwrap_or(plan.ca_file);
    section.read("api_timeout_ms", &mut plan.timeout_ms);
    section.read("api_again_s", &mut plan.again_s);
    section.read("api_page_items", &mut plan.page_items);
    section.read("api_answer_mib_max", &mut plan.answer_mib_max);
    section.read("api_list_timeout_s", &mut plan.list_timeout_s);
    section.read("api_list_mib_max", &mut plan.list_mib_max);
    plan
}
