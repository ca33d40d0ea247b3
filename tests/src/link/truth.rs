//! What the link did to each frame, and sums of it that a probe's figures can be held against.
//!
//! In: the log of a link. Out: [`Sums`] of a pair, a direction or all; both as files.
//! Cost: a pass over the log for each question.
//! Invariants: sums are made of the log alone; frames = lost + overflowed + passed + merged.
//! Source: reordered, RFC 4737 (a frame that a later one has overtaken); lost and delay, RFC 7680 and
//! RFC 7679.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::impairments::{Direction, Impairments, Side};
use super::packet::Headers;

/// Names of the two files.
const SUMS: &str = "truth.json";
const LOG: &str = "frames.jsonl";

/// How a frame ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is still under way.
    Waiting,
    /// The link lost it, by chance.
    Lost,
    /// The link lost it, because too many were under way.
    Overflowed,
    /// It left as it came.
    Passed,
    /// It left as a part of a frame with others.
    Merged,
}

/// How often a frame was shown by the two mirrors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// By the mirror where it entered.
    pub entry: u8,
    /// By the mirror where it left, by itself (twice as often if it left twice).
    pub exit: u8,
    /// By the mirror where it left, in a frame with others.
    pub merged: u8,
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Which way.
    pub direction: Direction,
    /// Number in that direction, from 0.
    pub number: u64,
    /// When it entered, at its own side's tap.
    pub entered_ns: u64,
    /// Octets on the wire, without FCS.
    pub frame_octets: u32,
    /// Octets of the innermost IP packet; `None`: no IP.
    pub ip_octets: Option<u32>,
    /// Who sent it.
    pub source: Option<IpAddr>,
    /// To whom.
    pub destination: Option<IpAddr>,
    /// Protocol number.
    pub protocol: Option<u8>,
    /// Ports, 0 where there are none.
    pub ports: (u16, u16),
    /// IPv4 identification, where there is one.
    pub identification: u16,
    /// TCP sequence number, if it is TCP.
    pub sequence: Option<u32>,
    /// Octets of its TCP payload.
    pub payload_octets: u32,
    /// The same for packets that only an identification could tell apart, where they have none; 0
    /// without IP.
    pub alike: u64,
    /// How it ended.
    pub fate: Fate,
    /// When it left first, at the other side's tap.
    pub left_ns: Option<u64>,
    /// When it left for the second time.
    pub left_again_ns: Option<u64>,
    /// When the exit's mirror first showed it by itself.
    pub shown_ns: Option<u64>,
    /// A later one had left before.
    pub reordered: bool,
    /// Number of the merged frame that it was a part of, in all of the link.
    pub merged_into: Option<u64>,
    /// How often the mirrors showed it.
    pub shown: Shown,
}

impl Frame {
    pub(super) fn new(
        direction: Direction,
        number: u64,
        entered_ns: u64,
        frame_octets: u32,
        headers: Option<&Headers>,
    ) -> Self {
        let tcp = headers.and_then(|headers| headers.tcp);
        Self {
            direction,
            number,
            entered_ns,
            frame_octets,
            ip_octets: headers.map(|headers| headers.ip_octets),
            source: headers.map(|headers| headers.source),
            destination: headers.map(|headers| headers.destination),
            protocol: headers.map(|headers| headers.protocol),
            ports: headers
                .map_or((0, 0), |headers| (headers.source_port, headers.destination_port)),
            identification: headers.map_or(0, |headers| headers.identification),
            sequence: tcp.map(|tcp| tcp.sequence),
            payload_octets: tcp.map_or(0, |tcp| tcp.payload_octets),
            alike: 0,
            fate: Fate::Waiting,
            left_ns: None,
            left_again_ns: None,
            shown_ns: None,
            reordered: false,
            merged_into: None,
            shown: Shown::default(),
        }
    }

    /// Whether the link lost it.
    pub const fn is_lost(&self) -> bool {
        matches!(self.fate, Fate::Lost | Fate::Overflowed)
    }

    /// Whether both mirrors showed it, by itself.
    pub const fn is_matched(&self) -> bool {
        self.shown.entry > 0 && self.shown.exit > 0 && self.merged_into.is_none()
    }

    /// Whether any mirror showed it, or the frame that it was merged into.
    pub const fn is_shown(&self) -> bool {
        self.shown.entry > 0 || self.shown.exit > 0 || self.shown.merged > 0
    }

    /// What a matched one took from tap to tap.
    pub fn delay_ns(&self) -> Option<u64> {
        let shown_ns = self.shown_ns.filter(|_| self.is_matched())?;
        Some(shown_ns.saturating_sub(self.entered_ns))
    }
}

