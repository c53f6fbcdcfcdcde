//! Debian packages: installed by apt where the system needs them, unpacked into the cache where it must not notice.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use fs_err as fs;

use crate::shell::{cmd, need_root, output, quiet, step, succeeds};

/// The node's runtime, image tools, the cross linker, and the libraries that backports' QEMU loads.
const PACKAGES: &[&str] = &[
    "binutils",
    "buildah",
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "espeak-ng",
    "gcc",
    "gcc-aarch64-linux-gnu",
    "iproute2",
    "iptables",
    "libc6-dev",
    "libc6-dev-arm64-cross",
    "mmdebstrap",
    "prometheus",
    "python3",
    "python3-venv",
    "runc",
    "util-linux",
    // qemu-system-arm
    "libaio1",
    "libbpf1",
    "libcapstone4",
    "libfdt1",
    "libfuse3-3",
    "libglib2.0-0",
    "libgmp10",
    "libgnutls30",
    "libhogweed6",
    "libibverbs1",
    "libjpeg62-turbo",
    "libnettle8",
    "libnuma1",
    "libpixman-1-0",
    "libpmem1",
    "libpng16-16",
    "librdmacm1",
    "libsasl2-2",
    "libseccomp2",
    "libslirp0",
    "libudev1",
    "liburing2",
    "libvdeplug2",
    "libzstd1",
    "zlib1g",
];

/// Says "do not start" to every service that a package brings: the lab starts its own containerd and Prometheus.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs the packages that are missing.
///
/// # Errors
/// When something is missing and this is not root, or not Debian 12, or apt fails.
pub fn install() -> Result<()> {
    let mut wanted: Vec<&str> = PACKAGES.to_vec();
    if !succeeds(&mut cmd("npm", ["--version"])) {
        wanted.push("npm");
    }
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    let release = fs::read_to_string("/etc/debian_version").unwrap_or_default();
    if !release.starts_with("12") {
        bail!(
            "the lab is built from Debian 12 packages and this machine is not Debian 12; missing: {}",
            missing.join(" ")
        );
    }
    need_root("installing Debian packages")?;
    step(&format!("Debian packages: {}", missing.join(" ")), || {
        quiet(&mut cmd("apt-get", ["update"]))?;
        let ours = !Path::new(POLICY).exists();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
            fs::set_permissions(POLICY, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        let done = quiet(
            cmd("apt-get", ["install", "--yes", "--no-install-recommends"])
                .args(&missing)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        );
        if ours {
            fs::remove_file(POLICY)?;
        }
        done?;
        // Nor at the next boot: the lab's Prometheus is not the system's.
        if missing.iter().any(|name| name == "prometheus") && Path::new("/run/systemd/system").exists() {
            quiet(&mut cmd("systemctl", ["disable", "prometheus"]))?;
        }
        Ok(())
    })
}

fn missing(wanted: &[&str]) -> Result<Vec<String>> {
    let listed = output(&mut cmd("dpkg-query", ["--show", "--showformat=${db:Status-Status} ${Package}\\n"]))
        .context("this machine has no dpkg: the lab runs on Debian 12")?;
    let installed: HashSet<&str> = listed.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    Ok(wanted.iter().filter(|name| !installed.contains(**name)).map(|name| (*name).to_owned()).collect())
}

/// Downloads packages of the machine's own Debian mirror and unpacks them into `place` without installing them.
///
/// `suite` replaces the suite of the machine's sources (`bookworm-backports`); `None` takes the sources as they are.
///
/// # Errors
/// When no Debian source is configured or apt fails.
pub fn unpack(packages: &[&str], suite: Option<&str>, place: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let dir = work.path();
    let (lists, archives, parts) = (dir.join("lists"), dir.join("cache"), dir.join("parts"));
    for folder in [&lists, &archives, &parts] {
        fs::create_dir_all(folder.join("partial"))?;
    }
    let apt = |verb: &str, words: &[&str]| {
        let mut command = cmd("apt-get", ["-o", "APT::Sandbox::User=root"]);
        if suite.is_some() {
            command
                .arg("-o")
                .arg(format!("Dir::State::Lists={}", lists.display()))
                .arg("-o")
                .arg(format!("Dir::Cache={}", archives.display()))
                .args(["-o", "Dir::Etc::SourceList=/dev/null"])
                .arg("-o")
                .arg(format!("Dir::Etc::SourceParts={}", parts.display()));
        }
        command.arg(verb).args(words).current_dir(dir);
        command
    };
    if let Some(suite) = suite {
        fs::write(parts.join("lab.sources"), own_sources(suite)?)?;
    }
    quiet(&mut apt("update", &[]))?;
    quiet(&mut apt("download", packages))?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "deb") {
            quiet(cmd("dpkg-deb", ["-x"]).arg(&path).arg(place))?;
        }
    }
    Ok(())
}

/// The machine's Debian source with another suite, as deb822: no mirror is named here, the machine's own is used.
fn own_sources(suite: &str) -> Result<String> {
    let mut files = vec![Path::new("/etc/apt/sources.list").to_path_buf()];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|e| Some(e.ok()?.path())));
    }
    files
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "list" || e == "sources"))
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| with_suite(&text, suite))
        .context("apt has no source with the suite bookworm: is this Debian 12?")
}

fn with_suite(sources: &str, suite: &str) -> Option<String> {
    let one_line = sources.lines().find_map(|line| {
        let mut words = line.strip_prefix("deb ")?.split_whitespace().peekable();
        let mut signed = String::new();
        if words.peek().is_some_and(|w| w.starts_with('[')) {
            let options = line.split_once('[')?.1.split_once(']')?.0;
            if let Some(key) = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")) {
                signed = format!("Signed-By: {key}\n");
            }
            words = line.split_once(']')?.1.split_whitespace().peekable();
        }
        let uri = words.next()?;
        (words.next()? == "bookworm")
            .then(|| format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n{signed}"))
    });
    let stanza = || {
        sources.split("\n\n").find_map(|stanza| {
            let is_main = stanza.lines().any(|line| {
                line.strip_prefix("Suites:").is_some_and(|suites| suites.split_whitespace().any(|s| s == "bookworm"))
            });
            is_main.then(|| {
                let lines = stanza.lines().filter(|line| !line.starts_with('#'));
                lines
                    .map(
                        |line| {
                            if line.starts_with("Suites:") { format!("Suites: {suite}\n") } else { format!("{line}\n") }
                        },
                    )
                    .collect()
            })
        })
    };
    one_line.or_else(stanza)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_of_a_deb822_source_is_replaced() {
        let sources = "Types: deb\n# snapshot\nURIs: http://mirror.invalid/debian-security\nSuites: bookworm-security\n\n\
                       Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";
        assert_eq!(
            with_suite(sources, "bookworm-backports").unwrap(),
            "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm-backports\nComponents: main\n"
        );
    }

    #[test]
    fn the_suite_of_a_one_line_source_is_replaced() {
        let sources = "# deb x\ndeb [arch=amd64 signed-by=/k.gpg] http://mirror.invalid/debian bookworm main contrib\n";
        assert_eq!(
            with_suite(sources, "bookworm-backports").unwrap(),
            "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm-backports\nComponents: main\nSigned-By: /k.gpg\n"
        );
    }

    #[test]
    fn sources_of_others_are_left_alone() {
        assert_eq!(with_suite("deb http://vendor.invalid/apt stable main\n", "bookworm-backports"), None);
    }
}
