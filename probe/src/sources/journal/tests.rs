//! The journal on a real file: restarts, torn and changed files, a disk without room.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::inventory::{
    Attribute, ClassRules, Facts, Mac, SourceId, SourceKind, SourceName, Spaces, Statement, Store,
    StoreLimits, Uuid,
};
use crate::sources::requests::Taken;
use crate::sources::{Keeper, SourceHandle, SourceSpec};

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("vmprobe-journal-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn plan(&self) -> JournalPlan {
        let path = self.0.join("deep/inventory.journal");
        JournalPlan { path, bytes_max: 64 * MIB, free_bytes_min: 0 }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names() -> LineNames {
    let source = SourceName { kind: SourceKind::Api, name: "api".into(), rank: 0 };
    LineNames { sources: [source].into(), domains: vec!["default".to_owned()] }
}

/// A store that keeps a journal, as the keeper does.
struct Kept {
    store: Store,
    requests: Requests,
    journal: Journal,
    clock_ns: u64,
}

impl Kept {
    fn open(plan: JournalPlan) -> Self {
        let (journal, recovered) = Journal::open(plan, names()).expect("a journal");
        let sources = names().sources.to_vec();
        let limits = StoreLimits { facts_max: 32, ..StoreLimits::default() };
        let mut store = Store::new(limits, Spaces::default(), ClassRules::default(), sources);
        store.restore(recovered.restored);
        store.note_deltas();
        let mut kept = Self { store, requests: recovered.requests, journal, clock_ns: 1 };
        kept.turn(&[]);
        kept
    }

    fn turn(&mut self, notes: &[RequestNote]) {
        for note in notes {
            self.requests.note(note);
        }
        let deltas = self.store.take_deltas();
        self.journal.note(self.store.inventory().known(), &deltas, notes);
        self.clock_ns += ms(100);
        self.journal.turn(self.store.inventory(), &self.requests, self.clock_ns);
    }

    /// Until a file that is being written anew has its place.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.turn(&[]);
            if self.journal.rewrite.is_none() {
                return;
            }
        }
        panic!("it is never whole");
    }

    fn say(&mut self, vm: u128, at: u64, host: &str) {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let statement = Statement::new(Uuid(vm), Timestamp(at)).host(host).attached(mac, true);
        self.store.apply(SourceId(0), Timestamp(1_000 + at), statement.into());
        self.turn(&[]);
    }

    fn facts(&self) -> Vec<(Uuid, Facts)> {
        let entries = self.store.inventory().entries();
        entries.map(|(_, entry)| (entry.history.uuid, entry.facts.clone())).collect()
    }

    /// Ends without a word, as a process that is killed does.
    fn kill(self) -> Vec<(Uuid, Facts)> {
        self.facts()
    }
}

#[test]
fn what_was_known_is_known_again_after_a_kill() {
    let folder = Folder::new();
    let mut kept = Kept::open(folder.plan());
    kept.settle();
    kept.say(1, 5, "host1");
    kept.say(2, 6, "host1");
    kept.say(1, 9, "host2");
    let taken = Taken { digest: 3, known: Timestamp(4), changes: 2, stale: 0 };
    let key = Some(("k1".into(), taken));
    kept.turn(&[RequestNote { key, revisions: vec![(Uuid(2), 7)] }]);
    let known = kept.store.inventory().known();
    let facts = kept.kill();
    assert_eq!(facts.len(), 2);

    let again = Kept::open(folder.plan());
    assert_eq!(again.facts(), facts, "values, validity and knowledge");
    assert_eq!(again.store.inventory().known(), known);
    assert_eq!(again.requests.taken("k1"), Some(taken));
    assert_eq!(again.requests.revision(Uuid(2)), Some(7));
    let status = again.journal.status();
    assert_eq!((status.state, status.restored_vms, status.cut_bytes), (JournalState::Ok, 2, 0));
    assert_eq!(status.restored_facts, 6);
    let path = folder.plan().path;
    assert!(fs::read_to_string(&path).is_ok_and(|text| text.contains("\"host2\"")));
}