/// Times from tap to tap of the frames that both taps showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delay {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum_ns: u64,
    /// The shortest; 0 where there is none.
    pub min_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Delay {
    /// Their mean; `None` where there is none.
    #[expect(clippy::cast_precision_loss, reason = "sums of a test are far below 2^52 ns")]
    pub fn mean_ns(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_ns as f64 / self.count as f64)
    }

    fn add(&mut self, delay_ns: u64) {
        self.min_ns = if self.count == 0 { delay_ns } else { self.min_ns.min(delay_ns) };
        self.max_ns = self.max_ns.max(delay_ns);
        self.count += 1;
        self.sum_ns += delay_ns;
    }
}

/// Sums over frames, and what a probe that sees both taps should say of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Frames that entered.
    pub frames: u64,
    /// Their octets, without FCS.
    pub frame_octets: u64,
    /// Of these, without IP; all that follow are IP packets.
    pub not_ip: u64,
    /// Lost by the link.
    pub lost: u64,
    /// Of these, shown where they entered: what can be known to be lost.
    pub lost_shown: u64,
    /// Left as they came.
    pub passed: u64,
    /// Left as parts of merged frames.
    pub merged: u64,
    /// Left twice.
    pub duplicated: u64,
    /// Overtaken by a later one.
    pub reordered: u64,
    /// Not lost by the link, but not shown where they entered.
    pub mirror_lost_entry: u64,
    /// Not lost by the link, but not shown where they left.
    pub mirror_lost_exit: u64,
    /// Shown by no mirror: a probe can know of them by their neighbours only.
    pub unseen: u64,
    /// The union of both taps: packets shown at least once.
    pub logical_packets: u64,
    /// IP octets of the union.
    pub logical_ip_octets: u64,
    /// Octets of the union, as innermost Ethernet header without tags and IP packet.
    pub logical_layer2_octets: u64,
    /// Packets of the union that only a merged frame showed, but for duplicates.
    pub only_merged: u64,
    /// Frames shown again at a tap that had shown them.
    pub duplicates: u64,
    /// Of these, of packets without an IPv4 identification: not all of them can be told from new
    /// packets.
    pub duplicates_without_identification: u64,
    /// Packets of the union without an IPv4 identification that one tap alone showed, while the other
    /// alone showed one that is alike: the two cannot be told from one packet and its copy.
    pub repeated_without_identification: u64,
    /// Their IP octets.
    pub repeated_ip_octets: u64,
    /// Frames (unmerged) shown at the exit that the entry had shown too.
    pub copies: u64,
    /// Merged frames shown at an exit, duplicates among them left out.
    pub merged_frames: u64,
    /// From tap to tap, unmerged frames.
    pub delay: Delay,
}

impl Sums {
    /// Lost by the link, of what entered with IP; 0 where nothing did.
    #[expect(clippy::cast_precision_loss, reason = "counts of a test are far below 2^52")]
    pub fn loss(&self) -> f64 {
        self.lost as f64 / (self.frames - self.not_ip).max(1) as f64
    }

    /// Frames that both mirrors showed: what a probe receives, but for what is not IP.
    pub const fn shown_frames(&self) -> u64 {
        self.logical_packets - self.only_merged + self.merged_frames + self.duplicates + self.copies
    }

    fn add(&mut self, frame: &Frame) {
        self.frames += 1;
        self.frame_octets += u64::from(frame.frame_octets);
        let Some(ip_octets) = frame.ip_octets.map(u64::from) else {
            self.not_ip += 1;
            return;
        };
        let Shown { entry, exit, merged } = frame.shown;
        self.lost += u64::from(frame.is_lost());
        self.lost_shown += u64::from(frame.is_lost() && entry > 0);
        self.passed += u64::from(frame.fate == Fate::Passed);
        self.merged += u64::from(frame.fate == Fate::Merged);
        self.duplicated += u64::from(frame.left_again_ns.is_some());
        self.reordered += u64::from(frame.reordered);
        if !frame.is_lost() {
            self.mirror_lost_entry += u64::from(entry == 0);
            self.mirror_lost_exit += u64::from(exit == 0 && merged == 0);
        }
        if frame.is_shown() {
            self.logical_packets += 1;
            self.logical_ip_octets += ip_octets;
            self.logical_layer2_octets += ip_octets + 14;
        } else {
            self.unseen += 1;
        }
        self.only_merged += u64::from(entry == 0 && merged > 0);
        // What left by itself although it left in a merged frame too is there again.
        let exit_first = u64::from(exit > 0 && merged == 0);
        let duplicates = u64::from(entry.saturating_sub(1)) + (u64::from(exit) - exit_first);
        self.duplicates += duplicates;
        self.duplicates_without_identification +=
            if frame.identification == 0 { duplicates } else { 0 };
        self.copies += u64::from(entry > 0) * exit_first;
        if let Some(delay_ns) = frame.delay_ns() {
            self.delay.add(delay_ns);
        }
    }
}

