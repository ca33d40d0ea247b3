//! The server side over real connections on loopback, with made-up snapshots.

#[path = "../examples/serve_fixture/snapshot.rs"]
mod snapshot;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use vmprobe::aggregate::live::{LiveCell, live_cell};
use vmprobe::config::ServePlan;
use vmprobe::inventory::Inventory;
use vmprobe::serve::{self, InventoryApi, OPENAPI_DOCUMENT, STREAMS_MAX, ServeError, ServeHandle};
use vmprobe::sources::InventoryStatus;
use vmprobe::sources::ovsdb::{Coverage, InterfaceCoverage, MirrorState, Mirrored, SwitchCoverage};
use vmprobe::time::{monotonic_ns, ms, sleep_ms};

const PATIENCE: Duration = Duration::from_secs(10);

fn plan(listen: SocketAddr) -> ServePlan {
    ServePlan { enabled: true, listen }
}

fn any_port() -> ServePlan {
    plan(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn serving() -> (ServeHandle, LiveCell) {
    let cell = live_cell(snapshot::normal(snapshot::FIRST_TICK));
    let handle = serve::start(&any_port(), Arc::clone(&cell)).expect("starts");
    (handle, cell)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("read time limit");
    stream
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends `request` as it is and reads the answer to the end.
fn raw(address: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("sends");
    let mut bytes = Vec::new();
    // A server that refuses a long head may reset the connection after its answer.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    raw(address, &format!("{head}{headers}\r\n"))
}

fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, "")
}

/// The answer at `path` as soon as `test` holds for it, or after 5 s the last one.
fn wait_for(address: SocketAddr, path: &str, test: impl Fn(&Answer) -> bool) -> Answer {
    let end = monotonic_ns() + ms(5_000);
    loop {
        let answer = get(address, path);
        if test(&answer) || monotonic_ns() > end {
            return answer;
        }
        sleep_ms(20);
    }
}

fn document() -> Value {
    serde_json::from_str(OPENAPI_DOCUMENT).expect("JSON")
}

/// Compares `value` with a schema of the document: as much of JSON Schema as the document uses.
fn conforms(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(&reference[1..]).ok_or(format!("{reference} is missing"))?;
        return conforms(document, target, value, at);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => name.as_str().into_iter().collect(),
    };
    if !types.iter().any(|name| is_of(name, value)) {
        return Err(format!("{at}: {value} is not {types:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{at}: {value} is not one of {allowed:?}"));
    }
    for (place, item) in value.as_array().into_iter().flatten().enumerate() {
        conforms(document, &schema["items"], item, &format!("{at}[{place}]"))?;
    }
    value.as_object().map_or(Ok(()), |object| members_conform(document, schema, object, at))
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the document has type {other}"),
    }
}

fn members_conform(
    document: &Value,
    schema: &Value,
    object: &serde_json::Map<String, Value>,
    at: &str,
) -> Result<(), String> {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            return Err(format!("{at}.{name} is missing"));
        }
    }
    for (name, member) in object {
        let known = &schema["properties"][name];
        let rule = if known.is_null() { &schema["additionalProperties"] } else { known };
        if rule.is_object() {
            conforms(document, rule, member, &format!("{at}.{name}"))?;
        } else if schema["properties"].is_object() {
            return Err(format!("{at}.{name} is not in the document"));
        }
    }
    Ok(())
}

#[test]
fn the_document_has_the_router_s_routes() {
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    let mut stated: Vec<&str> = paths.keys().map(String::as_str).collect();
    let mut routed = serve::route_paths();
    stated.sort_unstable();
    routed.sort_unstable();
    assert_eq!(stated, routed);
}

