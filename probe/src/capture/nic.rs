//! A NIC queue as a source of frames.
//!
//! In: the plan's ports. Out: [`Nics`]: one [`NicSource`] for each receive queue, the ports for
//! their statistics, and the clocks that stamps are taken from.
//! Cost: one poll and one conversion of the time stamp counter a burst; nothing is allocated.
//! Invariants: the time of the poll never goes back; packets of one burst that carry no stamp of
//! their own share it. A stamp of the NIC or the kernel counts only within [`STAMP_BEHIND_NS`] before
//! and [`STAMP_AHEAD_NS`] after the poll, else the packet has the time of the poll, which is
//! counted and logged. Stamps of a capture file are left as they are, and time then moves by them
//! alone.
//! Source: clocks, see `capture::clock`.

mod clocks;

use std::fmt;
use std::sync::Arc;

use self::clocks::Clock;
use super::clock::{Conversion, ConversionReader, SharedConversion};
use super::{Burst, Frame, LinkType, STAMP_MAX, Source, SourceState, StrippedVlan};
use crate::config::Plan;
use crate::counters::Counter;
use crate::dpdk::{
    Eal, EalError, Packet, Port, PortError, PortWarning, RingFill, RxBurst, RxQueue, StampKind,
};
use crate::index::PortIndex;
use crate::time::Timestamp;

pub use self::clocks::{ClockThread, PortClock};

/// How long a packet may have waited in the receive ring with a stamp of its own.
pub const STAMP_BEHIND_NS: u64 = 1_000_000_000;

/// How far two clocks may be apart that are each within 10 ms of the wall clock.
pub const STAMP_AHEAD_NS: u64 = 20_000_000;

/// Why the NICs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// DPDK did not start.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// A port cannot be used.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The time stamp counter does not move.
    #[error("the time stamp counter of this machine does not run, so packets cannot be stamped")]
    NoClock,
    /// The clock thread did not start.
    #[error("the clock thread does not start: {0}")]
    Thread(#[from] std::io::Error),
}

/// Where the stamps of a port come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockSource {
    /// The time stamp counter at the poll, related to the wall clock.
    Tsc,
    /// The NIC's own clock, related to the wall clock.
    Nic,
    /// The kernel, in microseconds of the wall clock.
    Kernel,
    /// The capture file that the port reads, in microseconds.
    File,
}

impl ClockSource {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tsc => "tsc",
            Self::Nic => "nic",
            Self::Kernel => "kernel",
            Self::File => "file",
        }
    }
}

impl fmt::Display for ClockSource {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// All NICs of the plan, running.
#[derive(Debug)]
pub struct Nics {
    /// One for each receive queue: port after port, queue after queue.
    pub sources: Vec<NicSource>,
    /// The ports, in order of configuration.
    pub ports: Vec<Port>,
    /// What each port lacks.
    pub warnings: Vec<(PortIndex, PortWarning)>,
    /// Keeps the clocks; must live as long as the sources are polled.
    pub clocks: ClockThread,
    /// DPDK, to register worker threads.
    pub eal: Eal,
}

impl Nics {
    /// Starts DPDK and opens every port.
    ///
    /// # Errors
    /// The first thing that cannot go on; see [`EalError`] and [`PortError`].
    pub fn open(plan: &Plan) -> Result<Self, NicError> {
        let eal = Eal::start(&plan.eal, &plan.ports)?;
        let mut clocks = vec![Clock::of_tsc().ok_or(NicError::NoClock)?];
        let (mut sources, mut ports, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for (index, wanted) in (0..).map(PortIndex).zip(&plan.ports) {
            let (port, queues, lacks) = Port::configure(&eal, wanted, plan.worker.burst_packets)?;
            warnings.extend(lacks.into_iter().map(|warning| (index, warning)));
            let stamps = stamps_of(&port, &mut clocks, index, &mut warnings);
            let tsc = clocks[0].shared();
            sources.extend(
                queues.into_iter().map(|queue| NicSource::new(queue, index, tsc, stamps.clone())),
            );
            ports.push(port);
        }
        let foreign = sources.iter().map(|source| Arc::clone(&source.foreign)).collect();
        let clocks = ClockThread::start(clocks, foreign)?;
        Ok(Self { sources, ports, warnings, clocks, eal })
    }
}

/// What a packet's stamp is made from.
#[derive(Clone, Debug)]
enum Stamps {
    /// No stamp: the time of the poll.
    Poll,
    /// Microseconds since the epoch; `true`: out of a file.
    Microseconds { of_file: bool },
    /// Ticks of a NIC's clock.
    Ticks(ConversionReader),
}

fn stamps_of(
    port: &Port,
    clocks: &mut Vec<Clock>,
    index: PortIndex,
    warnings: &mut Vec<(PortIndex, PortWarning)>,
) -> Stamps {
    match port.stamps() {
        StampKind::None => Stamps::Poll,
        StampKind::File => Stamps::Microseconds { of_file: true },
        StampKind::Kernel => Stamps::Microseconds { of_file: false },
        StampKind::Device => {
            if let Some(clock) = Clock::of_port(port.clone(), index) {
                let reader = ConversionReader::new(Arc::clone(clock.shared()));
                clocks.push(clock);
                return Stamps::Ticks(reader);
            }
            let reason = "it stands still".to_owned();
            warnings.push((index, PortWarning::ClockNotReadable { reason }));
            Stamps::Poll
        }
    }
}

/// One receive queue as a source. Polled by one worker.
#[derive(Debug)]
pub struct NicSource {
    queue: RxQueue,
    port: PortIndex,
    tsc: ConversionReader,
    stamps: Stamps,
    /// The time of the newest poll; of a port that plays a file the largest stamp.
    latest: Timestamp,
    /// Packets whose own stamp was too far from the poll.
    foreign: Arc<Counter>,
}

impl NicSource {
    fn new(queue: RxQueue, port: PortIndex, tsc: &Arc<SharedConversion>, stamps: Stamps) -> Self {
        let tsc = ConversionReader::new(Arc::clone(tsc));
        let foreign = Arc::new(Counter::default());
        Self { queue, port, tsc, stamps, latest: Timestamp::ZERO, foreign }
    }

