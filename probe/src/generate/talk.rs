//! What the two ends of a TCP connection say, in turn.
//!
//! In: the kind of conversation. Out: [`Script`]: messages of both sides with the time each
//! takes to think.
//! Invariants: a script's bytes do not depend on when or how often they are sent.
//! Source: HTTP/1.1, RFC 9112; PostgreSQL frontend/backend protocol 3.0, chapter "Message
//! Formats".

use super::cloud::Talk;
use super::random::{Random, low32};
use super::tls;

/// Octets of [`Filler`].
const FILLER_OCTETS: usize = 1 << 16;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client = 0,
    Server = 1,
}

impl Side {
    /// The other end.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Octets that stand for what nobody reads: random ones, or text.
pub(super) struct Filler {
    random: Vec<u8>,
    text: Vec<u8>,
}

impl Filler {
    /// Makes both kinds.
    pub(super) fn new(random: &mut Random) -> Self {
        let mut octets = vec![0; FILLER_OCTETS];
        random.fill(&mut octets);
        let lines = b"<p>All values are made up; any likeness to a real shop is chance.</p>\n";
        let text = lines.iter().copied().cycle().take(FILLER_OCTETS).collect();
        Self { random: octets, text }
    }
}

/// A piece of a message.
enum Part {
    Octets(Vec<u8>),
    /// So many octets from a place of the random filler.
    Random {
        from: usize,
        octets: usize,
    },
    /// So many octets of the text filler.
    Text {
        octets: usize,
    },
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Octets(octets) => octets.len(),
            Self::Random { octets, .. } | Self::Text { octets } => *octets,
        }
    }

    fn slice<'a>(&'a self, filler: &'a Filler) -> &'a [u8] {
        match self {
            Self::Octets(octets) => octets,
            Self::Random { from, octets } => &filler.random[*from..from + octets],
            Self::Text { octets } => &filler.text[..*octets],
        }
    }
}

/// One side's turn.
pub(super) struct Message {
    pub(super) side: Side,
    /// How long the side thinks before it speaks.
    pub(super) think_us: u64,
    parts: Vec<Part>,
}

