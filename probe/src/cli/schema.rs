//! `vmprobe schema`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vmprobe::config::{self, ClickhousePlan, Mode, SinkKind, SinkPlan};
use vmprobe::export::{clickhouse, elastic, kafka};

use super::output::{self, Outcome};

#[derive(Args)]
pub(crate) struct SchemaArguments {
    #[command(subcommand)]
    of: Of,
}

#[derive(Subcommand)]
enum Of {
    /// Tables of ClickHouse: print them, or make and upgrade them on the servers of the configuration.
    Clickhouse(ClickhouseArguments),
    /// Index template of Elasticsearch, as JSON: PUT it to /_index_template/NAME.
    Elastic(ElasticArguments),
    /// Messages on Kafka in Protocol Buffers: print vmprobe.proto.
    Protobuf,
}

#[derive(Args)]
struct ElasticArguments {
    /// Beginning of the names of indices, as sink.elastic.index says.
    #[arg(long, value_name = "NAME", default_value = "vmprobe")]
    index: String,
}

#[derive(Args)]
struct ClickhouseArguments {
    /// Configuration file with [[sink.clickhouse]]; without it the tables are printed with defaults.
    #[arg(short, long, value_name = "FILE", required_if_eq_any = [("apply", "true"), ("dry_run", "true")])]
    config: Option<PathBuf>,
    /// Only the sink of this name.
    #[arg(long, value_name = "NAME", requires = "config")]
    sink: Option<String>,
    /// Make and upgrade the tables on the server. Can be run again at any time.
    #[arg(long)]
    apply: bool,
    /// Ask the server, and print what --apply would do.
    #[arg(long, conflicts_with = "apply")]
    dry_run: bool,
}

pub(crate) fn schema(arguments: &SchemaArguments) -> Outcome {
    let arguments = match &arguments.of {
        Of::Clickhouse(arguments) => arguments,
        Of::Elastic(arguments) => {
            output::line(format_args!("{:#}", elastic::template(&arguments.index)));
            return Outcome::Success;
        }
        Of::Protobuf => {
            output::line(kafka::COMMITTED.trim_end());
            return Outcome::Success;
        }
    };
    let Some(file) = &arguments.config else {
        return match "http://127.0.0.1:8123".parse() {
            Ok(url) => print(&ClickhousePlan::new(url)),
            Err(error) => output::failed(&error),
        };
    };
    let plan = match config::load(file, Mode::Check) {
        Ok(loaded) => loaded.plan,
        Err(problems) => return output::misused(&problems),
    };
    let wanted = |sink: &&SinkPlan| arguments.sink.as_ref().is_none_or(|name| *name == sink.name);
    let mut found = false;
    for sink in plan.sinks.iter().filter(wanted) {
        let SinkKind::Clickhouse(clickhouse) = &sink.kind else { continue };
        found = true;
        let outcome = one(arguments, sink, clickhouse);
        if !matches!(outcome, Outcome::Success) {
            return outcome;
        }
    }
    if found {
        return Outcome::Success;
    }
    match &arguments.sink {
        Some(name) => {
            output::misused(&format!("{}: no [[sink.clickhouse]] is called {name}", file.display()))
        }
        None => output::misused(&format!("{}: there is no [[sink.clickhouse]]", file.display())),
    }
}

fn one(arguments: &ClickhouseArguments, sink: &SinkPlan, plan: &ClickhousePlan) -> Outcome {
    if !arguments.apply && !arguments.dry_run {
        return print(plan);
    }
    match clickhouse::apply(plan, SCHEMA_TIMEOUT_MS.max(sink.timeout_ms), arguments.dry_run) {
        Ok(statements) => {
            for statement in &statements {
                output::line(format_args!("{statement};\n"));
            }
            let done = if arguments.apply { "executed" } else { "needed" };
            let count = statements.len();
            output::line(format_args!("-- {}: {count} statements {done}", sink.name));
            Outcome::Success
        }
        Err(error) => output::failed(&format!("{}: {error}", sink.name)),
    }
}

/// Statements on a cluster take longer than a batch may.
const SCHEMA_TIMEOUT_MS: u32 = 180_000;

fn print(plan: &ClickhousePlan) -> Outcome {
    output::line(clickhouse::ddl::text(plan).trim_end());
    Outcome::Success
}
