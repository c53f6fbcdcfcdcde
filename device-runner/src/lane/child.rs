//! The child's side: reads requests until the pipe closes. The measuring loop is here.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::os::fd::FromRawFd as _;

use edgeyard_measure::steady;

use super::protocol::{Disturbance, Load, Measure, Reply, Request, Serve, Span, WarmUp, WarmedUp, receive, send};
use super::window::{self, Feed as _, Kept, Monotonic};
use crate::clock;
use crate::error::Failure;
use crate::machine::{Root, cooling};
use crate::runtime::{self, Engine};

/// Durations whose median tells how long an inference takes.
const LAST: usize = 15;
/// Time between two looks at the temperature, in nanoseconds: looking must not cool the runtime's caches.
const THERMOMETER_PAUSE: u64 = 50_000_000;

/// What a lane has.
struct State {
    engine: Box<dyn Engine>,
    epoch: u64,
    /// Inputs for warm-up and measurement.
    inputs: Vec<Vec<u8>>,
    next: usize,
    /// Touched before the first window, so that no page is missing while it runs.
    samples: Vec<u64>,
    resident_before: Option<u64>,
}

/// Serves requests until the parent hangs up.
///
/// # Errors
/// When the pipe breaks.
pub fn run() -> io::Result<()> {
    // Runtimes print. Frames keep a descriptor of their own; what others print goes to stderr.
    // SAFETY: descriptors 0 to 2 are open; the new one belongs to the File alone.
    let mut to = BufWriter::new(unsafe {
        let frames = libc::dup(1);
        if frames < 0 || libc::dup2(2, 1) < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(frames)
    });
    let mut from = BufReader::new(io::stdin());
    let mut state = None;
    while let Some((request, payload)) = receive::<Request>(&mut from)? {
        let mut answer = Vec::new();
        let reply = serve(&mut state, request, payload, &mut answer).unwrap_or_else(Reply::Failed);
        send(&mut to, &reply, &answer)?;
    }
    Ok(())
}

fn serve(
    state: &mut Option<State>,
    request: Request,
    payload: Vec<u8>,
    answer: &mut Vec<u8>,
) -> Result<Reply, Failure> {
    if let Request::Load(load) = request {
        let (loaded, reply) = load_model(*load)?;
        *state = Some(loaded);
        return Ok(reply);
    }
    let state = state.as_mut().ok_or_else(|| Failure::infrastructure("LaneProtocol", "no model is loaded"))?;
    let pieces = |count: usize| {
        let size = payload.len().checked_div(count).unwrap_or(0);
        if size == 0 || size * count != payload.len() {
            return Err(Failure::infrastructure("LaneProtocol", "the inputs do not divide"));
        }
        Ok(payload.chunks_exact(size))
    };
    match request {
        Request::Load(_) => Err(Failure::infrastructure("LaneProtocol", "a model is loaded already")),
        Request::Keep { count } => {
            state.inputs = pieces(count)?.map(<[u8]>::to_vec).collect();
            state.next = 0;
            Ok(Reply::Kept)
        }
        Request::Infer { count } => {
            let inputs: Vec<&[u8]> = pieces(count)?.collect();
            let before = clock::now();
            let first_end = state.engine.infer_all(&inputs, answer)?;
            Ok(Reply::Inferred { first_nanoseconds: first_end.saturating_sub(before) })
        }
        Request::WarmUp(plan) => state.warm_up(plan).map(Reply::WarmedUp),
        Request::Measure(plan) => state.measure(plan, answer),
        Request::Serve(plan) => {
            let arrivals: Vec<u64> = payload
                .chunks_exact(8)
                .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("pieces have eight bytes")))
                .collect();
            state.serve(plan, &arrivals, answer)
        }
        Request::Count => {
            let inputs: Vec<&[u8]> = state.inputs.iter().map(Vec::as_slice).collect();
            Ok(Reply::Counted(Box::new(state.engine.count(&inputs)?)))
        }
        Request::Usage => {
            let peak = status_bytes("VmHWM:");
            let peak_memory_bytes = peak.zip(state.resident_before).map(|(peak, before)| peak.saturating_sub(before));
            Ok(Reply::Usage { peak_memory_bytes })
        }
    }
}

fn load_model(load: Load) -> Result<(State, Reply), Failure> {
    let Load { model, engine, epoch, window_samples } = load;
    let bytes = fs_err::read(&model)?;
    // Writing ones, not zeros: a page of zeros may be the kernel's shared one.
    let mut samples = vec![1_u64; window_samples * 2];
    samples.clear();
    let resident_before = status_bytes("VmRSS:");
    let before = clock::now();
    let engine = runtime::open(&engine, bytes)?;
    let nanoseconds = clock::now() - before;
    let info = engine.info().clone();
    let state = State { engine, epoch, inputs: Vec::new(), next: 0, samples, resident_before };
    Ok((state, Reply::Loaded { info, nanoseconds }))
}

