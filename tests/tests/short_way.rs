//! Packets that are known in brief give the same messages as if all of their headers were read.
//!
//! Two workers get the same frames. One of them has a filter that never matches, so that it reads all
//! headers of every packet. All that they tell the aggregator is the same, in order.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use vmprobe::capture::{Burst, Frame, LinkType, Source, SourceState, StrippedVlan};
use vmprobe::config::{FilterPlan, Plan, TapMatch, TapPlan};
use vmprobe::copies::CopyTable;
use vmprobe::index::PortIndex;
use vmprobe::runtime::Build;
use vmprobe::spread::HashSeed;
use vmprobe::time::Timestamp;
use vmprobe::window::{FromWorker, HandoffReceiver, handoff};
use vmprobe::worker::{Turn, Worker, WorkerParts};
use vmprobe_tests::odd_traffic::{Mirror, Record, Traffic};
use vmprobe_tests::random::Random;

const ROUNDS: u64 = 160;
const RECORDS: usize = 1_000;

/// How rare oddities are, in turn.
const CALM: [u64; 3] = [1, 5, 30];

const PORTS: [&str; 3] = ["a", "b", "c"];
const BLOCKS: usize = 256;

/// Of IP protocol numbers one for experiments, which no frame has (RFC 3692).
const NO_PROTOCOL: u8 = 254;

/// Frames in bursts of given sizes; counts how often each is asked for.
struct Bursts {
    records: Rc<[Record]>,
    asked: Rc<[Cell<u32>]>,
    sizes: Vec<usize>,
    ports: Vec<String>,
    begin: usize,
    polls: usize,
    now: Timestamp,
    is_live: bool,
}

struct Part<'a>(&'a [Record], &'a [Cell<u32>], &'a [String]);

impl Burst for Part<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn frame(&self, place: usize) -> Frame<'_> {
        self.1[place].update(|times| times + 1);
        let record = &self.0[place];
        let stripped = |outer_tci| StrippedVlan { outer_tci, inner_tci: None };
        Frame {
            bytes: &record.bytes,
            wire_octets: record.wire_octets,
            timestamp: Timestamp(record.at_ns),
            link: LinkType::Ethernet,
            port: PortIndex(record.port),
            stripped_vlan: record.stripped_tci.map(stripped),
        }
    }

    fn port_names(&self) -> &[String] {
        self.2
    }
}

impl Source for Bursts {
    type Burst<'a> = Part<'a>;

    fn is_live(&self) -> bool {
        self.is_live
    }

    fn poll(&mut self) -> (Part<'_>, SourceState) {
        let size = self.sizes[self.polls % self.sizes.len()];
        self.polls += 1;
        let end = self.records.len().min(self.begin + size);
        let range = std::mem::replace(&mut self.begin, end)..end;
        let records = &self.records[range.clone()];
        for record in records {
            self.now = self.now.max(Timestamp(record.at_ns));
            let known = self.ports.len();
            let new = PORTS.iter().take(usize::from(record.port) + 1).skip(known);
            self.ports.extend(new.map(|name| (*name).to_owned()));
        }
        if self.is_live && self.polls.is_multiple_of(3) {
            self.now = Timestamp(self.now.0 + 7_000_000);
        }
        let has_ended = end == self.records.len();
        let state = if has_ended { SourceState::Ended } else { SourceState::Open(self.now) };
        (Part(records, &self.asked[range], &self.ports), state)
    }
}

/// What one round is about.
struct Round {
    plan: Plan,
    records: Rc<[Record]>,
    sizes: Vec<usize>,
    waits: bool,
    mirror: Mirror,
    /// As `bench --features flow`: of a settled packet nothing but its brief is read, neither copies
    /// nor measures nor applications look at what stands in its headers and payload.
    flow_alone: bool,
    open_blocks: usize,
}

