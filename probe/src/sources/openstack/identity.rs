//! Who the probe is, to the services of a cloud.
//!
//! In: the plan, a secret. Out: headers of questions, and where each service is.
//! Invariants: a secret is read when it is needed and kept no longer; a token lives for one listing.
//! Source: OpenStack Identity API v3: `POST /v3/auth/tokens` (password, application credential), its
//! `token.catalog`; `GET /v3/projects`. Without Keystone: `auth_strategy = noauth` of Neutron
//! (`X-Roles`), `noauth2` of Nova (`X-Auth-Token: USER:PROJECT`).

use std::fmt;
use std::sync::Arc;

use hyper::Method;
use serde_json::{Value, json};

use super::envelope::cut;
use super::http::{ApiTrouble, Client, Question, form};
use crate::config::secret;
use crate::config::{CloudApiPlan, CloudAuth, ServiceUrl};

/// Projects whose names are read at most.
const PROJECTS_MAX: usize = 1 << 16;

/// Headers and places for the questions of one listing.
pub(super) struct Session {
    /// Of each question.
    pub(super) headers: Vec<(&'static str, String)>,
    /// Neutron; `None` where it is not to be asked.
    pub(super) network: Option<ServiceUrl>,
    /// Nova, likewise.
    pub(super) compute: Option<ServiceUrl>,
    /// Keystone.
    identity: Option<ServiceUrl>,
}

/// Without the headers, in which the token stands.
impl fmt::Debug for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = out.debug_struct("Session");
        out.field("network", &self.network).field("compute", &self.compute);
        out.finish_non_exhaustive()
    }
}

impl Session {
    /// Says who the probe is.
    pub(super) async fn open(client: &Client<'_>, plan: &CloudApiPlan) -> Result<Self, ApiTrouble> {
        let Some(body) = body(plan)? else { return Ok(Self::open_to_all(plan)) };
        let mut identity =
            plan.identity_url.clone().ok_or_else(|| form("api_identity_url", "none"))?;
        if !identity.path.ends_with("/v3") {
            identity.path.push_str("/v3");
        }
        let at = format!("{identity}/auth/tokens");
        let asked = client.ask(Question {
            method: Method::POST,
            url: &identity,
            target: "/auth/tokens".to_owned(),
            headers: &[],
            body: Some(body.to_string()),
        });
        let answer = asked.await?;
        let token = answer.token.ok_or_else(|| form(&at, "no X-Subject-Token"))?;
        let catalogue = answer.body.pointer("/token/catalog").and_then(Value::as_array);
        let catalogue = catalogue.map_or(&[][..], Vec::as_slice);
        let place = |given: &Option<ServiceUrl>, service| match given {
            Some(url) => Ok(Some(url.clone())),
            None => endpoint(catalogue, service, plan).map(Some),
        };
        Ok(Self {
            network: place(&plan.network_url, "network")?.map(networking),
            compute: place(&plan.compute_url, "compute")?.map(compute),
            headers: vec![("x-auth-token", token)],
            identity: Some(identity),
        })
    }

    /// To services that ask nobody who he is.
    fn open_to_all(plan: &CloudApiPlan) -> Self {
        let headers = [
            ("x-auth-token", "admin:admin"),
            ("x-user-id", "vmprobe"),
            ("x-project-id", "admin"),
            ("x-tenant-id", "admin"),
            ("x-roles", "admin"),
        ];
        Self {
            headers: headers.map(|(name, value)| (name, value.to_owned())).into(),
            network: plan.network_url.clone().map(networking),
            compute: plan.compute_url.clone().map(compute),
            identity: None,
        }
    }

    /// Ids and names of projects; nothing where the probe may not see them.
    pub(super) async fn projects(
        &self,
        client: &Client<'_>,
    ) -> Result<Vec<(Arc<str>, Arc<str>)>, ApiTrouble> {
        let Some(url) = &self.identity else { return Ok(Vec::new()) };
        let asked = client.ask(Question {
            method: Method::GET,
            url,
            target: "/projects".to_owned(),
            headers: &self.headers,
            body: None,
        });
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(trouble) if matches!(trouble.status(), Some(401 | 403 | 404)) => {
                return Ok(Vec::new());
            }
            Err(trouble) => return Err(trouble),
        };
        let projects = answer.body.get("projects").and_then(Value::as_array);
        let projects = projects.ok_or_else(|| form(&format!("{url}/projects"), "no projects"))?;
        let named = |project: &Value| {
            let text = |name| project.get(name)?.as_str().filter(|text| !text.is_empty()).map(cut);
            Some((text("id")?, text("name")?))
        };
        Ok(projects.iter().take(PROJECTS_MAX).filter_map(named).collect())
    }
}

/// Of networking API v2.
fn networking(mut url: ServiceUrl) -> ServiceUrl {
    if !url.path.ends_with("/v2.0") {
        url.path.push_str("/v2.0");
    }
    url
}

/// Of compute API v2.1; in old catalogues the project stands behind it.
fn compute(mut url: ServiceUrl) -> ServiceUrl {
    if url.path.is_empty() {
        url.path.push_str("/v2.1");
    }
    url
}