#[test]
fn a_torn_end_is_cut_and_the_rest_is_known() {
    let folder = Folder::new();
    let path = folder.plan().path;
    let mut kept = Kept::open(folder.plan());
    kept.settle();
    let mut states = vec![(fs::read(&path).expect("a file").len(), kept.facts())];
    for at in 0..4 {
        kept.say(at.into(), at + 5, "host1");
        states.push((fs::read(&path).expect("a file").len(), kept.facts()));
    }
    drop(kept);
    let whole = fs::read(&path).expect("a file");
    let expected = |octets: usize| {
        let last = states.iter().rev().find(|(length, _)| *length <= octets);
        last.map(|(_, facts)| facts.clone()).expect("the header at least")
    };
    let header = states[0].0;
    for octets in header..whole.len() {
        fs::write(&path, &whole[..octets]).expect("written");
        let again = Kept::open(folder.plan());
        assert_eq!(again.facts(), expected(octets), "{octets} octets");
        let cut = again.journal.status().cut_bytes;
        let boundary = states.iter().rev().find(|(length, _)| *length <= octets);
        assert_eq!(cut, (octets - boundary.expect("one").0) as u64);
    }
}

/// What is kept of damaged files, without the lines that say what it is.
fn kept(plan: &JournalPlan) -> Vec<u8> {
    let mut all = fs::read(beside(&plan.path, "cut")).unwrap_or_default();
    let mut octets = Vec::new();
    while let Some(end) = all.iter().position(|octet| *octet == b'\n') {
        let said: serde_json::Value = serde_json::from_slice(&all[..end]).expect("JSON");
        let bytes = usize::try_from(said["bytes"].as_u64().expect("a count")).expect("small");
        octets.extend_from_slice(&all[end + 1..end + 1 + bytes]);
        all.drain(..end + bytes + 2);
    }
    octets
}

#[test]
fn a_changed_octet_costs_its_entry_and_no_other() {
    let folder = Folder::new();
    let plan = folder.plan();
    let path = plan.path.clone();
    let mut kept_one = Kept::open(plan.clone());
    kept_one.settle();
    let header = fs::read(&path).expect("a file").len();
    let mut ends = vec![header];
    for vm in 0..4_u64 {
        kept_one.say(vm.into(), vm + 5, "host1");
        ends.push(fs::read(&path).expect("a file").len());
    }
    let all = kept_one.kill();
    let whole = fs::read(&path).expect("a file");
    for at in (header..whole.len()).step_by(7).chain(ends[1..].iter().map(|end| end - 1)) {
        let mut changed = whole.clone();
        changed[at] ^= 0x11;
        fs::write(&path, &changed).expect("written");
        let _ = fs::remove_file(beside(&path, "cut"));
        let mut again = Kept::open(plan.clone());
        // With the end of its line changed, the next entry is in the same line.
        let of = ends.iter().filter(|end| **end <= at).count() - 1;
        let lost = if ends[1..].contains(&(at + 1)) { of..=of + 1 } else { of..=of };
        let rest: Vec<_> =
            (0..4).filter(|vm| !lost.contains(vm)).map(|vm| all[vm].clone()).collect();
        assert_eq!(again.facts(), rest, "octet {at}");
        let status = again.journal.status();
        let (from, to) = (ends[of], ends[(lost.end() + 1).min(4)]);
        assert_eq!((status.cut_bytes, status.cut_places), ((to - from) as u64, 1));
        assert_eq!(status.state, JournalState::Ok);
        let error = status.last_error.expect("it is said");
        assert!(error.contains("inventory.journal.cut"), "{error}");
        assert!(status.cut_file.is_some_and(|file| file.ends_with("inventory.journal.cut")));
        assert_eq!(kept(&plan), &changed[from..to], "octet {at}");
        // The file is made sound, and it goes on.
        again.say(9, 50, "host9");
        again.settle();
        let facts = again.kill();
        let sound = Kept::open(plan.clone());
        assert_eq!(sound.facts(), facts);
        assert_eq!(sound.journal.status().cut_bytes, 0);
    }
}

#[test]
fn what_a_lost_entry_corrected_does_not_hold_beside_what_followed() {
    let folder = Folder::new();
    let path = folder.plan().path;
    let mut kept = Kept::open(folder.plan());
    kept.settle();
    let mut ends = Vec::new();
    for (at, host) in [(5, "host1"), (9, "host2"), (12, "host3")] {
        kept.say(1, at, host);
        ends.push(fs::read(&path).expect("a file").len());
    }
    drop(kept);
    let mut octets = fs::read(&path).expect("a file");
    octets[ends[0] + 20] ^= 1;
    fs::write(&path, octets).expect("written");
    let again = Kept::open(folder.plan());
    let [(_, facts)] = &*again.facts() else { panic!("one VM") };
    let hosts = facts.current().filter(|fact| fact.attribute == Attribute::Host);
    let mut valid: Vec<_> = hosts.map(|fact| (fact.valid.from.0, fact.valid.to.0)).collect();
    valid.sort_unstable();
    // The correction of host2 was in the entry that followed.
    assert_eq!(valid, [(5, 9), (9, 12), (12, u64::MAX)]);
}

