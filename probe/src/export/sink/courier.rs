//! The thread that takes a sink's batches to the destination, one at a time.
//!
//! In: a batch and the plan to deliver it by. Out: what became of it.
//! Invariants: it waits for the destination, and only it: whoever hands a batch over does not.

use std::io;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{Batch, Delivered, Driver, Failure};
use crate::config::SinkPlan;

/// Makes the driver of a plan. Another one is made where the plan has changed.
pub(super) type MakeDriver = Box<dyn Fn(&SinkPlan) -> Box<dyn Driver> + Send>;

/// One attempt.
type Job = (Arc<Batch>, Arc<SinkPlan>);

/// The keeper's end.
pub(super) struct Courier {
    jobs: Sender<Job>,
    /// What became of the last job.
    pub(super) done: Receiver<Result<Delivered, Failure>>,
}

impl Courier {
    /// Starts the thread. It ends by itself, at the latest after the attempt that it is at.
    pub(super) fn start(name: &str, make: MakeDriver) -> io::Result<Self> {
        let (jobs, taken) = bounded::<Job>(1);
        let (done_sender, done) = bounded(1);
        std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || run(&taken, &done_sender, &make))?;
        Ok(Self { jobs, done })
    }

    /// Hands a batch over. Only when the one before is done.
    pub(super) fn send(&self, batch: Arc<Batch>, plan: Arc<SinkPlan>) -> bool {
        self.jobs.try_send((batch, plan)).is_ok()
    }
}

fn run(jobs: &Receiver<Job>, done: &Sender<Result<Delivered, Failure>>, make: &MakeDriver) {
    let mut current: Option<(Arc<SinkPlan>, Box<dyn Driver>)> = None;
    while let Ok((batch, plan)) = jobs.recv() {
        let stale = current.as_ref().is_none_or(|(made_by, _)| !Arc::ptr_eq(made_by, &plan));
        if stale {
            current = Some((Arc::clone(&plan), make(&plan)));
        }
        let Some((_, driver)) = &mut current else { return };
        let outcome = driver.deliver(&batch);
        drop(batch);
        if done.send(outcome).is_err() {
            return;
        }
    }
}
