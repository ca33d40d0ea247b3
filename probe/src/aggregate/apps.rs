//! Messages of applications to transactions: what was asked, and what was answered when.
//!
//! In: excerpts of payload, of each flow in order. Out: a [`Transaction`] each.
//! Cost: reading a message, a look-up of its flow; a pass over what waits a window.
//! Invariants: what waits for an answer is [`WAITING_MAX`] transactions in all, [`QUERIES_MAX`] a flow; that
//! and what waits to be taken is [`HELD_BYTES_MAX`] bytes; what finds no room is counted. An answer counts if
//! it comes within [`DNS_WAIT_NS`] or [`WAIT_NS`] after the question, by the packets' clock; so nothing depends
//! on when anybody looked. A message of TCP that is sent again within [`REPEAT_NS`] is not told again.
//! Source: docs/apps.md.

use crate::app::dns::message::Message;
use crate::app::http::head::{RequestHead, ResponseHead};
use crate::app::tls::hello::{ClientHello, NoHello, ServerHello};
use crate::app::{Application, EXCERPT_OCTETS_MAX, Excerpt};
use crate::decode::protocol;
use crate::hash::KeyedMap;
use crate::spread::FlowKey;
use crate::time::{Timestamp, ms};
use crate::window::ExcerptBlock;

/// Transactions that wait for an answer.
const WAITING_MAX: usize = 65_536;

/// Queries of one flow that wait for an answer.
const QUERIES_MAX: usize = 64;

/// Transactions that wait to be taken; beyond them they are lost and counted.
const DONE_MAX: usize = 1 << 18;

/// Bytes of all that waits, for an answer or to be taken; beyond them it is lost and counted.
const HELD_BYTES_MAX: usize = 256 << 20;

/// Flows with a place, up to which it is remembered what was said on one of which nothing waits.
const REMEMBERED_MAX: usize = 65_536;

/// For how long: TCP repeats what is not acknowledged sooner, but for what nearly never comes to be
/// (RFC 6298 §5).
const REPEAT_NS: u64 = ms(10_000);

/// How long an answer of a name server is waited for.
const DNS_WAIT_NS: u64 = ms(10_000);

/// The same of others.
const WAIT_NS: u64 = ms(60_000);

/// Octets of a hello that are put together: two excerpts.
const HELLO_OCTETS_MAX: usize = 2 * EXCERPT_OCTETS_MAX;

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A name was asked for, or told without being asked for.
    Dns {
        /// The query, or what stands for it.
        message: Box<Message>,
        /// The answer, if it was seen.
        answer: Option<Box<Message>>,
    },
    /// A connection of TLS was opened.
    Tls {
        /// What the client offered, unless it was not seen.
        client: Option<Box<ClientHello>>,
        /// What the server chose, unless it was not seen.
        server: Option<Box<ServerHello>>,
    },
    /// Something was asked for by HTTP.
    Http {
        /// What, unless it was not seen.
        request: Option<Box<RequestHead>>,
        /// What was answered, if it was seen.
        response: Option<Box<ResponseHead>>,
    },
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its flow, and its first message.
    pub flow: Excerpt,
    /// Time of the answer.
    pub answered: Option<Timestamp>,
    /// When nothing more could be said of it.
    pub over: Timestamp,
    /// What was said.
    pub said: Said,
    /// Something of it is missing, because it was longer than what is kept or captured.
    pub is_cut: bool,
}

impl Transaction {
    fn bytes(&self) -> usize {
        let said = match &self.said {
            Said::Dns { message, answer } => {
                message.bytes() + answer.as_ref().map_or(0, |answer| answer.bytes())
            }
            Said::Tls { client, server } => {
                client.as_ref().map_or(0, |client| client.bytes())
                    + server.as_ref().map_or(0, |server| server.bytes())
            }
            Said::Http { request, response } => {
                request.as_ref().map_or(0, |request| request.bytes())
                    + response.as_ref().map_or(0, |response| response.bytes())
            }
        };
        size_of::<Self>() + said
    }
}

