//! IPFIX at real collectors: nfcapd, nfacctd, tshark, and a reader of the protocol in Python.

mod extremes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use vmprobe::config::SinkPlan;
use vmprobe::export::Sinks;
use vmprobe::export::ipfix::markdown;
use vmprobe::record::{FlowRecord, Group, Record, Rows, SegmentCounts, Table, TableVisitor};
use vmprobe::time::sleep_ms;
use vmprobe_tests::end_to_end::{
    Folder, free_port, missing, missing_tools, run_to_end, skipped, until, vmprobe,
};
use vmprobe_tests::sinks::{
    NOW, SOON_S, all_delivered, failing, one_kill, only, origin, plan_of as plan, some_delivered,
    start,
};

fn sink(url: &str, rest: &str) -> SinkPlan {
    plan(&format!(
        "[[sink.ipfix]]\nname = \"i\"\nurl = \"{url}\"\nretry_max_ms = 200\nbatch_ms = 20\n{rest}"
    ))
}

/// A flow that no other is like: its number is in its addresses, ports, times and counts.
fn flow(number: u64) -> FlowRecord {
    let low = u16::try_from(number % 50_000).expect("it fits");
    let six = number.is_multiple_of(3);
    let address = |side: u16| {
        let [high, low_octet] = low.to_be_bytes();
        let block = u8::try_from(number / 50_000).expect("few");
        if six {
            format!("2001:db8:{block:x}:{side:x}::{low:x}").parse()
        } else {
            format!("10.{}.{high}.{low_octet}", side + 10 * u16::from(block)).parse()
        }
    };
    let start = NOW.as_ns() + number * 1_000_003;
    FlowRecord {
        flow_id: number << 40 | 0xff,
        segment: format!("default/vlan/{}", number % 4_000 + 1).into(),
        address_space: "default".into(),
        source_address: address(1).expect("an address"),
        destination_address: address(2).expect("an address"),
        source_port: 1_024 + low,
        destination_port: 443,
        protocol_identifier: if number.is_multiple_of(2) { 6 } else { 17 },
        ip_version: if six { 6 } else { 4 },
        flow_start_ns: start,
        flow_end_ns: start + 123_456_789,
        flow_end_reason: 3,
        packet_delta_count: number + 1,
        octet_delta_count: number * 1_000 + 60,
        reverse_packet_delta_count: number * 2 + 1,
        reverse_octet_delta_count: number * 3_000 + 52,
        tcp_control_bits: if number.is_multiple_of(2) { 0x1b } else { 0 },
        reverse_tcp_control_bits: if number.is_multiple_of(2) { 0x12 } else { 0 },
        source_mac: (!number.is_multiple_of(5))
            .then(|| "fa:16:3e:00:00:01".parse().expect("a MAC")),
        handshake_server_rtt_ns: (number.is_multiple_of(4)).then_some(number),
        segments: if number.is_multiple_of(6) {
            Group::Own(Arc::new(SegmentCounts([[number, 2]; 15])))
        } else {
            Group::Null
        },
        tap: "tap-a".into(),
        sampling_rate: 1.0,
        ..FlowRecord::default()
    }
}

fn flows(numbers: std::ops::Range<u64>) -> Rows {
    Rows { flows: numbers.map(flow).collect(), ..Rows::default() }
}

/// A child process, ended when dropped.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("it starts"))
    }

    /// By SIGTERM, and waits.
    fn terminate(mut self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Octets that wait for who has bound the UDP port, if anybody has (`proc(5)`, `/proc/net/udp`).
fn octets_waiting_at(port: u16) -> Option<u64> {
    let here = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/udp").expect("the system's sockets");
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_here = words.next()?.ends_with(&here);
        // Behind the remote address and the state: what waits to be sent, and to be read.
        let (_, octets) = words.nth(2)?.split_once(':')?;
        is_here.then(|| u64::from_str_radix(octets, 16).expect("a number"))
    })
}

/// Waits until somebody has bound the UDP port. Who bound it to see would be in the way.
fn bound(port: u16) {
    let taken = || octets_waiting_at(port).map(drop);
    assert!(until(SOON_S, taken).is_some(), "nobody listens at {port}");
}

/// Waits until who has bound the UDP port has taken all from there, and a while for what it has in hand.
fn read_by_its_owner(port: u16) {
    let empty = || octets_waiting_at(port).filter(|octets| *octets == 0).map(drop);
    assert!(until(SOON_S, empty).is_some(), "nobody reads at {port}");
    sleep_ms(500);
}

