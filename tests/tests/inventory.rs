//! Who is who on generated clouds: no octet is booked on the wrong VM, with a seed that is another one each
//! time.

use std::sync::Arc;

use vmprobe::config;
use vmprobe::generate::Options;
use vmprobe::inventory::{
    Address, AddressSpace, Interval, Mac, Missing, Scope, Segment, SegmentKind, SourceState, file,
};
use vmprobe::sources::file::FileSource;
use vmprobe::sources::{Inbox, InventorySource as _, SourceSpec};
use vmprobe::time::{Timestamp, sleep_ms, wall_clock};
use vmprobe_tests::end_to_end::{NOT_BUILT, skipped};
use vmprobe_tests::folder::Folder;
use vmprobe_tests::overlap::{self, Overlap};
use vmprobe_tests::replaying::run;

/// 10,000 VMs in 100 tenants, all in 10.0.0.0/24, one of which moves each second; another cloud each time.
#[test]
fn no_octet_is_booked_on_the_wrong_vm() {
    let seed = overlap::seed("no_octet_is_booked_on_the_wrong_vm");
    let options = Options { scale: 0.4, duration_s: Some(5), vms_per_tenant: Some(100) };
    let cloud = Overlap::new("overlap", seed, options);
    let into = cloud.folder.path("records");
    let replay = run(cloud.plan(), &cloud.captures(), Some(&into)).expect("a replay");
    assert_eq!(replay.report.ledger.unaccounted, 0);
    let sent = cloud.sent();
    eprintln!("{} packets, {} VMs", cloud.truth["packets"], sent.len());
    assert!(sent.len() > 7_500, "{} VMs sent", sent.len());
    let Some(booked) = overlap::booked(&into, "windows") else {
        return skipped("no octet is booked on the wrong VM", NOT_BUILT);
    };
    overlap::assert_own(&sent, &booked);
}

const TWO_VMS: &str = r#"
[[tenant]]
name = "acme"
[[vm]]
uuid = "00000000-0000-0000-0000-000000000001"
name = "web"
tenant = "acme"
host = "h1"
[[vm.interface]]
mac = "fa:16:3e:00:00:01"
addresses = ["10.0.0.1"]
[[vm]]
uuid = "00000000-0000-0000-0000-000000000002"
name = "db"
tenant = "acme"
[[vm.interface]]
mac = "fa:16:3e:00:00:02"
addresses = ["10.0.0.2"]
"#;

#[test]
fn a_file_is_read_again_when_it_changes_and_a_bad_one_changes_nothing() {
    let folder = Folder::new("inventory-file");
    let path = folder.write("inventory.toml", TWO_VMS);
    let plan = Arc::new(config::replay_without_file());
    let again = Arc::default();
    let (mut source, data) = FileSource::open(&path, &plan, Arc::clone(&again)).expect("right");
    assert_eq!(data.vms.len(), 2);
    assert!(source.look(Timestamp(5)).is_none(), "nothing has changed");

    folder.write("inventory.toml", "[[vm]]\nname = \"web\"\n");
    let problems = source.look(Timestamp(6)).expect("it changed").expect_err("it is wrong");
    assert!(problems.to_string().contains("inventory.toml:1"), "{problems}");
    assert!(source.look(Timestamp(7)).is_none(), "it is told once");

    folder.write("inventory.toml", TWO_VMS.replace("\"h1\"", "\"h2\""));
    let batch = source.look(Timestamp(8)).expect("it changed").expect("it is right");
    assert_eq!(batch.scope, Scope::All { at: Timestamp(8), missing: Missing::Ended });
    again.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(source.look(Timestamp(9)).is_some(), "asked for, it is read though nothing changed");
    std::fs::remove_file(&path).expect("it was there");
    assert!(source.look(Timestamp(10)).expect("it changed").is_err(), "it is gone");
}