/// A query that waits.
struct Query {
    flow: Excerpt,
    message: Box<Message>,
    is_cut: bool,
}

/// A client that waits for its server's hello, or for the rest of its own.
struct Hello {
    flow: Excerpt,
    octets: Vec<u8>,
    client: Option<Box<ClientHello>>,
    is_cut: bool,
}

/// A request that waits.
struct Request {
    flow: Excerpt,
    head: Box<RequestHead>,
    is_cut: bool,
}

/// The last message of one end of a TCP connection.
#[derive(Clone, Copy)]
struct Heard {
    sequence: u32,
    octets: u32,
    at: Timestamp,
}

impl Heard {
    fn of(excerpt: &Excerpt) -> Self {
        let octets = excerpt.payload_octets.max(1);
        Self { sequence: excerpt.sequence, octets, at: excerpt.at }
    }

    /// Whether this begins in it.
    fn has(&self, excerpt: &Excerpt) -> bool {
        excerpt.sequence.wrapping_sub(self.sequence) < self.octets
    }
}

/// What waits on one flow.
#[derive(Default)]
struct Waiting {
    queries: Vec<Query>,
    hello: Option<Box<Hello>>,
    request: Option<Box<Request>>,
    /// By sender.
    heard: [Option<Heard>; 2],
}

/// What a flow takes beside what waits on it: its place in a table that is half full.
const FLOW_BYTES: usize = 2 * size_of::<(FlowName, Waiting)>();

impl Waiting {
    fn len(&self) -> usize {
        self.queries.len() + usize::from(self.hello.is_some()) + usize::from(self.request.is_some())
    }

    fn is_empty(&self) -> bool {
        self.len() == 0 && self.heard.iter().all(Option::is_none)
    }

    /// Of all that waits.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.queries.iter().map(Query::bytes).sum::<usize>()
            + self.hello.as_ref().map_or(0, |hello| hello.bytes())
            + self.request.as_ref().map_or(0, |request| request.bytes())
    }

    /// What was waited for long enough by now, and the bytes that it took.
    fn take_over(&mut self, now: Timestamp) -> Over {
        let is_over = |at: Timestamp, wait_ns| now > at + wait_ns;
        for heard in &mut self.heard {
            heard.take_if(|it| is_over(it.at, REPEAT_NS));
        }
        let mut over = Over::default();
        for query in self.queries.extract_if(.., |it| is_over(it.flow.at, DNS_WAIT_NS)) {
            over.add(query.bytes(), of_query(query));
        }
        if self.queries.is_empty() {
            self.queries = Vec::new();
        }
        if let Some(hello) = self.hello.take_if(|it| is_over(it.flow.at, WAIT_NS)) {
            over.add(hello.bytes(), of_hello(*hello));
        }
        if let Some(request) = self.request.take_if(|it| is_over(it.flow.at, WAIT_NS)) {
            over.add(request.bytes(), of_request(*request));
        }
        over
    }
}

/// Transactions that nobody waits for any more, and the bytes that they took while they waited.
#[derive(Default)]
struct Over {
    transactions: Vec<Transaction>,
    bytes: usize,
}

impl Over {
    fn add(&mut self, bytes: usize, transaction: Transaction) {
        self.bytes += bytes;
        self.transactions.push(transaction);
    }
}

/// What identifies a flow among those of all workers.
type FlowName = (FlowKey, Timestamp);

/// All transactions.
pub struct Apps {
    waiting: KeyedMap<FlowName, Waiting>,
    /// Transactions in it.
    waiting_count: usize,
    done: Vec<Transaction>,
    /// Bytes of both, and how many there may be.
    held_bytes: usize,
    held_bytes_max: usize,
    keeps_queries: bool,
    /// Transactions and messages without room.
    lost: u64,
    /// Messages that are none.
    malformed: u64,
}

impl Apps {
    /// `keeps_queries`: of targets of HTTP the query is kept.
    pub fn new(keeps_queries: bool) -> Self {
        Self {
            waiting: KeyedMap::default(),
            waiting_count: 0,
            done: Vec::new(),
            held_bytes: 0,
            held_bytes_max: HELD_BYTES_MAX,
            keeps_queries,
            lost: 0,
            malformed: 0,
        }
    }