#[test]
fn every_answer_is_as_the_document_says() {
    let document = document();
    for make in [snapshot::normal, |_| snapshot::empty(), snapshot::fault, snapshot::one_tap] {
        let cell = live_cell(make(snapshot::FIRST_TICK));
        let handle = serve::start(&any_port(), cell).expect("starts");
        for (path, item) in document["paths"].as_object().expect("paths") {
            if path.ends_with("stream") || path.contains('{') {
                continue;
            }
            let answer = get(handle.address(), path);
            let code = answer.status.to_string();
            // A fault of the probe, and records that are not kept, are told as such.
            let may_fail = ["/healthz", "/api/v1/topology"].contains(&path.as_str());
            assert!(answer.status == 200 || may_fail, "{path}: {answer:?}");
            let content = item["get"]["responses"][&code]["content"].as_object().expect(path);
            let (media_type, body) = content.iter().next().expect("one media type");
            let sent = answer.header("content-type").expect("content type");
            assert!(sent.starts_with(media_type.as_str()), "{path}: {sent}");
            if media_type == "application/json" {
                assert_eq!(conforms(&document, &body["schema"], &answer.json(), path), Ok(()));
            }
        }
        handle.stop();
    }
}

#[test]
fn coverage_is_as_the_document_says() {
    let mirror = MirrorState { output_vlan: Some(99), ..MirrorState::default() };
    let interface = InterfaceCoverage {
        source: "ovsdb:a".to_owned(),
        host: Some("h1".to_owned()),
        mac: Some("02:00:00:00:00:01".to_owned()),
        vlan: Some(10),
        sent: Mirrored::Elsewhere,
        coverage: Coverage::OneDirection,
        mirrors: vec!["m0".to_owned()],
        snap_octets: Some(96),
        ..InterfaceCoverage::default()
    };
    let switch = SwitchCoverage {
        as_of_ns: Some(7),
        interfaces: [("one_direction", 1)].into(),
        mirrors: vec![mirror],
        list: vec![interface, InterfaceCoverage::default()],
        ..SwitchCoverage::default()
    };
    let status = InventoryStatus { switches: vec![Arc::new(switch)], ..InventoryStatus::default() };
    let api = InventoryApi::of(Inventory::default());
    api.view.status.store(Arc::new(status));
    let cell = live_cell(snapshot::empty());
    let handle = serve::start_with(&any_port(), cell, api, None).expect("starts");
    let answer = get(handle.address(), "/api/v1/coverage").json();
    let schema = serde_json::json!({"$ref": "#/components/schemas/CoveragePage"});
    assert_eq!(conforms(&document(), &schema, &answer, "coverage"), Ok(()));
    assert_eq!(answer["items"][0]["coverage"], "one_direction");
    let chosen = get(handle.address(), "/api/v1/coverage?coverage=not_mirrored&limit=1").json();
    assert_eq!((&chosen["total"], &chosen["items"][0]["sent"]), (&1.into(), &"no".into()));
    assert_eq!(get(handle.address(), "/api/v1/coverage?coverage=half").status, 400);
    let metrics = get(handle.address(), "/metrics").body;
    let line = "vmprobe_coverage_interfaces{source=\"\",coverage=\"one_direction\"} 1.0";
    assert!(metrics.contains(line), "{metrics}");
    handle.stop();
}

#[test]
fn the_page_and_its_files_are_served() {
    let (handle, _cell) = serving();
    let page = get(handle.address(), "/");
    assert!(page.body.contains("<title>vmprobe</title>"));
    let files = page.body.split("\"/page/").skip(1).filter_map(|rest| rest.split('"').next());
    let files: Vec<&str> = files.chain(["i18n.json", "chart.js"]).collect();
    assert!(files.len() > 4, "{files:?}");
    for file in files {
        assert_eq!(get(handle.address(), &format!("/page/{file}")).status, 200, "{file}");
    }
    for path in ["/page/", "/page/..%2fmod.rs", "/page/other.js", "/nothing", "/api/v1/nothing"] {
        let answer = get(handle.address(), path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()["error"].is_string(), "{path}");
    }
    handle.stop();
}

