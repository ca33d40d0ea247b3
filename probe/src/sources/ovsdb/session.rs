//! One connection to a server, from the handshake to its end.
//!
//! In: messages of the server. Out: the rows of a [`Switch`], brought up to date, and why it ended.
//! Cost: one look at all plugs for all messages that came at once.
//! Invariants: a server that is silent for too long, or says what nobody can use, is left. What was said
//! before stays as it was until another connection says otherwise.
//! Source: RFC 7047 section 4.1; `monitor_cond_since`, ovsdb-server(7) section 4.1.15.

use std::io;

use serde_json::{Value, json};

use super::Switch;
use super::database::UpdateError;
use super::frame::{FrameError, Framer};
use super::rpc::{self, Message, RpcError, ServerError};
use super::schema::{Columns, DATABASE, SchemaError};
use super::stream::{ConnectError, Connector, Stream};
use crate::config::MIB;
use crate::sources::SourceHandle;
use crate::time::{monotonic_ns, ms, wall_clock};

/// The name of our monitor.
const MONITOR: &str = "vmprobe";
/// Transaction that no server knows.
const NO_TRANSACTION: &str = "00000000-0000-0000-0000-000000000000";
/// Messages that are taken over before what changed is said.
const MESSAGES_AT_ONCE: usize = 256;

/// Ways to monitor, the best first; an old server does not know all of them.
const METHODS: [Method; 3] = [Method::Since, Method::Conditional, Method::Plain];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// With the transaction after which to go on; Open vSwitch 2.12.
    Since,
    /// With differences; Open vSwitch 2.6.
    Conditional,
    /// RFC 7047.
    Plain,
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Since => "monitor_cond_since",
            Self::Conditional => "monitor_cond",
            Self::Plain => "monitor",
        }
    }
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There was none.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// What came are no messages.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What came is no message.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The server refuses.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// It is another database, or another version.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// An update cannot be taken over.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// An answer or an update has another shape.
    #[error("{what} has not the shape that the protocol wants")]
    Shape {
        /// Of what.
        what: &'static str,
    },
    /// A question found no answer.
    #[error("no answer to {method} within {timeout_ms} ms (inventory.ovsdb.timeout_ms)")]
    NoAnswer {
        /// The question.
        method: &'static str,
        /// As configured.
        timeout_ms: u32,
    },
    /// Nothing comes, not even an answer to an echo.
    #[error("the server has been silent for {silent_ms} ms")]
    Silent {
        /// For so long.
        silent_ms: u64,
    },
    /// The server has ended the monitor.
    #[error("the server ended the monitor: its database was removed or converted")]
    Cancelled,
    /// The probe ends.
    #[error("stopped")]
    Stopped,
}

/// Connects and follows the database until something ends it.
pub(super) fn run(
    switch: &mut Switch,
    connector: &mut Connector,
    handle: &SourceHandle,
) -> Result<(), Failure> {
    let stream = connector.connect(&switch.plan, handle)?;
    let bytes_max = usize::try_from(u64::from(switch.plan.message_mib_max) * MIB);
    let mut session = Session {
        framer: Framer::new(bytes_max.unwrap_or(usize::MAX)),
        stream,
        questions: 0,
        heard_ns: monotonic_ns(),
        asked_echo: false,
        handle,
        switch,
    };
    session.columns()?;
    let method = session.monitor()?;
    session.follow(method)
}

struct Session<'a> {
    stream: Stream,
    framer: Framer,
    questions: u64,
    heard_ns: u64,
    /// The server was asked whether it is there.
    asked_echo: bool,
    handle: &'a SourceHandle,
    switch: &'a mut Switch,
}

