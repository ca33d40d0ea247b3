//! Lines of JSON with the names of Suricata's EVE, for tools that read those.
//!
//! In: flows, alerts and transactions. Out: a line each, `event_type` `flow`, `alert`, `dns`, `tls` or
//! `http`, to a file or a UNIX stream socket; a name that was asked for and told has two, as Suricata's.
//! Cost: a write and a sync of a file a batch.
//! Invariants: a line is whole: what was written of a batch that failed is taken back before the next
//! attempt, so a retry stores nothing twice in a file, and nothing is written where that cannot be (a pipe, a
//! device); what EVE has no name for stands under `vmprobe`.
//! Source: Suricata, "Eve JSON Format"; docs/sinks/eve.md has the table of names.

mod apps;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Map, Value, json};

use super::sink::{Batch, Cell, Delivered, Driver, Encoder, Failure, Row};
use crate::config::EvePlan;
use crate::record::{Origin, Table};
use crate::time::Timestamp;

/// Columns that stand under `vmprobe` as they are.
const OWN: &[&str] = &[
    "flow_id",
    "alert_id",
    "domain",
    "segment",
    "address_space",
    "traffic_class",
    "source_virtual_station_uuid",
    "source_virtual_station_name",
    "source_virtual_station_tenant",
    "destination_virtual_station_uuid",
    "destination_virtual_station_name",
    "destination_virtual_station_tenant",
    "tap",
    "state",
    "severity",
    "confidence",
    "statistic",
    "threshold",
    "event_count",
    "retransmission_packet_count",
    "reverse_retransmission_packet_count",
    "handshake_server_rtt_ns",
    "handshake_client_rtt_ns",
    "transaction_state",
    "response_time_ns",
    "is_truncated",
    "dns_question_class",
    "tls_offered_version",
    "tls_cipher_suite",
];

/// Signature numbers: those that Suricata leaves to local rules.
const SIGNATURE_FIRST: u32 = 1_000_000;

/// Writes lines.
pub(super) struct Lines {
    probe: Arc<str>,
}

impl Lines {
    pub(super) fn new(origin: &Origin) -> Self {
        Self { probe: Arc::clone(&origin.probe_id) }
    }
}

impl Encoder for Lines {
    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        match row.table() {
            Table::Alerts => {
                self.line(row, (row.time(), "alert"), out, |event| {
                    event.insert("alert".to_owned(), alert(row));
                });
            }
            Table::Apps => {
                for told in apps::told(row) {
                    let apps::Told { at, kind, what } = told;
                    self.line(row, (at, kind), out, |event| {
                        event.insert(kind.to_owned(), what);
                    });
                }
            }
            _ => self.line(row, (row.time(), "flow"), out, |event| flow(row, event)),
        }
    }
}

impl Lines {
    /// One line, with what stands in all of them and what `tell` adds.
    fn line(
        &self,
        row: Row<'_>,
        (at, kind): (Timestamp, &str),
        out: &mut Vec<u8>,
        tell: impl FnOnce(&mut Map<String, Value>),
    ) {
        let mut event = Map::new();
        event.insert("timestamp".to_owned(), time_text(at).into());
        put(&mut event, "flow_id", flow_id(row));
        event.insert("event_type".to_owned(), kind.into());
        put(&mut event, "src_ip", row.named("source_address"));
        put(&mut event, "src_port", port(row, "source_port"));
        put(&mut event, "dest_ip", row.named("destination_address"));
        put(&mut event, "dest_port", port(row, "destination_port"));
        if let Some(protocol) = row.named("protocol_identifier").number() {
            event.insert("proto".to_owned(), protocol_name(protocol).into());
        }
        event.insert("host".to_owned(), Value::from(&*self.probe));
        tell(&mut event);
        let mut own = Map::new();
        for name in OWN {
            put(&mut own, name, row.named(name));
        }
        event.insert("vmprobe".to_owned(), own.into());
        let written = serde_json::to_writer(&mut *out, &event);
        debug_assert!(written.is_ok(), "texts and numbers are JSON");
        out.push(b'\n');
    }
}

