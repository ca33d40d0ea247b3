//! DuckDB over the records, locked down.
//!
//! In: files and limits. Out: prepared statements, and their rows.
//! Invariants: when a user's SQL runs, no file but those of the records can be opened, no extension
//! can be loaded, no setting can be changed, and the clock that stops it can do so.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use anyhow::{Context as _, anyhow};
use duckdb::{Config, Connection, Rows, Statement};

use crate::cell::Cell;
use crate::clickhouse::is_too_much;
use crate::deadline::Stop;
use crate::files::{Files, OpenFile, held_folder};
use crate::rollup::{self, RollUp};
use crate::warnings::Warnings;
use crate::{schema, statement};

/// Where the tables without rows stand, out of the way of `SHOW TABLES`.
const EMPTY_SCHEMA: &str = "empty_records";
/// What conversations are read of, where a graph is made.
pub(crate) const TALKS: Talks = Talks {
    rolled: "empty_records.rolled_talks",
    behind: "empty_records.windows_behind",
    rest: "empty_records.other_windows",
    windows: "empty_records.all_windows",
};

/// How errors begin that a file may be the cause of.
const UNREADABLE: [&str; 4] =
    ["Invalid Error", "IO Error", "Invalid Input Error", "Serialization Error"];

/// What a query may use.
#[derive(Clone)]
pub(crate) struct Limits {
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// Time of the whole command.
    pub(crate) stop: Stop,
    /// Threads.
    pub(crate) threads: usize,
    /// Whether rows without an order come as they stand in the files, which takes memory.
    pub(crate) keeps_order: bool,
}

/// Names of views.
pub(crate) struct Talks {
    /// Hours that stand added up, as `rollup::talks` has them.
    pub(crate) rolled: &'static str,
    /// The windows that these are made of.
    pub(crate) behind: &'static str,
    /// Those that stand added up nowhere.
    pub(crate) rest: &'static str,
    /// Both.
    pub(crate) windows: &'static str,
}

/// An open database with one view a table.
pub(crate) struct Database {
    connection: Connection,
    stop: Stop,
    /// What DuckDB calls a file, and its name; the longest first.
    names: Vec<(String, String)>,
}

impl Database {
    /// For the program's own work, on what it names itself; the tables are there as `files` has them.
    pub(crate) fn open_alone(
        files: &Files,
        limits: Limits,
        warnings: &Warnings,
    ) -> anyhow::Result<Self> {
        let database = Self::open_nothing(limits, Vec::new())?;
        database.make_views(files, warnings)?;
        Ok(database)
    }

    /// With tables that are empty as yet, and the views over them that a graph reads.
    pub(crate) fn open_empty(limits: Limits) -> anyhow::Result<Self> {
        let database = Self::open_nothing(limits, Vec::new())?;
        database.make_empty()?;
        database.execute(&[schema::DDL, &schema::views("inventory_now")].concat())?;
        Ok(database)
    }

    fn open_nothing(limits: Limits, names: Vec<(String, String)>) -> anyhow::Result<Self> {
        let connection = Connection::open_in_memory_with_flags(config(&limits)?)?;
        let handle = connection.interrupt_handle();
        limits.stop.by(move || handle.interrupt())?;
        Ok(Self { connection, stop: limits.stop, names })
    }

    /// Opens the records; the files stay open as long as `files` is there.
    pub(crate) fn open(files: &Files, limits: Limits, warnings: &Warnings) -> anyhow::Result<Self> {
        let open = || files.all();
        let name = |open: &OpenFile| (open.held(), open.path.display().to_string());
        let mut names: Vec<_> = open().map(name).collect();
        // One number may begin another.
        names.sort_by_key(|(held, _)| Reverse(held.len()));
        let database = Self::open_nothing(limits, names)?;
        database.explain(database.make_views(files, warnings))?;
        // A file is judged by where it leads as long as it has a name, which is another while it is
        // merged, and by what holds it once that is gone. What else this process holds leads outside,
        // and is refused by that.
        let allowed: Vec<_> = open().map(|open| text(&open.held())).collect();
        let aside: BTreeSet<_> = open().filter_map(OpenFile::aside).collect();
        let aside = aside.iter().map(|folder| text(&folder.display().to_string()));
        let folders: Vec<_> = std::iter::once(text(&held_folder())).chain(aside).collect();
        database.connection.execute_batch(&format!(
            "SET allowed_paths = [{}]; SET allowed_directories = [{}]; \
             SET enable_external_access = false; SET lock_configuration = true;",
            allowed.join(", "),
            folders.join(", ")
        ))?;
        Ok(database)
    }