/// nfcapd that writes into a folder of its own.
fn nfcapd(folder: &Folder, name: &str, port: u16) -> Server {
    let flows = folder.path(name);
    fs::create_dir_all(&flows).expect("a folder");
    let log = fs::File::create(folder.path(&format!("{name}.log"))).expect("a file");
    let mut command = Command::new("nfcapd");
    command.args(["-b", "127.0.0.1", "-p", &port.to_string(), "-B", "4000000", "-w"]).arg(&flows);
    command.arg("-P").arg(folder.path(&format!("{name}.pid")));
    command.stdout(log.try_clone().expect("a handle")).stderr(log);
    let server = Server::start(&mut command);
    bound(port);
    server
}

/// What nfdump reads of a folder.
fn nfdump(folder: &Folder, name: &str) -> Vec<Json> {
    let mut command = Command::new("nfdump");
    command.env("TZ", "UTC").args(["-q", "-o", "json", "-R"]).arg(folder.path(name));
    let ended = run_to_end(command);
    ended.expect(0, &[]);
    // Objects with commas between them.
    let text = format!("[{}]", ended.output.trim().trim_end_matches(','));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A time as nfdump writes it, with milliseconds.
fn time_text(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (day, rest) = (seconds / 86_400, seconds % 86_400);
    // All times are within two days of the 14th of November 2023.
    let day = day - 19_675 + 14;
    let ms = ns / 1_000_000 % 1_000;
    format!("2023-11-{day:02}T{:02}:{:02}:{:02}.{ms:03}", rest / 3_600, rest / 60 % 60, rest % 60)
}

fn number(value: &Json) -> u64 {
    let text = value.as_str().and_then(|text| text.trim().parse().ok());
    value.as_u64().or(text).unwrap_or_else(|| panic!("no number: {value}"))
}

/// Holds what nfdump shows of a flow against the flow.
fn same_as_nfdump(found: &Json, flow: &FlowRecord) {
    let at = |key: &str| &found[key];
    let version = if flow.ip_version == 6 { "6" } else { "4" };
    assert_eq!(at(&format!("src{version}_addr")), &flow.source_address.to_string(), "{found}");
    assert_eq!(at(&format!("dst{version}_addr")), &flow.destination_address.to_string());
    assert_eq!(at("first"), &time_text(flow.flow_start_ns), "{found}");
    assert_eq!(at("last"), &time_text(flow.flow_end_ns), "{found}");
    assert_eq!(number(at("dst_port")), 443);
    assert_eq!(number(at("proto")), u64::from(flow.protocol_identifier));
    assert_eq!(number(at("in_packets")), flow.packet_delta_count, "{found}");
    assert_eq!(number(at("in_bytes")), flow.octet_delta_count);
    assert_eq!(number(at("out_packets")), flow.reverse_packet_delta_count, "{found}");
    assert_eq!(number(at("out_bytes")), flow.reverse_octet_delta_count);
    if flow.protocol_identifier == 6 {
        // PSH, ACK, SYN, FIN of the initiator, not the responder's ACK and SYN.
        assert_eq!(at("tcp_flags"), "...AP.SF", "{found}");
    }
}

/// Flows by their first packet count, which is their number and one.
fn by_number(found: &[Json]) -> BTreeMap<u64, &Json> {
    found.iter().map(|flow| (number(&flow["in_packets"]) - 1, flow)).collect()
}

#[test]
fn nfdump_shows_each_flow_once_with_both_directions() {
    let tools = missing_tools(&["nfcapd", "nfdump"]);
    if !tools.is_empty() {
        return missing("IPFIX at nfdump", &tools, "nfdump");
    }
    let (folder, port) = (Folder::new("nfdump"), free_port());
    let server = nfcapd(&folder, "flows", port);
    let mut sinks = start(&sink(&format!("udp://127.0.0.1:{port}"), ""));
    sinks.send(&flows(0..3_000), NOW, 0);
    all_delivered(&sinks, 3_000);
    sinks.finish();
    read_by_its_owner(port);
    server.terminate();
    let found = nfdump(&folder, "flows");
    assert_eq!(found.len(), 3_000);
    let found = by_number(&found);
    assert_eq!(found.len(), 3_000, "each once");
    for (number, found) in found {
        same_as_nfdump(found, &flow(number));
    }
    let log = fs::read_to_string(folder.path("flows.log")).expect("a log");
    assert!(log.contains("Sequence Errors: 0") && log.contains("Bad Packets: 0"), "{log}");
}

#[test]
fn a_replay_gives_its_flows_to_nfdump() {
    let tools = missing_tools(&["nfcapd", "nfdump"]);
    if !tools.is_empty() {
        return missing("IPFIX at nfdump", &tools, "nfdump");
    }
    let (folder, port) = (Folder::new("ipfix-replay"), free_port());
    let server = nfcapd(&folder, "flows", port);
    let mut command = Command::new(vmprobe());
    command.args(["generate", "--scenario", "port-scan", "--seed", "1", "--out"]);
    command.arg(folder.path("generated"));
    run_to_end(command).expect(0, &[]);
    let file = folder.write(
        "vmprobe.toml",
        format!(
            "[flow]\nslots_per_worker = 16384\n[[sink.ipfix]]\nname = \"i\"\n\
             url = \"udp://127.0.0.1:{port}\"\ntables = [\"flows\"]\n"
        ),
    );
    let mut command = Command::new(vmprobe());
    command.args(["replay", "--json", "-c"]).arg(&file);
    command.arg(folder.path("generated/tap-a.pcap"));
    let report = run_to_end(command).expect(0, &[]).json();
    read_by_its_owner(port);
    server.terminate();
    let found = nfdump(&folder, "flows");
    assert!(found.len() > 10);
    assert_eq!(report["sinks"][0]["delivered"], found.len(), "{report}");
    let sum = |key: &str| found.iter().filter_map(|flow| flow.get(key)).map(number).sum::<u64>();
    let ledger = &report["ledger"];
    assert_eq!(
        sum("in_packets") + sum("out_packets"),
        ledger["accounted"].as_u64().expect("a count"),
        "{report}"
    );
}

/// Ended and brought back under load: what UDP can give at most, and all of that (docs/sinks/ipfix.md).
#[test]
fn nfcapd_may_end_under_load_and_comes_back() {
    const BATCH: u64 = 50;
    let tools = missing_tools(&["nfcapd", "nfdump"]);
    if !tools.is_empty() {
        return missing("IPFIX at nfdump", &tools, "nfdump");
    }
    let (folder, port) = (Folder::new("nfcapd"), free_port());
    let server = nfcapd(&folder, "first", port);
    let text = format!("udp://127.0.0.1:{port}");
    let mut sinks = start(&sink(&text, &format!("batch_records = {BATCH}\n")));
    let mut sent = 0;
    let mut send = |sinks: &mut Sinks, batches: u64| {
        sinks.send(&flows(sent..sent + batches * BATCH), NOW, 0);
        sent += batches * BATCH;
        sent
    };
    let before = send(&mut sinks, 20);
    all_delivered(&sinks, before);
    read_by_its_owner(port);
    send(&mut sinks, 20);
    some_delivered(&sinks, before + 5 * BATCH);
    // nfcapd writes its file when it ends, so it is not killed harder.
    server.terminate();
    let killed = send(&mut sinks, 0);
    send(&mut sinks, 20);
    failing(&sinks, "refused");
    let server = nfcapd(&folder, "second", port);
    let sent = send(&mut sinks, 20);
    all_delivered(&sinks, sent);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    read_by_its_owner(port);
    server.terminate();
    let (first, second) = (nfdump(&folder, "first"), nfdump(&folder, "second"));
    let numbers = |found: &[Json]| -> Vec<u64> {
        found.iter().map(|flow| number(&flow["in_packets"]) - 1).collect()
    };
    let toll = one_kill(&numbers(&first), &numbers(&second), [killed, sent], BATCH);
    assert!(first.len() >= 1_000, "what it had read before stays");
    eprintln!("nfcapd ended: {toll:?} of {sent}");
    for (number, found) in by_number(&first).into_iter().chain(by_number(&second)) {
        same_as_nfdump(found, &flow(number));
    }
}

/// Between the sink and nfcapd every tenth datagram is lost.
#[test]
fn what_is_lost_on_the_way_shows_in_the_sequence() {
    let tools = missing_tools(&["nfcapd", "nfdump"]);
    if !tools.is_empty() {
        return missing("IPFIX at nfdump", &tools, "nfdump");
    }
    let (folder, port) = (Folder::new("lossy"), free_port());
    let server = nfcapd(&folder, "flows", port);
    let relay = UdpSocket::bind("127.0.0.1:0").expect("a port");
    relay.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let here = relay.local_addr().expect("its address");
    // A datagram a flow.
    let mut sinks = start(&sink(&format!("udp://{here}"), "batch_records = 1\n"));
    let all_sent = Arc::<AtomicBool>::default();
    let ends = Arc::clone(&all_sent);
    let passing = std::thread::spawn(move || {
        let (mut datagram, mut sequences, mut dropped) = (vec![0; 65_536], Vec::new(), Vec::new());
        loop {
            // What was sent before it was said that all is stands here already.
            let end = ends.load(Ordering::SeqCst);
            let Ok(octets) = relay.recv(&mut datagram) else {
                if end {
                    break;
                }
                continue;
            };
            let datagram = &datagram[..octets];
            // The first ones hold the templates; the last one shows that one before it is missing.
            if sequences.len() > 20 && sequences.len() % 10 == 0 {
                dropped.push(sequences.len());
            } else {
                relay.send_to(datagram, ("127.0.0.1", port)).expect("sent");
            }
            sequences.push(u32::from_be_bytes(*datagram[8..].first_chunk().expect("a header")));
        }
        (sequences, dropped)
    });
    sinks.send(&flows(0..205), NOW, 0);
    all_delivered(&sinks, 205);
    sinks.finish();
    all_sent.store(true, Ordering::SeqCst);
    let (sequences, dropped) = passing.join().expect("it ends");
    assert!(dropped.len() > 10, "{dropped:?}");
    let records = |place: usize| sequences[place + 1] - sequences[place];
    assert!(dropped.iter().all(|place| records(*place) == 1), "{sequences:?}");
    read_by_its_owner(port);
    server.terminate();
    assert_eq!(nfdump(&folder, "flows").len(), 205 - dropped.len());
    let log = fs::read_to_string(folder.path("flows.log")).expect("a log");
    assert!(log.contains(&format!("Sequence Errors: {}", dropped.len())), "{dropped:?}: {log}");
}

/// What nfacctd is to show beside what it knows.
const PRIMITIVES: &str = "name=flow_number field_type=148 len=8 semantics=u_int
name=reverse_packets field_type=29305:2 len=8 semantics=u_int
name=reverse_octets field_type=29305:1 len=8 semantics=u_int
name=segment field_type=32473:1001 len=vlen semantics=str
name=reverse_segment field_type=32473:17385 len=vlen semantics=str
";

/// nfacctd, which writes what it has read to `out` of its folder each second.
fn nfacctd(folder: &Folder, port: u16, out: &str) -> Server {
    let primitives = folder.write("primitives", PRIMITIVES);
    let configuration = format!(
        "daemonize: false\nnfacctd_ip: 127.0.0.1\nnfacctd_port: {port}\nplugins: print[p]\n\
         nfacctd_pipe_size: 4000000\n\
         aggregate[p]: src_host, dst_host, src_port, dst_port, proto, tcpflags, timestamp_start, \
         timestamp_end, flow_number, reverse_packets, reverse_octets, segment, reverse_segment\n\
         aggregate_primitives: {}\nprint_output[p]: json\nprint_output_file[p]: {}\n\
         print_output_file_append[p]: true\nprint_refresh_time[p]: 1\nprint_cache_entries[p]: 9973\n\
         timestamps_since_epoch: true\n",
        primitives.display(),
        folder.path(out).display()
    );
    let file = folder.write("nfacctd.conf", configuration);
    let mut command = Command::new("nfacctd");
    let name = format!("{out}.log");
    let log = fs::File::create(folder.path(&name)).expect("a file");
    command.arg("-f").arg(file).stdout(log.try_clone().expect("a handle")).stderr(log);
    let server = Server::start(&mut command);
    // What comes to its port before it says so it throws away.
    let says =
        || String::from_utf8_lossy(&fs::read(folder.path(&name)).unwrap_or_default()).into_owned();
    let ready = || says().contains("waiting for NetFlow/IPFIX data").then_some(());
    assert!(until(SOON_S, ready).is_some(), "{}", says());
    sleep_ms(500);
    server
}

/// The number of a flow of [`flow`].
fn number_of(found: &Json) -> u64 {
    number(&found["flow_number"]) >> 40
}

/// Holds what nfacctd shows of a flow against the flow.
fn same_as_nfacctd(found: &Json, flow: &FlowRecord) {
    let text = |key: &str| found[key].as_str().unwrap_or_default();
    assert_eq!(number(&found["flow_number"]), flow.flow_id, "{found}");
    assert_eq!(text("ip_src"), flow.source_address.to_string(), "{found}");
    assert_eq!(text("ip_dst"), flow.destination_address.to_string());
    assert_eq!(number(&found["port_src"]), u64::from(flow.source_port));
    assert_eq!(number(&found["packets"]), flow.packet_delta_count, "{found}");
    assert_eq!(number(&found["bytes"]), flow.octet_delta_count);
    assert_eq!(number(&found["reverse_packets"]), flow.reverse_packet_delta_count, "{found}");
    assert_eq!(number(&found["reverse_octets"]), flow.reverse_octet_delta_count);
    assert_eq!((text("segment"), text("reverse_segment")), (&*flow.segment, ""));
    let proto = if flow.protocol_identifier == 6 { "tcp" } else { "udp" };
    assert_eq!(text("ip_proto"), proto);
    assert_eq!(number(&found["tcp_flags"]), u64::from(flow.tcp_control_bits), "{found}");
    // It looks at milliseconds first.
    let time = |ns: u64| format!("{}.{:06}", ns / 1_000_000_000, ns / 1_000_000 % 1_000 * 1_000);
    assert_eq!(text("timestamp_start"), time(flow.flow_start_ns), "{found}");
    assert_eq!(text("timestamp_end"), time(flow.flow_end_ns));
}

#[test]
fn nfacctd_shows_each_flow_once_also_when_it_was_killed_and_is_back() {
    const BATCH: u64 = 50;
    let tools = missing_tools(&["nfacctd"]);
    if !tools.is_empty() {
        return missing("IPFIX at nfacctd", &tools, "pmacct");
    }
    let (folder, port) = (Folder::new("nfacctd"), free_port());
    let server = nfacctd(&folder, port, "first");
    let spool = folder.path("spool");
    let rest = format!("batch_records = {BATCH}\nspool_folder = \"{}\"\n", spool.display());
    let plan = sink(&format!("udp://127.0.0.1:{port}"), &rest);
    let mut sinks = start(&plan);
    sinks.send(&flows(0..1_000), NOW, 0);
    all_delivered(&sinks, 1_000);
    let shown = |out: &str| lines(&folder.path(out));
    let all = |out: &str, last: u64| {
        let there = || shown(out).iter().any(|found| number_of(found) == last).then_some(());
        assert!(until(SOON_S, there).is_some(), "{out}: {}", shown(out).len());
    };
    all("first", 999);
    // What it has not written yet when it is killed ends with it.
    sinks.send(&flows(1_000..2_000), NOW, 0);
    drop(server);
    sinks.send(&flows(2_000..3_000), NOW, 0);
    failing(&sinks, "refused");
    // While it starts it throws away what comes, so nothing is sent until it is ready.
    let spooled = only(sinks.finish()).ledger.spooled;
    assert!(spooled >= 1_000, "{spooled}");
    let server = nfacctd(&folder, port, "second");
    let sinks = start(&plan);
    all_delivered(&sinks, spooled);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    all("second", 2_999);
    drop(server);
    let (first, second) = (shown("first"), shown("second"));
    let numbers = |found: &[Json]| found.iter().map(number_of).collect::<Vec<_>>();
    let toll = one_kill(&numbers(&first), &numbers(&second), [2_000, 3_000], BATCH);
    assert!(first.len() >= 1_000, "what it had written stays");
    eprintln!("nfacctd killed: {toll:?} of 3000");
    for found in first.iter().chain(&second) {
        same_as_nfacctd(found, &flow(number_of(found)));
    }
}

/// Bare frames around messages, as tshark reads them: pcap of IPv4 packets (link type 101).
fn capture(messages: &[Vec<u8>], port: u16) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
    out.extend_from_slice(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&65_535_u32.to_le_bytes());
    out.extend_from_slice(&101_u32.to_le_bytes());
    for message in messages {
        let builder = etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let builder = builder.udp(4_739, port);
        let mut packet = Vec::with_capacity(builder.size(message.len()));
        builder.write(&mut packet, message).expect("a packet");
        let length = u32::try_from(packet.len()).expect("short").to_le_bytes();
        let seconds = 1_700_000_000_u32.to_le_bytes();
        out.extend([seconds, [0; 4], length, length].concat());
        out.append(&mut packet);
    }
    out
}

