//! Typed values of a checked table.
//!
//! In: a table of the document. Out: values of the types that the plan has.
//! Invariants: a value that its key does not allow reads as not given, because its problem is
//! already noted; so later checks never repeat it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kind::{Kind, integer_of, number_of, time_of};
use super::table::Table;
use crate::config::{
    BrokerUrl, CollectorUrl, HttpUrl, OvsdbRemote, SecretPlace, ServiceUrl, StreamUrl,
};
use crate::inventory::{Mac, Uuid};
use crate::time::Timestamp;

/// One table as it stands in the file; or none, where all keys read as not given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section<'d> {
    table: &'static Table,
    found: Option<&'d DeTable<'d>>,
    at: usize,
}

impl<'d> Section<'d> {
    /// The whole document.
    pub(crate) fn root(table: &'static Table, document: &'d Spanned<DeTable<'d>>) -> Self {
        Self { table, found: Some(document.get_ref()), at: 0 }
    }

    /// The table `name` in this one.
    pub(crate) fn table(&self, name: &str) -> Self {
        let Some(Kind::Table(table)) = self.table.key(name).map(|key| key.kind) else {
            return *self;
        };
        let found = self.value(name).and_then(|value| value.get_ref().as_table());
        Self { table, found, at: self.at(name) }
    }

    /// The tables of the array `name`, in order.
    pub(crate) fn tables(&self, name: &str) -> Vec<Self> {
        let Some(Kind::Tables(table, _)) = self.table.key(name).map(|key| key.kind) else {
            return Vec::new();
        };
        let items = self.value(name).and_then(|value| value.get_ref().as_array());
        items
            .into_iter()
            .flat_map(|items| items.iter())
            .map(|item| Self { table, found: item.get_ref().as_table(), at: item.span().start })
            .collect()
    }

    /// Whether the key is given with an allowed value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Whether the key is written at all, allowed or not.
    pub(crate) fn is_written(&self, name: &str) -> bool {
        self.found.is_some_and(|found| found.contains_key(name))
    }

    /// The value of a key, if it is given and allowed.
    pub(crate) fn get<T: FromToml>(&self, name: &str) -> Option<T> {
        self.value(name).and_then(|value| T::of(value.get_ref()))
    }

    /// Puts the value of a key in its place; what is there stays if none is given.
    pub(crate) fn read<T: FromToml>(&self, name: &str, into: &mut T) {
        if let Some(value) = self.get(name) {
            *into = value;
        }
    }

    /// As [`Section::read`], into a place that may be empty.
    pub(crate) fn read_some<T: FromToml>(&self, name: &str, into: &mut Option<T>) {
        if let Some(value) = self.get(name) {
            *into = Some(value);
        }
    }

    /// The values of an array, each with its place in the text.
    pub(crate) fn items<T: FromToml>(&self, name: &str) -> Vec<(usize, T)> {
        let items = self.value(name).and_then(|value| value.get_ref().as_array());
        items
            .into_iter()
            .flat_map(|items| items.iter())
            .filter_map(|item| Some((item.span().start, T::of(item.get_ref())?)))
            .collect()
    }

    /// Where a key stands in the text; the table's own place if it is not given.
    pub(crate) fn at(&self, name: &str) -> usize {
        let key = self.found.and_then(|found| found.get_key_value(name));
        key.map_or(self.at, |(key, _)| key.span().start)
    }

    /// The path of a key, as it stands in problems.
    pub(crate) fn path(&self, name: &str) -> String {
        self.table.path_of(name)
    }

    fn value(&self, name: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        let value = self.found?.get(name)?;
        let kind = self.table.key(name)?.kind;
        kind.accepts(value.get_ref()).then_some(value)
    }
}

/// A type that a key's value has in the plan.
pub(crate) trait FromToml: Sized {
    /// `None` if the value is of another type.
    fn of(value: &DeValue<'_>) -> Option<Self>;
}

macro_rules! integers {
    ($($integer:ty),+) => { $(
        impl FromToml for $integer {
            fn of(value: &DeValue<'_>) -> Option<Self> {
                value.as_integer().and_then(integer_of).and_then(|number| number.try_into().ok())
            }
        }
    )+ };
}

macro_rules! texts {
    ($($text:ty),+) => { $(
        impl FromToml for $text {
            fn of(value: &DeValue<'_>) -> Option<Self> {
                value.as_str().and_then(|text| text.parse().ok())
            }
        }
    )+ };
}

integers!(u8, u16, u32, u64);
texts!(
    String,
    PathBuf,
    IpAddr,
    SocketAddr,
    IpNet,
    Mac,
    Uuid,
    BrokerUrl,
    OvsdbRemote,
    HttpUrl,
    StreamUrl,
    CollectorUrl,
    SecretPlace,
    ServiceUrl
);

impl FromToml for bool {
    fn of(value: &DeValue<'_>) -> Option<Self> {
        value.as_bool()
    }
}

impl FromToml for f64 {
    fn of(value: &DeValue<'_>) -> Option<Self> {
        number_of(value)
    }
}

impl FromToml for Timestamp {
    fn of(value: &DeValue<'_>) -> Option<Self> {
        time_of(value)
    }
}

impl<T: FromToml> FromToml for Vec<T> {
    fn of(value: &DeValue<'_>) -> Option<Self> {
        value.as_array()?.iter().map(|item| T::of(item.get_ref())).collect()
    }
}
