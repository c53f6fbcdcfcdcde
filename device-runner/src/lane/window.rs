//! The loops that time queries. Between two readings of the clock stands the inference alone, or, where a query is more than
//! one inference or has to wait for its turn, all that it needs.
//!
//! Clock and engine are given, so that tests can move the one and count the other.

use super::protocol::{Measure, Span};
use crate::clock;
use crate::error::Failure;
use crate::runtime::Engine;

/// What takes inputs and infers.
pub trait Feed {
    /// Takes the next input.
    ///
    /// # Errors
    /// What the engine says.
    fn set_input(&mut self) -> Result<(), Failure>;

    /// Infers.
    ///
    /// # Errors
    /// What the engine says.
    fn run(&mut self) -> Result<(), Failure>;
}

/// Inputs that are kept, one after the other, in an engine.
#[allow(missing_debug_implementations)] // an engine has none
pub struct Kept<'a> {
    /// What infers.
    pub engine: &'a mut dyn Engine,
    /// The inputs.
    pub inputs: &'a [Vec<u8>],
    /// The one that is next.
    pub next: &'a mut usize,
}

impl Feed for Kept<'_> {
    #[inline]
    fn set_input(&mut self) -> Result<(), Failure> {
        let Some(input) = self.inputs.get(*self.next) else {
            return Err(Failure::infrastructure("LaneProtocol", "no inputs are kept"));
        };
        *self.next = (*self.next + 1) % self.inputs.len();
        self.engine.set_input(input)
    }

    #[inline]
    fn run(&mut self) -> Result<(), Failure> {
        self.engine.run()
    }
}

/// What tells the time, in nanoseconds.
pub trait Clock {
    /// The time.
    fn now(&mut self) -> u64;

    /// Another clock of the machine, which counts from elsewhere.
    fn other(&mut self) -> u64;

    /// Returns at `due` or later.
    fn wait_until(&mut self, due: u64);
}

/// The clock of records, beside the one that goes on while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic;

impl Clock for Monotonic {
    #[inline]
    fn now(&mut self) -> u64 {
        clock::now()
    }

    fn other(&mut self) -> u64 {
        clock::boot_time()
    }

