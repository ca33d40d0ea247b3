//! The answer as table, JSON or CSV.
//!
//! In: rows, of whatever was asked. Out: text.
//! Cost: a row at a time; a table looks at its first [`WIDTH_ROWS`] rows for its widths.
//! Source: CSV, RFC 4180; JSON, RFC 8259.

use std::io::Write;

use crate::cell::{Cell, quoted};

/// Rows that set the widths of a table; later ones may stand out.
const WIDTH_ROWS: usize = 1_000;

/// An answer that comes row by row.
pub(crate) trait Rows {
    /// Names of its columns.
    fn names(&self) -> Vec<String>;

    /// The next row; `None` behind the last one.
    fn next(&mut self) -> anyhow::Result<Option<Vec<Cell>>>;
}

impl Rows for duckdb::Rows<'_> {
    fn names(&self) -> Vec<String> {
        self.as_ref().map_or_else(Vec::new, duckdb::Statement::column_names)
    }

    fn next(&mut self) -> anyhow::Result<Option<Vec<Cell>>> {
        let columns = self.as_ref().map_or(0, duckdb::Statement::column_count);
        let Some(row) = duckdb::Rows::next(self)? else { return Ok(None) };
        let cell = |place| Ok(Cell::new(&row.get_ref(place)?.to_owned()));
        (0..columns).map(cell).collect::<anyhow::Result<_>>().map(Some)
    }
}

/// An array of objects.
pub(crate) fn json(rows: &mut dyn Rows, out: &mut impl Write) -> anyhow::Result<()> {
    let keys: Vec<_> = rows.names().iter().map(|name| quoted(name)).collect();
    let mut before = "[";
    while let Some(cells) = rows.next()? {
        let fields: Vec<_> =
            keys.iter().zip(&cells).map(|(key, cell)| format!("{key}:{}", cell.json())).collect();
        write!(out, "{before}\n{{{}}}", fields.join(","))?;
        before = ",";
    }
    Ok(writeln!(out, "{}", if before == "[" { "[]" } else { "\n]" })?)
}

/// A header and a line a row.
pub(crate) fn csv(rows: &mut dyn Rows, out: &mut impl Write) -> anyhow::Result<()> {
    let names = rows.names();
    let line = |fields: &mut dyn Iterator<Item = &str>| {
        let fields: Vec<_> = fields.map(csv_field).collect();
        fields.join(",")
    };
    write!(out, "{}\r\n", line(&mut names.iter().map(String::as_str)))?;
    while let Some(cells) = rows.next()? {
        write!(out, "{}\r\n", line(&mut cells.iter().map(Cell::plain)))?;
    }
    Ok(())
}

/// Aligned text: numbers to the right, all else to the left, null as `-`.
pub(crate) fn table(rows: &mut dyn Rows, out: &mut impl Write) -> anyhow::Result<()> {
    let names = rows.names();
    let mut first = Vec::new();
    while first.len() < WIDTH_ROWS {
        let Some(cells) = rows.next()? else { break };
        first.push(cells);
    }
    let mut widths: Vec<_> = names.iter().map(|name| name.chars().count()).collect();
    for cells in &first {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(shown(cell).chars().count());
        }
    }
    let heads: Vec<_> = names.into_iter().map(Cell::Text).collect();
    table_line(&heads, &widths, out)?;
    let rules: Vec<_> = widths.iter().map(|width| Cell::Text("-".repeat(*width))).collect();
    table_line(&rules, &widths, out)?;
    let mut count = first.len();
    for cells in &first {
        table_line(cells, &widths, out)?;
    }
    while let Some(cells) = rows.next()? {
        table_line(&cells, &widths, out)?;
        count += 1;
    }
    Ok(writeln!(out, "({count} {})", if count == 1 { "row" } else { "rows" })?)
}

fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn table_line(cells: &[Cell], widths: &[usize], out: &mut impl Write) -> anyhow::Result<()> {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let text = shown(cell);
        let padding = " ".repeat(width.saturating_sub(text.chars().count()));
        let separator = if line.is_empty() { "" } else { "  " };
        line.push_str(separator);
        match cell {
            Cell::Literal(_) => line.extend([padding.as_str(), &text]),
            Cell::Null | Cell::Text(_) => line.extend([text.as_str(), &padding]),
        }
    }
    Ok(writeln!(out, "{}", line.trim_end())?)
}

/// One line without control characters: a record's text may come from a packet, a file's name from anybody.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { char::REPLACEMENT_CHARACTER } else { it }).collect()
}

fn shown(cell: &Cell) -> String {
    if *cell == Cell::Null {
        return "-".to_owned();
    }
    printable(cell.plain())
}

#[cfg(test)]
mod tests {
    use super::*;
    use duckdb::Connection;

    type Writer = fn(&mut dyn Rows, &mut Vec<u8>) -> anyhow::Result<()>;

    fn written(sql: &str, write: Writer) -> String {
        let connection = Connection::open_in_memory().expect("a database");
        let mut statement = connection.prepare(sql).expect(sql);
        let mut out = Vec::new();
        write(&mut statement.query([]).expect(sql), &mut out).expect(sql);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn json_is_one_document() {
        let sql = "SELECT 18446744073709551615::UBIGINT AS n, NULL AS nothing, 'a\"b' AS t";
        assert_eq!(
            written(sql, json),
            "[\n{\"n\":18446744073709551615,\"nothing\":null,\"t\":\"a\\\"b\"}\n]\n"
        );
        assert_eq!(written("SELECT 1 AS n WHERE false", json), "[]\n");
    }

    #[test]
    fn csv_quotes_what_it_must() {
        let sql = "SELECT 'a,b' AS one, 'c\"d' AS two, NULL AS three";
        assert_eq!(written(sql, csv), "one,two,three\r\n\"a,b\",\"c\"\"d\",\r\n");
    }

    #[test]
    fn tables_are_aligned_and_show_no_control_characters() {
        let sql = "SELECT * FROM (VALUES (1, 'x' || chr(27)), (100, NULL)) AS t(number, name)";
        assert_eq!(
            written(sql, table),
            "number  name\n------  ----\n     1  x\u{fffd}\n   100  -\n(2 rows)\n"
        );
    }
}