/// What is null has no key.
fn put(into: &mut Map<String, Value>, key: &str, cell: Cell<'_>) {
    let value = match cell {
        Cell::Null => return,
        Cell::Unsigned(number) => number.into(),
        Cell::Signed(number) => number.into(),
        Cell::Float(number) => number.into(),
        Cell::Bool(flag) => flag.into(),
        Cell::Text(text) => text.into(),
    };
    into.insert(key.to_owned(), value);
}

/// Suricata's are positive signed numbers, and some readers have no others.
fn flow_id(row: Row<'_>) -> Cell<'static> {
    row.named("flow_id").number().map_or(Cell::Null, |id| Cell::Unsigned(id >> 1))
}

/// Protocols without ports have none, instead of 0.
fn port(row: Row<'_>, name: &str) -> Cell<'static> {
    let has_ports =
        row.named("protocol_identifier").number().is_none_or(|it| [6, 17, 132].contains(&it));
    row.named(name).number().filter(|_| has_ports).map_or(Cell::Null, Cell::Unsigned)
}

fn flow(row: Row<'_>, event: &mut Map<String, Value>) {
    let number = |name: &str| row.named(name).number().unwrap_or(0);
    let app = row.named("application_name").text().filter(|app| !matches!(*app, "" | "unknown"));
    event.insert("app_proto".to_owned(), app.unwrap_or("failed").into());
    let (start, end) = (number("flow_start_ns"), number("flow_end_ns"));
    event.insert(
        "flow".to_owned(),
        json!({
            "pkts_toserver": number("packet_delta_count"),
            "pkts_toclient": number("reverse_packet_delta_count"),
            "bytes_toserver": number("layer2_octet_delta_count"),
            "bytes_toclient": number("reverse_layer2_octet_delta_count"),
            "start": time_text(Timestamp(start)),
            "end": time_text(Timestamp(end)),
            "age": end.saturating_sub(start) / 1_000_000_000,
            "state": flow_state(row),
            // A record by the active timeout is no end: EVE has no word for it, and "timeout" is nearest.
            "reason": match number("flow_end_reason") {
                4 | 5 => "forced",
                _ => "timeout",
            },
            "alerted": false,
        }),
    );
    let (there, back) = (number("tcp_control_bits"), number("reverse_tcp_control_bits"));
    if number("protocol_identifier") == 6 {
        let flag = |bit: u32| (there | back) >> bit & 1 == 1;
        event.insert(
            "tcp".to_owned(),
            json!({
                "tcp_flags": format!("{:02x}", (there | back) & 0xff),
                "tcp_flags_ts": format!("{:02x}", there & 0xff),
                "tcp_flags_tc": format!("{:02x}", back & 0xff),
                "fin": flag(0), "syn": flag(1), "rst": flag(2), "psh": flag(3), "ack": flag(4),
                "urg": flag(5), "ecn": flag(6), "cwr": flag(7),
                "state": row.named("tcp_state").text().unwrap_or_default(),
            }),
        );
    }
    let mut ether = Map::new();
    for (key, column) in [("src_mac", "source_mac"), ("dest_mac", "destination_mac")] {
        put(&mut ether, key, row.named(column));
    }
    if !ether.is_empty() {
        event.insert("ether".to_owned(), ether.into());
    }
}

/// new, established or closed.
fn flow_state(row: Row<'_>) -> &'static str {
    let answered = row.named("reverse_packet_delta_count").number() > Some(0);
    match row.named("tcp_state").text().unwrap_or_default() {
        "closed" | "reset" => "closed",
        "syn_sent" | "syn_received" => "new",
        "" if !answered => "new",
        _ => "established",
    }
}

fn alert(row: Row<'_>) -> Value {
    let text = |name: &str| row.named(name).text().unwrap_or_default();
    let detector = text("detector");
    let mut metadata = Map::new();
    if let Some(technique) = row.named("mitre_technique").text() {
        metadata.insert("mitre_technique_id".to_owned(), json!([technique]));
    }
    json!({
        "action": "allowed",
        "gid": 1,
        "signature_id": SIGNATURE_FIRST + crc32fast::hash(detector.as_bytes()) % SIGNATURE_FIRST,
        "rev": 1,
        "signature": text("title"),
        "category": detector,
        // 1 is the worst.
        "severity": match text("severity") {
            "critical" | "high" => 1,
            "medium" => 2,
            "low" => 3,
            _ => 4,
        },
        "metadata": metadata,
    })
}

/// As Suricata writes times.
fn time_text(time: Timestamp) -> String {
    let (seconds, ns) = (time.as_ns() / 1_000_000_000, time.as_ns() % 1_000_000_000);
    i64::try_from(seconds)
        .ok()
        .zip(u32::try_from(ns).ok())
        .and_then(|(seconds, ns)| chrono::DateTime::from_timestamp(seconds, ns))
        .map_or_else(String::new, |it| it.format("%Y-%m-%dT%H:%M:%S%.6f+0000").to_string())
}

/// As Suricata names protocols; others by their number, with three digits.
pub(super) fn protocol_name(protocol: u64) -> String {
    match protocol {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        47 => "GRE".to_owned(),
        50 => "ESP".to_owned(),
        58 => "IPv6-ICMP".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("{other:03}"),
    }
}

/// Octets that are looked at in one go for the end of the last line.
const TORN_OCTETS: usize = 64 << 10;
/// Octets behind the last line's end at most, if it is to be cut off: no record is as long.
const LINE_OCTETS_MAX: u64 = 1 << 20;

/// Where lines go.
enum Target {
    File(File),
    Socket(UnixStream),
}

/// Delivers batches.
pub(super) struct Output {
    plan: EvePlan,
    timeout_ms: u32,
    target: Option<Target>,
}

impl Output {
    pub(super) fn new(plan: &EvePlan, timeout_ms: u32) -> Self {
        Self { plan: plan.clone(), timeout_ms, target: None }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let path = &self.plan.path;
        let kept = self.target.take().filter(|target| target.is_still(path));
        let mut target = match kept {
            Some(target) => target,
            None if self.plan.socket => Target::Socket(listener(path, self.timeout_ms)?),
            None => Target::File(opened(path)?),
        };
        match &mut target {
            Target::File(file) => append(file, bytes)?,
            Target::Socket(socket) => socket.write_all(bytes)?,
        }
        self.target = Some(target);
        Ok(())
    }
}

impl Target {
    /// Whether the path still leads to it: a file that was moved away is left to whoever moved it.
    fn is_still(&self, path: &Path) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::File(file) => file
                .metadata()
                .and_then(|ours| Ok((ours, std::fs::metadata(path)?)))
                .is_ok_and(|(ours, there)| (ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        }
    }
}

/// Opens the file. A program that was killed while it wrote has left a line without an end, which would
/// spoil the next one too: it is cut off.
fn opened(path: &Path) -> io::Result<File> {
    // A pipe without a reader would be waited for.
    let waits_not = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let options = OpenOptions::new().create(true).append(true).custom_flags(waits_not).open(path);
    let file = options.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NXIO) => no_file(),
        _ => error,
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(no_file());
    }
    if metadata.len() > 0 {
        let whole = whole_lines(&File::open(path)?, metadata.len())?;
        if whole < metadata.len() {
            let octets = metadata.len() - whole;
            tracing::warn!(path = %path.display(), octets, "a line without an end is cut off");
            file.set_len(whole)?;
        }
    }
    Ok(file)
}

/// Of a pipe or a device: what is written there can be neither synced nor taken back.
fn no_file() -> io::Error {
    let what = "no regular file; a program that reads lines can listen on a socket (socket = true)";
    io::Error::new(ErrorKind::InvalidInput, what)
}

/// Octets up to the end of the last line that has one; all, where none is near the end.
fn whole_lines(file: &File, length: u64) -> io::Result<u64> {
    let mut part = vec![0; TORN_OCTETS];
    let mut end = length;
    while end > 0 && length - end < LINE_OCTETS_MAX {
        let octets = usize::try_from(end).unwrap_or(usize::MAX).min(part.len());
        let read = part.get_mut(..octets).unwrap_or_default();
        let begin = end - u64::try_from(octets).unwrap_or(end);
        file.read_exact_at(read, begin)?;
        if let Some(place) = read.iter().rposition(|octet| *octet == b'\n') {
            return Ok(begin + u64::try_from(place).unwrap_or(0) + 1);
        }
        end = begin;
    }
    Ok(if end == 0 { 0 } else { length })
}

/// Adds all or nothing.
fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    if written.is_err() {
        // Half a line would spoil the next one too.
        let _ = file.set_len(before);
    }
    written
}