#[test]
fn an_entry_of_many_lines_counts_without_the_one_that_is_damaged() {
    let folder = Folder::new();
    let path = folder.plan().path;
    let mut kept = Kept::open(folder.plan());
    kept.settle();
    let before = fs::read(&path).expect("a file").len();
    let long = "h".repeat(1_000);
    for vm in 0..1_000 {
        let statement = Statement::new(Uuid(vm), Timestamp(5)).host(long.as_str());
        kept.store.apply(SourceId(0), Timestamp(1_000), statement.into());
    }
    kept.turn(&[]);
    drop(kept);
    let octets = fs::read(&path).expect("a file");
    let lines: Vec<_> = octets[before..].split_inclusive(|octet| *octet == b'\n').collect();
    assert!(lines.len() > 3, "{}", lines.len());
    let vms = |line: &[u8]| String::from_utf8_lossy(line).matches("\"vm\"").count();
    let mut changed = octets.clone();
    changed[before + lines[0].len() + 50] ^= 1;
    fs::write(&path, &changed).expect("written");
    assert_eq!(Kept::open(folder.plan()).facts().len(), 1_000 - vms(lines[1]));
    // Without its last line it was never whole.
    let whole = octets.len() - lines[lines.len() - 1].len();
    fs::write(&path, &octets[..whole]).expect("written");
    let again = Kept::open(folder.plan());
    assert_eq!((again.facts().len(), again.journal.status().cut_places), (0, 1));
}

#[test]
fn nothing_is_written_over_what_is_damaged_before_that_is_kept() {
    let folder = Folder::new();
    let plan = folder.plan();
    let mut first = Kept::open(plan.clone());
    first.settle();
    let start = fs::read(&plan.path).expect("a file").len();
    for vm in 0..3 {
        first.say(vm, 5, "host1");
    }
    drop(first);
    let mut octets = fs::read(&plan.path).expect("a file");
    octets[start + 20] ^= 1;
    octets.extend(b"torn");
    fs::write(&plan.path, &octets).expect("written");
    let full = JournalPlan { free_bytes_min: u64::MAX, ..plan.clone() };
    let mut again = Kept::open(full);
    again.say(7, 9, "host7");
    assert_eq!(again.journal.status().state, JournalState::DiskFull);
    assert_eq!(fs::read(&plan.path).expect("a file"), octets, "as it was");
    again.journal.plan.free_bytes_min = 0;
    again.clock_ns += ms(RETRY_MS);
    again.settle();
    let status = again.journal.status();
    assert_eq!((status.state, status.cut_places), (JournalState::Ok, 2));
    assert!(kept(&plan).ends_with(b"torn"));
    let facts = again.kill();
    assert_eq!(Kept::open(plan).facts(), facts);
}

#[test]
fn what_is_kept_of_damaged_files_is_bounded() {
    let folder = Folder::new();
    let plan = folder.plan();
    drop(Kept::open(plan.clone()));
    let path = beside(&plan.path, "cut");
    let file = File::create(&path).expect("a file");
    file.set_len(cut::CUT_BYTES_MAX - 50).expect("a long file");
    let header = fs::read(&plan.path).expect("a file");
    fs::write(&plan.path, [&header[..], b"torn"].concat()).expect("written");
    drop(Kept::open(plan.clone()));
    let length = fs::metadata(&path).expect("a file").len();
    assert!(length < 1_000, "{length}: what was kept before has left");
    assert_eq!(kept(&plan), b"torn");
    fs::write(&plan.path, [&header[..], b"again"].concat()).expect("written");
    drop(Kept::open(plan.clone()));
    assert_eq!(kept(&plan), b"tornagain");
}

