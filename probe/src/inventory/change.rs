//! What a source of the inventory says: one attribute of a VM, or of a segment, from when to when.
//!
//! In: events of a source. Out: [`Change`]s in a [`Batch`], which the store turns into facts.
//! Cost: a few words a change; texts are shared.
//! Invariants: a change speaks for its own source only. Create, migrate, re-address and terminate are
//! not kinds of changes: they are what [`Statement`] says of `exists`, `host`, interfaces from an
//! instant on.
//! Source: ARCHITECTURE.md, "Who is who".

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Mac, Segment, Uuid};
use crate::time::Timestamp;

/// Whom or what a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A virtual machine.
    Vm(Uuid),
    /// A tenant network; its one attribute is [`Attribute::Space`].
    Segment(Segment),
}

/// One interface of a VM, the same for all sources: its MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId {
    /// Its MAC address.
    pub mac: Mac,
    /// 0, but for further interfaces of the same VM with the same MAC address.
    pub number: u16,
}

impl From<Mac> for InterfaceId {
    fn from(mac: Mac) -> Self {
        Self { mac, number: 0 }
    }
}

impl fmt::Display for InterfaceId {
    /// The MAC address, with the number behind `#` where it has one.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mac, number } = self;
        if *number == 0 { write!(out, "{mac}") } else { write!(out, "{mac}#{number}") }
    }
}

/// What may be said of a subject. Each has a value of one form at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// Whether the VM exists ([`Value::Flag`]). A VM of which no source says so exists while any
    /// of them says anything else of it.
    Exists,
    /// Name, as people call it ([`Value::Text`]).
    Name,
    /// Tenant that it belongs to ([`Value::Text`]).
    Tenant,
    /// Host that it runs on ([`Value::Text`]).
    Host,
    /// A tag by name ([`Value::Text`]).
    Tag(Arc<str>),
    /// Whether the VM has the interface ([`Value::Flag`]). Where no source says so, it has it while
    /// any of them says anything else of it, its switch apart.
    Attached(InterfaceId),
    /// Tenant network that the interface is connected to ([`Value::Segment`]).
    Segment(InterfaceId),
    /// Addresses of the interface ([`Value::Addresses`]). Empty: none are known, so all that the MAC
    /// address sends is the VM's.
    Addresses(InterfaceId),
    /// Addresses that the interface may have beside its own, as others may ([`Value::Addresses`]): those
    /// of virtual routers and clusters. Who alone may have one has it; of several the one that is seen
    /// to, by its MAC address.
    Shared(InterfaceId),
    /// Name of the port on the switch ([`Value::Text`]): `iface-id` of Open vSwitch, which is the id of
    /// a Neutron port.
    Port(InterfaceId),
    /// Name of the switch that the interface is plugged in at ([`Value::Text`]), unique: a bridge of a
    /// host is `HOST/BRIDGE`.
    Switch(InterfaceId),
    /// Address space that a segment is routed in, by its name ([`Value::Text`]): of a tenant's router.
    Space,
}

impl Attribute {
    /// The name in records, messages and the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Name => "name",
            Self::Tenant => "tenant",
            Self::Host => "host",
            Self::Tag(_) => "tag",
            Self::Attached(_) => "attached",
            Self::Segment(_) => "segment",
            Self::Addresses(_) => "addresses",
            Self::Shared(_) => "shared_addresses",
            Self::Port(_) => "port",
            Self::Switch(_) => "switch",
            Self::Space => "space",
        }
    }

    /// The interface that it is of.
    pub const fn interface(&self) -> Option<InterfaceId> {
        match self {
            Self::Attached(id)
            | Self::Segment(id)
            | Self::Addresses(id)
            | Self::Shared(id)
            | Self::Port(id)
            | Self::Switch(id) => Some(*id),
            _ => None,
        }
    }
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Of [`Attribute::Exists`] and [`Attribute::Attached`].
    Flag(bool),
    /// Of at most [`TEXT_BYTES_MAX`].
    Text(Arc<str>),
    /// A tenant network.
    Segment(Segment),
    /// In order, each once, at most [`ADDRESSES_MAX`]; see [`Value::addresses`].
    Addresses(Arc<[IpAddr]>),
}

