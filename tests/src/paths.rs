//! Captures of taps played back, and the table `path` added up, to be held against what a link logged.
//!
//! In: captures, rows of `path`. Out: records, [`Seen`] of the rows that are asked for.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use vmprobe::config::{self, Mode, Plan};

use crate::folder::Folder;
use crate::link::{Frame, Side, Truth};
use crate::records::{Row, number, rows, sum, text};
use crate::replaying::run;

/// Names of the taps at side A and side B.
const NAMES: [&str; 2] = ["a", "b"];

/// Plays captures back, each a tap named like its file (`tap-a.pcap` is `a`), with further lines of
/// configuration; the answer is the folder of the records.
pub fn played(folder: &Folder, captures: &[PathBuf], further: &str) -> PathBuf {
    played_in_order(folder, captures, captures, further)
}

/// The same with the files in another order than their taps are configured in.
pub fn played_in_order(
    folder: &Folder,
    captures: &[PathBuf],
    files: &[PathBuf],
    further: &str,
) -> PathBuf {
    play(folder, captures, files, (further, "records"))
}

/// The same with the records in a folder of that name.
pub fn played_into(folder: &Folder, captures: &[PathBuf], name: &str) -> PathBuf {
    play(folder, captures, captures, ("", name))
}

/// The plan of such a replay.
///
/// # Panics
/// If the further lines are no good configuration.
pub fn plan_of(folder: &Folder, captures: &[PathBuf], further: &str) -> Plan {
    let mut text = String::new();
    for capture in captures {
        let port = capture.file_stem().map(Path::new).expect("a name").display().to_string();
        let name = port.trim_start_matches("tap-");
        write!(text, "[[tap]]\nname = \"{name}\"\nmatch = {{ port = \"{port}\" }}\n")
            .expect("text can be written");
    }
    text += "[flow]\nslots_per_worker = 65536\n[window]\nrows_max = 65536\n\
             [serve]\nenabled = false\n";
    let file = folder.write("replay.toml", text + further);
    let mut plan = config::load(&file, Mode::Replay).expect("a good configuration").plan;
    plan.store.free_mib_min = 0;
    // So many that none is forgotten early, whatever the seed: what is counted is exact only then.
    plan.copies.slots = 1 << 22;
    plan
}

fn play(
    folder: &Folder,
    captures: &[PathBuf],
    files: &[PathBuf],
    (further, name): (&str, &str),
) -> PathBuf {
    let records = folder.path(name);
    let plan = plan_of(folder, captures, further);
    let report = run(plan, files, Some(&records)).expect("a replay").report;
    assert_eq!(report.ledger.unaccounted, 0);
    records
}

/// Counts and times that the truth knows too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Logical packets that were followed.
    pub sampled: u64,
    /// Seen at both taps.
    pub matched: u64,
    /// Seen at the later tap only.
    pub first_missed: u64,
    /// Lost between the taps.
    pub network: u64,
    /// Lost by the later tap's mirror.
    pub mirror: u64,
    /// Not seen at the later tap, without evidence.
    pub unresolved: u64,
    /// In no other count.
    pub ambiguous: u64,
    /// Packets with a time.
    pub delays: u64,
    /// Sum of these times.
    pub sum_ns: i64,
    /// The least of them; 0 where there is none.
    pub min_ns: i64,
    /// The largest.
    pub max_ns: i64,
}

impl Seen {
    /// Share lost between the taps: proven, and with what is unresolved; 0 without packets.
    #[expect(clippy::cast_precision_loss, reason = "counts of a test are far below 2^52")]
    pub fn loss(&self) -> (f64, f64) {
        let share = |lost: u64| lost as f64 / self.sampled.max(1) as f64;
        (share(self.network), share(self.network + self.unresolved))
    }

    /// Mean of the times; `None` without any.
    #[expect(clippy::cast_precision_loss, reason = "sums of a test are far below 2^52 ns")]
    pub fn mean_ns(&self) -> Option<f64> {
        (self.delays > 0).then(|| self.sum_ns as f64 / self.delays as f64)
    }
}

/// A column that may be negative.
///
/// # Panics
/// If the row has no number there.
pub fn signed(row: &Row, column: &str) -> i64 {
    row[column].as_i64().unwrap_or_else(|| panic!("{column}: {row:?}"))
}

