//! IPFIX messages of a transport session.
//!
//! In: batches of [`Entry`]s. Out: messages, each no longer than allowed.
//! Cost: one copy of each record.
//! Invariants: a message's sequence number is that of the data records before it in the session, options
//! included, modulo 2^32; options and flows stand in messages of their own; no record is sent whose template was not sent before in the session, and by UDP
//! not too long before; an id means one template as long as the session lasts.
//! Source: RFC 7011 §3 (formats), §8 (templates), §10.3.6 (UDP); statistics of the exporter, §4.1;
//! type information, RFC 5610.

use std::collections::HashMap;

use super::elements::own_elements;
use super::records::{Entry, field_specifier, next, write_variable};
use crate::config::{IpfixPlan, Transport};
use crate::time::Timestamp;

/// Octets of a message's header.
pub(super) const HEADER_OCTETS: usize = 16;
/// Octets of a set's header.
pub(super) const SET_HEADER_OCTETS: usize = 4;
/// Version of IPFIX.
const VERSION: u16 = 10;
/// Set ids of templates and of options templates.
const TEMPLATES: u16 = 2;
const OPTIONS_TEMPLATES: u16 = 3;
/// First id of a template.
const FIRST_ID: u16 = 256;

/// What a template says: how many fields are scope, and all of them.
type Meaning = (u16, Vec<u8>);

/// A template that was given an id.
#[derive(Clone, Copy, Debug)]
struct Told {
    id: u16,
    /// When and before which message it was sent last; `None`: not yet.
    sent: Option<(u64, u64)>,
}

/// Counts of what was sent, of all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Messages.
    pub(super) messages: u64,
    /// Records of flows.
    pub(super) records: u64,
    /// Octets of messages.
    pub(super) octets: u64,
}

/// What a collector has been told.
#[derive(Debug)]
pub(super) struct Session {
    domain: u32,
    enterprise: u32,
    octets_max: usize,
    /// How long a template is good for, in ns and messages; `None`: as long as the session.
    refresh: Option<(u64, u64)>,
    templates: HashMap<Meaning, Told>,
    next_id: u16,
    /// Data records before the message that is being filled.
    sequence: u32,
    messages: u64,
    /// When the exporter told of itself last, and before which message.
    introduced: Option<(u64, u64)>,
    /// What was told last beside the records, and when, by what it means.
    beside: HashMap<Meaning, (Vec<u8>, (u64, u64))>,
}

/// Messages that are being made of a batch.
struct Making<'a> {
    session: &'a mut Session,
    now: Timestamp,
    now_ns: u64,
    done: Vec<Vec<u8>>,
    message: Vec<u8>,
    /// Id of the open set and where it begins.
    set: Option<(u16, usize)>,
    /// Data records in the message.
    records: u32,
    /// They are options.
    options: bool,
}

/// The batch was made by another version of this program, or no id is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch is no batch of IPFIX records of this version")]
pub(super) struct Broken;

impl Session {
    pub(super) fn new(plan: &IpfixPlan, domain: u32) -> Self {
        let refresh_ns = u64::from(plan.template_refresh_s) * 1_000_000_000;
        let refresh = (refresh_ns, plan.template_refresh_messages.into());
        Self {
            domain,
            enterprise: plan.enterprise_number,
            octets_max: usize::try_from(plan.message_octets_max).unwrap_or(usize::MAX),
            refresh: (plan.url.transport == Transport::Udp).then_some(refresh),
            templates: HashMap::new(),
            next_id: FIRST_ID,
            sequence: 0,
            messages: 0,
            introduced: None,
            beside: HashMap::new(),
        }
    }

    /// Another connection: its collector knows nothing, and sequences begin with 0.
    pub(super) fn restart(&mut self) {
        self.templates.clear();
        self.next_id = FIRST_ID;
        self.rewind(0);
    }

    /// What was told is told again before the next records.
    pub(super) fn tell_again(&mut self) {
        self.rewind(self.sequence);
    }

    /// This message, and those after it, were not sent: their records do not count, and what they told is
    /// to be told again.
    pub(super) fn unsent(&mut self, message: &[u8]) {
        if let Some(sequence) = message.get(8..12).and_then(|it| it.first_chunk()) {
            self.rewind(u32::from_be_bytes(*sequence));
        }
    }

