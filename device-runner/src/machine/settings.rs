//! How the machine is set up, where that changes results: frequency governor, quota, affinity, huge pages, and so on.

use std::collections::BTreeMap;

use super::{Root, cgroup};

/// Settings that change results.
pub fn read(root: &Root) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            found.insert(key.to_owned(), value);
        }
    };
    const CPU: &str = "/sys/devices/system/cpu";
    add("governor", root.read(&format!("{CPU}/cpu0/cpufreq/scaling_governor")));
    add("boost", root.read(&format!("{CPU}/cpufreq/boost")));
    add("noTurbo", root.read(&format!("{CPU}/intel_pstate/no_turbo")));
    add("smt", root.read(&format!("{CPU}/smt/control")));
    add("isolatedCpus", root.read(&format!("{CPU}/isolated")));
    add("clockSource", root.read("/sys/devices/system/clocksource/clocksource0/current_clocksource"));
    let chosen = |text: String| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned());
    add("transparentHugePages", root.read("/sys/kernel/mm/transparent_hugepage/enabled").and_then(chosen));
    add("swappiness", root.read("/proc/sys/vm/swappiness"));
    add("randomizeVaSpace", root.read("/proc/sys/kernel/randomize_va_space"));
    add("cpuQuotaMillicores", cgroup::quota_millicores(root).map(|quota| quota.to_string()));
    add("memoryLimitBytes", cgroup::memory_limit(root).map(|limit| limit.to_string()));
    let status = root.read("/proc/self/status").unwrap_or_default();
    // What changes how runtimes use threads and memory.
    for name in ["OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_AFFINITY", "MALLOC_ARENA_MAX", "LD_PRELOAD"] {
        add(&format!("variable {name}"), std::env::var(name).ok().filter(|value| !value.is_empty()));
    }
    add("affinity", status.lines().find_map(|line| Some(line.strip_prefix("Cpus_allowed_list:")?.trim().to_owned())));
    found
}

/// Processors that this process may use, by affinity and quota; at least 1.
pub fn usable_processors(root: &Root) -> u32 {
    let affinity = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let quota = cgroup::quota_millicores(root).map_or(affinity, |quota| quota / 1000);
    affinity.min(quota).max(1) as u32
}
