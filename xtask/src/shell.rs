//! Running other programs, and saying what is being done.
//!
//! A program's output is kept out of sight and shown only when it fails; each step prints one line with its seconds. Steps
//! are told on standard error, so that what a command is asked for is all that its standard output has.

use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How many bytes of a failed program's output are shown.
const TAIL: u64 = 6000;

/// Does `work` and prints `what` with the seconds it took.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    // On a terminal the line is there from the start, and written over at the end.
    let clear = if std::io::stderr().is_terminal() {
        eprint!("  …           {what}\r");
        "\x1b[2K"
    } else {
        ""
    };
    let result = work().with_context(|| what.to_owned());
    let mark = if result.is_ok() { "✓" } else { "✗" };
    // A closed pipe must not stop a cluster half way up.
    let _ = writeln!(std::io::stderr(), "  {clear}{mark} {:6.1} s  {what}", start.elapsed().as_secs_f64());
    result
}

/// Prints one line at once, also into a pipe.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe must not stop a cluster half way up.
    let _ = writeln!(out, "  {line}");
    let _ = out.flush();
}

/// Starts building a command line.
pub fn cmd<S: AsRef<std::ffi::OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Cargo as the user would call it. `cargo run` pins a toolchain in the environment, which other workspaces must not
/// inherit, and tells of the package that it runs: build scripts look at that (ring's does), and everything above them
/// would be built again whenever it differs.
pub fn cargo(dir: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(dir).env_remove("RUSTUP_TOOLCHAIN");
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(of_package) {
            command.env_remove(name);
        }
    }
    command
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    let mut line = words.join(" ");
    if line.len() > 300 {
        line.truncate((0..=300).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0));
        line.push('…');
    }
    line
}

/// Runs a program silently; on failure the end of its output is in the error.
pub fn quiet(command: &mut Command) -> Result<()> {
    let mut log = tempfile::tempfile()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .status()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    if status.success() {
        return Ok(());
    }
    let length = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    log.read_to_end(&mut tail)?;
    bail!("`{}` ended with {status}:\n{}", describe(command), String::from_utf8_lossy(&tail).trim_end())
}

/// Runs a program and returns its standard output; its standard error is in the error when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("`{}` ended with {}:\n{}", describe(command), out.status, said.trim_end());
    }
    String::from_utf8(out.stdout).with_context(|| format!("`{}` printed no UTF-8", describe(command)))
}

/// Feeds `input` to a program and returns what it printed.
pub fn piped(command: &mut Command, input: &str) -> Result<String> {
    let mut file = tempfile::tempfile()?;
    file.write_all(input.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    let out = command.stdin(file).output().with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("`{}` ended with {}:\n{}", describe(command), out.status, said.trim_end());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Whether a program ends well; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Polls until `ready` gives a value; the last reason why not is in the error.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match ready() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > limit => {
                return Err(error.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Refuses to go on without root: mounts, namespaces and Debian packages need it.
pub fn need_root(what: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!("{what} needs root; run it as root, with your own HOME kept (`sudo -E env PATH=\"$PATH\" cargo xtask …`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_shows_its_last_words() {
        let error = quiet(Command::new("sh").args(["-c", "echo because; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("because") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn waiting_ends_with_the_last_reason() {
        let error = wait_for("the moon", Duration::ZERO, || -> Result<()> { bail!("it is cloudy") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "the moon: not within 0 s: it is cloudy");
    }
}
