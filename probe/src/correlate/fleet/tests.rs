//! What goes on in a fleet, and who takes over.

use super::super::contact::tests::plan;
use super::super::reading::Begin;
use super::super::testing::{self, Given};
use super::*;
use crate::inventory::InventoryCell;
use crate::record::{AlertRecord, InventoryRows, Names};
use crate::worker::PortNames;

const WINDOWS: u64 = 700;
const START_S: u64 = 1_700_000_000;
const HOLD_MS: u32 = 1_000;

fn short_plan() -> Arc<Plan> {
    let mut plan = plan();
    plan.correlate.hold_ms = HOLD_MS;
    plan.detect.port_scan.forget_s = 30;
    Arc::new(plan)
}

fn fleet(plan: &Arc<Plan>, first: Begin) -> Fleet {
    let names = Names::new(plan, PortNames::new(&[]));
    let inventory = InventoryCell::default();
    let maker = RecordMaker::new(names, Arc::clone(&inventory), InventoryRows::default());
    let mut fleet = Fleet::new(plan, Start { inventory, maker, first });
    fleet.set_partitions(2);
    fleet
}

fn begin(offset: i64) -> Begin {
    Begin { offset, is_committed: offset > 0 }
}

fn refused(source: u8, port: u16) -> Contact {
    Contact {
        space: "default/none".to_owned(),
        segment: "default/none".to_owned(),
        source: [10, 0, 0, source].into(),
        destination: [10, 0, 0, 200].into(),
        protocol: 6,
        port,
        variant: 0,
        counts: ContactCounts { contacts: 1, refused: 1, syns: 1, ..ContactCounts::default() },
    }
}

fn sent_ms(window: u64) -> i64 {
    i64::try_from((START_S + window) * 1_000).expect("small")
}

fn message(probe: &str, window: u64, rows: Vec<Contact>) -> Message {
    let (sent_ms, window) = (sent_ms(window), START_S + window);
    Message::Contacts(Contacts { sent_ms, window, probe: probe.to_owned(), rows })
}

fn clock(partition: i32, sent_ms: i64) -> Message {
    Message::Clock { partition, sent_ms }
}

/// What each probe has seen of a window: of a scan from 100 to 160 its part, five ports in ten windows;
/// of a flood in 300 its part; of what clients do all the same.
fn seen(probe: u64, window: u64) -> Vec<Contact> {
    let client = Contact {
        counts: ContactCounts {
            contacts: 1,
            answered: 1,
            syns: 1,
            established: 1,
            ..ContactCounts::default()
        },
        ..refused(7, 443)
    };
    let mut rows = vec![client];
    if (100..160).contains(&window) && window % 3 == probe {
        rows.push(refused(9, u16::try_from(window).expect("small")));
    }
    if window == 300 {
        let place = u8::try_from(probe).expect("small") * 50;
        rows.extend((place..place + 45).map(|source| Contact {
            counts: ContactCounts { contacts: 1, syns: 1, ..ContactCounts::default() },
            ..refused(source, 80)
        }));
    }
    rows
}

const PROBES: [&str; 3] = ["a", "b", "c"];

/// What members send; `again`: another one does each window once more.
fn log(probes: &[usize], again: bool) -> Vec<Vec<u8>> {
    let mut log = Vec::new();
    for window in 0..WINDOWS {
        let of = |probe: &usize| {
            message(PROBES[*probe], window, seen(u64::try_from(*probe).expect("small"), window))
        };
        log.extend(probes.iter().map(of));
        if again {
            log.extend(probes.iter().map(of));
        }
        log.extend((0..2).map(|partition| clock(partition, sent_ms(window))));
    }
    log.extend((0..2).map(|partition| clock(partition, i64::MAX)));
    log.iter().map(|message| serde_json::to_vec(message).expect("JSON")).collect()
}

fn alerts_of(all: Given) -> Vec<(u64, Vec<AlertRecord>)> {
    all.into_iter().map(|(window, rows)| (window - START_S, rows.alerts)).collect()
}

fn given(fleet: &mut Fleet) -> Vec<(u64, Vec<AlertRecord>)> {
    alerts_of(testing::given(fleet))
}

