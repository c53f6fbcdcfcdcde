//! Any other meter: a command that prints readings. The contract:
//!
//! - `exec:COMMAND ARGUMENT …` is split at white space and started without a shell; it runs until it is killed.
//! - It prints a line for each reading, at once: `SECONDS WATTS`, or as JSON `{"seconds": 1.25, "watts": 3.1}`, with the
//!   sensor's own time, which starts anywhere and grows. Numbers are decimal; other units are not taken.
//! - Its first line may describe it instead: `{"name", "scope", "periodNanoseconds", "supplyMillivolts"}`, all optional.
//! - Empty lines and lines that begin with `#` mean nothing. What it prints to stderr shows when it fails.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, TrySendError, sync_channel};

use edgeyard_measure::energy::Reading;
use serde::Deserialize;

use super::{Meter, failed, missing, plausible};
use crate::clock;
use crate::error::Failure;

/// Readings from which the period is told, where the command does not describe itself.
const FOR_PERIOD: usize = 20;
/// The command's clock may part from this machine's by so much.
const MOST_APART: i64 = 1_000_000_000;
const LONGEST_LINE: u64 = 4096;

#[derive(Deserialize, Default, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Description {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    period_nanoseconds: u64,
    #[serde(default)]
    supply_millivolts: Option<u64>,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Told {
    seconds: f64,
    watts: f64,
}

/// A command that runs.
pub struct Exec {
    child: Child,
    program: String,
    /// When each line arrived, by the run's clock.
    lines: Receiver<(u64, String)>,
    about: Description,
    gaps: Vec<u64>,
    /// The sensor's time and this machine's at the first reading.
    begun: Option<(f64, u64)>,
    last: Option<u64>,
    is_first: bool,
}

impl Exec {
    /// Starts the command.
    pub fn open(text: &str) -> Result<Self, Failure> {
        let mut words = text.split_whitespace();
        let program =
            words.next().ok_or_else(|| Failure::bad_input("UnknownMeter", "exec: needs a command: exec:COMMAND"))?;
        let mut child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| missing(format!("{program:?} cannot be started: {error}")))?;
        let stdout = child.stdout.take().ok_or_else(|| failed("the command has no output"))?;
        // Lines that nobody reads must not fill memory, nor wait and come late: they are lost, which shows as a gap.
        let (sender, lines) = sync_channel(100_000);
        std::thread::Builder::new().name("meter-lines".into()).spawn(move || {
            let mut reader = BufReader::new(stdout);
            loop {
                let mut line = Vec::new();
                match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                    Ok(1..) => (),
                    Ok(0) | Err(_) => return,
                }
                let sent = sender.try_send((clock::now(), String::from_utf8_lossy(&line).into_owned()));
                if matches!(sent, Err(TrySendError::Disconnected(_))) {
                    return;
                }
            }
        })?;
        Ok(Self {
            child,
            program: program.into(),
            lines,
            about: Description::default(),
            gaps: Vec::new(),
            begun: None,
            last: None,
            is_first: true,
        })
    }

    /// The reading in a line that arrived at `now`.
    fn reading(&mut self, line: &str, now: u64) -> Result<Option<Reading>, Failure> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        if std::mem::replace(&mut self.is_first, false)
            && let Ok(about) = serde_json::from_str(line)
        {
            self.about = about;
            return Ok(None);
        }
        let told = parse(line).ok_or_else(|| {
            failed(format!(
                "{:?} printed {line:?}: SECONDS WATTS or {{\"seconds\": …, \"watts\": …}} was expected",
                self.program
            ))
        })?;
        let value = plausible(told.watts, &format!("{:?} printed {line:?}", self.program))?;
        let (first, begun) = *self.begun.get_or_insert((told.seconds, now));
        let since = ((told.seconds - first) * 1e9).round() as i64;
        let nanoseconds = begun.saturating_add_signed(since);
        if (nanoseconds as i64 - now as i64).abs() > MOST_APART {
            return Err(failed(format!(
                "{:?} printed {line:?}, and by this machine's clock it is {} s later than at its first line: a clock jumped",
                self.program,
                (now - begun) as f64 / 1e9
            )));
        }
        if let Some(last) = self.last.replace(nanoseconds)
            && self.gaps.len() < FOR_PERIOD
        {
            self.gaps.push(nanoseconds.saturating_sub(last));
        }
        Ok(Some(Reading { nanoseconds, value }))
    }

    /// Why the output ended.
    fn ended(&mut self) -> Failure {
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(LONGEST_LINE).read_to_string(&mut said);
        }
        failed(format!("{:?} ended with {status}: {}", self.program, said.trim()))
    }
}

fn parse(line: &str) -> Option<Told> {
    let told = if line.starts_with('{') {
        serde_json::from_str(line).ok()?
    } else {
        let mut words = line.split_whitespace();
        let told = Told { seconds: words.next()?.parse().ok()?, watts: words.next()?.parse().ok()? };
        if words.next().is_some() {
            return None;
        }
        told
    };
    (told.seconds.is_finite() && told.seconds.abs() < 1e9).then_some(told)
}

impl Meter for Exec {
    fn name(&self) -> String {
        format!("exec:{}", self.about.name.as_deref().unwrap_or(&self.program))
    }

    fn scope(&self) -> String {
        self.about.scope.clone().unwrap_or_else(|| "as the command measures".into())
    }

    fn period(&self) -> u64 {
        if self.about.period_nanoseconds > 0 {
            return self.about.period_nanoseconds;
        }
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied().unwrap_or(0)
    }

    fn pause(&self) -> std::time::Duration {
        std::time::Duration::from_millis(10)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        // The description still counts, readings of before do not.
        while let Ok((_, line)) = self.lines.try_recv() {
            self.reading(&line, 0)?;
            self.begun = None;
            self.last = None;
        }
        Ok(())
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        // Lines carry this machine's time of their own; the run's time begins elsewhere.
        let offset = clock::now().saturating_sub(now);
        let mut readings = Vec::new();
        loop {
            match self.lines.try_recv() {
                Ok((when, line)) => readings.extend(self.reading(&line, when.saturating_sub(offset))?),
                Err(TryRecvError::Empty) => return Ok(readings),
                // What came before the end still counts.
                Err(TryRecvError::Disconnected) if !readings.is_empty() => return Ok(readings),
                Err(TryRecvError::Disconnected) => return Err(self.ended()),
            }
        }
    }

    fn millivolts(&self) -> Option<u64> {
        self.about.supply_millivolts
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_seconds_and_watts() {
        let wanted = Some(Told { seconds: 1.25, watts: 3.5 });
        assert_eq!(parse("1.25 3.5"), wanted);
        assert_eq!(parse("1.25\t3.5"), wanted);
        assert_eq!(parse("{\"seconds\": 1.25, \"watts\": 3.5}"), wanted);
        for bad in
            ["1.25", "1.25 3.5 9", "1,25 3,5", "1.25 3.5W", "{\"seconds\": 1.25, \"milliwatts\": 3500}", "nan 1", "{"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