    /// The port that the queue belongs to.
    pub fn port(&self) -> PortIndex {
        self.port
    }

    /// The queue's number in its port.
    pub fn queue(&self) -> u16 {
        self.queue.number()
    }

    /// Fill of the receive ring; `None` where the driver cannot tell.
    pub fn ring_fill(&self) -> Option<RingFill> {
        self.queue.fill()
    }

    /// Where this queue's stamps come from.
    pub fn clock_source(&self) -> ClockSource {
        match &self.stamps {
            Stamps::Poll => ClockSource::Tsc,
            Stamps::Microseconds { of_file: true } => ClockSource::File,
            Stamps::Microseconds { of_file: false } => ClockSource::Kernel,
            Stamps::Ticks(_) => ClockSource::Nic,
        }
    }

    /// The clock behind the stamps, to be asked by other threads. Packets whose own stamp does not
    /// count have the time stamp counter's.
    pub fn clock(&self) -> PortClock {
        let tsc = Arc::clone(self.tsc.shared());
        let clocks = match &self.stamps {
            Stamps::Poll | Stamps::Microseconds { of_file: false } => vec![tsc],
            Stamps::Ticks(nic) => vec![tsc, Arc::clone(nic.shared())],
            Stamps::Microseconds { of_file: true } => Vec::new(),
        };
        PortClock::new(self.clock_source(), clocks)
    }
}

impl Source for NicSource {
    type Burst<'a> = NicBurst<'a>;

    /// A NIC that plays a file back waits for its reader.
    fn is_live(&self) -> bool {
        !matches!(self.stamps, Stamps::Microseconds { of_file: true })
    }

    fn fill_percent(&self) -> Option<u8> {
        let fill = self.ring_fill()?;
        u8::try_from(u64::from(fill.used) * 100 / u64::from(fill.size.max(1))).ok()
    }

