//! Meters on recorded boards, on devices that are simulated behind a terminal, by command and by node agent.

mod support;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::FromRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Sender, channel};

use edgeyard_device_runner::agent::{self, Client};
use edgeyard_device_runner::machine::Root;
use edgeyard_device_runner::meter::{self, Meter, rapl};
use edgeyard_device_runner::{clock, error::Failure};
use edgeyard_measure::energy::Reading;
use serde_json::Value;
use support::{command, fail, file, folder, succeed, text};

/// A root with the files of a recorded board; the lines are `path: what the file holds`.
fn board(name: &str) -> (tempfile::TempDir, Root) {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/meters").join(name);
    let folder = folder();
    for line in std::fs::read_to_string(tree).unwrap().lines().filter(|line| !line.starts_with('#')) {
        let (path, holds) = line.split_once(": ").unwrap();
        write(folder.path(), path, holds);
    }
    let root = Root::new(folder.path());
    (folder, root)
}

fn write(folder: &Path, path: &str, holds: &str) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("{holds}\n")).unwrap();
}

fn program(folder: &Path, path: &str, script: &str) -> String {
    write(folder, path, &format!("#!/bin/sh\n{script}"));
    let path = folder.join(path);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    text(&path).to_owned()
}

fn refused(text: &str, root: &Root) -> Failure {
    meter::open(text, root).err().unwrap()
}

/// The first reading's watts, which come without waiting.
fn watts(meter: &mut dyn Meter) -> f64 {
    let readings = meter.read(7).unwrap();
    assert_eq!((readings.len(), readings[0].nanoseconds), (1, 7));
    readings[0].value
}

fn near(found: f64, wanted: f64) {
    assert!((found - wanted).abs() <= 1e-6 * wanted.abs(), "{found} is not {wanted}");
}

#[test]
fn a_jetson_is_measured_at_the_rail_that_feeds_it() {
    for (name, wanted, millivolts) in
        [("jetson-orin-nano-jetpack6.tree", 4.992 * 1.12, 4992), ("jetson-xavier-nx-jetpack4.tree", 5.591, 4992)]
    {
        let (_folder, root) = board(name);
        let mut meter = meter::open("jetson", &root).unwrap();
        near(watts(meter.as_mut()), wanted);
        assert_eq!((meter.scope().as_str(), meter.millivolts()), ("VDD_IN", Some(millivolts)), "{name}");
    }
    // Rails that feed one another are never added.
    let (_folder, root) = board("jetson-agx-orin-jetpack5.tree");
    let failure = refused("jetson", &root);
    assert_eq!(failure.reason, "MeterMissing");
    assert!(failure.message.contains("VDD_GPU_SOC, VDD_CPU_CV, VDDQ_VDD2_1V8AO"), "{failure}");
    let mut rail = meter::open("hwmon:ina3221/VDD_GPU_SOC", &root).unwrap();
    near(watts(rail.as_mut()), 19.12 * 0.168);
    let failure = refused("hwmon:ina3221", &root);
    assert_eq!(failure.reason, "AmbiguousMeter");
    assert!(failure.message.contains("ina3221/VDD_CPU_CV in /sys/class/hwmon/hwmon3"), "{failure}");
    near(watts(meter::open("hwmon:hwmon4", &root).unwrap().as_mut()), 4.984 * 0.104);
    assert!(refused("hwmon:ina3221/VDD_IN", &root).message.contains("ina3221/VDD_GPU_SOC"));
    assert_eq!(refused("jetson", &Root::new("/nowhere")).reason, "MeterMissing");
}

