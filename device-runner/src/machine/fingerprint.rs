//! Who the machine is. Identity only: nothing that changes from one run to the next (no clock rates, no free memory).

use std::collections::BTreeMap;

use super::Root;

/// What identifies the machine.
pub fn read(root: &Root) -> BTreeMap<String, String> {
    let cpuinfo = root.read("/proc/cpuinfo").unwrap_or_default();
    let cpu = |key: &str| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    };
    let mut found = BTreeMap::new();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            found.insert(key.to_owned(), value);
        }
    };
    add("architecture", Some(std::env::consts::ARCH.into()));
    add("kernelArchitecture", root.read("/proc/sys/kernel/arch"));
    add("cpuModel", cpu("model name"));
    // x86: family, model, stepping. ARM has an implementer and a part instead of a name.
    for (name, key) in [
        ("cpuVendor", "vendor_id"),
        ("cpuFamily", "cpu family"),
        ("cpuModelNumber", "model"),
        ("cpuStepping", "stepping"),
        ("cpuMicrocode", "microcode"),
        ("cpuImplementer", "CPU implementer"),
        ("cpuPart", "CPU part"),
        ("cpuVariant", "CPU variant"),
        ("cpuRevision", "CPU revision"),
    ] {
        add(name, cpu(key));
    }
    let flags = cpu("flags").or_else(|| cpu("Features"));
    if let Some(flags) = flags {
        let of_interest =
            ["avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "sve", "hypervisor"];
        let present: Vec<&str> = of_interest.into_iter().filter(|flag| flags.split(' ').any(|f| f == *flag)).collect();
        add("cpuFeatures", Some(present.join(" ")));
    }
    add("cpusPresent", root.read("/sys/devices/system/cpu/present"));
    add("caches", caches(root));
    let memory = root.read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:").map(str::to_owned))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(format!("{} MiB", kilobytes / 1024))
    });
    add("memory", memory);
    add("kernel", root.read("/proc/sys/kernel/osrelease"));
    add("board", root.read("/proc/device-tree/model").or_else(|| root.read("/sys/class/dmi/id/product_name")));
    add("boardVendor", root.read("/sys/class/dmi/id/sys_vendor"));
    found
}

fn caches(root: &Root) -> Option<String> {
    const FOLDER: &str = "/sys/devices/system/cpu/cpu0/cache";
    let entries: Vec<String> = root
        .list(FOLDER)
        .iter()
        .filter(|name| name.starts_with("index"))
        .filter_map(|name| {
            let read = |file: &str| root.read(&format!("{FOLDER}/{name}/{file}"));
            let kind = match read("type")?.as_str() {
                "Data" => "d",
                "Instruction" => "i",
                _ => "",
            };
            Some(format!("L{}{kind} {}", read("level")?, read("size")?))
        })
        .collect();
    (!entries.is_empty()).then(|| entries.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_board_is_known_by_its_parts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "proc/cpuinfo",
            "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n",
        );
        write("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0");
        write("proc/meminfo", "MemTotal:        8245536 kB\nMemFree: 1 kB\n");
        write("sys/devices/system/cpu/cpu0/cache/index0/type", "Data\n");
        write("sys/devices/system/cpu/cpu0/cache/index0/level", "1\n");
        write("sys/devices/system/cpu/cpu0/cache/index0/size", "64K\n");
        let found = read(&Root::new(folder.path()));
        assert_eq!(found["board"], "Raspberry Pi 5 Model B Rev 1.0");
        assert_eq!(found["cpuPart"], "0xd0b");
        assert_eq!(found["cpuFeatures"], "asimddp");
        assert_eq!(found["caches"], "L1d 64K");
        assert_eq!(found["memory"], "8052 MiB");
        assert!(!found.values().any(|value| value.contains("108.00")), "clock rates change");
    }
}
