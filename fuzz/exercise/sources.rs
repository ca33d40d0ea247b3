//! What other systems say to the inventory, of any octets: changes, or a reason; never a panic.
//!
//! The first octet chooses who speaks: a request to the API, OpenStack's message bus (a message a line),
//! or the database of an Open vSwitch (the second octet says in which pieces it comes).

use vmprobe::inventory::{
    ClassRules, SourceId, SourceKind, SourceName, Spaces, Store, StoreLimits, Uuid,
};
use vmprobe::sources::json::{Reader, Said};
use vmprobe::sources::{openstack, ovsdb};
use vmprobe::time::Timestamp;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

/// Reads it; what the API lets in goes into a store.
pub(crate) fn exercise(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 3 {
        0 => request(rest),
        1 => drop(openstack::exercise(rest)),
        _ => {
            let Some((piece, rest)) = rest.split_first() else { return };
            ovsdb::exercise(rest, usize::from(*piece));
        }
    }
}

fn request(body: &[u8]) {
    let Ok(body) = serde_json::from_slice(body) else { return };
    let domains = ["default".to_owned()];
    let events = Reader::new(&domains, NOW).events(&body).map(Said::into_batch);
    let vm = Reader::new(&domains, NOW).vm(Uuid(7), &body).map(Said::into_batch);
    let source = SourceName { kind: SourceKind::Api, name: "api".into(), rank: 0 };
    let (spaces, rules) = (Spaces::default(), ClassRules::default());
    let mut store = Store::new(StoreLimits::default(), spaces, rules, vec![source]).with_rows();
    for said in [events, vm] {
        match said {
            Ok(batch) => drop(store.apply(SourceId(0), NOW, batch)),
            Err(faults) => assert!(!faults.is_empty(), "a body is wrong for a reason"),
        }
    }
    drop(store.take_row_changes());
}
