//! `run` on an emulated microcontroller.

mod support;

use support::{data_set, fail, file, folder, models, need, record, succeed, text};

#[test]
fn instructions_repeat_to_the_digit_and_accuracy_is_scored() {
    need("EDGEYARD_QEMU_ARM");
    need("EDGEYARD_FIRMWARE_DIR");
    let dir = folder();
    let model = file(dir.path(), "dense.tflite", &models::dense_tflite_int8());
    let x: Vec<f32> = (0..600).map(|n| if n / 3 % 3 == n % 3 { 1.0 } else { 0.1 }).collect();
    let y: Vec<i64> = (0..200).map(|n| n % 3).collect();
    let evaluation = data_set(dir.path(), "e.npz", &[200, 3], &x, Some(&y));
    let measured = |out: &str| {
        let out = dir.path().join(out);
        succeed(&[
            "run",
            "--model",
            text(&model),
            "--device-class",
            "qemu-cortex-m4",
            "--evaluation",
            text(&evaluation),
            "--out",
            text(&out),
        ]);
        record(&out)
    };
    let (first, second) = (measured("a"), measured("b"));
    let result = &first.results[0];
    assert!(result.instructions_per_inference.unwrap() > 9);
    assert_eq!(result.instructions_per_inference, second.results[0].instructions_per_inference);
    let operators = result.operators.as_ref().unwrap();
    assert_eq!(operators.iter().map(|operator| operator.name.as_str()).collect::<Vec<_>>(), ["FULLY_CONNECTED"]);
    assert_eq!(result.accuracy.as_ref().unwrap().correct, Some(200));
    assert!(result.latency.is_none());
    let memory = result.microcontroller.as_ref().unwrap();
    assert!(memory.flash_bytes > result.size_bytes && memory.ram_bytes >= memory.arena_bytes + memory.stack_bytes);
    assert_eq!(result.output_digest, second.results[0].output_digest);
}

#[test]
fn a_model_without_room_is_refused_with_both_numbers() {
    need("EDGEYARD_QEMU_ARM");
    need("EDGEYARD_FIRMWARE_DIR");
    let dir = folder();
    let bytes = models::dense_tflite_int8();
    let model = file(dir.path(), "dense.tflite", &bytes);
    let out = dir.path().join("out");
    let refused = |limits: &str, hint: &str| {
        let class = format!(
            "{{metadata: {{name: tight}}, spec: {{fidelity: Emulated, targets: [tflm], limits: {limits}, backend: {{type: \
             CortexM, cortexM: {{machine: mps2-an386, icountShift: 6}}}}}}}}"
        );
        let class = file(dir.path(), "class.yaml", class.as_bytes());
        let arguments = ["run", "--model", text(&model), "--device-class", text(&class), "--out", text(&out)];
        fail(&arguments, 2, "ModelTooLarge", hint);
    };
    refused("{flash: 100}", &format!("the model has {} bytes, the device's flash 100", bytes.len()));
    refused("{arena: 3}", "memory for tensors, the device has 3");
    refused("{memory: 5}", "memory at run time, the device has 5");
}

#[test]
fn a_float_model_is_refused_by_the_firmware() {
    need("EDGEYARD_QEMU_ARM");
    need("EDGEYARD_FIRMWARE_DIR");
    let dir = folder();
    let model = file(dir.path(), "float.tflite", &models::dense_tflite());
    let out = dir.path().join("out");
    let arguments = ["run", "--model", text(&model), "--device-class", "qemu-cortex-m4", "--out", text(&out)];
    fail(&arguments, 2, "ModelRefused", "FULLY_CONNECTED");
}