#[test]
fn wrong_units_and_nonsense_are_refused_by_file_and_value() {
    let power = "sys/class/hwmon/hwmon2/power1_input";
    let (folder, root) = board("ina226.tree");
    let mut meter = meter::open("hwmon:ina226", &root).unwrap();
    near(watts(meter.as_mut()), 2.5);
    assert_eq!(meter.millivolts(), Some(5020));
    for nonsense in ["2.5 W", "-3000000", "2500000000000", "99999999999999999999", "nan"] {
        write(folder.path(), power, nonsense);
        let failure = meter.read(8).unwrap_err();
        assert_eq!(failure.reason, "MeterFailed", "{nonsense}");
        assert!(failure.message.contains(power) && failure.message.contains(nonsense), "{failure}");
        assert_eq!(refused("hwmon:ina226", &root).reason, "MeterFailed");
    }
    // Milliwatts or nanowatts in the place of microwatts: voltage and current tell.
    for wrong in ["2500", "2500000000"] {
        write(folder.path(), power, wrong);
        assert!(refused("hwmon:ina226", &root).message.contains("in another unit"), "{wrong}");
    }
    std::fs::remove_file(folder.path().join(power)).unwrap();
    assert!(meter.read(9).unwrap_err().message.contains("power1_input cannot be read any more"));
    let (folder, root) = board("jetson-xavier-nx-jetpack4.tree");
    let mut meter = meter::open("jetson", &root).unwrap();
    write(folder.path(), "sys/bus/i2c/drivers/ina3221x/7-0040/iio:device0/in_power0_input", "5591000000");
    assert!(meter.read(1).unwrap_err().message.contains("in_power0_input holds 5591000000"));
}

#[test]
fn a_raspberry_pi_answers_by_its_own_program() {
    let (folder, adc) = (folder(), include_str!("meters/pmic.txt"));
    let root = Root::new(folder.path());
    assert_eq!(refused("rpi5-pmic", &root).reason, "MeterMissing");
    file(folder.path(), "pmic.txt", adc.as_bytes());
    let told = folder.path().join("pmic.txt");
    program(
        folder.path(),
        "usr/bin/vcgencmd",
        &format!(
            "case $1 in pmic_read_adc) cat {};; get_throttled) echo throttled=0x50001;; *) exit 1;; esac",
            text(&told)
        ),
    );
    let mut meter = meter::open("rpi5-pmic", &root).unwrap();
    // 0.37 + 0.66 + 0.54 + 0.44 + 3.4 + 0.1.
    near(watts(meter.as_mut()), 5.51);
    assert_eq!(meter.millivolts(), Some(5090));
    assert_eq!(agent::read(&root).throttle.raspberry_pi_bits, Some(0x50001));
    std::fs::write(&told, adc.replace("=4.00000000A", "=4000.0A")).unwrap();
    let failure = meter.read(1).unwrap_err();
    assert!(failure.message.contains("VDD_CORE_A current(7)=4000.0A"), "{failure}");
}

#[test]
fn what_has_no_sensor_or_no_name_is_refused() {
    let root = Root::new("/nowhere");
    assert_eq!(refused("coral-usb", &root).reason, "NoSensor");
    for unknown in
        ["sundial", "rapl:1", "hwmon", "nvml:first", "ppk2:/dev/ttyACM0", "lpm01a:/dev/ttyACM0@5000", "exec:"]
    {
        let failure = refused(unknown, &root);
        assert_eq!(failure.reason, "UnknownMeter", "{unknown}: {failure}");
    }
    assert_eq!(refused("rapl", &root).reason, "MeterMissing");
    assert_eq!(refused("ppk2:/dev/ttyACM0@3300", &root).reason, "MeterMissing");
    assert_eq!(refused("exec:/nowhere/at-all", &root).reason, "MeterMissing");
}

/// A terminal: what the program opens, and the other end, where a device is simulated.
fn terminal() -> (String, File) {
    // SAFETY: the descriptor is checked and owned by the file; the name's buffer is as long as is said.
    unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
        assert!(master >= 0 && libc::grantpt(master) == 0 && libc::unlockpt(master) == 0);
        let mut name = [0; 64];
        assert_eq!(libc::ptsname_r(master, name.as_mut_ptr(), name.len()), 0);
        let name = std::ffi::CStr::from_ptr(name.as_ptr()).to_str().unwrap().to_owned();
        (name, File::from_raw_fd(master))
    }
}

/// Reads a stream until it told so many readings, or failed. The device sends as fast as it can, so time stands still.
fn streamed(meter: &mut dyn Meter, count: usize) -> Result<Vec<Reading>, Failure> {
    let mut readings = Vec::new();
    while readings.len() < count {
        readings.extend(meter.read(10_000_000_000)?);
        std::thread::yield_now();
    }
    Ok(readings)
}

