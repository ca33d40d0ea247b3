//! NIC sources on DPDK's virtual devices, without huge pages.
//!
//! EAL starts once a process, so each test runs its body in a process of its own, with its own
//! file prefix. Tests that need root say so and pass where it is missing.
#![cfg(feature = "dpdk")]
#![expect(clippy::disallowed_methods, reason = "programs and devices are waited for by the clock")]

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use vmprobe::capture::nic::{ClockSource, NicError, NicSource, Nics};
use vmprobe::capture::{Burst, Source, SourceState};
use vmprobe::config::{EalPlan, Plan, PortPlan};
use vmprobe::cores;
use vmprobe::dpdk::{Eal, EalError, Port, PortError, PortWarning, WorkerThread, worker_cores};
use vmprobe::index::PortIndex;
use vmprobe::time::{Timestamp, wall_clock};
use vmprobe_tests::folder::Folder;
use vmprobe_tests::skips;

const OWN_PROCESS: &str = "VMPROBE_TEST_PROCESS";
const SECOND_START: &str = "VMPROBE_TEST_SECOND";
/// Source address of the frames that tests send.
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const TIME_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn null_port_gives_packets_on_every_queue() {
    in_own_process("null_port_gives_packets_on_every_queue", &[], || {
        let before = cores::allowed();
        let plan = plan(&[PortPlan { queues: 2, ..port("null", "net_null0,size=100") }]);
        let mut nics = Nics::open(&plan).expect("net_null needs nothing");
        assert_eq!(cores::allowed(), before, "EAL's pinning is undone");
        assert_eq!(nics.sources.len(), 2);
        assert!(nics.warnings.contains(&(PortIndex(0), PortWarning::RssKeyMissing)));
        assert_eq!(nics.ports[0].driver(), "net_null");

        let cores = worker_cores(&plan.eal, 1, &before).expect("one core is there");
        let worker = WorkerThread::register(&nics.eal, cores[0]).expect("first worker");
        let mut latest = wall_clock();
        for source in &mut nics.sources {
            assert_eq!(source.clock_source(), ClockSource::Tsc);
            for _ in 0..100 {
                let (burst, SourceState::Open(now)) = source.poll() else { panic!("never ends") };
                assert_eq!(burst.len(), 32);
                let frame = burst.frame(31);
                assert_eq!((frame.bytes.len(), frame.wire_octets), (100, 100));
                assert_eq!(frame.timestamp, now);
                assert!(now + 1_000_000 > latest, "runs forward beside the wall clock");
                latest = now;
            }
            let error = source.clock().error_ns(latest).expect("the counter has a bound");
            assert!(error < 10_000_000, "{error}");
        }
        let ago = wall_clock().since_ns(latest);
        assert!(ago < 1_000_000_000, "stamps are wall-clock times: {ago} ns old");
        assert_eq!(nics.ports[0].stats().received, 2 * 100 * 32);
        assert_eq!(nics.ports[0].mbufs_in_use(), 0, "every buffer went back");
        drop(worker);
    });
}

#[test]
fn clocks_stay_together_over_seconds() {
    in_own_process("clocks_stay_together_over_seconds", &[], || {
        let mut nics = Nics::open(&plan(&[port("null", "net_null0")])).expect("opens");
        let mut latest = Timestamp::ZERO;
        let end = Instant::now() + Duration::from_millis(2_500);
        while Instant::now() < end {
            let before = wall_clock();
            let (_, SourceState::Open(now)) = nics.sources[0].poll() else { panic!("never ends") };
            let after = wall_clock();
            let bound = nics.sources[0].clock().error_ns(now).expect("has a bound");
            assert!(now >= latest, "never backwards");
            assert!(now + bound >= before && after + bound >= now, "{before:?} {now:?} {after:?}");
            latest = now;
        }
        assert_eq!(nics.clocks.steps(), 0);
    });
}

