//! Reads a meter from a thread of its own, in its own rhythm, until told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use edgeyard_measure::energy::Series;

use super::{Meter, failed};
use crate::clock;
use crate::error::Failure;

/// A meter that says nothing for so long when it is started does not work.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the stop a stream may still hold readings of the time before it: so often it is looked at again.
const LAST_LOOKS: u32 = 20;
/// Where a meter's period is told by its own readings only, and there were too few.
const LONGEST_PERIOD: u64 = 1_000_000_000;

/// What a meter told.
#[derive(Debug)]
pub struct Recording {
    /// The meter's name.
    pub name: String,
    /// What it measured.
    pub scope: String,
    /// Supply voltage, where it is known.
    pub millivolts: Option<u64>,
    /// What it told, in order.
    pub series: Series,
    /// Why it stopped early.
    pub failure: Option<Failure>,
}

/// A thread that reads.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(Recording, Box<dyn Meter>)>>,
}

impl Sampler {
    /// Begins to read, and waits for the first reading; time stamps count from `epoch`.
    ///
    /// # Errors
    /// `MeterFailed` when the meter fails before its first reading, or says nothing.
    pub fn start(meter: Box<dyn Meter>, epoch: u64) -> Result<Self, Failure> {
        Self::with_clock(meter, move || clock::now().saturating_sub(epoch))
    }

    /// The same with a clock of the caller's.
    pub fn with_clock(mut meter: Box<dyn Meter>, clock: impl Fn() -> u64 + Send + 'static) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (first, told) = channel();
        let name = meter.name();
        let thread = std::thread::Builder::new()
            .name("meter".into())
            .spawn(move || (record(meter.as_mut(), &clock, &stopped, &first), meter))?;
        let mut sampler = Self { stop, thread: Some(thread) };
        match told.recv_timeout(PATIENCE) {
            Ok(()) => Ok(sampler),
            // The thread ended: the meter failed first.
            Err(RecvTimeoutError::Disconnected) => Err(sampler
                .end()
                .and_then(|(recording, _)| recording.failure)
                .unwrap_or_else(|| failed("the thread that read the meter is gone"))),
            Err(RecvTimeoutError::Timeout) => {
                Err(failed(format!("meter {name} told nothing within {} s", PATIENCE.as_secs())))
            }
        }
    }

    /// Ends reading, and hands back the meter.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn finish(mut self) -> Result<(Recording, Box<dyn Meter>), Failure> {
        self.end().ok_or_else(|| failed("the thread that read the meter is gone"))
    }

    fn end(&mut self) -> Option<(Recording, Box<dyn Meter>)> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take()?;
        thread.thread().unpark();
        thread.join().ok()
    }
}

fn record(meter: &mut dyn Meter, clock: &dyn Fn() -> u64, stopped: &AtomicBool, first: &Sender<()>) -> Recording {
    let mut series = Series::new(meter.quantity(), 0);
    let mut failure = None;
    let (mut stopped_at, mut last_looks) = (None, 0);
    if let Err(error) = meter.begin() {
        failure = Some(error);
    }
    while failure.is_none() {
        // The flag is looked at before the reading, so that the last reading is after the stop.
        if stopped.load(Ordering::Relaxed) && stopped_at.is_none() {
            stopped_at = Some(clock());
        }
        match meter.read(clock()) {
            Ok(new) => {
                if series.readings.is_empty() && !new.is_empty() {
                    // Nobody waits any more if the start was given up.
                    let _ = first.send(());
                }
                series.readings.extend(new);
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
        if let Some(stopped_at) = stopped_at {
            last_looks += 1;
            let is_over = series.readings.last().is_some_and(|reading| reading.nanoseconds >= stopped_at);
            if is_over || last_looks > LAST_LOOKS || series.readings.is_empty() {
                break;
            }
            std::thread::sleep(meter.pause());
        } else {
            std::thread::park_timeout(meter.pause());
        }
    }
    meter.end();
    series.period = match meter.period() {
        0 => LONGEST_PERIOD,
        period => period,
    };
    series.lost = meter.lost();
    Recording { name: meter.name(), scope: meter.scope(), millivolts: meter.millivolts(), series, failure }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeyard_measure::energy::{EnergyError, Reading};
    use std::sync::atomic::AtomicU64;

    /// A watt at every look; fails at one.
    struct Steady {
        looks: u64,
        fails_at: u64,
    }

    impl Meter for Steady {
        fn name(&self) -> String {
            "steady".into()
        }
        fn scope(&self) -> String {
            "board".into()
        }
        fn period(&self) -> u64 {
            1_000_000
        }
        fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
            self.looks += 1;
            if self.looks >= self.fails_at {
                Err(failed("unplugged"))
            } else {
                Ok(vec![Reading { nanoseconds: now, value: 1.0 }])
            }
        }
    }

    fn stepping(step: impl Fn(u64) -> u64 + Send + 'static) -> impl Fn() -> u64 + Send + 'static {
        let looks = AtomicU64::new(0);
        move || step(looks.fetch_add(1, Ordering::Relaxed))
    }

    /// Records until the meter fails.
    fn recorded(fails_at: u64, clock: impl Fn() -> u64 + Send + 'static) -> Recording {
        let mut sampler = Sampler::with_clock(Box::new(Steady { looks: 0, fails_at }), clock).unwrap();
        sampler.thread.take().unwrap().join().unwrap().0
    }

    #[test]
    fn what_a_meter_told_before_it_was_unplugged_is_kept() {
        let recording = recorded(21, stepping(|look| look * 1_000_000));
        assert_eq!(recording.series.readings.len(), 20);
        assert_eq!(recording.failure.unwrap().reason, "MeterFailed");
        let energy = recording.series.integrate(0, 10_000_000).unwrap();
        assert!((energy.joules - 0.01).abs() < 1e-9);
    }

    #[test]
    fn a_meter_that_fails_at_once_fails_the_start() {
        let failure = Sampler::with_clock(Box::new(Steady { looks: 0, fails_at: 1 }), || 0).err().unwrap();
        assert_eq!((failure.reason.as_str(), failure.message.as_str()), ("MeterFailed", "unplugged"));
    }

    #[test]
    fn a_clock_that_jumps_is_found() {
        let back = recorded(30, stepping(|look| if look < 10 { look * 1_000_000 } else { (look - 5) * 1_000_000 }));
        assert!(matches!(back.series.integrate(0, 20_000_000), Err(EnergyError::ClockJumped { .. })));
        let ahead = recorded(30, stepping(|look| if look < 10 { look * 1_000_000 } else { (look + 500) * 1_000_000 }));
        assert!(matches!(ahead.series.integrate(0, 515_000_000), Err(EnergyError::Gap { .. })));
    }
}
