//! One suite over every way to a device: semihosting streams, QEMU's serial port, and a serial device as boards have. Then what
//! holds of devices whatever the way: streaming, counts, side by side.

use super::tests::{Case, M4, generate, machine, machines, run};
use super::*;
use edgeyard_tflite::{BuiltinOp, Model, Operator, Options, Quantization, Subgraph, Tensor, TensorType};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// QEMU whose serial port is a device file, as a board's is. What it says last outlives it, which QEMU's own `-serial pty` does not
/// promise.
struct Board {
    qemu: Child,
    port: PathBuf,
    /// Keeps the device file alive while nobody has it open.
    _slave: File,
}

impl Board {
    fn start(machine: &Machine) -> Self {
        let (mut master, mut slave) = (0, 0);
        let (name, settings, size) = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
        // SAFETY: two valid pointers for descriptors; the rest may be null.
        let opened = unsafe { libc::openpty(&raw mut master, &raw mut slave, name, settings, size) };
        assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: both are open and nobody else's.
        let (mut master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
        let port = std::fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).unwrap();
        let mut qemu = Command::new(&machine.qemu)
            .args(["-M", &machine.name, "-nodefaults", "-display", "none", "-monitor", "none"])
            .args(["-chardev", "stdio,id=port,signal=off", "-serial", "chardev:port"])
            .args(["-semihosting-config", "enable=on,target=native,arg=edgeyard,arg=uart"])
            .args(["-icount", "shift=6,sleep=off", "-kernel"])
            .arg(&machine.firmware)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (qemu.stdin.take().unwrap(), qemu.stdout.take().unwrap());
        let mut answers = master.try_clone().unwrap();
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut answers));
        // Not `io::copy`, which waits for more than there is.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = master.read(&mut bytes)
                && stdin.write_all(&bytes[..count]).and_then(|()| stdin.flush()).is_ok()
            {}
        });
        Self { qemu, port, _slave: slave }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
    }
}

/// What a device is reached by.
#[derive(Clone, Copy, Debug)]
enum Way {
    Streams,
    Serial,
    Port,
}

/// A device, and the board that it is on, if it is.
fn device(machine: &Machine, way: Way) -> (Emulator, Option<Board>) {
    match way {
        Way::Streams => (Emulator::start_over(machine, Link::Streams, PATIENCE).unwrap(), None),
        Way::Serial => (Emulator::start_over(machine, Link::Serial, PATIENCE).unwrap(), None),
        Way::Port => {
            let board = Board::start(machine);
            (Emulator::attach(&machine.name, &board.port, PATIENCE).unwrap(), Some(board))
        }
    }
}

/// `y = max(x, 0)` so many times over, on so many numbers; step and zero point stay the same.
fn relus(count: usize, length: i32) -> Vec<u8> {
    let mut model = Model::new("relus");
    let tensor = |index: usize| Tensor {
        name: format!("t{index}"),
        quantization: Some(Quantization::per_tensor(0.1, 0)),
        ..Tensor::new(TensorType::Int8, vec![1, length])
    };
    let mut graph = Subgraph {
        tensors: (0..=count).map(tensor).collect(),
        inputs: vec![0],
        outputs: vec![count as i32],
        operators: (0..count as i32)
            .map(|index| Operator::builtin(BuiltinOp::RELU, Options::None, vec![index], vec![index + 1]))
            .collect(),
        ..Subgraph::default()
    };
    for index in 0..count {
        graph.operators[index].code.version = edgeyard_tflite::operator_version(&graph, &graph.operators[index]);
    }
    model.subgraphs.push(graph);
    edgeyard_tflite::write(&model).unwrap()
}

fn rectified(input: &[i8]) -> Vec<u8> {
    input.iter().map(|x| (*x).max(0) as u8).collect()
}