/// Packets that are alike, of those shown.
#[derive(Clone, Copy, Debug, Default)]
struct Alike {
    shown: u64,
    /// By the mirror where they entered.
    entry: u64,
    /// By the mirror where they left.
    exit: u64,
    /// Of each.
    ip_octets: u32,
}

impl Alike {
    fn add(&mut self, frame: &Frame) {
        self.shown += 1;
        self.entry += u64::from(frame.shown.entry > 0);
        self.exit += u64::from(frame.shown.exit > 0 || frame.shown.merged > 0);
        self.ip_octets = frame.ip_octets.unwrap_or(0);
    }

    /// Those that go unnoticed where packets are known by their likeness alone: there were at least as
    /// many as one tap showed.
    fn repeated(&self) -> u64 {
        self.shown - self.entry.max(self.exit)
    }
}

/// What one mirror gave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapSums {
    /// Frames at the tap, before its mirror.
    pub offered: u64,
    /// Of these, lost by the mirror.
    pub lost: u64,
    /// Of these, given out twice.
    pub doubled: u64,
    /// Given out.
    pub shown: u64,
    /// Octets of these on the wire, a mirror's tag among them.
    pub shown_octets: u64,
    /// Of those given out, without IP.
    pub shown_not_ip: u64,
    /// Of those given out, cut short.
    pub shown_cut: u64,
}

/// All that a link did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    /// What chance was drawn from.
    pub seed: u64,
    /// What it was told to do.
    pub impairments: Impairments,
    /// Each frame, in the order in which they came.
    pub frames: Vec<Frame>,
    /// Each mirror.
    pub taps: [TapSums; 2],
}

#[derive(Serialize, Deserialize)]
struct Summary {
    seed: u64,
    impairments: Impairments,
    taps: [TapSums; 2],
    total: Sums,
    by_direction: BTreeMap<Direction, Sums>,
    by_pair: BTreeMap<String, Sums>,
}

impl Truth {
    /// Sums over the frames that `choose` takes.
    pub fn of(&self, mut choose: impl FnMut(&Frame) -> bool) -> Sums {
        let mut sums = Sums::default();
        let mut merged: HashMap<u64, u8> = HashMap::new();
        let mut alike: HashMap<u64, Alike> = HashMap::new();
        for frame in self.frames.iter().filter(|frame| choose(frame)) {
            sums.add(frame);
            if frame.identification == 0 && frame.ip_octets.is_some() && frame.is_shown() {
                alike.entry(frame.alike).or_default().add(frame);
            }
            if let Some(number) = frame.merged_into.filter(|_| frame.shown.merged > 0) {
                merged.insert(number, frame.shown.merged);
            }
        }
        for alike in alike.values() {
            sums.repeated_without_identification += alike.repeated();
            sums.repeated_ip_octets += alike.repeated() * u64::from(alike.ip_octets);
        }
        sums.merged_frames = merged.len() as u64;
        sums.duplicates += merged.values().map(|shown| u64::from(*shown) - 1).sum::<u64>();
        sums
    }

    /// Sums over all.
    pub fn total(&self) -> Sums {
        self.of(|_| true)
    }

    /// Sums over a direction.
    pub fn direction(&self, direction: Direction) -> Sums {
        self.of(|frame| frame.direction == direction)
    }

    /// Sums over what one address sent to another.
    pub fn pair(&self, source: IpAddr, destination: IpAddr) -> Sums {
        self.of(|frame| (frame.source, frame.destination) == (Some(source), Some(destination)))
    }

