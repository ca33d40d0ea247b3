//! A DNS message: its header, its question, some of its answers.
//!
//! In: the octets of a message, whole or cut. Out: [`Message`], or nothing where it is none.
//! Cost: a pass over the questions, and over what is kept of answers; names and texts are allocated, so this
//! is no work for a worker. Of questions behind the first no name is read, so pointers in them cost nothing.
//! Invariants: never panics; a name takes [`NAME_OCTETS_MAX`] octets and [`JUMPS_MAX`] pointers at most,
//! each to a place before the last; [`ANSWERS_MAX`] answers are kept, of [`ANSWER_TEXT_OCTETS_MAX`] octets in
//! all, and all are counted.
//! Source: RFC 1035 §4.1; AAAA, RFC 3596; SRV, RFC 2782; names of unknown types, RFC 3597 §5.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

/// Answers of a message that are kept.
pub const ANSWERS_MAX: usize = 16;
/// Octets of their texts in all; what is beyond is cut.
const ANSWER_TEXT_OCTETS_MAX: usize = 4_096;
/// Texts of one TXT record that are kept.
const TEXTS_MAX: usize = 4;
/// Octets of a name on the wire at most (RFC 1035 §2.3.4).
const NAME_OCTETS_MAX: usize = 255;
/// Pointers that a name is followed through.
const JUMPS_MAX: usize = 16;
const HEADER_OCTETS: usize = 12;
/// The bit of an answer.
const RESPONSE: u16 = 1 << 15;
/// The bit of a message that its server has cut.
const CUT: u16 = 1 << 9;

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Name, as it is written (RFC 4343 §2.1); `.` for the root.
    pub name: String,
    /// Type.
    pub kind: u16,
    /// Class, without the bit that multicast DNS has there (RFC 6762 §5.4).
    pub class: u16,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordData {
    /// An address, a name, a text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Start of authority, under the names of its fields.
    Fields(&'static str, Value),
    /// Of a type that is not read.
    Other,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whose.
    pub name: String,
    /// Type.
    pub kind: u16,
    /// How long it holds, in seconds.
    pub ttl_s: u32,
    /// What it says.
    pub data: RecordData,
}

impl Answer {
    /// Octets of its texts: pointers make many of a short message.
    fn text_octets(&self) -> usize {
        let data = match &self.data {
            RecordData::Text(text) => text.len(),
            RecordData::Texts(texts) => texts.iter().map(String::len).sum(),
            RecordData::Fields(_, fields) => fields.to_string().len(),
            RecordData::Other => 0,
        };
        self.name.len() + data
    }

    /// Bytes beside itself.
    fn bytes(&self) -> usize {
        /// Of the fields of a record, each with a place in a tree and its name.
        const FIELDS_BYTES: usize = 2_048;
        let data = match &self.data {
            RecordData::Text(text) => text.capacity(),
            RecordData::Texts(texts) => {
                texts.capacity() * size_of::<String>()
                    + texts.iter().map(String::capacity).sum::<usize>()
            }
            RecordData::Fields(_, fields) => FIELDS_BYTES + fields.to_string().len(),
            RecordData::Other => 0,
        };
        self.name.capacity() + data
    }
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Identification.
    pub id: u16,
    /// The flags as they stand in the header: QR, opcode, AA, TC, RD, RA, Z, rcode.
    pub flags: u16,
    /// The first question.
    pub question: Option<Question>,
    /// Answers by the header.
    pub answer_count: u16,
    /// The first of them.
    pub answers: Vec<Answer>,
    /// An answer that should be kept could not be read: the message was cut, or is wrong.
    pub is_cut: bool,
}

impl Message {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let question = self.question.as_ref().map_or(0, |question| question.name.capacity());
        let answers = self.answers.capacity() * size_of::<Answer>();
        size_of::<Self>()
            + question
            + answers
            + self.answers.iter().map(Answer::bytes).sum::<usize>()
    }

    /// Whether it is an answer.
    pub const fn is_response(&self) -> bool {
        self.flags & RESPONSE != 0
    }

    /// The response code, without the part that an OPT record may add.
    pub const fn rcode(&self) -> u8 {
        self.flags.to_be_bytes()[1] & 0xf
    }

    /// Reads a message; `None` where there is no header, or no question where one should be.
    pub fn read(octets: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_OCTETS] = octets.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (flags, questions, answer_count) = (word(2), word(4), word(6));
        let mut message = Self { id: word(0), flags, answer_count, ..Self::default() };
        message.is_cut = flags & CUT != 0;
        let mut at = HEADER_OCTETS;
        if questions > 0 {
            message.question = Some(question(octets, &mut at)?);
        }
        for _ in 1..questions {
            if pass_question(octets, &mut at).is_none() {
                message.is_cut = true;
                return Some(message);
            }
        }
        let mut text_octets = 0;
        for _ in 0..usize::from(answer_count).min(ANSWERS_MAX) {
            let answer = answer(octets, &mut at).filter(|answer| {
                text_octets += answer.text_octets();
                text_octets <= ANSWER_TEXT_OCTETS_MAX
            });
            let Some(answer) = answer else {
                message.is_cut = true;
                break;
            };
            message.answers.push(answer);
        }
        Some(message)
    }

    /// The answers as JSON, under the names that Suricata's EVE has for them: `rrname`, `rrtype`, `ttl`,
    /// and `rdata`, `soa` or `srv`. `None` without any.
    pub fn answers_json(&self) -> Option<Value> {
        let mut all = Vec::new();
        for answer in &self.answers {
            let texts: &[String] = match &answer.data {
                RecordData::Texts(texts) => texts,
                RecordData::Text(text) => std::slice::from_ref(text),
                RecordData::Fields(..) | RecordData::Other => &[],
            };
            for place in 0..texts.len().max(1) {
                let mut one = Map::new();
                one.insert("rrname".to_owned(), answer.name.as_str().into());
                one.insert("rrtype".to_owned(), type_name(answer.kind).into());
                one.insert("ttl".to_owned(), answer.ttl_s.into());
                if let Some(text) = texts.get(place) {
                    one.insert("rdata".to_owned(), text.as_str().into());
                }
                if let RecordData::Fields(name, fields) = &answer.data {
                    one.insert((*name).to_owned(), fields.clone());
                }
                all.push(Value::Object(one));
            }
        }
        (!all.is_empty()).then_some(Value::Array(all))
    }
}

