//! The program: arguments, configuration, run, exit code.
//!
//! In: the command line. Out: exit code 0 only on full success, 1 for failure on the way, 2 for bad
//! usage or configuration.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cli::{bench, configuration, correlate, generate, output, query, replay, run, schema, tidy};

/// Monitoring appliance for the traffic between virtual machines.
#[derive(Parser)]
#[command(name = "vmprobe", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Receive mirrored packets from NIC ports until SIGINT or SIGTERM.
    Run(run::RunArguments),
    /// Read capture files through the same workers.
    Replay(replay::ReplayArguments),
    /// Make a deterministic cloud as captures, inventory, configuration and truth.
    Generate(generate::GenerateArguments),
    /// Say every problem of a configuration at once.
    Check(configuration::CheckArguments),
    /// Look at this machine: hugepages, IOMMU, drivers, clock; say what mends each finding.
    Doctor(configuration::DoctorArguments),
    /// Join the path samples of many probes from Kafka; several share the work.
    Correlate(correlate::CorrelateArguments),
    /// Make and upgrade the tables of a database that records go to.
    Schema(schema::SchemaArguments),
    /// Ask the stored records by SQL.
    #[command(disable_help_flag = true)]
    Query {
        /// Passed on to vmprobe-query; see `vmprobe query --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Who talks to whom, where they stand and which taps see it, as JSON, GraphML or DOT.
    #[command(disable_help_flag = true)]
    Topology {
        /// Passed on to vmprobe-query; see `vmprobe topology --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Measure the packet path on packets in memory.
    Bench(Box<bench::BenchArguments>),
    /// What `run` starts to have its records merged and removed.
    #[command(name = vmprobe::store::TIDY_COMMAND, hide = true)]
    TidyStore,
}

/// A thread that panics ends the program: a release is built to abort, and tests run a program that is not.
fn abort_in_a_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

fn main() -> ExitCode {
    if cfg!(panic = "unwind") {
        abort_in_a_panic();
    }
    let arguments = Arguments::parse();
    output::start_log();
    let outcome = match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Replay(arguments) => replay::replay(&arguments),
        Command::Generate(arguments) => generate::generate(&arguments),
        Command::Check(arguments) => configuration::check(&arguments),
        Command::Doctor(arguments) => configuration::doctor(&arguments),
        Command::Correlate(arguments) => correlate::correlate(&arguments),
        Command::Schema(arguments) => schema::schema(&arguments),
        Command::Query { arguments } => query::query(None, arguments),
        Command::Topology { arguments } => query::query(Some("topology"), arguments),
        Command::Bench(arguments) => bench::bench(&arguments),
        Command::TidyStore => tidy::tidy(),
    };
    outcome.into()
}