/// Datagrams until none comes for a second.
fn datagrams(socket: &UdpSocket) -> Vec<Vec<u8>> {
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let (mut all, mut datagram) = (Vec::new(), vec![0; 65_536]);
    while let Ok(octets) = socket.recv(&mut datagram) {
        all.push(datagram[..octets].to_vec());
    }
    all
}

#[test]
fn tshark_understands_every_message() {
    let tools = missing_tools(&["tshark"]);
    if !tools.is_empty() {
        return missing("IPFIX at tshark", &tools, "tshark");
    }
    let folder = Folder::new("ipfix-tshark");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("its address").port();
    let text = format!("udp://127.0.0.1:{port}");
    let tables = "tables = [\"flows\", \"windows\", \"taps\"]\n";
    let mut sinks = start(&sink(&text, tables));
    // Few enough for the socket's own buffer.
    sinks.send(&flows(0..150), NOW, 0);
    sinks.send(&extremes::rows(), NOW, 0);
    let messages = datagrams(&socket);
    sinks.finish();
    assert!(messages.iter().all(|message| message.len() <= 1_420));
    let file = folder.write("messages.pcap", capture(&messages, 4_739));
    let read = |fields: &[&str]| {
        let mut command = Command::new("tshark");
        command.args(["-r"]).arg(&file).args(["-o", "cflow.max_template_fields:0"]);
        command.args(["-d", "udp.port==4739,cflow", "-T", "fields", "-E", "aggregator=;"]);
        command.args(fields.iter().flat_map(|field| ["-e", field]));
        let ended = run_to_end(command);
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        ended.output
    };
    let malformed = read(&["_ws.malformed", "_ws.expert.message"]);
    // Of a text with a zero in it tshark shows what stands before that, and says so.
    let good = |line: &str| ["", "Trailing stray characters"].contains(&line.trim());
    assert!(malformed.lines().all(good), "{malformed}");
    let all = |field: &str| -> BTreeSet<String> {
        let text = read(&[field]);
        let values = text.lines().flat_map(|line| line.split(';')).map(str::trim);
        values.map(str::to_owned).collect()
    };
    let (four, six) = (all("cflow.srcaddr"), all("cflow.srcaddrv6"));
    let (ids, octets, packets) = (all("cflow.flow_id"), all("cflow.octets"), all("cflow.packets"));
    let (begins, ends) = (all("cflow.abstimestart"), all("cflow.abstimeend"));
    for flow in (0..150).map(flow) {
        let addresses = if flow.ip_version == 6 { &six } else { &four };
        assert!(addresses.contains(&flow.source_address.to_string()), "{addresses:?}");
        assert!(ids.contains(&flow.flow_id.to_string()), "{ids:?}");
        for count in [flow.octet_delta_count, flow.reverse_octet_delta_count] {
            assert!(octets.contains(&count.to_string()), "{count} in {octets:?}");
        }
        for count in [flow.packet_delta_count, flow.reverse_packet_delta_count] {
            assert!(packets.contains(&count.to_string()), "{count} in {packets:?}");
        }
        // To the nanosecond.
        for (ns, times) in [(flow.flow_start_ns, &begins), (flow.flow_end_ns, &ends)] {
            let text = format!(".{:09} ", ns % 1_000_000_000);
            assert!(times.iter().any(|time| time.contains(&text)), "{text} in {times:?}");
        }
    }
    assert!(ids.contains(&u64::MAX.to_string()));
}