/// Reads the question at `at`, which is then behind it.
fn question(octets: &[u8], at: &mut usize) -> Option<Question> {
    let name = name(octets, at)?;
    let [a, b, c, d] = *octets.get(*at..)?.first_chunk()?;
    *at += 4;
    Some(Question {
        name,
        kind: u16::from_be_bytes([a, b]),
        class: u16::from_be_bytes([c, d]) & 0x7fff,
    })
}

/// Puts `at` behind the question there: five octets of the message, or more, for each.
fn pass_question(octets: &[u8], at: &mut usize) -> Option<()> {
    let end = loop {
        let first = *octets.get(*at)?;
        match first >> 6 {
            0 if first == 0 => break *at + 1,
            0 => *at += usize::from(first) + 1,
            3 => break *at + 2,
            _ => return None,
        }
    };
    *at = end + 4;
    (*at <= octets.len()).then_some(())
}

fn answer(octets: &[u8], at: &mut usize) -> Option<Answer> {
    let name = name(octets, at)?;
    let fixed: &[u8; 10] = octets.get(*at..)?.first_chunk()?;
    let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
    let ttl_s = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let begin = *at + fixed.len();
    let end = begin + length;
    // Names in it may point to what stands before, never behind.
    let up_to_end = octets.get(..end)?;
    *at = end;
    let data = data(up_to_end, begin, kind).unwrap_or(RecordData::Other);
    Some(Answer { name, kind, ttl_s, data })
}

/// The data that begin at `begin` and end with `octets`.
fn data(octets: &[u8], begin: usize, kind: u16) -> Option<RecordData> {
    let own = octets.get(begin..)?;
    let mut at = begin;
    Some(match kind {
        1 => RecordData::Text(Ipv4Addr::from(*own.first_chunk::<4>()?).to_string()),
        28 => RecordData::Text(Ipv6Addr::from(*own.first_chunk::<16>()?).to_string()),
        2 | 5 | 12 | 39 => RecordData::Text(name(octets, &mut at)?),
        15 => {
            at += 2;
            RecordData::Text(name(octets, &mut at)?)
        }
        16 => RecordData::Texts(texts(own)),
        33 => {
            let [a, b, c, d, e, f] = *own.first_chunk()?;
            at += 6;
            let [priority, weight, port] = [[a, b], [c, d], [e, f]].map(u16::from_be_bytes);
            let name = name(octets, &mut at)?;
            RecordData::Fields(
                "srv",
                json!({"priority": priority, "weight": weight, "port": port, "name": name}),
            )
        }
        6 => {
            let (mname, rname) = (name(octets, &mut at)?, name(octets, &mut at)?);
            let (words, _) = octets.get(at..)?.first_chunk::<20>()?.as_chunks::<4>();
            let word = |place: usize| words.get(place).map_or(0, |word| u32::from_be_bytes(*word));
            RecordData::Fields(
                "soa",
                json!({
                    "mname": mname, "rname": rname, "serial": word(0), "refresh": word(1),
                    "retry": word(2), "expire": word(3), "minimum": word(4),
                }),
            )
        }
        _ => RecordData::Other,
    })
}

