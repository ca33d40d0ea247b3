//! DPDK, behind safe types: the only unsafe code of the probe.
//!
//! In: the configuration's `EalPlan` and `PortPlan`. Out: one [`Eal`] a process, [`Port`]s, and
//! for each receive queue one [`RxQueue`], which gives bursts of packets.
//! Cost: one foreign call to receive a burst, one to give it back; no allocation in between.
//! Invariants: a queue has one owner (neither `Copy` nor `Clone`, `&mut` to poll); packets borrow
//! their burst; whatever can touch DPDK's memory holds a reference that keeps it there.
//! Source: DPDK 22.11, Programmer's Guide, chapters Environment Abstraction Layer, Mbuf Library,
//! Poll Mode Driver.

mod arguments;
mod console;
mod counts;
mod eal;
mod error;
mod features;
mod huge_pages;
mod packet_sockets;
mod pool;
mod port;
mod prefetch;
mod rx_queue;
mod tsc;
mod tx_queue;
mod worker_thread;

pub use arguments::{eal_arguments, worker_cores};
pub use eal::Eal;
pub use error::{EalError, PortError, PortWarning};
pub use features::StampKind;
pub use huge_pages::{HugePiece, HugeTable};
pub use port::{NicStats, Port};
pub use prefetch::{prefetch, prefetch_at, prefetch_to_write};
pub use rx_queue::{BURST_PACKETS_MAX, Packet, RingFill, RxBurst, RxQueue, VlanTags};
pub use tsc::{Reading, read_device_clock, read_tsc};
pub use tx_queue::TxQueue;
pub use worker_thread::{WorkerThread, pin_thread};
