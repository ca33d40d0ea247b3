//! Tables of keys, and the walk that finds what does not fit them.
//!
//! In: a parsed document and its root [`Table`]. Out: problems in a [`Report`].
//! Cost: one visit of each key; the nearest key is looked for only for unknown ones, and only as
//! long as their problem is kept.
//! Invariants: unknown keys, wrong types, values out of range and missing keys are all found in
//! one walk.

use toml::de::{DeTable, DeValue};

use super::kind::{Kind, quoted};
use super::problems::Report;

/// What stands for a key that is not given, and how the reference file shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// This TOML value.
    Default(&'static str),
    /// Nothing; the value is an example.
    Nothing(&'static str),
    /// What the text says; the value is an example.
    Derived(&'static str, &'static str),
    /// It must be given; the value is an example.
    Required(&'static str),
}

impl Given {
    /// A valid value as TOML.
    pub const fn example(self) -> &'static str {
        match self {
            Self::Default(value)
            | Self::Nothing(value)
            | Self::Derived(value, _)
            | Self::Required(value) => value,
        }
    }
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in its table.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// Default or example.
    pub given: Given,
    /// Unit of a number; empty without one.
    pub unit: &'static str,
    /// What it means, as sentences.
    pub meaning: &'static str,
}

/// A table of the file.
#[derive(Debug)]
pub struct Table {
    /// Path as in its heading; empty for the file itself.
    pub path: &'static str,
    /// What it is for, as sentences.
    pub meaning: &'static str,
    /// In the order of the reference file.
    pub keys: &'static [Key],
}

impl Table {
    /// The key called `name`.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// All names, for people.
    pub fn names(&self) -> String {
        self.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
    }

    /// The path of one of its keys, as it stands in problems.
    pub(crate) fn path_of(&self, name: &str) -> String {
        let bare = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
        let plain = !name.is_empty() && name.len() <= 63 && name.bytes().all(bare);
        let name = if plain { name.to_owned() } else { quoted(name) };
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }
}

/// One key, for tables in code.
pub(crate) const fn key(
    name: &'static str,
    kind: Kind,
    given: Given,
    unit: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, kind, given, unit, meaning }
}

/// The key that a table stands under.
pub(crate) const fn table(table: &'static Table) -> Key {
    key(last(table.path), Kind::Table(table), Given::Nothing(""), "", table.meaning)
}

/// The key that an array of at most `max` tables stands under.
pub(crate) const fn tables(table: &'static Table, max: usize) -> Key {
    key(last(table.path), Kind::Tables(table, max), Given::Nothing(""), "", table.meaning)
}

/// What stands after the last dot of a path.
const fn last(path: &'static str) -> &'static str {
    let mut at = path.len();
    while at > 0 {
        if path.as_bytes()[at - 1] == b'.' {
            return path.split_at(at).1;
        }
        at -= 1;
    }
    path
}

/// Finds all problems of `found` against `root` and the tables in it.
pub(super) fn check(root: &'static Table, found: &DeTable<'_>, report: &mut Report) {
    Walk { root, report }.table(root, found, 0);
}

struct Walk<'r> {
    root: &'static Table,
    report: &'r mut Report,
}

impl Walk<'_> {
    fn table(&mut self, table: &'static Table, found: &DeTable<'_>, at: usize) {
        for (name, value) in found {
            let (name, at) = (name.get_ref(), name.span().start);
            match table.key(name) {
                Some(key) => self.value(&key.kind, &table.path_of(name), at, value.get_ref()),
                None if self.report.is_full() => self.report.problem(at, "", ""),
                None => self.report.problem(at, table.path_of(name), self.unknown(table, name)),
            }
        }
        if self.report.is_broken() {
            return;
        }
        for key in table.keys {
            if matches!(key.given, Given::Required(_)) && !found.contains_key(key.name) {
                let what = format!("is missing (allowed: {})", key.kind.allowed());
                self.report.problem(at, table.path_of(key.name), what);
            }
        }
    }

    fn value(&mut self, kind: &'static Kind, path: &str, at: usize, value: &DeValue<'_>) {
        if let Some(fault) = kind.fault(value) {
            self.report.problem(at, path, format!("{fault} (allowed: {})", kind.allowed()));
            return;
        }
        match (kind, value) {
            (Kind::List(item, _), DeValue::Array(items)) => {
                for found in items.as_ref() {
                    self.value(item, path, found.span().start, found.get_ref());
                }
            }
            (Kind::Table(table), DeValue::Table(found)) => self.table(table, found, at),
            (Kind::Tables(table, _), DeValue::Array(items)) => {
                for found in items.as_ref() {
                    self.item(table, path, found.span().start, found.get_ref());
                }
            }
            _ => {}
        }
    }

    fn item(&mut self, table: &'static Table, path: &str, at: usize, value: &DeValue<'_>) {
        match value {
            DeValue::Table(found) => self.table(table, found, at),
            _ => self.report.problem(at, path, format!("is no table (allowed: {})", table.names())),
        }
    }

    fn unknown(&self, table: &Table, name: &str) -> String {
        let allowed = table.names();
        match self.nearest(table, name) {
            Some(near) => format!("is no key; {near} is (allowed: {allowed})"),
            None => format!("is no key (allowed: {allowed})"),
        }
    }

    /// The key that was probably meant: of the same table with a small difference, or of the same
    /// name in another table.
    fn nearest(&self, table: &Table, name: &str) -> Option<String> {
        let name: String = name.chars().take(64).collect();
        let distance_max = name.len().div_ceil(3).min(4);
        let near = table.keys.iter().map(|key| (edits(&name, key.name), key.name)).min()?;
        if near.0 <= distance_max {
            return Some(table.path_of(near.1));
        }
        let begins = table.keys.iter().find(|key| {
            name.len() >= 4 && (key.name.starts_with(&name) || name.starts_with(key.name))
        });
        begins.map(|key| table.path_of(key.name)).or_else(|| {
            let mut places = Vec::new();
            elsewhere(self.root, &name, &mut places);
            // Where several tables have it, none of them was meant more than the others.
            if places.len() == 1 { places.pop() } else { None }
        })
    }
}

