//! Rules of the source that no lint knows.
//!
//! ARCHITECTURE.md names them: modules use only what stands above them, `unsafe` only around the C
//! library, files stay readable, nothing speaks of the machine it was written on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Lines of one source file at most, tests included.
const LINES_MAX: usize = 900;

/// Modules that use what stands below them; ARCHITECTURE.md says so too.
const PAIRS: [(&str, &str); 3] = [
    // A cycle: plans hold segments; the inventory's file is read by the reader of configurations.
    ("inventory", "config"),
    // Flows hold the counts of their open window and cut its rows; a row is made of a flow.
    ("flow", "window"),
    // The ledger's rows tell of the sinks, which write rows.
    ("record", "export"),
];

/// Folders with `unsafe`.
const UNSAFE: [&str; 2] = ["dpdk-sys/", "probe/src/dpdk/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The project's files that are text, by path from the root, with their text: all but what
/// `.gitignore` names.
fn files() -> Vec<(String, String)> {
    let ignored = std::fs::read_to_string(root().join(".gitignore")).expect(".gitignore");
    let ignored: Vec<_> = ignored.lines().chain(["/.git"]).collect();
    let mut found = Vec::new();
    walk(&root(), "", &ignored, &mut found);
    assert!(found.len() > 200, "the files are found: {}", found.len());
    found.sort();
    found
}

/// Adds the text files of one folder, whose path ends in `/` or is empty.
fn walk(folder: &Path, path: &str, ignored: &[&str], found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let name = format!("{path}{}", entry.file_name().to_string_lossy());
        if ignored.iter().any(|pattern| is_ignored(pattern, &name)) {
            continue;
        }
        let kind = entry.file_type().expect("the kind of a file");
        if kind.is_dir() {
            walk(&entry.path(), &format!("{name}/"), ignored, found);
        } else if let Ok(text) = std::fs::read_to_string(entry.path()) {
            found.push((name, text));
        }
    }
}

/// The two forms that `.gitignore` has: `/path` from the root, and `*.ending`.
fn is_ignored(pattern: &str, name: &str) -> bool {
    let path = pattern.strip_prefix('/').is_some_and(|path| path == name);
    path || pattern.strip_prefix('*').is_some_and(|ending| name.ends_with(ending))
}

fn is_source(name: &str) -> bool {
    [".rs", ".js", ".mjs", ".css", ".html", ".c", ".h"].iter().any(|ending| name.ends_with(ending))
}

/// A line without what stands behind `//`.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// Modules of the library, in their order.
fn modules(library: &str) -> Vec<&str> {
    library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect()
}

/// Modules that a line of code names by `crate::`.
fn named(line: &str) -> impl Iterator<Item = &str> {
    code(line).split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

/// A file without the unit tests at its end, which may take their packets from anywhere.
fn without_tests(text: &str) -> &str {
    let mut begins = text.match_indices("\n#[cfg(test)]\n");
    let tests = begins.find(|(at, attribute)| {
        let next = text[at + attribute.len()..].lines().next().unwrap_or_default();
        next.contains("mod ") && next.ends_with('{')
    });
    tests.map_or(text, |(at, _)| &text[..at])
}

/// Each use of another module of the library: who uses what, and where.
fn is_rust(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "rs")
}

fn uses<'a>(order: &[&'a str], files: &'a [(String, String)]) -> Vec<(&'a str, &'a str, String)> {
    let mut uses = Vec::new();
    for (name, text) in files.iter().filter(|(name, _)| is_rust(name)) {
        let Some(inside) = name.strip_prefix("probe/src/") else { continue };
        let module = inside.split(['/', '.']).next().unwrap_or_default();
        if !order.contains(&module) {
            continue;
        }
        for (number, line) in without_tests(text).lines().enumerate() {
            let place = || format!("{name}:{}: {}", number + 1, line.trim());
            uses.extend(named(line).map(|used| (module, used, place())));
        }
    }
    uses
}

#[test]
fn modules_use_only_what_stands_above_them() {
    let files = files();
    let library = files.iter().find(|(name, _)| name == "probe/src/lib.rs");
    let order = modules(library.map_or("", |(_, text)| text));
    assert!(order.len() > 15, "{order:?}");
    let place = |module: &str| order.iter().position(|name| *name == module);
    let uses = uses(&order, &files);
    assert!(uses.len() > 200, "the uses are found: {}", uses.len());
    let mut wrong = String::new();
    for (module, used, at) in &uses {
        let above = place(used).is_some_and(|used| Some(used) <= place(module));
        if !above && !PAIRS.contains(&(module, used)) {
            writeln!(wrong, "{at}").expect("memory");
        }
    }
    assert!(wrong.is_empty(), "modules that stand below, or are not known:\n{wrong}");
    for pair in PAIRS {
        let needed = uses.iter().any(|(module, used, _)| (*module, *used) == pair);
        assert!(needed, "{pair:?} is an exception that nothing needs");
    }
}

/// Whether a line of code begins something unsafe.
fn begins_unsafe(line: &str) -> bool {
    let code = code(line);
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait"]
        .iter()
        .any(|word| code.contains(word))
}

#[test]
fn unsafe_stands_where_it_may_and_says_why() {
    let this = "tests/tests/tidy.rs";
    let mut wrong = String::new();
    for (name, text) in files().iter().filter(|(name, _)| is_rust(name)) {
        if name == this {
            continue;
        }
        let lines: Vec<_> = text.lines().collect();
        let allowed = UNSAFE.iter().any(|folder| name.starts_with(folder));
        for (place, line) in lines.iter().enumerate().filter(|(_, line)| begins_unsafe(line)) {
            let before = &lines[place.saturating_sub(8)..=place];
            let said =
                before.iter().any(|line| line.contains("SAFETY") || line.contains("# Safety"));
            if !allowed || !said {
                writeln!(wrong, "{name}:{}: {}", place + 1, line.trim()).expect("memory");
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe elsewhere, or without `SAFETY`:\n{wrong}");
}

#[test]
fn what_is_allowed_has_a_reason() {
    let mut wrong = String::new();
    for (name, text) in files().iter().filter(|(name, _)| is_rust(name)) {
        for attribute in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (at, _) in text.match_indices(attribute) {
                let line_begin = text[..at].rfind('\n').map_or(0, |end| end + 1);
                if !text[line_begin..at].trim().is_empty() {
                    continue;
                }
                let end = text[at..].find(")]").map_or(text.len(), |end| at + end);
                if !text[at..end].contains("reason = ") {
                    writeln!(wrong, "{name}: {}", &text[at..end]).expect("memory");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "lints switched off without a reason:\n{wrong}");
}

#[test]
fn files_are_short_enough_to_read() {
    let long: Vec<_> = files()
        .iter()
        .filter(|(name, _)| is_source(name))
        .map(|(name, text)| (name.clone(), text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:?}");
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let paths = ["work", "root"].map(|folder| format!("/{folder}/"));
    let names_one = |line: &str| {
        paths.iter().any(|path| {
            // As a path of its own, not inside of a longer one or of an address.
            line.match_indices(path.as_str()).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && !"./}_-*".contains(c))
            })
        })
    };
    let mut wrong = String::new();
    for (name, text) in &files() {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| names_one(line)) {
            writeln!(wrong, "{name}:{}: {line}", number + 1).expect("memory");
        }
    }
    assert!(wrong.is_empty(), "paths of one machine:\n{wrong}");
}
