//! Watches the machine from the side while variants are measured: stolen processor time, clock, governor, temperature, load,
//! who else wants the processors, and a Raspberry Pi's throttle bits.
//!
//! A thread of the runner reads a handful of small files four times a second; its own processor time is reported, so that
//! the disturbance is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Root, cooling, throttle, vcgencmd};

/// Time between two looks.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// One look.
#[derive(Clone, Debug, Default, PartialEq)]
struct Look {
    stolen_ticks: Option<u64>,
    all_ticks: Option<u64>,
    runnable: Option<u64>,
    waited_microseconds: Option<u64>,
    kilohertz: Option<u64>,
    governor: Option<String>,
    millidegrees: Option<i64>,
    load: Option<f64>,
    raspberry_pi_bits: Option<u32>,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Looks.
    pub looks: u64,
    /// Share of processor time that the host gave to others.
    pub stolen: Option<f64>,
    /// Lowest and highest clock of the first processor.
    pub kilohertz: Option<(u64, u64)>,
    /// The first processor's governors, in the order in which they were seen; more than one: somebody changed it.
    pub governors: Vec<String>,
    /// Temperature of the hottest zone, when measuring began and at its highest.
    pub millidegrees: Option<(i64, i64)>,
    /// Highest load average of a minute.
    pub load: Option<f64>,
    /// Threads of the whole machine that ran or wanted to, ours included: mean and most.
    pub runnable: Option<(f64, u64)>,
    /// Share of time in which some thread of the machine waited for a processor (pressure stall information).
    pub waiting: Option<f64>,
    /// A Raspberry Pi's live throttle bits, of all looks together; see [`throttle::between`].
    pub raspberry_pi_bits: Option<u32>,
    /// Processor time that watching took.
    pub own_nanoseconds: u64,
    /// How long was watched.
    pub watched_nanoseconds: u64,
}

impl Seen {
    /// Share of one processor that watching took.
    pub fn own_share(&self) -> Option<f64> {
        (self.watched_nanoseconds > 0).then(|| self.own_nanoseconds as f64 / self.watched_nanoseconds as f64)
    }
}