    /// Takes what a worker has heard.
    pub fn take(&mut self, block: &ExcerptBlock) {
        for (excerpt, octets) in block.iter() {
            // First, so that it makes no difference when all flows were looked at.
            let name = name_of(excerpt);
            if let Some(waiting) = self.waiting.get_mut(&name) {
                let over = waiting.take_over(excerpt.at);
                self.give_up(over);
                self.forget_if_empty(&name);
            }
            if self.is_repeated(&name, excerpt) {
                continue;
            }
            match excerpt.application {
                Application::Dns => self.dns(excerpt, octets),
                Application::Tls => self.tls(excerpt, octets),
                Application::Http => self.http(excerpt, octets),
                Application::Unknown | Application::Ssh => {}
            }
        }
    }

    /// Gives up waiting for what can't be answered in time any more: all messages before `now` are there.
    pub fn expire(&mut self, now: Timestamp) {
        let mut all = Over::default();
        for waiting in self.waiting.values_mut() {
            let over = waiting.take_over(now);
            all.bytes += over.bytes;
            all.transactions.extend(over.transactions);
        }
        self.give_up(all);
        let flows = self.waiting.len();
        self.waiting.retain(|_, waiting| !waiting.is_empty());
        self.held_bytes -= (flows - self.waiting.len()) * FLOW_BYTES;
    }

    fn give_up(&mut self, over: Over) {
        self.waiting_count -= over.transactions.len();
        self.held_bytes -= over.bytes;
        for transaction in over.transactions {
            self.finish(transaction);
        }
    }

    /// Whether TCP has sent it again; if not, it is remembered as long as there is room. What a hello was
    /// sent in is looked at by itself.
    fn is_repeated(&mut self, name: &FlowName, excerpt: &Excerpt) -> bool {
        if excerpt.key.protocol != protocol::TCP || excerpt.application == Application::Tls {
            return false;
        }
        let has_room = self.waiting.len() < REMEMBERED_MAX && self.has_room(FLOW_BYTES);
        if !has_room && !self.waiting.contains_key(name) {
            return false;
        }
        let heard = &mut self.flow(*name).heard[excerpt.sender.place()];
        let is_repeated = heard.is_some_and(|it| it.has(excerpt));
        if !is_repeated {
            *heard = Some(Heard::of(excerpt));
        }
        is_repeated
    }