#[test]
fn what_a_file_says_again_keeps_history_and_what_it_drops_ends() {
    use vmprobe::inventory::{
        ClassRules, SourceId, SourceKind, SourceName, Spaces, Store, StoreLimits,
    };
    let domains = ["default".to_owned()];
    let read = |text: &str| file::parse(text, "i.toml", &domains, &[]).expect("right");
    let source = SourceName { kind: SourceKind::File, name: "file".into(), rank: 0 };
    let rules = ClassRules::default();
    let mut store = Store::new(StoreLimits::default(), Spaces::default(), rules, vec![source]);
    let mut say = |text: &str, at: u64| {
        let again = (at > 100).then_some(Timestamp(at));
        let scope = Scope::All { at: Timestamp(at), missing: Missing::Ended };
        let changes = read(text).changes(again);
        store.apply(SourceId(0), Timestamp(at), vmprobe::inventory::Batch { changes, scope });
        store.snapshot()
    };
    say(TWO_VMS, 100);
    let moved = TWO_VMS.replace("\"h1\"", "\"h2\"");
    say(&moved, 200);
    let (begin, _) = moved.split_at(moved.rfind("[[vm]]").expect("the second VM"));
    let last = say(begin, 300);
    let host = |at: u64| {
        let entry = last.entries().find(|(_, entry)| entry.history.uuid.0 == 1).expect("web").1;
        entry.history.host_at(Timestamp(at)).map(ToString::to_string)
    };
    assert_eq!([50, 199, 200].map(host).map(Option::unwrap), ["h1", "h1", "h2"]);
    let who = |address: u8, at: u64| {
        let address = Address::v4([10, 0, 0, address]);
        let found = last.resolve(AddressSpace::default(), address, 4, None, Timestamp(at));
        found.and_then(|vm| last.vm(vm)).map(|vm| vm.uuid.0)
    };
    assert_eq!(
        [who(1, 250), who(1, 999), who(2, 299), who(2, 300)],
        [Some(1), Some(1), Some(2), None]
    );
    let before = last.known_at(Timestamp(250));
    let address = Address::v4([10, 0, 0, 2]);
    assert!(before.resolve(AddressSpace::default(), address, 4, None, Timestamp(999)).is_some());
}

#[test]
fn the_file_s_thread_says_how_it_is_doing() {
    let folder = Folder::new("inventory-thread");
    let path = folder.write("inventory.toml", TWO_VMS);
    let plan = Arc::new(config::replay_without_file());
    let (source, _) = FileSource::open(&path, &plan, Arc::default()).expect("right");
    let stop = Arc::default();
    let mut inbox = Inbox::new(Arc::clone(&stop));
    let spec = SourceSpec {
        kind: vmprobe::inventory::SourceKind::File,
        name: "file".to_owned(),
        rank: 1,
        stale_after_ms: None,
    };
    let handle = inbox.register(spec, wall_clock()).expect("room");
    let thread = std::thread::spawn(move || Box::new(source).run(handle));
    let wait_for = |state: SourceState| {
        for _ in 0..100 {
            let health = inbox.health(wall_clock()).remove(0);
            if health.state == state {
                return health;
            }
            sleep_ms(50);
        }
        panic!("never {state:?}: {:?}", inbox.health(wall_clock()));
    };
    folder.replace("inventory.toml", "nonsense");
    let failed = wait_for(SourceState::Failed);
    assert!(failed.last_error.is_some_and(|error| error.contains("inventory.toml:1")));
    folder.replace("inventory.toml", TWO_VMS);
    assert_eq!(wait_for(SourceState::Live).connections, 1);
    assert!(inbox.next(1_000).is_some());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    thread.join().expect("it ends");
}

#[test]
fn an_event_within_a_window_books_each_packet_on_its_vm() {
    // One address goes from one VM to another in the middle of a window: the MAC address of a row says
    // whose it is.
    let text = TWO_VMS
        .replace("addresses = [\"10.0.0.1\"]", "addresses = [\"10.0.0.1\"]\nvalid_to = 1500")
        .replace("addresses = [\"10.0.0.2\"]", "addresses = [\"10.0.0.1\"]\nvalid_from = 1500");
    let data = file::parse(&text, "i.toml", &["default".to_owned()], &[]).expect("right");
    let inventory =
        vmprobe::inventory::Inventory::new(&data, vmprobe::inventory::ClassRules::default());
    let space = AddressSpace::of_segment(Segment::new(0, SegmentKind::None, 0));
    let window = Interval { from: Timestamp(1_000), to: Timestamp(2_000) };
    let who = |mac: u8| {
        let mac = Some(Mac([0xfa, 0x16, 0x3e, 0, 0, mac]));
        let found = inventory.resolve_within(space, Address::v4([10, 0, 0, 1]), 4, mac, window);
        found.and_then(|vm| inventory.vm(vm)).map(|vm| vm.uuid.0)
    };
    assert_eq!([who(1), who(2), who(9)], [Some(1), Some(2), Some(1)]);
}
