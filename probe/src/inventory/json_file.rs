//! An inventory file in JSON: the same keys as in TOML.
//!
//! In: JSON text. Out: the same in TOML, with the JSON Pointer of each of its lines, so that one reader
//! checks both and each problem names its place in the JSON.
//! Cost: one parse more, and a copy of the text.
//! Invariants: what is no inventory in JSON is none in TOML either: nothing is left out but nulls.
//! Source: RFC 8259 (JSON), RFC 6901 (JSON Pointer), TOML 1.0.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::config::{Problem, Problems};

/// The TOML of a JSON text.
pub(super) struct AsToml {
    pub(super) text: String,
    /// Of each line.
    pointers: Vec<String>,
}

impl AsToml {
    /// Reads `text` of a file called `file_name` in problems.
    pub(super) fn new(text: &str, file_name: &str) -> Result<Self, Problems> {
        let not = |line, what: String| {
            let problem = Problem { line, key: String::new(), what };
            Problems { file: file_name.to_owned(), list: vec![problem], further: 0 }
        };
        let value: Value = serde_json::from_str(text)
            .map_err(|error| not(Some(error.line()), format!("is not valid JSON: {error}")))?;
        let Value::Object(root) = value else {
            return Err(not(None, "is no object (allowed: one with tenant, space, vm)".to_owned()));
        };
        let mut made = Self { text: String::new(), pointers: Vec::new() };
        made.table(&root, "", "");
        Ok(made)
    }

    /// Places of problems as pointers instead of lines.
    pub(super) fn placed(&self, problems: Problems) -> Problems {
        let place = |problem: Problem| {
            let pointer = problem.line.map(|line| self.pointer(line)).unwrap_or_default();
            let key = match (pointer, problem.key.as_str()) {
                ("", key) => key.to_owned(),
                (pointer, "") => pointer.to_owned(),
                (pointer, key) => format!("{pointer}: {key}"),
            };
            Problem { line: None, key, what: self.with_pointers(&problem.what) }
        };
        Problems { list: problems.list.into_iter().map(place).collect(), ..problems }
    }

    fn pointer(&self, line: usize) -> &str {
        self.pointers.get(line.saturating_sub(1)).map_or("", String::as_str)
    }

    /// A text in which a problem names another line.
    fn with_pointers(&self, what: &str) -> String {
        let Some((before, rest)) = what.split_once("line ") else { return what.to_owned() };
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        match rest[..end].parse() {
            Ok(line) => format!("{before}{}{}", self.pointer(line), &rest[end..]),
            Err(_) => what.to_owned(),
        }
    }

    /// Values first, because what follows a heading belongs to it.
    fn table(&mut self, table: &Map<String, Value>, path: &str, pointer: &str) {
        let at = |name: &str| format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        for (name, value) in table.iter().filter(|(_, value)| !are_tables(value)) {
            if !value.is_null() {
                let mut line = format!("{} = ", text(name));
                inline(value, &mut line);
                self.line(&line, at(name));
            }
        }
        for (name, value) in table.iter().filter(|(_, value)| are_tables(value)) {
            let path = if path.is_empty() { text(name) } else { format!("{path}.{}", text(name)) };
            for (place, item) in value.as_array().into_iter().flatten().enumerate() {
                let pointer = format!("{}/{place}", at(name));
                self.line(&format!("[[{path}]]"), pointer.clone());
                if let Value::Object(item) = item {
                    self.table(item, &path, &pointer);
                }
            }
        }
    }

    fn line(&mut self, line: &str, pointer: String) {
        self.text.push_str(line);
        self.text.push('\n');
        self.pointers.push(pointer);
    }
}

fn are_tables(value: &Value) -> bool {
    let items = value.as_array();
    items.is_some_and(|items| !items.is_empty() && items.iter().all(Value::is_object))
}

/// A TOML text has the escapes of JSON; one control character more must be one.
fn text(text: &str) -> String {
    Value::String(text.to_owned()).to_string().replace('\u{7f}', "\\u007f")
}