fn whole(plan: &Arc<Plan>, log: &[Vec<u8>]) -> (Vec<(u64, Vec<AlertRecord>)>, Fleet) {
    let (all, fleet) = testing::whole(fleet(plan, begin(0)), log);
    (alerts_of(all), fleet)
}

fn alerts(all: &[(u64, Vec<AlertRecord>)]) -> Vec<(u64, &str, &str, u64, &str)> {
    all.iter()
        .flat_map(|(window, alerts)| alerts.iter().map(|it| (*window, it)))
        .filter(|(_, it)| it.state != "updated")
        .map(|(window, it)| {
            let probes = it.seen_by_probes.as_deref().unwrap_or("none");
            (window, &*it.detector, it.state, it.event_count, probes)
        })
        .collect()
}

#[test]
fn parts_that_are_nothing_alone_are_one_alert_together() {
    let plan = short_plan();
    let (all, fleet) = whole(&plan, &log(&[0, 1, 2], false));
    // Each window, and the empty one behind the last.
    assert_eq!(all.len() as u64, WINDOWS + 1);
    let every = r#"["a","b","c"]"#;
    let found = alerts(&all);
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!((found[0].1, found[0].2, found[0].4), ("port_scan", "open", every));
    assert!((100..110).contains(&found[0].0), "{found:?}");
    assert_eq!((found[1].1, found[1].2, found[1].3), ("port_scan", "closed", 60));
    assert_eq!(found[2], (300, "syn_flood", "open", 135, every));
    assert_eq!((found[3].1, found[3].2), ("syn_flood", "closed"));
    assert_eq!((fleet.counts.late, fleet.counts.contacts_full), (0, 0));
    for alone in 0..3 {
        let (all, _) = whole(&plan, &log(&[alone], false));
        let found = alerts(&all);
        // A scan of which a third is seen is a scan still; a flood of a third is none.
        assert!(found.iter().all(|it| it.1 == "port_scan"), "{found:?}");
    }
}

#[test]
fn what_comes_twice_counts_once() {
    let plan = short_plan();
    let (once, _) = whole(&plan, &log(&[0, 1, 2], false));
    let (twice, fleet) = whole(&plan, &log(&[0, 1, 2], true));
    assert_eq!(once, twice);
    assert_eq!(fleet.counts.late, 0);
}

#[test]
fn what_two_probes_have_seen_of_one_conversation_is_one() {
    let flood = |sources: std::ops::Range<u8>| -> Vec<Contact> {
        let counts = ContactCounts { contacts: 1, syns: 1, ..ContactCounts::default() };
        sources.map(|source| Contact { counts, ..refused(source, 80) }).collect()
    };
    let plan = short_plan();
    for (parts, opened) in [
        // The same 60 attempts, seen by both.
        ([flood(0..60), flood(0..60)], 0),
        ([flood(0..60), flood(60..120)], 1),
    ] {
        let [one, other] = parts;
        let log =
            [message("a", 1, one), message("b", 1, other), clock(0, i64::MAX), clock(1, i64::MAX)];
        let log: Vec<_> = log.iter().map(|it| serde_json::to_vec(it).expect("JSON")).collect();
        let (all, _) = whole(&plan, &log);
        let floods = alerts(&all).iter().filter(|it| it.1 == "syn_flood").count();
        assert_eq!(floods, opened);
    }
    // Two conversations of one probe are two; of each count the larger of both probes.
    let with = |variant, syns, established| {
        let counts = ContactCounts { syns, established, ..ContactCounts::default() };
        (variant, counts)
    };
    let mut all = BTreeMap::new();
    let mut fleet = fleet(&plan, begin(0));
    for (probe, (variant, counts)) in
        [(0, with(1, 3, 0)), (0, with(2, 4, 0)), (1, with(1, 5, 2)), (70, with(1, 0, 0))]
    {
        let contact = Contact { variant, counts, ..refused(1, 80) };
        let (mark, sums) = fleet.read_contact(probe, &contact).expect("known names");
        all.insert(mark, sums);
    }
    let [(_, sums)] = joined(all).collect::<Vec<_>>()[..] else { panic!("one conversation") };
    assert_eq!((sums.syns, sums.established), (7, 2));
    assert_eq!(sums.observers, Observers(1 | 1 << 1 | 1 << NAMED_MAX));
}

