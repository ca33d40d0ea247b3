//! Questions to a day of records, as pages and people ask them.
//!
//! In: where the records are. Out: how long each takes from start to last octet, and what memory.
//! Cost: a process each time, as in use; the system's cache is warm from the second time on.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use super::super::machine;
use super::{BEGIN_S, ms_since};
use crate::store::query::{self, Records};
use crate::time::{monotonic_ns, sleep_ms};

/// How often the memory of the program is looked at.
const LOOK_MS: u64 = 5;
/// A view that a server has not.
const OF_FILES: &str = "vms_1m";
/// The middle of the day.
const NOON_S: u64 = BEGIN_S + 12 * 3_600;

/// What came of a question.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Asked {
    /// What it asks.
    pub name: &'static str,
    /// Lines of the answer.
    pub lines: u64,
    /// Wall time of the first time.
    pub first_ms: f64,
    /// Median of the others.
    pub median_ms: f64,
    /// CPU time of all threads, the median of the others.
    pub cpu_ms: f64,
    /// Most memory of the program.
    pub peak_bytes: u64,
    /// CPU time of the server, the median of the others; 0 where there is none.
    pub server_cpu_ms: f64,
    /// Most memory of the server beyond what it had before; 0 where there is none.
    pub server_bytes: u64,
    /// Why there is no answer.
    pub failed: Option<String>,
}

/// Asks each `times` times; `flow_id` is one of the records. `server`: the process of the server that has
/// them, on this machine.
pub(super) fn ask(
    records: &Records,
    flow_id: u64,
    server: Option<u32>,
    times: u32,
) -> Result<Vec<Asked>, String> {
    let program = query::program().map_err(|error| error.to_string())?;
    let mut asked = Vec::new();
    for (name, sql) in questions(records, flow_id) {
        let mut answer = Asked { name, ..Asked::default() };
        let (mut later, mut later_cpu, mut server_cpu) = (Vec::new(), Vec::new(), Vec::new());
        for time in 0..times.max(2) {
            let before = server.map(Server::look);
            let Once { ms, cpu_ms, lines, peak_bytes } = match once(&program, records, &sql)? {
                Ok(measured) => measured,
                Err(status) => {
                    answer.failed = Some(status);
                    break;
                }
            };
            answer.lines = lines;
            answer.peak_bytes = answer.peak_bytes.max(peak_bytes);
            let (server_cpu_ms, server_bytes) = before.map_or((0.0, 0), Server::since);
            answer.server_bytes = answer.server_bytes.max(server_bytes);
            if time == 0 {
                answer.first_ms = ms;
            } else {
                later.push(ms);
                server_cpu.push(server_cpu_ms);
                later_cpu.push(cpu_ms);
            }
        }
        answer.median_ms = median(later);
        answer.cpu_ms = median(later_cpu);
        answer.server_cpu_ms = median(server_cpu);
        asked.push(answer);
    }
    Ok(asked)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// What the server had before a question.
struct Server {
    process: u32,
    cpu_ms: f64,
    bytes: u64,
}

impl Server {
    fn look(process: u32) -> Self {
        machine::forget_peak_of(process);
        let bytes = machine::resident_bytes_of(process);
        Self { process, cpu_ms: machine::cpu_ms_of(process), bytes }
    }

    /// CPU time and memory that it took since.
    fn since(self) -> (f64, u64) {
        let cpu_ms = machine::cpu_ms_of(self.process) - self.cpu_ms;
        (cpu_ms, machine::peak_bytes_of(self.process).saturating_sub(self.bytes))
    }
}

/// What an answer took.
struct Once {
    ms: f64,
    cpu_ms: f64,
    lines: u64,
    peak_bytes: u64,
}

/// In it, how the program ended without an answer.
fn once(program: &Path, records: &Records, sql: &Sql) -> Result<Result<Once, String>, String> {
    let cpu_before_ms = machine::cpu_ms_of_children();
    let begun_ns = monotonic_ns();
    let mut command = Command::new(program);
    if matches!(sql, Sql::Topology(_)) {
        command.arg("topology");
    }
    records.tell(&mut command).map_err(|error| error.to_string())?;
    match sql {
        Sql::Query(sql) => command.args(["--format", "csv", sql]),
        Sql::Topology(arguments) => command.args(arguments),
    };
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let out = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        let read = out.map(|mut out| out.read_to_end(&mut said));
        (said, read.is_some_and(|read| read.is_ok()))
    });
    let mut peak_bytes = 0;
    let status = loop {
        peak_bytes = peak_bytes.max(machine::peak_bytes_of(child.id()));
        match child.try_wait() {
            Ok(None) => sleep_ms(LOOK_MS),
            Ok(Some(status)) => break status,
            Err(error) => return Err(error.to_string()),
        }
    };
    let ms = ms_since(begun_ns);
    let cpu_ms = machine::cpu_ms_of_children() - cpu_before_ms;
    let (said, whole) = reader.join().unwrap_or_default();
    if !status.success() || !whole {
        return Ok(Err(status.to_string()));
    }
    let lines = said.split(|octet| *octet == b'\n').count().saturating_sub(1) as u64;
    Ok(Ok(Once { ms, cpu_ms, lines, peak_bytes }))
}

enum Sql {
    Query(String),
    Topology([String; 2]),
}