impl Value {
    /// From addresses in any order.
    pub fn addresses(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut sorted: Vec<_> = addresses.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        Self::Addresses(sorted.into())
    }
}

/// Longest text of a name, tenant, host, tag, port, switch or space, in bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// Addresses of one interface at most.
pub const ADDRESSES_MAX: usize = 256;
/// Changes of one [`Batch`] at most.
pub const BATCH_CHANGES_MAX: usize = 1 << 24;

/// Until when something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Until {
    /// Until the next thing that the same source says, or has said, of the same attribute: what an event
    /// means. So events may come in any order.
    Next,
    /// Exactly until this instant, whatever the source has said of the time before it; the largest one
    /// means for ever.
    At(Timestamp),
}

/// One source says that an attribute has a value from when to when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// Of whom.
    pub subject: Subject,
    /// Of what.
    pub attribute: Attribute,
    /// What it is. `None`: the source says nothing any more, so that others are heard; that is not the
    /// same as a flag that is false, which others of less precedence cannot contradict.
    pub value: Option<Value>,
    /// Valid time: first instant, by the source's clock.
    pub from: Timestamp,
    /// Valid time: first instant after.
    pub until: Until,
}

/// What becomes of all that a source has said before, when it says everything anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Missing {
    /// A VM that is no longer named has ended, an interface is detached: for a source that has the last
    /// word on what exists (file, OpenStack, libvirt on its host).
    Ended,
    /// The source says nothing of it any more: for one that sees a part (the ports of one switch).
    Unsaid,
}

/// How much of what a source says is in a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Something; all else stays as it was.
    Some,
    /// Everything of the VMs that it names, from an instant on: what else the source has said of them
    /// ends then. A VM is not ended by it.
    Each {
        /// The instant, by the source's clock.
        at: Timestamp,
    },
    /// Everything that holds at an instant (after a connection was made anew, or a file was read): what
    /// the source has said before and this does not repeat ends then.
    All {
        /// The instant, by the source's clock.
        at: Timestamp,
        /// How it ends.
        missing: Missing,
    },
}

/// Changes that become known at once: either all are seen by a look-up or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which they apply.
    pub changes: Vec<Change>,
    /// Whether it is everything.
    pub scope: Scope,
}

impl From<Vec<Change>> for Batch {
    fn from(changes: Vec<Change>) -> Self {
        Self { changes, scope: Scope::Some }
    }
}

impl From<Statement> for Batch {
    fn from(statement: Statement) -> Self {
        statement.changes().into()
    }
}

/// Builds the changes of one VM from one instant on.
///
/// ```
/// use vmprobe::inventory::{Batch, Mac, Statement, Uuid};
/// use vmprobe::time::Timestamp;
///
/// let (vm, mac) = (Uuid(1), Mac([0xfa, 0x16, 0x3e, 0, 0, 1]));
/// let created = Statement::new(vm, Timestamp(10))
///     .exists(true)
///     .name("web-1")
///     .tenant("acme")
///     .host("host1")
///     .attached(mac, true)
///     .addresses(mac, ["10.0.0.5".parse().unwrap()]);
/// let migrated = Statement::new(vm, Timestamp(20)).host("host2");
/// let terminated = Statement::new(vm, Timestamp(30)).exists(false);
/// let batch = Batch::from(created);
/// assert_eq!(batch.changes.len(), 6);
/// # let _ = (migrated, terminated);
/// ```
#[derive(Clone, Debug)]
pub struct Statement {
    vm: Uuid,
    from: Timestamp,
    until: Until,
    changes: Vec<Change>,
}

impl Statement {
    /// Of a VM, from an instant until the source says otherwise.
    pub const fn new(vm: Uuid, from: Timestamp) -> Self {
        Self { vm, from, until: Until::Next, changes: Vec::new() }
    }

    /// From when on.
    pub const fn since(&self) -> Timestamp {
        self.from
    }

    /// What follows holds until then.
    #[must_use]
    pub const fn until(mut self, until: Until) -> Self {
        self.until = until;
        self
    }