/// Connects without waiting for a listener that is busy: it is tried again like one that is not there.
fn listener(path: &Path, timeout_ms: u32) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)?;
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(Duration::from_millis(timeout_ms.into())))?;
    Ok(socket)
}

impl Driver for Output {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        match self.write(&batch.bytes) {
            Ok(()) => Ok(Delivered::default()),
            Err(error) => Err(Failure::again(&format!("{}: {error}", self.plan.path.display()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode, mknodat, open};

    use super::*;
    use crate::export::sink::TableRows;
    use crate::record::{AlertRecord, FlowRecord, Rows};

    pub(super) fn lines(rows: &Rows) -> Vec<Value> {
        let origin = Origin::new("p", "d");
        let (parts, _) = TableRows::of(rows, &origin, Timestamp::ZERO, |_| true);
        let mut encoder = Lines::new(&origin);
        let mut out = Vec::new();
        for row in parts.iter().flat_map(TableRows::rows) {
            encoder.row(row, &mut out);
        }
        let text = String::from_utf8(out).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn flows_and_alerts_have_suricatas_names() {
        let flow = FlowRecord {
            flow_id: u64::MAX,
            protocol_identifier: 6,
            source_port: 1_234,
            destination_port: 443,
            tcp_control_bits: 0x1b,
            reverse_tcp_control_bits: 0x12,
            tcp_state: "closed",
            application_name: "tls",
            flow_start_ns: 1_700_000_000_000_000_000,
            flow_end_ns: 1_700_000_002_500_000_000,
            packet_delta_count: 3,
            layer2_octet_delta_count: 200,
            source_virtual_station_name: Some("web".into()),
            ..FlowRecord::default()
        };
        let ping = FlowRecord { protocol_identifier: 1, ..FlowRecord::default() };
        let alert = AlertRecord {
            severity: "high",
            detector: "port_scan".into(),
            title: "scan".into(),
            mitre_technique: Some("T1046".into()),
            ..AlertRecord::default()
        };
        let rows = Rows { flows: vec![flow, ping], alerts: vec![alert], ..Rows::default() };
        let [flow, ping, alert] = &lines(&rows)[..] else { panic!("three") };
        assert_eq!(flow["event_type"], "flow");
        assert_eq!(flow["timestamp"], "2023-11-14T22:13:22.500000+0000");
        assert_eq!(flow["flow_id"], i64::MAX);
        assert_eq!(
            (&flow["src_port"], &flow["proto"], &flow["app_proto"]),
            (&1_234.into(), &"TCP".into(), &"tls".into())
        );
        assert_eq!(flow["flow"]["bytes_toserver"], 200);
        assert_eq!((&flow["flow"]["age"], &flow["flow"]["state"]), (&2.into(), &"closed".into()));
        assert_eq!(flow["tcp"]["tcp_flags"], "1b");
        assert_eq!((&flow["tcp"]["syn"], &flow["tcp"]["rst"]), (&true.into(), &false.into()));
        assert_eq!(flow["vmprobe"]["source_virtual_station_name"], "web");
        assert_eq!(flow["vmprobe"]["flow_id"], u64::MAX);
        assert_eq!((ping.get("src_port"), ping.get("tcp")), (None, None));
        assert_eq!((&ping["proto"], &ping["app_proto"]), (&"ICMP".into(), &"failed".into()));
        assert_eq!(alert["alert"]["severity"], 1);
        assert_eq!(alert["alert"]["metadata"]["mitre_technique_id"][0], "T1046");
        assert!(alert["alert"]["signature_id"].as_u64() >= Some(1_000_000));
        assert_eq!(alert.get("src_ip"), None);
    }

    fn batch(text: &str) -> Batch {
        let bytes = text.as_bytes().to_vec();
        Batch { table: Table::Flows, records: 1, token: "t".to_owned(), bytes }
    }

    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vmprobe-eve-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let (file, moved) = (path("file"), path("moved"));
        let mut output = Output::new(&EvePlan { path: file.clone(), socket: false }, 1_000);
        assert!(output.deliver(&batch("1\n")).is_ok() && output.deliver(&batch("2\n")).is_ok());
        std::fs::rename(&file, &moved).expect("it is there");
        assert!(output.deliver(&batch("3\n")).is_ok());
        let read = |path: &PathBuf| std::fs::read_to_string(path).expect("a file");
        assert_eq!((read(&moved), read(&file)), ("1\n2\n".to_owned(), "3\n".to_owned()));
        for path in [file, moved] {
            std::fs::remove_file(path).expect("it is there");
        }
    }

    /// Neither waits for a reader, nor writes the same again and again.
    #[test]
    fn a_path_that_is_no_regular_file_is_told_at_once_and_gets_nothing() {
        let pipe = path("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
        let mut output = Output::new(&EvePlan { path: pipe.clone(), socket: false }, 1_000);
        let refused = |output: &mut Output| {
            let failure = output.deliver(&batch("1\n")).expect_err("no file");
            assert!(failure.what.contains("no regular file") && !failure.refused, "{failure:?}");
        };
        refused(&mut output);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let mut reader = File::from(open(&pipe, flags, Mode::empty()).expect("a reader"));
        for _ in 0..3 {
            refused(&mut output);
        }
        assert_eq!(reader.read(&mut [0; 8]).expect("it is empty"), 0);
        // The program's own output, into a pipe.
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
        refused(&mut Output::new(&EvePlan { path, socket: false }, 1_000));
        drop(writer);
        assert_eq!(reader.read(&mut [0; 8]).expect("it is empty"), 0);
        // Later it may be one.
        std::fs::remove_file(&pipe).expect("it is there");
        assert!(output.deliver(&batch("1\n")).is_ok());
        std::fs::remove_file(&pipe).expect("it is there");
    }

    #[test]
    fn a_line_that_a_kill_has_torn_is_cut_off() {
        let file = path("torn");
        let long = "x".repeat(2 * TORN_OCTETS + 7);
        for (before, kept) in [
            ("1\n2\n{\"torn".to_owned(), "1\n2\n"),
            (format!("1\n{long}"), "1\n"),
            (long.clone(), ""),
            ("1\n".to_owned(), "1\n"),
            (String::new(), ""),
        ] {
            std::fs::write(&file, before).expect("a file");
            let mut output = Output::new(&EvePlan { path: file.clone(), socket: false }, 1_000);
            assert!(output.deliver(&batch("3\n")).is_ok());
            let text = std::fs::read_to_string(&file).expect("a file");
            assert_eq!(text, format!("{kept}3\n"));
        }
        std::fs::remove_file(file).expect("it is there");
    }

    #[test]
    fn a_socket_is_connected_to_again() {
        let path = path("socket");
        let mut output = Output::new(&EvePlan { path: path.clone(), socket: true }, 1_000);
        assert!(output.deliver(&batch("1\n")).is_err(), "nobody listens");
        for text in ["2\n", "3\n"] {
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).expect("a socket");
            // The first attempt may find the old connection closed.
            let delivered = output.deliver(&batch(text)).or_else(|_| output.deliver(&batch(text)));
            assert!(delivered.is_ok());
            let (mut stream, _) = listener.accept().expect("it has connected");
            let mut read = [0; 2];
            stream.read_exact(&mut read).expect("a line");
            assert_eq!(read, text.as_bytes());
        }
        std::fs::remove_file(path).expect("it is there");
    }
}