/// Paths of all keys called `name` below a table.
fn elsewhere(table: &'static Table, name: &str, places: &mut Vec<String>) {
    for key in table.keys {
        if let Kind::Table(inner) | Kind::Tables(inner, _) = key.kind {
            places.extend(inner.key(name).map(|key| inner.path_of(key.name)));
            elsewhere(inner, name, places);
        }
    }
}

/// Characters to insert, delete or replace to make one text of the other (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (line, left) in one.chars().enumerate() {
        let mut diagonal = line;
        let mut before = line + 1;
        for (right, above) in other.chars().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(left != right);
            diagonal = *above;
            *above = replaced.min(before + 1).min(diagonal + 1);
            before = *above;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    static INNER: Table = Table {
        path: "inner",
        meaning: "",
        keys: &[
            Key {
                name: "slots_per_worker",
                kind: Kind::PowerOfTwo { min: 1, max: 64 },
                given: Given::Default("8"),
                unit: "",
                meaning: "",
            },
            Key {
                name: "name",
                kind: Kind::Name,
                given: Given::Required("\"a\""),
                unit: "",
                meaning: "",
            },
        ],
    };
    static ROOT: Table = Table {
        path: "",
        meaning: "",
        keys: &[Key {
            name: "inner",
            kind: Kind::Tables(&INNER, 2),
            given: Given::Nothing(""),
            unit: "",
            meaning: "",
        }],
    };

    fn problems(text: &str) -> String {
        let (_, report) = super::super::parse(text, "x", 1_000, &ROOT).expect("small");
        report.finish().err().map(|problems| problems.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_problem_is_found_in_one_walk() {
        let text = "[[inner]]\nslots_per_worker = 3\nslots_per_wroker = 1\nnam = \"a\"\n\n\
                    [[inner]]\nname = 1\nother = 2\n";
        let lines: Vec<String> = problems(text).lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "x:1: inner.name: is missing (allowed: 1 to 63 letters, digits, dots, - or _)",
                "x:2: inner.slots_per_worker: 3 is not a power of two (allowed: 1 to 64, a power of two)",
                "x:3: inner.slots_per_wroker: is no key; inner.slots_per_worker is (allowed: slots_per_worker, name)",
                "x:4: inner.nam: is no key; inner.name is (allowed: slots_per_worker, name)",
                "x:7: inner.name: the number 1 is of the wrong type (allowed: 1 to 63 letters, digits, dots, - or _)",
                "x:8: inner.other: is no key (allowed: slots_per_worker, name)",
            ]
        );
    }

    #[test]
    fn tables_of_the_wrong_shape() {
        assert_eq!(
            problems("[inner]\nname = \"a\"\n"),
            "x:1: inner: a table is of the wrong type (allowed: at most 2 tables, each headed [[inner]])"
        );
        assert!(problems("inner = [1]\n").starts_with("x:1: inner: is no table"));
        assert!(problems("name = 1\n").contains("name: is no key; inner.name is"));
        assert!(problems("\"a b\\n\" = 1\n").starts_with("x:1: \"a b\\n\": is no key"));
    }

    #[test]
    fn every_syntax_error_has_its_line() {
        let text = "[[inner]]\nname = \n[[inner]]\nname = \"b\nslots_per_worker = 3\n";
        let lines: Vec<String> = problems(text).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("x:2: is not valid TOML")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("x:4: is not valid TOML")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("x:5: inner.slots")), "{lines:?}");
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", "abc"), 0);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
