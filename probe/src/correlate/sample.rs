//! Messages of `path_samples` to sightings.
//!
//! In: JSON or protobuf. Out: a [`Sighting`].
//! Invariants: what does not read, or names a tap or address space that the configuration does not have, is
//! counted by its reason and left out.

use std::net::IpAddr;

use serde::Deserialize;

use crate::config::Plan;
use crate::decode::Address;
use crate::export::kafka;
use crate::index::TapIndex;
use crate::inventory::{AddressSpace, Segment};
use crate::path::{Ends, Evidence, Sight};
use crate::record::Table;
use crate::time::Timestamp;

use super::tap_named;

/// The columns that are read.
#[derive(Deserialize)]
struct Columns {
    observation_time_ns: u64,
    digest_hash_value: u64,
    tap: String,
    ip_total_length: u32,
    ip_ttl: u8,
    address_space: String,
    source_address: IpAddr,
    destination_address: IpAddr,
    protocol_identifier: u8,
    evidence: String,
    segment_stripped: bool,
}

/// A packet at a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) digest: u64,
    pub(super) ends: Ends,
    pub(super) octets: u32,
    pub(super) sight: Sight,
    pub(super) evidence: Evidence,
}

/// Why a message gives no sighting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is no record of `path_samples`.
    Malformed,
    /// Its tap is not in the configuration.
    UnknownTap,
    /// Its address space is neither a segment nor in the configuration.
    UnknownSpace,
}

/// Reads a message.
pub(super) fn read(plan: &Plan, value: &[u8]) -> Result<Sighting, Unread> {
    let columns: Columns = if value.first() == Some(&b'{') {
        serde_json::from_slice(value).map_err(|_| Unread::Malformed)?
    } else {
        let row = kafka::read_row(Table::PathSamples, value).ok_or(Unread::Malformed)?;
        serde_json::from_value(row.into()).map_err(|_| Unread::Malformed)?
    };
    let tap = tap_named(plan, &columns.tap).ok_or(Unread::UnknownTap)?;
    let space = space_named(plan, &columns.address_space).ok_or(Unread::UnknownSpace)?;
    sighting(&columns, tap, space).ok_or(Unread::Malformed)
}

fn sighting(columns: &Columns, tap: TapIndex, space: AddressSpace) -> Option<Sighting> {
    let ends = ends(
        space,
        (columns.source_address, columns.destination_address),
        columns.protocol_identifier,
    )?;
    Some(Sighting {
        digest: columns.digest_hash_value,
        ends,
        octets: columns.ip_total_length,
        sight: Sight {
            tap,
            at: Timestamp(columns.observation_time_ns),
            ttl: columns.ip_ttl,
            is_untagged: columns.segment_stripped,
        },
        evidence: Evidence::named(&columns.evidence)?,
    })
}

/// Both addresses are of one version.
pub(super) fn ends(
    space: AddressSpace,
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
) -> Option<Ends> {
    let ((source, ip_version), (destination, other)) =
        (Address::of_ip(source), Address::of_ip(destination));
    (ip_version == other).then_some(Ends { space, source, destination, protocol, ip_version })
}

/// As [`Names::space`](crate::record::Names::space) has written it.
pub(super) fn space_named(plan: &Plan, text: &str) -> Option<AddressSpace> {
    let joined = plan.spaces.iter().find(|space| space.name == text).map(|space| space.space);
    joined.or_else(|| Segment::parse(text, &plan.domains).map(AddressSpace::of_segment))
}