#[test]
fn other_files_are_refused_and_stay_as_they_are() {
    let folder = Folder::new();
    let plan = folder.plan();
    drop(Kept::open(plan.clone()));
    let header = |text: &str| format!("00000000 {text}\n");
    let newer = header("{\"kind\":\"vmprobe inventory journal\",\"version\":2}");
    let older = header("{\"kind\":\"vmprobe inventory journal\",\"version\":0}");
    for (text, what) in [
        (newer.as_str(), "is of version 2, and this vmprobe reads 1 at most"),
        (older.as_str(), "is no journal"),
        ("uuid,name\n1,web\n", "is no journal"),
        ("x", "is no journal"),
    ] {
        fs::write(&plan.path, text).expect("written");
        let refused = Journal::open(plan.clone(), names()).err().expect("refused").to_string();
        assert!(refused.contains(what) && refused.contains("inventory.journal:"), "{refused}");
        assert_eq!(fs::read_to_string(&plan.path).expect("a file"), text);
    }
    // An empty one holds nothing that could be lost.
    fs::write(&plan.path, "").expect("written");
    Kept::open(plan).settle();
}

#[test]
fn two_do_not_write_one_file() {
    let folder = Folder::new();
    let first = Kept::open(folder.plan());
    let refused = Journal::open(folder.plan(), names()).err().expect("refused").to_string();
    assert!(refused.contains("another process"), "{refused}");
    drop(first);
    Kept::open(folder.plan());
}

#[test]
fn the_file_stays_within_its_bound_and_tells_the_state() {
    let folder = Folder::new();
    let plan = JournalPlan { bytes_max: 96 << 10, ..folder.plan() };
    let mut kept = Kept::open(plan.clone());
    for round in 0..2_000_u64 {
        let host = if round / 8 % 2 == 0 { "host1" } else { "host2" };
        // The facts of a VM are bounded as well.
        kept.say(u128::from(round % 8), round + 5, host);
        assert!(fs::metadata(&plan.path).is_ok_and(|meta| meta.len() <= plan.bytes_max));
    }
    kept.settle();
    let status = kept.journal.status();
    assert_eq!(status.state, JournalState::Ok, "{status:?}");
    assert!(status.rewrites > 2, "{status:?}");
    let facts = kept.kill();
    assert_eq!(Kept::open(plan).facts(), facts);
}

#[test]
fn a_state_that_does_not_fit_is_said() {
    let folder = Folder::new();
    let plan = JournalPlan { bytes_max: 40 << 10, ..folder.plan() };
    let mut kept = Kept::open(plan.clone());
    for vm in 0..400 {
        kept.say(vm, 5, "host1");
    }
    let status = kept.journal.status();
    assert_eq!(status.state, JournalState::TooLarge, "{status:?}");
    assert!(fs::metadata(&plan.path).is_ok_and(|meta| meta.len() <= plan.bytes_max));
    drop(kept);
    // What the file holds is sound, and with more room all of what comes is kept.
    let mut again = Kept::open(folder.plan());
    assert!(!again.facts().is_empty() && again.journal.status().cut_bytes == 0);
    again.say(500, 6, "host1");
    let facts = again.kill();
    assert_eq!(Kept::open(folder.plan()).facts(), facts);
}

#[test]
fn without_room_on_the_disk_all_waits_and_is_written_later() {
    let folder = Folder::new();
    let mut kept = Kept::open(folder.plan());
    kept.settle();
    kept.say(1, 5, "host1");
    kept.journal.plan.free_bytes_min = u64::MAX;
    kept.say(2, 6, "host1");
    kept.say(3, 7, "host1");
    let status = kept.journal.status();
    assert_eq!((status.state, status.waiting_entries), (JournalState::DiskFull, 2));
    assert!(status.last_error.is_some_and(|error| error.contains("store.free_mib_min")));
    kept.journal.plan.free_bytes_min = 0;
    kept.clock_ns += ms(RETRY_MS);
    kept.turn(&[]);
    let status = kept.journal.status();
    assert_eq!((status.state, status.waiting_entries), (JournalState::Ok, 0));
    let facts = kept.kill();
    assert_eq!(Kept::open(folder.plan()).facts(), facts);
}

