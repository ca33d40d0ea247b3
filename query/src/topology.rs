//! Who talks to whom, where they stand, and which taps see it, for any span of time.
//!
//! In: the records, in a folder or a ClickHouse, and a span. Out: one graph as JSON, GraphML or DOT.
//! Cost: four passes over the conversations of the hours that stand added up, three of them over few columns, and one over some columns of the
//! `windows` of the others (in a ClickHouse, of all); more where they do not fit the memory at once; two over
//! `path`; at most `--limit` conversations are kept.
//! Invariants: conversations that are left out are counted in the graph, and what it was made without stands in its
//! warnings; the same records give the same text.

mod conversations;
mod dot;
mod edges;
mod graph;
mod graphml;
mod json;
mod read;
mod rolled;
mod stored;
mod talks;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write as _};

use clap::{Parser, ValueEnum};

use crate::clickhouse::{ANSWER_SHARE, Asking, Server};
use crate::database::{Database, Limits};
use crate::deadline::Watch;
use crate::place::Place;
use crate::span::Span;
use crate::warnings::Warnings;
use crate::{files, live};
use stored::Stored;

/// What a graph is made of, as a text that names it: tables, and windows as far as they stand added up.
const TABLES: &str = "talks_1h path taps inventory inventory_now";

/// Tenants, hosts, switches, taps, segments and virtual machines, and the conversations between them.
#[derive(Debug, Parser)]
#[command(name = "vmprobe topology", version, about)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Form of the graph.
    #[arg(long, value_enum, default_value_t = Form::Json)]
    format: Form,
    /// First instant, as RFC 3339 (`2026-01-01T00:00:00Z`) or nanoseconds since the epoch; the
    /// first record where nothing is said.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// First instant after it; the last record where nothing is said.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only conversations with this tenant at either end.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Conversations at most, those with the most octets first, 1–100000.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Seconds after which it is stopped, whatever it does by then, 1–86400.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    timeout_s: u32,
    /// Memory that it may use, in MiB, 128–1048576. With little it takes longer.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(128..=1_048_576))]
    memory_mib: u32,
    /// Leave out files that are no records, with a warning, instead of refusing to answer.
    #[arg(long)]
    skip_bad_files: bool,
}

/// Form of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One JSON document with nodes and edges.
    Json,
    /// GraphML, for Gephi, yEd and others.
    Graphml,
    /// DOT, for Graphviz.
    Dot,
}

impl Arguments {
    /// From the arguments behind `topology`.
    pub(crate) fn of(arguments: impl Iterator<Item = OsString>) -> Self {
        Self::parse_from(std::iter::once("vmprobe topology".into()).chain(arguments))
    }
}

/// Prints the graph.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    live::stand_back();
    let watch = Watch::in_s(arguments.timeout_s, arguments.place.is_server())?;
    let deadline = watch.deadline();
    let limits = Limits {
        memory_mib: arguments.memory_mib,
        stop: watch.stop(),
        threads: live::threads(),
        keeps_order: false,
    };
    let span = Span::of(arguments.from.as_deref(), arguments.to.as_deref())?;
    let wanted =
        read::Wanted { span, tenant: arguments.tenant.as_deref(), conversations: arguments.limit };
    let warnings = Warnings::new(arguments.skip_bad_files);
    let mut graph = match arguments.place.server()? {
        Some(access) => {
            let asking = Asking {
                deadline,
                memory_mib: arguments.memory_mib,
                answer_mib: arguments.memory_mib / ANSWER_SHARE,
            };
            let server = Server::open(access, asking)?;
            let database = Database::open_empty(limits)?;
            read::graph(&database, &Stored::on(&database, server, span)?, &wanted)?
        }
        None => {
            let folder = arguments.place.folder()?;
            live::ask(folder, deadline, &warnings);
            let files = files::find(folder, TABLES, &warnings)?;
            let database = Database::open(&files, limits, &warnings)?;
            let graph = read::graph(&database, &Stored::Files, &wanted);
            graph.map_err(|error| database.blame(&files, error))?
        }
    };
    graph.warnings = warnings.into_told();
    let mut out = BufWriter::new(io::stdout().lock());
    match arguments.format {
        Form::Json => json::write(&graph, &mut out)?,
        Form::Graphml => graphml::write(&graph, &mut out)?,
        Form::Dot => dot::write(&graph, &mut out)?,
    }
    Ok(out.flush()?)
}
