//! Records of `windows` to contacts: who asked whom for what in a window, as one probe saw it.
//!
//! In: JSON or protobuf. Out: a [`Seen`]; [`Contacts`] between members.
//! Invariants: what does not read, or is of another domain, window length or address space than the
//! configuration has, is counted by its reason and left out; a conversation that detectors do not look at
//! still says that its window was there.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::Plan;
use crate::decode::Address;
use crate::export::kafka;
use crate::hash::KeyedMap;
use crate::index::content_id;
use crate::inventory::{AddressSpace, Segment};
use crate::record::Table;
use crate::time::ms;

use super::sample;

/// Address spaces whose names are remembered; others are looked for each time.
const SPACES_MAX: usize = 1 << 16;
/// Octets of a name that is remembered; nothing that is configured has a longer one.
const SPACE_OCTETS_MAX: usize = 255;
/// Octets of a probe's id, as its configuration bounds it.
const PROBE_OCTETS_MAX: usize = 63;

/// What a probe has seen of who contacts whom in a window.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contacts {
    /// When the first of its records was sent, in milliseconds since the epoch.
    pub(super) sent_ms: i64,
    pub(super) window: u64,
    pub(super) probe: String,
    pub(super) rows: Vec<Contact>,
}

/// One conversation. In JSON it is a list, for there are many.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(from = "Listed", into = "Listed")]
pub(super) struct Contact {
    pub(super) space: String,
    pub(super) segment: String,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) port: u16,
    /// Of several conversations of one probe between these for this service in one window, which: they
    /// differ in application, segments or MAC addresses.
    pub(super) variant: u64,
    pub(super) counts: ContactCounts,
}

type Listed = (String, String, IpAddr, IpAddr, u8, u16, u64, [u64; 5]);

impl From<Listed> for Contact {
    fn from(listed: Listed) -> Self {
        let (space, segment, source, destination, protocol, port, variant, counts) = listed;
        let [contacts, answered, refused, syns, established] = counts;
        let counts = ContactCounts { contacts, answered, refused, syns, established };
        Self { space, segment, source, destination, protocol, port, variant, counts }
    }
}

impl From<Contact> for Listed {
    fn from(it: Contact) -> Self {
        let ContactCounts { contacts, answered, refused, syns, established } = it.counts;
        let counts = [contacts, answered, refused, syns, established];
        let Contact { space, segment, source, destination, protocol, port, variant, .. } = it;
        (space, segment, source, destination, protocol, port, variant, counts)
    }
}

/// What detectors look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ContactCounts {
    pub(super) contacts: u64,
    pub(super) answered: u64,
    pub(super) refused: u64,
    pub(super) syns: u64,
    pub(super) established: u64,
}

impl ContactCounts {
    fn is_any(&self) -> bool {
        *self != Self::default()
    }

    fn both(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            contacts: of(self.contacts, other.contacts),
            answered: of(self.answered, other.answered),
            refused: of(self.refused, other.refused),
            syns: of(self.syns, other.syns),
            established: of(self.established, other.established),
        }
    }

    /// Of different conversations.
    pub(super) fn plus(self, other: Self) -> Self {
        self.both(other, u64::saturating_add)
    }

    /// Of the same one, seen twice.
    pub(super) fn or_more(self, other: Self) -> Self {
        self.both(other, u64::max)
    }
}

/// The columns that are read.
#[derive(Deserialize)]
struct Columns {
    probe_id: String,
    domain: String,
    window_start_ns: u64,
    window_end_ns: u64,
    segment: String,
    reverse_segment: Option<String>,
    address_space: String,
    source_address: IpAddr,
    destination_address: IpAddr,
    source_mac: Option<String>,
    destination_mac: Option<String>,
    protocol_identifier: u8,
    destination_port: u16,
    application_name: String,
    syn_count: u64,
    connection_established_count: u64,
    connection_refused_count: u64,
    contact_count: u64,
    answered_count: u64,
}

/// A record of a window.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) probe: String,
    pub(super) window: u64,
    /// Where detectors look at it.
    pub(super) contact: Option<Contact>,
}

