//! One value of an answer as text.
//!
//! In: DuckDB's value. Out: [`Cell`].
//! Invariants: numbers keep all their digits; times are RFC 3339 in UTC; what nests is JSON.

use chrono::{DateTime, NaiveTime};
use duckdb::types::{TimeUnit, Value};

/// A value, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// No value.
    Null,
    /// A number, `true`, `false`, or nested JSON: written in JSON as it is.
    Literal(String),
    /// Text: written in JSON within quotes.
    Text(String),
}

impl Cell {
    /// From DuckDB's value.
    pub(crate) fn new(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(value) => literal(value),
            Value::TinyInt(value) => literal(value),
            Value::SmallInt(value) => literal(value),
            Value::Int(value) => literal(value),
            Value::BigInt(value) => literal(value),
            Value::HugeInt(value) => literal(value),
            Value::UHugeInt(value) => literal(value),
            Value::UTinyInt(value) => literal(value),
            Value::USmallInt(value) => literal(value),
            Value::UInt(value) => literal(value),
            Value::UBigInt(value) => literal(value),
            Value::Float(value) => float(f64::from(*value), value),
            Value::Double(value) => float(*value, value),
            Value::Decimal(value) => literal(value),
            Value::Text(value) | Value::Enum(value) => Self::Text(value.clone()),
            Value::Timestamp(unit, value) => timestamp(*unit, *value),
            Value::Date32(days) => timestamp_text(i64::from(*days) * 86_400_000_000, "%Y-%m-%d"),
            Value::Time64(unit, value) => time(*unit, *value),
            Value::Interval { months, days, nanos } => {
                Self::Text(format!("{months} months {days} days {nanos} ns"))
            }
            Value::Blob(bytes) | Value::Geometry(bytes) => Self::Text(hexadecimal(bytes)),
            Value::List(values) | Value::Array(values) => Self::Literal(list(values)),
            Value::Struct(fields) => {
                Self::Literal(object(fields.iter().map(|(key, value)| (key.clone(), value))))
            }
            Value::Map(entries) => Self::Literal(object(
                entries.iter().map(|(key, value)| (Self::new(key).plain().to_owned(), value)),
            )),
            Value::Union(value) => Self::new(value),
            other => Self::Text(format!("{other:?}")),
        }
    }

    /// The text without quotes; empty for null.
    pub(crate) fn plain(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Literal(text) | Self::Text(text) => text,
        }
    }

    /// As JSON.
    pub(crate) fn json(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Literal(text) => text.clone(),
            Self::Text(text) => quoted(text),
        }
    }
}

/// A text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn literal(value: impl std::fmt::Display) -> Cell {
    Cell::Literal(value.to_string())
}

fn float(value: f64, shown: impl std::fmt::Debug) -> Cell {
    // JSON has no NaN and no infinity. Rust's `{:?}` gives the shortest text that reads back as
    // the same number, with a point or an exponent.
    if value.is_finite() { Cell::Literal(format!("{shown:?}")) } else { Cell::Null }
}

fn list(values: &[Value]) -> String {
    let values: Vec<_> = values.iter().map(|value| Cell::new(value).json()).collect();
    format!("[{}]", values.join(","))
}

fn object<'a>(fields: impl Iterator<Item = (String, &'a Value)>) -> String {
    let fields: Vec<_> = fields
        .map(|(key, value)| format!("{}:{}", quoted(&key), Cell::new(value).json()))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn timestamp(unit: TimeUnit, value: i64) -> Cell {
    let time = match unit {
        TimeUnit::Second => DateTime::from_timestamp(value, 0),
        TimeUnit::Millisecond => DateTime::from_timestamp_millis(value),
        TimeUnit::Microsecond => DateTime::from_timestamp_micros(value),
        TimeUnit::Nanosecond => Some(DateTime::from_timestamp_nanos(value)),
    };
    time.map_or(Cell::Null, |time| Cell::Text(time.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string()))
}

fn timestamp_text(micros: i64, format: &str) -> Cell {
    DateTime::from_timestamp_micros(micros)
        .map_or(Cell::Null, |time| Cell::Text(time.format(format).to_string()))
}

fn time(unit: TimeUnit, value: i64) -> Cell {
    let micros = unit.to_micros(value);
    let seconds = u32::try_from(micros.div_euclid(1_000_000)).ok();
    let nanos = u32::try_from(micros.rem_euclid(1_000_000) * 1_000).ok();
    let time = seconds
        .zip(nanos)
        .and_then(|(seconds, nanos)| NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos));
    time.map_or(Cell::Null, |time| Cell::Text(time.to_string()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        assert_eq!(Cell::new(&Value::UBigInt(u64::MAX)).json(), "18446744073709551615");
        assert_eq!(Cell::new(&Value::HugeInt(i128::MIN)).json(), i128::MIN.to_string());
        assert_eq!(Cell::new(&Value::Double(0.1)).json(), "0.1");
        assert_eq!(Cell::new(&Value::Double(f64::MAX)).json(), "1.7976931348623157e308");
        assert_eq!(Cell::new(&Value::Double(f64::NAN)).json(), "null");
    }

    #[test]
    fn times_are_utc_texts() {
        let time = Value::Timestamp(TimeUnit::Nanosecond, 1_700_000_000_000_000_001);
        assert_eq!(Cell::new(&time).plain(), "2023-11-14T22:13:20.000000001Z");
        assert_eq!(Cell::new(&Value::Date32(19_675)).plain(), "2023-11-14");
    }

    #[test]
    fn what_nests_is_json() {
        let list = Value::List(vec![Value::Text("a\"b".to_owned()), Value::Null, Value::Int(1)]);
        assert_eq!(Cell::new(&list).json(), r#"["a\"b",null,1]"#);
    }
}
