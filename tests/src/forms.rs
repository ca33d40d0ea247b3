//! Records in the forms of other programs, read back by readers that are not the probe's.
//!
//! In: what was sent, what came. Out: both in the same shape.
//! Source: RFC 8259 (by Python's reader); "CEF Implementation Standard", Micro Focus, version 26.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use vmprobe::record::{Origin, Record, Rows, Table, TableVisitor};

/// Reads each line by itself, and writes it with nothing but ASCII in it. Doubled keys and what is no JSON
/// (`NaN`) are errors.
const READER: &str = "
import json, sys
def once(pairs):
    assert len({key for key, _ in pairs}) == len(pairs), pairs
    return dict(pairs)
def never(constant):
    raise ValueError(constant)
for line in sys.stdin.buffer:
    value = json.loads(line.decode('utf-8', 'strict'), object_pairs_hook=once, parse_constant=never)
    print(json.dumps(value))
";

/// What Python's reader of JSON, which is strict and knows numbers of any size, makes of lines.
///
/// # Panics
/// Where it finds anything that is no JSON, or no UTF-8.
pub fn read_by_python(lines: &[u8]) -> Vec<Json> {
    let mut command = Command::new("python3");
    command.args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = command.spawn().expect("python3 runs");
    let mut input = python.stdin.take().expect("it is piped");
    let lines = lines.to_vec();
    let writing = std::thread::spawn(move || input.write_all(&lines));
    let ended = python.wait_with_output().expect("it ends");
    assert!(ended.status.success(), "a line is no JSON");
    writing.join().expect("it ends").expect("it reads all");
    let text = String::from_utf8(ended.stdout).expect("ASCII");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The rows of each table, by its name, as the schema says.
pub fn json_of(rows: &Rows, origin: &Origin) -> BTreeMap<&'static str, Vec<Json>> {
    struct Visitor<'a>(&'a Rows, &'a Origin, BTreeMap<&'static str, Vec<Json>>);
    impl TableVisitor for Visitor<'_> {
        fn table<R: Record>(&mut self) {
            let rows = R::among(self.0).iter().map(|row| row.json(self.1)).collect();
            self.2.insert(R::TABLE.name(), rows);
        }
    }
    let mut visitor = Visitor(rows, origin, BTreeMap::new());
    Table::visit(&mut visitor);
    visitor.2
}

/// What is not null of an object.
pub fn without_nulls(row: &Json) -> Json {
    let row = row.as_object().expect("an object");
    Json::Object(
        row.iter().filter(|(_, it)| !it.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect(),
    )
}

/// A message of the Common Event Format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cef {
    /// Vendor, product, version, signature, name, severity.
    pub header: [String; 6],
    /// The extension.
    pub fields: BTreeMap<String, String>,
}

/// Reads one as the standard says.
///
/// # Panics
/// Where it is none.
pub fn cef(message: &str) -> Cef {
    let bad = message.chars().find(|it| u32::from(*it) < 0x20 || *it == '\u{7f}');
    assert_eq!(bad, None, "{message}");
    let rest = message.strip_prefix("CEF:0|").unwrap_or_else(|| panic!("no CEF: {message}"));
    let mut ends = unescaped(rest, '|');
    ends.truncate(6);
    assert_eq!(ends.len(), 6, "{message}");
    let mut begin = 0;
    let header = std::array::from_fn(|place| {
        let field = &rest[begin..ends[place]];
        begin = ends[place] + 1;
        plain(field, &[('\\', '\\'), ('|', '|')])
    });
    Cef { header, fields: extension(&rest[begin..]) }
}

/// Places of a character that no backslash stands before.
fn unescaped(text: &str, wanted: char) -> Vec<usize> {
    let (mut places, mut escape) = (Vec::new(), false);
    for (place, letter) in text.char_indices() {
        if letter == wanted && !escape {
            places.push(place);
        }
        escape = letter == '\\' && !escape;
    }
    places
}

/// Keys are the words before equals signs; a value ends at the blank before the next key.
fn extension(text: &str) -> BTreeMap<String, String> {
    let signs = unescaped(text, '=');
    let key_at = |sign: usize| text[..sign].rfind(' ').map_or(0, |blank| blank + 1);
    let mut fields = BTreeMap::new();
    for (place, sign) in signs.iter().enumerate() {
        let key = &text[key_at(*sign)..*sign];
        let good = !key.is_empty() && key.bytes().all(|octet| octet.is_ascii_alphanumeric());
        assert!(good, "the key {key:?} in {text}");
        let end = signs.get(place + 1).map_or(text.len(), |next| key_at(*next) - 1);
        let value =
            plain(&text[sign + 1..end], &[('\\', '\\'), ('=', '='), ('n', '\n'), ('r', '\r')]);
        assert_eq!(fields.insert(key.to_owned(), value), None, "{key} in {text}");
    }
    fields
}

/// Without escapes, and with what stands for control characters (docs/sinks/syslog.md) as it was.
fn plain(text: &str, escapes: &[(char, char)]) -> String {
    let (mut out, mut letters) = (String::new(), text.chars());
    while let Some(letter) = letters.next() {
        out.push(match letter {
            '\\' => {
                let escape = letters.next();
                let meant = escapes.iter().find(|(it, _)| Some(*it) == escape);
                meant.unwrap_or_else(|| panic!("the escape {escape:?} in {text}")).1
            }
            '\u{2400}'..='\u{241f}' => {
                char::from_u32(u32::from(letter) - 0x2400).expect("a control character")
            }
            '\u{2421}' => '\u{7f}',
            other => other,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_those_of_the_standard() {
        let read = cef(r"CEF:0|a|b|1|x\|y\\|n=1|5|act=blocked a \= b \\ msg=one\ntwo  k=");
        assert_eq!(read.header, ["a", "b", "1", r"x|y\", "n=1", "5"]);
        let fields: Vec<_> = read.fields.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(fields, [("act", r"blocked a = b \"), ("k", ""), ("msg", "one\ntwo ")]);
    }

    #[test]
    #[should_panic(expected = "the escape Some('|')")]
    fn an_escape_that_the_standard_does_not_have_is_none() {
        cef(r"CEF:0|a|b|1|x|n|5|act=a\|b");
    }

    #[test]
    fn python_keeps_numbers_of_64_bits() {
        let read = read_by_python(b"{\"a\":18446744073709551615,\"b\":\"\xce\xa9\\u0000\"}\n");
        assert_eq!(read, [serde_json::json!({ "a": u64::MAX, "b": "Ω\0" })]);
    }
}
