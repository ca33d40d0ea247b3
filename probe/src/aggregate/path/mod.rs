//! Delay and loss between taps, by window: for each pair of taps, and for each pair of endpoints.
//!
//! In: trajectories of all workers. Out: a [`PathView`] a window.
//! Cost: a look-up a trajectory; a histogram for each pair of endpoints while a window is open.
//! Invariants: a window is given out when every packet of it has its verdict, in order; a loss
//! is stated only where other packets of the same endpoints passed both taps, lately or soon after.
//! Which worker a packet was at shows in nothing.
//! Source: the definitions, docs/measures.md; offset from both directions, as in RFC 5905 section 8.

mod delays;
mod expect;
mod history;
mod moves;
mod noise;
mod places;
mod silence;
mod stations;
mod window;

pub use delays::{Delays, Ranks};
pub use moves::Move;

use std::collections::BTreeMap;

use crate::aggregate::ConversationKey;
use crate::config::Plan;
use crate::decode::protocol;
use crate::index::{TapIndex, WindowNumber};
use crate::measure::histogram::{Dense, Sparse};
use crate::path::{Ends, Trajectory};
use crate::time::{Timestamp, ms};

use expect::Taken;
use history::{History, Least, Way};
use moves::{Moves, Sent};
use noise::Noise;
pub use places::Stands;

use places::Places;
use silence::Pasts;
use stations::Stations;
use window::{Counts, Order, Pair, Window};

/// Sightings of a window that become records at most, if they are asked for.
const SAMPLES_MAX: usize = 1 << 18;

/// Answers in a window that a tap can hardly lose all of.
const ANSWERS_MIN: u64 = 4;

/// What is left of a sweep of a worker when a window closes, at most.
const SWEEP_NS: u64 = ms(2_000);

/// For how long it is remembered when packets were seen.
pub const PAST_NS: u64 = ms(12_000);

/// Windows whose stations wait for the window's packets.
const STATIONS_WINDOWS_MAX: usize = 1_024;

/// Packets of one way between two taps, selected ones only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounts {
    /// Seen at both.
    pub matched: u64,
    /// Of these, at the second in frames that were cut otherwise, so without a time.
    pub recut: u64,
    /// Seen at the second only: the mirror of the first did not show them.
    pub first_missed: u64,
    /// Seen at the first only, and repeated by the sender.
    pub network: u64,
    /// Seen at the first only, and acknowledged, or seen further on.
    pub mirror: u64,
    /// Seen at the first only, without evidence.
    pub unresolved: u64,
    /// Of the matched ones, shown without a segment by one tap and with one by the other.
    pub stripped: u64,
    /// Can't be told apart from others; in no other count.
    pub ambiguous: u64,
}

impl PathCounts {
    /// Logical packets of this direction.
    pub const fn total(&self) -> u64 {
        self.matched + self.first_missed + self.network + self.mirror + self.unresolved
    }

    /// Share that was lost between the taps: proven, and with what is unresolved.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn loss(&self) -> Option<(f64, f64)> {
        let total = self.total();
        let share = |lost: u64| lost as f64 / total as f64;
        (total > 0).then(|| (share(self.network), share(self.network + self.unresolved)))
    }

    /// Adds all counts of another.
    pub fn add(&mut self, other: &Self) {
        self.matched += other.matched;
        self.recut += other.recut;
        self.first_missed += other.first_missed;
        self.network += other.network;
        self.mirror += other.mirror;
        self.unresolved += other.unresolved;
        self.ambiguous += other.ambiguous;
        self.stripped += other.stripped;
    }
}

/// Whether taps show both directions: of the pairs of endpoints whose TCP packets took a way, and whose
/// answers some tap showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Pairs with at least [`ANSWERS_MIN`] answers.
    pub pairs: u64,
    /// Of these, those of which the first tap showed no answer.
    pub unseen_first: u64,
    /// Of these, those of which the later tap showed no answer.
    pub unseen_later: u64,
}