/// Why a message gives none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unseen {
    /// It is no record of `windows` of this version.
    Malformed,
    /// Its domain is not the member's.
    OtherDomain,
    /// Its window is not one of the member's: another `window.length_ms`.
    OtherLength,
    /// Its address space is neither a segment nor in the configuration.
    UnknownSpace,
}

/// Address spaces by their names.
#[derive(Default)]
pub(super) struct Spaces(KeyedMap<String, Option<AddressSpace>>);

impl Spaces {
    pub(super) fn named(&mut self, plan: &Plan, name: &str) -> Option<AddressSpace> {
        if let Some(known) = self.0.get(name) {
            return *known;
        }
        let space = sample::space_named(plan, name);
        if self.0.len() < SPACES_MAX && name.len() <= SPACE_OCTETS_MAX {
            self.0.insert(name.to_owned(), space);
        }
        space
    }
}

/// Reads a message.
pub(super) fn read(plan: &Plan, spaces: &mut Spaces, value: &[u8]) -> Result<Seen, Unseen> {
    let columns: Columns = if value.first() == Some(&b'{') {
        serde_json::from_slice(value).map_err(|_| Unseen::Malformed)?
    } else {
        let row = kafka::read_row(Table::Windows, value).ok_or(Unseen::Malformed)?;
        serde_json::from_value(row.into()).map_err(|_| Unseen::Malformed)?
    };
    if columns.probe_id.len() > PROBE_OCTETS_MAX {
        return Err(Unseen::Malformed);
    }
    if columns.domain != plan.probe.domain {
        return Err(Unseen::OtherDomain);
    }
    let length_ns = ms(plan.window.length_ms.into());
    let window = columns.window_start_ns / length_ns;
    let span = [window.checked_mul(length_ns), (window + 1).checked_mul(length_ns)];
    if span != [Some(columns.window_start_ns), Some(columns.window_end_ns)] {
        return Err(Unseen::OtherLength);
    }
    let counts = ContactCounts {
        contacts: columns.contact_count,
        answered: columns.answered_count,
        refused: columns.connection_refused_count,
        syns: columns.syn_count,
        established: columns.connection_established_count,
    };
    let contact = counts.is_any().then(|| contact(plan, spaces, &columns, counts)).transpose()?;
    Ok(Seen { probe: columns.probe_id, window, contact })
}

