//! The answer to what users ask, row by row.
//!
//! In: `JSONCompactEachRowWithNamesAndTypes`. Out: names, cells.
//! Cost: a row at a time.

use std::io::{BufRead, BufReader, Read};

use anyhow::Context as _;
use serde_json::value::RawValue;

use super::allowed;
use super::client::{Refused, Server};
use crate::cell::Cell;
use crate::output::Rows;

const FORMAT: &str = "JSONCompactEachRowWithNamesAndTypes";

/// An answer.
pub(crate) struct Answer<R> {
    names: Vec<String>,
    lines: BufReader<R>,
    line: String,
}

impl Server {
    /// Asks what a user has typed.
    pub(crate) fn question(&self, sql: &str) -> anyhow::Result<Answer<impl Read + use<>>> {
        let sql = allowed::allowed(self, sql)?;
        Answer::of(self.ask(sql, FORMAT, &[])?)
    }
}

impl<R: Read> Answer<R> {
    fn of(body: R) -> anyhow::Result<Self> {
        let mut lines = BufReader::new(body);
        let mut line = String::new();
        let mut read = || -> anyhow::Result<Vec<String>> {
            line.clear();
            lines.read_line(&mut line).map_err(|error| Refused::Unreachable(error.to_string()))?;
            // A statement that gives no rows gives no header either.
            if line.is_empty() { Ok(Vec::new()) } else { Ok(serde_json::from_str(&line)?) }
        };
        let names = read()?;
        let _types = read()?;
        Ok(Self { names, lines, line })
    }
}

impl<R: Read> Rows for Answer<R> {
    fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    fn next(&mut self) -> anyhow::Result<Option<Vec<Cell>>> {
        self.line.clear();
        let read = self.lines.read_line(&mut self.line);
        if read.map_err(|error| Refused::Unreachable(error.to_string()))? == 0 {
            return Ok(None);
        }
        let values: Vec<&RawValue> =
            serde_json::from_str(&self.line).context("a row of ClickHouse's answer")?;
        values.into_iter().map(|value| cell(value.get())).collect::<anyhow::Result<_>>().map(Some)
    }
}

/// A value as it stands in the answer: numbers keep their digits.
fn cell(raw: &str) -> anyhow::Result<Cell> {
    Ok(match raw.as_bytes().first() {
        Some(b'n') => Cell::Null,
        Some(b'"') => Cell::Text(serde_json::from_str(raw)?),
        _ => Cell::Literal(raw.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_digits() {
        let text = "[\"a\", \"b\"]\n[\"UInt64\", \"String\"]\n[18446744073709551615, \"x\\\"/\"]\n\
                    [null, \"\"]\n[[1,2], \"y\"]\n";
        let mut answer = Answer::of(text.as_bytes()).expect("an answer");
        assert_eq!(answer.names(), ["a", "b"]);
        let mut next = || answer.next().expect("a row");
        let json = |row: Option<Vec<Cell>>| row.map(|row| row.iter().map(Cell::json).collect());
        assert_eq!(json(next()), Some(vec!["18446744073709551615".into(), r#""x\"/""#.into()]));
        assert_eq!(json(next()), Some(vec!["null".to_owned(), "\"\"".to_owned()]));
        assert_eq!(json(next()), Some(vec!["[1,2]".to_owned(), "\"y\"".to_owned()]));
        assert_eq!(json(next()), None::<Vec<String>>);
    }

    #[test]
    fn what_gives_nothing_is_an_empty_answer() {
        let mut answer = Answer::of(&b""[..]).expect("an answer");
        assert!(answer.names().is_empty() && answer.next().expect("an end").is_none());
    }
}
