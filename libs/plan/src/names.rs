//! Names and store keys of what is made for an object. They follow from the object alone, so that a repeated step finds
//! what an earlier one made.

use sha2::{Digest as _, Sha256};

/// Kubernetes' limit for names that also have to fit into labels.
const LONGEST: usize = 63;

/// `parts` joined by `-`. Too long names are cut and end in a hash of the whole, so that they stay different.
pub fn joined(parts: &[&str]) -> String {
    let whole = parts.join("-");
    if whole.len() <= LONGEST { whole } else { cut(&whole, &hash(parts)) }
}

/// The name of a job: what it is about for people, a hash that tells namesakes apart, and the attempt.
pub fn job(object: &str, uid: &str, what: &[&str], attempt: u32) -> String {
    let hash = hash(&[&[uid], what].concat());
    let readable = [&[object], what].concat().join("-");
    let tail = format!("{hash}-{attempt}");
    if readable.len() + 1 + tail.len() <= LONGEST { format!("{readable}-{tail}") } else { cut(&readable, &tail) }
}

/// Key under which the store keeps the result of importing an object's inputs.
pub fn import_key(uid: &str) -> String {
    format!("{uid}.import")
}

/// Key under which the store keeps the report of an artefact. Dots occur in none of the parts.
pub fn artifact_key(uid: &str, variant: &str, target: &str) -> String {
    format!("{uid}.{variant}.{target}")
}

/// Name of a BenchmarkRun.
pub fn run(benchmark: &str, device: &str, unit: i32) -> String {
    joined(&[benchmark, device, &unit.to_string()])
}

/// Name of a runner's pod and Secret; runs of all namespaces meet in a device's namespace.
pub fn runner(run: &str, uid: &str, attempt: u32) -> String {
    let tail = format!("{}-{attempt}", hash(&[uid]));
    let readable = format!("br-{run}");
    if readable.len() + 1 + tail.len() <= LONGEST { format!("{readable}-{tail}") } else { cut(&readable, &tail) }
}

fn cut(readable: &str, tail: &str) -> String {
    let room = LONGEST - 1 - tail.len();
    format!("{}-{tail}", readable[..room.min(readable.len())].trim_end_matches('-'))
}

/// Eight hex digits; parts are separated so that moving a letter from one to the next makes another hash.
fn hash(parts: &[&str]) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part.as_bytes());
        sha.update([0]);
    }
    hex::encode(&sha.finalize()[..4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_names_are_readable() {
        assert_eq!(run("mnist-4f2a9c1", "m4", 0), "mnist-4f2a9c1-m4-0");
        let name = job("mnist", "uid", &["int8", "tflm"], 2);
        assert!(name.starts_with("mnist-int8-tflm-") && name.ends_with("-2"), "{name}");
    }

    #[test]
    fn the_border_between_parts_counts() {
        assert_ne!(job("m", "u", &["a-b", "c"], 1), job("m", "u", &["a", "b-c"], 1));
        assert_ne!(job("m", "u", &["a"], 1), job("m", "v", &["a"], 1));
    }

    proptest! {
        #[test]
        fn names_are_dns_labels(object in "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", variant in "[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?",
            unit in 0..16_i32, attempt in 1..1_000_000_u32) {
            for name in [job(&object, "u", &[&variant, &variant], attempt), run(&object, &variant, unit), runner(&object, "u", attempt)] {
                prop_assert!(name.len() <= 63, "{}", name);
                prop_assert!(name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.ends_with(|c: char| c.is_ascii_alphanumeric()));
                prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{}", name);
            }
        }
    }
}