    /// Whether it exists.
    #[must_use]
    pub fn exists(self, exists: bool) -> Self {
        self.says(Attribute::Exists, Some(Value::Flag(exists)))
    }

    /// Its name.
    #[must_use]
    pub fn name(self, name: impl Into<Arc<str>>) -> Self {
        self.says(Attribute::Name, Some(Value::Text(name.into())))
    }

    /// Its tenant.
    #[must_use]
    pub fn tenant(self, tenant: impl Into<Arc<str>>) -> Self {
        self.says(Attribute::Tenant, Some(Value::Text(tenant.into())))
    }

    /// The host it runs on.
    #[must_use]
    pub fn host(self, host: impl Into<Arc<str>>) -> Self {
        self.says(Attribute::Host, Some(Value::Text(host.into())))
    }

    /// One tag.
    #[must_use]
    pub fn tag(self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.says(Attribute::Tag(name.into()), Some(Value::Text(value.into())))
    }

    /// Whether it has an interface.
    #[must_use]
    pub fn attached(self, interface: impl Into<InterfaceId>, attached: bool) -> Self {
        self.says(Attribute::Attached(interface.into()), Some(Value::Flag(attached)))
    }

    /// The segment of an interface.
    #[must_use]
    pub fn segment(self, interface: impl Into<InterfaceId>, segment: Segment) -> Self {
        self.says(Attribute::Segment(interface.into()), Some(Value::Segment(segment)))
    }

    /// All addresses of an interface.
    #[must_use]
    pub fn addresses(
        self,
        interface: impl Into<InterfaceId>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        self.says(Attribute::Addresses(interface.into()), Some(Value::addresses(addresses)))
    }

    /// All addresses that an interface may have as others may.
    #[must_use]
    pub fn shared(
        self,
        interface: impl Into<InterfaceId>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        self.says(Attribute::Shared(interface.into()), Some(Value::addresses(addresses)))
    }

    /// The switch's port of an interface.
    #[must_use]
    pub fn port(self, interface: impl Into<InterfaceId>, port: impl Into<Arc<str>>) -> Self {
        self.says(Attribute::Port(interface.into()), Some(Value::Text(port.into())))
    }

    /// The switch that an interface is plugged in at.
    #[must_use]
    pub fn switch(self, interface: impl Into<InterfaceId>, switch: impl Into<Arc<str>>) -> Self {
        self.says(Attribute::Switch(interface.into()), Some(Value::Text(switch.into())))
    }

    /// Any attribute; `None`: the source says nothing of it any more.
    #[must_use]
    pub fn says(mut self, attribute: Attribute, value: Option<Value>) -> Self {
        let (from, until) = (self.from, self.until);
        let subject = Subject::Vm(self.vm);
        self.changes.push(Change { subject, attribute, value, from, until });
        self
    }

    /// The changes, in order.
    pub fn changes(self) -> Vec<Change> {
        self.changes
    }
}

/// Says that a segment is routed in the address space of that name from an instant on; `None`: in its
/// own.
pub fn joined(segment: Segment, space: Option<&str>, from: Timestamp) -> Change {
    Change {
        subject: Subject::Segment(segment),
        attribute: Attribute::Space,
        value: space.map(|space| Value::Text(space.into())),
        from,
        until: Until::Next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_equal_in_any_order() {
        let [a, b]: [IpAddr; 2] = ["10.0.0.2", "10.0.0.1"].map(|text| text.parse().expect(text));
        assert_eq!(Value::addresses([a, b, a]), Value::addresses([b, a]));
    }

    #[test]
    fn a_statement_has_its_time_in_each_change() {
        let interface = Mac([2, 0, 0, 0, 0, 1]);
        let changes = Statement::new(Uuid(7), Timestamp(5))
            .host("h")
            .until(Until::At(Timestamp(9)))
            .attached(interface, true)
            .changes();
        let times: Vec<_> = changes.iter().map(|change| (change.from.0, change.until)).collect();
        assert_eq!(times, [(5, Until::Next), (5, Until::At(Timestamp(9)))]);
        assert_eq!(changes[1].attribute.interface(), Some(interface.into()));
        assert_eq!(changes[0].attribute.interface(), None);
    }
}
