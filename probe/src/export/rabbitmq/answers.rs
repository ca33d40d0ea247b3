//! What the broker answers to a window of messages, and how long it is waited for.
//!
//! In: confirmations that are on their way. Out: which records are safe, and why others are not.
//! Invariants: who goes on answering is waited for, however slow; who says nothing for a whole `timeout_ms` is
//! not, and what has an answer by then counts. No record counts as safe beside one that came back: which
//! of them a queue took is not certain (lapin gives a returned message to the next confirmation).

use std::time::Duration;

use lapin::Confirmation;
use tokio::time::{Instant, timeout_at};

/// Until when the broker may say nothing.
pub(super) struct Patience {
    timeout: Duration,
    until: Instant,
    is_over: bool,
}

impl Patience {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, until: Instant::now() + timeout, is_over: false }
    }

    /// Waits for something of the broker's, after which it has as long again. Once it was silent for too long,
    /// nothing is waited for: only what is there by now comes.
    pub(super) async fn wait<T, E: ToString>(
        &mut self,
        what: impl Future<Output = Result<T, E>>,
    ) -> Result<T, String> {
        let Ok(outcome) = timeout_at(self.until, what).await else {
            self.is_over = true;
            return Err("no answer in timeout_ms".to_owned());
        };
        if !self.is_over {
            self.until = Instant::now() + self.timeout;
        }
        outcome.map_err(|error| error.to_string())
    }
}

/// What it said to a window.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// Numbers of records that it has, in a queue.
    pub(super) taken: Vec<usize>,
    /// Taken by the broker, by no queue.
    pub(super) returned: u64,
    pub(super) refused: u64,
    /// Why the rest has no answer.
    pub(super) failed: Option<String>,
}

impl Answers {
    /// Of `confirms`, by the number of their record.
    pub(super) async fn of<E: ToString>(
        confirms: Vec<(usize, impl Future<Output = Result<Confirmation, E>>)>,
        patience: &mut Patience,
    ) -> Self {
        let mut answers = Self::default();
        for (number, confirm) in confirms {
            match patience.wait(confirm).await {
                Ok(Confirmation::Ack(None)) => answers.taken.push(number),
                Ok(Confirmation::Ack(Some(_))) => answers.returned += 1,
                Ok(Confirmation::Nack(_) | Confirmation::NotRequested) => answers.refused += 1,
                Err(what) => {
                    answers.failed.get_or_insert(what);
                }
            }
        }
        if answers.returned > 0 {
            answers.taken.clear();
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, sleep_until};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    /// Answers to some messages, each so long after the beginning, or none.
    fn answers<const N: usize>(after_ms: [Option<u64>; N]) -> (Answers, Duration) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a thread").block_on(async {
            let begun = Instant::now();
            let confirm = |after_ms: Option<u64>| async move {
                match after_ms {
                    Some(ms) => sleep_until(begun + Duration::from_millis(ms)).await,
                    None => std::future::pending().await,
                }
                Ok::<_, String>(Confirmation::Ack(None))
            };
            let confirms = after_ms.map(confirm).into_iter().enumerate().collect();
            let answers = Answers::of(confirms, &mut Patience::new(TIMEOUT)).await;
            (answers, begun.elapsed())
        })
    }

    #[test]
    fn a_slow_broker_is_waited_for_as_long_as_it_answers() {
        let (found, took) = answers([Some(500), Some(1_000), Some(1_500), Some(2_000)]);
        assert_eq!(found, Answers { taken: vec![0, 1, 2, 3], ..Answers::default() });
        assert!(took >= 2 * TIMEOUT, "{took:?}");
    }

    #[test]
    fn silence_is_waited_for_once_and_what_has_an_answer_counts() {
        let mut after_ms = [None; 1_000];
        (after_ms[1], after_ms[999]) = (Some(10), Some(20));
        let (found, took) = answers(after_ms);
        assert_eq!(found.taken, [1, 999]);
        assert_eq!(found.failed.as_deref(), Some("no answer in timeout_ms"));
        // Not a timer for each of the others.
        assert!(took < TIMEOUT + Duration::from_millis(800), "{took:?}");
    }

    #[test]
    fn an_answer_that_is_an_error_is_told_and_ends_no_wait_for_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let found = runtime.expect("a thread").block_on(async {
            let confirm = |number: u64| async move {
                sleep(Duration::from_millis(10 * number)).await;
                if number == 1 { Err("gone") } else { Ok(Confirmation::Nack(None)) }
            };
            let confirms = [0, 1, 2].map(confirm).into_iter().enumerate().collect();
            Answers::of(confirms, &mut Patience::new(TIMEOUT)).await
        });
        let failed = Some("gone".to_owned());
        assert_eq!(found, Answers { refused: 2, failed, ..Answers::default() });
    }
}
