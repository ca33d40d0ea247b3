//! The fuzz targets for a few seconds each, with changes that a seed fixes, so that they are tried
//! where no fuzzer is installed.
//!
//! Each round takes one of the seeds and changes octets, copies pieces or cuts.
#![expect(clippy::disallowed_methods, reason = "how long changes are tried is up to the clock")]

use std::time::{Duration, Instant};

use vmprobe_tests::captures;

#[path = "../../fuzz/exercise/apps.rs"]
mod apps;
#[path = "../../fuzz/exercise/config.rs"]
mod config;
#[path = "../../fuzz/exercise/decode.rs"]
mod decode;
#[path = "../../fuzz/exercise/flow_ops.rs"]
mod flow_ops;
#[path = "../../fuzz/exercise/learn.rs"]
mod learn;
#[path = "../../fuzz/exercise/sources.rs"]
mod sources;

/// How long each target is tried.
const TIME: Duration = Duration::from_secs(4);

/// Longest input.
const OCTETS_MAX: usize = 64 << 10;

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % end as u64).expect("below a usize")
    }

    fn octet(&mut self) -> u8 {
        self.draw().to_le_bytes()[0]
    }
}

/// A few changes somewhere.
fn change(input: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(8) {
        if input.is_empty() {
            input.push(random.octet());
        }
        let at = random.below(input.len());
        let octets = random.below(16).min(input.len() - at);
        match random.below(8) {
            0 => input.truncate(at),
            1 => input[at..at + octets].fill([0, 0xff][random.below(2)]),
            2 => {
                let piece = input[at..at + octets].to_vec();
                input.splice(at..at, piece);
            }
            3 => input.insert(at, random.octet()),
            4 => input[at] ^= 1 << random.below(8),
            5 => input[at] = input[at].wrapping_add(1),
            6 => drop(input.drain(at..at + octets)),
            _ => input[at] = random.octet(),
        }
    }
    input.truncate(OCTETS_MAX);
}

/// Tries a target on changed seeds until the time is over.
fn run(seeds: &[Vec<u8>], target: impl Fn(&[u8])) {
    assert!(!seeds.is_empty(), "there is a seed");
    for seed in seeds {
        target(seed);
    }
    let mut random = Random(1);
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < TIME {
        let mut input = seeds[random.below(seeds.len())].clone();
        change(&mut input, &mut random);
        target(&input);
        rounds += 1;
    }
    assert!(rounds > 10, "only {rounds} rounds");
}

/// A classic capture with two frames, and real ones where they are.
fn capture_seeds() -> Vec<Vec<u8>> {
    let mut small = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        small.extend(word.to_le_bytes());
    }
    for second in 1..=2_u32 {
        for word in [second, 0, 60, 60] {
            small.extend(word.to_le_bytes());
        }
        small.extend([0x45; 60]);
    }
    let mut seeds = vec![small];
    if let Some(folder) = captures::folder() {
        let all = ["encapsulation", "malformed"].map(|place| captures::captures(&folder, place));
        let read = all.iter().flatten().filter_map(|path| std::fs::read(path).ok());
        seeds.extend(read.filter(|bytes| bytes.len() < OCTETS_MAX).take(150));
    }
    seeds
}

/// One frame of each tunnel that the captures may lack.
fn tunnel_seeds() -> impl Iterator<Item = Vec<u8>> {
    include_str!("../../fuzz/tunnels.hex").lines().map(|line| {
        let (_, digits) = line.split_once(' ').expect("a name and octets");
        let digits = digits.as_bytes().chunks(2);
        let octets = digits.map(|pair| {
            let pair = str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("hexadecimal")
        });
        [0; 4].into_iter().chain(octets).collect()
    })
}

