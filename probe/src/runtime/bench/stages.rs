//! Where the time of a packet goes.
//!
//! In: packets of each worker. Out: [`Stages`].
//! Cost: as many further runs over the packets as there are stages before the flow table.
//! Invariants: each pass does what the one before does and one stage more, on the same packets in
//! the same bursts, with cold tables; a stage is the difference of two passes. What the worker does
//! beyond the last pass is the flow stage: looking flows up, booking, closing windows, the loop
//! itself. So the stages add up to the whole, and noise between two passes may show as a small
//! negative figure.

use std::hint::black_box;
use std::sync::{Arc, Barrier};

use serde::Serialize;

use crate::capture::memory::{MemoryBurst, Packets};
use crate::capture::{Burst, Source, SourceState};
use crate::config::Plan;
use crate::cores;
use crate::decode::Headers;
use crate::spread::name_flow;
use crate::time::{Timestamp, thread_cpu_ns};
use crate::worker::{BURST_PACKETS_MAX, WorkerParts};

use super::super::pipeline::{join, spawn};
use super::super::{Build, RuntimeError};
use super::{BenchOptions, Features, measure, ratio};

/// Nanoseconds of CPU time per packet; together they are the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stages {
    /// Taking bursts and reading the first octet of each frame: mostly memory.
    pub read_ns: f64,
    /// Decoding into headers.
    pub decode_ns: f64,
    /// Flow key and its hash.
    pub hash_ns: f64,
    /// Finding copies; none without the feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_ns: Option<f64>,
    /// Flows, windows, applications, and the loop around them.
    pub flow_ns: f64,
    /// Ending all flows that are left after the last packet.
    pub ending_ns: f64,
}

impl Stages {
    /// From the cumulative passes and the whole; `ending_ns` is there already.
    pub(super) fn fill(&mut self, cumulative_ns: [f64; 4], whole_ns: f64, features: Features) {
        let [read, decode, hash, copies] = cumulative_ns;
        self.read_ns = read;
        self.decode_ns = decode - read;
        self.hash_ns = hash - decode;
        let last = if features == Features::All { copies } else { hash };
        self.copies_ns = (features == Features::All).then_some(copies - hash);
        self.flow_ns = whole_ns - last - self.ending_ns;
    }
}

/// Passes up to reading, decoding, hashing and copies: nanoseconds per packet, of all workers.
pub(super) fn measure(
    plan: &Arc<Plan>,
    ports: &[String],
    options: &BenchOptions,
    parts: Vec<Packets>,
) -> Result<[f64; 4], RuntimeError> {
    let workers = parts.len();
    let build = Build::new(plan, None, ports, (workers, workers), false);
    let packets: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let cores = cores::allowed();
    let start = Arc::new(Barrier::new(workers));
    let mut threads = Vec::new();
    for (seat, packets) in build.seats.into_iter().zip(parts) {
        let core = cores.get(seat.place() % cores.len().max(1)).copied();
        let (start, options) = (Arc::clone(&start), options.clone());
        threads.push(spawn(&format!("worker-{}", seat.place()), move || {
            // Elsewhere it measures as well, only less steadily.
            let _ = cores::stay_on(core.as_slice());
            let burst_packets = usize::from(seat.burst_packets());
            let mut parts = measure::parts_for(seat, options.features);
            start.wait();
            passes(packets, &mut parts, burst_packets, options.passes)
        })?);
    }
    let mut sums_ns = [0_u64; 4];
    for thread in threads {
        for (sum, ns) in sums_ns.iter_mut().zip(join(thread)) {
            *sum += ns;
        }
    }
    Ok(sums_ns.map(|ns| ratio(ns, packets * u64::from(options.passes))))
}

/// CPU time of each pass in nanoseconds.
fn passes(
    packets: Packets,
    parts: &mut WorkerParts,
    burst_packets: usize,
    passes: u32,
) -> [u64; 4] {
    let mut headers = vec![Headers::default(); BURST_PACKETS_MAX].into_boxed_slice();
    let (packets, read_ns) = pass(packets, burst_packets, passes, |burst| {
        for place in 0..burst.len() {
            black_box(burst.frame(place).bytes.first());
        }
    });
    let (packets, decode_ns) = pass(packets, burst_packets, passes, |burst| {
        let decoded = decode::<false>(burst, parts, &mut headers);
        black_box((decoded, &mut headers));
    });
    let (packets, hash_ns) = pass(packets, burst_packets, passes, |burst| {
        let decoded = decode::<true>(burst, parts, &mut headers);
        black_box((decoded, &mut headers));
    });
    let (_, copies_ns) = pass(packets, burst_packets, passes, |burst| {
        let decoded = decode::<true>(burst, parts, &mut headers);
        let Some(copies) = parts.copies.as_mut() else { return };
        for headers in &headers[..decoded] {
            let digest = copies.digest(headers);
            black_box(copies.classify((headers.tap, headers.timestamp), &digest));
        }
    });
    [read_ns, decode_ns, hash_ns, copies_ns]
}

/// Gives all bursts to `work`; the packets come back with the CPU time.
fn pass(
    packets: Packets,
    burst_packets: usize,
    passes: u32,
    mut work: impl FnMut(&MemoryBurst<'_>),
) -> (Packets, u64) {
    let mut source = packets.source(burst_packets, passes);
    let begun_ns = thread_cpu_ns();
    loop {
        let (burst, state) = source.poll();
        work(&burst);
        if state == SourceState::Ended {
            break;
        }
    }
    let elapsed_ns = thread_cpu_ns() - begun_ns;
    (source.into_packets(), elapsed_ns)
}

/// Decodes a burst as a worker does. How many headers are valid: those of frames without IP are
/// written over by the next.
#[inline]
fn decode<const HASH: bool>(
    burst: &MemoryBurst<'_>,
    parts: &WorkerParts,
    headers: &mut [Headers],
) -> usize {
    let mut valid = 0;
    let mut clock = Timestamp::ZERO;
    for place in 0..burst.len().min(headers.len()) {
        let frame = burst.frame(place);
        clock = clock.max(frame.timestamp);
        let headers = &mut headers[valid];
        if parts.decoder.decode(&frame, clock, headers).is_ok() {
            if HASH {
                name_flow(headers, parts.seed);
            }
            valid += 1;
        }
    }
    valid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "sums of small whole numbers are exact")]
    fn stages_add_up_to_the_whole() {
        let mut stages = Stages { ending_ns: 3.0, ..Stages::default() };
        stages.fill([1.0, 5.0, 7.0, 11.0], 30.0, Features::All);
        let Stages { read_ns, decode_ns, hash_ns, copies_ns, flow_ns, ending_ns } = stages;
        assert_eq!([read_ns, decode_ns, hash_ns, flow_ns, ending_ns], [1.0, 4.0, 2.0, 16.0, 3.0]);
        assert_eq!(copies_ns, Some(4.0));
        stages.fill([1.0, 5.0, 7.0, 7.1], 30.0, Features::Flow);
        assert_eq!((stages.copies_ns, stages.flow_ns), (None, 20.0));
    }
}