#[test]
fn ring_port_gives_back_what_was_sent() {
    in_own_process("ring_port_gives_back_what_was_sent", &[], || {
        let plan = plan(&[port("ring", "net_ring0")]);
        let eal = Eal::start(&plan.eal, &plan.ports).expect("starts");
        let (port, mut queues, _) =
            Port::configure(&eal, &plan.ports[0], 32).expect("net_ring opens");
        let mut send = port.tx_queue().expect("has a transmit queue");
        assert!(port.tx_queue().is_none(), "given out once");
        let frames: Vec<Vec<u8>> = (0..40_u8).map(|n| vec![n; 60 + usize::from(n)]).collect();
        let views: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        assert_eq!(send.send(&views), 40);

        let burst = queues[0].poll();
        assert_eq!(burst.len(), 32, "no more than a burst");
        for (place, frame) in frames.iter().take(32).enumerate() {
            assert_eq!(burst.packet(place).bytes(), frame);
        }
        assert!(port.mbufs_in_use() >= 32);
        drop(burst);
        assert_eq!(queues[0].poll().len(), 8);
        assert!(queues[0].poll().is_empty());
        assert_eq!(port.mbufs_in_use(), 0);
        drop((queues, send, port, eal));
        let left = Path::new("/var/run/dpdk").join(&plan.eal.file_prefix);
        assert!(!left.exists(), "DPDK's run folder is taken away at the end");
        let again = Eal::start(&plan.eal, &plan.ports).expect_err("once a process");
        assert!(matches!(again, EalError::AlreadyStarted));
    });
}

#[test]
fn pcap_port_gives_bytes_and_stamps_of_the_file() {
    in_own_process("pcap_port_gives_bytes_and_stamps_of_the_file", &[], || {
        let folder = Folder::new("pcap");
        let file = folder.path("in.pcap");
        // One longer than a buffer: it arrives in several segments.
        let sizes = [60, 1514, 5000, 61, 9018];
        let frames: Vec<(u32, u32, Vec<u8>)> = (0_u32..)
            .zip(sizes)
            .map(|(n, size)| (1_600_000_000 + n, 999_990 + n, pattern(size, n)))
            .collect();
        fs::write(&file, pcap(&frames)).expect("can be written");
        let device = format!("net_pcap0,rx_pcap={}", file.display());
        let wanted = PortPlan { frame_octets_max: 9018, ..port("file", &device) };
        let mut nics = Nics::open(&plan(&[wanted])).expect("net_pcap opens");
        let source = &mut nics.sources[0];
        let clock = source.clock();
        assert_eq!((clock.source(), clock.error_ns(wall_clock())), (ClockSource::File, None));
        let mut seen = 0;
        for _ in 0..10 {
            let (burst, state) = source.poll();
            for place in 0..burst.len() {
                let (seconds, micros, bytes) = &frames[seen];
                let frame = burst.frame(place);
                assert!(frame.bytes == bytes.as_slice(), "packet {seen}");
                assert_eq!(usize::try_from(frame.wire_octets), Ok(bytes.len()));
                let stamp = Timestamp::from_parts((*seconds).into(), u64::from(*micros) * 1_000);
                assert_eq!(frame.timestamp, stamp);
                seen += 1;
            }
            if burst.is_empty() {
                assert_eq!(state, SourceState::Quiet, "the file is through");
                continue;
            }
            let (seconds, micros, _) = &frames[seen - 1];
            let latest = Timestamp::from_parts((*seconds).into(), u64::from(*micros) * 1_000);
            assert_eq!(state, SourceState::Open(latest), "time moves by the stamps alone");
        }
        assert_eq!(seen, frames.len());
        assert_eq!(nics.ports[0].stats().received, 5);
    });
}

#[test]
fn frames_beyond_the_limit_are_cut_and_say_so() {
    in_own_process("frames_beyond_the_limit_are_cut_and_say_so", &[], || {
        let folder = Folder::new("long");
        let file = folder.path("in.pcap");
        fs::write(&file, pcap(&[(1, 0, pattern(9000, 1))])).expect("can be written");
        let device = format!("net_pcap0,rx_pcap={}", file.display());
        let mut nics = Nics::open(&plan(&[port("file", &device)])).expect("net_pcap opens");
        let (burst, _) = nics.sources[0].poll();
        let frame = burst.frame(0);
        assert_eq!((frame.bytes.len(), frame.wire_octets), (1518, 9000));
        assert!(frame.bytes == &pattern(9000, 1)[..1518]);
    });
}

