//! Watches the machine from the side while variants are measured: stolen processor time, clock, temperature, load.
//!
//! A thread of the runner reads four small files four times a second; its own processor time is reported, so that the
//! disturbance is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Root;

/// Time between two looks.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Look {
    stolen_ticks: Option<u64>,
    all_ticks: Option<u64>,
    kilohertz: Option<u64>,
    millidegrees: Option<i64>,
    load: Option<f64>,
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
    /// Temperature of the hottest zone, when measuring began and at its highest.
    pub millidegrees: Option<(i64, i64)>,
    /// Highest load average of a minute.
    pub load: Option<f64>,
    /// Processor time that watching took.
    pub own_nanoseconds: u64,
}

fn look(root: &Root) -> Look {
    let ticks: Vec<u64> = root
        .read("/proc/stat")
        .and_then(|stat| stat.lines().next().map(str::to_owned))
        .map(|line| line.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default();
    let zones = root.list("/sys/class/thermal");
    let zones = zones.iter().filter(|name| name.starts_with("thermal_zone"));
    Look {
        stolen_ticks: ticks.get(7).copied(),
        all_ticks: (ticks.len() == 8).then(|| ticks.iter().sum()),
        kilohertz: root
            .read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
            .and_then(|text| text.parse().ok()),
        millidegrees: zones
            .filter_map(|zone| root.read(&format!("/sys/class/thermal/{zone}/temp"))?.parse().ok())
            .max(),
        load: root.read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
    }
}

/// What a series of looks comes to.
fn summarise(looks: &[Look], own_nanoseconds: u64) -> Seen {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else { return Seen::default() };
    let passed = last.all_ticks.zip(first.all_ticks).map(|(last, first)| last.saturating_sub(first));
    let stolen = last.stolen_ticks.zip(first.stolen_ticks).map(|(last, first)| last.saturating_sub(first));
    let clocks = || looks.iter().filter_map(|look| look.kilohertz);
    Seen {
        looks: looks.len() as u64,
        stolen: stolen
            .zip(passed)
            .filter(|(_, passed)| *passed > 0)
            .map(|(stolen, passed)| stolen as f64 / passed as f64),
        kilohertz: clocks().min().zip(clocks().max()),
        millidegrees: first.millidegrees.zip(looks.iter().filter_map(|look| look.millidegrees).max()),
        load: looks.iter().filter_map(|look| look.load).reduce(f64::max),
        own_nanoseconds,
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
            summarise(&looks, own_time())
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
        for (stat, clock, zone0, zone1, load) in [
            ("cpu  100 0 0 900 0 0 0 10 0 0\ncpu0 1", "1800000", "41000", "45000", "0.10 0 0"),
            ("cpu  150 0 0 940 0 0 0 20 0 0\ncpu0 1", "600000", "71000", "45500", "1.50 0 0"),
        ] {
            write("proc/stat", stat);
            write("proc/loadavg", load);
            write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", clock);
            write("sys/class/thermal/thermal_zone0/temp", zone0);
            write("sys/class/thermal/thermal_zone1/temp", zone1);
            looks.push(look(&root));
        }
        let seen = summarise(&looks, 5);
        assert_eq!(seen.stolen, Some(0.1));
        assert_eq!(seen.kilohertz, Some((600_000, 1_800_000)));
        assert_eq!(seen.millidegrees, Some((45_000, 71_000)));
        assert_eq!((seen.load, seen.looks, seen.own_nanoseconds), (Some(1.5), 2, 5));
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Monitor::start(Root::new(folder.path())).finish();
        assert!(seen.looks >= 2);
        assert_eq!((seen.stolen, seen.kilohertz, seen.millidegrees, seen.load), (None, None, None, None));
    }
}