#[test]
fn lists_are_filtered_and_cut() {
    let (handle, _cell) = serving();
    let ask = |path: &str| get(handle.address(), path).json();
    assert_eq!(ask("/api/v1/conversations")["total"], 17);
    let two = ask("/api/v1/conversations?tenant=globex&limit=2&offset=1");
    assert_eq!(two["total"], 4);
    assert_eq!(two["items"].as_array().map(Vec::len), Some(2));
    let transit = ask("/api/v1/conversations?class=transit");
    assert_eq!(transit["items"][0]["destination_address"], "192.0.2.9");
    assert_eq!(ask("/api/v1/conversations?vm=shop%2Dweb")["total"], 3);
    assert_eq!(ask("/api/v1/alerts?severity=critical")["total"], 1);
    assert_eq!(ask("/api/v1/alerts?state=closed&severity=critical")["total"], 0);
    assert_eq!(ask("/api/v1/workers?port=mirror-b")["items"][0]["worker"], 1);
    assert_eq!(ask("/api/v1/taps?host=leaf-3")["items"][0]["name"], "border-erspan");
    assert_eq!(ask("/api/v1/migrations")["total"], 3);
    assert_eq!(ask("/api/v1/migrations?vm=red-app-1&tenant=red")["total"], 2);
    let seen = &ask("/api/v1/migrations?address=10.0.0.31&host=hv-12-02")["items"][0];
    assert_eq!((&seen["detected"], &seen["reported_by"]), (&Value::Bool(true), &Value::Null));
    assert_eq!(ask("/api/v1/paths")["total"], 3);
    let way = &ask("/api/v1/paths?from_tap=rack12-ovs1&to_tap=rack12-ovs2")["items"][0];
    assert_eq!(
        (&way["clock_offset_ns"], &way["clock_offset_bound_ns"]),
        (&(-1_250_000).into(), &38_400.into())
    );
    assert_eq!(ask("/api/v1/paths?from_tap=border-erspan")["total"], 0);
    assert_eq!(ask("/api/v1/paths?host=leaf-3")["items"][0]["delay_mean_ns"], Value::Null);
    let ledger = ask("/api/v1/ledger");
    assert_eq!(ledger["unaccounted"], 0);
    assert!(ledger["meanings"]["duplicate"].is_string());
    handle.stop();
}

#[test]
fn bad_parameters_say_what_is_allowed() {
    let (handle, _cell) = serving();
    let schema = serde_json::json!({"$ref": "#/components/schemas/Problem"});
    for (path, allowed) in [
        ("/api/v1/conversations?limit=0", "1 to 200"),
        ("/api/v1/conversations?limit=x", "1 to 200"),
        ("/api/v1/conversations?offset=-1", "0 to 100000"),
        ("/api/v1/conversations?class=sideways", "inter_tenant"),
        ("/api/v1/conversations?colour=red", "segment"),
        ("/api/v1/conversations?limit=1&limit=2", "once"),
        ("/api/v1/alerts?severity=loud", "critical"),
        ("/api/v1/taps?name=", "1 to 128"),
        ("/api/v1/paths?from_tap=", "1 to 128"),
        ("/api/v1/migrations?segment=a", "vm, tenant, address, host"),
        ("/api/v1/paths?tap=a", "from_tap, to_tap, host"),
        ("/api/v1/paths?limit=201", "1 to 200"),
        ("/api/v1/live?x=1", "no parameters"),
        ("/api/v1/ledger?limit=1", "no parameters"),
    ] {
        let answer = get(handle.address(), path);
        assert_eq!(answer.status, 400, "{path}");
        let problem = answer.json();
        let text = problem["allowed"].as_str().unwrap_or_default();
        assert!(text.contains(allowed), "{path}: {problem}");
        assert_eq!(conforms(&document(), &schema, &problem, path), Ok(()));
    }
    handle.stop();
}

#[test]
fn other_methods_and_large_requests_are_refused() {
    let (handle, _cell) = serving();
    let address = handle.address();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = ask(address, method, "/api/v1/live", "Content-Length: 0\r\n");
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.json()["allowed"], "GET, HEAD");
    }
    let head = ask(address, "HEAD", "/api/v1/live", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(ask(address, "GET", "/", "Content-Length: 5000\r\n").status, 413);
    let long = format!("X-Long: {}\r\n", "x".repeat(40_000));
    assert_eq!(ask(address, "GET", "/", &long).status, 431);
    handle.stop();
}

#[test]
fn only_loopback_names_are_answered() {
    let (handle, _cell) = serving();
    let address = handle.address();
    for host in
        ["Host: rebind.example.org", "Host: 192.0.2.1", "Host: localhost\r\nHost: x", "X: y"]
    {
        for path in ["/", "/api/v1/live", "/metrics", "/nothing"] {
            let request = format!("GET {path} HTTP/1.1\r\n{host}\r\nConnection: close\r\n\r\n");
            assert_eq!(raw(address, &request).status, 403, "{host} {path}");
        }
    }
    for host in [address.to_string(), "localhost:1".to_owned(), "[::1]:8080".to_owned()] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(raw(address, &request).status, 200, "{host}");
    }
    handle.stop();
}

