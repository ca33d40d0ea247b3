//! What must agree in `[[inventory.openstack]]`.

use super::super::document::{Report, Section};
use super::super::plan::{BrokerUrl, ServiceUrl};

/// Lists without which nothing would be heard.
const LISTS: [&str; 3] = ["urls", "exchanges", "topics"];

/// Checks one cloud.
pub(super) fn check(section: &Section<'_>, report: &mut Report) {
    for name in LISTS {
        if section.get::<Vec<String>>(name).is_some_and(|list| list.is_empty()) {
            let what = "is empty (allowed: at least one)";
            report.problem(section.at(name), section.path(name), what);
        }
    }
    if section.has("password") && section.has("password_file") {
        let what = "has no effect, because password_file is given";
        report.warning(section.at("password"), section.path("password"), what);
    }
    let urls = section.items::<BrokerUrl>("urls");
    if section.has("ca_file") && !urls.is_empty() && !urls.iter().any(|(_, url)| url.tls) {
        let what = "has no effect, because no URL is amqps:";
        report.warning(section.at("ca_file"), section.path("ca_file"), what);
    }
    for (at, url) in urls.iter().filter(|(_, url)| !url.tls && !is_loopback(&url.host)) {
        let what =
            format!("{url} shows the password to whoever hears the network; amqps: does not");
        report.warning(*at, section.path("urls"), what);
    }
    api(section, report);
}

/// What each way to say who asks needs.
fn api(section: &Section<'_>, report: &mut Report) {
    let auth = section.get::<String>("api_auth").unwrap_or_default();
    let needs: &[&str] = match auth.as_str() {
        "password" => &["api_identity_url", "api_user", "api_project", "api_secret"],
        "application_credential" => &["api_identity_url", "api_credential_id", "api_secret"],
        _ => &[],
    };
    for name in needs.iter().filter(|name| !section.has(name)) {
        let what = format!("is missing (needed with api_auth = \"{auth}\")");
        report.problem(section.at("api_auth"), section.path(name), what);
    }
    let urls = ["api_network_url", "api_compute_url"];
    if auth == "none" && !urls.iter().any(|name| section.has(name)) {
        let what = "has no effect, because neither api_network_url nor api_compute_url is given";
        report.warning(section.at("api_auth"), section.path("api_auth"), what);
    }
    for name in ["api_identity_url", "api_network_url", "api_compute_url"] {
        let Some(url) = section.get::<ServiceUrl>(name) else { continue };
        if matches!(auth.as_str(), "" | "off") {
            let what = "has no effect, because api_auth is off";
            report.warning(section.at(name), section.path(name), what);
        } else if auth != "none" && !url.tls && !is_loopback(&url.host) {
            let what = format!("{url} shows secrets to whoever hears the network; https: does not");
            report.warning(section.at(name), section.path(name), what);
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::super::document::Problems;
    use super::super::super::load::{Loaded, Mode, parse};
    use super::super::super::plan::CloudAuth;

    fn read(rest: &str) -> Result<Loaded, Problems> {
        let text = format!("[[inventory.openstack]]\nname = \"a\"\n{rest}");
        parse(&text, "x", std::path::Path::new(""), Mode::Replay)
    }

    fn problems(rest: &str) -> String {
        read(rest).err().map(|problems| problems.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_cloud_has_brokers_exchanges_and_topics() {
        assert!(problems("").contains("inventory.openstack.urls: is missing"));
        assert!(problems("urls = []\n").contains("x:3: inventory.openstack.urls: is empty"));
        let found = problems("urls = [\"amqp://u:p@h\"]\n");
        assert!(found.contains("x:3: inventory.openstack.urls"), "{found}");
        let found = problems("urls = [\"amqp://h\"]\ntopics = []\n");
        assert!(found.contains("x:4: inventory.openstack.topics: is empty"), "{found}");
    }

    #[test]
    fn one_password_is_enough() {
        let both = "urls = [\"amqps://h\"]\npassword = \"a\"\npassword_file = \"b\"\n";
        let warned = read(both).expect("allowed").warnings.to_string();
        assert!(warned.contains("x:4: inventory.openstack.password: has no effect"), "{warned}");
    }

    #[test]
    fn an_open_password_is_warned_of() {
        let warned = |url| {
            let loaded = read(&format!("urls = [\"{url}\"]\n")).expect("allowed");
            loaded.warnings.to_string().contains("shows the password")
        };
        assert_eq!(["amqp://h", "amqps://h", "amqp://[::1]"].map(warned), [true, false, false]);
    }

    #[test]
    fn apis_are_asked_with_all_that_is_needed() {
        let url = "urls = [\"amqp://localhost\"]\n";
        let found = problems(&format!("{url}api_auth = \"password\"\n"));
        for name in ["api_identity_url", "api_user", "api_project", "api_secret"] {
            assert!(
                found.contains(&format!("x:4: inventory.openstack.{name}: is missing")),
                "{found}"
            );
        }
        let found = problems(&format!("{url}api_auth = \"application_credential\"\n"));
        assert!(found.contains("api_credential_id: is missing"), "{found}");
        let loaded = read(&format!("{url}api_auth = \"none\"\n")).expect("allowed");
        let warned = loaded.warnings.to_string();
        assert!(warned.contains("x:4: inventory.openstack.api_auth: has no effect"), "{warned}");
        let found = problems(&format!("{url}api_identity_url = \"keystone:5000\"\n"));
        assert!(found.contains("is not allowed"), "{found}");
        let whole = "api_auth = \"password\"\napi_identity_url = \"http://k.example:5000/v3\"\n\
                     api_user = \"u\"\napi_project = \"p\"\napi_secret = \"env:OS_PASSWORD\"\n";
        let loaded = read(&format!("{url}{whole}")).expect("allowed");
        assert!(loaded.warnings.to_string().contains("shows secrets"), "{}", loaded.warnings);
        let api = &loaded.plan.inventory.openstack[0].api;
        let identity = api.identity_url.as_ref().map(ToString::to_string);
        assert_eq!(identity.as_deref(), Some("http://k.example:5000/v3"));
        assert_eq!((api.auth, api.page_items), (CloudAuth::Password, 500));
        let off = read(url).expect("allowed").plan.inventory.openstack[0].api.auth;
        assert_eq!(off, CloudAuth::Off);
    }

    #[test]
    fn physical_networks_have_domains_that_exist() {
        let url = "urls = [\"amqp://h\"]\n";
        let found = problems(&format!("{url}physical_domains = [\"p\"]\n"));
        assert!(found.contains("\"p\" is not PHYSICAL_NETWORK=DOMAIN"), "{found}");
        let found = problems(&format!("{url}physical_domains = [\"p=west\"]\n"));
        assert!(found.contains("\"west\" is no domain"), "{found}");
        let plan =
            read(&format!("{url}physical_domains = [\"p=default\"]\n")).expect("allowed").plan;
        assert_eq!(plan.inventory.openstack[0].physical_domains, [("p".to_owned(), 0)]);
    }
}
