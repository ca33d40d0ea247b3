//! Virtual machines as a file describes them, and intervals of time.
//!
//! In: an inventory file. Out: [`Vm`] and its parts.
//! Invariants: the UUID is the identity; all else is an attribute with an interval.

use std::net::IpAddr;
use std::sync::Arc;

use super::{AddressSpace, Mac, Segment, Uuid};
use crate::time::Timestamp;

/// A time span [from, to).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    /// First instant in it.
    pub from: Timestamp,
    /// First instant after it; the largest one means for ever.
    pub to: Timestamp,
}

impl Interval {
    /// All of time.
    pub const ALWAYS: Self = Self { from: Timestamp::ZERO, to: Timestamp(u64::MAX) };

    /// Whether `at` lies in it.
    pub fn holds(self, at: Timestamp) -> bool {
        self.from <= at && (at < self.to || self.to == Self::ALWAYS.to)
    }

    /// The part that is in both; `None` if there is none.
    pub fn and(self, other: Self) -> Option<Self> {
        let both = Self { from: self.from.max(other.from), to: self.to.min(other.to) };
        (both.from < both.to).then_some(both)
    }
}

/// A virtual machine.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Identity.
    pub uuid: Uuid,
    /// Name, as people call it.
    pub name: Arc<str>,
    /// Name of the tenant that it belongs to.
    pub tenant: Arc<str>,
    /// Host at times that no placement covers.
    pub host: Option<Arc<str>>,
    /// Switch that its interfaces are plugged in at, at times that no placement covers.
    pub switch: Option<Arc<str>>,
    /// Hosts by time, in order, without overlap.
    pub placements: Vec<Placement>,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
    /// When the VM exists.
    pub valid: Interval,
}

/// A time that a VM spends on a host.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Name of the host.
    pub host: Arc<str>,
    /// Switch that the VM's interfaces are plugged in at there, if it is known.
    pub switch: Option<Arc<str>>,
    /// When.
    pub valid: Interval,
}

/// A network interface of a VM.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses; none if they are not known.
    pub addresses: Vec<IpAddr>,
    /// Addresses that it may have as others may.
    pub shared: Vec<IpAddr>,
    /// The tenant network that it is connected to.
    pub segment: Segment,
    /// The address space of that segment.
    pub space: AddressSpace,
    /// When; never outside the VM's own time.
    pub valid: Interval,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64) -> Interval {
        Interval { from: Timestamp(from), to: Timestamp(to) }
    }

    #[test]
    fn intervals_hold_their_start_only() {
        assert!(span(5, 7).holds(Timestamp(5)) && span(5, 7).holds(Timestamp(6)));
        assert!(!span(5, 7).holds(Timestamp(7)) && !span(5, 7).holds(Timestamp(4)));
        assert!(Interval::ALWAYS.holds(Timestamp(u64::MAX)));
        assert_eq!(span(5, 7).and(span(6, 9)), Some(span(6, 7)));
        assert_eq!(span(5, 7).and(span(7, 9)), None);
    }
}
