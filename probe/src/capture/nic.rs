//! A NIC queue as a source of frames.
//!
//! In: the plan's ports. Out: [`Nics`]: one [`NicSource`] for each receive queue, the ports for
//! their statistics, and the clocks that stamps are taken from.
//! Cost: one poll and one conversion of the time stamp counter a burst; nothing is allocated.
//! Invariants: packets of one burst that carry no stamp of their own share the time of the poll;
//! stamps of a capture file are left as they are, and time then moves by them alone.
//! Source: clocks, see `capture::clock`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock::{Conversion, ConversionReader, Discipline, Sample, SharedConversion};
use super::{Burst, Frame, LinkType, Source, SourceState, StrippedVlan};
use crate::config::Plan;
use crate::dpdk::{
    Eal, EalError, Packet, Port, PortError, PortWarning, Reading, RingFill, RxBurst, RxQueue,
    StampKind, read_device_clock, read_tsc,
};
use crate::index::PortIndex;
use crate::time::Timestamp;

/// Time between the first two readings of a clock, from which its first rate is taken.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);
/// Time between readings afterwards; the discipline works offsets off over one.
const INTERVAL: Duration = Duration::from_secs(1);

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
        let mut clocks = vec![Clock::new(None).ok_or(NicError::NoClock)?];
        let (mut sources, mut ports, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for (index, wanted) in (0..).map(PortIndex).zip(&plan.ports) {
            let (port, queues, lacks) = Port::configure(&eal, wanted, plan.worker.burst_packets)?;
            warnings.extend(lacks.into_iter().map(|warning| (index, warning)));
            let stamps = stamps_of(&port, &mut clocks, index, &mut warnings);
            let tsc = &clocks[0].shared;
            sources.extend(
                queues.into_iter().map(|queue| NicSource::new(queue, index, tsc, stamps.clone())),
            );
            ports.push(port);
        }
        let clocks = ClockThread::start(clocks)?;
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
            if let Some(clock) = Clock::new(Some(port.clone())) {
                let reader = ConversionReader::new(Arc::clone(&clock.shared));
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
    latest: Timestamp,
}

impl NicSource {
    fn new(queue: RxQueue, port: PortIndex, tsc: &Arc<SharedConversion>, stamps: Stamps) -> Self {
        let tsc = ConversionReader::new(Arc::clone(tsc));
        Self { queue, port, tsc, stamps, latest: Timestamp::ZERO }
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

    /// The clock behind the stamps, to be asked by other threads.
    pub fn clock(&self) -> PortClock {
        let conversion = match &self.stamps {
            Stamps::Poll => Some(Arc::clone(self.tsc.shared())),
            Stamps::Ticks(nic) => Some(Arc::clone(nic.shared())),
            Stamps::Microseconds { .. } => None,
        };
        PortClock { source: self.clock_source(), conversion }
    }
}

/// The clock of a port's stamps. It is kept by the clock thread; asking it costs the workers
/// nothing.
#[derive(Clone, Debug)]
pub struct PortClock {
    source: ClockSource,
    conversion: Option<Arc<SharedConversion>>,
}

impl PortClock {
    /// The time stamp counter with this relation to the wall clock.
    pub fn of_counter(conversion: Arc<SharedConversion>) -> Self {
        Self { source: ClockSource::Tsc, conversion: Some(conversion) }
    }

    /// Where the stamps come from.
    pub fn source(&self) -> ClockSource {
        self.source
    }

    /// Bound of the stamps' error against this machine's wall clock at `now`; `None` where the
    /// stamps are not this machine's.
    pub fn error_ns(&self, now: Timestamp) -> Option<u64> {
        match (&self.conversion, self.source) {
            (Some(conversion), _) => Some(conversion.read().error_ns_at(now)),
            // Its stamps are in whole microseconds.
            (None, ClockSource::Kernel) => Some(1_000),
            (None, _) => None,
        }
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
        let polled = self.tsc.refresh().at(burst.tsc());
        let stamps = match &mut self.stamps {
            Stamps::Poll => BurstStamps::Poll,
            Stamps::Microseconds { of_file } => {
                if *of_file {
                    self.latest = latest_of(&burst, self.latest);
                    let state = if burst.is_empty() {
                        SourceState::Quiet
                    } else {
                        SourceState::Open(self.latest)
                    };
                    let burst = NicBurst {
                        burst,
                        polled: self.latest,
                        stamps: BurstStamps::Microseconds,
                        port: self.port,
                    };
                    return (burst, state);
                }
                BurstStamps::Microseconds
            }
            Stamps::Ticks(nic) => BurstStamps::Ticks(*nic.refresh()),
        };
        let burst = NicBurst { burst, polled, stamps, port: self.port };
        (burst, SourceState::Open(polled))
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
    Timestamp(microseconds.saturating_mul(1_000))
}

/// How a burst's stamps become times.
#[derive(Clone, Copy, Debug)]
enum BurstStamps {
    Poll,
    Microseconds,
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
    fn time_of(&self, packet: &Packet<'_>) -> Timestamp {
        match (&self.stamps, packet.stamp()) {
            (BurstStamps::Poll, _) | (_, None) => self.polled,
            (BurstStamps::Microseconds, Some(stamp)) => of_microseconds(stamp),
            (BurstStamps::Ticks(conversion), Some(stamp)) => conversion.at(stamp),
        }
    }
}

impl Burst for NicBurst<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.burst.len()
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

/// One counter and its conversion.
#[derive(Debug)]
struct Clock {
    /// `None`: the time stamp counter.
    port: Option<Port>,
    discipline: Discipline,
    shared: Arc<SharedConversion>,
}

impl Clock {
    fn new(port: Option<Port>) -> Option<Self> {
        let first = sample(port.as_ref())?;
        std::thread::sleep(FIRST_INTERVAL);
        let discipline = Discipline::new(first, sample(port.as_ref())?)?;
        let shared = Arc::new(SharedConversion::default());
        shared.publish(&discipline.conversion());
        Some(Self { port, discipline, shared })
    }

    fn observe(&mut self) {
        if let Some(sample) = sample(self.port.as_ref()) {
            self.discipline.observe(sample);
            self.shared.publish(&self.discipline.conversion());
        }
    }
}

fn sample(port: Option<&Port>) -> Option<Sample> {
    let Reading { before, ticks, after } = match port {
        None => read_tsc()?,
        Some(port) => read_device_clock(port)?,
    };
    Some(Sample::between(before, ticks, after))
}

/// Reads the clocks once a second, off the workers. Ends when dropped.
#[derive(Debug)]
pub struct ClockThread {
    shared: Arc<ThreadShared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct ThreadShared {
    stop: AtomicBool,
    steps: AtomicU32,
}

impl ClockThread {
    fn start(mut clocks: Vec<Clock>) -> std::io::Result<Self> {
        let shared = Arc::new(ThreadShared::default());
        let seen = Arc::clone(&shared);
        let run = move || {
            while !seen.stop.load(Ordering::Acquire) {
                std::thread::park_timeout(INTERVAL);
                clocks.iter_mut().for_each(Clock::observe);
                let steps = clocks.iter().map(|clock| clock.discipline.steps()).sum();
                if seen.steps.swap(steps, Ordering::Relaxed) != steps {
                    tracing::warn!(steps, "the wall clock was set; packet times follow it");
                }
            }
        };
        let thread = std::thread::Builder::new().name("clock".to_owned()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How often the wall clock was set while the probe ran.
    pub fn steps(&self) -> u32 {
        self.shared.steps.load(Ordering::Relaxed)
    }
}

impl Drop for ClockThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}