fn inline(value: &Value, out: &mut String) {
    match value {
        // Nothing that is allowed.
        Value::Null => out.push_str("{}"),
        Value::String(string) => out.push_str(&text(string)),
        Value::Bool(_) | Value::Number(_) => {
            let _ = write!(out, "{value}");
        }
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                out.push_str(if place == 0 { "" } else { ", " });
                inline(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push_str("{ ");
            for (place, (name, member)) in members.iter().enumerate() {
                out.push_str(if place == 0 { "" } else { ", " });
                out.push_str(&text(name));
                out.push_str(" = ");
                inline(member, out);
            }
            out.push_str(" }");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{InventoryData, parse, parse_json};
    use super::*;

    fn read(text: &str) -> Result<InventoryData, Problems> {
        parse_json(text, "i.json", &["default".to_owned()], &[])
    }

    #[test]
    fn json_says_what_toml_says() {
        let json = r#"{
            "vm": [{
                "uuid": "00000000-0000-0000-0000-000000000001", "name": "a\"b\u007f😀", "tenant": "acme",
                "valid_from": "2026-01-01T00:00:00Z", "host": null,
                "interface": [{"mac": "fa:16:3e:00:00:01", "addresses": ["10.0.0.5"],
                               "segment": "default/vlan/7"}],
                "placement": [{"host": "h1", "valid_to": 5}]
            }],
            "tenant": [{"name": "acme"}],
            "space": [{"name": "r", "segments": ["default/vlan/7"]}]
        }"#;
        let toml = "[[tenant]]\nname = \"acme\"\n[[space]]\nname = \"r\"\nsegments = [\"default/vlan/7\"]\n\
            [[vm]]\nuuid = \"00000000-0000-0000-0000-000000000001\"\nname = \"a\\\"b\\u007f😀\"\n\
            tenant = \"acme\"\nvalid_from = 2026-01-01T00:00:00Z\n\
            [[vm.interface]]\nmac = \"fa:16:3e:00:00:01\"\naddresses = [\"10.0.0.5\"]\n\
            segment = \"default/vlan/7\"\n[[vm.placement]]\nhost = \"h1\"\nvalid_to = 5\n";
        // A control character is no name, in either form.
        let (json, toml) = (json.replace("\\u007f", ""), toml.replace("\\u007f", ""));
        let read = read(&json).unwrap_or_else(|problems| panic!("{problems}"));
        let same = parse(&toml, "i.toml", &["default".to_owned()], &[]);
        let same = same.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(format!("{read:?}"), format!("{same:?}"));
    }

    #[test]
    fn problems_name_their_place_in_the_json() {
        let vm = r#"{"uuid": "00000000-0000-0000-0000-000000000001", "name": "a", "tenant": "t"}"#;
        let text = format!(
            r#"{{"tenant": [{{"name": "t"}}], "vm": [{vm}, {vm}, {{"name": 5, "interface": [{{"mac": "x"}}, {{"mcc": [1, {{"a": null}}]}}]}}], "host": {{}}}}"#
        );
        let problems = read(&text).expect_err("much is wrong").to_string();
        for place in [
            "i.json: /vm/1/uuid: vm.uuid: 00000000-0000-0000-0000-000000000001 stands in /vm/0/uuid too",
            "i.json: /vm/2/name: vm.name: ",
            "i.json: /vm/2: vm.uuid: ",
            "i.json: /vm/2/interface/0/mac: vm.interface.mac: ",
            "i.json: /vm/2/interface/1/mcc: vm.interface.mcc: ",
            "i.json: /host: host: ",
        ] {
            assert!(problems.contains(place), "{place}\n{problems}");
        }
    }

    #[test]
    fn what_is_no_json_or_no_object_is_told() {
        assert!(
            read("{\n\"vm\": [}")
                .expect_err("broken")
                .to_string()
                .starts_with("i.json:2: is not valid JSON")
        );
        for text in ["[]", "null", "5"] {
            assert!(
                read(text).expect_err("no object").to_string().contains("is no object"),
                "{text}"
            );
        }
        assert!(read("{}").is_ok());
    }
}