    /// All pairs of addresses, sender first, in order.
    pub fn pairs(&self) -> Vec<(IpAddr, IpAddr)> {
        let mut pairs: Vec<_> =
            self.frames.iter().filter_map(|frame| frame.source.zip(frame.destination)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }

    /// Mean time from tap to tap of what one address sent to another, of the packets that both taps
    /// showed unmerged; without the taps' clock offsets.
    pub fn mean_delay_ns(&self, source: IpAddr, destination: IpAddr) -> Option<f64> {
        self.pair(source, destination).delay.mean_ns()
    }

    /// The single times of it, in the order in which the packets came.
    pub fn delays_ns(&self, source: IpAddr, destination: IpAddr) -> Vec<u64> {
        let pair = (Some(source), Some(destination));
        let of_pair = self.frames.iter().filter(|frame| (frame.source, frame.destination) == pair);
        of_pair.filter_map(Frame::delay_ns).collect()
    }

    /// Share of what one address sent to another that the link lost, whatever the mirrors showed.
    pub fn loss(&self, source: IpAddr, destination: IpAddr) -> f64 {
        self.pair(source, destination).loss()
    }

    /// TCP segments with payload that one address sent to another, that the link lost after their
    /// entry was shown, and of which the sender later sent a segment with the same first octet: a
    /// loss that two taps can prove.
    pub fn lost_repeated(&self, source: IpAddr, destination: IpAddr) -> u64 {
        let key = |frame: &Frame| {
            let is_data = frame.payload_octets > 0;
            let is_pair = (frame.source, frame.destination) == (Some(source), Some(destination));
            frame.sequence.filter(|_| is_data && is_pair).map(|sequence| (frame.ports, sequence))
        };
        let mut last = HashMap::new();
        for (place, frame) in self.frames.iter().enumerate() {
            last.extend(key(frame).map(|key| (key, place)));
        }
        let is_proven = |(place, frame): &(usize, &Frame)| {
            let later = key(frame).and_then(|key| last.get(&key));
            frame.is_lost() && frame.shown.entry > 0 && later.is_some_and(|later| later > place)
        };
        self.frames.iter().enumerate().filter(is_proven).count() as u64
    }

    /// TCP segments with payload whose first octet their sender had sent before, and that a mirror showed:
    /// what may be counted as retransmissions.
    pub fn sent_again(&self) -> u64 {
        let mut next: HashMap<_, u32> = HashMap::new();
        let is_again = |frame: &&Frame| {
            let Some(begin) = frame.sequence.filter(|_| frame.payload_octets > 0) else {
                return false;
            };
            let end = begin.wrapping_add(frame.payload_octets);
            let known = next.entry((frame.source, frame.ports)).or_insert(begin);
            let is_again = begin.wrapping_sub(*known).cast_signed() < 0;
            if end.wrapping_sub(*known).cast_signed() > 0 {
                *known = end;
            }
            is_again && frame.is_shown()
        };
        self.frames.iter().filter(is_again).count() as u64
    }

    /// How far the exit's clock is ahead of the entry's: what a tap-to-tap time in the captures has
    /// beside the delay.
    pub fn offset_ns(&self, direction: Direction) -> i64 {
        let of = |tap: Side| self.impairments.mirror(tap).offset_ns;
        of(direction.exit()) - of(direction.entry())
    }

    /// Stamp of the first copy of a frame in the captures, alone or in a frame with others; `None`: no
    /// mirror showed it.
    pub fn first_stamp_ns(&self, frame: &Frame) -> Option<u64> {
        let stamp = |tap: Side, at_ns: u64| {
            at_ns.saturating_add_signed(self.impairments.mirror(tap).offset_ns)
        };
        let at_entry = (frame.shown.entry > 0).then_some(frame.entered_ns);
        let at_exit = frame.shown_ns.or(frame.left_ns.filter(|_| frame.shown.merged > 0));
        let entry = at_entry.map(|at_ns| stamp(frame.direction.entry(), at_ns));
        let exit = at_exit.map(|at_ns| stamp(frame.direction.exit(), at_ns));
        entry.into_iter().chain(exit).min()
    }

    /// Writes `truth.json`, the sums, and `frames.jsonl`, one line for each frame.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let pair = |(source, destination): (IpAddr, IpAddr)| {
            (format!("{source} > {destination}"), self.pair(source, destination))
        };
        let summary = Summary {
            seed: self.seed,
            impairments: self.impairments.clone(),
            taps: self.taps,
            total: self.total(),
            by_direction: Direction::BOTH.map(|way| (way, self.direction(way))).into(),
            by_pair: self.pairs().into_iter().map(pair).collect(),
        };
        fs::write(folder.join(SUMS), serde_json::to_string_pretty(&summary)? + "\n")?;
        let mut out = BufWriter::new(File::create(folder.join(LOG))?);
        for frame in &self.frames {
            serde_json::to_writer(&mut out, frame)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Reads what [`Truth::write`] wrote.
    ///
    /// # Errors
    /// What the file system says, and `InvalidData` where a file is not as it was written.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let summary: Summary = serde_json::from_str(&fs::read_to_string(folder.join(SUMS))?)?;
        let lines = BufReader::new(File::open(folder.join(LOG))?).lines();
        let frames = lines.map(|line| Ok(serde_json::from_str(&line?)?));
        let frames = frames.collect::<io::Result<Vec<Frame>>>()?;
        let Summary { seed, impairments, taps, total, .. } = summary;
        let truth = Self { seed, impairments, frames, taps };
        if truth.total() != total {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "log and sums differ"));
        }
        Ok(truth)
    }
}
