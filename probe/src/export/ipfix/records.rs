//! Records as IPFIX has them, before they stand in messages.
//!
//! In: rows of `flows`, `windows` and `taps`. Out: a batch of [`Entry`]s: templates by number within the
//! batch, and data records of them. Messages, template ids and sequence numbers are the session's.
//! Cost: a record is written once; a template once for each set of columns that are not null.
//! Invariants: what is null is left out, by another template, and never written as 0 or as an empty text (on
//! which nfacctd 1.7.7 crashed); a record fits a message, its texts are cut for it.
//! Source: RFC 7011 §6 and §7; RFC 5103; sampling, RFC 7014 §7.

use std::collections::HashMap;

use super::elements::{self, Authority, Field, Form, REVERSE_ENTERPRISE, point_id};
use super::message::{HEADER_OCTETS, SET_HEADER_OCTETS};
use crate::config::IpfixPlan;
use crate::export::sink::{Cell, Encoder, Row};
use crate::inventory::{Mac, Uuid};
use crate::record::Table;

/// Sets of columns of one table, each with a template; what is null in further ones is left out together
/// with all that may be null.
const TEMPLATES_MAX: usize = 1_024;
/// Octets of a text, tried one after the other until the record fits.
const TEXT_OCTETS: [usize; 6] = [65_535, 1_024, 255, 63, 15, 0];
/// Set where a column is there; of an address, where it is IPv6; of TCP flags, where they take 2 octets.
type Presence = [u64; 4];

/// Number of the sampling's template in a batch; those of rows count from 1.
const SAMPLING: u16 = 0;
/// flowSelectorAlgorithm: uniform probabilistic flow selection.
const UNIFORM_PROBABILISTIC: u16 = 4;