impl Answers {
    fn add(&mut self, way: Way, answers: &Counts) {
        if answers.packets() >= ANSWERS_MIN {
            self.pairs += 1;
            self.unseen_first += u64::from(!answers.is_shown_by(way.0));
            self.unseen_later += u64::from(!answers.is_shown_by(way.1));
        }
    }
}

/// Times from the first tap to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathDelay {
    /// Samples.
    pub count: u64,
    /// Their mean.
    pub mean_ns: i64,
    /// The least.
    pub min_ns: i64,
    /// The largest.
    pub max_ns: i64,
    /// Percentiles 50, 90 and 99.
    pub percentiles_ns: [i64; 3],
    /// The least of the last 60 s.
    pub base_ns: i64,
}

impl PathDelay {
    fn of<H: Ranks>(delays: &Delays<H>, base_ns: Option<i64>) -> Option<Self> {
        let percentile = |per_mille| delays.percentile_ns(per_mille);
        Some(Self {
            count: delays.count,
            mean_ns: delays.mean_ns()?,
            min_ns: delays.min_ns,
            max_ns: delays.max_ns,
            percentiles_ns: [percentile(500)?, percentile(900)?, percentile(990)?],
            base_ns: base_ns.unwrap_or(delays.min_ns),
        })
    }
}

/// How far the second tap's clock is ahead of the first's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Estimate: exact where both directions take the same least time.
    pub offset_ns: i64,
    /// It is off by no more than this, as no packet arrives before it was sent.
    pub bound_ns: u64,
}

/// A way between two taps, of everybody or of one pair of endpoints.
#[derive(Clone, Copy, Debug)]
pub struct PathRow {
    /// Whose packets; `None`: everybody's.
    pub ends: Option<Ends>,
    /// Tap that they pass first.
    pub from: TapIndex,
    /// Tap that they pass later.
    pub to: TapIndex,
    /// How many.
    pub counts: PathCounts,
    /// Whether the taps show the answers; `None` of one pair of endpoints.
    pub answers: Option<Answers>,
    /// How long; `None` without samples.
    pub delay: Option<PathDelay>,
    /// The clocks, from both directions of everybody's packets; `None` with one direction.
    pub offset: Option<ClockOffset>,
}

/// Delay and loss of one window.
pub struct PathView {
    /// First instant.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
    /// Ways in order of their taps; everybody's first.
    pub rows: Vec<PathRow>,
    /// Each packet, if asked for.
    pub samples: Vec<Trajectory>,
    /// Selected packets that came too late for their own window.
    pub late_packets: u64,
    /// Selected packets that found no room.
    pub full_packets: u64,
    /// Selected packets that found no room among the samples; they are in all counts.
    pub full_samples: u64,
    /// Who moved to another tap.
    pub moves: Vec<Move>,
    /// Selected packets of which it was not kept when they were seen: silences may be too long.
    pub full_times: u64,
    /// What was not remembered of endpoints.
    pub forgotten: Forgotten,
}

/// Endpoints beyond those of which something is remembered; those that are there go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Ways of pairs of endpoints: of their next windows it is not known which ways they take.
    pub ways: u64,
    /// Where endpoints stood: it is asked where to expect packets of who has moved.
    pub places: u64,
    /// Network cards of senders in conversations: these cannot be seen to move.
    pub stations: u64,
}

/// What windows that are not given out hold, by what takes memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Windows.
    pub windows: usize,
    /// Pairs of endpoints, in each window.
    pub ends: usize,
    /// Packets.
    pub packets: usize,
}

/// Windows that wait for verdicts, and what is known of ways.
pub struct Paths {
    windows: BTreeMap<WindowNumber, Window>,
    next: WindowNumber,
    length_ns: u64,
    /// Windows until the last packet of one has its verdict.
    lag: u64,
    /// Windows behind one in which its ways may show.
    ahead: u64,
    keeps_samples: bool,
    history: History,
    /// Where endpoints were seen last.
    known: Places,
    stands: Stands,
    least: BTreeMap<Way, Least>,
    noise: Noise,
    /// Of windows that are given out already, but not here.
    stations: BTreeMap<WindowNumber, Stations>,
    moves: Moves,
    pasts: Pasts,
    /// Since the last view.
    forgotten: Forgotten,
}

