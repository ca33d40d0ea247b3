//! SQL over the records of vmprobe.
//!
//! In: records, in a folder or a ClickHouse, and one `SELECT`. Out: the answer as table, JSON or CSV.
//! Cost: bounded threads, memory and time; a process of its own, so nothing of the probe's.
//! Invariants: nothing is written, and nothing but the records is read; exit code 0 only with the whole
//! answer, 1 for an error, 2 for bad usage (a span that is none, too), 3 where the server does not answer, 4
//! where it refuses, 5 where the disk has no room for an hour that is added up.

mod cell;
mod changes;
mod clickhouse;
mod database;
mod deadline;
mod dialect;
mod files;
mod live;
mod now;
mod output;
mod place;
mod rollup;
mod schema;
mod span;
mod statement;
mod topology;
mod warnings;

use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use clickhouse::{Access, Asking, Refused, Server};
use database::{Database, Limits};
use deadline::{Deadline, Watch};
use output::Rows;
use place::Place;
use span::{NoSpan, Span};
use warnings::Warnings;

/// SQL over the records of vmprobe.
///
/// `DESCRIBE flows` lists the columns of one table; all are named below. The SQL is DuckDB's, with --clickhouse that server's; only queries are allowed, and only over these
/// records.
#[derive(Debug, Parser)]
#[command(name = "vmprobe-query", version, about, after_help = schema::listed())]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Seconds after which the command is stopped, whatever it does by then, 1–86400.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    timeout_s: u32,
    /// Memory that the query may use, in MiB, 64–1048576.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    memory_mib: u32,
    /// Threads of the query, 1–256. Default: as many as there are cores, but at most 4, and none on
    /// the cores of a running probe's workers.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Leave out files that are no records, with a warning, instead of refusing to answer.
    #[arg(long)]
    skip_bad_files: bool,
    /// Read what is in files only: do not ask a running probe for its newest records.
    #[arg(long)]
    stored_only: bool,
    /// Fetch the records of a span from ClickHouse, and ask them here: SQL and views are those of files.
    /// A quarter of --memory-mib is the most that a table may be.
    #[arg(long, requires = "clickhouse")]
    local: bool,
    /// With --local, the first instant: RFC 3339 (`2026-01-01T00:00:00Z`) or nanoseconds since the epoch.
    #[arg(long, value_name = "TIME", requires = "local")]
    from: Option<String>,
    /// With --local, the first instant after it.
    #[arg(long, value_name = "TIME", requires = "local")]
    to: Option<String>,
    /// The query.
    sql: String,
}

/// Form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned text for people, with the number of rows.
    Table,
    /// One JSON document: an array of objects.
    Json,
    /// RFC 4180, with a header line; null is an empty field.
    Csv,
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
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmprobe-query: {error:#}");
            ExitCode::from(code_of(&error))
        }
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Refused>() {
        Some(Refused::Unreachable(_)) => 3,
        Some(_) => 4,
        None if error.is::<NoSpan>() => 2,
        None if error.is::<rollup::NoRoom>() => 5,
        None => 1,
    }
}

/// A graph, an hour added up, or the answer to a query. No query is the first word alone.
fn answer() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().and_then(|first| first.into_string().ok()).as_deref() {
        Some("topology") => topology::run(&topology::Arguments::of(arguments)),
        Some("roll-up") => rollup::run(&rollup::Arguments::of(arguments)),
        _ => run(&Arguments::parse()),
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    live::stand_back();
    let watch = Watch::in_s(arguments.timeout_s, arguments.place.is_server())?;
    let deadline = watch.deadline();
    let span = Span::of(arguments.from.as_deref(), arguments.to.as_deref())?;
    let warnings = Warnings::new(arguments.skip_bad_files);
    let files = match arguments.place.server()? {
        Some(access) if arguments.local => {
            clickhouse::records(&server(access, arguments, deadline)?, &arguments.sql, span)?
        }
        Some(access) => {
            let mut answer = server(access, arguments, deadline)?.question(&arguments.sql)?;
            return write(&mut answer, arguments.format);
        }
        None => {
            let folder = arguments.place.folder()?;
            if !arguments.stored_only {
                live::ask(folder, deadline, &warnings);
            }
            files::find(folder, &arguments.sql, &warnings)?
        }
    };
    let limits = Limits {
        memory_mib: arguments.memory_mib,
        stop: watch.stop(),
        threads: arguments.threads.map_or_else(live::threads, usize::from),
        keeps_order: true,
    };
    let database = Database::open(&files, limits, &warnings)?;
    let mut answer = database.prepare(&arguments.sql)?;
    let written = database.run(&mut answer).and_then(|mut rows| write(&mut rows, arguments.format));
    written.map_err(|error| database.blame(&files, error))
}

fn server(access: Access, arguments: &Arguments, deadline: Deadline) -> anyhow::Result<Server> {
    let memory_mib = arguments.memory_mib;
    let share = if arguments.local { clickhouse::ANSWER_SHARE } else { 1 };
    Server::open(access, Asking { deadline, memory_mib, answer_mib: memory_mib / share })
}

fn write(rows: &mut dyn Rows, format: Format) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match format {
        Format::Table => output::table(rows, &mut out)?,
        Format::Json => output::json(rows, &mut out)?,
        Format::Csv => output::csv(rows, &mut out)?,
    }
    Ok(out.flush()?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(broken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_help_names_all_that_can_be_asked() {
        let help = Arguments::command().render_long_help().to_string();
        for name in
            schema::tables().chain(["windows_now", "migration_lens", "windows_1h", "vms_1m"])
        {
            let is_name = |it: char| it.is_alphanumeric() || it == '_';
            assert!(help.split(|it| !is_name(it)).any(|word| word == name), "{name}: {help}");
        }
    }
}
