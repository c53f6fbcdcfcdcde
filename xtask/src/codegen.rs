//! `cargo xtask codegen`: the committed files that a program of ours prints; `--check` only compares.

use std::process::ExitCode;

use anyhow::{Context, Result};
use fs_err as fs;

use crate::layout;
use crate::shell::{cargo, output, say};

/// Arguments of `codegen`.
#[derive(clap::Args)]
pub struct Args {
    /// Change nothing; fail when a committed file differs from what the code gives
    #[arg(long)]
    check: bool,
}

/// One generated file: the program that prints it and where it is committed.
struct Generated {
    binary: &'static str,
    file: &'static str,
}

const GENERATED: &[Generated] = &[
    Generated { binary: "edgeyard-crds", file: "charts/edgeyard/files/crds.yaml" },
    Generated { binary: "edgeyard-job-schema", file: "schemas/job.schema.json" },
    Generated { binary: "edgeyard-report-schema", file: "schemas/report.schema.json" },
    Generated { binary: "edgeyard-inspection-schema", file: "schemas/inspection.schema.json" },
    Generated { binary: "edgeyard-difference-schema", file: "schemas/difference.schema.json" },
    Generated { binary: "edgeyard-record-schema", file: "schemas/record.schema.json" },
];

/// Writes or checks every generated file.
///
/// # Errors
/// When a generator does not build or run.
pub fn run(args: &Args) -> Result<ExitCode> {
    let report = check_or_write(!args.check)?;
    for line in &report {
        let Outcome { file, difference } = line;
        match (difference, args.check) {
            (None, _) => say(&format!("✓ {file}")),
            (Some(_), false) => say(&format!("✓ {file} written")),
            (Some(difference), true) => say(&format!("✗ {file}: {difference}")),
        }
    }
    if args.check && report.iter().any(|o| o.difference.is_some()) {
        println!("codegen: the files above are not what the code gives; run `cargo xtask codegen` and commit them");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of one generated file.
pub struct Outcome {
    /// Path from the root of the checkout.
    pub file: &'static str,
    /// How the file differed from what the code gives, if it did.
    pub difference: Option<String>,
}

/// Generates everything; with `write` the files are brought up to date.
///
/// # Errors
/// As [`run`].
pub fn check_or_write(write: bool) -> Result<Vec<Outcome>> {
    let root = layout::root()?;
    GENERATED
        .iter()
        .map(|Generated { binary, file }| {
            let mut generator = cargo(&root);
            // Not by `--package`: features would be unified for it alone, and half the world compiled again.
            generator.args(["run", "--quiet", "--release", "--bin", binary]);
            let new = output(&mut generator).with_context(|| format!("generating {file}"))?;
            let path = root.join(file);
            let old = fs::read_to_string(&path).unwrap_or_default();
            if write && old != new {
                fs::create_dir_all(path.parent().context("a file has a folder")?)?;
                fs::write(&path, &new)?;
            }
            Ok(Outcome { file, difference: first_difference(&old, &new) })
        })
        .collect()
}

fn first_difference(old: &str, new: &str) -> Option<String> {
    if old == new {
        return None;
    }
    let line = old.lines().zip(new.lines()).take_while(|(a, b)| a == b).count();
    let show = |text: &str| text.lines().nth(line).map_or("end of file".to_owned(), |l| format!("`{}`", l.trim()));
    Some(format!("line {} is {}, the code gives {}", line + 1, show(old), show(new)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n").unwrap(), "line 2 is `b`, the code gives `c`");
        assert_eq!(first_difference("a\n", "a\nc\n").unwrap(), "line 2 is end of file, the code gives `c`");
    }
}
