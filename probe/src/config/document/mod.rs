//! TOML read against a table of keys, with positions.
//!
//! In: text and a [`Table`]. Out: a checked document that [`Section`] gives typed values of, and
//! a [`Report`] of every problem: syntax, unknown keys, wrong types, values out of range.
//! Cost: one parse and one walk; runs at start and on reload only.
//! Invariants: never panics; the text is at most as large as its reader says. `Section` gives
//! only values that their key allows.
//! Source: TOML 1.0.

mod kind;
mod problems;
mod section;
mod table;

use std::io::Read as _;
use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;

pub use kind::Kind;
pub(crate) use kind::quoted;
pub(crate) use problems::Report;
pub use problems::{PROBLEMS_MAX, Problem, Problems};
pub(crate) use section::Section;
pub use table::{Given, Key, Table};
pub(crate) use table::{key, table, tables};

/// Reads a whole text file of at most `bytes_max`.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<String, Problems> {
    let name = path.display().to_string();
    let cannot = |error| Problems::of_file(&name, format!("cannot be read: {error}"));
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    too_large(&name, bytes.len(), bytes_max)?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|octet| **octet == b'\n').count() + 1;
        let what = "is not UTF-8 text (allowed: UTF-8)".to_owned();
        let problem = Problem { line: Some(line), key: String::new(), what };
        Problems { file: name, list: vec![problem], further: 0 }
    })
}

/// Parses `text` and checks it against `root`.
pub(crate) fn parse<'t>(
    text: &'t str,
    file_name: &str,
    bytes_max: u64,
    root: &'static Table,
) -> Result<(Spanned<DeTable<'t>>, Report), Problems> {
    too_large(file_name, text.len(), bytes_max)?;
    let mut report = Report::new(file_name, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        report.broken(at, &format!("is not valid TOML: {}", error.message()));
    }
    table::check(root, document.get_ref(), &mut report);
    Ok((document, report))
}

fn too_large(name: &str, bytes: usize, bytes_max: u64) -> Result<(), Problems> {
    if u64::try_from(bytes).is_ok_and(|bytes| bytes <= bytes_max) {
        return Ok(());
    }
    Err(Problems::of_file(name, format!("is too large (allowed: {bytes_max} bytes)")))
}
