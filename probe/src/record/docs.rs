//! The schema for readers: Markdown for people, SQL for the query program.
//!
//! In: [`Table::ALL`]. Out: texts.
//! Invariants: both are derived; tests hold the committed copies (`README.md` beside this file,
//! `schema.sql` of the query program) equal to them.

use std::fmt::Write as _;

use super::column::{Column, Element};
use super::roll::Roll;
use super::schema::SCHEMA_VERSION;
use super::tables::Table;

/// All tables as Markdown.
pub fn markdown() -> String {
    let mut text = format!(
        "# Records, schema version {SCHEMA_VERSION}\n\n\
         Made from `tables.rs` and `measures.rs`; a test holds all equal. IE is the number of the IPFIX Information \
         Element (IANA); R is the reverse element of RFC 5103. A record is filed under the hour of \
         its time, or, where that is further than an hour from the time that the packets have come \
         to, under the nearest hour that is not.\n"
    );
    for table in Table::ALL {
        let about = table.meaning().trim();
        let time = table.time_column();
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "\n## {}\n\n{about} Filed under the hour of `{time}`.\n\n\
             | column | type | unit | IE | meaning |\n|---|---|---|---|---|\n",
            table.name()
        );
        for column in table.columns() {
            text.push_str(&line(&column));
        }
    }
    text
}

fn line(column: &Column) -> String {
    let null = if column.nullable { ", null" } else { "" };
    let element = match column.element {
        Element::None => String::new(),
        Element::Ie(numbers) => numbers.iter().map(u16::to_string).collect::<Vec<_>>().join(", "),
        Element::Reverse(number) => format!("{number} R"),
    };
    format!(
        "| `{}` | {}{null} | {} | {element} | {} |\n",
        column.name,
        column.kind.sql(),
        column.unit,
        column.meaning.trim()
    )
}

/// All tables as `CREATE TABLE` statements for DuckDB. Behind a column of `windows` stands what becomes of it
/// where windows are added up ([`Roll`]).
pub fn ddl() -> String {
    let mut text = format!(
        "-- Tables of the records, schema version {SCHEMA_VERSION}. Made from the record module of \
         vmprobe; a test holds both equal.\n"
    );
    for table in Table::ALL {
        let _ = writeln!(text, "CREATE TABLE \"{}\" (", table.name());
        let columns = table.columns();
        for (place, column) in columns.iter().enumerate() {
            let null = if column.nullable { "" } else { " NOT NULL" };
            let comma = if place + 1 < columns.len() { "," } else { "" };
            let fate = if *table == Table::Windows { Roll::of(column).word() } else { "" };
            let fate = if fate.is_empty() { String::new() } else { format!(" -- {fate}") };
            let (name, kind) = (column.name, column.kind.sql());
            let _ = writeln!(text, "    \"{name}\" {kind}{null}{comma}{fate}");
        }
        text.push_str(");\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_explained_once() {
        for table in Table::ALL {
            let columns = table.columns();
            let mut names: Vec<_> = columns.iter().map(|column| column.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), columns.len(), "{table:?} names a column twice");
            assert!(names.contains(&table.time_column()), "{table:?}");
            for column in columns {
                assert!(column.meaning.trim().ends_with(['.', '…']), "{table:?}.{}", column.name);
                assert!(!column.name.ends_with("_ns") || column.unit == "ns", "{}", column.name);
                assert!(!column.meaning.contains('|'), "{}", column.name);
            }
        }
    }

    #[test]
    fn reverse_columns_mirror_their_forward_ones() {
        for table in Table::ALL {
            let columns = table.columns();
            for column in &columns {
                let Some(forward) = column.name.strip_prefix("reverse_") else { continue };
                let twin = columns.iter().find(|other| other.name == forward);
                let twin = twin.expect("a reverse column has a forward one");
                assert_eq!((twin.kind, twin.unit), (column.kind, column.unit), "{}", column.name);
                if let Element::Ie([number]) = twin.element {
                    assert_eq!(column.element, Element::Reverse(*number), "{}", column.name);
                }
            }
        }
    }
}
