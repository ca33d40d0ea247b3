//! Serves the live page with made-up snapshots that advance every second, for work on the page
//! and for its browser test. No packet is involved.
//!
//! Usage: `serve_fixture [ADDRESS] [normal|empty|fault|one_tap]`; the first line printed is the URL.

mod snapshot;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use vmprobe::aggregate::live::live_cell;
use vmprobe::config::ServePlan;
use vmprobe::{serve, time};

const TICK_MS: u64 = 1_000;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listen: SocketAddr = listen.parse().context("first argument: ADDRESS:PORT")?;
    let make = match arguments.next().as_deref() {
        None | Some("normal") => snapshot::normal,
        Some("empty") => |_| snapshot::empty(),
        Some("fault") => snapshot::fault,
        Some("one_tap") => snapshot::one_tap,
        Some(other) => bail!("second argument: {other} is not normal, empty, fault or one_tap"),
    };
    let cell = live_cell(make(snapshot::FIRST_TICK));
    let handle = serve::start(&ServePlan { enabled: true, listen }, Arc::clone(&cell))?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{}/", handle.address())?;
    out.flush()?;
    for tick in snapshot::FIRST_TICK + 1.. {
        time::sleep_ms(TICK_MS);
        cell.store(Arc::new(make(tick)));
    }
    Ok(())
}