const PPK2_METADATA: &str =
    "Calibrated: 0\nR0: 1000\nR1: 100\nR2: 10\nR3: 1\nR4: 0.1\nVDD: 3000\nHW: 41625\nmode: 2\nIA: 56\nEND\n";

/// 0.1 A in range 3 is 0.1·1/(4·1.8/163840) steps of the converter.
const PPK2_STEPS: u32 = 2276;

fn ppk2_sample(counter: u32) -> [u8; 4] {
    (PPK2_STEPS | 3 << 14 | (counter % 64) << 18).to_le_bytes()
}

/// A PPK2 that takes commands, remembers them, and sends samples until it is unplugged.
fn ppk2(
    mut device: File,
    samples: u32,
    lost: impl Fn(u32) -> bool + Send + 'static,
) -> (Sender<()>, std::thread::JoinHandle<Vec<u8>>) {
    let (unplug, unplugged) = channel();
    let thread = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while seen.last() != Some(&0x06) {
            let mut byte = [0];
            device.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
            if byte[0] == 0x19 {
                device.write_all(PPK2_METADATA.as_bytes()).unwrap();
            }
        }
        let bytes: Vec<u8> = (0..samples).filter(|counter| !lost(*counter)).flat_map(ppk2_sample).collect();
        device.write_all(&bytes).unwrap();
        unplugged.recv().unwrap();
        seen
    });
    (unplug, thread)
}

#[test]
fn a_ppk2_streams_counts_losses_and_is_missed_when_it_is_gone() {
    let (path, device) = terminal();
    // Ten samples of the 7th millisecond are lost: one in two thousand.
    let (unplug, thread) = ppk2(device, 20_000, |counter| (650..660).contains(&counter));
    let mut meter = meter::open(&format!("ppk2:{path}@3300"), &Root::default()).unwrap();
    meter.begin().unwrap();
    let readings = streamed(meter.as_mut(), 200).unwrap();
    for (index, reading) in readings.iter().enumerate() {
        near(reading.value, f64::from(PPK2_STEPS) * 4.0 * (1.8 / 163_840.0) * 3.3);
        assert_eq!(reading.nanoseconds - readings[0].nanoseconds, index as u64 * 1_000_000);
    }
    near(meter.lost(), 10.0 / 20_000.0);
    assert_eq!((meter.millivolts(), meter.period()), (Some(3300), 1_000_000));
    unplug.send(()).unwrap();
    let seen = thread.join().unwrap();
    // Stop; metadata; source; 3300 mV as 2532 steps above 3·256; on; start.
    assert_eq!(seen, [0x07, 0x19, 0x11, 2, 0x0d, 3 + (2532_u32 / 256) as u8, (2532 % 256) as u8, 0x0c, 1, 0x06]);
    let failure = streamed(meter.as_mut(), 1).unwrap_err();
    assert!(failure.reason == "MeterFailed" && failure.message.contains("is gone"), "{failure}");
}

#[test]
fn an_ammeter_switches_no_supply() {
    let (path, device) = terminal();
    let (unplug, thread) = ppk2(device, 1000, |_| false);
    let mut meter = meter::open(&format!("ppk2:{path}@5000,ampere"), &Root::default()).unwrap();
    meter.begin().unwrap();
    assert!(streamed(meter.as_mut(), 5).unwrap().len() >= 5);
    unplug.send(()).unwrap();
    assert_eq!(thread.join().unwrap(), [0x07, 0x19, 0x11, 1, 0x0c, 1, 0x06]);
}

/// The message with the shield's time.
fn lpm01a_time(milliseconds: u32) -> Vec<u8> {
    [&[0xf0, 0xf3][..], &milliseconds.to_be_bytes(), &[1, 0xff, 0xff]].concat()
}

/// A tenth of a second at 10 kHz: 0x199a / 16^4 A is a tenth of an ampere, near enough for 12 bits of mantissa.
fn lpm01a_samples() -> Vec<u8> {
    [lpm01a_time(0), [0x41_u8, 0x9a].repeat(1000), lpm01a_time(100)].concat()
}

