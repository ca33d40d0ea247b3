//! A double of Keystone and Nova, and of a Neutron that has nothing, not the services themselves: it answers as
//! their API references document, and strictly: what they would refuse it refuses.
//!
//! Source: Identity API v3 (`POST /v3/auth/tokens`, `GET /v3/projects`), Compute API v2.1
//! (`GET /servers/detail`, `GET /os-services`; its guide, "Handling Down Cells").

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value as Json, json};

/// The secret that it wants.
pub const SECRET: &str = "correct horse battery staple";
const TOKEN: &str = "gAAAAABf-token";

/// What it answers with, beside what it finds wrong.
#[derive(Debug, Default)]
pub struct Script {
    /// Servers of all projects.
    pub servers: Vec<Json>,
    /// Where Neutron is, for the catalogue.
    pub network_url: String,
    /// Questions of servers are answered with 503.
    pub fails: AtomicBool,
    /// Nova does not reach the cell of so many of the last servers, each on a host of its own.
    pub down: AtomicUsize,
    /// It asks nobody who he is (`noauth2` of Nova, `auth_strategy = noauth` of Neutron).
    pub open: bool,
    /// Nova is older than Stein, and knows of no cells that are down.
    pub old: bool,
    /// Servers on one page at most, whatever is asked for.
    pub page_max: usize,
}

/// The double, for as long as it lives.
pub struct CloudDouble {
    /// Where it listens: Keystone below `/v3`, Nova below `/v2.1`.
    pub address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Asked {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl CloudDouble {
    /// Listens on a port of its own on loopback.
    pub fn start(script: Arc<Script>) -> Self {
        Self::start_at("127.0.0.1:0", script)
    }

    /// Listens where another one did.
    pub fn start_at(address: &str, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, own) = (Arc::clone(&stop), address.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                serve(stream, &script, &own);
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for CloudDouble {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, script: &Script, own: &str) {
    let mut reader = BufReader::new(stream);
    let Some(asked) = read(&mut reader) else { return };
    let (status, token, body) = answer(&asked, script, own);
    let body = body.to_string();
    let token = if token { format!("X-Subject-Token: {TOKEN}\r\n") } else { String::new() };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{token}\r\n",
        body.len()
    );
    let _ = reader.get_mut().write_all((head + &body).as_bytes());
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.strip_suffix("\r\n").map(str::to_owned)
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    while let Some((name, value)) = line()?.split_once(": ") {
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Some(Asked { method, path: path.to_owned(), query, headers, body })
}

impl Asked {
    fn header(&self, wanted: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    }

    fn query(&self, wanted: &str) -> Option<&str> {
        let found = self.query.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    }
}

fn problem(status: u16, message: &str) -> (u16, bool, Json) {
    (status, false, json!({"error": {"code": status, "message": message}}))
}

fn answer(asked: &Asked, script: &Script, own: &str) -> (u16, bool, Json) {
    if asked.header("host") != Some(own) {
        return problem(400, "another Host");
    }
    if asked.header("accept") != Some("application/json") {
        return problem(406, "JSON is all there is");
    }
    if (asked.method.as_str(), asked.path.as_str()) == ("POST", "/v3/auth/tokens") {
        return tokens(asked, script, own);
    }
    let wanted = if script.open { "admin:admin" } else { TOKEN };
    if asked.header("x-auth-token") != Some(wanted) {
        return problem(401, "The request you have made requires authentication.");
    }
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/v3/projects") => {
            let project = |id: &str, name: &str| json!({"id": id, "name": name, "enabled": true});
            (
                200,
                false,
                json!({"projects": [project("p1", "acme"), project("p2", "other")], "links": {}}),
            )
        }
        ("GET", "/v2.1/servers/detail") => servers(asked, script, own),
        ("GET", "/v2.1/os-services") => services(asked, script),
        ("GET", path) if path.starts_with("/v2.0/") => {
            let kind = path.trim_start_matches("/v2.0/");
            if !["networks", "subnets", "ports", "floatingips"].contains(&kind) {
                return problem(404, "The resource could not be found.");
            }
            (200, false, json!({ kind: [] }))
        }
        _ => problem(404, "The resource could not be found."),
    }
}

fn tokens(asked: &Asked, script: &Script, own: &str) -> (u16, bool, Json) {
    if asked.header("content-type") != Some("application/json") {
        return problem(415, "JSON is wanted");
    }
    let body: Json = serde_json::from_slice(&asked.body).unwrap_or_default();
    let user = json!({"name": "vmprobe", "domain": {"name": "Default"}, "password": SECRET});
    let password = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": {"project": {"name": "admin", "domain": {"name": "Default"}}},
    }});
    let credential = json!({"auth": {"identity": {
        "methods": ["application_credential"],
        "application_credential": {"id": "c1", "secret": SECRET},
    }}});
    if body != password && body != credential {
        return problem(401, "The request you have made requires authentication.");
    }
    let endpoint = |interface: &str, url: &str| json!({"interface": interface, "region": "r1", "region_id": "r1", "url": url, "id": "e"});
    let nova = format!("http://{own}/v2.1");
    let catalog = json!([
        {"type": "identity", "name": "keystone", "endpoints": [endpoint("public", &format!("http://{own}"))]},
        {"type": "network", "name": "neutron", "endpoints": [
            endpoint("internal", "http://127.0.0.1:1"), endpoint("public", &script.network_url)]},
        {"type": "compute", "name": "nova", "endpoints": [endpoint("public", &nova)]},
    ]);
    let token = json!({"methods": ["password"], "expires_at": "2099-01-01T00:00:00.000000Z", "catalog": catalog});
    (201, true, json!({ "token": token }))
}