impl Paths {
    /// As the plan says.
    pub fn new(plan: &Plan, stands: Stands) -> Self {
        let length_ns = ms(plan.window.length_ms.into());
        let verdict = ms(plan.path.verdict_ms.into()).div_ceil(length_ns);
        Self {
            windows: BTreeMap::new(),
            next: WindowNumber(0),
            length_ns,
            lag: verdict + SWEEP_NS.div_ceil(length_ns),
            // With two taps a match is known at once, with more when nothing more can come.
            ahead: if plan.taps.len() == 2 { verdict } else { 0 },
            keeps_samples: plan.path.samples,
            history: History::default(),
            known: Places::default(),
            stands,
            least: BTreeMap::new(),
            noise: Noise::default(),
            stations: BTreeMap::new(),
            moves: Moves::new(plan.path.sample_one_in <= 1),
            pasts: Pasts::new(PAST_NS),
            forgotten: Forgotten::default(),
        }
    }

    /// Takes what a worker hands over.
    pub fn take(&mut self, trajectories: &[Trajectory]) {
        for trajectory in trajectories {
            let late = trajectory.window < self.next;
            let window = self.windows.entry(trajectory.window.max(self.next)).or_default();
            window.late_packets += u64::from(late);
            if self.keeps_samples {
                if window.samples.len() < SAMPLES_MAX {
                    window.samples.push(*trajectory);
                } else {
                    window.samples_full += 1;
                }
            }
            window.add(trajectory);
        }
    }

    /// Notes who sent in a conversation of a window, which is given out here later.
    pub fn note(&mut self, window: WindowNumber, key: &ConversationKey, packets: [u64; 2]) {
        if self.stations.len() < STATIONS_WINDOWS_MAX || self.stations.contains_key(&window) {
            self.stations.entry(window).or_default().note(key, packets);
        } else {
            self.forgotten.stations += 1;
        }
    }

    /// The last packet before and the first one after the longest silence of some senders around an
    /// instant, at most [`PAST_NS`] before the end of the window given out last.
    pub fn silence(
        &self,
        at: Timestamp,
        sends: impl Fn(&Ends) -> bool,
    ) -> Option<(Timestamp, Timestamp)> {
        self.pasts.silence(at, sends)
    }

    /// The next window whose packets all have their verdicts, when all workers have closed the
    /// windows up to `closed`.
    pub fn next_view(&mut self, closed: WindowNumber) -> Option<PathView> {
        let (&number, _) = self.windows.first_key_value()?;
        if number.0.saturating_add(self.lag) > closed.0 {
            return None;
        }
        let mut window = self.windows.remove(&number)?;
        self.next = number.next();
        let (start, end) = (number.start(self.length_ns), number.end(self.length_ns));
        let mut samples = std::mem::take(&mut window.samples);
        samples.sort_by_key(|sample| (sample.first_seen(), sample.digest, sample.ends));
        let mut sent = Vec::new();
        self.noise.window(&window);
        let rows = self.rows(number, start, &mut window, &mut sent);
        let mut moves = self.moves.window(start, &mut sent, &window.shown);
        for found in &mut moves {
            found.clocks = self.offset((found.from, found.to), start);
        }
        self.pasts.add(end, &window.ends, std::mem::take(&mut window.shown));
        Some(PathView {
            start,
            end,
            rows,
            samples,
            late_packets: window.late_packets,
            full_packets: window.full_packets,
            full_samples: window.samples_full,
            moves,
            full_times: window.shown_full,
            forgotten: std::mem::take(&mut self.forgotten),
        })
    }

    /// Whether [`Paths::next_view`] has one.
    pub fn has_view(&self, closed: WindowNumber) -> bool {
        let first = self.windows.first_key_value();
        first.is_some_and(|(number, _)| number.0.saturating_add(self.lag) <= closed.0)
    }