/// The whole protocol over one way: models, inputs, outputs, counts, memory, all that is refused, a fault. Gives what must be the
/// same over every way.
fn protocol_suite(machine: &Machine, way: Way, cases: &[Case], refused: &[Case]) -> (Vec<Vec<Inference>>, MemoryUse) {
    let about = format!("{way:?} to {}", machine.name);
    let (mut device, _board) = device(machine, way);
    assert_eq!(device.unit(), Unit::Instructions, "{about}");
    assert!(matches!(device.infer(&[0; 4]), Err(CortexMError::NothingLoaded)), "{about}");
    let mut found = Vec::new();
    for case in cases {
        let inferences = run(&mut device, case);
        let outputs: Vec<u8> = inferences.iter().flat_map(|inference| inference.outputs.clone()).collect();
        assert!(outputs == case.outputs, "{about}: {}", case.name);
        found.push(inferences);
    }
    for case in refused {
        let error = device.load(&case.model).unwrap_err();
        assert!(matches!(error, CortexMError::Refused(_)), "{about}: {}: {error}", case.name);
    }
    // After a refusal nothing is loaded, and the device goes on.
    assert!(matches!(device.infer(&[0; 4]), Err(CortexMError::NothingLoaded)), "{about}");
    let model = relus(2, 100);
    let cut = device.load(&model[..model.len() / 2]).unwrap_err();
    assert!(matches!(&cut, CortexMError::Refused(why) if why.contains("not a valid TFLite file")), "{about}: {cut}");
    let loaded = device.load(&model).unwrap();
    assert_eq!((loaded.input_bytes(), loaded.ops), (100, vec!["RELU".to_owned(); 2]), "{about}");
    assert!(matches!(device.infer(&[0; 3]), Err(CortexMError::InputLength { got: 3, want: 100 })), "{about}");
    let input: Vec<i8> = (-50..50).collect();
    assert_eq!(device.infer(&input).unwrap().outputs, rectified(&input), "{about}");
    let memory = device.memory().unwrap();
    let fault = device.trap().to_string();
    assert!(fault.contains("cfsr=0x00010000") && fault.contains("hfsr=0x40000000"), "{about}: {fault}");
    (found, memory)
}

#[test]
fn the_protocol_suite_passes_over_every_way_to_every_machine() {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = generate(&folder.path().join("good"), &["--seed", "16", "--count", "12", "--trials", "2"]);
    // A serial port takes some 20 kB a second.
    cases.retain(|case| case.model.len() + case.inputs.len() < 6000);
    assert!(cases.len() >= 4);
    let refused = generate(&folder.path().join("refused"), &["--seed", "0", "--refused"]);
    assert!(refused.len() >= 3);
    for machine in machines() {
        let streams = protocol_suite(&machine, Way::Streams, &cases, &refused);
        for way in [Way::Serial, Way::Port] {
            assert_eq!(protocol_suite(&machine, way, &cases, &refused), streams, "{way:?} to {}", machine.name);
        }
    }
}

#[test]
fn a_port_that_is_none_and_a_board_that_is_silent_are_told() {
    let missing = Emulator::attach("nrf52840", "/dev/no-such-port".as_ref(), PATIENCE).err().unwrap();
    assert!(matches!(missing, CortexMError::Port { .. }), "{missing}");
    assert!(missing.to_string().contains("/dev/no-such-port"), "{missing}");
    let board = Board::start(&machine(M4));
    let other = Emulator::attach("nrf52840", &board.port, PATIENCE).err().unwrap().to_string();
    assert_eq!(other, "the firmware says that it is for mps2-an386, not for nrf52840");
    // A guest that jumps to itself never answers.
    let folder = tempfile::tempdir().unwrap();
    let firmware = folder.path().join("hang.bin");
    std::fs::write(&firmware, [0, 0x10, 0, 0x20, 9, 0, 0, 0, 0xfe, 0xe7]).unwrap();
    let board = Board::start(&Machine { firmware, ..machine(M4) });
    let silent = Emulator::attach(M4, &board.port, Duration::from_millis(300)).err().unwrap();
    assert!(matches!(silent, CortexMError::Hang { doing: "start", .. }), "{silent}");
}