#[test]
fn who_takes_over_goes_on_where_the_other_was() {
    let plan = short_plan();
    let log = log(&[0, 1, 2], false);
    let (whole, _) = whole(&plan, &log);
    for cut in [0, 5, 505, 520, 700, 1_503, 1_600, 3_400, log.len() - 1] {
        // Where nothing was given out, the window before the first.
        let next = |first| fleet(&plan, begin(first));
        let (all, first) = testing::taken_over(next, &log, cut, START_S - 1);
        let all = alerts_of(all);
        // An alert of 100 s and what detectors remember, five messages a window.
        assert!(cut < 3_000 || first > 2_000, "it is not all read again: {cut}: {first}");
        let differs = all.iter().zip(&whole).find(|(one, other)| one != other);
        assert!(all == whole, "cut at {cut}: {differs:#?} {} {}", all.len(), whole.len());
    }
}

#[test]
fn who_takes_over_reads_back_to_what_goes_on_and_no_further_than_told() {
    let scan = |history_s| {
        let mut plan = (*short_plan()).clone();
        plan.correlate.history_s = history_s;
        let mut fleet = fleet(&Arc::new(plan), begin(0));
        fleet.caught_up();
        let mut offset = 0;
        for window in 0..3_000 {
            let port = u16::try_from(window).expect("small");
            let scan = message("a", window, vec![refused(9, port)]);
            for message in [scan, clock(0, sent_ms(window)), clock(1, sent_ms(window))] {
                fleet.read(offset, &serde_json::to_vec(&message).expect("JSON"), i64::MAX);
                offset += 1;
            }
            given(&mut fleet);
            fleet.first_needed();
        }
        (fleet.first_needed() / 3, fleet.offsets.len())
    };
    // It began at once, and is still there.
    assert_eq!(scan(86_400).0, 0);
    let (first, kept) = scan(1_000);
    assert!((1_990..=2_000).contains(&first) && kept <= 1_010, "{first} {kept}");
}

/// Windows behind which the sinks are, with what says that the one before gave them out, before whoever
/// takes over is there: it waits for clocks, or has no room.
#[test]
fn what_was_given_out_before_it_is_settled_is_not_given_out_again() {
    const MANY: u64 = DUE_WINDOWS_MAX as u64 + 300;
    let plan = short_plan();
    for (said_behind, first) in [(30, 31), (MANY - 10, MANY - 9)] {
        let mut fleet = fleet(&plan, begin(0));
        let mut offset = 0;
        let mut read = |fleet: &mut Fleet, message: Message| {
            fleet.read(offset, &serde_json::to_vec(&message).expect("JSON"), i64::MAX);
            offset += 1;
        };
        for window in 0..MANY {
            read(&mut fleet, message("a", window, seen(0, window)));
        }
        // All of them are over: as many as there is room for are settled.
        let is_early = said_behind < 100;
        for partition in (0..2).filter(|_| !is_early) {
            read(&mut fleet, clock(partition, i64::MAX));
        }
        read(&mut fleet, Message::Emitted { window: START_S + said_behind });
        for partition in 0..2 {
            read(&mut fleet, clock(partition, i64::MAX));
        }
        fleet.caught_up();
        let all = given(&mut fleet);
        let windows: Vec<_> = all.iter().map(|(window, _)| *window).collect();
        assert_eq!(windows, (first..=MANY).collect::<Vec<_>>());
        assert_eq!((fleet.due_alerts, fleet.contacts), (0, 0));
    }
}

/// Resident memory in bytes, and the most of it since that was asked for to be forgotten.
fn resident_bytes() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok());
        kib.expect("a number") << 10
    };
    (of("VmRSS:"), of("VmHWM:"))
}

