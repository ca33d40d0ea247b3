//! `vmprobe bench --plan`: what a machine must have for a line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vmprobe::runtime::bench::BenchOptions;
use vmprobe::runtime::bench::plan::{
    Assumptions, Bottleneck, Encapsulation, Mix, Origin, PlanError, PlanOptions, Sizing,
    SizingReport, Traffic, plan as make,
};

use super::super::output::{self, Outcome};

#[derive(Args)]
#[command(next_help_heading = "Plan")]
pub(crate) struct PlanArguments {
    /// Plan a machine: what a packet costs here, carried over to a line, a mix and a number of
    /// cores. Measures `--pcap`, or generated packets without it, or reads `--measured`.
    #[arg(long)]
    plan: bool,
    /// A report of `bench --json` with one worker (best with --poll-gaps and --spread), instead of
    /// a measurement.
    #[arg(long, value_name = "FILE", requires = "plan", conflicts_with = "pcap")]
    measured: Option<PathBuf>,
    /// Rate of the NIC in Gbit/s.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = 100.0)]
    nic_gbps: f64,
    /// `imix` (7:4:1 of 64, 594 and 1,518 octets), or octets of every frame with FCS.
    #[arg(long, value_name = "MIX", requires = "plan", default_value = "imix")]
    mix: Mix,
    /// What the mirror wraps around each frame.
    #[arg(long, value_enum, requires = "plan", default_value_t = Wrapping::None)]
    encap: Wrapping,
    /// Cores of the machine, several by comma.
    #[arg(long, value_name = "N", requires = "plan", value_delimiter = ',', default_values_t = [4, 8, 16])]
    cores: Vec<u16>,
    /// Flows that are alive at the same time.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = 1e6)]
    flows: f64,
    /// Share of packets that are copies of others, 0 to 0.99.
    #[arg(long, value_name = "SHARE", requires = "plan", default_value_t = 0.0)]
    copies: f64,
    /// Share of a core's time to plan with, in percent.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = 70.0)]
    load_percent: f64,
    /// What each further worker adds to the cost of a packet, in percent of it.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = 2.0)]
    contention_percent: f64,
    /// Cost of the NIC's driver a packet, in nanoseconds.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = Assumptions::default().receive_ns)]
    receive_ns: f64,
    /// What spreading adds to a packet passed on, in nanoseconds. Default: as measured, else 25.
    /// 0 where the NIC brings both directions and all copies together.
    #[arg(long, value_name = "N", requires = "plan")]
    spread_ns: Option<f64>,
    /// Packets of the busiest worker as a multiple of the mean.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = Assumptions::default().skew)]
    skew: f64,
    /// Cache lines of a packet that lie anywhere in the flow table.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = Assumptions::default().flow_lines)]
    flow_lines: f64,
    /// Cores for aggregation, store, page and system.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = Assumptions::default().other_cores)]
    other_cores: u16,
    /// How long a flow stays in the table on average, with its timeout, in seconds.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = Assumptions::default().flow_life_s)]
    flow_life_s: f64,
    /// Length of a window in seconds.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = Assumptions::default().window_s)]
    window_s: f64,
    /// Bytes on disk of a row of `windows`.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = Assumptions::default().row_bytes)]
    row_bytes: f64,
    /// Bytes on disk of a row of `flows`.
    #[arg(long, value_name = "N", requires = "plan", default_value_t = Assumptions::default().record_bytes)]
    record_bytes: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Wrapping {
    /// Nothing.
    None,
    /// A VLAN tag, 4 octets.
    Rspan,
    /// Ethernet, IPv4, UDP and VXLAN, 50 octets.
    Vxlan,
    /// Ethernet, IPv4, GRE and ERSPAN type II, 50 octets.
    Erspan2,
}

impl PlanArguments {
    pub(super) fn is_asked(&self) -> bool {
        self.plan
    }