/// The reader in Python, as `scripts/fetch-receivers` puts it there.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps/receivers/bin/python");
    if !python.is_file() {
        skipped("IPFIX by TCP", "not installed: ipfix (scripts/fetch-receivers)");
        return None;
    }
    Some(python)
}

/// A line of `docs/sinks/ipfix-elements.md`.
#[derive(Clone, Debug)]
struct Listed {
    table: String,
    column: String,
    /// As the Python reader is told to name it.
    keys: Vec<String>,
    kind: String,
}

fn listed() -> Vec<Listed> {
    let text = markdown();
    let (mut table, mut all) = (String::new(), Vec::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            name.clone_into(&mut table);
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, column, enterprise, numbers, kind, _, _] = cells[..] else { continue };
        let enterprise = match enterprise {
            "" => "0",
            "own" => "32473",
            "29305" => "29305",
            _ => continue,
        };
        let keys: Vec<_> = numbers.split(", ").map(|it| format!("e{enterprise}_{it}")).collect();
        if keys.iter().all(|key| key.ends_with(|last: char| last.is_ascii_digit())) {
            let (table, column, kind) = (table.clone(), column.to_owned(), kind.to_owned());
            all.push(Listed { table, column, keys, kind });
        }
    }
    all
}

/// What the reader is told of elements. Times in nanoseconds it would cut to microseconds, so it is told
/// that they are numbers.
fn specs() -> String {
    let mut lines = BTreeSet::new();
    for Listed { keys, kind, .. } in listed() {
        for (key, kind) in keys.iter().zip(kind.split(", ").cycle()) {
            let (enterprise, number) = key[1..].split_once('_').expect("two numbers");
            let kind = if kind == "dateTimeNanoseconds" { "unsigned64" } else { kind };
            let octets = match kind {
                "unsigned8" => "1",
                "unsigned16" => "2",
                "ipv4Address" => "4",
                "macAddress" => "6",
                "ipv6Address" => "16",
                "string" | "octetArray" => "65535",
                _ => "8",
            };
            lines.insert(format!("{key}({enterprise}/{number})<{kind}>[{octets}]"));
        }
    }
    let options = [
        (149, "unsigned32", "4"),
        (390, "unsigned16", "2"),
        (40, "unsigned64", "8"),
        (41, "unsigned64", "8"),
        (42, "unsigned64", "8"),
        (303, "unsigned16", "2"),
        (339, "unsigned8", "1"),
        (341, "string", "65535"),
        (346, "unsigned32", "4"),
    ];
    lines.extend(
        options.map(|(number, kind, octets)| format!("e0_{number}(0/{number})<{kind}>[{octets}]")),
    );
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Nanoseconds since 1970 of NTP's 64 bits, in the era in which the time lies; rounded down.
fn from_ntp(ntp: u64, near_ns: u64) -> u64 {
    let era = (near_ns / 1_000_000_000 + 2_208_988_800) >> 32;
    let seconds = (era << 32 | ntp >> 32) - 2_208_988_800;
    let ns = (u128::from(ntp & 0xffff_ffff) * 1_000_000_000) >> 32;
    seconds * 1_000_000_000 + u64::try_from(ns).expect("below a second")
}

/// Holds what was read of a row's column against the row.
fn same_value(listed: &Listed, found: &Json, wanted: &Json) {
    let values: Vec<_> = listed.keys.iter().filter_map(|key| found.get(key)).collect();
    let Listed { table, column, kind, .. } = listed;
    let about = || format!("{table}.{column} {kind}: {values:?}, not {wanted}");
    if wanted.is_null() {
        assert!(values.is_empty(), "{}", about());
        return;
    }
    let [value] = values[..] else { panic!("{}", about()) };
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let same = match kind.as_str() {
        "dateTimeNanoseconds" => {
            let wanted = wanted.as_u64().expect("a time");
            from_ntp(value.as_u64().expect("a number"), wanted) == wanted
        }
        // The reader knows no times after 9999, and shows microseconds.
        "dateTimeMilliseconds" => true,
        "unsigned64" if column == "tap" => value.as_u64().is_some_and(|id| id > 0),
        "string" => {
            let (found, wanted) = (text(value), text(wanted));
            found == wanted
                || (wanted.len() > 255 && !found.is_empty() && wanted.starts_with(&found))
        }
        "octetArray" => text(value) == text(wanted).replace('-', "").to_lowercase(),
        "macAddress" => text(value).replace(':', "") == text(wanted).replace(':', ""),
        kind if kind.starts_with("ipv4") => text(value) == text(wanted),
        "float64" => value.as_f64() == wanted.as_f64(),
        _ => value == wanted,
    };
    assert!(same, "{}", about());
}

struct Expected<'a> {
    found: &'a [Json],
    listed: &'a [Listed],
    checked: usize,
}