/// What the chosen rows add up to.
pub fn seen(rows: &[Row], choose: impl Fn(&Row) -> bool) -> Seen {
    let of = |column: &str| sum(rows, column, &choose);
    let sampled: Vec<_> =
        rows.iter().filter(|row| choose(row) && number(row, "delay_sample_count") > 0).collect();
    let total = |row: &&&Row| {
        signed(row, "delay_mean_ns") * number(row, "delay_sample_count").cast_signed()
    };
    Seen {
        sampled: of("sampled_packet_count"),
        matched: of("matched_packet_count"),
        first_missed: of("first_tap_missed_packet_count"),
        network: of("network_loss_packet_count"),
        mirror: of("mirror_loss_packet_count"),
        unresolved: of("unresolved_loss_packet_count"),
        ambiguous: of("ambiguous_packet_count"),
        delays: of("delay_sample_count"),
        sum_ns: sampled.iter().map(|row| total(&row)).sum(),
        min_ns: sampled.iter().map(|row| signed(row, "delay_min_ns")).min().unwrap_or(0),
        max_ns: sampled.iter().map(|row| signed(row, "delay_max_ns")).max().unwrap_or(0),
    }
}

/// Whether a row is of a way between two taps: everybody's (`taps`) or some endpoints'.
pub fn is_way(row: &Row, scope: &str, from: &str, to: &str) -> bool {
    row["scope"] == scope && row["from_tap"] == from && row["to_tap"] == to
}

/// Whether a row is of what one sends to the other.
pub fn is_of(row: &Row, source: IpAddr, destination: IpAddr) -> bool {
    row["scope"] == "endpoints"
        && text(row, "source_address") == Some(&source.to_string())
        && text(row, "destination_address") == Some(&destination.to_string())
}

/// What is said, packet by packet, of those that one way's first tap alone showed. In each pair the
/// packets come first that the log says the same of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// The network's loss: truly, and what a mirror lost.
    pub as_network: [u64; 2],
    /// A mirror's loss: truly, and what the network lost.
    pub as_mirror: [u64; 2],
    /// Without evidence.
    pub open: u64,
    /// Of these, lost by the network.
    open_lost: u64,
}

impl Booked {
    /// Of the frames that `choose` takes, all of one direction, by the table `path_samples` of a replay of
    /// the link's captures. Frames without an identification may equal one another, and are left out.
    ///
    /// # Panics
    /// If a packet is said to be unseen at a tap that showed it.
    pub fn of(truth: &Truth, records: &Path, choose: impl Fn(&Frame) -> bool) -> Self {
        let samples = rows(records, "path_samples");
        let chosen = truth.frames.iter().filter(|frame| choose(frame) && frame.identification != 0);
        let shown = chosen.filter(|frame| frame.shown.entry > 0);
        let mut by_time: HashMap<_, Vec<&Frame>> = HashMap::new();
        for frame in shown {
            by_time.entry((frame.entered_ns, frame.source)).or_default().push(frame);
        }
        let key = |row: &Row| {
            let source = text(row, "source_address").and_then(|source| source.parse().ok());
            (number(row, "observation_time_ns"), source)
        };
        let digest = |row: &Row| number(row, "digest_hash_value");
        let tap = |side: Side| NAMES[side.place()];
        let shown_at: HashSet<_> =
            samples.iter().map(|row| (text(row, "tap"), digest(row))).collect();
        let mut booked = Self::default();
        for row in &samples {
            let Some(frames) = by_time.get_mut(&key(row)) else { continue };
            let Some(direction) = frames.first().map(|frame| frame.direction) else { continue };
            if row["tap"] != tap(direction.entry()) {
                continue;
            }
            let is_matched = shown_at.contains(&(Some(tap(direction.exit())), digest(row)));
            // Of two that entered at the same time.
            let is_it = |frame: &&Frame| (frame.shown.exit > 0) == is_matched;
            let place = frames.iter().position(is_it);
            let frame = frames.swap_remove(place.unwrap_or_else(|| panic!("{row:?} {frames:?}")));
            if is_matched {
                continue;
            }
            let is_lost = frame.is_lost();
            match text(row, "evidence").expect("a word") {
                "repeated" => booked.as_network[usize::from(!is_lost)] += 1,
                "acknowledged" => booked.as_mirror[usize::from(is_lost)] += 1,
                "none" => {
                    booked.open += 1;
                    booked.open_lost += u64::from(is_lost);
                }
                other => panic!("{other}: {frame:?}"),
            }
        }
        booked
    }

    /// What the network and the mirror lost by the log.
    pub const fn truly(&self) -> [u64; 2] {
        let Self { as_network, as_mirror, open, open_lost } = self;
        [
            as_network[0] + as_mirror[1] + *open_lost,
            as_mirror[0] + as_network[1] + *open - *open_lost,
        ]
    }

    /// Panics if more than one in a hundred of either is booked as the other.
    pub fn check(&self) {
        let [lost, unshown] = self.truly();
        assert!(self.as_network[1] * 100 <= unshown, "{self:?}");
        assert!(self.as_mirror[1] * 100 <= lost, "{self:?}");
    }
}