/// One thing in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// What records of this number look like: how many fields are scope, and all of them as in a
    /// template.
    Template { number: u16, scope: u16, fields: &'a [u8] },
    /// A record; `counts`: it is one of the sink's account.
    Record { number: u16, octets: &'a [u8], counts: bool },
}

/// Kinds of entries.
const TEMPLATE: u8 = 1;
const ROW: u8 = 2;
const BESIDE: u8 = 3;
/// Kind, number, scope, length.
const ENTRY_HEADER_OCTETS: usize = 7;

fn push(kind: u8, number: u16, scope: u16, octets: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
    out.push(kind);
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&scope.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(octets.get(..usize::from(length)).unwrap_or(octets));
}

/// The next entry and what stands behind it; `None` at the end, or where the batch is broken.
pub(super) fn next(batch: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (head, rest) = batch.split_first_chunk::<ENTRY_HEADER_OCTETS>()?;
    let [kind, number @ .., _, _, _, _] = head;
    let number = u16::from_be_bytes(*number);
    let scope = u16::from_be_bytes([head[3], head[4]]);
    let length = u16::from_be_bytes([head[5], head[6]]);
    let (octets, rest) = rest.split_at_checked(length.into())?;
    let entry = match *kind {
        TEMPLATE => Entry::Template { number, scope, fields: octets },
        ROW | BESIDE => Entry::Record { number, octets, counts: *kind == ROW },
        _ => return None,
    };
    Some((entry, rest))
}

/// One field of a template (RFC 7011 §3.2).
pub(super) fn field_specifier(
    enterprise: Option<u32>,
    number: u16,
    octets: Option<u16>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(8);
    let bit = if enterprise.is_some() { 0x8000 } else { 0 };
    out.extend_from_slice(&(number | bit).to_be_bytes());
    out.extend_from_slice(&octets.unwrap_or(u16::MAX).to_be_bytes());
    if let Some(enterprise) = enterprise {
        out.extend_from_slice(&enterprise.to_be_bytes());
    }
    out
}

/// A text behind its length (RFC 7011 §7).
pub(super) fn write_variable(octets: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
    match u8::try_from(length) {
        Ok(length @ 0..=254) => out.push(length),
        _ => {
            out.push(u8::MAX);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(octets.get(..length.into()).unwrap_or(octets));
}

/// What the encoder knows of one table.
struct TableState {
    fields: Vec<Field>,
    /// Number of the template of each set of columns.
    templates: HashMap<Presence, u16>,
    /// Whether a template stands in the batch that is being filled.
    told: Vec<bool>,
    /// Sampling that was told of last in this batch, as bits.
    sampling: Option<u64>,
    sampling_place: Option<usize>,
}

/// Writes entries.
pub(in crate::export) struct Records {
    enterprise: u32,
    domain: u32,
    record_octets_max: usize,
    tables: HashMap<Table, TableState>,
    record: Vec<u8>,
}

impl Records {
    pub(in crate::export) fn new(plan: &IpfixPlan, probe: &str) -> Self {
        let octets = usize::try_from(plan.message_octets_max).unwrap_or(usize::MAX);
        Self {
            enterprise: plan.enterprise_number,
            domain: super::observation_domain(plan, probe),
            record_octets_max: octets.saturating_sub(HEADER_OCTETS + SET_HEADER_OCTETS),
            tables: elements::TABLES
                .into_iter()
                .map(|table| (table, TableState::of(table)))
                .collect(),
            record: Vec::new(),
        }
    }

    /// An option record before the flows that it is true of.
    fn tell_sampling(&self, bits: u64, first: bool, out: &mut Vec<u8>) {
        if first {
            let fields = [
                field_specifier(None, 149, Some(4)),
                field_specifier(None, 390, Some(2)),
                field_specifier(None, 311, Some(8)),
            ];
            push(TEMPLATE, SAMPLING, 1, &fields.concat(), out);
        }
        let mut record = Vec::with_capacity(14);
        record.extend_from_slice(&self.domain.to_be_bytes());
        record.extend_from_slice(&UNIFORM_PROBABILISTIC.to_be_bytes());
        record.extend_from_slice(&bits.to_be_bytes());
        push(BESIDE, SAMPLING, 1, &record, out);
    }
}

impl Encoder for Records {
    fn begin(&mut self, table: Table, _out: &mut Vec<u8>) {
        if let Some(state) = self.tables.get_mut(&table) {
            state.told.fill(false);
            state.sampling = None;
        }
    }

    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        let table = row.table();
        // The configuration allows no other table.
        let Some(state) = self.tables.get_mut(&table) else { return };
        let sampling = state.sampling_place.map(|place| match row.cell(place) {
            Cell::Float(rate) => rate.to_bits(),
            _ => 1_f64.to_bits(),
        });
        let told = state.sampling;
        let (number, presence) = state.number(row);
        let scope = elements::scope_count(table);
        let fields = state.tell(number).then(|| state.template(&presence, self.enterprise));
        if sampling.is_some() {
            state.sampling = sampling;
        }
        let mut record = std::mem::take(&mut self.record);
        for texts in TEXT_OCTETS {
            record.clear();
            state.write(row, &presence, texts, &mut record);
            if record.len() <= self.record_octets_max {
                break;
            }
        }
        if let Some(bits) = sampling.filter(|_| sampling != told) {
            self.tell_sampling(bits, told.is_none(), out);
        }
        if let Some(fields) = fields {
            push(TEMPLATE, number, scope, &fields, out);
        }
        push(ROW, number, scope, &record, out);
        self.record = record;
    }
}

impl TableState {
    fn of(table: Table) -> Self {
        let sampling_place = table.columns().iter().position(|it| it.name == "sampling_rate");
        Self {
            fields: elements::fields(table),
            templates: HashMap::new(),
            told: vec![false],
            sampling: None,
            sampling_place,
        }
    }

    /// The template of a row, and what is in it.
    fn number(&mut self, row: Row<'_>) -> (u16, Presence) {
        let mut presence = self.presence(row, true);
        if !self.templates.contains_key(&presence) && self.templates.len() >= TEMPLATES_MAX {
            presence = self.presence(row, false);
        }
        let next = u16::try_from(self.templates.len() + 1).unwrap_or(u16::MAX);
        let number = *self.templates.entry(presence).or_insert(next);
        (number, presence)
    }

    /// Whether a template still has to be told; from now on it is.
    fn tell(&mut self, number: u16) -> bool {
        let place = usize::from(number);
        if self.told.len() <= place {
            self.told.resize(place + 1, false);
        }
        self.told.get_mut(place).is_some_and(|told| !std::mem::replace(told, true))
    }

    /// Which fields a row has. Without `optional`, those that can be null are left out.
    fn presence(&self, row: Row<'_>, optional: bool) -> Presence {
        let mut presence = Presence::default();
        for (place, field) in self.fields.iter().enumerate() {
            let set = match field.form {
                Form::Address(_) => row.cell(field.place).text().is_some_and(is_six),
                Form::Flags => row.cell(field.place).number() > Some(u8::MAX.into()),
                _ if field.optional => optional && row.cell(field.place) != Cell::Null,
                _ => true,
            };
            if set && let Some(word) = presence.get_mut(place / 64) {
                *word |= 1 << (place % 64);
            }
        }
        presence
    }

    /// The fields of a template.
    fn template(&self, presence: &Presence, enterprise: u32) -> Vec<u8> {
        let mut out = Vec::new();
        for (place, field) in self.fields.iter().enumerate() {
            let set = is_set(presence, place);
            let (number, octets) = match field.form {
                Form::Address(six) if set => (six, Some(16)),
                Form::Flags if set => (field.number, Some(2)),
                _ if field.optional && !set => continue,
                form => (field.number, form.octets()),
            };
            let enterprise = match field.authority {
                Authority::Iana => None,
                Authority::Reverse => Some(REVERSE_ENTERPRISE),
                Authority::Own => Some(enterprise),
            };
            out.extend(field_specifier(enterprise, number, octets));
        }
        out
    }

    fn write(&self, row: Row<'_>, presence: &Presence, texts: usize, out: &mut Vec<u8>) {
        for (place, field) in self.fields.iter().enumerate() {
            let set = is_set(presence, place);
            if !field.optional || set {
                write_value(row.cell(field.place), field.form, set, texts, out);
            }
        }
    }
}

fn is_set(presence: &Presence, place: usize) -> bool {
    presence.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
}

/// Addresses are written by the probe, so what has a colon is IPv6.
fn is_six(address: &str) -> bool {
    address.contains(':')
}

/// One value. `wide`: of an address, that it is IPv6, of TCP flags, that they take 2 octets. `texts`: octets
/// of a text at most.
fn write_value(cell: Cell<'_>, form: Form, wide: bool, texts: usize, out: &mut Vec<u8>) {
    let text = cell.text().unwrap_or_default();
    let number = match cell {
        Cell::Unsigned(number) => number,
        Cell::Signed(number) => number.cast_unsigned(),
        Cell::Float(number) => number.to_bits(),
        // RFC 7011 §6.1.5.
        Cell::Bool(flag) => {
            if flag {
                1
            } else {
                2
            }
        }
        Cell::Null | Cell::Text(_) => 0,
    };
    match form {
        Form::Unsigned(octets) => write_low(number, octets.into(), out),
        Form::Signed | Form::Float => write_low(number, 8, out),
        Form::Flags => write_low(number, if wide { 2 } else { 1 }, out),
        Form::Boolean => write_low(number, 1, out),
        Form::Constant(octet) => out.push(octet),
        Form::Milliseconds => write_low(number / 1_000_000, 8, out),
        Form::Nanoseconds => write_low(ntp(number), 8, out),
        Form::PointId => write_low(point_id(text), 8, out),
        Form::Mac => out.extend(text.parse::<Mac>().unwrap_or_default().0),
        Form::Text => write_variable(cut(text, texts).as_bytes(), out),
        Form::Uuid => match text.parse::<Uuid>() {
            Ok(uuid) => write_variable(&uuid.0.to_be_bytes(), out),
            Err(_) => write_variable(&[], out),
        },
        Form::Address(_) if wide => {
            let address = text.parse().unwrap_or(std::net::Ipv6Addr::UNSPECIFIED);
            out.extend(address.octets());
        }
        Form::Address(_) => {
            let address = text.parse().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
            out.extend(address.octets());
        }
    }
}

/// The lowest octets of a number, in network order.
fn write_low(number: u64, octets: usize, out: &mut Vec<u8>) {
    let all = number.to_be_bytes();
    out.extend_from_slice(all.get(all.len() - octets.min(all.len())..).unwrap_or(&all));
}

/// RFC 7011 §6.1.10. The fraction is rounded up, so that who rounds down to nanoseconds gets the same.
fn ntp(ns: u64) -> u64 {
    /// From 1900 to 1970 (RFC 868).
    const EPOCH_S: u64 = 2_208_988_800;
    const SECOND_NS: u64 = 1_000_000_000;
    let fraction = ((ns % SECOND_NS) << 32).div_ceil(SECOND_NS);
    (ns / SECOND_NS).wrapping_add(EPOCH_S) << 32 | fraction
}

fn cut(text: &str, octets: usize) -> &str {
    let mut end = text.len().min(octets);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
