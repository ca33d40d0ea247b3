//! Descriptions of domains.
//!
//! In: the XML of several domains, one after the other. Out: [`Domain`]s.
//! Cost: one pass.
//! Invariants: never panics; a description that is not whole gives nothing. Nesting and interfaces are
//! bounded.
//! Source: libvirt, "Domain XML format"; Nova, metadata of the libvirt driver
//! (`http://openstack.org/xmlns/libvirt/nova/1.1`).

use std::sync::Arc;

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use crate::inventory::{Mac, Uuid};

/// Elements inside each other at most.
const DEPTH_MAX: usize = 64;
/// Interfaces of one domain at most.
const NICS_MAX: usize = 64;
/// Longest text that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 255;

/// A domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Domain {
    /// Identity.
    pub(super) uuid: Uuid,
    /// Name on its host.
    pub(super) name: String,
    /// Name that its user gave it, if Nova made it.
    pub(super) nova_name: Option<String>,
    /// Id and name of its project, if Nova made it.
    pub(super) project: Option<(String, String)>,
    /// Interfaces.
    pub(super) nics: Vec<Nic>,
}

/// An interface of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nic {
    /// MAC address.
    pub(super) mac: Mac,
    /// Device on the host.
    pub(super) device: Option<String>,
    /// `interfaceid` of Open vSwitch: the id of the port.
    pub(super) port: Option<String>,
    /// VLAN tags; several on a trunk.
    pub(super) vlans: Vec<u16>,
}

/// Where the text of a domain ends.
const END: &str = "</domain>";

/// Reads them, and says how many could not be read. Each is read by itself, so that one that is broken
/// takes none with it.
pub(super) fn domains(xml: &str) -> (Vec<Domain>, u64) {
    let (mut whole, mut broken) = (Vec::new(), 0);
    for text in xml.split_inclusive(END) {
        let mut read = one(text);
        whole.append(&mut read.whole);
        broken += read.broken;
    }
    (whole, broken)
}

fn one(xml: &str) -> Reading {
    let mut reader = Reader::from_str(xml);
    let mut reading = Reading::default();
    loop {
        let taken = match reader.read_event() {
            Ok(Event::Eof) => break,
            Ok(event) => reading.take(&event),
            Err(_) => None,
        };
        if taken.is_none() {
            reading.broken += 1;
            return reading;
        }
    }
    reading.broken += u64::from(!reading.path.is_empty());
    reading
}

/// Elements that something is read of.
#[derive(Clone, Copy)]
enum Place {
    Domain,
    Name,
    Uuid,
    NovaName,
    Project,
    Interface,
    Mac,
    Parameters,
    Target,
    Tag,
}

impl Place {
    fn of(path: &[String]) -> Option<Self> {
        let (first, path) = path.split_first()?;
        if first != "domain" {
            return None;
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        Some(match path.as_slice() {
            [] => Self::Domain,
            ["name"] => Self::Name,
            ["uuid"] => Self::Uuid,
            ["metadata", "nova:instance", "nova:name"] => Self::NovaName,
            ["metadata", "nova:instance", "nova:owner", "nova:project"] => Self::Project,
            ["devices", "interface"] => Self::Interface,
            ["devices", "interface", "mac"] => Self::Mac,
            ["devices", "interface", "virtualport", "parameters"] => Self::Parameters,
            ["devices", "interface", "target"] => Self::Target,
            ["devices", "interface", "vlan", "tag"] => Self::Tag,
            _ => return None,
        })
    }
}

#[derive(Default)]
struct Reading {
    whole: Vec<Domain>,
    broken: u64,
    path: Vec<String>,
    text: String,
    domain: Domain,
    has_uuid: bool,
    project: (String, String),
    nic: Nic,
    has_mac: bool,
}

impl Reading {
    /// `None` where the text is no XML of domains.
    fn take(&mut self, event: &Event<'_>) -> Option<()> {
        match event {
            Event::Start(start) => {
                self.begin(start)?;
            }
            Event::Empty(start) => {
                self.begin(start)?;
                self.end();
            }
            Event::End(_) => self.end(),
            Event::Text(text) => self.add(text),
            Event::CData(text) => self.add(text),
            Event::GeneralRef(entity) => {
                if let Some(character) = entity.resolve_char_ref().ok()? {
                    self.add(character.encode_utf8(&mut [0; 4]));
                } else {
                    self.add(resolve_predefined_entity(entity)?);
                }
            }
            _ => {}
        }
        Some(())
    }

    fn add(&mut self, text: &str) {
        if self.text.len() + text.len() <= TEXT_BYTES_MAX {
            self.text.push_str(text);
        }
    }

    fn begin(&mut self, start: &BytesStart<'_>) -> Option<()> {
        if self.path.len() >= DEPTH_MAX {
            return None;
        }
        self.path.push(start.name().as_ref().to_owned());
        self.text.clear();
        let attribute = |name: &str| {
            let found = start.try_get_attribute(name).ok()??;
            let value = found.normalized_value(quick_xml::XmlVersion::Implicit1_0).ok()?;
            (value.len() <= TEXT_BYTES_MAX).then(|| value.into_owned())
        };
        match Place::of(&self.path) {
            Some(Place::Domain) => {
                self.domain = Domain::default();
                self.has_uuid = false;
            }
            Some(Place::Project) => {
                self.project.0 = attribute("uuid").unwrap_or_default();
            }
            Some(Place::Interface) => {
                self.nic = Nic::default();
                self.has_mac = false;
            }
            Some(Place::Mac) => {
                let mac = attribute("address").and_then(|mac| mac.parse().ok());
                self.has_mac = mac.is_some();
                self.nic.mac = mac.unwrap_or_default();
            }
            Some(Place::Parameters) => {
                self.nic.port = attribute("interfaceid").filter(|id| !id.is_empty());
            }
            Some(Place::Target) => {
                self.nic.device = attribute("dev").filter(|device| !device.is_empty());
            }
            Some(Place::Tag) => {
                self.nic.vlans.extend(attribute("id").and_then(|id| id.parse::<u16>().ok()));
            }
            _ => {}
        }
        Some(())
    }

