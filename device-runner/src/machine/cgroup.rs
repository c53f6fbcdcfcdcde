//! The process' control group, version 1 or 2: its processor quota, and counters of throttling and of kills for memory.

use super::Root;

/// Counters of the quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which the group was held back.
    pub periods: u64,
    /// For how long, which undercounts.
    pub nanoseconds: u64,
}

/// Folders that may hold a controller's files, the likeliest first. In a pod of version 1 the path in /proc/self/cgroup
/// is the host's, while the mount shows the group itself at its root.
fn folders(root: &Root, controller: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in root.read("/proc/self/cgroup").unwrap_or_default().lines() {
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let path = path.trim_end_matches('/');
        if controllers.split(',').any(|name| name == controller) {
            for mount in [controllers, controller] {
                found.push(format!("/sys/fs/cgroup/{mount}{path}"));
                found.push(format!("/sys/fs/cgroup/{mount}"));
            }
        } else if controllers.is_empty() {
            found.push(format!("/sys/fs/cgroup{path}"));
            found.push("/sys/fs/cgroup".into());
        }
    }
    found
}

fn file(root: &Root, controller: &str, name: &str) -> Option<String> {
    folders(root, controller).iter().find_map(|folder| root.read(&format!("{folder}/{name}")))
}

fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The quota's counters; `None` where there is no quota to count.
pub fn throttling(root: &Root) -> Option<Throttling> {
    let stat = file(root, "cpu", "cpu.stat")?;
    let nanoseconds =
        field(&stat, "throttled_time").or_else(|| field(&stat, "throttled_usec").map(|micros| micros * 1000));
    Some(Throttling { periods: field(&stat, "nr_throttled")?, nanoseconds: nanoseconds.unwrap_or(0) })
}

/// The quota in thousandths of a processor; `None` if there is none.
pub fn quota_millicores(root: &Root) -> Option<u64> {
    let (quota, period): (u64, u64) = if let Some(max) = file(root, "cpu", "cpu.max") {
        let mut parts = max.split_whitespace();
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?)
    } else {
        // -1 is no quota and does not parse.
        let period = file(root, "cpu", "cpu.cfs_period_us")?.parse().ok()?;
        (file(root, "cpu", "cpu.cfs_quota_us")?.parse().ok()?, period)
    };
    (period > 0).then(|| quota * 1000 / period)
}

/// The memory limit in bytes; `None` if there is none.
pub fn memory_limit(root: &Root) -> Option<u64> {
    let limit: u64 =
        file(root, "memory", "memory.max").or_else(|| file(root, "memory", "memory.limit_in_bytes"))?.parse().ok()?;
    // Version 1 writes "no limit" as the largest multiple of a page.
    (limit < 1 << 60).then_some(limit)
}

/// How many processes of the group the kernel has killed for memory.
pub fn oom_kills() -> Option<u64> {
    oom_kills_below(&Root::default())
}

fn oom_kills_below(root: &Root) -> Option<u64> {
    let events = file(root, "memory", "memory.events").or_else(|| file(root, "memory", "memory.oom_control"))?;
    field(&events, "oom_kill")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::new(folder.path());
        (folder, root)
    }

    #[test]
    fn version_1_in_a_pod() {
        let (_folder, root) = tree(&[
            ("proc/self/cgroup", "5:memory:/kubepods/pod1/c1\n3:cpu,cpuacct:/kubepods/pod1/c1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.stat", "nr_periods 10\nnr_throttled 3\nthrottled_time 4500\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
            ("sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ]);
        assert_eq!(throttling(&root), Some(Throttling { periods: 3, nanoseconds: 4500 }));
        assert_eq!(quota_millicores(&root), Some(500));
        assert_eq!(memory_limit(&root), None);
        assert_eq!(oom_kills_below(&root), Some(2));
    }

    #[test]
    fn version_2() {
        let (_folder, root) = tree(&[
            ("proc/self/cgroup", "0::/app.slice\n"),
            ("sys/fs/cgroup/app.slice/cpu.stat", "usage_usec 9\nnr_throttled 0\nthrottled_usec 7\n"),
            ("sys/fs/cgroup/app.slice/cpu.max", "200000 100000"),
            ("sys/fs/cgroup/app.slice/memory.max", "134217728"),
            ("sys/fs/cgroup/app.slice/memory.events", "low 0\noom 1\noom_kill 1\noom_group_kill 0\n"),
        ]);
        assert_eq!(throttling(&root), Some(Throttling { periods: 0, nanoseconds: 7000 }));
        assert_eq!(quota_millicores(&root), Some(2000));
        assert_eq!(memory_limit(&root), Some(128 << 20));
        assert_eq!(oom_kills_below(&root), Some(1));
    }

    #[test]
    fn no_quota_is_no_number() {
        let (_folder, root) = tree(&[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000"),
            ("sys/fs/cgroup/cpu.stat", "usage_usec 9\n"),
        ]);
        assert_eq!((quota_millicores(&root), throttling(&root), memory_limit(&root)), (None, None, None));
    }
}