impl TableVisitor for Expected<'_> {
    fn table<R: Record>(&mut self) {
        let mut rows = extremes::rows();
        let records = std::mem::take(R::of(&mut rows));
        let of_table: Vec<_> =
            self.listed.iter().filter(|it| it.table == R::TABLE.name()).collect();
        if of_table.is_empty() {
            return;
        }
        // Records of a table in the order in which they were sent: by what only its records have.
        let mark = match R::TABLE {
            Table::Flows => "e0_148",
            Table::Windows => "e0_3",
            _ => "e0_325",
        };
        let found: Vec<_> = self
            .found
            .iter()
            .map(|line| &line["record"])
            .filter(|it| it.get(mark).is_some())
            .collect();
        assert_eq!(found.len(), records.len(), "{:?}: {found:?}", R::TABLE);
        for (found, record) in found.iter().zip(&records) {
            let wanted = record.json(&origin());
            for listed in of_table.iter().filter(|it| !it.column.is_empty()) {
                same_value(listed, found, &wanted[&listed.column]);
                self.checked += 1;
            }
        }
    }
}

fn lines(path: &Path) -> Vec<Json> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn collector(python: &Path, folder: &Folder, out: &str, arguments: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/collector.py");
    let mut command = Command::new(python);
    command.arg(script).arg(folder.write("specs", specs())).arg(folder.path(out)).args(arguments);
    command
}