    /// Gives up waiting: nothing more will come.
    pub fn end(&mut self) {
        let taken: usize = self.done.iter().map(Transaction::bytes).sum();
        self.held_bytes = taken;
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            let Waiting { queries, hello, request, .. } = waiting;
            for transaction in queries
                .into_iter()
                .map(of_query)
                .chain(hello.map(|it| of_hello(*it)))
                .chain(request.map(|it| of_request(*it)))
            {
                self.finish(transaction);
            }
        }
        self.waiting_count = 0;
    }

    /// Transactions that were over before `end`, of which all messages are there, since the last call, in
    /// a fixed order; and how many messages were lost or were none. Later ones wait: how many of them are
    /// there hangs on when somebody looks.
    pub fn done(&mut self, end: Timestamp) -> (Vec<Transaction>, [u64; 2]) {
        let mut done: Vec<_> = self.done.extract_if(.., |it| it.over < end).collect();
        self.held_bytes -= done.iter().map(Transaction::bytes).sum::<usize>();
        done.sort_by_key(|it| {
            let key = &it.flow.key;
            (it.flow.at, key.space, key.low, key.high, key.low_port, key.high_port)
        });
        (done, [std::mem::take(&mut self.lost), std::mem::take(&mut self.malformed)])
    }

    fn finish(&mut self, transaction: Transaction) {
        let bytes = transaction.bytes();
        if self.done.len() < DONE_MAX && self.has_room(bytes) {
            self.held_bytes += bytes;
            self.done.push(transaction);
        } else {
            self.lost += 1;
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.held_bytes + bytes <= self.held_bytes_max
    }

    /// What waits on a flow, if there is room for one more of so many bytes.
    fn room(&mut self, flow: &Excerpt, bytes: usize) -> Option<&mut Waiting> {
        if self.waiting_count >= WAITING_MAX || !self.has_room(bytes + FLOW_BYTES) {
            self.lost += 1;
            return None;
        }
        Some(self.flow(name_of(flow)))
    }

    /// What waits on a flow, with a place for it.
    fn flow(&mut self, name: FlowName) -> &mut Waiting {
        self.waiting.entry(name).or_insert_with(|| {
            self.held_bytes += FLOW_BYTES;
            Waiting::default()
        })
    }

    /// One more waits.
    fn waits(&mut self, bytes: usize) {
        self.waiting_count += 1;
        self.held_bytes += bytes;
    }

    /// One that took so many bytes waits no more.
    fn waits_no_more(&mut self, name: &FlowName, bytes: usize) {
        self.waiting_count -= 1;
        self.held_bytes -= bytes;
        self.forget_if_empty(name);
    }

    fn dns(&mut self, excerpt: &Excerpt, octets: &[u8]) {
        let octets = if excerpt.key.protocol == protocol::UDP {
            octets
        } else {
            // The length, which says where the next message begins.
            octets.get(2..).unwrap_or_default()
        };
        let Some(message) = Message::read(octets).map(Box::new) else {
            self.malformed += 1;
            return;
        };
        let is_cut = message.is_cut || is_short(excerpt);
        if message.is_response() {
            return self.dns_answer(excerpt, message, is_cut);
        }
        let query = Query { flow: *excerpt, message, is_cut };
        let bytes = query.bytes();
        let Some(waiting) = self.room(excerpt, bytes) else { return };
        if waiting.queries.iter().any(|known| known.is_repeated_by(excerpt, &query.message)) {
            return;
        }
        if waiting.queries.len() >= QUERIES_MAX {
            self.lost += 1;
            return;
        }
        waiting.queries.push(query);
        self.waits(bytes);
    }

    fn dns_answer(&mut self, excerpt: &Excerpt, answer: Box<Message>, is_cut: bool) {
        let name = name_of(excerpt);
        let queries = self.waiting.get_mut(&name).map(|waiting| &mut waiting.queries);
        let query = queries.and_then(|queries| {
            let place = queries.iter().position(|query| query.is_answered_by(excerpt, &answer))?;
            let query = queries.remove(place);
            // What is empty takes nothing, as is reckoned.
            if queries.is_empty() {
                *queries = Vec::new();
            }
            Some(query)
        });
        let Some(query) = query else {
            // Nobody asked, or nobody saw it.
            let said = Said::Dns { message: answer.clone(), answer: Some(answer) };
            return self.finish(alone(excerpt, said, is_cut));
        };
        self.waits_no_more(&name, query.bytes());
        let said = Said::Dns { message: query.message, answer: Some(answer) };
        let is_cut = is_cut || query.is_cut;
        self.finish(answered(query.flow, excerpt, said, is_cut));
    }

    fn tls(&mut self, excerpt: &Excerpt, octets: &[u8]) {
        let name = name_of(excerpt);
        let waits = self.waiting.get_mut(&name).and_then(|waiting| waiting.hello.as_mut());
        let is_client = waits
            .as_ref()
            .map_or_else(|| begins_hello(octets), |hello| hello.flow.sender == excerpt.sender);
        match (waits, is_client) {
            (Some(hello), true) => {
                let before = hello.bytes();
                // What it becomes is not known before; it is no longer than what came.
                if hello.client.is_none() && self.held_bytes + HELLO_BYTES_MAX > self.held_bytes_max
                {
                    self.lost += 1;
                    return;
                }
                hello.go_on(excerpt, octets);
                self.held_bytes = self.held_bytes + hello.bytes() - before;
            }
            (None, true) => {
                let mut hello = Hello {
                    flow: *excerpt,
                    octets: octets.to_vec(),
                    client: None,
                    is_cut: is_short(excerpt),
                };
                hello.read();
                let bytes = hello.bytes();
                let Some(waiting) = self.room(excerpt, bytes) else { return };
                waiting.hello = Some(Box::new(hello));
                self.waits(bytes);
            }
            (_, false) => {
                let server = ServerHello::read(octets).ok().map(Box::new);
                let Some(hello) = self.take_hello(&name) else {
                    return self.server_alone(excerpt, server);
                };
                let transaction = of_hello(hello);
                let Transaction { flow, said: Said::Tls { client, .. }, is_cut, .. } = transaction
                else {
                    return;
                };
                let has_answered = server.is_some();
                let told = answered(flow, excerpt, Said::Tls { client, server }, is_cut);
                let at = told.answered.filter(|_| has_answered);
                self.finish(Transaction { answered: at, ..told });
            }
        }
    }

    fn take_hello(&mut self, name: &FlowName) -> Option<Hello> {
        let hello = self.waiting.get_mut(name)?.hello.take()?;
        self.waits_no_more(name, hello.bytes());
        Some(*hello)
    }

    /// A server's hello whose client was not heard. What comes behind it may be longer than what is kept.
    fn server_alone(&mut self, excerpt: &Excerpt, server: Option<Box<ServerHello>>) {
        if server.is_none() {
            self.malformed += 1;
            return;
        }
        let said = Said::Tls { client: None, server };
        self.finish(alone(excerpt, said, false));
    }

    fn http(&mut self, excerpt: &Excerpt, octets: &[u8]) {
        let name = name_of(excerpt);
        if octets.starts_with(b"HTTP/") {
            let Some(response) = ResponseHead::read(octets).map(Box::new) else {
                self.malformed += 1;
                return;
            };
            // Another one comes after it.
            if (100..200).contains(&response.status) && response.status != 101 {
                return;
            }
            let is_cut = response.is_cut;
            let response = Some(response);
            let told = match self.take_request(&name) {
                Some(Request { flow, head, is_cut: request_cut }) => {
                    let said = Said::Http { request: Some(head), response };
                    answered(flow, excerpt, said, is_cut || request_cut)
                }
                None => alone(excerpt, Said::Http { request: None, response }, is_cut),
            };
            self.finish(told);
            return;
        }
        let Some(head) = RequestHead::read(octets, self.keeps_queries).map(Box::new) else {
            self.malformed += 1;
            return;
        };
        // One that comes before the answer to the one before is told of by itself.
        if let Some(before) = self.take_request(&name) {
            let given_up = of_request(before);
            let over = given_up.over.min(excerpt.at.max(given_up.flow.at));
            self.finish(Transaction { over, ..given_up });
        }
        let is_cut = head.is_cut;
        let request = Request { flow: *excerpt, head, is_cut };
        let bytes = request.bytes();
        let Some(waiting) = self.room(excerpt, bytes) else { return };
        waiting.request = Some(Box::new(request));
        self.waits(bytes);
    }

    fn take_request(&mut self, name: &FlowName) -> Option<Request> {
        let request = self.waiting.get_mut(name)?.request.take()?;
        self.waits_no_more(name, request.bytes());
        Some(*request)
    }

    fn forget_if_empty(&mut self, name: &FlowName) {
        if self.waiting.get(name).is_some_and(Waiting::is_empty) {
            self.waiting.remove(name);
            self.held_bytes -= FLOW_BYTES;
        }
    }
}

