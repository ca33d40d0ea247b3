//! What other programs say of a capture, flow by flow.
//!
//! In: the files beside a capture: Zeek's conn.log, Arkime's sessions, nDPI's flows, tcpdump's text,
//! Suricata's expectations, tshark's streams. Out: [`Claims`], packets by endpoints.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value as Json;

/// Address and port; the port is 0 where the protocol has none.
pub type Endpoint = (IpAddr, u16);

/// A conversation, whatever its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// IANA protocol number, where the program says it.
    pub protocol: Option<u8>,
    /// The lower endpoint.
    pub low: Endpoint,
    /// The higher endpoint.
    pub high: Endpoint,
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.map_or_else(|| "ip".to_owned(), |number| number.to_string());
        let ((low, low_port), (high, high_port)) = (self.low, self.high);
        write!(out, "{protocol} {low} {low_port} {high} {high_port}")
    }
}

/// Packets of each conversation: from the lower endpoint, from the higher one.
pub type Packets = BTreeMap<Key, [u64; 2]>;

/// Adds packets that `source` and `destination` sent.
pub fn add(
    packets: &mut Packets,
    protocol: Option<u8>,
    (source, destination): (Endpoint, Endpoint),
    [forward, reverse]: [u64; 2],
) {
    let is_low = source <= destination;
    let (low, high) = if is_low { (source, destination) } else { (destination, source) };
    let [from_low, from_high] = packets.entry(Key { protocol, low, high }).or_default();
    let (forward_to, reverse_to) =
        if is_low { (from_low, from_high) } else { (from_high, from_low) };
    *forward_to += forward;
    *reverse_to += reverse;
}

/// What one program says.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// The program.
    pub program: &'static str,
    /// Conversations with their packets; without counts where it says none.
    pub packets: Packets,
    /// Whether it counts packets.
    pub counts: bool,
    /// The protocols of which it lists all conversations; empty for all.
    pub complete: Option<&'static [u8]>,
    /// Protocols whose ports it does not say.
    pub without_ports: &'static [u8],
    /// IPv4 packets in all.
    pub ipv4_packets: Option<u64>,
}

const ALL: Option<&[u8]> = Some(&[]);
const TCP: Option<&[u8]> = Some(&[6]);

/// Reads what one program said.
type Parser = fn(&str) -> Claims;

/// All that lies beside a capture.
pub fn beside(capture: &Path) -> Vec<Claims> {
    let read =
        |ending: &str| std::fs::read_to_string(format!("{}.{ending}", capture.display())).ok();
    let parsers: [(&str, Parser); 6] = [
        ("zeek.conn.log", zeek),
        ("arkime.json", arkime),
        ("ndpi.out", ndpi),
        ("tcpdump.out", tcpdump),
        ("suricata.test.yaml", suricata),
        ("tshark.json", tshark),
    ];
    parsers
        .into_iter()
        .filter_map(|(ending, parse)| read(ending).map(|text| parse(&text)))
        .collect()
}

fn claims(program: &'static str, complete: Option<&'static [u8]>) -> Claims {
    Claims { program, counts: true, complete, ..Claims::default() }
}

fn endpoint(address: &str, port: &str) -> Endpoint {
    let address = address.parse().unwrap_or_else(|_| panic!("{address} is no address"));
    (address, port.parse().unwrap_or_else(|_| panic!("{port} is no port")))
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}

/// Zeek: one line a connection; for ICMP the ports are type and code.
fn zeek(text: &str) -> Claims {
    let mut claims = claims("zeek", ALL);
    claims.without_ports = &[132];
    let names = text.lines().find_map(|line| line.strip_prefix("#fields\t")).expect("fields");
    let place = |name| names.split('\t').position(|field| field == name).expect("a field");
    let places = ["id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "orig_pkts", "resp_pkts"];
    let places = places.map(place);
    let protocol_place = place("ip_proto");
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let cells: Vec<_> = line.split('\t').collect();
        let [from, from_port, to, to_port, forward, reverse] = places.map(|place| cells[place]);
        let protocol = cells[protocol_place].parse().expect("a protocol");
        let port = |port| if has_ports(protocol) { port } else { "0" };
        let ends = (endpoint(from, port(from_port)), endpoint(to, port(to_port)));
        add(&mut claims.packets, Some(protocol), ends, [forward, reverse].map(number));
    }
    claims
}