    /// What windows that are not given out hold.
    pub fn waiting(&self) -> Waiting {
        let windows = self.windows.values();
        windows.fold(Waiting::default(), |sum, window| Waiting {
            windows: sum.windows + 1,
            ends: sum.ends + window.ends.len(),
            packets: sum.packets + window.shown.len(),
        })
    }

    /// Windows that one waits for behind it.
    pub fn lag(&self) -> usize {
        usize::try_from(self.lag).unwrap_or(usize::MAX)
    }

    /// Whether all was given out.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    fn rows(
        &mut self,
        number: WindowNumber,
        start: Timestamp,
        window: &mut Window,
        sent: &mut Vec<Sent>,
    ) -> Vec<PathRow> {
        let stations = self.stations_of(number);
        let mut places = self.places(number, start, window);
        let mut sums: BTreeMap<Way, Sum> = BTreeMap::new();
        let mut rows = Vec::new();
        let mut full_packets = 0;
        let mut sorted: Vec<_> = window.ends.iter().collect();
        sorted.sort_by_key(|(ends, _)| **ends);
        for (ends, counts) in sorted {
            let here = self.taken(window, ends, start);
            let orders = self.orders(window, ends, start);
            sent.extend(Sent::of(ends, counts, &orders, &stations));
            let all = self.taken_around(number, ends, start, &here);
            if all.is_empty() {
                continue;
            }
            full_packets += counts.alone_more;
            let known: Vec<_> = self.known_places(number, &places).collect();
            let counted: Vec<_> = all
                .iter()
                .map(|taken| {
                    (taken.way, expect::count(counts, ends, taken, &all, (&self.stands, &known)))
                })
                .filter(|(_, counted)| *counted != PathCounts::default())
                .collect();
            for (way, counted) in counted {
                let delays = delays_on(way, &here, counts);
                let sum = sums.entry(way).or_default();
                sum.counts.add(&counted);
                let taken = here.iter().find(|taken| taken.way == way);
                if let (Some(_), Some(answers), protocol::TCP) =
                    (taken, window.ends.get(&ends.turned()), ends.protocol)
                {
                    sum.answers.add(way, answers);
                }
                let base = taken.zip(delays.as_ref()).and_then(|(taken, delays)| {
                    sum.delays.merge(delays);
                    let least = (delays.count > 0).then_some(delays.min_ns);
                    self.history.add(ends, way, (start, taken.last), least)
                });
                rows.push(PathRow {
                    ends: Some(*ends),
                    from: way.0,
                    to: way.1,
                    counts: counted,
                    answers: None,
                    delay: delays.and_then(|delays| PathDelay::of(&delays, base)),
                    offset: None,
                });
            }
        }
        window.full_packets += full_packets;
        self.known.go_on(&places, start);
        self.forgotten.stations += stations.full;
        self.forgotten.places += places.take_full() + self.known.take_full();
        self.forgotten.ways += self.history.take_full();
        for (way, sum) in sums.iter().filter(|(_, sum)| sum.delays.count > 0) {
            self.least.entry(*way).or_default().add(start, sum.delays.min_ns);
        }
        let mut all: Vec<_> =
            sums.iter().map(|(way, sum)| self.sum_row(*way, sum, start)).collect();
        rows.sort_by_key(|row| (row.from, row.to, row.ends));
        all.append(&mut rows);
        all
    }

    fn sum_row(&self, way: Way, sum: &Sum, at: Timestamp) -> PathRow {
        PathRow {
            ends: None,
            from: way.0,
            to: way.1,
            counts: sum.counts,
            answers: Some(sum.answers),
            delay: PathDelay::of(&sum.delays, self.least(way, at)),
            offset: self.offset(way, at),
        }
    }

    /// The least time of everybody's packets on a way lately.
    fn least(&self, way: Way, at: Timestamp) -> Option<i64> {
        self.least.get(&way).and_then(|least| least.at(at))
    }

    /// How far the later tap's clock is ahead, where both directions were taken lately.
    fn offset(&self, way: Way, at: Timestamp) -> Option<ClockOffset> {
        let (there, back) = (self.least(way, at)?, self.least((way.1, way.0), at)?);
        Some(ClockOffset {
            offset_ns: (there - back) / 2,
            bound_ns: (there + back).max(0).unsigned_abs().div_ceil(2),
        })
    }

    /// Who sent from which card in a window; what waits for earlier ones is forgotten.
    fn stations_of(&mut self, number: WindowNumber) -> Stations {
        let later = self.stations.split_off(&number.next());
        let mut stations = std::mem::replace(&mut self.stations, later);
        stations.remove(&number).unwrap_or_default()
    }

    /// The ways that packets of these endpoints took in a window, and when.
    fn taken(&self, window: &Window, ends: &Ends, at: Timestamp) -> Vec<Taken> {
        let pairs = window.ends.get(ends).map_or(&[][..], |counts| &counts.pairs);
        let orders = self.orders(window, ends, at).into_iter().zip(pairs);
        let taken = |(order, pair): (Order, &Pair)| Taken {
            way: order.way,
            first: pair.first,
            last: pair.last,
        };
        orders.map(taken).collect()
    }

    /// In which order packets of these endpoints passed each pair of taps in a window.
    fn orders(&self, window: &Window, ends: &Ends, at: Timestamp) -> Vec<Order> {
        let pairs = window.ends.get(ends).map_or(&[][..], |counts| &counts.pairs);
        let answers = window.ends.get(&ends.turned());
        let known = || self.history.ways(ends, at).map(|(way, _)| way);
        pairs.iter().map(|pair| pair.order(answers, known(), &self.noise)).collect()
    }

    /// The same of a window that is not over yet: what cannot be known of it for certain is left out,
    /// so that it does not matter how much of it has come.
    fn taken_so_far(&self, window: &Window, ends: &Ends, at: Timestamp) -> Vec<Taken> {
        let all = self.taken(window, ends, at);
        let pairs = window.ends.get(ends).map_or(&[][..], |counts| &counts.pairs);
        let whole = |(taken, pair): (Taken, &Pair)| {
            pair.whole.map(|(first, last)| Taken { first, last, ..taken })
        };
        all.into_iter().zip(pairs).filter_map(whole).collect()
    }

    /// The same with what came before and what comes soon after.
    fn taken_around(
        &self,
        number: WindowNumber,
        ends: &Ends,
        at: Timestamp,
        here: &[Taken],
    ) -> Vec<Taken> {
        let mut all = here.to_vec();
        let before = self.history.ways(ends, at);
        expect::join(&mut all, before.map(|(way, last)| Taken { way, first: last, last }));
        for (_, window) in self.windows.range(number..=self.last_ahead(number)) {
            expect::join(&mut all, self.taken_so_far(window, ends, at).into_iter());
        }
        // Nobody of them has taken a way yet: only where both ends stand says that they should have.
        if all.is_empty() {
            let way = self.stands.way(ends, at).filter(|way| self.is_in_use(*way, at));
            all.extend(way.map(Taken::by_none));
        }
        all
    }

    /// Whether anybody's packets took a way lately.
    fn is_in_use(&self, way: Way, at: Timestamp) -> bool {
        self.least.get(&way).is_some_and(|least| least.at(at).is_some())
    }

    fn last_ahead(&self, number: WindowNumber) -> WindowNumber {
        WindowNumber(number.0.saturating_add(self.ahead))
    }

    /// Where endpoints stood in a window; makes sure that it is known of those behind it too.
    fn places(&mut self, number: WindowNumber, at: Timestamp, window: &mut Window) -> Places {
        let last = self.last_ahead(number);
        let missing =
            self.windows.range(number..=last).filter(|(_, window)| window.places.is_none());
        let missing: Vec<_> =
            missing.map(|(number, window)| (*number, self.stays(window, at))).collect();
        for (number, places) in missing {
            if let Some(window) = self.windows.get_mut(&number) {
                window.places = Some(places);
            }
        }
        window.places.take().unwrap_or_else(|| self.stays(window, at))
    }

    fn stays(&self, window: &Window, at: Timestamp) -> Places {
        let mut places = Places::default();
        for (ends, counts) in &window.ends {
            if !counts.pairs.is_empty() {
                for taken in self.taken_so_far(window, ends, at) {
                    places.add(ends, taken.way, (taken.first, taken.last));
                }
            }
        }
        places
    }

    fn known_places<'a>(
        &'a self,
        number: WindowNumber,
        here: &'a Places,
    ) -> impl Iterator<Item = &'a Places> {
        let ahead = self.windows.range(number..=self.last_ahead(number));
        let ahead = ahead.filter_map(|(_, window)| window.places.as_ref());
        [&self.known, here].into_iter().chain(ahead)
    }
}