    #[inline]
    fn poll(&mut self) -> (NicBurst<'_>, SourceState) {
        let burst = self.queue.poll();
        let stamps = match &mut self.stamps {
            Stamps::Poll => BurstStamps::Poll,
            Stamps::Microseconds { of_file: false } => BurstStamps::Microseconds,
            Stamps::Microseconds { of_file: true } => BurstStamps::OfFile,
            Stamps::Ticks(nic) => BurstStamps::Ticks(*nic.refresh()),
        };
        self.latest = if matches!(stamps, BurstStamps::OfFile) {
            latest_of(&burst, self.latest)
        } else {
            // A conversion that was just renewed may stand a little behind the one before.
            self.tsc.refresh().at(burst.tsc()).max(self.latest)
        };
        let quiet = matches!(stamps, BurstStamps::OfFile) && burst.is_empty();
        let state = if quiet { SourceState::Quiet } else { SourceState::Open(self.latest) };
        let burst = NicBurst { burst, polled: self.latest, stamps, port: self.port };
        let foreign_packets = burst.foreign_packets();
        if foreign_packets > 0 {
            self.foreign.add(foreign_packets);
        }
        (burst, state)
    }
}

/// The largest stamp so far, with those of this burst.
fn latest_of(burst: &RxBurst<'_>, latest: Timestamp) -> Timestamp {
    (0..burst.len())
        .filter_map(|place| burst.packet(place).stamp())
        .map(of_microseconds)
        .fold(latest, Timestamp::max)
}

fn of_microseconds(microseconds: u64) -> Timestamp {
    Timestamp(microseconds.saturating_mul(1_000)).min(STAMP_MAX)
}

/// How a burst's stamps become times.
#[derive(Clone, Copy, Debug)]
enum BurstStamps {
    Poll,
    Microseconds,
    OfFile,
    Ticks(Conversion),
}

/// Frames that a queue received together.
#[derive(Debug)]
pub struct NicBurst<'a> {
    burst: RxBurst<'a>,
    polled: Timestamp,
    stamps: BurstStamps,
    port: PortIndex,
}

impl NicBurst<'_> {
    #[inline]
    fn time_of(&self, packet: &Packet<'_>) -> Timestamp {
        self.stamp_of(packet).filter(|own| self.is_trusted(*own)).unwrap_or(self.polled)
    }

    /// The packet's own stamp, where it has one.
    #[inline]
    fn stamp_of(&self, packet: &Packet<'_>) -> Option<Timestamp> {
        match &self.stamps {
            BurstStamps::Poll => None,
            BurstStamps::OfFile | BurstStamps::Microseconds => packet.stamp().map(of_microseconds),
            BurstStamps::Ticks(conversion) => packet.stamp().map(|stamp| conversion.at(stamp)),
        }
    }

    /// A file has a time of its own; other stamps are near the poll, or foreign.
    #[inline]
    fn is_trusted(&self, own: Timestamp) -> bool {
        matches!(self.stamps, BurstStamps::OfFile) || is_near(own, self.polled)
    }

    /// Packets whose own stamp is too far from the poll.
    fn foreign_packets(&self) -> u64 {
        if matches!(self.stamps, BurstStamps::Poll | BurstStamps::OfFile) {
            return 0;
        }
        let stamps =
            (0..self.burst.len()).filter_map(|place| self.stamp_of(&self.burst.packet(place)));
        stamps.filter(|own| !self.is_trusted(*own)).count() as u64
    }
}

/// Whether a packet that was polled at `polled` can have been received at `own`.
#[inline]
fn is_near(own: Timestamp, polled: Timestamp) -> bool {
    own.since_ns(polled) <= STAMP_AHEAD_NS && polled.since_ns(own) <= STAMP_BEHIND_NS
}

impl Burst for NicBurst<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.burst.len()
    }

    /// No frame is made for it.
    #[inline]
    fn fetch(&self, frames: usize) {
        for place in 0..frames {
            super::fetch_lines(self.burst.packet(place).bytes());
        }
    }

    #[inline]
    fn frame(&self, place: usize) -> Frame<'_> {
        let packet = self.burst.packet(place);
        Frame {
            bytes: packet.bytes(),
            wire_octets: packet.wire_octets(),
            timestamp: self.time_of(&packet),
            link: LinkType::Ethernet,
            port: self.port,
            stripped_vlan: packet
                .vlan()
                .map(|tags| StrippedVlan { outer_tci: tags.outer_tci, inner_tci: tags.inner_tci }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_count_near_the_poll_only() {
        let polled = Timestamp(5_000_000_000);
        for (own, near) in [
            (0, false),
            (3_999_999_999, false),
            (4_000_000_000, true),
            (5_000_000_000, true),
            (5_020_000_000, true),
            (5_020_000_001, false),
            (u64::MAX, false),
        ] {
            assert_eq!(is_near(Timestamp(own), polled), near, "{own}");
        }
        assert!(
            !is_near(Conversion::default().at(u64::MAX), polled),
            "a clock that was never read"
        );
    }
}