    fn rewind(&mut self, sequence: u32) {
        self.sequence = sequence;
        self.introduced = None;
        self.beside.clear();
        for told in self.templates.values_mut() {
            told.sent = None;
        }
    }

    /// The messages of a batch. `now_ns`: a clock that only goes forward.
    pub(super) fn messages(
        &mut self,
        batch: &[u8],
        now: Timestamp,
        now_ns: u64,
        sent: &Sent,
    ) -> Result<Vec<Vec<u8>>, Broken> {
        let before = self.sequence;
        let made = self.make(batch, now, now_ns, sent);
        if made.is_err() {
            self.rewind(before);
        }
        made
    }

    fn make(
        &mut self,
        batch: &[u8],
        now: Timestamp,
        now_ns: u64,
        sent: &Sent,
    ) -> Result<Vec<Vec<u8>>, Broken> {
        let mut making = Making {
            session: self,
            now,
            now_ns,
            done: Vec::new(),
            message: Vec::new(),
            set: None,
            records: 0,
            options: false,
        };
        making.introduce(sent)?;
        let mut meanings: HashMap<u16, Meaning> = HashMap::new();
        let mut rest = batch;
        while let Some((entry, behind)) = next(rest) {
            rest = behind;
            match entry {
                Entry::Template { number, scope, fields } => {
                    meanings.insert(number, (scope, fields.to_vec()));
                }
                Entry::Record { number, octets, counts } => {
                    let meaning = meanings.get(&number).ok_or(Broken)?;
                    if counts {
                        making.record(meaning, octets)?;
                    } else {
                        making.beside(meaning, octets)?;
                    }
                }
            }
        }
        making.flush();
        if rest.is_empty() { Ok(making.done) } else { Err(Broken) }
    }

    /// Whether what was sent then is to be sent again.
    fn is_stale(&self, sent: Option<(u64, u64)>, now_ns: u64) -> bool {
        let Some((at_ns, message)) = sent else { return true };
        self.refresh.is_some_and(|(refresh_ns, messages)| {
            now_ns.saturating_sub(at_ns) >= refresh_ns || self.messages - message >= messages
        })
    }
}