/// What a message says that answers nothing that is known.
fn alone(excerpt: &Excerpt, said: Said, is_cut: bool) -> Transaction {
    Transaction { flow: *excerpt, answered: None, over: excerpt.at, said, is_cut }
}

/// What was asked on `flow`, answered by a message.
fn answered(flow: Excerpt, answer: &Excerpt, said: Said, is_cut: bool) -> Transaction {
    Transaction { flow, answered: Some(answer.at), over: answer.at, said, is_cut }
}

/// What was never answered.
fn given_up(flow: Excerpt, wait_ns: u64, said: Said, is_cut: bool) -> Transaction {
    Transaction { flow, answered: None, over: flow.at + wait_ns, said, is_cut }
}

impl Query {
    /// With room for as many more, as lists have it.
    fn bytes(&self) -> usize {
        2 * size_of::<Self>() + self.message.bytes()
    }

    /// Whether the same is asked again.
    fn is_repeated_by(&self, excerpt: &Excerpt, message: &Message) -> bool {
        self.message.id == message.id
            && self.flow.sender == excerpt.sender
            && self.message.question == message.question
    }

    /// Whether a message of the other end answers it. A server may write the name in other letters, or
    /// leave the question out.
    fn is_answered_by(&self, excerpt: &Excerpt, answer: &Message) -> bool {
        let asks_the_same = match (&self.message.question, &answer.question) {
            (Some(asked), Some(told)) => {
                asked.kind == told.kind && asked.name.eq_ignore_ascii_case(&told.name)
            }
            (_, None) => true,
            (None, Some(_)) => false,
        };
        self.message.id == answer.id && self.flow.sender != excerpt.sender && asks_the_same
    }
}