impl State {
    fn set_next_input(&mut self) -> Result<(), Failure> {
        let Some(input) = self.inputs.get(self.next) else {
            return Err(Failure::infrastructure("LaneProtocol", "no inputs are kept"));
        };
        self.next = (self.next + 1) % self.inputs.len();
        self.engine.set_input(input)
    }

    fn warm_up(&mut self, plan: WarmUp) -> Result<WarmedUp, Failure> {
        let WarmUp { minimum_count, minimum_nanoseconds, maximum_nanoseconds } = plan;
        let mut rule = steady::WarmUp::new(steady::Rule { minimum_count, minimum_nanoseconds, maximum_nanoseconds });
        let root = Root::default();
        let mut looked = 0;
        let mut last = VecDeque::with_capacity(LAST);
        loop {
            self.set_next_input()?;
            let before = clock::now();
            self.engine.run()?;
            let after = clock::now();
            let duration = after.saturating_sub(before);
            if last.len() == LAST {
                last.pop_front();
            }
            last.push_back(duration);
            if after.saturating_sub(looked) >= THERMOMETER_PAUSE {
                looked = after;
                if let Some(millidegrees) = cooling::hottest(&root) {
                    rule.temperature(millidegrees);
                }
            }
            if let Some(outcome) = rule.push(duration) {
                let mut last: Vec<u64> = last.into();
                last.sort_unstable();
                let median_nanoseconds = last[last.len() / 2];
                let steady::Outcome { count, nanoseconds, steady, trend: _, warmer: _ } = outcome;
                return Ok(WarmedUp { count, nanoseconds, median_nanoseconds, steady });
            }
        }
    }

    fn measure(&mut self, plan: Measure, answer: &mut Vec<u8>) -> Result<Reply, Failure> {
        self.timed(plan.rewarm_count, answer, |feed, samples| window::closed(&plan, &mut Monotonic, feed, samples))
    }

    fn serve(&mut self, plan: Serve, arrivals: &[u64], answer: &mut Vec<u8>) -> Result<Reply, Failure> {
        // The window's room is made before it; a Poisson process has no largest number of queries.
        self.samples.reserve(arrivals.len() * 2);
        self.timed(plan.rewarm_count, answer, |feed, samples| window::open(arrivals, &mut Monotonic, feed, samples))
    }

    fn timed(
        &mut self,
        rewarm_count: u64,
        answer: &mut Vec<u8>,
        window: impl FnOnce(&mut Kept, &mut Vec<u64>) -> Result<Span, Failure>,
    ) -> Result<Reply, Failure> {
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        let mut feed = Kept { engine: self.engine.as_mut(), inputs: &self.inputs, next: &mut self.next };
        for _ in 0..rewarm_count {
            feed.set_input()?;
            feed.run()?;
        }
        let before = usage();
        let span = window(&mut feed, &mut samples)?;
        let after = usage();
        let since = |time: u64| time.wrapping_sub(self.epoch);
        let numbers = samples.chunks_exact(2).flat_map(|pair| [since(pair[0]), pair[1]]);
        answer.extend(numbers.flat_map(u64::to_le_bytes));
        self.samples = samples;
        let disturbance = Disturbance {
            involuntary_switches: after.involuntary_switches - before.involuntary_switches,
            voluntary_switches: after.voluntary_switches - before.voluntary_switches,
            minor_faults: after.minor_faults - before.minor_faults,
            major_faults: after.major_faults - before.major_faults,
            waited_nanoseconds: after
                .waited_nanoseconds
                .zip(before.waited_nanoseconds)
                .map(|(after, before)| after.saturating_sub(before)),
        };
        let span = Span { start: since(span.start), end: since(span.end), ..span };
        Ok(Reply::Measured { span, disturbance })
    }
}

fn usage() -> Disturbance {
    // SAFETY: the structure is plain numbers, and the pointer is to a valid one.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut used);
        used
    };
    Disturbance {
        involuntary_switches: used.ru_nivcsw as u64,
        voluntary_switches: used.ru_nvcsw as u64,
        minor_faults: used.ru_minflt as u64,
        major_faults: used.ru_majflt as u64,
        waited_nanoseconds: waited(),
    }
}

/// Time that threads of this process waited for a processor: the second number of their schedstat
/// (Documentation/scheduler/sched-stats).
fn waited() -> Option<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let waits: Vec<u64> = tasks
        .flatten()
        .filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().nth(1)?.parse().ok()
        })
        .collect();
    (!waits.is_empty()).then(|| waits.iter().sum())
}

/// A line of /proc/self/status in bytes.
fn status_bytes(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_processor_is_counted() {
        // How long is the kernel's affair, and threads of other tests come and go.
        assert!(waited().is_some());
    }

    #[test]
    fn the_process_knows_its_memory() {
        // Other tests of this process allocate meanwhile: what is resident now was never above the later high-water mark.
        let resident = status_bytes("VmRSS:").unwrap();
        assert!(status_bytes("VmHWM:").unwrap() >= resident);
        assert_eq!(status_bytes("NoSuchKey:"), None);
    }
}
