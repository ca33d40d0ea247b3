//! Columns, and the Rust types that may stand in one.
//!
//! In: a value of a row. Out: the same in an Arrow column, as JSON, or compared with another.
//! Cost: addresses are formatted once, into the column; a column is filled in one go.
//! Invariants: a type maps to one [`Kind`]; null is never written as 0; texts are cut at
//! [`TEXT_BYTES_MAX`], so that no column outgrows its 32-bit offsets.
//! Source: address texts, RFC 5952 (as `std::net` writes them); MAC texts, six hexadecimal octets.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder as _, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, UInt8Builder,
    UInt16Builder, UInt32Builder,
};
use arrow_schema::{DataType, Field};
use serde_json::Value as Json;

use super::numbers::Numbers;
use crate::decode::Mac;

/// Longest text in a record, in bytes of UTF-8; a longer one is cut at a character.
pub const TEXT_BYTES_MAX: usize = 65_535;

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// IEEE 754 double.
    F64,
    /// True or false.
    Bool,
    /// UTF-8.
    Text,
}

impl Kind {
    /// The type in DuckDB's SQL.
    pub const fn sql(self) -> &'static str {
        match self {
            Self::U8 => "UTINYINT",
            Self::U16 => "USMALLINT",
            Self::U32 => "UINTEGER",
            Self::U64 => "UBIGINT",
            Self::I64 => "BIGINT",
            Self::F64 => "DOUBLE",
            Self::Bool => "BOOLEAN",
            Self::Text => "VARCHAR",
        }
    }

    /// The type in Arrow, from which Parquet's follows.
    pub const fn arrow(self) -> DataType {
        match self {
            Self::U8 => DataType::UInt8,
            Self::U16 => DataType::UInt16,
            Self::U32 => DataType::UInt32,
            Self::U64 => DataType::UInt64,
            Self::I64 => DataType::Int64,
            Self::F64 => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Text => DataType::Utf8,
        }
    }
}

/// The IPFIX Information Element that a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// None is registered.
    None,
    /// IANA's number; where a column holds IPv4 and IPv6, both numbers.
    Ie(&'static [u16]),
    /// The reverse element of this number (RFC 5103, enterprise number 29305).
    Reverse(u16),
}

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Name in every output.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// May be null: not measured, or not known.
    pub nullable: bool,
    /// Unit, or the form of a text; empty for a plain number, count or name.
    pub unit: &'static str,
    /// Information Element.
    pub element: Element,
    /// What it says, with its range where that is not obvious.
    pub meaning: &'static str,
}

impl Column {
    /// As a field of an Arrow schema.
    pub fn field(&self) -> Field {
        Field::new(self.name, self.kind.arrow(), self.nullable)
    }
}

/// A column that is being filled.
#[derive(Debug)]
#[expect(missing_docs, reason = "one variant for each Kind")]
pub enum ColumnBuilder {
    U8(UInt8Builder),
    U16(UInt16Builder),
    U32(UInt32Builder),
    U64(Numbers),
    I64(Int64Builder),
    F64(Float64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
}

impl ColumnBuilder {
    /// An empty column for `rows` values of this kind.
    pub fn new(kind: Kind, rows: usize) -> Self {
        match kind {
            Kind::U8 => Self::U8(UInt8Builder::with_capacity(rows)),
            Kind::U16 => Self::U16(UInt16Builder::with_capacity(rows)),
            Kind::U32 => Self::U32(UInt32Builder::with_capacity(rows)),
            Kind::U64 => Self::U64(Numbers::with_capacity(rows)),
            Kind::I64 => Self::I64(Int64Builder::with_capacity(rows)),
            Kind::F64 => Self::F64(Float64Builder::with_capacity(rows)),
            Kind::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            Kind::Text => Self::Text(StringBuilder::with_capacity(rows, rows * 8)),
        }
    }

    /// The column, with all values appended so far.
    pub fn finish(&mut self) -> ArrayRef {
        match self {
            Self::U8(builder) => Arc::new(builder.finish()),
            Self::U16(builder) => Arc::new(builder.finish()),
            Self::U32(builder) => Arc::new(builder.finish()),
            Self::U64(builder) => Arc::new(builder.finish()),
            Self::I64(builder) => Arc::new(builder.finish()),
            Self::F64(builder) => Arc::new(builder.finish()),
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
        }
    }