#[test]
fn repeating_an_operator_raises_its_count() {
    for machine in machines() {
        let mut emulator = Emulator::start(&machine).unwrap();
        let mut count = |operators: usize, length: i32| {
            emulator.load(&relus(operators, length)).unwrap();
            let inference = emulator.infer(&vec![5; length as usize]).unwrap();
            assert_eq!(inference.per_op.len(), operators);
            assert_eq!(inference.per_op.iter().sum::<u64>(), inference.instructions);
            inference.instructions
        };
        let [once, twice, thrice] = [1, 2, 3].map(|operators| count(operators, 64));
        let name = &machine.name;
        assert!(once < twice && twice < thrice, "{name}: {once}, {twice}, {thrice}");
        // The second and the third of them do the same on other addresses: only alignment may differ.
        assert!((twice - once).abs_diff(thrice - twice) * 20 <= once, "{name}: {once}, {twice}, {thrice}");
        let longer = count(1, 128);
        assert!(longer > once, "{name}: {once} for 64 numbers, {longer} for 128");
    }
}

#[test]
fn devices_of_all_kinds_side_by_side_count_as_they_do_alone() {
    let folder = tempfile::tempdir().unwrap();
    let cases = generate(folder.path(), &["--seed", "21", "--count", "22", "--trials", "1"]);
    let counts = |machine: &Machine| -> Vec<Vec<Inference>> {
        let mut emulator = Emulator::start(machine).unwrap();
        cases.iter().map(|case| run(&mut emulator, case)).collect()
    };
    let machines = machines();
    let alone: Vec<_> = machines.iter().map(counts).collect();
    // Each kind twice, all at once.
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = machines.iter().chain(&machines).map(|machine| scope.spawn(|| counts(machine))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (index, found) in together.iter().enumerate() {
        let machine = index % machines.len();
        assert!(found == &alone[machine], "{} side by side", machines[machine].name);
    }
}

#[test]
fn an_arena_larger_than_the_machines_memory_is_refused_with_both_numbers() {
    let mut emulator = Emulator::start(&machine(M4)).unwrap();
    // Input and output live together: 6 MiB of the machine's 4.
    let error = emulator.load(&relus(1, 3 << 20)).unwrap_err().to_string();
    let numbers: Vec<u64> = error.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    assert!(error.starts_with("the model needs an arena of at least"), "{error}");
    assert!(matches!(numbers[..], [need, have] if need >= 6 << 20 && have < 4 << 20), "{error}");
    assert!(emulator.load(&relus(1, 1 << 20)).is_ok());
}

#[test]
fn the_mix_of_one_inference_confirms_its_counts() {
    let model = relus(3, 200);
    let input: Vec<i8> = (0..200_u8).map(|n| n as i8).collect();
    for machine in machines() {
        let plugin = machine.plugin().expect("the plugin is beside the firmware: run `cargo xtask firmware`");
        let mut emulator = Emulator::start(&machine).unwrap();
        emulator.load(&model).unwrap();
        let mut inference = emulator.infer(&input).unwrap();
        let mix = confirmed_mix(&machine, &plugin, &model, &input, &inference).unwrap();
        let edgeyard_record::InstructionMix { load, store, multiply, branch, vector, float, other } = mix;
        let sum = load + store + multiply + branch + vector + float + other;
        // What entering and leaving the operators takes comes on top.
        assert!(sum > inference.instructions && sum < inference.instructions + 4 * 200, "{}: {mix:?}", machine.name);
        assert!(load + vector > 0 && store + vector > 0 && branch > 0 && other > 0, "{}: {mix:?}", machine.name);
        inference.per_op[1] += 1;
        let error = confirmed_mix(&machine, &plugin, &model, &input, &inference).unwrap_err();
        assert!(matches!(error, CortexMError::CountsDisagree { .. }), "{error}");
    }
}