/// What Keystone is told; `None` where it is not asked.
fn body(plan: &CloudApiPlan) -> Result<Option<Value>, ApiTrouble> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let body = match plan.auth {
        CloudAuth::Off | CloudAuth::None => return Ok(None),
        CloudAuth::Password => json!({"auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {
                    "name": text(&plan.user),
                    "domain": {"name": plan.user_domain},
                    "password": secret(plan)?,
                }},
            },
            "scope": {"project": {
                "name": text(&plan.project),
                "domain": {"name": plan.project_domain},
            }},
        }}),
        CloudAuth::Credential => json!({"auth": {
            "identity": {
                "methods": ["application_credential"],
                "application_credential": {
                    "id": text(&plan.credential_id),
                    "secret": secret(plan)?,
                },
            },
        }}),
    };
    Ok(Some(body))
}

fn secret(plan: &CloudApiPlan) -> Result<String, ApiTrouble> {
    let place = plan.secret.as_ref().ok_or_else(|| form("api_secret", "none"))?;
    Ok(secret::read(place)?)
}

/// Where the catalogue says that a service is.
fn endpoint(
    catalogue: &[Value],
    service: &'static str,
    plan: &CloudApiPlan,
) -> Result<ServiceUrl, ApiTrouble> {
    let interface = plan.interface.as_str();
    let none = || ApiTrouble::NoEndpoint { service, interface: interface.to_owned() };
    let text = |value: &Value, name: &str| value.get(name)?.as_str().map(str::to_owned);
    let entries = catalogue.iter().filter(|entry| text(entry, "type").as_deref() == Some(service));
    let endpoints =
        entries.filter_map(|entry| entry.get("endpoints")?.as_array()).flat_map(|all| all.iter());
    let mut fitting = endpoints.filter(|endpoint| {
        let region = ["region", "region_id"].into_iter().find_map(|name| text(endpoint, name));
        text(endpoint, "interface").as_deref() == Some(interface)
            && (plan.region.is_none() || plan.region == region)
    });
    let url = fitting.find_map(|endpoint| text(endpoint, "url"));
    url.and_then(|url| url.parse().ok()).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretPlace;

    fn plan(region: Option<&str>) -> CloudApiPlan {
        let (region, interface) = (region.map(str::to_owned), "internal".to_owned());
        CloudApiPlan { region, interface, ..CloudApiPlan::default() }
    }

    #[test]
    fn the_catalogue_names_the_endpoint_of_region_and_interface() {
        let endpoint_of = |interface: &str, region: &str, url: &str| json!({"interface": interface, "region_id": region, "region": region, "url": url});
        let catalogue = [
            json!({"type": "compute", "endpoints": []}),
            json!({"type": "network", "endpoints": [
                endpoint_of("public", "a", "https://public:9696"),
                endpoint_of("internal", "a", "http://one:9696/"),
                endpoint_of("internal", "b", "http://two:9696/networking"),
            ]}),
        ];
        let found = |region| {
            let url = endpoint(&catalogue, "network", &plan(region));
            url.map(|url| networking(url).to_string()).ok()
        };
        assert_eq!(found(None).as_deref(), Some("http://one:9696/v2.0"));
        assert_eq!(found(Some("b")).as_deref(), Some("http://two:9696/networking/v2.0"));
        assert_eq!(found(Some("c")), None);
        let none = endpoint(&catalogue, "compute", &plan(None)).expect_err("none").to_string();
        assert!(none.contains("internal endpoint of the service compute"), "{none}");
    }

    #[test]
    fn a_session_shows_no_token() {
        let headers = vec![("x-auth-token", "t0ken".to_owned())];
        let session = Session { headers, network: None, compute: None, identity: None };
        let text = format!("{session:?}");
        assert!(text.starts_with("Session") && !text.contains("t0ken"), "{text}");
    }

    #[test]
    fn keystone_is_told_what_its_api_documents() {
        let file =
            std::env::temp_dir().join(format!("vmprobe-cloud-secret-{}", std::process::id()));
        std::fs::write(&file, "hunter2\nnot this\n").expect("a file");
        let text = |text: &str| Some(text.to_owned());
        let mut plan = CloudApiPlan {
            auth: CloudAuth::Password,
            user: text("u"),
            project: text("p"),
            project_domain: "other".to_owned(),
            credential_id: text("7"),
            secret: Some(SecretPlace::File(file.clone())),
            ..CloudApiPlan::default()
        };
        let told = body(&plan).expect("read").expect("asked");
        let user = json!({"name": "u", "domain": {"name": "Default"}, "password": "hunter2"});
        let identity = json!({"methods": ["password"], "password": {"user": user}});
        assert_eq!(told["auth"]["identity"], identity);
        let project = json!({"name": "p", "domain": {"name": "other"}});
        assert_eq!(told["auth"]["scope"]["project"], project);
        plan.auth = CloudAuth::Credential;
        let told = body(&plan).expect("read").expect("asked");
        let credential = json!({"id": "7", "secret": "hunter2"});
        assert_eq!(told["auth"]["identity"]["application_credential"], credential);
        assert!(told["auth"].get("scope").is_none(), "a credential has its own");
        std::fs::remove_file(&file).expect("removed");
        let gone = body(&plan).expect_err("no file").to_string();
        assert!(gone.contains("api_secret") && gone.contains("vmprobe-cloud-secret"), "{gone}");
        plan.secret = Some(SecretPlace::Variable("VMPROBE_NO_SUCH_VARIABLE".to_owned()));
        assert!(body(&plan).is_err_and(|error| error.to_string().contains("VMPROBE_NO_SUCH")));
        plan.auth = CloudAuth::None;
        assert_eq!(body(&plan).expect("read"), None);
    }
}