#[test]
fn every_field_with_its_extremes_is_read_back_by_another_program() {
    let Some(python) = python() else { return };
    let folder = Folder::new("ipfix-fields");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let url = format!("udp://{}", socket.local_addr().expect("its address"));
    let tables =
        "tables = [\"flows\", \"windows\", \"taps\"]\nobservation_domain_id = 4294967295\n";
    let mut sinks = start(&sink(&url, tables));
    sinks.send(&extremes::rows(), NOW, 0);
    let messages = datagrams(&socket);
    sinks.finish();
    let file = folder.write("messages", messages.concat());
    let command = collector(&python, &folder, "out", &["file", &file.display().to_string()]);
    run_to_end(command).expect(0, &[]);
    let found = lines(&folder.path("out"));
    assert!(found.iter().all(|it| it["lost"] == 0 && it["domain"] == 4_294_967_295_u32));
    let listed = listed();
    let mut expected = Expected { found: &found, listed: &listed, checked: 0 };
    Table::visit(&mut expected);
    assert_eq!(expected.checked, 2 * listed.iter().filter(|it| !it.column.is_empty()).count());
    assert!(expected.checked > 400, "{}", expected.checked);
    // The types of own elements are told (RFC 5610), under the names of the documentation.
    let told: BTreeSet<String> =
        found.iter().filter_map(|it| it["record"]["e0_341"].as_str().map(str::to_owned)).collect();
    let text = markdown();
    let names = text.lines().filter_map(|line| line.split('|').rev().nth(1)).map(str::trim);
    let names: BTreeSet<_> = names.filter(|it| it.contains("mprobe")).map(str::to_owned).collect();
    assert_eq!(told, names);
}

