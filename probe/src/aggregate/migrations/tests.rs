use super::*;
use crate::inventory::{ClassRules, Interface, InventoryData, Placement, SegmentKind, Vm};

const SECOND: u64 = 1_000_000_000;
const SEGMENT: Segment = Segment::new(0, SegmentKind::Vxlan, 7);

fn card(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

fn at(second: u64) -> Timestamp {
    Timestamp(second * SECOND)
}

/// A VM that was on these hosts, each from a second on.
fn vm(number: u8, hosts: &[(u64, &str)]) -> Vm {
    let ends = hosts.iter().skip(1).map(|(from, _)| at(*from)).chain([Interval::ALWAYS.to]);
    let placements = hosts.iter().zip(ends).map(|((from, host), to)| Placement {
        host: (*host).into(),
        switch: None,
        valid: Interval { from: at(*from), to },
    });
    let interface = Interface {
        mac: card(number),
        addresses: vec![IpAddr::from([10, 0, 0, number])],
        shared: Vec::new(),
        segment: SEGMENT,
        space: AddressSpace::of_segment(SEGMENT),
        valid: Interval::ALWAYS,
    };
    Vm {
        uuid: Uuid(number.into()),
        name: format!("vm-{number}").into(),
        tenant: "red".into(),
        host: None,
        switch: None,
        placements: placements.collect(),
        interfaces: vec![interface],
        valid: Interval::ALWAYS,
    }
}

fn migrations(vms: Vec<Vm>) -> Migrations {
    let data = InventoryData { vms, ..InventoryData::default() };
    Migrations {
        inventory: Inventory::new(&data, ClassRules::default()).into_cell(),
        hosts: vec![Some("a".into()), Some("b".into())],
        ..Migrations::default()
    }
}

fn moved(number: u8, last_second: u64, first_second: u64) -> Move {
    Move {
        space: AddressSpace::of_segment(SEGMENT),
        segment: SEGMENT,
        mac: card(number),
        address: crate::decode::Address::v4([10, 0, 0, number]),
        ip_version: 4,
        from: TapIndex(0),
        to: TapIndex(1),
        last: at(last_second),
        first: at(first_second),
        peers: 3,
        clocks: None,
    }
}

/// Windows of a second up to one, with what moved in the last; what is stated then.
fn until(migrations: &mut Migrations, from: u64, to: u64, moves: &[Move]) -> Vec<Migration> {
    for second in from..=to {
        let moves = if second == to { moves } else { &[] };
        migrations.window((at(second), at(second + 1)), moves, None);
    }
    migrations.take().0
}

fn reported(found: &Migration) -> (Option<&str>, bool, [Option<&str>; 2]) {
    let hosts = [found.hosts[0].as_deref(), found.hosts[1].as_deref()];
    (found.vm.as_ref().and_then(|vm| vm.name.as_deref()), found.detected, hosts)
}

#[test]
fn what_is_reported_is_stated_once_and_nothing_from_before_the_run() {
    let hosts = [(0, "x"), (50, "a"), (103, "b"), (106, "c")];
    let mut migrations = migrations(vec![vm(1, &hosts), vm(2, &[(0, "a")])]);
    assert!(until(&mut migrations, 100, 102, &[]).is_empty());
    let found = until(&mut migrations, 103, 103, &[]);
    assert_eq!(
        found.iter().map(reported).collect::<Vec<_>>(),
        [(Some("vm-1"), false, [Some("a"), Some("b")])]
    );
    let it = &found[0];
    assert_eq!((it.time, it.mac, it.silence, it.peers), (at(103), Some(card(1)), None, None));
    assert_eq!(it.address, Some(IpAddr::from([10, 0, 0, 1])));
    assert!(it.reported.is_some());
    let found = until(&mut migrations, 104, 400, &[]);
    assert_eq!(found.iter().map(|it| it.time).collect::<Vec<_>>(), [at(106)]);
    assert!(migrations.done.is_empty(), "what is long over is forgotten");
}

#[test]
fn what_is_seen_is_what_was_reported_near_it() {
    // Seen from 20 to 22 s, reported 9 s later, or 11 s.
    for (reported_at, joined) in [(31, true), (33, false), (11, true), (9, false), (21, true)] {
        let mut all = migrations(vec![vm(1, &[(0, "h"), (reported_at, "k")])]);
        // The sources are heard before the window is: as in a replay.
        all.begun = Some(at(15));
        let found = until(&mut all, 22, 22, &[moved(1, 20, 22)]);
        let [it] = &found[..] else { panic!("{reported_at}: {found:?}") };
        let hosts = if joined { [Some("h"), Some("k")] } else { [Some("a"), Some("b")] };
        assert_eq!(reported(it), (Some("vm-1"), true, hosts), "{reported_at}");
        assert_eq!(it.reported.is_some(), joined);
        assert_eq!(it.time, if joined { at(reported_at) } else { at(22) });
        assert_eq!(it.silence, Some((at(20), at(22))));
        let later = until(&mut all, 23, 60, &[]);
        let alone = !joined && reported_at > 22;
        assert_eq!(later.len(), usize::from(alone), "{reported_at}: {later:?}");
    }
}

#[test]
fn a_card_that_nobody_knows_has_no_name() {
    let mut all = migrations(vec![vm(1, &[(0, "h")])]);
    let found = until(&mut all, 22, 22, &[moved(9, 20, 22)]);
    assert_eq!(
        found.iter().map(reported).collect::<Vec<_>>(),
        [(None, true, [Some("a"), Some("b")])]
    );
    assert_eq!((found[0].vm.as_ref(), found[0].mac), (None, Some(card(9))));
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut all = migrations(Vec::new());
    let moves: Vec<_> = (0..FOUND_MAX + 5).map(|_| moved(9, 20, 22)).collect();
    all.window((at(22), at(23)), &moves, None);
    let (found, left_out) = all.take();
    assert_eq!((found.len(), left_out), (FOUND_MAX, 5));
    assert_eq!(all.take(), (Vec::new(), 0));
}