fn look(root: &Root) -> Look {
    const FREQUENCY: &str = "/sys/devices/system/cpu/cpu0/cpufreq";
    let stat = root.read("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .map(|line| line.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default();
    let pressure = root.read("/proc/pressure/cpu").unwrap_or_default();
    Look {
        stolen_ticks: ticks.get(7).copied(),
        all_ticks: (ticks.len() == 8).then(|| ticks.iter().sum()),
        runnable: stat.lines().find_map(|line| line.strip_prefix("procs_running ")?.trim().parse().ok()),
        waited_microseconds: pressure
            .lines()
            .find_map(|line| line.strip_prefix("some ")?.split_once("total=")?.1.trim().parse().ok()),
        kilohertz: root.read(&format!("{FREQUENCY}/scaling_cur_freq")).and_then(|text| text.parse().ok()),
        governor: root.read(&format!("{FREQUENCY}/scaling_governor")),
        millidegrees: cooling::hottest(root),
        load: root.read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
        // By mailbox only: a process four times a second would disturb more than it tells.
        raspberry_pi_bits: throttle::raspberry_pi(root, vcgencmd::ask_mailbox),
    }
}

/// What a series of looks comes to.
fn summarise(looks: &[Look], own_nanoseconds: u64, watched_nanoseconds: u64) -> Seen {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else { return Seen::default() };
    let passed = last.all_ticks.zip(first.all_ticks).map(|(last, first)| last.saturating_sub(first));
    let stolen = last.stolen_ticks.zip(first.stolen_ticks).map(|(last, first)| last.saturating_sub(first));
    let waited =
        last.waited_microseconds.zip(first.waited_microseconds).map(|(last, first)| last.saturating_sub(first));
    let clocks = || looks.iter().filter_map(|look| look.kilohertz);
    let runnable: Vec<u64> = looks.iter().filter_map(|look| look.runnable).collect();
    let mut governors: Vec<String> = Vec::new();
    for governor in looks.iter().filter_map(|look| look.governor.as_ref()) {
        if !governors.contains(governor) {
            governors.push(governor.clone());
        }
    }
    Seen {
        looks: looks.len() as u64,
        stolen: stolen
            .zip(passed)
            .filter(|(_, passed)| *passed > 0)
            .map(|(stolen, passed)| stolen as f64 / passed as f64),
        kilohertz: clocks().min().zip(clocks().max()),
        governors,
        millidegrees: first.millidegrees.zip(looks.iter().filter_map(|look| look.millidegrees).max()),
        load: looks.iter().filter_map(|look| look.load).reduce(f64::max),
        runnable: runnable
            .iter()
            .max()
            .map(|most| (runnable.iter().sum::<u64>() as f64 / runnable.len() as f64, *most)),
        waiting: waited
            .filter(|_| watched_nanoseconds > 0)
            .map(|waited| (waited as f64 * 1e3 / watched_nanoseconds as f64).min(1.0)),
        raspberry_pi_bits: looks.iter().filter_map(|look| look.raspberry_pi_bits).reduce(|a, b| a | b),
        own_nanoseconds,
        watched_nanoseconds,
    }
}

/// Processor time of the calling thread.
fn own_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A watching thread.
#[derive(Debug)]
pub struct Monitor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Monitor {
    /// Begins to watch.
    pub fn start(root: Root) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("monitor".into()).spawn(move || {
            let begun = Instant::now();
            let mut looks = vec![look(&root)];
            let mut next = Instant::now() + INTERVAL;
            while !stopped.load(Ordering::Relaxed) {
                let now = Instant::now();
                if now < next {
                    std::thread::park_timeout(next - now);
                    continue;
                }
                looks.push(look(&root));
                next = now + INTERVAL;
            }
            looks.push(look(&root));
            summarise(&looks, own_time(), begun.elapsed().as_nanos() as u64)
        });
        Self { stop, thread: thread.ok() }
    }

    /// Ends watching; nothing seen if the thread could not be started.
    pub fn finish(mut self) -> Seen {
        self.end().unwrap_or_default()
    }

    fn end(&mut self) -> Option<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take()?;
        thread.thread().unpark();
        thread.join().ok()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_machine_is_summed_up() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let root = Root::new(folder.path());
        let mut looks = Vec::new();
        for (ticks, running, clock, governor, zones, load, waited) in [
            ("100 0 0 900 0 0 0 10 0 0", 2, "1800000", "performance", ["41000", "45000"], "0.10", 1_000_000),
            ("150 0 0 940 0 0 0 20 0 0", 5, "600000", "powersave", ["71000", "45500"], "1.50", 1_250_000),
        ] {
            write("proc/stat", &format!("cpu  {ticks}\ncpu0 1\nprocs_running {running}\nprocs_blocked 0\n"));
            write("proc/loadavg", &format!("{load} 0 0 1/2 3"));
            write(
                "proc/pressure/cpu",
                &format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={waited}\nfull avg10=0.00 total=9\n"),
            );
            write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", clock);
            write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", governor);
            write("sys/class/thermal/thermal_zone0/temp", zones[0]);
            write("sys/class/thermal/thermal_zone1/temp", zones[1]);
            looks.push(look(&root));
        }
        let seen = summarise(&looks, 5_000_000, 1_000_000_000);
        assert_eq!(seen.stolen, Some(0.1));
        assert_eq!(seen.kilohertz, Some((600_000, 1_800_000)));
        assert_eq!(seen.governors, ["performance", "powersave"]);
        assert_eq!(seen.millidegrees, Some((45_000, 71_000)));
        assert_eq!((seen.load, seen.looks, seen.own_share()), (Some(1.5), 2, Some(0.005)));
        // A quarter of a second of one second; two and five threads.
        assert_eq!((seen.waiting, seen.runnable), (Some(0.25), Some((3.5, 5))));
        assert_eq!(seen.raspberry_pi_bits, None);
    }

    #[test]
    fn what_watching_costs_is_measured_on_this_machine() {
        let seen = Monitor::start(Root::default()).finish();
        // Linux tells these to everybody.
        assert!(seen.load.is_some() && seen.runnable.is_some_and(|(_, most)| most >= 1), "{seen:?}");
        assert!(seen.own_nanoseconds > 0 && seen.own_share().is_some(), "{seen:?}");
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Monitor::start(Root::new(folder.path())).finish();
        assert!(seen.looks >= 2);
        assert_eq!((seen.stolen, seen.kilohertz, seen.millidegrees, seen.load), (None, None, None, None));
    }
}