#[test]
fn every_answer_keeps_browsers_strict() {
    let (handle, _cell) = serving();
    for path in ["/", "/page/page.js", "/api/v1/live", "/metrics", "/healthz", "/nothing"] {
        let answer = get(handle.address(), path);
        let policy = answer.header("content-security-policy").expect(path);
        assert!(policy.starts_with("default-src 'self';"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
        assert!(answer.header("cache-control").is_some(), "{path}");
    }
    handle.stop();
}

#[test]
fn health_names_every_reason_and_recovers() {
    let (handle, cell) = serving();
    let address = handle.address();
    assert_eq!(get(address, "/healthz").status, 200);
    cell.store(Arc::new(snapshot::fault(snapshot::FIRST_TICK + 1)));
    let sick = wait_for(address, "/healthz", |answer| answer.status == 503).json();
    let reasons = sick["reasons"].as_array().expect("reasons");
    let codes: Vec<_> = reasons.iter().filter_map(|reason| reason["code"].as_str()).collect();
    assert_eq!(codes, ["unaccounted", "store", "sink"]);
    cell.store(Arc::new(snapshot::normal(snapshot::FIRST_TICK + 2)));
    assert_eq!(wait_for(address, "/healthz", |answer| answer.status == 200).status, 200);
    handle.stop();
}

#[test]
fn metrics_follow_the_snapshot_in_both_forms() {
    let (handle, cell) = serving();
    let address = handle.address();
    let text = get(address, "/metrics");
    assert!(text.header("content-type").is_some_and(|kind| kind.contains("0.0.4")));
    assert!(text.body.contains("\nvmprobe_packets_unaccounted{} 0.0\n"), "{}", text.body);
    assert!(text.body.contains("\nvmprobe_windows_closed_total{} 260\n"), "{}", text.body);
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let open = ask(address, "GET", "/metrics", accept);
    assert!(open.header("content-type").is_some_and(|kind| kind.contains("openmetrics")));
    assert!(open.body.ends_with("# EOF\n"));
    cell.store(Arc::new(snapshot::normal(snapshot::FIRST_TICK + 1)));
    let next = "\nvmprobe_windows_closed_total{} 261\n";
    let later = wait_for(address, "/metrics", |answer| answer.body.contains(next));
    assert!(later.body.contains(next));
    promtool(&text.body);
    handle.stop();
}

/// Prometheus's own check, where it is installed.
fn promtool(metrics: &str) {
    let program = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let mut command = Command::new(program);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.stderr(Stdio::piped()).spawn() else {
        let _ = writeln!(std::io::stderr(), "promtool is not installed: its check was left out");
        return;
    };
    child.stdin.take().expect("input").write_all(metrics.as_bytes()).expect("input taken");
    let output = child.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// A client of the live stream.
struct Stream {
    socket: TcpStream,
    text: String,
}

impl Stream {
    fn open(address: SocketAddr) -> Self {
        let mut socket = connect(address);
        let request = "GET /api/v1/live/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
        socket.write_all(request.as_bytes()).expect("sends");
        Self { socket, text: String::new() }
    }

    /// Reads until `test` holds for all that came so far, or the stream ends.
    fn read_until(&mut self, test: impl Fn(&str) -> bool) -> &str {
        let mut bytes = vec![0; 1 << 16];
        while !test(&self.text) {
            let count = self.socket.read(&mut bytes).expect("stream goes on");
            if count == 0 {
                break;
            }
            self.text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        &self.text
    }

    fn status(&mut self) -> u16 {
        let text = self.read_until(|text| text.contains("\r\n\r\n"));
        text.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("status")
    }
}

fn events(text: &str) -> usize {
    text.matches("event: live\ndata: {").count()
}

fn window(tick: u64) -> String {
    format!("\"window_count\":{tick},")
}

#[test]
fn the_stream_sends_the_newest_and_then_each_window() {
    let (handle, cell) = serving();
    let mut stream = Stream::open(handle.address());
    assert_eq!(stream.status(), 200);
    let text = stream.read_until(|text| text.contains(&window(snapshot::FIRST_TICK)));
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    assert!(text.contains("retry: 2000\n"), "{text}");
    for tick in snapshot::FIRST_TICK + 1..=snapshot::FIRST_TICK + 3 {
        cell.store(Arc::new(snapshot::normal(tick)));
        let text = stream.read_until(|text| text.contains(&window(tick)));
        assert!(text.contains(&window(tick)));
    }
    assert_eq!(events(&stream.text), 4);
    handle.stop();
    let text = stream.read_until(|_| false);
    assert!(text.ends_with("0\r\n\r\n"), "the stream ends in order");
}

#[test]
fn streams_are_bounded_and_places_come_back() {
    let (handle, _cell) = serving();
    let address = handle.address();
    let mut streams: Vec<_> = (0..STREAMS_MAX).map(|_| Stream::open(address)).collect();
    for stream in &mut streams {
        assert_eq!(stream.status(), 200);
    }
    let refused = get(address, "/api/v1/live/stream");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert!(refused.json()["allowed"].as_str().is_some_and(|text| text.contains("64")));
    assert_eq!(get(address, "/api/v1/live").status, 200);
    streams.truncate(STREAMS_MAX / 2);
    let end = monotonic_ns() + ms(5_000);
    while Stream::open(address).status() != 200 {
        assert!(monotonic_ns() < end, "no place came back");
        sleep_ms(50);
    }
    handle.stop();
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let (handle, cell) = serving();
    let address = handle.address();
    let mut slow = Stream::open(address);
    assert_eq!(slow.status(), 200);
    let last = snapshot::FIRST_TICK + 100;
    let base = snapshot::normal(snapshot::FIRST_TICK);
    let begun_ns = monotonic_ns();
    for tick in snapshot::FIRST_TICK + 1..=last {
        let mut next = base.clone();
        next.window_count = tick;
        cell.store(Arc::new(next));
        sleep_ms(3);
    }
    // It looks 20 times a second.
    let looks = (monotonic_ns() - begun_ns) / ms(50);
    let newest = wait_for(address, "/api/v1/live", |answer| answer.body.contains(&window(last)));
    assert!(newest.body.contains(&window(last)), "others get the newest window");
    let text = slow.read_until(|text| text.contains(&window(last)));
    let seen = u64::try_from(events(text)).expect("few");
    assert!(
        seen <= looks + 5,
        "windows that closed in between are passed over: {seen}, {looks} looks"
    );
    let begun = monotonic_ns();
    handle.stop();
    assert!(monotonic_ns() - begun < ms(4_000));
}

#[test]
fn a_head_that_does_not_arrive_is_cut() {
    let (handle, _cell) = serving();
    let mut silent = connect(handle.address());
    let mut partial = connect(handle.address());
    partial.write_all(b"GET / HTTP/1.1\r\nHost: local").expect("sends");
    let begun = monotonic_ns();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).expect("closed");
    partial.read_to_end(&mut rest).expect("closed");
    assert!(monotonic_ns() - begun < ms(9_000), "both are closed by the head's time limit");
    handle.stop();
}

#[test]
fn a_busy_port_and_a_foreign_address_are_clear_errors() {
    let busy = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let listen = busy.local_addr().expect("address");
    let error = serve::start(&plan(listen), live_cell(snapshot::empty())).expect_err("busy");
    assert!(matches!(error, ServeError::PortBusy { .. }), "{error}");
    assert!(error.to_string().contains("serve.listen"), "{error}");
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let error = serve::start(&plan(everywhere), live_cell(snapshot::empty())).expect_err("foreign");
    assert!(matches!(error, ServeError::NotLoopback { .. }), "{error}");
}

#[test]
fn stop_is_bounded_and_frees_the_port() {
    let (handle, cell) = serving();
    let address = handle.address();
    let mut reading = Stream::open(address);
    let idle = connect(address);
    assert_eq!(reading.status(), 200);
    let begun = monotonic_ns();
    handle.stop();
    assert!(monotonic_ns() - begun < ms(4_000));
    drop((idle, reading));
    serve::start(&plan(address), cell).expect("the port is free again").stop();
}