fn texts(mut octets: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = octets.split_first()
        && let Some((text, rest)) = rest.split_at_checked(usize::from(*length))
        && texts.len() < TEXTS_MAX
    {
        texts.push(String::from_utf8_lossy(text).into_owned());
        octets = rest;
    }
    texts
}

/// Reads the name at `at`, which is then behind it.
fn name(octets: &[u8], at: &mut usize) -> Option<String> {
    let (mut place, mut behind) = (*at, None);
    let (mut jumps, mut length) = (0, 0);
    let mut text = String::new();
    loop {
        let first = *octets.get(place)?;
        match first >> 6 {
            0 if first == 0 => {
                *at = behind.unwrap_or(place + 1);
                if text.is_empty() {
                    text.push('.');
                }
                return Some(text);
            }
            0 => {
                let label = octets.get(place + 1..)?.get(..usize::from(first))?;
                length += label.len() + 1;
                if length > NAME_OCTETS_MAX {
                    return None;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                write_label(label, &mut text);
                place += label.len() + 1;
            }
            3 => {
                let low = *octets.get(place + 1)?;
                let to = usize::from(u16::from_be_bytes([first & 0x3f, low]));
                jumps += 1;
                // Only backward, so that it comes to an end.
                if to >= place || jumps > JUMPS_MAX {
                    return None;
                }
                behind.get_or_insert(place + 2);
                place = to;
            }
            _ => return None,
        }
    }
}

/// Writes a label as zone files do (RFC 1035 §5.1).
fn write_label(label: &[u8], text: &mut String) {
    for octet in label {
        match octet {
            b'.' | b'\\' => {
                text.push('\\');
                text.push(char::from(*octet));
            }
            0x21..=0x7e => text.push(char::from(*octet)),
            _ => {
                text.push('\\');
                let digits = [octet / 100, octet / 10 % 10, octet % 10];
                text.extend(digits.map(|digit| char::from(b'0' + digit)));
            }
        }
    }
}

/// Name of a type (IANA, "DNS Parameters").
pub fn type_name(kind: u16) -> String {
    let known = match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        10 => "NULL",
        12 => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        24 => "SIG",
        25 => "KEY",
        28 => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        39 => "DNAME",
        41 => "OPT",
        43 => "DS",
        44 => "SSHFP",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        50 => "NSEC3",
        51 => "NSEC3PARAM",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        249 => "TKEY",
        250 => "TSIG",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        257 => "CAA",
        other => return format!("TYPE{other}"),
    };
    known.to_owned()
}

/// Name of a class.
pub fn class_name(class: u16) -> String {
    match class {
        1 => "IN".to_owned(),
        3 => "CH".to_owned(),
        4 => "HS".to_owned(),
        254 => "NONE".to_owned(),
        255 => "ANY".to_owned(),
        other => format!("CLASS{other}"),
    }
}

