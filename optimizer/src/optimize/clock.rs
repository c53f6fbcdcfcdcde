//! Wall-clock seconds and peak memory of each step.

use std::collections::BTreeMap;
use std::time::Instant;

/// Steps by name; a step that is started again adds up.
#[derive(Default)]
pub(super) struct Clock {
    pub seconds: BTreeMap<String, f64>,
    /// Largest resident memory while a step ran; empty where the kernel does not let it be reset.
    pub peaks: BTreeMap<String, u64>,
    /// Largest resident memory of all.
    pub peak: Option<u64>,
    running: Option<(&'static str, Instant, bool)>,
}

impl Clock {
    pub fn start(&mut self, step: &'static str) {
        self.stop();
        // 5 resets the mark of the largest resident memory: proc(5), since Linux 4.0.
        let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
        self.running = Some((step, Instant::now(), reset));
    }

    pub fn stop(&mut self) {
        let mark = resident_mark();
        self.peak = self.peak.max(mark);
        if let Some((step, since, reset)) = self.running.take() {
            *self.seconds.entry(step.to_owned()).or_default() += since.elapsed().as_secs_f64();
            if let Some(mark) = mark.filter(|_| reset) {
                let peak = self.peaks.entry(step.to_owned()).or_default();
                *peak = (*peak).max(mark);
            }
        }
    }
}

/// The largest resident memory since the mark was reset, from the kernel.
fn resident_mark() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