    /// Checks a user's SQL and plans it.
    pub(crate) fn prepare(&self, sql: &str) -> anyhow::Result<Statement<'_>> {
        let prepare = || {
            let sql = statement::allowed(&self.connection, sql)?;
            Ok(self.connection.prepare(&sql)?)
        };
        self.explain(prepare())
    }

    /// Runs it.
    pub(crate) fn run<'a>(&self, statement: &'a mut Statement<'_>) -> anyhow::Result<Rows<'a>> {
        self.explain(statement.query([]).map_err(Into::into))
    }

    /// Runs statements of the program's own.
    pub(crate) fn execute(&self, sql: &str) -> anyhow::Result<()> {
        self.explain(self.connection.execute_batch(sql).map_err(Into::into))
    }

    /// Runs the program's own SQL, and gives its rows one by one.
    pub(crate) fn each(
        &self,
        sql: &str,
        mut take: impl FnMut(Vec<Cell>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut run = || {
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            let columns = rows.as_ref().map_or(0, Statement::column_count);
            while let Some(row) = rows.next()? {
                let cell = |place| Ok(Cell::new(&row.get_ref(place)?.to_owned()));
                take((0..columns).map(cell).collect::<anyhow::Result<_>>()?)?;
            }
            Ok(())
        };
        self.explain(run())
    }

    /// An error of a query that ran: where a file may be what is wrong, the one that cannot be read
    /// through, which DuckDB does not name. Every file is read for that, as long as there is time.
    pub(crate) fn blame(&self, files: &Files, error: anyhow::Error) -> anyhow::Error {
        let error = self.in_words(error);
        let said = error.to_string();
        if !UNREADABLE.iter().any(|kind| said.starts_with(kind)) {
            return error;
        }
        for file in files.all() {
            // Counting alone is answered without the pages.
            let sql = format!("SELECT bit_xor(hash(COLUMNS(*))) FROM {}", read(&[file]));
            let through = self.connection.query_row(&sql, [], |_| Ok(()));
            if self.stop.is_over() {
                break;
            }
            if let Err(problem) = through {
                return anyhow!("{}: {}", file.path.display(), first_line(&problem.to_string()));
            }
        }
        error
    }

    /// In the user's words: why it was stopped, and files by their names.
    fn explain<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        result.map_err(|error| self.in_words(error))
    }

    fn in_words(&self, error: anyhow::Error) -> anyhow::Error {
        if self.stop.is_over() {
            return self.stop.too_slow();
        }
        let said = format!("{error:#}");
        let named = self.named(&said);
        if named == said { error } else { anyhow!(named) }
    }

    fn named(&self, said: &str) -> String {
        let mut said = said.to_owned();
        for (held, name) in &self.names {
            if said.contains(held.as_str()) {
                said = said.replace(held.as_str(), name);
            }
        }
        said
    }

    fn make_views(&self, files: &Files, warnings: &Warnings) -> anyhow::Result<()> {
        self.make_empty()?;
        for (table, files) in &files.of_table {
            let files: Vec<_> = files.iter().collect();
            self.make_checked_view(&name(table), table, &files, warnings)?;
        }
        self.connection.execute_batch(&files.views)?;
        for view in RollUp::VIEWS {
            let (made, rest) = rollup::choose(view, &files.to_roll, &files.rolled);
            let name = view.name();
            let windows = format!("{EMPTY_SCHEMA}.rest_of_{name}");
            self.make_checked_view(&windows, rollup::TABLE, &rest, warnings)?;
            self.make_rolled_view(name, &view.as_they_are(&windows), &made, rest.is_empty())?;
        }
        if files.with_talks { self.make_talks(files, warnings) } else { Ok(()) }
    }

    /// Files in which hours stand added up, behind the rows of `as_they_are`.
    fn make_rolled_view(
        &self,
        view: &str,
        as_they_are: &str,
        made: &[&OpenFile],
        is_all: bool,
    ) -> anyhow::Result<()> {
        if is_all && self.make_plain_view(view, made, &self.columns(as_they_are)?)? {
            return Ok(());
        }
        let mut sql = format!("CREATE VIEW {view} AS {as_they_are}");
        if !made.is_empty() {
            sql.push_str(&format!(" UNION ALL BY NAME FROM {}", read(made)));
        }
        Ok(self.connection.execute_batch(&sql)?)
    }

    /// The views of [`TALKS`].
    fn make_talks(&self, files: &Files, warnings: &Warnings) -> anyhow::Result<()> {
        let (made, rest) = rollup::choose(RollUp::Talks, &files.to_roll, &files.rolled);
        let is_rest = |file: &&OpenFile| rest.iter().any(|other| std::ptr::eq(*other, *file));
        let behind: Vec<_> = files.to_roll.iter().filter(|file| !is_rest(file)).collect();
        let table = rollup::TABLE;
        self.make_checked_view(TALKS.rest, table, &rest, warnings)?;
        self.make_checked_view(TALKS.behind, table, &behind, warnings)?;
        let Talks { rest, behind, windows, rolled } = TALKS;
        self.connection.execute_batch(&format!(
            "CREATE VIEW {windows} AS FROM {rest} UNION ALL FROM {behind}"
        ))?;
        let none = format!("{} WHERE false", RollUp::Talks.as_they_are(&empty(table)));
        self.make_rolled_view(rolled, &none, &made, true)
    }

    /// Tables without rows, which say what there may be.
    fn make_empty(&self) -> anyhow::Result<()> {
        // A file's footer is read once, although view and query both ask for it.
        self.connection.execute_batch(&format!(
            "SET parquet_metadata_cache = true; \
             CREATE SCHEMA {EMPTY_SCHEMA}; SET schema = '{EMPTY_SCHEMA}'; {} SET schema = 'main';",
            schema::DDL
        ))?;
        Ok(())
    }

    /// A view over files, all of which are of a table's columns. Where none lacks any, nothing stands
    /// between a question and the files: counting is then answered from their ends, and what is sorted to
    /// its largest rows reads of the others what it is sorted by.
    fn make_checked_view(
        &self,
        view: &str,
        table: &str,
        files: &[&OpenFile],
        warnings: &Warnings,
    ) -> anyhow::Result<()> {
        let expected = self.columns(&format!("FROM {}", empty(table)))?;
        if self.make_plain_view(view, files, &expected)? {
            return Ok(());
        }
        if self
            .make_view(view, table, files)
            .is_ok_and(|()| self.columns(&format!("FROM {view}")).is_ok_and(|got| got == expected))
        {
            return Ok(());
        }
        // Some file is none of this table's; only now is it worth looking at each.
        let (good, bad) = self.sort_out(files, &expected);
        // What was not looked at any more is not bad.
        self.stop.check()?;
        warnings.tell_bad_files(&bad)?;
        self.make_view(view, table, &good).with_context(|| format!("the files of {table}"))
    }

    /// A view of nothing but files, if all columns are in them, in order.
    fn make_plain_view(
        &self,
        view: &str,
        files: &[&OpenFile],
        expected: &[(String, String)],
    ) -> duckdb::Result<bool> {
        if files.is_empty() {
            return Ok(false);
        }
        let rows = format!("FROM {}", read(files));
        if !self.columns(&rows).is_ok_and(|got| got == expected) {
            return Ok(false);
        }
        self.connection.execute_batch(&format!("CREATE OR REPLACE VIEW {view} AS {rows}"))?;
        Ok(true)
    }

    fn make_view(&self, view: &str, table: &str, files: &[&OpenFile]) -> duckdb::Result<()> {
        let mut sql = format!("CREATE OR REPLACE VIEW {view} AS FROM {}", empty(table));
        if !files.is_empty() {
            sql.push_str(&format!(" UNION ALL BY NAME FROM {}", read(files)));
        }
        self.connection.execute_batch(&sql)
    }

    /// Files whose columns are some of the expected ones, and what is wrong with the others.
    fn sort_out<'a>(
        &self,
        files: &[&'a OpenFile],
        expected: &[(String, String)],
    ) -> (Vec<&'a OpenFile>, Vec<String>) {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for &file in files {
            let one = read(&[file]);
            let problem = match self.columns(&format!("FROM {one}")) {
                Err(error) => Some(self.named(&first_line(&error.to_string()))),
                Ok(got) => {
                    got.iter().find(|column| !expected.contains(column)).map(|(name, kind)| {
                        format!("column {name} of type {kind} is not in this version's schema")
                    })
                }
            };
            match problem {
                None => good.push(file),
                Some(problem) => bad.push(format!("{}: {problem}", file.path.display())),
            }
        }
        (good, bad)
    }

    /// Names and types of a query's columns.
    fn columns(&self, query: &str) -> duckdb::Result<Vec<(String, String)>> {
        let sql = format!("SELECT column_name, column_type FROM (DESCRIBE {query})");
        let mut statement = self.connection.prepare(&sql)?;
        let columns = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        columns.collect()
    }
}