/// In words that the embedded engine and ClickHouse both know. A view that only the embedded store has is not
/// asked for on a server; what is asked of pairs of VMs beside it is the same for both.
fn questions(records: &Records, flow_id: u64) -> Vec<(&'static str, Sql)> {
    let is_there = |sql: &Sql| match (records, sql) {
        (Records::Clickhouse(_), Sql::Query(sql)) => !sql.contains(OF_FILES),
        _ => true,
    };
    let all = all(flow_id);
    all.into_iter().filter(|(_, sql)| is_there(sql)).collect()
}

fn all(flow_id: u64) -> Vec<(&'static str, Sql)> {
    const ENDS: &str = "source_virtual_station_name, destination_virtual_station_name";
    let query = |name, sql: String| (name, Sql::Query(sql));
    let noon = |seconds: u64| {
        let (from, to) = (NOON_S * 1_000_000_000, (NOON_S + seconds) * 1_000_000_000);
        format!("window_start_ns >= {from} AND window_start_ns < {to}")
    };
    let tenants = |of: &str| {
        format!(
            "SELECT destination_virtual_station_tenant, sum(octet_delta_count) FROM {of} \
             GROUP BY 1 ORDER BY 2 DESC LIMIT 20"
        )
    };
    let vm = "'vm-000-3'";
    let rate = |of: &str| {
        format!(
            "SELECT start_ns, sum(octet_delta_count), sum(reverse_octet_delta_count) FROM {of} \
             GROUP BY 1 ORDER BY 1"
        )
    };
    vec![
        query("rows of the day", "SELECT count(*) FROM windows".into()),
        query("rate of the day, by minute", rate("vms_1m WHERE side = 'source'")),
        query("rate of the day, by minute, from pairs of VMs", rate("windows_1m")),
        query("tenants of the day", tenants("windows_1h")),
        query("tenants of the day, window by window", tenants("windows")),
        query(
            "top pairs of the day",
            format!(
                "SELECT {ENDS}, sum(octet_delta_count) FROM windows_1h GROUP BY ALL \
                 ORDER BY 3 DESC LIMIT 20"
            ),
        ),
        query(
            "one VM's day, by minute",
            rate(&format!("vms_1m WHERE virtual_station_name = {vm}")),
        ),
        query(
            "one VM's day, by minute, from pairs of VMs",
            format!(
                "SELECT start_ns, sum(octet_delta_count) FROM windows_1m \
                 WHERE destination_virtual_station_name = {vm} \
                 OR source_virtual_station_name = {vm} GROUP BY 1 ORDER BY 1"
            ),
        ),
        query(
            "one VM's peers of the day",
            format!(
                "SELECT {ENDS}, application_name, sum(octet_delta_count) FROM windows_1h \
                 WHERE destination_virtual_station_name = {vm} OR source_virtual_station_name = {vm} \
                 GROUP BY ALL ORDER BY 4 DESC"
            ),
        ),
        query(
            "top pairs of an hour",
            format!(
                "SELECT {ENDS}, sum(octet_delta_count) FROM windows WHERE {} GROUP BY ALL \
                 ORDER BY 3 DESC LIMIT 20",
                noon(3_600)
            ),
        ),
        query(
            "delay of a tenant, by minute of an hour",
            format!(
                "SELECT window_start_ns - window_start_ns % 60000000000 AS minute, \
                 sum(sequence_ack_rtt_sum_ns) / sum(sequence_ack_rtt_sample_count) FROM windows \
                 WHERE destination_virtual_station_tenant = 'tenant-003' AND {} \
                 GROUP BY 1 ORDER BY 1",
                noon(3_600)
            ),
        ),
        query(
            "all of one minute",
            format!(
                "SELECT * FROM windows WHERE {} ORDER BY octet_delta_count DESC LIMIT 100",
                noon(60)
            ),
        ),
        query(
            "flows of an address outside",
            "SELECT flow_id, destination_virtual_station_name, octet_delta_count FROM flows \
             WHERE source_address = '198.18.3.7' ORDER BY flow_end_ns LIMIT 100"
                .into(),
        ),
        query("one flow", format!("SELECT * FROM flows WHERE flow_id = {flow_id}")),
        query("alerts of the day", "SELECT * FROM alerts ORDER BY last_seen_ns DESC".into()),
        query(
            "ledger of the day",
            "SELECT measure, sum(packet_count) FROM ledger GROUP BY 1 ORDER BY 1".into(),
        ),
        (
            "topology of an hour",
            Sql::Topology([
                format!("--from={}", NOON_S * 1_000_000_000),
                format!("--to={}", (NOON_S + 3_600) * 1_000_000_000),
            ]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClickhousePlan;

    #[test]
    fn questions_have_names_of_their_own() {
        let mut names: Vec<_> = all(1).into_iter().map(|(name, _)| name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_server_is_asked_for_what_it_has() {
        let url = "http://127.0.0.1:8123".parse().expect("a URL");
        let server = Records::Clickhouse(Box::new(ClickhousePlan::new(url)));
        let names =
            |records| questions(&records, 1).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let (of_server, mut of_files) = (names(server), names(Records::Folder("records".into())));
        of_files.retain(|name| {
            !matches!(*name, "rate of the day, by minute" | "one VM's day, by minute")
        });
        assert_eq!(of_server, of_files);
        assert_eq!(of_files.len() + 2, all(1).len());
    }
}