impl Making<'_> {
    /// Adds a record of what holds for those that follow, unless it was told before and not too long ago.
    fn beside(&mut self, meaning: &Meaning, octets: &[u8]) -> Result<(), Broken> {
        let told = self.session.beside.get(meaning).filter(|(told, _)| told == octets);
        if self.session.is_stale(told.map(|(_, sent)| *sent), self.now_ns) {
            let sent = (self.now_ns, self.session.messages);
            self.session.beside.insert(meaning.clone(), (octets.to_vec(), sent));
            self.record(meaning, octets)?;
        }
        Ok(())
    }

    /// Adds a data record, with its template before it where that is needed.
    fn record(&mut self, meaning: &Meaning, octets: &[u8]) -> Result<(), Broken> {
        let (now_ns, options) = (self.now_ns, meaning.0 > 0);
        // A collector that takes options for no records (nfdump 1.7) counts its sequence from the first
        // flow; and a lost message of options loses no flow.
        if options != self.options {
            self.flush();
            self.options = options;
        }
        let told = match self.session.templates.get(meaning) {
            Some(told) => *told,
            None => {
                let id = self.session.next_id;
                self.session.next_id = id.checked_add(1).ok_or(Broken)?;
                Told { id, sent: None }
            }
        };
        if self.session.is_stale(told.sent, now_ns) {
            let set = if options { OPTIONS_TEMPLATES } else { TEMPLATES };
            self.write(set, &template(told.id, meaning));
            let told = Told { sent: Some((now_ns, self.session.messages)), ..told };
            self.session.templates.insert(meaning.clone(), told);
        }
        self.write(told.id, octets);
        self.records += 1;
        Ok(())
    }

    /// Appends to the set of this id; begins a set, and a message, where that is needed.
    fn write(&mut self, set: u16, octets: &[u8]) {
        let header =
            if self.set.is_some_and(|(open, _)| open == set) { 0 } else { SET_HEADER_OCTETS };
        if self.message.len() + header + octets.len() > self.session.octets_max {
            self.flush();
        }
        if self.message.is_empty() {
            self.message.resize(HEADER_OCTETS, 0);
        }
        if self.set.is_none_or(|(open, _)| open != set) {
            self.close_set();
            self.set = Some((set, self.message.len()));
            self.message.extend_from_slice(&set.to_be_bytes());
            self.message.extend_from_slice(&[0; 2]);
        }
        self.message.extend_from_slice(octets);
    }

    fn close_set(&mut self) {
        let Some((_, begin)) = self.set.take() else { return };
        let length = u16::try_from(self.message.len() - begin).unwrap_or(u16::MAX);
        if let Some(place) = self.message.get_mut(begin + 2..begin + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }

    /// Ends the message, if there is one.
    fn flush(&mut self) {
        self.close_set();
        let length = u16::try_from(self.message.len()).unwrap_or(u16::MAX);
        let seconds = u32::try_from(self.now.as_ns() / 1_000_000_000).unwrap_or(u32::MAX);
        let session = &mut *self.session;
        let Some((header, _)) = self.message.split_first_chunk_mut::<HEADER_OCTETS>() else {
            return;
        };
        let parts: [&[u8]; 5] = [
            &VERSION.to_be_bytes(),
            &length.to_be_bytes(),
            &seconds.to_be_bytes(),
            &session.sequence.to_be_bytes(),
            &session.domain.to_be_bytes(),
        ];
        header.copy_from_slice(&parts.concat());
        session.sequence = session.sequence.wrapping_add(self.records);
        session.messages += 1;
        self.records = 0;
        self.done.push(std::mem::take(&mut self.message));
    }

    /// The exporter tells of itself and its own elements: when a session begins, and by UDP again.
    fn introduce(&mut self, sent: &Sent) -> Result<(), Broken> {
        if !self.session.is_stale(self.session.introduced, self.now_ns) {
            return Ok(());
        }
        self.session.introduced = Some((self.now_ns, self.session.messages));
        // RFC 7011 §4.1: observationDomainId; exportedMessageTotalCount, exportedFlowRecordTotalCount,
        // exportedOctetTotalCount.
        let eight = Some(8);
        let fields = [(149, Some(4)), (41, eight), (42, eight), (40, eight)];
        let meaning = options(&fields, 1);
        let mut record = self.session.domain.to_be_bytes().to_vec();
        for count in [sent.messages, sent.records, sent.octets] {
            record.extend_from_slice(&count.to_be_bytes());
        }
        self.record(&meaning, &record)?;
        // RFC 5610 §3.9: privateEnterpriseNumber, informationElementId; informationElementDataType,
        // informationElementName.
        let fields = [(346, Some(4)), (303, Some(2)), (339, Some(1)), (341, None)];
        let meaning = options(&fields, 2);
        for element in own_elements() {
            let mut record = self.session.enterprise.to_be_bytes().to_vec();
            record.extend_from_slice(&element.number.to_be_bytes());
            record.push(element.data_type);
            write_variable(element.name.as_bytes(), &mut record);
            self.record(&meaning, &record)?;
        }
        Ok(())
    }
}

/// An options template of IANA's elements.
fn options(fields: &[(u16, Option<u16>)], scope: u16) -> Meaning {
    let fields = fields.iter().map(|(number, octets)| field_specifier(None, *number, *octets));
    (scope, fields.collect::<Vec<_>>().concat())
}

/// A template record, RFC 7011 §3.4.1 and §3.4.2.2.
fn template(id: u16, (scope, fields): &Meaning) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(&field_count(fields).to_be_bytes());
    if *scope > 0 {
        out.extend_from_slice(&scope.to_be_bytes());
    }
    out.extend_from_slice(fields);
    out
}

/// How many specifiers these are: of 8 octets with an enterprise number, else of 4.
fn field_count(mut fields: &[u8]) -> u16 {
    let mut count = 0;
    while let Some(first) = fields.first() {
        let octets = if first & 0x80 == 0 { 4 } else { 8 };
        fields = fields.get(octets..).unwrap_or_default();
        count += 1;
    }
    count
}