    fn end(&mut self) {
        let text = std::mem::take(&mut self.text);
        match Place::of(&self.path) {
            Some(Place::Name) => self.domain.name = text,
            Some(Place::Uuid) => {
                let uuid = text.trim().parse();
                self.has_uuid = uuid.is_ok();
                self.domain.uuid = uuid.unwrap_or_default();
            }
            Some(Place::NovaName) => {
                self.domain.nova_name = Some(text).filter(|name| !name.is_empty());
            }
            Some(Place::Project) => {
                let id = std::mem::take(&mut self.project.0);
                if !id.is_empty() && !text.is_empty() {
                    self.domain.project = Some((id, text));
                }
            }
            Some(Place::Interface) => {
                let nic = std::mem::take(&mut self.nic);
                if self.has_mac && self.domain.nics.len() < NICS_MAX {
                    self.domain.nics.push(nic);
                }
            }
            Some(Place::Domain) => {
                let domain = std::mem::take(&mut self.domain);
                if self.has_uuid && !domain.name.is_empty() {
                    self.whole.push(domain);
                } else {
                    self.broken += 1;
                }
            }
            _ => {}
        }
        self.path.pop();
    }
}

impl Domain {
    /// What its users call it.
    pub(super) fn known_as(&self) -> Arc<str> {
        self.nova_name.as_deref().unwrap_or(&self.name).into()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const WEB: &str = "<domain type='kvm' id='7'>
  <name>instance-0000001a</name>
  <uuid>9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c01</uuid>
  <metadata>
    <nova:instance xmlns:nova=\"http://openstack.org/xmlns/libvirt/nova/1.1\">
      <nova:name>web &amp; db &#x31;</nova:name>
      <nova:owner>
        <nova:user uuid=\"u1\">admin</nova:user>
        <nova:project uuid=\"p1\">acme</nova:project>
      </nova:owner>
      <nova:flavor name='m1'><nova:memory>512</nova:memory></nova:flavor>
    </nova:instance>
  </metadata>
  <memory unit='KiB'>524288</memory>
  <devices>
    <disk type='file'><source file='/d'/><target dev='vda' bus='virtio'/></disk>
    <interface type='bridge'>
      <mac address='fa:16:3e:00:00:01'/>
      <source bridge='br-int'/>
      <virtualport type='openvswitch'><parameters interfaceid='c1a7b1f2'/></virtualport>
      <target dev='tapc1a7b1f2-6a'/>
      <vlan><tag id='42'/></vlan>
    </interface>
    <interface type='network'>
      <mac address='52:54:00:00:00:02'/>
      <source network='default' bridge='virbr0'/>
      <vlan trunk='yes'><tag id='1'/><tag id='2'/></vlan>
    </interface>
    <interface type='user'/>
  </devices>
</domain>

";

    #[test]
    fn a_domain_of_nova_is_read() {
        let (domains, broken) = domains(WEB);
        assert_eq!((domains.len(), broken), (1, 0));
        let domain = &domains[0];
        assert_eq!(domain.known_as().as_ref(), "web & db 1");
        assert_eq!(domain.name, "instance-0000001a");
        assert_eq!(domain.project, Some(("p1".to_owned(), "acme".to_owned())));
        let [first, second] = domain.nics.as_slice() else { panic!("{:?}", domain.nics) };
        assert_eq!(first.port.as_deref(), Some("c1a7b1f2"));
        assert_eq!(first.device.as_deref(), Some("tapc1a7b1f2-6a"));
        assert_eq!(first.vlans, [42]);
        assert_eq!((second.port.as_deref(), second.vlans.len()), (None, 2));
    }

    #[test]
    fn several_domains_follow_each_other() {
        let plain =
            "<domain><name>a</name><uuid>9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c02</uuid></domain>\n";
        let (read, broken) = domains(&format!("{WEB}{plain}"));
        assert_eq!((read.len(), broken), (2, 0));
        assert_eq!(read[1].known_as().as_ref(), "a");
        assert_eq!(read[1].nics, []);
    }

    #[test]
    fn what_is_not_whole_is_counted() {
        for (xml, whole, broken) in [
            ("", 0, 0),
            ("<domain><name>a</name></domain>", 0, 1),
            ("<domain><name>a</name><uuid>x</uuid></domain>", 0, 1),
            ("<domain>", 0, 1),
            ("<domain></name>", 0, 1),
            ("error: x < y", 0, 1),
        ] {
            let (read, found) = domains(xml);
            assert_eq!((read.len(), found), (whole, broken), "{xml}");
        }
        let (read, broken) = domains(&format!("{WEB}<domain><name>"));
        assert_eq!((read.len(), broken), (1, 1));
        let deep = "<a>".repeat(1_000);
        let (read, broken) =
            domains(&format!("<domain>{deep}</domain>{WEB}<domain><b></c></domain>{WEB}"));
        assert_eq!((read.len(), broken), (2, 2), "the others are taken");
        assert_eq!(domains(&"<a>".repeat(1_000)).0, []);
    }

    proptest! {
        #[test]
        fn damaged_text_never_panics(at in 0..WEB.len(), with in any::<char>(), cut in 0..WEB.len()) {
            let mut text: String = WEB.chars().take(at).collect();
            text.push(with);
            text.extend(WEB.chars().skip(at + 1).take(cut));
            let _ = domains(&text);
        }
    }
}