/// What a hello becomes that goes on, at most: the octets that are put together, or what is read of them, in
/// which none takes more than four bytes.
const HELLO_BYTES_MAX: usize = 4 * (HELLO_OCTETS_MAX + EXCERPT_OCTETS_MAX);

impl Request {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.head.bytes()
    }
}

impl Hello {
    fn bytes(&self) -> usize {
        let client = self.client.as_ref().map_or(0, |client| client.bytes());
        size_of::<Self>() + self.octets.capacity() + client
    }

    /// Puts behind what is there what a further segment has more, be it the next one or the same sent anew
    /// in one that is longer. What was there already stays as it was first.
    fn go_on(&mut self, excerpt: &Excerpt, octets: &[u8]) {
        if self.client.is_some() || self.octets.len() >= HELLO_OCTETS_MAX {
            return;
        }
        let begin = excerpt.sequence.wrapping_sub(self.flow.sequence) as usize;
        // Octets between are missing, or it stands before the hello: that number is large then.
        let Some(known) = self.octets.len().checked_sub(begin) else { return };
        let Some(more) = octets.get(known..).filter(|more| !more.is_empty()) else { return };
        self.octets.extend_from_slice(more);
        self.is_cut |= is_short(excerpt);
        self.read();
    }

    fn read(&mut self) {
        match ClientHello::read(&self.octets) {
            Ok(hello) => {
                self.client = Some(Box::new(hello));
                (self.octets, self.is_cut) = (Vec::new(), false);
            }
            Err(NoHello::Incomplete) => {}
            // What is said of it is that it was there.
            Err(NoHello::Malformed) => self.is_cut = true,
        }
    }
}

fn of_query(query: Query) -> Transaction {
    let Query { flow, message, is_cut } = query;
    given_up(flow, DNS_WAIT_NS, Said::Dns { message, answer: None }, is_cut)
}

fn of_hello(hello: Hello) -> Transaction {
    let Hello { flow, client, is_cut, .. } = hello;
    let is_cut = is_cut || client.is_none();
    given_up(flow, WAIT_NS, Said::Tls { client, server: None }, is_cut)
}

fn of_request(request: Request) -> Transaction {
    let Request { flow, head, is_cut } = request;
    let said = Said::Http { request: Some(head), response: None };
    given_up(flow, WAIT_NS, said, is_cut)
}

/// Whether payload begins as a client's hello does: a record of a handshake, and in it that message
/// (RFC 8446 sections 4 and 5.1). Other records have any octet there.
fn begins_hello(octets: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    octets.first() == Some(&HANDSHAKE) && octets.get(5) == Some(&CLIENT_HELLO)
}

fn name_of(excerpt: &Excerpt) -> FlowName {
    (excerpt.key, excerpt.first_seen)
}

/// Whether there was more payload than is here.
fn is_short(excerpt: &Excerpt) -> bool {
    u32::from(excerpt.octets) < excerpt.payload_octets
}

#[cfg(test)]
mod tests;