#[test]
fn each_tunnel_of_the_seeds_is_taken_off() {
    use vmprobe::capture::{Frame, LinkType};
    use vmprobe::decode::{Brief, DecodeContext, Decoder, Headers, Marks};
    use vmprobe::{config::Plan, index::PortIndex, time::Timestamp};
    let decoder = Decoder::new(&DecodeContext::new(&Plan::default(), ["port"]));
    let (mut seeds, mut in_brief) = (0, 0);
    for seed in tunnel_seeds() {
        let bytes = &seed[4..];
        let frame = Frame {
            bytes,
            wire_octets: u32::try_from(bytes.len()).expect("short"),
            timestamp: Timestamp::ZERO,
            link: LinkType::Ethernet,
            port: PortIndex(0),
            stripped_vlan: None,
        };
        let mut headers = Headers::default();
        decoder.decode(&frame, Timestamp::ZERO, &mut headers).expect("a whole packet");
        let ports = (headers.source_port, headers.destination_port);
        assert!(ports == (1, 2) || headers.marks.has(Marks::ICMP_ERROR), "{headers:?}");
        let brief = decoder.brief_of_enclosed(&frame, Timestamp::ZERO, &mut Brief::default());
        in_brief += u32::from(brief.is_some());
        seeds += 1;
    }
    assert_eq!((seeds, in_brief), (24, 7));
}

#[test]
fn pcap() {
    run(&capture_seeds(), |input| {
        vmprobe::capture::file::exercise(input);
    });
}

#[test]
fn decoder() {
    // A few frames of each capture, behind the four octets that choose how they are read.
    let mut seeds: Vec<_> = tunnel_seeds().collect();
    for capture in capture_seeds() {
        let mut at = 24;
        while let Some(header) = capture.get(at..at + 16).filter(|_| at < 4_000) {
            let captured = header[8..12].try_into().map_or(0, u32::from_le_bytes) as usize;
            let Some(frame) = capture.get(at + 16..at + 16 + captured) else { break };
            seeds.push([&[0_u8; 4][..], frame].concat());
            at += 16 + captured;
        }
    }
    run(&seeds, decode::exercise);
}

/// A message of the target `apps`.
fn said(who: u8, octets: &[u8]) -> Vec<u8> {
    let length = u16::try_from(octets.len()).expect("short").to_be_bytes();
    [&[who][..], &length, octets].concat()
}