    fn options(&self) -> PlanOptions {
        PlanOptions {
            traffic: Traffic {
                nic_gbps: self.nic_gbps,
                mix: self.mix,
                encapsulation: match self.encap {
                    Wrapping::None => Encapsulation::None,
                    Wrapping::Rspan => Encapsulation::Rspan,
                    Wrapping::Vxlan => Encapsulation::Vxlan,
                    Wrapping::Erspan2 => Encapsulation::Erspan2,
                },
                flows: self.flows,
                copies_share: self.copies,
            },
            cores: self.cores.clone(),
            measured: self.measured.clone(),
            assumptions: Assumptions {
                load_share: self.load_percent / 100.0,
                contention_share: self.contention_percent / 100.0,
                receive_ns: self.receive_ns,
                spread_ns: self.spread_ns,
                skew: self.skew,
                flow_lines: self.flow_lines,
                other_cores: self.other_cores,
                flow_life_s: self.flow_life_s,
                window_s: self.window_s,
                row_bytes: self.row_bytes,
                record_bytes: self.record_bytes,
            },
        }
    }
}

pub(super) fn plan(arguments: &PlanArguments, bench: &BenchOptions, json: bool) -> Outcome {
    match make(&arguments.options(), bench) {
        Ok(report) if json => output::json(&report),
        Ok(report) => print(&report),
        Err(error @ (PlanError::OutOfRange { .. } | PlanError::NoWorker { .. })) => {
            return output::misused(&format_args!("vmprobe: {error}"));
        }
        Err(error) => return output::failed(&error),
    }
    Outcome::Success
}

fn print(report: &SizingReport) {
    let traffic = &report.traffic;
    output::line(format_args!(
        "{} Gbit/s of {} frames ({:.1} octets each on the wire, {} octets of encapsulation among them): {:.2} million \
         packets a second; {:.0} flows, {:.0} % copies",
        traffic.nic_gbps,
        traffic.mix,
        report.wire_octets_mean,
        traffic.encapsulation.octets(),
        report.line_packets_per_second / 1e6,
        traffic.flows,
        traffic.copies_share * 100.0
    ));
    print_costs(report);
    output::line(
        "\n| cores | workers | ns a packet: budget, cost | Mpps | Gbit/s | of the line | short of | cores for the line |",
    );
    output::line("|---|---|---|---|---|---|---|---|");
    for sizing in &report.plans {
        output::line(rate_row(sizing));
    }
    output::line(
        "\n| cores | slots a worker | flow tables MiB | memory MiB | descriptors a queue | aggregator's load | rows/s | flow records/s | MB/s to disk |",
    );
    output::line("|---|---|---|---|---|---|---|---|---|");
    for sizing in &report.plans {
        output::line(memory_row(sizing));
    }
    print_assumptions(report);
}

fn rate_row(sizing: &Sizing) -> String {
    let short = match sizing.bottleneck {
        Bottleneck::Line => "the line",
        Bottleneck::Workers => "workers",
        Bottleneck::Aggregator => "aggregator",
    };
    format!(
        "| {} | {} | {:.1}, {:.1} | {:.2} | {:.1} | {:.0} % | {short} | {} |",
        sizing.cores,
        sizing.workers,
        sizing.budget_ns_per_packet,
        sizing.cost_ns_per_packet,
        sizing.packets_per_second / 1e6,
        sizing.gbps,
        sizing.line_share * 100.0,
        or_none(sizing.cores_needed, "no number")
    )
}

fn memory_row(sizing: &Sizing) -> String {
    let load = sizing.aggregator_load.map(|load| format!("{:.0} %", load * 100.0));
    format!(
        "| {} | {} | {} | {} | {} | {} | {:.0} | {:.0} | {:.1} |",
        sizing.cores,
        sizing.slots_per_worker,
        sizing.flow_bytes >> 20,
        sizing.memory_bytes >> 20,
        or_none(sizing.descriptors, "not measured"),
        load.as_deref().unwrap_or("not measured"),
        sizing.rows_per_second,
        sizing.records_per_second,
        sizing.disk_bytes_per_second / 1e6
    )
}

fn or_none(number: Option<u32>, none: &str) -> String {
    number.map_or_else(|| none.to_owned(), |number| number.to_string())
}

fn print_costs(report: &SizingReport) {
    let costs = &report.costs;
    let origin = match &costs.origin {
        Origin::Capture(file) => file.display().to_string(),
        Origin::Report(file) => format!("the report {}", file.display()),
        Origin::Generated => "generated packets".to_owned(),
    };
    output::line(format_args!(
        "\nMeasured on {origin}: {:.1} ns a packet ({} packets, {} flows), {} bytes a flow",
        costs.ns_per_packet, costs.packets, costs.flows, costs.bytes_per_flow
    ));
    let figures = [
        ("poll gap p99.99, µs", costs.poll_gap_p9999_us),
        ("spreading, ns a packet passed on", costs.spread_ns_per_passed_packet),
        ("aggregation, ns a row or record", costs.aggregator_ns_per_row),
    ];
    for (name, figure) in figures {
        let figure = figure.map_or("not measured".to_owned(), |figure| format!("{figure:.1}"));
        output::line(format_args!("  {name}: {figure}"));
    }
    for latency in report.memory.sizes() {
        output::line(format_args!(
            "  memory, table of {} KiB: dependent load {:.1} ns, update in a burst {:.1} ns",
            latency.table_bytes >> 10,
            latency.dependent_load_ns,
            latency.grouped_update_ns
        ));
    }
}

fn print_assumptions(report: &SizingReport) {
    let given = &report.assumptions;
    let measured = report.costs.spread_ns_per_passed_packet.is_some();
    let spread = match given.spread_ns {
        Some(ns) => format!("{ns:.1} ns"),
        None if measured => "as measured".to_owned(),
        None => "25 ns".to_owned(),
    };
    output::line("\nAssumed");
    output::line(format_args!(
        "  a core is planned with {:.0} % load; each further worker adds {:.1} % to a packet's cost",
        given.load_share * 100.0,
        given.contention_share * 100.0
    ));
    output::line(format_args!(
        "  the driver takes {:.1} ns a packet; spreading {spread} a packet passed on; the busiest \
         worker has {:.2} times the mean",
        given.receive_ns, given.skew
    ));
    output::line(format_args!(
        "  {:.1} lines of a packet anywhere in the flow table; {} cores for other threads; a flow \
         stays {:.0} s; windows of {:.1} s",
        given.flow_lines, given.other_cores, given.flow_life_s, given.window_s
    ));
    output::line(format_args!(
        "  {:.0} bytes on disk a row of windows, {:.0} a row of flows",
        given.row_bytes, given.record_bytes
    ));
    for assumed in report.assumed {
        output::line(format_args!("  {assumed}"));
    }
    for sizing in report.plans.iter().filter(|sizing| !sizing.limits.is_empty()) {
        output::line(format_args!("\nWith {} cores", sizing.cores));
        for limit in &sizing.limits {
            output::line(format_args!("  {limit}"));
        }
    }
}
