//! The reference file `config/vmprobe.toml`, written from the table of keys.
//!
//! In: [`super::schema::ROOT`]. Out: the text. A test holds the file in the tree equal to it.

use std::fmt::Write as _;

use super::document::{Given, Key, Kind};
use super::schema::ROOT;

const HEAD: &str = "\
# vmprobe: every key of the configuration, with its meaning, unit, range and default.
#
# A line that begins with \"# \" explains. A line that begins with \"#\" and a key or a heading
# shows an example that is switched off: take the \"#\" away to use it. All other values are the
# defaults, so a line that you do not need may go. Unknown keys are errors;
# `vmprobe check -c FILE` names every problem at once.
";

/// Columns of the file, with the comment sign.
const COLUMNS: usize = 100;

/// The whole reference file.
pub fn text() -> String {
    let mut out = HEAD.to_owned();
    for key in ROOT.keys {
        one_table(key, &mut out);
    }
    out
}

fn one_table(key: &Key, out: &mut String) {
    match key.kind {
        Kind::Table(table) => {
            heading(table.meaning, &format!("[{}]", table.path), "", out);
            for key in table.keys {
                match key.kind {
                    Kind::Table(_) | Kind::Tables(..) => one_table(key, out),
                    _ => one_key(key, "", out),
                }
            }
        }
        Kind::Tables(table, max) => {
            // A port is there so that the file runs as it is; the rest describes a network.
            let off = if table.path == "port" { "" } else { "#" };
            let meaning = format!("{} At most {max} of them.", table.meaning);
            heading(&meaning, &format!("[[{}]]", table.path), off, out);
            for key in table.keys {
                one_key(key, off, out);
            }
        }
        _ => {}
    }
}

fn heading(meaning: &str, heading: &str, off: &str, out: &mut String) {
    out.push('\n');
    comment(meaning, out);
    line(off, heading, out);
}

fn one_key(key: &Key, off: &str, out: &mut String) {
    out.push('\n');
    comment(key.meaning, out);
    if let Kind::Table(inner) = key.kind {
        for key in inner.keys {
            comment(&format!("{}: {} {}", key.name, key.meaning, facts(key)), out);
        }
    } else {
        comment(&facts(key), out);
    }
    let off = if matches!(key.given, Given::Nothing(_) | Given::Derived(..)) { "#" } else { off };
    line(off, &format!("{} = {}", key.name, key.given.example()), out);
}

/// Unit, range and default as a sentence.
fn facts(key: &Key) -> String {
    let mut out = String::new();
    if !key.unit.is_empty() {
        let _ = write!(out, "Unit: {}. ", key.unit);
    }
    let _ = write!(out, "Allowed: {}. ", key.kind.allowed());
    let _ = match key.given {
        Given::Default(value) => write!(out, "Default: {value}."),
        Given::Nothing(_) => write!(out, "Default: none."),
        Given::Derived(_, text) => write!(out, "Default: {text}."),
        Given::Required(_) => write!(out, "Must be given."),
    };
    out
}

fn comment(text: &str, out: &mut String) {
    let mut column = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count() + 1;
        if column == 0 || column + width > COLUMNS {
            if column != 0 {
                out.push('\n');
            }
            out.push('#');
            column = 1;
        }
        out.push(' ');
        out.push_str(word);
        column += width;
    }
    out.push('\n');
}

fn line(off: &str, text: &str, out: &mut String) {
    out.push_str(off);
    out.push_str(text);
    out.push('\n');
}
