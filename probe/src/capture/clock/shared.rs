//! A conversion that one thread writes and others read.
//!
//! In: a [`Conversion`] once a second. Out: whole copies of the newest one.
//! Cost: one load a look; eight when there is a new one.
//! Invariants: a worker never waits, and nobody sees half of one conversion and half of another.
//! Source: sequence lock, Boehm, "Can Seqlocks Get Along with Programming Language Memory Models?",
//! MSPC 2012.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::Conversion;
use crate::time::Timestamp;

/// A conversion that one thread publishes and others read.
#[derive(Debug, Default)]
pub struct SharedConversion {
    /// Odd while it is being written.
    version: AtomicU64,
    words: [AtomicU64; 7],
}

impl SharedConversion {
    /// Publishes; only one thread may call it.
    pub fn publish(&self, conversion: &Conversion) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let c = conversion;
        let words = [
            c.base_ticks,
            c.base.0,
            c.rate,
            c.slew.cast_unsigned(),
            c.slew_ticks,
            c.error_ns,
            c.drift_ppb,
        ];
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.version.store(version + 2, Ordering::Release);
    }

    /// The newest conversion, for who asks seldom. A writer that is halfway is waited for, which
    /// takes nanoseconds; workers, who never wait, have a [`ConversionReader`].
    pub fn read(&self) -> Conversion {
        loop {
            let version = self.version.load(Ordering::Acquire);
            if let Some(conversion) = self.copy(version) {
                return conversion;
            }
            std::hint::spin_loop();
        }
    }

    /// The conversion of this version; `None` if it is being written or not the newest any more.
    fn copy(&self, version: u64) -> Option<Conversion> {
        if version % 2 == 1 {
            return None;
        }
        let [base_ticks, base, rate, slew, slew_ticks, error_ns, drift_ppb] =
            std::array::from_fn(|place| self.words[place].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let (base, slew) = (Timestamp(base), slew.cast_signed());
        (self.version.load(Ordering::Relaxed) == version).then_some(Conversion {
            base_ticks,
            base,
            rate,
            slew,
            slew_ticks,
            error_ns,
            drift_ppb,
        })
    }
}

/// A reader's copy of a [`SharedConversion`], renewed when there is a new one.
#[derive(Clone, Debug)]
pub struct ConversionReader {
    shared: Arc<SharedConversion>,
    version: u64,
    conversion: Conversion,
}

impl ConversionReader {
    /// Reads `shared`, to which at least one conversion should have been published; before that
    /// all times are the epoch.
    pub fn new(shared: Arc<SharedConversion>) -> Self {
        let mut reader = Self { shared, version: 0, conversion: Conversion::default() };
        reader.refresh();
        reader
    }

    /// The newest conversion; the one before if it is just being written.
    #[inline]
    pub fn refresh(&mut self) -> &Conversion {
        if self.shared.version.load(Ordering::Acquire) != self.version {
            self.renew();
        }
        &self.conversion
    }

    /// Where the conversions come from.
    pub fn shared(&self) -> &Arc<SharedConversion> {
        &self.shared
    }

    /// Never waits: if the writer was halfway, the next burst tries again.
    #[cold]
    fn renew(&mut self) {
        let version = self.shared.version.load(Ordering::Acquire);
        if let Some(conversion) = self.shared.copy(version) {
            self.version = version;
            self.conversion = conversion;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_whole_conversions() {
        let shared = Arc::new(SharedConversion::default());
        // Each word is the same number, so a mixture would show.
        let whole = |number: u64| Conversion {
            base_ticks: number,
            base: Timestamp(number),
            rate: number,
            slew: number.cast_signed(),
            slew_ticks: number,
            error_ns: number,
            drift_ppb: number,
        };
        shared.publish(&whole(1));
        let mut reader = ConversionReader::new(Arc::clone(&shared));
        let writer = std::thread::spawn(move || {
            for number in 2..50_000 {
                shared.publish(&whole(number));
            }
        });
        let mut seen = 0;
        while seen < 49_999 {
            let conversion = *reader.refresh();
            assert_eq!(conversion, whole(conversion.rate));
            assert!(conversion.rate >= seen);
            seen = conversion.rate;
        }
        writer.join().expect("the writer ends");
    }
}
