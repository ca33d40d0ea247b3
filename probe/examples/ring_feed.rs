//! `vmprobe run` on a DPDK ring that the same process feeds, at a rate.
//!
//! In: a configuration whose first port is `net_ring0`, a capture, a rate. Out: one JSON object:
//! packets offered, sent and lost, the worker's CPU time meanwhile, and the report of the run.
//! Cost: the feeder takes the last core that the workers leave; a burst of 32 is copied into the
//! port's buffers and sent when its time has come.
//! Invariants: what the ring does not take is lost, as it is in a NIC; without a rate the feeder
//! waits instead. A feeder that was itself kept waiting does not make up for it, because that would be
//! a burst that nobody asked for.
//! Source: `scripts/bench-live`.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use clap::Parser;
use vmprobe::capture::file::FileSource;
use vmprobe::capture::{Burst as _, Source as _, SourceState};
use vmprobe::config::{self, Mode};
use vmprobe::cores;
use vmprobe::dpdk::{Eal, TxQueue, WorkerThread};
use vmprobe::runtime::bench::Features;
use vmprobe::runtime::live::{self, Ready, RunOptions};
use vmprobe::time::{monotonic_ns, ms, sleep_ms};

const BURST_PACKETS: usize = 32;
/// A feeder that is further behind begins anew from where it is.
const BEHIND_MAX_NS: u64 = 20_000;
/// For the worker to make its tables before the first packet, and to take the last ones.
const SETTLE_MS: u64 = 1_000;

#[derive(Parser)]
struct Arguments {
    /// Configuration of the run.
    #[arg(short, long)]
    config: PathBuf,
    /// The packets, over and over.
    #[arg(long)]
    pcap: PathBuf,
    /// Packets a second; without it as many as the ring takes.
    #[arg(long)]
    rate: Option<u64>,
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Without copies and handshakes.
    #[arg(long)]
    flow: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let frames = frames(&arguments.pcap)?;
    let mut plan = config::load(&arguments.config, Mode::Run)?.plan;
    let features = if arguments.flow { Features::Flow } else { Features::All };
    plan.store.folder = None;
    let stop = Arc::new(AtomicBool::new(false));
    let mut feeder = None;
    let options = RunOptions { features, ..RunOptions::default() };
    let ready = |ready: Ready<'_>| {
        let send = ready.ports.first().and_then(vmprobe::dpdk::Port::tx_queue);
        let (eal, ended) = (ready.eal.clone(), Arc::clone(&stop));
        feeder = send.map(|send| {
            std::thread::spawn(move || {
                let fed = feed(send, &eal, &frames, arguments.rate, ms(arguments.seconds * 1_000));
                ended.store(true, Ordering::Relaxed);
                fed
            })
        });
        if feeder.is_none() {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let run = live::run(&Arc::new(plan), &options, &stop, ready, |_| ())?;
    let feeder = feeder.context("the first port has nothing to send by")?;
    let fed = feeder.join().ok().context("the feeder broke off")?;
    let json = serde_json::json!({
        "offered": fed.offered,
        "sent": fed.sent,
        "lost": fed.offered - fed.sent,
        "seconds": seconds(fed.elapsed_ns),
        "feeder_core": fed.core,
        "worker_cpu_seconds": seconds(fed.worker_cpu_ns),
        "report": run.report,
    });
    writeln!(std::io::stdout(), "{json}")?;
    Ok(())
}

fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

fn frames(pcap: &PathBuf) -> Result<Vec<Vec<u8>>> {
    let mut source = FileSource::open(&[pcap], BURST_PACKETS)?;
    let mut frames = Vec::new();
    loop {
        let (burst, state) = source.poll();
        frames.extend((0..burst.len()).map(|place| burst.frame(place).bytes.to_vec()));
        if state == SourceState::Ended {
            anyhow::ensure!(!frames.is_empty(), "{} holds no packets", pcap.display());
            return Ok(frames);
        }
    }
}

struct Fed {
    offered: u64,
    sent: u64,
    elapsed_ns: u64,
    core: Option<u16>,
    worker_cpu_ns: u64,
}

fn feed(
    mut send: TxQueue,
    eal: &Eal,
    frames: &[Vec<u8>],
    rate: Option<u64>,
    lasting_ns: u64,
) -> Fed {
    let core = cores::allowed().last().copied();
    // Registered, it has a cache of buffers.
    let _registered = core.and_then(|core| WorkerThread::register(eal, core).ok());
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let bursts: Vec<&[&[u8]]> = frames.chunks(BURST_PACKETS).collect();
    let period_ns = rate.map_or(0, |rate| BURST_PACKETS as u64 * 1_000_000_000 / rate.max(1));
    sleep_ms(SETTLE_MS);
    let worker_before_ns = worker_cpu_ns();
    let begun_ns = monotonic_ns();
    let (mut due_ns, mut offered, mut sent) = (begun_ns, 0, 0);
    for burst in bursts.iter().cycle() {
        let mut now_ns = monotonic_ns();
        while now_ns < due_ns {
            std::hint::spin_loop();
            now_ns = monotonic_ns();
        }
        if now_ns.saturating_sub(begun_ns) > lasting_ns {
            break;
        }
        due_ns = due_ns.max(now_ns.saturating_sub(BEHIND_MAX_NS)) + period_ns;
        let mut taken = send.send(burst);
        while rate.is_none() && taken < burst.len() {
            taken += send.send(&burst[taken..]);
        }
        offered += burst.len() as u64;
        sent += taken as u64;
    }
    let elapsed_ns = monotonic_ns() - begun_ns;
    let worker_cpu_ns = worker_cpu_ns() - worker_before_ns;
    sleep_ms(SETTLE_MS);
    Fed { offered, sent, elapsed_ns, core, worker_cpu_ns }
}

/// CPU time of all workers so far.
fn worker_cpu_ns() -> u64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0 };
    let of_worker = |thread: std::io::Result<fs::DirEntry>| {
        let folder = thread.ok()?.path();
        let is_worker = fs::read_to_string(folder.join("comm")).ok()?.starts_with("worker-");
        let schedule = fs::read_to_string(folder.join("schedstat")).ok()?;
        is_worker.then(|| schedule.split(' ').next()?.parse::<u64>().ok())?
    };
    threads.filter_map(of_worker).sum()
}