#[test]
fn a_window_with_all_contacts_that_find_room_takes_no_more_than_configured() {
    const MIB_MAX: u32 = 160;
    const ROWS: u32 = 1_000;
    let mut plan = (*short_plan()).clone();
    plan.correlate.contacts_mib_max = MIB_MAX;
    let mut fleet = fleet(&Arc::new(plan), begin(0));
    fleet.caught_up();
    let places = u32::try_from(fleet.contacts_max).expect("few");
    // In order, so that nodes of the tree are as empty as can be; each another service.
    let contacts = |from: u32| {
        let contact = |number: u32| Contact {
            destination: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(),
            counts: ContactCounts { syns: 1, ..ContactCounts::default() },
            ..refused(1, 80)
        };
        let rows = (from..from + ROWS).map(contact).collect();
        let (sent_ms, window) = (sent_ms(5), START_S + 5);
        Contacts { sent_ms, window, probe: "a".to_owned(), rows }
    };
    // Tests in one process would take and give back each other's.
    if std::env::var_os("NEXTEST").is_none() {
        return;
    }
    let (begun, _) = resident_bytes();
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
    for from in (0..places + 5 * ROWS).step_by(ROWS as usize) {
        fleet.take(0, &contacts(from));
    }
    assert_eq!(fleet.contacts, fleet.contacts_max);
    assert!(fleet.counts.contacts_full >= u64::from(4 * ROWS), "{:?}", fleet.counts);
    fleet.clocks = BTreeMap::from([(0, i64::MAX), (1, i64::MAX)]);
    fleet.settle();
    assert_eq!((fleet.contacts, given(&mut fleet).len()), (0, 2));
    let (_, most) = resident_bytes();
    let (taken, budget) =
        (most.saturating_sub(begun), usize::try_from(MIB_MAX).expect("small") << 20);
    assert!((budget / 4..=budget).contains(&taken), "{taken} of {budget}");
}

#[test]
fn windows_that_are_not_whole_are_left_out_by_who_takes_over() {
    let plan = short_plan();
    let mut fleet = fleet(&plan, begin(100));
    for (offset, window) in (100..).zip([50, 49, 51]) {
        fleet.take(
            offset,
            &match message("a", window, vec![refused(9, 1)]) {
                Message::Contacts(contacts) => contacts,
                other => panic!("{other:?}"),
            },
        );
    }
    let there: Vec<_> = fleet.windows.keys().map(|window| window - START_S).collect();
    assert_eq!((there, fleet.counts.late), (vec![50, 51], 0));
}

#[test]
fn a_partition_that_nobody_reads_holds_the_windows_up() {
    let plan = short_plan();
    let mut fleet = fleet(&plan, begin(0));
    fleet.caught_up();
    for (offset, message) in (0..).zip(&log(&[0], false)) {
        if !String::from_utf8_lossy(message).contains("\"clock\":{\"partition\":1") {
            fleet.read(offset, message, i64::MAX);
        }
        assert!(fleet.next_rows().is_none());
    }
    let clock = serde_json::to_vec(&clock(1, i64::MAX)).expect("JSON");
    fleet.read(100_000, &clock, i64::MAX);
    assert_eq!(given(&mut fleet).len() as u64, WINDOWS + 1);
}

#[test]
fn what_finds_no_room_or_comes_late_is_counted() {
    let plan = short_plan();
    let mut fleet = fleet(&plan, begin(0));
    fleet.caught_up();
    fleet.contacts_max = 10;
    let mut offset = 0;
    let mut read = |fleet: &mut Fleet, message: Message, now_ms| {
        fleet.read(offset, &serde_json::to_vec(&message).expect("JSON"), now_ms);
        offset += 1;
    };
    read(&mut fleet, message("a", 5, (0..15).map(|port| refused(9, port)).collect()), 0);
    assert_eq!((fleet.counts.taken, fleet.counts.contacts_full), (10, 5));
    for partition in 0..2 {
        read(&mut fleet, clock(partition, sent_ms(8)), i64::MAX);
    }
    assert_eq!(given(&mut fleet).len(), 2);
    assert_eq!(fleet.contacts, 0);
    read(&mut fleet, message("a", 5, vec![refused(9, 99)]), 0);
    assert_eq!(fleet.counts.late, 1);
    // The clock of a member that is an hour ahead.
    read(&mut fleet, clock(0, sent_ms(3_608)), sent_ms(8));
    assert_eq!((fleet.counts.clock_ahead, fleet.clocks[&0]), (1, sent_ms(8) + 100));
    for probe in 0..PROBES_MAX {
        read(&mut fleet, message(&format!("p{probe}"), 20, vec![refused(9, 1)]), 0);
    }
    assert_eq!((fleet.probes.len(), fleet.counts.probes_full), (PROBES_MAX, 1));
    read(&mut fleet, Message::Emitted { window: 0 }, 0);
    fleet.read(0, b"{", 0);
    assert_eq!(fleet.counts.malformed, 1);
}
