//! Reads a meter from a thread of its own, in its own rhythm, until told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use edgeyard_measure::energy::Reading;

use super::Meter;
use crate::clock;
use crate::error::Failure;

/// No meter is read more often.
const LEAST_PAUSE: Duration = Duration::from_millis(1);

/// What a meter told.
#[derive(Debug)]
pub struct Recording {
    /// The meter's name.
    pub name: String,
    /// What it measured.
    pub scope: String,
    /// Nominal time between readings in nanoseconds.
    pub period: u64,
    /// Supply voltage, where it is known.
    pub millivolts: Option<u64>,
    /// In order.
    pub readings: Vec<Reading>,
    /// Why it stopped early.
    pub failure: Option<Failure>,
}

/// A thread that reads.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Recording>>,
}

impl Sampler {
    /// Begins to read; time stamps count from `epoch`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(mut meter: Box<dyn Meter>, epoch: u64) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("meter".into()).spawn(move || {
            let pause = Duration::from_nanos(meter.period()).max(LEAST_PAUSE);
            let (mut readings, mut failure) = (Vec::new(), None);
            loop {
                // The flag is looked at before the reading, so that the last reading is after the stop.
                let last = stopped.load(Ordering::Relaxed);
                match meter.read(clock::now() - epoch) {
                    Ok(new) => readings.extend(new),
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
                if last {
                    break;
                }
                std::thread::park_timeout(pause);
            }
            Recording {
                name: meter.name(),
                scope: meter.scope(),
                period: meter.period(),
                millivolts: meter.millivolts(),
                readings,
                failure,
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends reading.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn finish(mut self) -> Result<Recording, Failure> {
        self.end().ok_or_else(|| super::failed("the thread that read the meter is gone".into()))
    }

    fn end(&mut self) -> Option<Recording> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take()?;
        thread.thread().unpark();
        thread.join().ok()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.end();
    }
}
