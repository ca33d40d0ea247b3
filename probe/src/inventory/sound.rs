//! Whether the store takes a change at all.
//!
//! In: a [`Change`]. Out: a [`Rejection`] for one of the wrong form or size.
//! Invariants: looks at one change alone, at nothing that is known.

use std::net::IpAddr;

use super::change::{ADDRESSES_MAX, Attribute, Change, Subject, TEXT_BYTES_MAX, Until, Value};

/// Why a change was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    /// There are as many VMs as there may be, and none of them has ended.
    VmsFull,
    /// There are as many learned endpoints as there may be, and none of them is over.
    LearnedFull,
    /// There are as many segments with a space, or spaces, as there may be.
    SpacesFull,
    /// The VM has as many interfaces as it may have.
    InterfacesFull,
    /// The VM has as many tags as it may have.
    TagsFull,
    /// A text is empty or longer than [`TEXT_BYTES_MAX`].
    TextLength,
    /// More than [`ADDRESSES_MAX`] addresses.
    AddressesFull,
    /// A multicast, broadcast or unspecified address.
    AddressNotUnicast,
    /// A MAC address that is none of one interface.
    MacNotUnicast,
    /// It ends before it begins.
    TimeEmpty,
    /// The value is of another form than the attribute has, or the subject has no such attribute.
    WrongForm,
}

impl Rejection {
    /// The name in the API and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VmsFull => "vms_full",
            Self::LearnedFull => "learned_full",
            Self::SpacesFull => "spaces_full",
            Self::InterfacesFull => "interfaces_full",
            Self::TagsFull => "tags_full",
            Self::TextLength => "text_length",
            Self::AddressesFull => "addresses_full",
            Self::AddressNotUnicast => "address_not_unicast",
            Self::MacNotUnicast => "mac_not_unicast",
            Self::TimeEmpty => "time_empty",
            Self::WrongForm => "wrong_form",
        }
    }
}

/// Whether a change is of the right form and size.
pub(super) fn sound(change: &Change) -> Result<(), Rejection> {
    if let Until::At(to) = change.until
        && to <= change.from
    {
        return Err(Rejection::TimeEmpty);
    }
    if let Some(id) = change.attribute.interface()
        && id.mac.0[0] & 1 != 0
    {
        return Err(Rejection::MacNotUnicast);
    }
    let of_segment = change.attribute == Attribute::Space;
    if of_segment != matches!(change.subject, Subject::Segment(_)) {
        return Err(Rejection::WrongForm);
    }
    if let Attribute::Tag(name) = &change.attribute {
        text(name)?;
    }
    let Some(value) = &change.value else { return Ok(()) };
    match (&change.attribute, value) {
        (Attribute::Exists | Attribute::Attached(_), Value::Flag(_))
        | (Attribute::Segment(_), Value::Segment(_)) => Ok(()),
        // A tag may stand for itself.
        (Attribute::Tag(_), Value::Text(value)) => {
            if value.is_empty() {
                Ok(())
            } else {
                text(value)
            }
        }
        (
            Attribute::Name
            | Attribute::Tenant
            | Attribute::Host
            | Attribute::Port(_)
            | Attribute::Switch(_)
            | Attribute::Space,
            Value::Text(value),
        ) => text(value),
        (Attribute::Addresses(_) | Attribute::Shared(_), Value::Addresses(list)) => addresses(list),
        _ => Err(Rejection::WrongForm),
    }
}

fn text(text: &str) -> Result<(), Rejection> {
    let sound = !text.is_empty() && text.len() <= TEXT_BYTES_MAX;
    if sound { Ok(()) } else { Err(Rejection::TextLength) }
}

fn addresses(list: &[IpAddr]) -> Result<(), Rejection> {
    if list.len() > ADDRESSES_MAX {
        return Err(Rejection::AddressesFull);
    }
    let broadcast = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    let wrong = |ip: &IpAddr| ip.is_multicast() || ip.is_unspecified() || broadcast(ip);
    if list.iter().any(wrong) { Err(Rejection::AddressNotUnicast) } else { Ok(()) }
}