fn contact(
    plan: &Plan,
    spaces: &mut Spaces,
    columns: &Columns,
    counts: ContactCounts,
) -> Result<Contact, Unseen> {
    spaces.named(plan, &columns.address_space).ok_or(Unseen::UnknownSpace)?;
    Segment::parse(&columns.segment, &plan.domains).ok_or(Unseen::Malformed)?;
    let ends = [columns.source_address, columns.destination_address];
    if Address::of_ip(ends[0]).1 != Address::of_ip(ends[1]).1 {
        return Err(Unseen::Malformed);
    }
    let texts = [
        columns.application_name.as_str(),
        &columns.segment,
        columns.reverse_segment.as_deref().unwrap_or_default(),
        columns.source_mac.as_deref().unwrap_or_default(),
        columns.destination_mac.as_deref().unwrap_or_default(),
    ];
    Ok(Contact {
        space: columns.address_space.clone(),
        segment: columns.segment.clone(),
        source: columns.source_address,
        destination: columns.destination_address,
        protocol: columns.protocol_identifier,
        port: columns.destination_port,
        variant: content_id(texts.iter().flat_map(|text| text.as_bytes().iter().chain(&[0]))),
        counts,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::{Origin, Record as _, WindowRecord};

    pub(in super::super) fn plan() -> Plan {
        Plan { domains: vec!["default".to_owned()], ..Plan::default() }
    }

    pub(in super::super) fn record() -> WindowRecord {
        WindowRecord {
            window_start_ns: 7_000_000_000,
            window_end_ns: 8_000_000_000,
            segment: "default/vlan/7".into(),
            address_space: "default/vlan/7".into(),
            source_address: "10.0.0.1".parse().expect("an address"),
            destination_address: "10.0.0.2".parse().expect("an address"),
            protocol_identifier: 6,
            destination_port: 22,
            application_name: "ssh",
            syn_count: 3,
            connection_established_count: 1,
            connection_refused_count: 2,
            contact_count: 3,
            answered_count: 1,
            ..WindowRecord::default()
        }
    }

    fn json(record: &WindowRecord, origin: &Origin) -> Vec<u8> {
        serde_json::to_vec(&record.json(origin)).expect("JSON")
    }

    #[test]
    fn records_give_what_detectors_look_at() {
        let (plan, mut spaces) = (plan(), Spaces::default());
        let origin = Origin::new("p", "default");
        let mut read = |record: &WindowRecord, origin: &Origin| {
            read(&plan, &mut spaces, &json(record, origin))
        };
        let seen = read(&record(), &origin).expect("a record");
        assert_eq!((seen.probe.as_str(), seen.window), ("p", 7));
        let contact = seen.contact.expect("counts");
        let counts =
            ContactCounts { contacts: 3, answered: 1, refused: 2, syns: 3, established: 1 };
        assert_eq!((contact.port, contact.counts), (22, counts));
        let text = serde_json::to_string(&contact).expect("JSON");
        assert_eq!(serde_json::from_str::<Contact>(&text).expect("the same"), contact);
        let other = WindowRecord { application_name: "tls", ..record() };
        let other = read(&other, &origin).expect("a record").contact.expect("counts");
        assert_ne!(other.variant, contact.variant);
        let quiet = WindowRecord {
            syn_count: 0,
            connection_established_count: 0,
            connection_refused_count: 0,
            contact_count: 0,
            answered_count: 0,
            ..record()
        };
        assert_eq!(read(&quiet, &origin).expect("a record").contact, None);
    }

    #[test]
    fn what_is_of_elsewhere_is_left_out_by_its_reason() {
        let (plan, mut spaces) = (plan(), Spaces::default());
        let (here, elsewhere) = (Origin::new("p", "default"), Origin::new("p", "elsewhere"));
        let longer = WindowRecord { window_end_ns: 9_000_000_000, ..record() };
        let beside = WindowRecord {
            window_start_ns: 7_500_000_000,
            window_end_ns: 8_500_000_000,
            ..record()
        };
        let blue = WindowRecord { address_space: "blue".into(), ..record() };
        let mixed = WindowRecord {
            destination_address: "2001:db8::1".parse().expect("an address"),
            ..record()
        };
        for (record, origin, why) in [
            (record(), &elsewhere, Unseen::OtherDomain),
            (longer, &here, Unseen::OtherLength),
            (beside, &here, Unseen::OtherLength),
            (blue, &here, Unseen::UnknownSpace),
            (mixed, &here, Unseen::Malformed),
        ] {
            assert_eq!(read(&plan, &mut spaces, &json(&record, origin)), Err(why));
        }
        // A record of a version that does not count contacts.
        let mut old = record().json(&here);
        old.as_object_mut().expect("an object").remove("contact_count");
        let old = serde_json::to_vec(&old).expect("JSON");
        assert_eq!(read(&plan, &mut spaces, &old), Err(Unseen::Malformed));
        assert_eq!(read(&plan, &mut spaces, b""), Err(Unseen::Malformed));
        // Names that no configuration has.
        let long = Origin::new(&"p".repeat(PROBE_OCTETS_MAX + 1), "default");
        assert_eq!(read(&plan, &mut spaces, &json(&record(), &long)), Err(Unseen::Malformed));
        let known = spaces.0.len();
        let long = "x".repeat(SPACE_OCTETS_MAX + 1).into();
        let long = json(&WindowRecord { address_space: long, ..super::tests::record() }, &here);
        assert_eq!(read(&plan, &mut spaces, &long), Err(Unseen::UnknownSpace));
        assert_eq!(spaces.0.len(), known, "it is not remembered");
    }
}