#[test]
fn an_lpm01a_is_set_up_and_streams() {
    let (path, device) = terminal();
    let (unplug, unplugged) = channel();
    let thread = std::thread::spawn(move || {
        let mut answers = device.try_clone().unwrap();
        let mut seen = Vec::new();
        for line in BufReader::new(device).lines() {
            let line = line.unwrap();
            write!(answers, "PowerShield > ack {line}\r\n").unwrap();
            seen.push(line);
            if seen.last().unwrap() == "start" {
                break;
            }
        }
        answers.write_all(&lpm01a_samples()).unwrap();
        unplugged.recv().unwrap();
        seen
    });
    let mut meter = meter::open(&format!("lpm01a:{path}@3000"), &Root::default()).unwrap();
    meter.begin().unwrap();
    for reading in streamed(meter.as_mut(), 100).unwrap() {
        near(reading.value, f64::from(0x19a) / 65536.0 * 3.0);
    }
    near(meter.lost() + 1.0, 1.0);
    unplug.send(()).unwrap();
    let seen = thread.join().unwrap();
    assert_eq!(seen, ["htc", "format bin_hexa", "volt 3000m", "freq 10000", "acqtime 0", "start"]);
}

#[test]
fn recorded_streams_of_analysers_are_replayed() {
    let dir = folder();
    let record = |name: &str, about: &str, files: &[(&str, &[u8])]| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        file(&folder, "meter.json", about.as_bytes());
        for (name, bytes) in files {
            file(&folder, name, bytes);
        }
        format!("replay:{}", text(&folder))
    };
    let samples: Vec<u8> = (0..5000).flat_map(ppk2_sample).collect();
    let ppk2 = record(
        "ppk2",
        r#"{"name": "ppk2", "scope": "board", "periodNanoseconds": 10000, "supplyMillivolts": 3300, "protocol": "ppk2"}"#,
        &[("stream.bin", &samples), ("metadata.txt", PPK2_METADATA.as_bytes())],
    );
    let shield = r#"{"name": "shield", "scope": "board", "periodNanoseconds": 100000, "supplyMillivolts": 3000, "protocol": "lpm01a"}"#;
    let binary = record("binary", shield, &[("stream.bin", &lpm01a_samples())]);
    let lines = format!("TimeStamp: 000s 000ms, buff 00%\r\n{}", "6256-06\r\n".repeat(100));
    let ascii = record("ascii", &shield.replace("lpm01a", "lpm01a-ascii"), &[("stream.bin", lines.as_bytes())]);
    let root = Root::default();
    for (name, wanted) in [(&ppk2, 0.33), (&binary, 0.01877), (&ascii, 0.018_768)] {
        let mut meter = meter::open(name, &root).unwrap();
        meter.read(1_000_000_000).unwrap();
        let readings = meter.read(2_000_000_000).unwrap();
        // A kilohertz, round and round for a second.
        assert!((950..=1000).contains(&readings.len()), "{name}: {}", readings.len());
        for reading in readings {
            assert!((reading.value - wanted).abs() < 1e-3 * wanted, "{name}: {}", reading.value);
        }
    }
    let cut = record("cut", shield, &[("stream.bin", b"nothing of the kind")]);
    assert_eq!(refused(&cut, &root).reason, "RecordingMalformed");
    let current = r#"{"name": "shield", "scope": "board", "periodNanoseconds": 100000, "protocol": "lpm01a"}"#;
    let failure = refused(&record("volts", current, &[("stream.bin", &lpm01a_samples())]), &root);
    assert!(failure.message.contains("supplyMillivolts"), "{failure}");
}