/// Arkime: one session a conversation.
fn arkime(text: &str) -> Claims {
    let mut claims = claims("arkime", ALL);
    let json: Json = serde_json::from_str(text).expect("JSON");
    for session in json["sessions3"].as_array().expect("sessions") {
        let body = &session["body"];
        // What has no IP is a session of its own there.
        if body["source"]["ip"].is_null() {
            continue;
        }
        let protocol =
            body["ipProtocol"].as_u64().map(|number| u8::try_from(number).expect("8 bits"));
        let end = |side: &str| {
            let port =
                if protocol.is_some_and(has_ports) { &body[side]["port"] } else { &Json::Null };
            let port = port.as_u64().unwrap_or(0).to_string();
            endpoint(body[side]["ip"].as_str().expect("an address"), &port)
        };
        let packets = |side: &str| body[side]["packets"].as_u64().unwrap_or(0);
        let ends = (end("source"), end("destination"));
        add(&mut claims.packets, protocol, ends, ["source", "destination"].map(packets));
    }
    claims
}

/// nDPI: `1<TAB>TCP 10.0.0.1:1 <-> 10.0.0.2:2 [...][3 pkts/630 bytes <-> 1 pkts/150 bytes]`.
fn ndpi(text: &str) -> Claims {
    let mut claims = claims("ndpi", ALL);
    for line in text.lines().filter(|line| line.contains(" pkts/")) {
        let mut words = line.split('\t').nth(2).unwrap_or("").split(' ');
        let (Some(protocol), Some(from), Some(_), Some(to)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let protocol = match protocol {
            "ICMP" => 1,
            "TCP" => 6,
            "UDP" => 17,
            "GRE" => 47,
            "ESP" => 50,
            "AH" => 51,
            "ICMPV6" => 58,
            "SCTP" => 132,
            other => panic!("protocol {other}"),
        };
        let end = |text: &str| {
            let (address, port) = text.rsplit_once(':').expect("a port");
            endpoint(address.trim_matches(['[', ']']), port)
        };
        let (before, after) = line.split_once(" pkts/").expect("packets");
        let forward = number(before.rsplit('[').next().expect("a number"));
        let reverse = after.split(']').next().and_then(|part| part.split_once("<-> "));
        let reverse =
            reverse.map_or(0, |(_, part)| number(part.split_once(" pkts/").expect("packets").0));
        add(&mut claims.packets, Some(protocol), (end(from), end(to)), [forward, reverse]);
    }
    claims
}

/// tcpdump: the endpoints behind the last tunnel of each packet.
fn tcpdump(text: &str) -> Claims {
    let mut claims = claims("tcpdump", ALL);
    let mut packet = String::new();
    for line in text.lines().chain(["0  end"]) {
        let begins = line.trim_start().split_once("  ").is_some_and(|(number, _)| {
            !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
        });
        if begins {
            if let Some(ends) = innermost(&packet) {
                add(&mut claims.packets, None, ends, [1, 0]);
            }
            packet.clear();
        }
        packet.push_str(line);
        packet.push(' ');
    }
    claims
}

/// How tcpdump introduces what a tunnel carries.
const TUNNELS: [&str; 6] = ["erspan type", "Geneve, ", "VXLAN", "NSH, ", "GREv0, ", "MPLS ("];

/// Behind a routing header stand ports alone, or another packet.
const ROUTING: &str = "RT6 (";

fn innermost(packet: &str) -> Option<(Endpoint, Endpoint)> {
    let begin = TUNNELS.iter().filter_map(|tunnel| packet.rfind(tunnel)).max().unwrap_or(0);
    let inside = packet.get(begin..)?;
    let Some(routing) = inside.find(ROUTING) else { return ends(inside) };
    let (header, behind) = inside.split_at(routing);
    if let Some(inner) = ends(behind) {
        return Some(inner);
    }
    let (from, to) = ends(header)?;
    let port = |text: &str| text.parse().ok();
    let (from_port, to_port) =
        pair(behind).and_then(|(a, b)| port(a).zip(port(b))).unwrap_or_default();
    Some(((from.0, from_port), (to.0, to_port)))
}

fn ends(text: &str) -> Option<(Endpoint, Endpoint)> {
    let (from, to) = pair(text)?;
    with_port(from).zip(with_port(to))
}

/// The words around the first ` > `.
fn pair(text: &str) -> Option<(&str, &str)> {
    let (before, after) = text.split_once(" > ")?;
    Some((before.rsplit(' ').next()?, after.split(' ').next()?.trim_end_matches(':')))
}

/// `10.0.0.1`, `10.0.0.1.80`, `fd00::1`, `fd00::1.80`.
fn with_port(text: &str) -> Option<Endpoint> {
    let bare = |text: &str| text.parse().ok();
    let split = || {
        let (address, port) = text.rsplit_once('.')?;
        Some((bare(address)?, port.parse().ok()?))
    };
    bare(text).map(|address| (address, 0)).or_else(split)
}

/// Suricata: what its test asks for of addresses, and how many IPv4 packets it counts.
fn suricata(text: &str) -> Claims {
    let mut claims = Claims { program: "suricata", ..Claims::default() };
    for check in text.split("filter:").skip(1) {
        let value = |key: &str| {
            let line = check.lines().find(|line| line.trim_start().starts_with(key))?;
            Some(line.split_once(": ")?.1.trim())
        };
        let protocol = match value("proto:") {
            Some("TCP") => Some(6),
            Some("UDP") => Some(17),
            // An outer flow is what a tunnel's packets are not.
            _ => continue,
        };
        let (Some(from), Some(to)) = (value("src_ip:"), value("dest_ip:")) else { continue };
        if value("src_port:").is_none() {
            claims.without_ports = &[6, 17];
        }
        let port = |key| value(key).unwrap_or("0");
        let ends = (endpoint(from, port("src_port:")), endpoint(to, port("dest_port:")));
        add(&mut claims.packets, protocol, ends, [0, 0]);
    }
    let ipv4 = text.lines().find_map(|line| line.trim().strip_prefix("decoder.ipv4: "));
    claims.ipv4_packets = ipv4.map(|count| number(count.trim()));
    claims
}

/// tshark: TCP streams.
fn tshark(text: &str) -> Claims {
    let json: Json = serde_json::from_str(text).expect("JSON");
    let streams = json["streams"].as_array().expect("streams");
    let is_whole = json["tcp_streams"].as_u64() == Some(streams.len() as u64);
    let mut claims = Claims { program: "tshark", ..Claims::default() };
    claims.complete = if is_whole { TCP } else { None };
    for stream in streams {
        let end = |side: &str| {
            let (address, port) =
                stream[side].as_str().and_then(|text| text.rsplit_once(':')).expect("an endpoint");
            endpoint(address.trim_matches(['[', ']']), port)
        };
        add(&mut claims.packets, Some(6), (end("client"), end("server")), [0, 0]);
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(claims: &Claims) -> Vec<String> {
        let lines = claims.packets.iter();
        lines.map(|(key, packets)| format!("{key} {}/{}", packets[0], packets[1])).collect()
    }

    #[test]
    fn the_innermost_endpoints_of_a_text_are_found() {
        let packets = "    1  2020-01-01 IP (proto GRE (47), length 98)\n    20.1.1.1 > 30.1.1.2: \
                       GREv0, Flags [none]\n\terspan type1: IP (tos 0x0)\n    10.1.1.9.80 > \
                       10.1.1.1.9: UDP\n    2  2020-01-01 IP 1.1.1.1 > 2.2.2.2: GREv0, length 9\n\
                       \terspan type2 session 1: STP 802.1d, Config\n    3  2020-01-01 IP6 \
                       fd00::2.5 > fd00::1.6: UDP\n    4  2020-01-01 IP6 (h) a::1 > a::2: RT6 \
                       (len=2) 7 > 8: UDP\n    5  2020-01-01 IP6 (h) a::1 > a::2: RT6 (len=2) \
                       IP6 (h) b::1 > b::2: ICMP6\n";
        let inside = [
            "ip 10.1.1.1 9 10.1.1.9 80 0/1",
            "ip a::1 7 a::2 8 1/0",
            "ip b::1 0 b::2 0 1/0",
            "ip fd00::1 6 fd00::2 5 0/1",
        ];
        assert_eq!(text(&tcpdump(packets)), inside);
    }

    #[test]
    fn flows_and_sessions_are_read() {
        let flow = "\t1\tTCP 10.0.0.1:5 <-> 10.0.0.2:6 [VLAN: 4][3 pkts/630 bytes <-> 2 pkts/4 \
                    bytes][x]\n\t2\tICMPV6 [fd00::1]:0 -> [fd00::2]:0 [a][1 pkts/2 bytes -> 0 \
                    pkts/0 bytes]\n";
        let read = text(&ndpi(flow));
        assert_eq!(read, ["6 10.0.0.1 5 10.0.0.2 6 3/2", "58 fd00::1 0 fd00::2 0 1/0"]);
        let log = "#fields\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\torig_pkts\tresp_pkts\t\
                   ip_proto\n10.0.0.2\t8\t10.0.0.1\t0\t1\t2\t1\n";
        assert_eq!(text(&zeek(log)), ["1 10.0.0.1 0 10.0.0.2 0 2/1"]);
        let yaml = "checks:\n  - filter:\n      match:\n        src_ip: 10.0.0.1\n        \
                    dest_ip: 10.0.0.2\n        proto: UDP\n        src_port: 5\n        dest_port: \
                    6\n  - stats:\n      decoder.ipv4: 7\n";
        let claims = suricata(yaml);
        assert_eq!(text(&claims), ["17 10.0.0.1 5 10.0.0.2 6 0/0"]);
        assert_eq!(claims.ipv4_packets, Some(7));
    }
}