fn servers(asked: &Asked, script: &Script, own: &str) -> (u16, bool, Json) {
    if script.fails.load(Ordering::Relaxed) {
        return problem(503, "Nova is not itself today.");
    }
    if asked.query("all_tenants") != Some("1") {
        return (200, false, json!({"servers": []}));
    }
    let Some(limit) = asked.query("limit").and_then(|limit| limit.parse::<usize>().ok()) else {
        return problem(400, "limit");
    };
    // A list that comes page by page leaves the servers of such cells out.
    let there = script.servers.len().saturating_sub(script.down.load(Ordering::Relaxed));
    let there = &script.servers[..there];
    let begin = match asked.query("marker") {
        None => 0,
        Some(marker) => match there.iter().position(|server| server["id"] == marker) {
            Some(place) => place + 1,
            None => return problem(400, "marker not found"),
        },
    };
    let rest = &there[begin..];
    let page = &rest[..rest.len().min(limit).min(script.page_max)];
    let mut body = json!({ "servers": page });
    if page.len() < rest.len() {
        let href = format!("http://{own}/v2.1/servers/detail?limit={limit}&marker=elsewhere");
        body["servers_links"] = json!([{"rel": "next", "href": href}]);
    }
    (200, false, body)
}

fn services(asked: &Asked, script: &Script) -> (u16, bool, Json) {
    let version = asked.header("openstack-api-version");
    if script.old && version.is_some_and(|version| version != "compute 2.1") {
        return problem(406, "Version 2.69 is not supported by the API.");
    }
    let service = |host: usize| {
        json!({
            "id": host, "binary": "nova-compute", "host": format!("host{host}"), "state": "up",
            "status": "enabled", "zone": "nova", "updated_at": "2026-01-01T00:00:00.000000",
            "disabled_reason": null, "forced_down": false,
        })
    };
    let mut services = vec![service(1)];
    // They stand there for who knows of them.
    if version == Some("compute 2.69") {
        let unknown = |host: usize| json!({"binary": "nova-compute", "host": format!("down{host}"), "status": "UNKNOWN"});
        services.extend((0..script.down.load(Ordering::Relaxed)).map(unknown));
    }
    (200, false, json!({ "services": services }))
}