    /// Values appended so far.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(builder) => builder.len(),
            Self::U16(builder) => builder.len(),
            Self::U32(builder) => builder.len(),
            Self::U64(builder) => builder.len(),
            Self::I64(builder) => builder.len(),
            Self::F64(builder) => builder.len(),
            Self::Bool(builder) => builder.len(),
            Self::Text(builder) => builder.len(),
        }
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends so many nulls.
    pub fn append_nulls(&mut self, count: usize) {
        match self {
            Self::U8(builder) => builder.append_nulls(count),
            Self::U16(builder) => builder.append_nulls(count),
            Self::U32(builder) => builder.append_nulls(count),
            Self::U64(builder) => builder.append_nulls(count),
            Self::I64(builder) => builder.append_nulls(count),
            Self::F64(builder) => builder.append_nulls(count),
            Self::Bool(builder) => builder.append_nulls(count),
            Self::Text(builder) => builder.append_nulls(count),
        }
    }

    fn append_text(&mut self, text: &str) {
        match self {
            Self::Text(builder) => builder.append_value(cut(text)),
            other => wrong_kind(Kind::Text, other),
        }
    }
}

/// A value appended to a column of another kind would shift that column's rows: a bug of the
/// macro that makes both from one list, never of the input.
fn wrong_kind(kind: Kind, builder: &ColumnBuilder) -> ! {
    unreachable!("a value of kind {kind:?} for the column {builder:?}")
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// A Rust type that may stand in a row.
pub trait Value: Sized {
    /// Type of its column.
    const KIND: Kind;
    /// Whether the column has nulls.
    const NULLABLE: bool = false;

    /// What a row holds before it is filled in: 0, an empty text, `0.0.0.0`, null.
    fn empty() -> Self;
    /// Appends to a column of [`Value::KIND`].
    fn append(&self, builder: &mut ColumnBuilder);
    /// Appends all, in order: the column is looked at once.
    fn append_all<'a>(values: impl Iterator<Item = &'a Self>, builder: &mut ColumnBuilder)
    where
        Self: 'a,
    {
        for value in values {
            value.append(builder);
        }
    }
    /// As JSON; a number that JSON lacks (NaN, infinity) is null.
    fn json(&self) -> Json;
    /// A total order.
    fn order(&self, other: &Self) -> Ordering;
}

macro_rules! numbers {
    ($($type:ty, $kind:ident;)+) => {$(
        impl Value for $type {
            const KIND: Kind = Kind::$kind;
            fn empty() -> Self {
                Self::default()
            }
            fn append(&self, builder: &mut ColumnBuilder) {
                Self::append_all(std::iter::once(self), builder);
            }
            fn append_all<'a>(
                values: impl Iterator<Item = &'a Self>,
                builder: &mut ColumnBuilder,
            ) {
                match builder {
                    ColumnBuilder::$kind(builder) => {
                        values.for_each(|value| builder.append_value(*value));
                    }
                    other => wrong_kind(Self::KIND, other),
                }
            }
            fn json(&self) -> Json {
                Json::from(*self)
            }
            fn order(&self, other: &Self) -> Ordering {
                self.partial_cmp(other).unwrap_or(Ordering::Equal)
            }
        }
    )+};
}

numbers! {
    u8, U8;
    u16, U16;
    u32, U32;
    u64, U64;
    i64, I64;
    bool, Bool;
}

impl Value for f64 {
    const KIND: Kind = Kind::F64;
    fn empty() -> Self {
        0.0
    }
    fn append(&self, builder: &mut ColumnBuilder) {
        match builder {
            ColumnBuilder::F64(builder) => builder.append_value(*self),
            other => wrong_kind(Self::KIND, other),
        }
    }
    fn json(&self) -> Json {
        Json::from(*self)
    }
    fn order(&self, other: &Self) -> Ordering {
        self.total_cmp(other)
    }
}

impl Value for Arc<str> {
    const KIND: Kind = Kind::Text;
    fn empty() -> Self {
        "".into()
    }
    fn append(&self, builder: &mut ColumnBuilder) {
        builder.append_text(self);
    }
    fn json(&self) -> Json {
        Json::from(cut(self))
    }
    fn order(&self, other: &Self) -> Ordering {
        self.cmp(other)
    }
}

impl Value for &'static str {
    const KIND: Kind = Kind::Text;
    fn empty() -> Self {
        ""
    }
    fn append(&self, builder: &mut ColumnBuilder) {
        builder.append_text(self);
    }
    fn json(&self) -> Json {
        Json::from(*self)
    }
    fn order(&self, other: &Self) -> Ordering {
        self.cmp(other)
    }
}

impl Value for IpAddr {
    const KIND: Kind = Kind::Text;
    fn empty() -> Self {
        Ipv4Addr::UNSPECIFIED.into()
    }
    fn append(&self, builder: &mut ColumnBuilder) {
        match self {
            Self::V4(address) => builder.append_text(Ipv4Text::of(*address).as_str()),
            Self::V6(address) => builder.append_text(&address.to_string()),
        }
    }
    fn json(&self) -> Json {
        Json::from(self.to_string())
    }
    fn order(&self, other: &Self) -> Ordering {
        self.cmp(other)
    }
}