impl Round {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let calm = CALM[usize::try_from(seed).expect("small") % CALM.len()];
        let ports = 1 + random.below(PORTS.len() as u64);
        // Of half of the rounds none.
        let place = usize::try_from(seed / 3).expect("small");
        let mirror = Mirror::ALL.get(place % 8).copied().unwrap_or_default();
        let largest = if calm == 1 { 4 } else { 64 };
        Self {
            plan: plan(&mut random),
            waits: random.one_in(2),
            flow_alone: seed % 4 == 3,
            sizes: (0..7).map(|_| 1 + usize::from(random.octet_below(largest))).collect(),
            open_blocks: 1 + usize::from(random.octet_below(3)),
            records: Traffic::new(random, calm, ports).mirrored(mirror).records(RECORDS).into(),
            mirror,
        }
    }

    /// All messages of a worker with `plan`, and how often it asked for each frame.
    fn run(&self, plan: &Plan) -> (Vec<String>, Rc<[Cell<u32>]>) {
        let (parts, receiver) = self.parts(plan);
        let asked: Rc<[Cell<u32>]> = self.records.iter().map(|_| Cell::new(0)).collect();
        let source = Bursts {
            records: Rc::clone(&self.records),
            asked: Rc::clone(&asked),
            sizes: self.sizes.clone(),
            ports: Vec::new(),
            begin: 0,
            polls: 0,
            now: Timestamp::ZERO,
            is_live: !self.waits,
        };
        let mut worker = Worker::new(Some(source), parts);
        let mut told = Vec::new();
        if !self.waits {
            while worker.turn() != Turn::Ended {
                take(&receiver, &mut told);
            }
        }
        // From here on the worker waits for room, so another thread has to make it.
        let taker = std::thread::spawn(move || {
            while !take(&receiver, &mut told) {
                std::thread::yield_now();
            }
            told
        });
        while worker.turn() != Turn::Ended {}
        worker.finish();
        assert_eq!(worker.totals().unaccounted(), 0, "packets are lost");
        (taker.join().expect("it takes all"), asked)
    }

    /// The same for both workers, chance included.
    fn parts(&self, plan: &Plan) -> (WorkerParts, HandoffReceiver) {
        let plan = Arc::new(plan.clone());
        let mut build = Build::new(&plan, None, &[], (1, 1), self.waits);
        let mut parts = build.seats.remove(0).parts();
        let known = plan.taps.iter().map(|tap| tap.duplicates).collect();
        parts.seed = HashSeed::fixed();
        if self.flow_alone {
            (parts.copies, parts.path) = (None, None);
            parts.flows = parts.flows.without_measures();
        } else {
            parts.copies = Some(CopyTable::new(&plan.copies, HashSeed::fixed(), known));
        }
        let (sender, receiver) = handoff(BLOCKS, self.open_blocks, self.waits);
        let sender = sender.with_excerpts();
        parts.handoff = if parts.path.is_some() { sender.with_paths() } else { sender };
        (parts, receiver)
    }
}

/// Small tables and short times, so that flows end and leave in every way.
fn plan(random: &mut Random) -> Plan {
    let mut plan = Plan::default();
    plan.flow.slots_per_worker = random.pick(&[4, 8, 64, 256]);
    plan.flow.idle_tcp_ms = 3_000;
    plan.flow.idle_other_ms = 1_000;
    plan.flow.closed_ms = 200;
    plan.flow.active_ms = 4_000;
    plan.window.length_ms = random.pick(&[100, 1_000, 10_000]);
    plan.window.grace_ms = random.pick(&[0, 100, 1_000]);
    plan.copies.remove = random.one_in(2);
    plan.copies.slots = 1_024;
    plan.path.enabled = random.one_in(2);
    plan.path.sample_one_in = random.pick(&[1, 4, 16]);
    plan.path.slots = 1_024;
    plan.decode.fragment_slots = 1_024;
    plan.decode.fragment_timeout_ms = 500;
    if random.one_in(2) {
        let duplicates = random.one_in(2);
        plan.taps = vec![tap("a", false), tap("b", duplicates)];
    }
    if random.one_in(2) {
        plan.taps.extend(taps_of_mirrors());
    }
    plan
}

/// Taps that claim what some mirrors send.
fn taps_of_mirrors() -> impl Iterator<Item = TapPlan> {
    let any = TapMatch::default();
    let all = [
        TapMatch { vlan: Some(100), ..any.clone() },
        TapMatch { erspan_session: Some(5), ..any.clone() },
        TapMatch { gre_key: Some(7), ..any },
    ];
    all.into_iter().zip(["vlan", "session", "key"]).map(|(matches, name)| TapPlan {
        name: name.to_owned(),
        matches,
        ..TapPlan::default()
    })
}