#[test]
fn kernel_interfaces_give_what_their_peer_sends() {
    on_a_wire("kernel_interfaces_give_what_their_peer_sends", || {
        let plan = plan(&[
            port("a", "net_af_packet0,iface=va"),
            port("b", "net_af_packet1,iface=vb"),
            port("tap", "net_tap0,iface=vmprobetap"),
        ]);
        let mut nics = Nics::open(&plan).expect("all open");
        let plain = ethernet(&[0x08, 0x00], 86);
        let tagged = ethernet(&[0x81, 0x00, 0x60, 42, 0x08, 0x00], 86);
        let onto_tap = port("onto-tap", "net_af_packet2,iface=vmprobetap");
        let (onto_tap, _queues, _) =
            Port::configure(&nics.eal, &onto_tap, 32).expect("the tap's interface is there");
        silence("vmprobetap");
        for (mut send, to) in [(nics.ports[1].tx_queue(), 0), (onto_tap.tx_queue(), 2)]
            .map(|(send, to)| (send.expect("sends"), to))
        {
            assert_eq!(send.send(&[&plain, &tagged]), 2);
            let got = receive(&mut nics.sources[to], 2);
            assert_eq!(got[0], plain, "port {to}");
            assert_eq!(got[1], tagged, "the tag is in the frame, or given beside it: port {to}");
        }
    });
}

#[test]
fn what_the_kernels_ring_has_no_room_for_is_missed() {
    on_a_wire("what_the_kernels_ring_has_no_room_for_is_missed", || {
        let small = "net_af_packet0,iface=va,blocksz=4096,framesz=2048,framecnt=64";
        // Another device's sockets count for themselves.
        let plan = plan(&[port("small", small), port("other", "net_af_packet1,iface=vb")]);
        let mut nics = Nics::open(&plan).expect("both open");
        let mut send = nics.ports[1].tx_queue().expect("sends");
        let frame = ethernet(&[0x08, 0x00], 86);
        // Each round fills the ring anew.
        let mut missed = 0;
        for bursts in [10, 1, 4] {
            for _ in 0..bursts {
                assert_eq!(send.send(&[frame.as_slice(); 30]), 30);
            }
            let sent: u64 = bursts * 30;
            let fits = sent.min(64);
            missed += sent - fits;
            let end = Instant::now() + Duration::from_secs(5);
            while nics.ports[0].stats().missed < missed && Instant::now() < end {}
            let fits = usize::try_from(fits).expect("a small number");
            assert_eq!(receive(&mut nics.sources[0], fits).len(), fits);
            assert_eq!(nics.ports[0].stats().missed, missed);
        }
        assert_eq!(nics.ports[0].stats().received, 64 + 30 + 64);
        assert_eq!(nics.ports[1].stats().missed, 0);
    });
}

#[test]
fn a_file_that_is_played_over_and_over_has_the_time_of_the_poll() {
    in_own_process("a_file_that_is_played_over_and_over_has_the_time_of_the_poll", &[], || {
        let folder = Folder::new("infinite");
        let file = folder.path("in.pcap");
        let frames: Vec<_> = (0..40).map(|n| (1_600_000_000 + n, 0, pattern(60, n))).collect();
        fs::write(&file, pcap(&frames)).expect("can be written");
        let device = format!("net_pcap0,rx_pcap={},infinite_rx=1", file.display());
        let mut nics = Nics::open(&plan(&[port("file", &device)])).expect("net_pcap opens");
        let source = &mut nics.sources[0];
        assert_eq!((source.clock_source(), source.is_live()), (ClockSource::Tsc, true));
        let mut latest = wall_clock() - 1_000_000;
        for _ in 0..10 {
            let (burst, SourceState::Open(now)) = source.poll() else { panic!("never ends") };
            assert_eq!(burst.len(), 32);
            assert_eq!(burst.frame(0).timestamp, now);
            assert!(now >= latest, "time goes on: {latest:?} {now:?}");
            latest = now;
        }
    });
}

