//! Kafka: one topic a table, one message a record.
//!
//! In: rows. Out: messages, each with a key by which records that belong together are in one partition.
//! Cost: a batch is handed to the client's bounded queue at once, then its reports are waited for.
//! Invariants: a record counts as delivered when all brokers that must have it (acks=all) have said so; the
//! producer is idempotent, and a batch that is tried again goes on where it was, so what is on its way is
//! not sent beside itself.
//! Source: librdkafka, CONFIGURATION.md and INTRODUCTION.md ("Idempotent Producer"); KIP-98.
//!
//! | file | |
//! |---|---|
//! | `keys` | which records meet |
//! | `messages` | rows → keys and values |
//! | `protobuf` | the other form of a value, and its schema, derived |
//! | `vmprobe.proto` | that schema, whose numbers never change |
//! | `client` | brokers, passwords, certificates → a client's settings |
//! | `producer` | batches → messages at their brokers |

pub(crate) mod client;
mod keys;
mod messages;
mod producer;
mod protobuf;

pub use messages::Messages;
pub use producer::Publisher;
pub(crate) use protobuf::read_row;
pub use protobuf::{COMMITTED, schema};