/// Whether a query failed because it needed more memory than it may use.
pub(crate) fn is_out_of_memory(error: &anyhow::Error) -> bool {
    error.to_string().contains("Out of Memory Error") || is_too_much(error)
}

fn config(limits: &Limits) -> anyhow::Result<Config> {
    let config = Config::default()
        .threads(i64::try_from(limits.threads)?)?
        .max_memory(&format!("{}MiB", limits.memory_mib))?
        .enable_autoload_extension(false)?
        .with("autoinstall_known_extensions", "false")?
        .with("allow_community_extensions", "false")?
        .with("allow_persistent_secrets", "false")?
        .with("preserve_insertion_order", limits.keeps_order.to_string())?
        // Nothing is spilled: a query that needs more memory than it may use fails.
        .with("temp_directory", "")?;
    Ok(config)
}

/// The table without rows that has a table's columns.
pub(crate) fn empty(table: &str) -> String {
    format!("{EMPTY_SCHEMA}.{}", name(table))
}

/// The rows of files.
pub(crate) fn read(files: &[&OpenFile]) -> String {
    let list: Vec<_> = files.iter().map(|file| text(&file.held())).collect();
    format!("read_parquet([{}], union_by_name = true, hive_partitioning = false)", list.join(", "))
}

/// As a text of SQL.
fn text(path: &str) -> String {
    format!("'{}'", path.replace('\'', "''"))
}

/// A name of SQL.
fn name(table: &str) -> String {
    format!("\"{table}\"")
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