#[test]
fn what_cannot_wait_any_longer_is_written_with_the_whole_state() {
    let folder = Folder::new();
    let mut kept = Kept::open(folder.plan());
    kept.settle();
    kept.journal.plan.free_bytes_min = u64::MAX;
    let long = "h".repeat(1_000);
    let mut at = 0;
    while !kept.journal.gap {
        at += 1;
        kept.say(u128::from(at % 50), at, &format!("{long}{at}"));
        assert!(kept.journal.pending.len() <= PENDING_BYTES_MAX);
    }
    kept.journal.plan.free_bytes_min = 0;
    kept.clock_ns += ms(RETRY_MS);
    kept.say(77, 5, "while it is written anew");
    kept.settle();
    assert_eq!(kept.journal.status().state, JournalState::Ok);
    let facts = kept.kill();
    assert_eq!(Kept::open(folder.plan()).facts(), facts);
}

#[test]
fn what_becomes_known_while_it_is_written_anew_is_in_it() {
    let folder = Folder::new();
    let mut kept = Kept::open(folder.plan());
    kept.settle();
    let long = "h".repeat(1_000);
    for vm in 0..3_000 {
        let statement = Statement::new(Uuid(vm), Timestamp(5)).host(long.as_str());
        kept.store.apply(SourceId(0), Timestamp(1_000), statement.into());
    }
    kept.turn(&[]);
    kept.journal.gap = true;
    kept.turn(&[]);
    assert!(kept.journal.rewrite.is_some(), "more than one step");
    kept.say(1, 9, "host2");
    kept.say(5_000, 9, "host2");
    kept.settle();
    assert!(kept.journal.status().rewrites > 1);
    kept.say(2, 10, "host3");
    let facts = kept.kill();
    assert_eq!(Kept::open(folder.plan()).facts(), facts);
    // Left half written, it is nothing.
    let mut kept = Kept::open(folder.plan());
    kept.journal.gap = true;
    kept.turn(&[]);
    assert!(kept.journal.rewrite.is_some());
    drop(kept);
    assert_eq!(Kept::open(folder.plan()).facts(), facts);
}

/// The clock was ten years ahead for one run.
#[test]
fn a_clock_that_was_ahead_once_does_not_date_what_later_runs_know() {
    let folder = Folder::new();
    let start = || {
        let spec = SourceSpec {
            kind: SourceKind::Api,
            name: "api".to_owned(),
            rank: 0,
            stale_after_ms: None,
        };
        let (mut keeper, handles) =
            Keeper::new(&Arc::default(), vec![spec], Arc::default(), false, wall_clock());
        keeper.keep_journal(folder.plan()).expect("a journal");
        (keeper, handles)
    };
    let say = |keeper: &mut Keeper, handle: &SourceHandle, at: u64, host: &str, known| {
        let statement = Statement::new(Uuid(1), Timestamp(at)).host(host);
        handle.send(statement, known).expect("room");
        // And the journal, which is written anew first.
        for _ in 0..10 {
            keeper.turn(0);
        }
    };
    let facts = |keeper: &Keeper| -> Vec<Facts> {
        let entries = keeper.store().inventory().entries();
        entries.map(|(_, entry)| entry.facts.clone()).collect()
    };
    let text = || fs::read_to_string(folder.plan().path).expect("a journal");
    let far = wall_clock() + ms(10 * 365 * 86_400_000);
    let (mut keeper, handles) = start();
    say(&mut keeper, &handles[0], 5, "host1", far);
    say(&mut keeper, &handles[0], 9, "host2", far + 1);
    assert_eq!(facts(&keeper)[0].all().len(), 3, "one is known to be otherwise");
    drop((keeper, handles));
    assert!(text().contains(&far.0.to_string()));

    let (mut keeper, handles) = start();
    let skew_ns = StoreLimits::default().clock_skew_max_ns;
    assert!(keeper.store().inventory().known() <= wall_clock() + skew_ns);
    let restored = facts(&keeper);
    assert_eq!(restored[0].all().len(), 2);
    assert!(restored[0].all().iter().all(|fact| fact.known.from <= wall_clock()));
    say(&mut keeper, &handles[0], 12, "host3", wall_clock());
    let now = facts(&keeper);
    assert!(now[0].all().iter().all(|fact| fact.known.from <= wall_clock() + skew_ns));
    assert_eq!((now[0].current().count(), now[0].all().len()), (3, 4));
    drop((keeper, handles));
    assert!(!text().contains(&far.0.to_string()) && !text().contains(&(far + 1).0.to_string()));
    let (keeper, _handles) = start();
    assert_eq!(facts(&keeper), now, "as they were written");
}
