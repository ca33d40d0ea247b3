//! Values of columns.
//!
//! In: JSON of a row. Out: a [`Cell`] of the form that we hold the column in.
//! Invariants: texts longer than [`TEXT_BYTES_MAX`] are cut off whole, so what is kept is bounded by the
//! number of rows; of maps only the keys of [`KEYS`] are kept. Integers beyond 16 bits, which no column of
//! ours has, are refused.
//! Source: RFC 7047 section 5.1; differences, ovsdb-server(7) section 4.1.14 (update2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::inventory::Uuid;

/// Longest text that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 255;

/// Keys of `external_ids` that mean something to us.
pub(super) const KEYS: [&str; 9] = [
    "attached-mac",
    "hostname",
    "iface-id",
    "iface-status",
    "system-id",
    "vm-id",
    "vm-name",
    "vm-uuid",
    "xs-vm-uuid",
];

/// How a column is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One text, or none.
    Text,
    /// `true` or `false`.
    Flag,
    /// Integers.
    Numbers,
    /// References to rows.
    Uuids,
    /// Texts by name.
    Texts,
}

/// A column's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// Empty for none.
    Text(Arc<str>),
    Flag(bool),
    Numbers(BTreeSet<u16>),
    Uuids(BTreeSet<Uuid>),
    Texts(BTreeMap<&'static str, Arc<str>>),
}

/// A value that has not the form of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value is not of the form {wanted:?}")]
pub(super) struct WrongForm {
    /// What it should be.
    pub(super) wanted: Form,
}

impl Cell {
    /// Reads a value.
    pub(super) fn read(form: Form, value: &Value) -> Result<Self, WrongForm> {
        let cell = match form {
            Form::Text => text(value).map(Self::Text),
            Form::Flag => value.as_bool().map(Self::Flag),
            Form::Numbers => set(value, number).map(Self::Numbers),
            Form::Uuids => set(value, uuid).map(Self::Uuids),
            Form::Texts => texts(value).map(Self::Texts),
        };
        cell.ok_or(WrongForm { wanted: form })
    }

    /// Takes over the difference of a set or of a map.
    pub(super) fn differ(&mut self, difference: Self) {
        match (self, difference) {
            (Self::Numbers(now), Self::Numbers(difference)) => toggle(now, difference),
            (Self::Uuids(now), Self::Uuids(difference)) => toggle(now, difference),
            (Self::Texts(now), Self::Texts(difference)) => {
                for (name, text) in difference {
                    if now.get(name) == Some(&text) {
                        now.remove(name);
                    } else {
                        now.insert(name, text);
                    }
                }
            }
            (now, new) => *now = new,
        }
    }
}

/// An element in both sets leaves, one in the difference alone comes.
fn toggle<T: Ord>(now: &mut BTreeSet<T>, difference: BTreeSet<T>) {
    for item in difference {
        if !now.remove(&item) {
            now.insert(item);
        }
    }
}

/// The elements of a set; a set of one may be written as the element alone.
fn items(value: &Value) -> Option<&[Value]> {
    match value.as_array().map(Vec::as_slice) {
        Some([tag, items]) if tag == "set" => items.as_array().map(Vec::as_slice),
        _ => Some(std::slice::from_ref(value)),
    }
}

fn set<T: Ord>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<BTreeSet<T>> {
    items(value)?.iter().map(read).collect()
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64()?.try_into().ok()
}

/// `["uuid", "…"]`.
fn uuid(value: &Value) -> Option<Uuid> {
    match value.as_array().map(Vec::as_slice) {
        Some([tag, text]) if tag == "uuid" => text.as_str()?.parse().ok(),
        _ => None,
    }
}

/// One text or none.
fn text(value: &Value) -> Option<Arc<str>> {
    match items(value)? {
        [] => Some("".into()),
        [text] => text.as_str().map(bounded),
        _ => None,
    }
}

fn bounded(text: &str) -> Arc<str> {
    if text.len() <= TEXT_BYTES_MAX { text.into() } else { "".into() }
}