/// Everybody's packets on a way.
#[derive(Default)]
struct Sum {
    counts: PathCounts,
    answers: Answers,
    delays: Delays<Dense>,
}

/// Times on a way, if packets took it in this window.
fn delays_on(way: Way, here: &[Taken], counts: &Counts) -> Option<Delays<Sparse>> {
    let place = here.iter().position(|taken| taken.way == way)?;
    let pair = counts.pairs.get(place)?;
    let delays = pair.delays.clone();
    Some(if way.0 == pair.lower { delays } else { delays.turned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PathPlan, TapPlan};
    use crate::copies::{Digest, Verdict};
    use crate::decode::{Headers, tcp_flag};
    use crate::path::{PathOutput, PathStage};

    struct Followed(Vec<Trajectory>);

    impl PathOutput for Followed {
        fn trajectory(&mut self, trajectory: &Trajectory) {
            self.0.push(*trajectory);
        }
    }

    fn plan() -> Plan {
        let tap = |name: &str| TapPlan { name: name.to_owned(), ..TapPlan::default() };
        let path = PathPlan { slots: 1_024, sample_one_in: 1, ..PathPlan::default() };
        Plan { taps: vec![tap("a"), tap("b")], path, ..Plan::default() }
    }

    /// What becomes of segments: tap, millisecond, sequence number, octets.
    fn followed(segments: &[(u16, u64, u32, u32)]) -> Vec<Trajectory> {
        let (plan, mut out) = (plan(), Followed(Vec::new()));
        let mut stage = PathStage::new(&plan.path, &plan.window, 2);
        for (place, (tap, at_ms, sequence, octets)) in segments.iter().enumerate() {
            let at = Timestamp(ms(*at_ms));
            let headers = Headers {
                tap: TapIndex(*tap),
                timestamp: at,
                clock: at,
                protocol: protocol::TCP,
                tcp_flags: tcp_flag::ACK,
                tcp_sequence: *sequence,
                payload_octets: *octets,
                octets: octets + 40,
                ..Headers::default()
            };
            let digest = Digest { place, ..Digest::default() };
            stage.note(&headers, &digest, Verdict::First, &mut out);
        }
        stage.end(&mut out);
        out.0
    }

    /// Merged frames may take until their deadline to be known as the same octets, so how much of a
    /// later window has come when an earlier one is given out must not show in that.
    #[test]
    fn what_a_later_window_may_still_learn_says_nothing_of_an_earlier_one() {
        let alone = followed(&[(0, 100_500, 1, 50)]);
        let merged =
            followed(&[(0, 103_500, 100, 50), (0, 103_500, 150, 50), (1, 103_501, 100, 100)]);
        assert!(merged.iter().all(|it| it.recut == Some(TapIndex(1))), "{merged:?}");
        let rows = |early: bool| {
            let mut paths = Paths::new(&plan(), Stands::default());
            paths.take(&alone);
            let mut views = Vec::new();
            if early {
                paths.take(&merged);
            }
            views.extend(paths.next_view(WindowNumber(107)));
            if !early {
                paths.take(&merged);
            }
            views.extend(std::iter::from_fn(|| paths.next_view(WindowNumber(200))));
            let rows = views.iter().flat_map(|view| view.rows.iter().map(|row| (view.start, row)));
            rows.map(|(start, row)| format!("{start:?} {row:?}")).collect::<Vec<_>>()
        };
        assert_eq!(rows(true), rows(false));
        assert_eq!(rows(true).len(), 2, "the merged ones are matched in their own window");
    }
}
