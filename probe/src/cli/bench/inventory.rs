//! `vmprobe bench --inventory`.

use clap::Args;
use vmprobe::runtime::bench::inventory::{self as measurement, InventoryOptions};

use super::super::output::{self, Outcome};

#[derive(Args)]
pub(crate) struct InventoryArguments {
    /// Measure look-ups in the inventory while it changes; no capture is read.
    #[arg(long, conflicts_with_all = ["pcap", "aggregator"])]
    pub(super) inventory: bool,
    /// Tenants, all with the same addresses.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "inventory", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tenants: u32,
    /// VMs of each tenant.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "inventory", value_parser = clap::value_parser!(u8).range(1..=254))]
    vms_per_tenant: u8,
    /// Migrations a second; as many addresses go over to another VM.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "inventory", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    changes_per_second: u32,
    /// How long.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "inventory", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
}

/// Measures; `json`: as one JSON object.
pub(super) fn bench(arguments: &InventoryArguments, json: bool) -> Outcome {
    let report = measurement::measure(InventoryOptions {
        tenants: arguments.tenants,
        vms_per_tenant: arguments.vms_per_tenant,
        changes_per_second: arguments.changes_per_second,
        seconds: arguments.seconds,
    });
    if json {
        output::json(&report);
    } else {
        output::line(format_args!(
            "{} VMs of {} tenants, all in 10.0.0.0/24; {} changes meanwhile",
            report.vms, report.tenants, report.changes
        ));
        output::line(format_args!(
            "{:.2} million look-ups a second of CPU time ({:.0} ns each; {:.0} ns where each fetches \
             the newest snapshot); {} of {} were wrong",
            report.lookups_per_second / 1e6,
            report.ns_per_lookup,
            report.ns_per_lookup_with_fetch,
            report.wrong,
            report.lookups
        ));
        output::line(format_args!(
            "A change takes the keeper {:.0} us of CPU time and is seen after {:.0} us (median; at \
             most {:.0} us); reading all VMs takes {:.0} ms; {} MiB resident",
            report.change_us,
            report.visible_us_p50,
            report.visible_us_max,
            report.load_ms,
            report.resident_bytes >> 20
        ));
    }
    if report.wrong == 0 { Outcome::Success } else { Outcome::Failure }
}