fn tap(port: &str, duplicates: bool) -> TapPlan {
    TapPlan {
        name: port.to_owned(),
        matches: TapMatch { port: Some(port.to_owned()), ..TapMatch::default() },
        duplicates,
        ..TapPlan::default()
    }
}

/// Writes down all messages that have come; `true` after the last.
fn take(receiver: &HandoffReceiver, told: &mut Vec<String>) -> bool {
    let mut has_ended = false;
    while let Some(message) = receiver.take() {
        has_ended |= matches!(message, FromWorker::Ended(_));
        write(&message, told);
        receiver.give_back(message);
    }
    has_ended
}

fn write(message: &FromWorker, told: &mut Vec<String>) {
    match message {
        FromWorker::Rows(block) => {
            told.push(format!("rows {:?} {}", block.window, block.sampling_rate));
            told.extend(block.rows.iter().map(|row| format!("row {row:?}")));
            told.extend(block.notes.iter().map(|note| format!("{note:?} {:?}", note.read())));
        }
        FromWorker::Flows(block) => told.extend(block.flows().iter().map(|flow| {
            let flow = flow.told();
            let totals = block.totals.get(flow.totals as usize);
            format!("flow {flow:?} {totals:?}")
        })),
        FromWorker::Late(rows) => told.push(format!("late {rows:?}")),
        FromWorker::Paths(paths) => told.extend(paths.iter().map(|path| format!("{path:?}"))),
        FromWorker::Excerpts(block) => {
            told.extend(block.iter().map(|(excerpt, octets)| format!("{excerpt:?} {octets:?}")));
        }
        FromWorker::Closed(window, snapshot) => {
            told.push(format!("closed {window:?} {snapshot:?}"));
        }
        FromWorker::Ended(snapshot) => told.push(format!("ended {snapshot:?}")),
    }
}

/// Packets that one worker asked for at most half as often as the other, which reads all headers of each:
/// when their turn came, nobody asked again. What stands in a tunnel is looked at twice.
fn taken_shortly(asked: &[Cell<u32>], in_full: &[Cell<u32>], mirror: Mirror) -> usize {
    let twice = u32::from(mirror != Mirror::Port);
    let is_short = |times: u32, in_full: u32| 2 * times.saturating_sub(twice) <= in_full;
    asked
        .iter()
        .zip(in_full)
        .filter(|(times, in_full)| is_short(times.get(), in_full.get()))
        .count()
}

#[test]
fn the_short_way_and_the_long_one_tell_the_same() {
    let (mut packets, mut shortly, mut named) = ([0; 2], [0; 2], [false; 2]);
    let mut of_mirrors = [(0, 0); Mirror::ALL.len()];
    for seed in 0..ROUNDS {
        let round = Round::new(seed);
        let (short, asked) = round.run(&round.plan);
        let filter = FilterPlan { protocol: Some(NO_PROTOCOL), ..FilterPlan::default() };
        let (long, asked_long) = round.run(&Plan { filters: vec![filter], ..round.plan.clone() });
        if let Some(at) = (0..short.len().max(long.len())).find(|&at| short.get(at) != long.get(at))
        {
            panic!(
                "seed {seed}, message {at}:\nshort {:#?}\nlong {:#?}",
                short.get(at),
                long.get(at)
            );
        }
        let first = asked_long[0].get();
        assert!(asked_long.iter().all(|times| times.get() == first), "seed {seed}: a filter");
        let which = usize::from(round.flow_alone);
        let count = taken_shortly(&asked, &asked_long, round.mirror);
        shortly[which] += count;
        packets[which] += round.records.len();
        let of_mirror = &mut of_mirrors[round.mirror as usize];
        *of_mirror = (of_mirror.0 + count, of_mirror.1 + round.records.len());
        named[which] |= short.iter().any(|told| told.contains("application: Http"));
    }
    assert_eq!(named, [true, false], "of flows alone nobody looks at payload");
    for (shortly, packets) in shortly.iter().zip(packets) {
        assert!(*shortly > packets / 10, "{shortly} of {packets} took the short way");
    }
    for ((shortly, packets), mirror) in of_mirrors.iter().zip(Mirror::ALL) {
        assert!(*shortly > packets / 10, "{mirror:?}: {shortly} of {packets} took the short way");
    }
}
