//! What is there, as the APIs of a cloud list it.
//!
//! In: the plan. Out: a [`Listing`]: networks, subnets, ports with their trunks, and floating addresses of
//! Neutron, servers of Nova, names of projects.
//! Cost: a question for each page; what is listed is in memory once.
//! Invariants: at most [`ITEMS_MAX`] of a kind, else an error: half a list would end what stands in the
//! other half. A page that does not go on from the one before is an error too.
//! Source: OpenStack networking API v2.0 (`limit`, `marker`, `ports_links`), compute API v2.1
//! (`/servers/detail?all_tenants=1`, `servers_links`; `/os-services`), its guide, "Handling Down Cells".

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use super::envelope::Object;
use super::http::{ApiTrouble, Client, Question, form};
use super::identity::Session;
use super::nova;
use crate::config::{CloudApiPlan, CloudAuth, ServiceUrl};
use crate::inventory::Uuid;
use crate::time::{Timestamp, wall_clock};

/// Items of one kind at most.
const ITEMS_MAX: usize = 1 << 19;
/// The first version of the compute API that tells of cells that are down.
const CELLS_VERSION: &str = "compute 2.69";
/// Largest file of certificates.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What Neutron has.
#[derive(Debug, Default)]
pub(super) struct Networking {
    pub(super) networks: Vec<Object>,
    pub(super) subnets: Vec<Object>,
    pub(super) ports: Vec<Object>,
    pub(super) floating: Vec<Object>,
}

/// What is there.
#[derive(Debug)]
pub(super) struct Listing {
    /// When the first question was asked, by the probe's clock: what is not listed ended before.
    pub(super) began: Timestamp,
    /// `None` where Neutron is not asked.
    pub(super) networking: Option<Networking>,
    /// `None` where Nova is not asked.
    pub(super) servers: Option<Vec<Object>>,
    /// Hosts of cells that Nova did not reach, whose servers are not listed.
    pub(super) hosts_unseen: usize,
    /// Ids and names.
    pub(super) projects: Vec<(Arc<str>, Arc<str>)>,
}

impl Listing {
    /// Whether Nova did not reach all servers that it has.
    pub(super) fn is_partial(&self) -> bool {
        self.hosts_unseen > 0 || self.servers.iter().flatten().any(nova::is_unseen)
    }
}

/// Asks for everything, within the time that it may take.
pub(super) async fn list(plan: &CloudApiPlan) -> Result<Listing, ApiTrouble> {
    let patience = Duration::from_secs(plan.list_timeout_s.into());
    let listed = tokio::time::timeout(patience, list_all(plan)).await;
    listed.map_err(|_| ApiTrouble::ListTimeout)?
}

async fn list_all(plan: &CloudApiPlan) -> Result<Listing, ApiTrouble> {
    let began = wall_clock();
    let read = |error| ApiTrouble::Authorities { path: plan.ca_file.clone(), error };
    let pem = wants_tls(plan).then(|| certificates(plan)).transpose().map_err(read)?;
    let client = Client::new(plan, pem.as_deref()).map_err(read)?;
    let session = Session::open(&client, plan).await?;
    let lister = Lister { plan, client: &client, session: &session };
    let networking = match &session.network {
        Some(url) => Some(lister.networking(url).await?),
        None => None,
    };
    let (mut servers, mut hosts_unseen) = (None, 0);
    if let Some(url) = &session.compute {
        // Before and after, for a cell may go and come.
        let before = lister.hosts_unseen(url).await?;
        servers = Some(lister.pages(url, "/servers/detail", "all_tenants=1&", "servers").await?);
        hosts_unseen = before.max(lister.hosts_unseen(url).await?);
    }
    let projects = session.projects(&client).await?;
    Ok(Listing { began, networking, servers, hosts_unseen, projects })
}

/// Whether a service may be reached by `https`: the catalogue may name such a one.
fn wants_tls(plan: &CloudApiPlan) -> bool {
    let given = [&plan.identity_url, &plan.network_url, &plan.compute_url];
    given.into_iter().flatten().any(|url| url.tls)
        || (plan.auth != CloudAuth::None && plan.ca_file.is_file())
}

fn certificates(plan: &CloudApiPlan) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut pem = Vec::new();
    std::fs::File::open(&plan.ca_file)?.take(FILE_BYTES_MAX).read_to_end(&mut pem)?;
    Ok(pem)
}

struct Lister<'a> {
    plan: &'a CloudApiPlan,
    client: &'a Client<'a>,
    session: &'a Session,
}