    fn wait_until(&mut self, due: u64) {
        // The kernel may wake a sleeper late; the rest is spent looking at the clock.
        const MARGIN: u64 = 200_000;
        loop {
            let now = clock::now();
            if now >= due {
                return;
            }
            if due - now > 2 * MARGIN {
                std::thread::sleep(std::time::Duration::from_nanos(due - now - MARGIN));
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// Two clocks may differ by this much over a window, and by a hundredth of it: time daemons steer one of them by less.
const CLOCK_SLACK: u64 = 10_000_000;

/// Watches that the clock goes forward, and as fast as the other.
struct Watch {
    start: u64,
    other: u64,
    jumped: bool,
}

impl Watch {
    fn start(clock: &mut impl Clock) -> Self {
        Self { other: clock.other(), start: clock.now(), jumped: false }
    }

    /// The time between two readings; 0, and noted, if the second is before the first.
    #[inline]
    fn between(&mut self, before: u64, after: u64) -> u64 {
        if after < before {
            self.jumped = true;
            return 0;
        }
        after - before
    }

    fn end(mut self, clock: &mut impl Clock, count: u64) -> Span {
        let end = clock.now();
        let passed = self.between(self.start, end);
        let other = clock.other().saturating_sub(self.other);
        let jumped = self.jumped || passed.abs_diff(other) > CLOCK_SLACK + other / 100;
        Span { start: self.start, end, count, clock_jumped: jumped }
    }
}

/// Queries without a pause. `samples` gets pairs of start and duration of those that are timed.
///
/// # Errors
/// What the engine says.
pub fn closed(
    plan: &Measure,
    clock: &mut impl Clock,
    feed: &mut impl Feed,
    samples: &mut Vec<u64>,
) -> Result<Span, Failure> {
    let Measure { rewarm_count: _, nanoseconds, minimum_count, inferences_per_query, sample_every, room } = *plan;
    let mut watch = Watch::start(clock);
    // A clock that stands still or goes back must not make a window endless.
    let most = minimum_count.max(nanoseconds.saturating_mul(2) / 50).max(1);
    let mut count = 0;
    let mut until_sample = 0_u64;
    loop {
        feed.set_input()?;
        let before = clock.now();
        feed.run()?;
        for _ in 1..inferences_per_query {
            feed.set_input()?;
            feed.run()?;
        }
        let after = clock.now();
        let duration = watch.between(before, after);
        if until_sample == 0 {
            if samples.len() as u64 / 2 < room {
                samples.push(before);
                samples.push(duration);
            }
            until_sample = sample_every;
        }
        until_sample = until_sample.saturating_sub(1);
        count += 1;
        let passed = watch.between(watch.start, after);
        if passed >= nanoseconds && count >= minimum_count || count >= most {
            return Ok(watch.end(clock, count));
        }
    }
}

/// Queries that arrive at `arrivals` nanoseconds from now, each waiting for those before it. `samples` gets pairs of the
/// scheduled arrival and the time from there to the answer, as LoadGen's Server scenario counts it.
///
/// # Errors
/// What the engine says.
pub fn open(
    arrivals: &[u64],
    clock: &mut impl Clock,
    feed: &mut impl Feed,
    samples: &mut Vec<u64>,
) -> Result<Span, Failure> {
    let mut watch = Watch::start(clock);
    let begin = watch.start;
    for arrival in arrivals {
        let due = begin + arrival;
        clock.wait_until(due);
        feed.set_input()?;
        feed.run()?;
        let after = clock.now();
        samples.push(due);
        samples.push(watch.between(due, after));
    }
    Ok(watch.end(clock, arrivals.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A clock that each inference moves on, and that the other may leave.
    struct Fake<'a> {
        now: &'a Cell<u64>,
        other: &'a Cell<u64>,
    }

    impl Clock for Fake<'_> {
        fn now(&mut self) -> u64 {
            self.now.get()
        }

        fn other(&mut self) -> u64 {
            self.other.get()
        }

        fn wait_until(&mut self, due: u64) {
            let ahead = due.saturating_sub(self.now.get());
            self.now.set(self.now.get() + ahead);
            self.other.set(self.other.get() + ahead);
        }
    }

    struct Stub<'a, F: FnMut(u64) -> i64> {
        now: &'a Cell<u64>,
        other: &'a Cell<u64>,
        /// What the clock shows more than passed, by inference.
        jump: F,
        inferences: u64,
        inputs: u64,
    }

    impl<F: FnMut(u64) -> i64> Feed for Stub<'_, F> {
        fn set_input(&mut self) -> Result<(), Failure> {
            self.inputs += 1;
            self.pass(1_000);
            Ok(())
        }

        fn run(&mut self) -> Result<(), Failure> {
            self.pass(1_000_000);
            let jump = (self.jump)(self.inferences);
            self.now.set(self.now.get().saturating_add_signed(jump));
            self.inferences += 1;
            Ok(())
        }
    }

    impl<F: FnMut(u64) -> i64> Stub<'_, F> {
        fn pass(&self, nanoseconds: u64) {
            self.now.set(self.now.get() + nanoseconds);
            self.other.set(self.other.get() + nanoseconds);
        }
    }

    const PLAN: Measure = Measure {
        rewarm_count: 0,
        nanoseconds: 100_000_000,
        minimum_count: 1,
        inferences_per_query: 1,
        sample_every: 1,
        room: 1000,
    };

    fn run(plan: &Measure, jump: impl FnMut(u64) -> i64) -> (Span, Vec<u64>, u64) {
        let (now, other) = (Cell::new(5_000_000_000), Cell::new(9_000_000_000));
        let mut engine = Stub { now: &now, other: &other, jump, inferences: 0, inputs: 0 };
        let mut samples = Vec::new();
        let span = closed(plan, &mut Fake { now: &now, other: &other }, &mut engine, &mut samples).unwrap();
        assert_eq!(engine.inputs, engine.inferences);
        (span, samples, engine.inferences)
    }

    #[test]
    fn an_inference_is_timed_without_its_input() {
        let (span, samples, _) = run(&PLAN, |_| 0);
        assert_eq!(span.count, 100_000_000_u64.div_ceil(1_001_000));
        assert!(samples.chunks(2).all(|pair| pair[1] == 1_000_000) && !span.clock_jumped);
        assert_eq!((span.end - span.start, samples.len() as u64), (span.count * 1_001_000, span.count * 2));
    }

    #[test]
    fn a_query_of_eight_is_timed_as_one() {
        let (span, samples, inferences) = run(&Measure { inferences_per_query: 8, ..PLAN }, |_| 0);
        assert_eq!(inferences, span.count * 8);
        assert!(samples.chunks(2).all(|pair| pair[1] == 8_007_000), "{samples:?}");
    }

    #[test]
    fn where_room_is_short_one_of_several_is_timed_and_all_are_counted() {
        let (span, samples, inferences) = run(&Measure { sample_every: 4, ..PLAN }, |_| 0);
        assert_eq!((samples.len() as u64 / 2, inferences), (span.count.div_ceil(4), span.count));
        let (span, samples, _) = run(&Measure { room: 7, ..PLAN }, |_| 0);
        assert_eq!((samples.len(), span.count), (14, 100));
    }

    #[test]
    fn a_window_has_as_many_queries_as_it_must() {
        assert_eq!(run(&Measure { minimum_count: 500, ..PLAN }, |_| 0).0.count, 500);
    }

    #[test]
    fn a_clock_that_jumps_is_seen() {
        let (back, samples, _) = run(&PLAN, |n| if n == 50 { -30_000_000 } else { 0 });
        assert!(back.clock_jumped && samples.contains(&0));
        let (ahead, ..) = run(&PLAN, |n| if n == 50 { 40_000_000 } else { 0 });
        assert!(ahead.clock_jumped);
        // Before the window began.
        let (far, ..) = run(&PLAN, |n| if n == 3 { -4_999_000_000 } else { 0 });
        assert!(far.clock_jumped);
        assert!(!run(&PLAN, |n| if n == 50 { 500_000 } else { 0 }).0.clock_jumped, "a clock that is steered a little");
    }

    #[test]
    fn queries_wait_for_those_before_them() {
        let (now, other) = (Cell::new(1_000), Cell::new(0));
        let mut engine = Stub { now: &now, other: &other, jump: |_| 0, inferences: 0, inputs: 0 };
        let mut samples = Vec::new();
        let arrivals = [0, 500_000, 10_000_000, 10_000_000];
        let span = open(&arrivals, &mut Fake { now: &now, other: &other }, &mut engine, &mut samples).unwrap();
        let service = 1_001_000;
        let latencies: Vec<u64> = samples.chunks(2).map(|pair| pair[1]).collect();
        assert_eq!(latencies, [service, 2 * service - 500_000, service, 2 * service]);
        assert_eq!((samples[2], span.count, span.clock_jumped), (501_000, 4, false));
    }
}
