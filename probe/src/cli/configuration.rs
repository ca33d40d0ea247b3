//! `vmprobe check` and `vmprobe doctor`.

use std::path::{Path, PathBuf};

use clap::Args;
use vmprobe::config::{self, Mode, check as derived, doctor as host};
use vmprobe::inventory::file;
use vmprobe::runtime::table_sizes;

use super::output::{self, Outcome};

#[derive(Args)]
pub(crate) struct CheckArguments {
    /// Configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct DoctorArguments {
    /// Memory for packets in MiB that hugepages should hold.
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    memory_mib: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn check(arguments: &CheckArguments) -> Outcome {
    let loaded = match config::load(&arguments.config, Mode::Check) {
        Ok(loaded) => loaded,
        Err(problems) => return wrong(arguments, &problems.to_string()),
    };
    let plan = &loaded.plan;
    let inventory = plan.inventory.file.as_ref();
    let read = inventory.map(|path| file::load(path, &plan.domains, &plan.spaces)).transpose();
    if let Err(problems) = read {
        return wrong(arguments, &problems.to_string());
    }
    for warning in loaded.warnings.to_string().lines() {
        tracing::warn!("{warning}");
    }
    let sizes = table_sizes();
    if arguments.json {
        output::json(&derived::json(&loaded.plan, &sizes));
    } else {
        output::line(derived::report(&loaded.plan, &sizes).trim_end());
    }
    Outcome::Success
}

fn wrong(arguments: &CheckArguments, problems: &str) -> Outcome {
    if arguments.json {
        let problems: Vec<&str> = problems.lines().collect();
        output::json(&serde_json::json!({ "problems": problems }));
    }
    output::misused(&problems)
}

pub(crate) fn doctor(arguments: &DoctorArguments) -> Outcome {
    let findings = host::examine(Path::new("/"), arguments.memory_mib);
    if arguments.json {
        let findings: Vec<_> = findings
            .iter()
            .map(|finding| {
                serde_json::json!({
                    "area": finding.area.name(),
                    "ok": finding.ok,
                    "what": finding.what,
                    "mend": finding.mend,
                })
            })
            .collect();
        output::json(&serde_json::json!({ "findings": findings }));
        return Outcome::Success;
    }
    for finding in &findings {
        let mark = if finding.ok { "ok  " } else { "mend" };
        output::line(format_args!("{mark}  {:<10} {}", finding.area.name(), finding.what));
        if let Some(command) = &finding.mend {
            output::line(format_args!("                 {command}"));
        }
    }
    Outcome::Success
}