#[test]
fn memif_receives_all_that_a_generator_sent() {
    if Command::new("dpdk-testpmd").arg("--version").output().is_err() {
        skips::missing("memif", &["dpdk-testpmd"], "dpdk-dev");
        return;
    }
    in_own_process("memif_receives_all_that_a_generator_sent", &[], || {
        let folder = Folder::new("memif");
        let socket = folder.path("memif.sock");
        let mut generator = Generator::start(&socket);
        wait_for(&socket);
        let device = format!(
            "net_memif0,role=client,socket={},socket-abstract=no,rsize=11",
            socket.display()
        );
        let mut nics = Nics::open(&plan(&[port("memif", &device)])).expect("opens");
        let end = Instant::now() + Duration::from_secs(1);
        let poll = |nics: &mut Nics, seen: &mut (u64, u64)| {
            let (burst, _) = nics.sources[0].poll();
            for place in 0..burst.len() {
                seen.1 += u64::from(burst.frame(place).wire_octets);
            }
            seen.0 += burst.len() as u64;
            !burst.is_empty()
        };
        let limit = Instant::now() + TIME_LIMIT / 2;
        let mut seen = (0, 0);
        while Instant::now() < end || (seen.0 == 0 && Instant::now() < limit) {
            poll(&mut nics, &mut seen);
        }
        assert!(seen.0 > 1_000, "too few arrived: {seen:?}");
        // The driver forgets its counts when the other side leaves, so they are compared before.
        let stats = nics.ports[0].stats();
        assert_eq!((stats.received, stats.octets), seen);
        // What lies in the ring when the sender leaves is lost, so it stays until all is taken.
        generator.say("stop");
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(500) && Instant::now() < limit {
            if poll(&mut nics, &mut seen) {
                last = Instant::now();
            }
        }
        let missed = nics.ports[0].stats().missed;
        drop(nics);
        generator.say("quit");
        assert_eq!(generator.sent(), seen.0 + missed);
    });
}

#[test]
fn a_second_start_on_the_same_prefix_is_told() {
    let name = "a_second_start_on_the_same_prefix_is_told";
    in_own_process(name, &[], || {
        let mut plan = plan(&[]);
        if let Ok(prefix) = std::env::var(SECOND_START) {
            plan.eal.file_prefix = prefix;
            let error = Eal::start(&plan.eal, &[]).expect_err("the first one runs");
            assert!(matches!(error, EalError::PrefixInUse { .. }), "{error}");
            return;
        }
        let _eal = Eal::start(&plan.eal, &[]).expect("starts");
        let second = Command::new(std::env::current_exe().expect("known"))
            .args(["--exact", name, "--nocapture"])
            .env(SECOND_START, &plan.eal.file_prefix)
            .output()
            .expect("runs");
        assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    });
}

#[test]
fn devices_that_cannot_be_opened_are_told_apart() {
    in_own_process("devices_that_cannot_be_opened_are_told_apart", &[], || {
        let plan = plan(&[]);
        let eal = Eal::start(&plan.eal, &[]).expect("starts");
        let refused = |device: &str| {
            Port::configure(&eal, &port("p", device), 32).expect_err("cannot be opened")
        };
        let unknown = refused("net_nope0");
        assert!(matches!(unknown, PortError::UnknownDevice { .. }), "{unknown}");
        assert!(matches!(refused("not a device"), PortError::UnknownDevice { .. }));
        for device in ["net_pcap0,rx_pcap=/nonexistent.pcap", "net_af_packet0,iface=nope0"] {
            let error = refused(device);
            assert!(matches!(error, PortError::DeviceRefused { .. }), "{error}");
        }
        let many = PortPlan { queues: 17, mbufs: 65_536, ..port("p", "net_ring0") };
        assert!(matches!(
            Port::configure(&eal, &many, 32),
            Err(PortError::TooManyQueues { asked: 17, limit: 16, .. })
        ));
        let large = PortPlan { mbufs: 4_000_000, ..port("p", "net_null0") };
        let error = Port::configure(&eal, &large, 32).expect_err("too much for the memory given");
        assert!(matches!(error, PortError::PoolMemory { .. }), "{error}");
        // After all that, the process still receives.
        let (_port, mut queues, _) =
            Port::configure(&eal, &port("p", "net_null0"), 32).expect("opens");
        assert_eq!(queues[0].poll().len(), 32);
    });
}