/// By TCP and TLS, killed under load: what they can give at most without an acknowledgement, and all of that
/// (docs/sinks/ipfix.md).
#[test]
fn by_tcp_and_tls_a_collector_may_be_killed_under_load() {
    const BATCH: u64 = 50;
    let Some(python) = python() else { return };
    let tools = missing_tools(&["openssl"]);
    if !tools.is_empty() {
        return missing("IPFIX by TLS", &tools, "openssl");
    }
    for way in ["tcp", "tls"] {
        let (folder, port) = (Folder::new("ipfix-stream"), free_port());
        vmprobe_tests::broker::certificates(&folder);
        let at = |name: &str| folder.path(name).display().to_string();
        let port_text = port.to_string();
        let (certificate, key) = (at("broker.pem"), at("broker.key"));
        let run = |out: &str| {
            let mut arguments = vec![way, port_text.as_str()];
            if way == "tls" {
                arguments.extend([certificate.as_str(), key.as_str()]);
            }
            Server::start(&mut collector(&python, &folder, out, &arguments))
        };
        let numbers = |out: &str| -> Vec<u64> {
            let ids = lines(&folder.path(out));
            ids.iter().filter_map(|it| it["record"]["e0_148"].as_u64()).map(|id| id >> 40).collect()
        };
        let read = |out: &str, last: u64| {
            let there = || numbers(out).contains(&last).then_some(());
            assert!(until(SOON_S, there).is_some(), "{way} {out}: {}", numbers(out).len());
        };
        let ca =
            if way == "tls" { format!("ca_file = \"{}\"\n", at("ca.pem")) } else { String::new() };
        let rest = format!("batch_records = {BATCH}\ntimeout_ms = 5000\n{ca}");
        let mut sinks = start(&sink(&format!("{way}://127.0.0.1:{port}"), &rest));
        let mut sent = 0;
        let mut send = |sinks: &mut Sinks, batches: u64| {
            sinks.send(&flows(sent..sent + batches * BATCH), NOW, 0);
            sent += batches * BATCH;
            sent
        };
        let before = send(&mut sinks, 10);
        failing(&sinks, "127.0.0.1");
        let server = run("first");
        read("first", before - 1);
        // Killed when it has read all: nothing is lost.
        drop(server);
        let idle = before;
        let before = send(&mut sinks, 10);
        failing(&sinks, "127.0.0.1");
        let server = run("second");
        read("second", before - 1);
        send(&mut sinks, 20);
        some_delivered(&sinks, before + 5 * BATCH);
        drop(server);
        let killed = send(&mut sinks, 0);
        send(&mut sinks, 20);
        failing(&sinks, "127.0.0.1");
        let server = run("third");
        let sent = send(&mut sinks, 20);
        all_delivered(&sinks, sent);
        read("third", sent - 1);
        assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
        drop(server);
        assert!(numbers("first").into_iter().eq(0..idle), "{way} {:?}", numbers("first"));
        let from_idle = |out| numbers(out).iter().map(|it| it - idle).collect::<Vec<_>>();
        let second = from_idle("second");
        let toll =
            one_kill(&second, &from_idle("third"), [killed, sent].map(|it| it - idle), BATCH);
        eprintln!("a collector by {way} killed: {toll:?} of {sent}");
        // No session has a hole.
        for out in ["first", "second", "third"] {
            assert!(lines(&folder.path(out)).iter().all(|it| it["lost"] == 0), "{way} {out}");
        }
    }
}

/// No kernel at hand had SCTP. One that has says that nobody listens; one that has not says that.
#[test]
fn sctp_is_asked_of_the_kernel_and_records_wait_while_it_says_no() {
    let protocols = fs::read_to_string("/proc/net/protocols").unwrap_or_default();
    let words = if protocols.contains("SCTP") { "refused" } else { "rotocol not supported" };
    let mut sinks = start(&sink(&format!("sctp://127.0.0.1:{}", free_port()), ""));
    sinks.send(&flows(0..10), NOW, 0);
    failing(&sinks, words);
    let report = only(sinks.reports());
    assert_eq!((report.ledger.queued, report.ledger.dropped_sum()), (10, 0));
}
