//! Tables from the server to this program, and from here to the server.
//!
//! In: a question, local tables that go with it. Out: its answer as a file in memory that DuckDB reads.
//! Invariants: an answer is at most as large as it may be; nothing of it is on a disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use rustix::fs::{MemfdFlags, memfd_create};

use super::client::{Refused, Server, lacks_column};
use crate::cell::Cell;
use crate::database::Database;
use crate::files::{OpenFile, held_folder};

/// A table that goes with a question.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Its name there.
    pub(crate) name: String,
    /// Names and types of its columns.
    pub(crate) structure: String,
    /// Tab separated.
    pub(crate) rows: String,
}

impl Upload {
    /// A local table.
    pub(crate) fn of(database: &Database, name: &str) -> anyhow::Result<Self> {
        let mut structure = Vec::new();
        let sql = format!("SELECT column_name, column_type FROM (DESCRIBE {name})");
        database.each(&sql, |row| {
            let [column, kind] = row.first_chunk().context("a column")?;
            structure.push(format!("{} {}", column.plain(), type_of(kind.plain())));
            Ok(())
        })?;
        let mut rows = String::new();
        database.each(&format!("FROM {name}"), |row| {
            for (place, cell) in row.iter().enumerate() {
                if place > 0 {
                    rows.push('\t');
                }
                field(cell, &mut rows);
            }
            rows.push('\n');
            Ok(())
        })?;
        Ok(Self { name: name.to_owned(), structure: structure.join(", "), rows })
    }
}

/// The type there of a type here.
fn type_of(kind: &str) -> String {
    let of = match kind.trim_end_matches("[]") {
        "UBIGINT" => "UInt64",
        "BIGINT" => "Int64",
        "UINTEGER" => "UInt32",
        "USMALLINT" => "UInt16",
        "UTINYINT" => "UInt8",
        "BOOLEAN" => "Bool",
        _ => "String",
    };
    if kind.ends_with("[]") { format!("Array({of})") } else { format!("Nullable({of})") }
}

fn field(cell: &Cell, out: &mut String) {
    if *cell == Cell::Null {
        return out.push_str("\\N");
    }
    for it in cell.plain().chars() {
        match it {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            it => out.push(it),
        }
    }
}

/// An answer, held in memory.
pub(crate) struct Fetched(File);

impl Fetched {
    /// Asks, and takes the answer.
    pub(crate) fn ask(server: &Server, sql: &str, uploads: &[Upload]) -> anyhow::Result<Self> {
        let answer = server.ask(sql, "Parquet", uploads).map_err(lacks_column)?;
        let most = server.answer_bytes_max();
        let mut file = File::from(memfd_create("answer", MemfdFlags::CLOEXEC)?);
        let taken = io::copy(&mut answer.take(most + 1), &mut file)
            .map_err(|error| Refused::Unreachable(error.to_string()))?;
        if taken > most {
            let what =
                format!("the answer is larger than {most} bytes (a shorter span is smaller)");
            return Err(Refused::TooMuch(what).into());
        }
        Ok(Self(file))
    }

    /// As a file of a table.
    pub(crate) fn into_file(self, table: &str) -> io::Result<OpenFile> {
        OpenFile::fetched(table, self.0)
    }

    /// Its rows as DuckDB reads them.
    pub(crate) fn rows(&self) -> String {
        format!("read_parquet('{}/{}')", held_folder(), self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_in_their_fields() {
        let mut out = String::new();
        for cell in
            [Cell::Null, Cell::Text("a\tb\n\\N\r".to_owned()), Cell::Literal("[1,2]".into())]
        {
            field(&cell, &mut out);
            out.push('|');
        }
        assert_eq!(out, "\\N|a\\tb\\n\\\\N\\r|[1,2]|");
        assert_eq!(type_of("UBIGINT[]"), "Array(UInt64)");
        assert_eq!(type_of("VARCHAR"), "Nullable(String)");
    }
}