#[test]
fn pci_devices_are_checked_before_anything_starts() {
    in_own_process("pci_devices_are_checked_before_anything_starts", &[], || {
        let start = |device: &str| Nics::open(&plan(&[port("p", device)])).err();
        assert!(matches!(
            start("ffff:ff:1f.7"),
            Some(NicError::Eal(EalError::NoSuchPciDevice { address })) if address == "ffff:ff:1f.7"
        ));
        let held = vmprobe::config::doctor::pci_network_devices(Path::new("/"))
            .into_iter()
            .find(|device| !device.interfaces.is_empty());
        let Some(held) = held else {
            skips::skipped("held PCI device", "no PCI network device has a kernel interface here");
            return;
        };
        assert!(matches!(
            start(&held.address),
            Some(NicError::Eal(EalError::PciDeviceBusy { interfaces, .. }))
                if interfaces == held.interfaces
        ));
    });
}

#[test]
fn missing_huge_pages_are_told() {
    in_own_process("missing_huge_pages_are_told", &[], || {
        let mut plan = plan(&[]);
        plan.eal.huge_pages = true;
        // More than any machine that runs tests has reserved.
        plan.eal.memory_mib = 500_000;
        let error = Eal::start(&plan.eal, &[]).expect_err("not there");
        let told =
            matches!(error, EalError::HugePagesMissing { .. } | EalError::HugePagesTooFew { .. });
        assert!(told && error.to_string().contains("nr_hugepages"), "{error}");
    });
}

#[test]
fn rejected_arguments_are_told_and_print_nothing() {
    let output = in_own_process("rejected_arguments_are_told_and_print_nothing", &[], || {
        let mut plan = plan(&[]);
        plan.eal.extra_arguments = vec!["--nonsense".to_owned()];
        let error = Eal::start(&plan.eal, &[]).expect_err("no such argument");
        assert!(matches!(error, EalError::ArgumentRejected { .. }), "{error}");
        assert!(error.to_string().contains("--nonsense"), "{error}");
    });
    assert!(!output.contains("EAL"), "standard output is left alone: {output}");
}

/// Runs `body` in a network namespace of its own, with a pair of interfaces `va` and `vb`: nothing leaves it,
/// nothing is left behind. Noted as a skip where this machine cannot have it.
fn on_a_wire(name: &str, body: impl FnOnce()) {
    if skips::too_long(name) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skips::skipped(name, "needs root for a network namespace");
        return;
    }
    in_own_process(name, &["unshare", "-n"], || {
        run("ip", &["link", "add", "va", "type", "veth", "peer", "name", "vb"]);
        for side in ["va", "vb"] {
            silence(side);
            run("ip", &["link", "set", side, "up"]);
        }
        body();
    });
}

/// Runs `body` in a process of its own, which is this program with one test; `before` stands
/// before its command line. The answer is what it printed on standard output.
fn in_own_process(name: &str, before: &[&str], body: impl FnOnce()) -> String {
    if std::env::var(OWN_PROCESS).as_deref() == Ok(name) {
        body();
        return String::new();
    }
    let mut words: Vec<String> = before.iter().map(|&word| word.to_owned()).collect();
    let program = std::env::current_exe().expect("known");
    words.push(program.display().to_string());
    words.extend(["--exact", name, "--nocapture"].map(str::to_owned));
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .env(OWN_PROCESS, name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let ended = wait(&mut child, TIME_LIMIT);
    let (mut output, mut errors) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut output).expect("text");
    child.stderr.take().expect("piped").read_to_string(&mut errors).expect("text");
    eprint!("{errors}");
    assert!(ended.is_some_and(|success| success), "{name} failed:\n{output}");
    output
}

/// Waits for a child's end; kills it after `limit`. The answer is its success.
fn wait(child: &mut Child, limit: Duration) -> Option<bool> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("our child") {
            return Some(status.success());
        }
        sleep(Duration::from_millis(10));
    }
    child.kill().ok();
    child.wait().ok();
    None
}