#[test]
fn a_command_is_a_meter() {
    let dir = folder();
    let root = Root::default();
    let script = |name: &str, text: &str| format!("exec:{}", program(dir.path(), name, text));
    let read = |name: &str| {
        let epoch = clock::now();
        let mut meter = meter::open(name, &root).unwrap();
        let mut readings = Vec::new();
        loop {
            match meter.read(clock::now() - epoch) {
                Ok(new) => readings.extend(new),
                Err(failure) => return (readings, failure, meter.name(), meter.period(), meter.millivolts()),
            }
            std::thread::yield_now();
        }
    };
    let good = script(
        "good",
        "echo '{\"name\": \"bench\", \"scope\": \"board\", \"supplyMillivolts\": 5100}'\necho '# warming up'\n\
         echo 17.00 2.5\necho 17.01 2.6\necho '{\"seconds\": 17.02, \"watts\": 2.7}'\necho sensor unplugged >&2\nexit 3",
    );
    let (readings, failure, name, period, millivolts) = read(&good);
    let told: Vec<(u64, f64)> =
        readings.iter().map(|reading| (reading.nanoseconds - readings[0].nanoseconds, reading.value)).collect();
    assert_eq!(told, [(0, 2.5), (10_000_000, 2.6), (20_000_000, 2.7)]);
    assert_eq!((name.as_str(), period, millivolts), ("exec:bench", 10_000_000, Some(5100)));
    assert!(failure.message.contains("sensor unplugged") && failure.message.contains('3'), "{failure}");
    for (name, line) in [("unit", "17.00 2500mW"), ("negative", "17.00 -2.5"), ("much", "17.00 2500000")] {
        let (readings, failure, ..) = read(&script(name, &format!("echo '{line}'\nexec tail -f /dev/null")));
        assert!(readings.is_empty() && failure.reason == "MeterFailed" && failure.message.contains(line), "{failure}");
    }
    let jumps = script("jumps", "echo 17.00 2.5\necho 3617.00 2.5\nexec tail -f /dev/null");
    assert!(read(&jumps).1.message.contains("a clock jumped"));
}

/// The agent as a process of its own over a root.
struct Agent {
    child: Child,
    url: String,
}