impl Session<'_> {
    /// Checks the schema. Other columns than before: what was known is of no use.
    fn columns(&mut self) -> Result<(), Failure> {
        let schema = self.ask("get_schema", &json!([DATABASE]))?;
        let columns = Columns::check(&schema)?;
        let before = self.switch.database.wanted();
        self.switch.database.set_columns(columns);
        if self.switch.database.wanted() != before {
            self.switch.forget();
        }
        Ok(())
    }

    /// Asks for all rows, or for what has changed since the last transaction that is known.
    fn monitor(&mut self) -> Result<Method, Failure> {
        let mut refused = None;
        for method in METHODS {
            let mut params = vec![json!(DATABASE), json!(MONITOR), self.switch.database.wanted()];
            if method == Method::Since {
                let last = self.switch.last_transaction.as_deref();
                params.push(json!(last.unwrap_or(NO_TRANSACTION)));
            }
            match self.ask(method.name(), &json!(params)) {
                Ok(answer) => {
                    self.begin(method, &answer)?;
                    return Ok(method);
                }
                Err(Failure::Server(error)) if error.is_unknown_method() => refused = Some(error),
                Err(failure) => return Err(failure),
            }
        }
        Err(refused.map_or(Failure::Shape { what: "monitor" }, Failure::Server))
    }

    fn begin(&mut self, method: Method, answer: &Value) -> Result<(), Failure> {
        let shape = Failure::Shape { what: "the answer to monitor" };
        let (goes_on, transaction, rows) = match (method, answer.as_array().map(Vec::as_slice)) {
            (Method::Since, Some([found, transaction, rows])) => {
                (found.as_bool().ok_or(shape)?, transaction.as_str(), rows)
            }
            (Method::Since, _) => return Err(shape),
            _ => (false, None, answer),
        };
        if !goes_on {
            self.switch.database.clear();
            self.switch.statements.say_again();
        }
        self.switch.last_transaction = transaction.map(str::to_owned);
        match method {
            Method::Plain => self.switch.database.update(rows)?,
            Method::Since | Method::Conditional => self.switch.database.update2(rows)?,
        }
        tracing::info!(
            source = self.handle.name(),
            method = method.name(),
            goes_on,
            "inventory source: monitor"
        );
        Ok(())
    }

    /// Takes over what comes.
    fn follow(&mut self, method: Method) -> Result<(), Failure> {
        let mut is_said = self.switch.publish(self.handle);
        self.switch.is_live(self.handle);
        loop {
            let mut messages = 0;
            while messages < MESSAGES_AT_ONCE
                && let Some(message) = self.whole_message()?
            {
                messages += 1;
                is_said &= !self.take(message, method)?;
            }
            if !is_said {
                is_said = self.switch.publish(self.handle);
            }
            if messages < MESSAGES_AT_ONCE {
                self.receive()?;
            }
            self.echo()?;
        }
    }

    /// Takes over one message; `true` where it changes a row.
    fn take(&mut self, message: Message, method: Method) -> Result<bool, Failure> {
        match message {
            Message::Request { id, method, params } => self.answer(&id, &method, &params)?,
            Message::Answer { .. } => {}
            Message::Notice { method: told, params } => {
                return self.notice(&told, &params, method);
            }
        }
        Ok(false)
    }

    fn notice(&mut self, told: &str, params: &Value, method: Method) -> Result<bool, Failure> {
        let params = params.as_array().map(Vec::as_slice).unwrap_or_default();
        let database = &mut self.switch.database;
        match (told, params, method) {
            ("update3", [monitor, transaction, rows], Method::Since) if monitor == MONITOR => {
                database.update2(rows)?;
                self.switch.last_transaction = transaction.as_str().map(str::to_owned);
            }
            ("update2", [monitor, rows], Method::Conditional) if monitor == MONITOR => {
                database.update2(rows)?;
            }
            ("update", [monitor, rows], Method::Plain) if monitor == MONITOR => {
                database.update(rows)?;
            }
            ("update" | "update2" | "update3", ..) => {
                return Err(Failure::Shape { what: "an update" });
            }
            ("monitor_canceled", ..) => return Err(Failure::Cancelled),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A question and its answer.
    fn ask(&mut self, method: &'static str, params: &Value) -> Result<Value, Failure> {
        self.questions += 1;
        let question = self.questions;
        self.stream.send(&rpc::request(question, method, params))?;
        let timeout_ms = self.switch.plan.timeout_ms;
        let end_ns = monotonic_ns().saturating_add(ms(timeout_ms.into()));
        loop {
            match self.whole_message()? {
                Some(Message::Answer { id, result }) if id == json!(question) => {
                    return Ok(result?);
                }
                Some(Message::Request { id, method, params }) => {
                    self.answer(&id, &method, &params)?;
                }
                Some(_) => {}
                None => self.receive()?,
            }
            if monotonic_ns() > end_ns {
                return Err(Failure::NoAnswer { method, timeout_ms });
            }
        }
    }

    /// Answers an echo; servers ask for nothing else.
    fn answer(&mut self, id: &Value, method: &str, params: &Value) -> Result<(), Failure> {
        if method == "echo" {
            self.stream.send(&rpc::answer(id, params))?;
        }
        Ok(())
    }

    /// The next message that has come whole.
    fn whole_message(&mut self) -> Result<Option<Message>, Failure> {
        let Some(octets) = self.framer.next()? else { return Ok(None) };
        self.heard_ns = monotonic_ns();
        self.asked_echo = false;
        self.handle.heard(wall_clock());
        Ok(Some(rpc::parse(&octets)?))
    }

    /// Waits for octets, a tick at most.
    fn receive(&mut self) -> Result<(), Failure> {
        if self.handle.is_stopping() {
            return Err(Failure::Stopped);
        }
        if let Some(octets) = self.stream.receive()? {
            self.framer.push(octets);
        }
        Ok(())
    }

    /// Asks a silent server whether it is there, and gives it up where it is not.
    fn echo(&mut self) -> Result<(), Failure> {
        let plan = &self.switch.plan;
        let (echo_ns, answer_ns) = (ms(plan.echo_ms.into()), ms(plan.timeout_ms.into()));
        let silent_ns = monotonic_ns().saturating_sub(self.heard_ns);
        if silent_ns > echo_ns + answer_ns {
            return Err(Failure::Silent { silent_ms: silent_ns / 1_000_000 });
        }
        if silent_ns > echo_ns && !self.asked_echo {
            self.asked_echo = true;
            self.questions += 1;
            self.stream.send(&rpc::request(self.questions, "echo", &json!([])))?;
        }
        Ok(())
    }
}
