//! `vmprobe generate`.

use std::path::PathBuf;

use clap::Args;
use vmprobe::generate::{Options, Scenario, generate as make};

use super::output::{self, Outcome};

#[derive(Args)]
pub(crate) struct GenerateArguments {
    /// Scenario; `list` prints all with a line each.
    #[arg(long, value_name = "NAME", default_value = "cloud")]
    scenario: String,
    /// Seed: the same seed gives the same files, octet for octet.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// VMs of each of the 100 tenants of the scenario overlap, 10–240.
    #[arg(long, value_name = "N")]
    vms_per_tenant: Option<u8>,
    /// Folder for captures, inventory.toml, vmprobe.toml and truth.json.
    #[arg(long, value_name = "DIR", default_value = "generated")]
    out: PathBuf,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn generate(arguments: &GenerateArguments) -> Outcome {
    if arguments.scenario == "list" {
        for scenario in Scenario::ALL {
            output::line(format_args!("{:<12} {}", scenario.name(), scenario.meaning()));
        }
        return Outcome::Success;
    }
    let scenario: Scenario = match arguments.scenario.parse() {
        Ok(scenario) => scenario,
        Err(error) => return output::misused(&error),
    };
    let options = Options { vms_per_tenant: arguments.vms_per_tenant, ..Options::default() };
    match make(scenario, arguments.seed, &arguments.out, options) {
        Ok(summary) if arguments.json => {
            output::json(&serde_json::json!({
                "scenario": scenario.name(),
                "seed": arguments.seed,
                "packets": summary.packets,
                "octets": summary.octets,
                "files": summary.files,
            }));
            Outcome::Success
        }
        Ok(summary) => {
            output::line(format_args!("{} packets, {} octets", summary.packets, summary.octets));
            for file in &summary.files {
                output::line(format_args!("  {}", file.display()));
            }
            Outcome::Success
        }
        Err(error) => output::failed(&error),
    }
}