impl Agent {
    fn start(root: &Path) -> Self {
        let mut child = command(&["agent", "--listen", "127.0.0.1:0", "--root", text(root)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_node_agent_tells_what_a_pod_cannot_read() {
    let dir = folder();
    let zone = "sys/class/powercap/intel-rapl:0";
    write(dir.path(), &format!("{zone}/name"), "package-0");
    write(dir.path(), &format!("{zone}/max_energy_range_uj"), "262143328850");
    write(dir.path(), &format!("{zone}/energy_uj"), "262143328800");
    write(dir.path(), "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "4");
    write(dir.path(), "sys/class/thermal/thermal_zone0/temp", "51250");
    write(dir.path(), "sys/firmware/devicetree/base/model", "A \"board\"\0");
    let agent = Agent::start(dir.path());
    let client = Client::new(&agent.url).unwrap();
    let machine = client.machine().unwrap();
    assert_eq!(machine.board_model.as_deref(), Some("A \"board\""));
    assert_eq!((machine.throttle.core_events, machine.hottest_millidegrees), (Some(4), Some(51_250)));
    assert_eq!(machine.throttle.unavailable["packageEvents"], "NotReadable");

    let mut meter = rapl::Rapl::from_agent(client).unwrap();
    assert_eq!((meter.name().as_str(), meter.scope().as_str()), ("agent:rapl", "package-0"));
    write(dir.path(), &format!("{zone}/energy_uj"), "1499949");
    // Answers are a little old on purpose.
    let told = std::iter::repeat_with(|| meter.read(5_000_000_000).unwrap()[0].value).find(|value| *value > 0.0);
    near(told.unwrap(), 1.5);

    let (status, metrics) = get(&agent.url, "/metrics");
    assert_eq!(status, 200);
    for line in [
        "edgeyard_node_rapl_energy_joules_total{package=\"package-0\"} 1.499949",
        "# TYPE edgeyard_node_rapl_energy_joules_total counter",
        "edgeyard_node_throttle_core_events_total 4",
        "edgeyard_node_temperature_celsius 51.250",
        "edgeyard_node_board_info{model=\"A \\\"board\\\"\"} 1",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line}: {metrics}");
    }
    assert_eq!(get(&agent.url, "/v1/secrets").0, 404);

    let test = |url: Option<&str>| {
        let mut command = command(&["meter-test", "--meter", "agent:rapl", "--seconds", "1", "--output", "json"]);
        command.env_remove(agent::VARIABLE);
        if let Some(url) = url {
            command.env(agent::VARIABLE, url);
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = test(Some(&agent.url));
    assert_eq!(code, Some(0), "{said}");
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((report["scope"].as_str(), report["meanWatts"].as_f64()), (Some("package-0"), Some(0.0)));
    let url = agent.url.clone();
    drop(agent);
    for (url, reason) in [(Some(url.as_str()), "NodeAgentUnreachable"), (None, "NoNodeAgent")] {
        let (code, said) = test(url);
        assert!(code == Some(4) && said.contains(reason), "{said}");
    }
}

/// Status and body.
fn get(url: &str, path: &str) -> (u16, String) {
    let mut stream = std::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A recorded meter of two watts.
fn two_watts(folder: &Path, more: &str, readings: u32) -> String {
    let meter = folder.join("meter");
    std::fs::create_dir(&meter).unwrap();
    let about =
        format!(r#"{{"name": "lab", "scope": "board", "periodNanoseconds": 1000000, "supplyMillivolts": 5000{more}}}"#);
    file(&meter, "meter.json", about.as_bytes());
    let rows: String = (0..readings).map(|index| format!("{},2.0\n", u64::from(index) * 1_000_000)).collect();
    file(&meter, "readings.csv", format!("nanoseconds,watts\n{rows}").as_bytes());
    format!("replay:{}", text(&meter))
}

#[test]
fn a_meter_is_tested_with_a_known_load() {
    let dir = folder();
    let meter = two_watts(dir.path(), "", 100);
    let test = ["meter-test", "--meter", &meter, "--seconds", "1"];
    let said = succeed(&[&test[..], &["--watts", "2", "--output", "json"]].concat());
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((report["passed"].as_bool(), report["knownWatts"].as_f64()), (Some(true), Some(2.0)));
    near(report["meanWatts"].as_f64().unwrap(), 2.0);
    near(report["readingsPerSecond"].as_f64().unwrap(), 1000.0);
    assert!(succeed(&test).contains("passed"));
    // 5 V at 10 Ω are 2.5 W.
    let wrong = [&test[..], &["--resistor-ohms", "10", "--volts", "5"]].concat();
    fail(&wrong, 4, "MeterTestFailed", "-20.00 % away from the load");
    fail(&[&test[..], &["--watts", "0"]].concat(), 2, "LoadMalformed", "above zero");
    fail(&["meter-test", "--meter", "coral-usb"], 4, "NoSensor", "no sensor");
}

#[test]
fn a_meter_that_disappears_fails_its_test_and_is_named() {
    let dir = folder();
    // Three tenths of a second, and then it is gone.
    let meter = two_watts(dir.path(), r#", "repeat": false"#, 300);
    let test = ["meter-test", "--meter", &meter, "--seconds", "1"];
    fail(&test, 4, "MeterTestFailed", "unplugged");
}

#[test]
fn meters_are_listed() {
    let found: Value = serde_json::from_str(&succeed(&["meters", "--output", "json"])).unwrap();
    assert!(found.as_array().unwrap().iter().all(|found| found["meter"].is_string() && found["scope"].is_string()));
    assert!(!succeed(&["meters"]).is_empty());
}

#[test]
fn what_an_analyser_sent_before_a_recording_is_stale() {
    let (path, mut device) = terminal();
    let (sent, all_sent) = channel();
    let thread = std::thread::spawn(move || {
        // Two recordings of the same meter, an odd number of bytes left over between them.
        let mut seen = Vec::new();
        for stream in 0..2 {
            while seen.last() != Some(&0x06) {
                let mut byte = [0];
                device.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
                if byte[0] == 0x19 {
                    device.write_all(PPK2_METADATA.as_bytes()).unwrap();
                }
            }
            seen.push(0xff);
            let bytes: Vec<u8> = (0..1000).flat_map(ppk2_sample).collect();
            device.write_all(&bytes).unwrap();
            if stream == 0 {
                device.write_all(&ppk2_sample(999)[..3]).unwrap();
            }
            sent.send(()).unwrap();
        }
        (seen, device)
    });
    let mut meter = meter::open(&format!("ppk2:{path}@3300"), &Root::default()).unwrap();
    for _ in 0..2 {
        meter.begin().unwrap();
        for reading in streamed(meter.as_mut(), 10).unwrap() {
            near(reading.value, f64::from(PPK2_STEPS) * 4.0 * (1.8 / 163_840.0) * 3.3);
        }
        near(meter.lost() + 1.0, 1.0);
        meter.end();
        all_sent.recv().unwrap();
    }
    let (seen, _device) = thread.join().unwrap();
    assert_eq!(seen[seen.len() - 4..], [0xff, 0x07, 0x06, 0xff]);
}