/// `["map", [[name, text], …]]`.
fn texts(value: &Value) -> Option<BTreeMap<&'static str, Arc<str>>> {
    let [tag, pairs] = value.as_array()?.as_slice() else { return None };
    let pairs = pairs.as_array().filter(|_| tag == "map")?;
    let mut texts = BTreeMap::new();
    for pair in pairs {
        let [name, text] = pair.as_array()?.as_slice() else { return None };
        let (name, text) = (name.as_str()?, text.as_str()?);
        if let Some(key) = KEYS.iter().find(|key| **key == name) {
            texts.insert(*key, bounded(text));
        }
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const UUID: &str = "5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01";

    #[test]
    fn sets_may_be_one_element_alone() {
        let uuid = UUID.parse().expect("a UUID");
        for (form, value, cell) in [
            (Form::Numbers, json!(["set", []]), Cell::Numbers([].into())),
            (Form::Numbers, json!(10), Cell::Numbers([10].into())),
            (Form::Numbers, json!(["set", [20, 10]]), Cell::Numbers([10, 20].into())),
            (Form::Uuids, json!(["uuid", UUID]), Cell::Uuids([uuid].into())),
            (Form::Uuids, json!(["set", [["uuid", UUID]]]), Cell::Uuids([uuid].into())),
            (Form::Uuids, json!(["set", []]), Cell::Uuids([].into())),
            (Form::Text, json!("a"), Cell::Text("a".into())),
            (Form::Text, json!(["set", []]), Cell::Text("".into())),
            (Form::Text, json!(["set", ["trunk"]]), Cell::Text("trunk".into())),
            (Form::Flag, json!(true), Cell::Flag(true)),
        ] {
            assert_eq!(Cell::read(form, &value), Ok(cell), "{value}");
        }
    }

    #[test]
    fn of_maps_the_known_keys_are_kept() {
        let value = json!([
            "map",
            [["vm-id", "x"], ["other", "y"], ["iface-id", "z".repeat(TEXT_BYTES_MAX + 1)]]
        ]);
        let expected = Cell::Texts([("vm-id", "x".into()), ("iface-id", "".into())].into());
        assert_eq!(Cell::read(Form::Texts, &value), Ok(expected));
        assert_eq!(Cell::read(Form::Texts, &json!(["map", []])), Ok(Cell::Texts([].into())));
    }

    #[test]
    fn other_forms_are_refused() {
        for (form, value) in [
            (Form::Numbers, json!("10")),
            (Form::Numbers, json!(-1)),
            (Form::Numbers, json!(65_536)),
            (Form::Numbers, json!(1.5)),
            (Form::Numbers, json!(["set", 1])),
            (Form::Uuids, json!(["uuid", "x"])),
            (Form::Uuids, json!(["named-uuid", UUID])),
            (Form::Text, json!(["set", ["a", "b"]])),
            (Form::Text, json!(null)),
            (Form::Flag, json!("true")),
            (Form::Texts, json!(["set", []])),
            (Form::Texts, json!(["map", [["a"]]])),
            (Form::Texts, json!({"a": "b"})),
        ] {
            assert_eq!(Cell::read(form, &value), Err(WrongForm { wanted: form }), "{value}");
        }
    }

    #[test]
    fn differences_of_sets_and_maps() {
        let mut numbers = Cell::Numbers([1, 2].into());
        numbers.differ(Cell::Numbers([2, 3].into()));
        assert_eq!(numbers, Cell::Numbers([1, 3].into()));
        let map = |pairs: &[(&'static str, &str)]| {
            Cell::Texts(pairs.iter().map(|(name, text)| (*name, (*text).into())).collect())
        };
        let mut texts = map(&[("vm-id", "a"), ("iface-id", "b"), ("vm-name", "c")]);
        // One goes, one changes, one comes.
        texts.differ(map(&[("vm-id", "a"), ("iface-id", "B"), ("hostname", "h")]));
        assert_eq!(texts, map(&[("iface-id", "B"), ("vm-name", "c"), ("hostname", "h")]));
    }
}