impl Lister<'_> {
    async fn networking(&self, url: &ServiceUrl) -> Result<Networking, ApiTrouble> {
        Ok(Networking {
            networks: self.pages(url, "/networks", "", "networks").await?,
            subnets: self.pages(url, "/subnets", "fields=id&fields=network_id&", "subnets").await?,
            ports: self.pages(url, "/ports", "", "ports").await?,
            floating: match self.pages(url, "/floatingips", "", "floatingips").await {
                // A cloud without routers has none.
                Err(trouble) if trouble.status() == Some(404) => Vec::new(),
                listed => listed?,
            },
        })
    }

    /// Hosts whose cell Nova does not reach. Its lists of servers leave the servers of such cells out without
    /// a word where they come page by page; its list of services names the hosts. Not where the probe may
    /// not see that list, or Nova is older than Stein.
    async fn hosts_unseen(&self, url: &ServiceUrl) -> Result<usize, ApiTrouble> {
        let path = "/os-services";
        let mut headers = self.session.headers.clone();
        headers.push(("openstack-api-version", CELLS_VERSION.to_owned()));
        let asked = self.client.ask(Question {
            method: Method::GET,
            url,
            target: format!("{path}?binary=nova-compute"),
            headers: &headers,
            body: None,
        });
        let mut answer = match asked.await {
            Ok(answer) => answer,
            Err(trouble) if matches!(trouble.status(), Some(403 | 404 | 406)) => return Ok(0),
            Err(trouble) => return Err(trouble),
        };
        let services = answer.body.get_mut("services").map(Value::take);
        let Some(Value::Array(services)) = services else {
            return Err(form(&format!("{url}{path}"), "services"));
        };
        let is_unseen =
            |service: &&Value| service.get("status").and_then(Value::as_str) == Some(nova::UNSEEN);
        Ok(services.iter().filter(is_unseen).count())
    }

    /// All pages of one kind.
    async fn pages(
        &self,
        url: &ServiceUrl,
        path: &str,
        query: &str,
        name: &'static str,
    ) -> Result<Vec<Object>, ApiTrouble> {
        let at = format!("{url}{path}");
        let mut items: Vec<Object> = Vec::new();
        let mut marker: Option<Uuid> = None;
        loop {
            let from = marker.map(|marker| format!("&marker={marker}")).unwrap_or_default();
            let target = format!("{path}?{query}limit={}{from}", self.plan.page_items);
            let asked = self.client.ask(Question {
                method: Method::GET,
                url,
                target,
                headers: &self.session.headers,
                body: None,
            });
            let Page { found, goes_on } =
                page(asked.await?.body, name).ok_or_else(|| form(&at, name))?;
            if items.len() + found.len() > ITEMS_MAX {
                return Err(ApiTrouble::TooMany { at, name, max: ITEMS_MAX });
            }
            let last = found.last().and_then(|item| item.get("id")?.as_str()?.parse().ok());
            items.extend(found);
            if !goes_on {
                return Ok(items);
            }
            if last.is_none() || last == marker {
                return Err(form(&at, "a page does not go on from the one before"));
            }
            marker = last;
        }
    }
}

struct Page {
    found: Vec<Object>,
    goes_on: bool,
}

/// `{"ports": […], "ports_links": [{"rel": "next", "href": …}]}`. Where the link leads is not asked: it is
/// the same question with the last item as the marker.
fn page(mut body: Value, name: &str) -> Option<Page> {
    let links = body.get(format!("{name}_links")).and_then(Value::as_array);
    let next = |link: &Value| link.get("rel").and_then(Value::as_str) == Some("next");
    let goes_on = links.is_some_and(|links| links.iter().any(next));
    let Value::Array(items) = body.get_mut(name)?.take() else { return None };
    let object = |item| if let Value::Object(object) = item { Some(object) } else { None };
    let found: Option<Vec<Object>> = items.into_iter().map(object).collect();
    Some(Page { found: found?, goes_on })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    /// Answers each question with a page that another one follows, of so many octets at least.
    fn endless(bytes: usize) -> ServiceUrl {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let place = listener.local_addr().expect("its address");
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                    line.clear();
                }
                let item =
                    json!({"id": Uuid(number as u128).to_string(), "name": "n".repeat(bytes)});
                let body =
                    json!({"networks": [item], "networks_links": [{"rel": "next"}]}).to_string();
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                let _ = reader.get_mut().write_all((head + &body).as_bytes());
            }
        });
        format!("http://{place}").parse().expect("a URL")
    }

    fn fails(url: ServiceUrl, list_mib_max: u32, list_timeout_s: u32) -> String {
        let plan = CloudApiPlan {
            auth: CloudAuth::None,
            network_url: Some(url),
            answer_mib_max: 1,
            list_mib_max,
            list_timeout_s,
            ..CloudApiPlan::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let listed = runtime.expect("a thread").block_on(list(&plan));
        listed.expect_err("it never ends").to_string()
    }

    #[test]
    fn a_list_is_bounded_in_octets_and_in_time() {
        let error = fails(endless(2 << 20), 512, 60);
        assert!(error.ends_with("the answer is larger than api_answer_mib_max"), "{error}");
        let error = fails(endless(300 << 10), 1, 60);
        assert!(error.ends_with("larger together than api_list_mib_max"), "{error}");
        let error = fails(endless(1), 512, 1);
        assert_eq!(error, "the list took longer than api_list_timeout_s");
    }

    #[test]
    fn pages_say_whether_they_go_on() {
        let read = |body: Value| page(body, "ports").map(|page| (page.found.len(), page.goes_on));
        let links = |rel: &str| json!([{"rel": rel, "href": "http://elsewhere/"}]);
        assert_eq!(read(json!({"ports": [{"id": "1"}, {}]})), Some((2, false)));
        assert_eq!(read(json!({"ports": [], "ports_links": links("previous")})), Some((0, false)));
        assert_eq!(read(json!({"ports": [{}], "ports_links": links("next")})), Some((1, true)));
        for body in [json!({}), json!([]), json!({"ports": {}}), json!({"ports": [1]})] {
            assert_eq!(read(body.clone()), None, "{body}");
        }
    }
}