/// An IPv4 address as text: a record has two of them, and `Display` costs more than all its numbers.
struct Ipv4Text {
    text: [u8; 15],
    length: usize,
}

impl Ipv4Text {
    fn of(address: Ipv4Addr) -> Self {
        let mut it = Self { text: [b'.'; 15], length: 0 };
        for (place, octet) in address.octets().into_iter().enumerate() {
            it.length += usize::from(place > 0);
            if octet >= 100 {
                it.push(octet / 100);
            }
            if octet >= 10 {
                it.push(octet / 10 % 10);
            }
            it.push(octet % 10);
        }
        it
    }

    fn push(&mut self, digit: u8) {
        if let Some(at) = self.text.get_mut(self.length) {
            *at = b'0' + digit;
            self.length += 1;
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.text.get(..self.length).unwrap_or_default()).unwrap_or_default()
    }
}

/// A MAC address as text, `02:00:5e:10:00:01`.
struct MacText([u8; 17]);

impl MacText {
    fn of(address: Mac) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b':'; 17];
        for (pair, octet) in text.chunks_mut(3).zip(address.0) {
            pair[0] = DIGITS[usize::from(octet >> 4)];
            pair[1] = DIGITS[usize::from(octet & 0xf)];
        }
        Self(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Value for Mac {
    const KIND: Kind = Kind::Text;
    fn empty() -> Self {
        Self::default()
    }
    fn append(&self, builder: &mut ColumnBuilder) {
        builder.append_text(MacText::of(*self).as_str());
    }
    fn json(&self) -> Json {
        Json::from(MacText::of(*self).as_str())
    }
    fn order(&self, other: &Self) -> Ordering {
        self.cmp(other)
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;
    const NULLABLE: bool = true;
    fn empty() -> Self {
        None
    }
    fn append(&self, builder: &mut ColumnBuilder) {
        match self {
            Some(value) => value.append(builder),
            None => builder.append_nulls(1),
        }
    }
    fn json(&self) -> Json {
        self.as_ref().map_or(Json::Null, Value::json)
    }
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Some(one), Some(two)) => one.order(two),
            (one, two) => one.is_some().cmp(&two.is_some()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Array as _;
    use arrow_array::cast::AsArray as _;

    fn text_column(values: &[Option<IpAddr>]) -> ArrayRef {
        let mut builder = ColumnBuilder::new(Kind::Text, values.len());
        for value in values {
            value.append(&mut builder);
        }
        builder.finish()
    }

    #[test]
    fn addresses_are_rfc_5952_texts_and_null_stays_null() {
        let column = text_column(&[
            Some("10.0.0.1".parse().expect("address")),
            None,
            Some("2001:DB8:0:0:1:0:0:1".parse().expect("address")),
            Some("::ffff:192.0.2.1".parse().expect("address")),
        ]);
        let texts = column.as_string::<i32>();
        assert_eq!(texts.value(0), "10.0.0.1");
        assert!(texts.is_null(1));
        assert_eq!(texts.value(2), "2001:db8::1:0:0:1");
        assert_eq!(texts.value(3), "::ffff:192.0.2.1");
    }

    #[test]
    fn ipv4_addresses_are_as_the_library_writes_them() {
        for number in (0..=u32::MAX).step_by(65_521).chain([u32::MAX, 0x0a64_0963]) {
            let address = Ipv4Addr::from(number);
            assert_eq!(Ipv4Text::of(address).as_str(), address.to_string());
        }
    }

    #[test]
    fn macs_have_two_digits_an_octet() {
        assert_eq!(Mac([2, 0, 0x5e, 0x10, 0, 1]).json(), Json::from("02:00:5e:10:00:01"));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let long: Arc<str> = "é".repeat(TEXT_BYTES_MAX).into();
        let kept = cut(&long);
        assert_eq!(kept.len(), TEXT_BYTES_MAX - 1);
        assert!(kept.chars().all(|character| character == 'é'));
    }

    #[test]
    fn orders_are_total() {
        assert_eq!(f64::NAN.order(&f64::NAN), Ordering::Equal);
        assert_eq!(None.order(&Some(0_u64)), Ordering::Less);
        assert_eq!(u64::MAX.order(&0), Ordering::Greater);
    }

    #[test]
    fn json_has_no_number_for_nan() {
        assert_eq!((f64::NAN.json(), u64::MAX.json()), (Json::Null, Json::from(u64::MAX)));
    }
}