#[test]
fn applications() {
    let query = b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x01a\x00\x00\x01\x00\x01";
    let mut answer = query.to_vec();
    (answer[2], answer[3], answer[7]) = (0x81, 0x80, 2);
    answer.extend(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01b\xc0\x10");
    answer.extend(b"\xc0\x23\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02\x01");
    let dns = [&[0][..], &said(0, query), &said(3, &answer), &said(0x20, query)].concat();
    let hello =
        [&b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03"[..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]];
    let server =
        [&b"\x16\x03\x03\x00\x2c\x02\x00\x00\x28\x03\x03"[..], &[7; 32], &[0, 0x13, 1, 0, 0, 0]];
    let (hello, server) = (hello.concat(), server.concat());
    let (first, second) = hello.split_at(20);
    let tls = [&[2][..], &said(0, first), &said(0, second), &said(3, &server)].concat();
    let request = b"GET http://a:b@c/d?e HTTP/1.1\r\nHost: c:80\r\nUser-Agent: f\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\nContent-Type: g; h\r\nContent-Length: 3\r\n\r\n";
    let http = [&[7][..], &said(0, request), &said(1, response), &said(0, request)].concat();
    for (seed, told) in [(&dns, 2), (&tls, 1), (&http, 2)] {
        assert_eq!(apps::exercise(seed), told);
    }
    run(&[dns, tls, http], |input| {
        apps::exercise(input);
    });
}

/// A packet of the target `learn`.
fn lesson(kind: u8, later: u8, octets: &[u8]) -> Vec<u8> {
    let length = u8::try_from(octets.len()).expect("short");
    [&[kind, later, length][..], octets].concat()
}

#[test]
fn learning() {
    let target = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let association = [&[7, 1, 2, 3, 0, 3, 0, 40][..], &[0; 12], &[0, 5, 0, 24]];
    let association =
        [&association.concat()[..], &[0xfd; 16], &[0, 0, 0, 60, 0, 0, 0, 120]].concat();
    let all = [
        lesson(0, 0, &[10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]),
        lesson(0, 20, &[10, 0, 0, 3, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]),
        lesson(0x0a, 0, &target),
        lesson(0x1b, 1, &[&target[..], &[2, 1, 2, 0, 0, 0, 0, 1]].concat()),
        lesson(0x24, 1, &[53, 1, 5, 51, 4, 0, 0, 0, 90, 12, 3, b'w', b'e', b'b', 255]),
        lesson(0x34, 40, &[53, 1, 5, 255]),
        lesson(6, 0, &association),
    ];
    let seeds =
        [all.concat(), all.iter().rev().flatten().copied().collect(), all.concat().repeat(3)];
    run(&seeds, learn::exercise);
}

#[test]
fn what_other_systems_say() {
    let vm = "00000000-0000-0000-0000-000000000001";
    let interface = serde_json::json!({"mac": "02:00:00:00:00:01", "addresses": ["10.0.0.1"],
        "segment": "default/vlan/1"});
    let event = serde_json::json!({"events": [{"vm": vm, "event": "create", "at": "2026-01-31T12:00:00Z",
        "name": "n", "tenant": "t", "host": "h", "tags": {"a": "b"}, "interfaces": [interface]}],
        "spaces": [{"segment": "default/vlan/1", "space": "s"}]});
    let message = serde_json::json!({"event_type": "compute.instance.create.end", "message_id": "1",
        "timestamp": "2026-01-31 12:00:00.000000", "publisher_id": "p", "payload": {"instance_id": vm,
        "tenant_id": "t", "display_name": "n", "host": "h", "state": "active",
        "fixed_ips": [{"address": "10.0.0.1", "vif_mac": "02:00:00:00:00:01"}]}});
    let wrapped = serde_json::json!({"oslo.version": "2.0", "oslo.message": message.to_string()});
    let (port, bridge) =
        ("00000000-0000-0000-0000-000000000002", "00000000-0000-0000-0000-000000000003");
    let plugged = serde_json::json!({"Interface": {vm: {"insert": {"name": "tap0", "external_ids": ["map",
        [["attached-mac", "02:00:00:00:00:01"], ["vm-id", vm]]]}}},
        "Port": {port: {"insert": {"name": "tap0", "interfaces": ["uuid", vm], "tag": 7}}},
        "Bridge": {bridge: {"insert": {"name": "br0", "ports": ["set", [["uuid", port]]]}}}});
    let unplugged = serde_json::json!({"Interface": {vm: {"delete": null}},
        "Port": {port: {"modify": {"tag": 8}}}});
    let notice = |rows: &serde_json::Value| {
        serde_json::json!({"id": null, "method": "update3", "params": ["m", "t", rows]}).to_string()
    };
    let switch = [notice(&plugged), notice(&unplugged)].concat();
    let seeds = [
        [b"\0", event.to_string().as_bytes()].concat(),
        [b"\0", event["events"][0].to_string().as_bytes()].concat(),
        [b"\x01", [message.to_string(), wrapped.to_string()].join("\n").as_bytes()].concat(),
        [b"\x02\x05", switch.as_bytes()].concat(),
    ];
    assert!(vmprobe::sources::openstack::exercise(&seeds[2][1..]) > 0, "the seeds say something");
    assert!(vmprobe::sources::ovsdb::exercise(switch.as_bytes(), 3) > 0);
    run(&seeds, sources::exercise);
}

#[test]
fn configuration() {
    let seeds = [
        include_str!("../../config/vmprobe.toml"),
        include_str!("../../config/demo.toml"),
        "[[tenant]]\nname = \"t\"\n[[vm]]\nuuid = \"00000000-0000-0000-0000-000000000001\"\n\
         name = \"v\"\ntenant = \"t\"\n[[vm.interface]]\naddresses = [\"10.0.0.1\"]\n\
         segment = \"default/vlan/1\"\n",
    ];
    // The reference file has every key as a comment: with them switched on it is a better seed.
    let on = seeds[0].replace("\n#", "\n");
    let seeds: Vec<Vec<u8>> = seeds.into_iter().chain([on.as_str()]).map(Into::into).collect();
    run(&seeds, |input| config::exercise(&String::from_utf8_lossy(input)));
}

/// An operation that meters a packet, of few flows and between the same stations.
fn of_few_flows(random: &mut Random) -> [u8; 8] {
    let mut operation = [0; 8].map(|_: u8| random.octet());
    let [kind, _, host, port, _, _, _, mac] = &mut operation;
    (*kind, *host, *port) = (*kind % 10, 0, *port % 2);
    *mac &= !1;
    operation
}

#[test]
fn flow_operations() {
    let mut random = Random(2);
    let mut seeds: Vec<Vec<u8>> =
        (0..50).map(|count| (0..8 * 40 * (count + 1)).map(|_| random.octet()).collect()).collect();
    seeds.extend((0..50).map(|_| (0..100).flat_map(|_| of_few_flows(&mut random)).collect()));
    run(&seeds, flow_ops::exercise);
}