impl Message {
    /// Length in octets.
    pub(super) fn octets(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// Appends the octets `from..to` of the message to `out`.
    pub(super) fn copy(&self, from: u64, to: u64, filler: &Filler, out: &mut Vec<u8>) {
        let mut start = 0;
        for part in &self.parts {
            let end = start + part.len() as u64;
            let (low, high) = (from.max(start), to.min(end));
            if low < high {
                let place = |at: u64| usize::try_from(at - start).unwrap_or(0);
                out.extend_from_slice(&part.slice(filler)[place(low)..place(high)]);
            }
            start = end;
        }
    }
}

/// A whole conversation.
pub(super) struct Script {
    pub(super) port: u16,
    pub(super) messages: Vec<Message>,
}

impl Script {
    /// The script of a conversation over TCP; `None` for what is not TCP.
    pub(super) fn of(talk: &Talk, random: &mut Random) -> Option<Self> {
        match talk {
            Talk::Https(name) => Some(https(name, random)),
            Talk::Http(port, host) => Some(http(*port, host, random)),
            Talk::Postgres => Some(postgres(random)),
            Talk::Dns(_) | Talk::Ping => None,
        }
    }
}

fn message(side: Side, think_us: u64, parts: Vec<Part>) -> Message {
    Message { side, think_us, parts }
}

fn noise(random: &mut Random, octets: usize) -> Part {
    let room = FILLER_OCTETS.saturating_sub(octets) as u64;
    Part::Random { from: usize::try_from(random.below(room)).unwrap_or(0), octets }
}

/// Mostly short, sometimes long: the square of an even spread.
fn size(random: &mut Random, most: u64) -> usize {
    let even = random.between(1, 1_000);
    usize::try_from(even * even * most / 1_000_000 + 64).unwrap_or(64)
}

fn https(name: &str, random: &mut Random) -> Script {
    use Side::{Client, Server};
    let certificate = usize::try_from(random.between(1_800, 3_200)).unwrap_or(2_000);
    let mut messages = vec![
        message(Client, 0, vec![Part::Octets(tls::client_hello(name, random))]),
        message(
            Server,
            random.between(300, 1_200),
            vec![Part::Octets(tls::server_flight(certificate, random)), noise(random, certificate)],
        ),
    ];
    for round in 0..random.between(1, 2) {
        let request = usize::try_from(random.between(180, 700)).unwrap_or(200);
        let mut parts = Vec::new();
        if round == 0 {
            parts.push(Part::Octets(tls::change_cipher()));
            parts.push(Part::Octets(tls::application_head(53).into()));
            parts.push(noise(random, 53));
        }
        parts.push(Part::Octets(tls::application_head(request).into()));
        parts.push(noise(random, request));
        messages.push(message(Client, random.between(200, 20_000), parts));
        let mut left = size(random, 16_000);
        let mut parts = Vec::new();
        while left > 0 {
            let octets = left.min(tls::RECORD_OCTETS_MAX);
            parts.push(Part::Octets(tls::application_head(octets).into()));
            parts.push(noise(random, octets));
            left -= octets;
        }
        messages.push(message(Server, random.between(500, 12_000), parts));
    }
    Script { port: 443, messages }
}

fn http(port: u16, host: &str, random: &mut Random) -> Script {
    let paths = ["/", "/items", "/items/17", "/basket", "/static/site.css", "/health"];
    let mut messages = Vec::new();
    for _ in 0..random.between(1, 3) {
        let path = random.pick(&paths);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: shop/2.4\r\nAccept: */*\r\n\r\n"
        );
        let think_us = random.between(100, 8_000);
        messages.push(message(Side::Client, think_us, vec![Part::Octets(request.into_bytes())]));
        let octets = size(random, 12_000);
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: tiers\r\nContent-Type: text/html\r\n\
             Content-Length: {octets}\r\n\r\n"
        );
        let parts = vec![Part::Octets(head.into_bytes()), Part::Text { octets }];
        messages.push(message(Side::Server, random.between(400, 15_000), parts));
    }
    Script { port, messages }
}

fn postgres(random: &mut Random) -> Script {
    use Side::{Client, Server};
    let names = b"\0\x03\0\0user\0shop\0database\0shop\0\0";
    let startup = [&length32(names.len() + 4)[..], names].concat();
    let ready = pg(b'Z', b"I");
    let welcome =
        [pg(b'R', &[0; 4]), pg(b'S', b"server_version\x0015.6\0"), ready.clone()].concat();
    let mut messages = vec![
        message(Client, 0, vec![Part::Octets(startup)]),
        message(Server, random.between(300, 900), vec![Part::Octets(welcome)]),
    ];
    for _ in 0..random.between(1, 4) {
        let query = format!("SELECT note FROM items WHERE id = {}\0", random.below(100_000));
        let think_us = random.between(100, 3_000);
        messages.push(message(Client, think_us, vec![Part::Octets(pg(b'Q', query.as_bytes()))]));
        let octets = size(random, 8_000);
        let column = b"\0\x01note\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
        // A row's length counts itself, the number of columns and the column's length.
        let row = [&b"D"[..], &length32(octets + 10), &[0, 1], &length32(octets)].concat();
        let head = [pg(b'T', column), row].concat();
        let tail = [pg(b'C', b"SELECT 1\0"), ready.clone()].concat();
        let parts = vec![Part::Octets(head), Part::Text { octets }, Part::Octets(tail)];
        messages.push(message(Server, random.between(200, 6_000), parts));
    }
    messages.push(message(Client, 100, vec![Part::Octets(pg(b'X', b""))]));
    Script { port: 5432, messages }
}

fn pg(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &length32(body.len() + 4), body].concat()
}

fn length32(length: usize) -> [u8; 4] {
    low32(length as u64).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_a_message_gives_the_same_octets() {
        let mut random = Random::new(3);
        let filler = Filler::new(&mut random);
        for talk in [Talk::Https("a.example".into()), Talk::Http(80, "b".into()), Talk::Postgres] {
            let script = Script::of(&talk, &mut random).expect("is TCP");
            for message in &script.messages {
                let mut whole = Vec::new();
                message.copy(0, message.octets(), &filler, &mut whole);
                assert_eq!(whole.len() as u64, message.octets());
                let mut pieces = Vec::new();
                for from in (0..message.octets()).step_by(7) {
                    let to = (from + 7).min(message.octets());
                    message.copy(from, to, &filler, &mut pieces);
                }
                assert_eq!(pieces, whole);
            }
        }
    }

    #[test]
    fn tls_records_fill_their_length() {
        let mut random = Random::new(4);
        let filler = Filler::new(&mut random);
        for message in &https("shop.example", &mut random).messages {
            let mut rest = Vec::new();
            message.copy(0, message.octets(), &filler, &mut rest);
            let mut rest = rest.as_slice();
            while let Some((head, after)) = rest.split_first_chunk::<5>() {
                let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
                rest = after.get(length..).expect("the record is whole");
            }
            assert!(rest.is_empty());
        }
    }
}