/// Name of a response code.
pub fn rcode_name(rcode: u8) -> String {
    let known = match rcode {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        other => return other.to_string(),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `www.a` CNAME `b.a`, `b.a` A 192.0.2.1, both names by pointers.
    fn answered() -> Vec<u8> {
        let mut octets = vec![0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
        octets.extend(b"\x03www\x01a\x00\x00\x01\x00\x01");
        octets.extend(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01b\xc0\x10");
        octets.extend(b"\xc0\x1f\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02\x01");
        octets
    }

    #[test]
    fn names_and_data_are_read_through_pointers() {
        let mut octets = answered();
        // Where the data of the first answer begins.
        let target = octets.windows(2).position(|pair| pair == b"\x01b").expect("it is there");
        let pointer = octets.windows(2).position(|pair| pair == b"\xc0\x1f").expect("it is there");
        octets[pointer + 1] = u8::try_from(target).expect("short");
        let message = Message::read(&octets).expect("a message");
        assert_eq!((message.id, message.is_response(), message.rcode()), (0xabcd, true, 0));
        let question = message.question.as_ref().expect("a question");
        assert_eq!((question.name.as_str(), question.kind, question.class), ("www.a", 1, 1));
        let [alias, address] = &message.answers[..] else { panic!("two answers: {message:?}") };
        assert_eq!((alias.name.as_str(), alias.kind, alias.ttl_s), ("www.a", 5, 60));
        assert_eq!(alias.data, RecordData::Text("b.a".to_owned()));
        assert_eq!((address.name.as_str(), address.ttl_s), ("b.a", 300));
        assert_eq!(address.data, RecordData::Text("192.0.2.1".to_owned()));
        assert_eq!(
            message.answers_json(),
            Some(json!([
                {"rrname": "www.a", "rrtype": "CNAME", "ttl": 60, "rdata": "b.a"},
                {"rrname": "b.a", "rrtype": "A", "ttl": 300, "rdata": "192.0.2.1"},
            ]))
        );
    }

    /// A message may have hundreds of questions that point to one long name: following each would cost a
    /// hundred times as much as the message has octets.
    #[test]
    fn names_of_questions_behind_the_first_are_passed_and_not_read() {
        let questions: u16 = 301;
        let mut octets = vec![0, 1, 0x81, 0x80];
        octets.extend(questions.to_be_bytes());
        octets.extend([0, 1, 0, 0, 0, 0]);
        octets.extend(b"\x01a\x00\x00\x01\x00\x01");
        for number in 1..questions {
            // Forward, where no name may point.
            let name: &[u8] = if number % 2 == 0 { b"\xff\xff" } else { b"\x03www\xff\xff" };
            octets.extend(name);
            octets.extend(b"\x00\x01\x00\x01");
        }
        let behind = octets.len();
        octets.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01");
        let message = Message::read(&octets).expect("a message");
        assert_eq!((message.is_cut, message.answers.len()), (false, 1));
        assert_eq!(message.answers[0].data, RecordData::Text("192.0.2.1".to_owned()));
        for cut in [behind - 1, behind - 3, behind - 6, 20] {
            let message = Message::read(&octets[..cut]).expect("its first question is there");
            assert!(message.is_cut && message.answers.is_empty(), "{cut}");
        }
    }

    #[test]
    fn octets_that_are_no_letters_are_three_digits() {
        let mut text = String::new();
        write_label(&[0, 9, b'.', b'a', 127, 255], &mut text);
        assert_eq!(text, "\\000\\009\\.a\\127\\255");
    }

    #[test]
    fn a_pointer_forward_or_to_itself_is_no_name() {
        for to in [12, 13, 40] {
            let mut octets = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            octets.extend([0xc0, to, 0, 1, 0, 1]);
            octets.extend(b"\x01a\x00".repeat(20));
            assert_eq!(Message::read(&octets), None, "{to}");
        }
    }

    #[test]
    fn what_is_cut_says_so() {
        let whole = answered();
        for length in 0..whole.len() {
            match Message::read(&whole[..length]) {
                Some(message) => assert!(message.is_cut, "{length}"),
                None => assert!(length < 12 + 11, "{length}"),
            }
        }
    }

    #[test]
    fn labels_are_written_as_zone_files_do() {
        let mut octets = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        octets.extend(b"\x04a.b\\\x02\xff \x00\x00\x10\x80\x01");
        let question = Message::read(&octets).and_then(|it| it.question).expect("a question");
        assert_eq!(question.name, "a\\.b\\\\.\\255\\032");
        assert_eq!((question.kind, question.class), (16, 1));
        let root = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
        let question = Message::read(&root).and_then(|it| it.question).expect("a question");
        assert_eq!(question.name, ".");
    }

    proptest! {
        /// Whatever comes, there is no panic, and what is kept has a bound.
        #[test]
        fn arbitrary_octets_are_read_within_bounds(
            octets in prop::collection::vec(any::<u8>(), 0..600),
            questions in 0_u8..3,
            answers in 0_u8..40,
            pointers in prop::collection::vec((0_usize..600, any::<u8>()), 0..40),
        ) {
            let mut octets = octets;
            if octets.len() >= 12 {
                (octets[4], octets[5], octets[6], octets[7]) = (0, questions, 0, answers);
            }
            for (at, to) in pointers {
                if let Some(place) = octets.get_mut(at..at + 2) {
                    place.copy_from_slice(&[0xc0, to]);
                }
            }
            if let Some(message) = Message::read(&octets) {
                prop_assert!(message.answers.len() <= ANSWERS_MAX);
                // An octet is written with four characters at most.
                let bound = 4 * NAME_OCTETS_MAX + 128;
                let names = message.answers.iter().map(|answer| &answer.name);
                let names = names.chain(message.question.iter().map(|it| &it.name));
                for name in names {
                    prop_assert!(name.len() <= bound);
                }
            }
        }
    }
}