fn plan(ports: &[PortPlan]) -> Plan {
    let eal = EalPlan {
        huge_pages: false,
        memory_mib: 128,
        file_prefix: format!("vmprobe-test-{}", std::process::id()),
        ..EalPlan::default()
    };
    Plan { eal, ports: ports.to_vec(), ..Plan::default() }
}

fn port(name: &str, device: &str) -> PortPlan {
    PortPlan {
        name: name.to_owned(),
        device: device.to_owned(),
        queues: 1,
        descriptors: 512,
        frame_octets_max: 1518,
        promiscuous: true,
        mbufs: 4095,
        ..PortPlan::default()
    }
}

/// Polls until `count` frames of [`ethernet`] came; what the kernel sends by itself is left out,
/// and a tag that the driver took off is put back in.
fn receive(source: &mut NicSource, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    while frames.len() < count && Instant::now() < end {
        let (burst, _) = source.poll();
        for place in 0..burst.len() {
            let frame = burst.frame(place);
            let mut bytes = frame.bytes.to_vec();
            if let Some(tag) = frame.stripped_vlan {
                let [high, low] = tag.outer_tci.to_be_bytes();
                bytes.splice(12..12, [0x81, 0x00, high, low]);
            }
            assert_eq!(usize::try_from(frame.wire_octets), Ok(bytes.len()));
            if bytes.get(6..12) == Some(&SENDER[..]) {
                frames.push(bytes);
            }
        }
    }
    assert_eq!(frames.len(), count, "frames in time");
    frames
}

fn ethernet(types: &[u8], payload: usize) -> Vec<u8> {
    let mut frame = vec![0xFF; 6];
    frame.extend(SENDER);
    frame.extend(types);
    frame.extend(std::iter::repeat_n(0x45, payload));
    frame
}

fn pattern(size: usize, seed: u32) -> Vec<u8> {
    (seed..).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).take(size).collect()
}

/// A pcap file with microsecond stamps.
fn pcap(frames: &[(u32, u32, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xA1B2_C3D4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for (seconds, micros, bytes) in frames {
        let size = u32::try_from(bytes.len()).expect("small");
        for word in [*seconds, *micros, size, size] {
            file.extend(word.to_le_bytes());
        }
        file.extend(bytes);
    }
    file
}

/// Keeps the kernel from sending by itself (neighbour discovery).
fn silence(interface: &str) {
    let file = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    // Without IPv6 in the kernel there is nothing to silence.
    let _ = fs::write(file, "1");
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("can be run");
    assert!(status.success(), "{program} {arguments:?}");
}

fn wait_for(file: &Path) {
    let end = Instant::now() + Duration::from_secs(20);
    while !file.exists() {
        assert!(Instant::now() < end, "{} does not appear", file.display());
        sleep(Duration::from_millis(10));
    }
}

/// `dpdk-testpmd` as a sender of many flows.
struct Generator(Child);

impl Generator {
    fn start(socket: &Path) -> Self {
        let vdev = format!(
            "net_memif0,role=server,socket={},socket-abstract=no,rsize=11",
            socket.display()
        );
        let prefix = format!("vmprobe-generator-{}", std::process::id());
        let child = Command::new("dpdk-testpmd")
            .args(["--lcores", "0@1,1@0", "-m", "128", "--no-huge", "--no-pci"])
            .args(["--file-prefix", &prefix, "--vdev", &vdev, "--"])
            .args(["--interactive", "--auto-start", "--total-num-mbufs=8192", "--no-mlockall"])
            .args(["--forward-mode=txonly", "--txonly-multi-flow"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dpdk-testpmd starts");
        Self(child)
    }

    fn say(&mut self, command: &str) {
        let input = self.0.stdin.as_mut().expect("piped");
        writeln!(input, "{command}").expect("it reads");
    }

    /// Packets sent, from its statistics over all ports.
    fn sent(&mut self) -> u64 {
        wait(&mut self.0, TIME_LIMIT / 4).expect("ends when told to");
        let mut text = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        let line = text.lines().rev().find(|line| line.contains("TX-packets:"));
        line.and_then(|line| line.split("TX-packets:").nth(1))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("no statistics:\n{text}"))
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
