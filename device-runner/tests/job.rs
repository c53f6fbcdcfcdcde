//! `job`: what a pod does, from its spec to its last words.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use edgeyard_job::Termination;
use edgeyard_job::spec::{
    AccuracyMetric, Backend, Device, EnergyPolicy, EvaluationData, Fidelity, HeadlinePercentile, Identity, JobSpec,
    Limits, Measure, MeasuredVariant, ModelFormat, Profile, Scenario, StoreAccess, Work, Workload,
};
use edgeyard_record::{Record, digest};
use support::store::Store;
use support::{PROGRAM, data_set, folder, models, need, text};

fn spec(url: &str, models: &[&[u8]], evaluation: Option<&[u8]>) -> JobSpec {
    let variants = models.iter().enumerate().map(|(index, model)| MeasuredVariant {
        model: "dense".into(),
        variant: format!("v{index}"),
        target: "ort-x86".into(),
        format: ModelFormat::Onnx,
        digest: digest(model),
        size_bytes: model.len() as u64,
    });
    JobSpec {
        schema_version: "1.0".into(),
        identity: Identity { namespace: "vision".into(), name: "bench".into(), uid: "7c0e".into(), attempt: 2 },
        store: StoreAccess { url: url.into(), certificate_authority: None, grant: "eyg1.test.grant".into() },
        work: Work::Measure(Measure {
            device: Device {
                namespace: "lab".into(),
                name: "host-0".into(),
                uid: "u".into(),
                class: "host-cpu".into(),
                request: "host".into(),
                fidelity: Fidelity::Hardware,
                fencing_token: 1_795_424_405_123,
            },
            backend: Backend::runtime(),
            limits: Limits::default(),
            workload: Workload {
                scenario: Scenario::SingleStream,
                profile: Profile::Smoke,
                seed: 42,
                query_count: None,
                percentile: None,
                latency_bound_nanoseconds: None,
            },
            threads: 1,
            variants: variants.collect(),
            accuracy: evaluation
                .map(|data| EvaluationData { digest: digest(data), metric: AccuracyMetric::Top1Accuracy }),
            energy: EnergyPolicy::default(),
            meter: None,
            cool_down_millidegrees: None,
            deadline_seconds: 120,
        }),
    }
}

fn run(dir: &Path, spec: &str) -> (Output, Option<Termination>) {
    let file = support::file(dir, "job.json", spec.as_bytes());
    let log: PathBuf = dir.join("termination");
    let output = Command::new(PROGRAM)
        .args(["job", "--spec", text(&file)])
        .env("EDGEYARD_TERMINATION_LOG", &log)
        .output()
        .unwrap();
    let said = std::fs::read_to_string(&log).ok().map(|words| serde_json::from_str(&words).unwrap());
    (output, said)
}

fn dataset(dir: &Path) -> Vec<u8> {
    let x = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    std::fs::read(data_set(dir, "e.npz", &[2, 3], &x, Some(&[0, 1]))).unwrap()
}

#[test]
fn the_record_is_stored_and_its_digest_left_behind() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let (model, data) = (models::dense_onnx(), dataset(dir.path()));
    let store = Store::with(&[&model, &data]);
    let spec = spec(&store.url, &[&model], Some(&data));
    let (output, said) = run(dir.path(), &serde_json::to_string(&spec).unwrap());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let said = said.unwrap();
    let contents = store.contents.lock().unwrap();
    let stored = &contents.results["7c0e/2"];
    assert_eq!((said.reason.as_str(), said.result_digest), ("Succeeded", Some(digest(stored))));
    let record: Record = serde_json::from_slice(stored).unwrap();
    assert_eq!(record.nulls_without_reason(), Vec::<String>::new());
    assert_eq!(record.metadata.namespace.as_deref(), Some("vision"));
    assert_eq!(record.device.fencing_token, Some(1_795_424_405_123));
    assert_eq!(record.results[0].accuracy.as_ref().unwrap().correct, Some(2));
    assert_eq!(record.results[0].digest, digest(&model));
    if let Some(blob) = &record.results[0].latency.as_ref().unwrap().samples.as_ref().unwrap().digest {
        assert!(contents.blobs.contains_key(blob), "the record names samples that are not stored");
    }
    // A step of a few milliseconds may be overtaken by the next before it is told; measuring takes a second.
    assert!(contents.steps.iter().any(|told| told == "Measure"), "Measure is not among {:?}", contents.steps);
}

#[test]
fn a_broken_variant_leaves_the_others() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let (model, broken) = (models::dense_onnx(), b"no model".to_vec());
    let store = Store::with(&[&model, &broken]);
    let spec = spec(&store.url, &[&broken, &model], None);
    let (output, said) = run(dir.path(), &serde_json::to_string(&spec).unwrap());
    assert_eq!((output.status.code(), said.unwrap().reason.as_str()), (Some(0), "Succeeded"));
    let contents = store.contents.lock().unwrap();
    let record: Record = serde_json::from_slice(&contents.results["7c0e/2"]).unwrap();
    assert_eq!(record.results[0].failure.as_ref().unwrap().reason, "CorruptModel");
    assert_eq!(record.results[1].outcome, "Succeeded");
}

#[test]
fn what_cannot_be_done_is_told_and_nothing_stored() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let (model, data, broken) = (models::dense_onnx(), dataset(dir.path()), b"no model".to_vec());
    let store = Store::with(&[&model, &data, &broken]);
    let ends = |spec: &JobSpec| {
        let (output, said) = run(dir.path(), &serde_json::to_string(spec).unwrap());
        (output.status.code().unwrap(), said.unwrap().reason)
    };
    assert_eq!(ends(&spec(&store.url, &[&broken], None)), (2, "CorruptModel".into()));
    assert_eq!(ends(&spec(&store.url, &[b"never stored"], None)), (2, "NotFound".into()));
    assert_eq!(ends(&spec(&store.url, &[&model], Some(&broken))), (2, "DatasetMalformed".into()));
    let mut hurried = spec(&store.url, &[&model], None);
    if let Work::Measure(measure) = &mut hurried.work {
        measure.deadline_seconds = 0;
    }
    assert_eq!(ends(&hurried), (4, "DeadlineExceeded".into()));
    let mut stranger = spec(&store.url, &[&model], None);
    stranger.store.grant = "eyg1.other.grant".into();
    assert_eq!(ends(&stranger), (4, "Unauthorized".into()));
    let mut newer = spec(&store.url, &[&model], None);
    newer.schema_version = "2.0".into();
    assert_eq!(ends(&newer), (2, "VersionSkew".into()));
    assert!(store.contents.lock().unwrap().results.is_empty());
}

#[test]
fn a_lost_lease_ends_the_job_as_cancelled() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = models::dense_onnx();
    let store = Store::with(&[&model]);
    store.contents.lock().unwrap().refuse_results = Some((409, "StaleFencingToken"));
    let spec = spec(&store.url, &[&model], None);
    let (output, said) = run(dir.path(), &serde_json::to_string(&spec).unwrap());
    assert_eq!((output.status.code(), said.unwrap().reason.as_str()), (Some(5), "StaleFencingToken"));
}

#[test]
fn what_the_spec_asks_for_is_what_the_record_says() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = models::dense_onnx();
    let store = Store::with(&[&model]);
    let mut spec = spec(&store.url, &[&model], None);
    let Work::Measure(measure) = &mut spec.work else { panic!("a measurement") };
    measure.workload.scenario = Scenario::MultiStream;
    measure.workload.percentile = Some(HeadlinePercentile::P95);
    measure.workload.query_count = Some(2000);
    measure.energy = EnergyPolicy::Disabled;
    let (output, _) = run(dir.path(), &serde_json::to_string(&spec).unwrap());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let contents = store.contents.lock().unwrap();
    let record: Record = serde_json::from_slice(&contents.results["7c0e/2"]).unwrap();
    let (workload, result) = (&record.workload, &record.results[0]);
    assert_eq!((workload.scenario.as_str(), workload.percentile.as_deref()), ("MultiStream", Some("95")));
    assert_eq!((workload.query_count, workload.seed), (Some(2000), 42));
    assert_eq!(result.latency.as_ref().unwrap().inferences_per_query, 8);
    assert_eq!((result.unavailable["energy"].as_str(), record.unavailable["power"].as_str()), ("Disabled", "Disabled"));
}

#[test]
fn what_cannot_work_is_refused_before_anything_runs() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = models::dense_onnx();
    let store = Store::with(&[&model]);
    let ends = |change: fn(&mut Measure)| {
        let mut spec = spec(&store.url, &[&model], None);
        let Work::Measure(measure) = &mut spec.work else { panic!("a measurement") };
        change(measure);
        let (output, said) = run(dir.path(), &serde_json::to_string(&spec).unwrap());
        let said = said.unwrap();
        (output.status.code().unwrap(), said.reason, said.message)
    };
    let (code, reason, message) = ends(|measure| {
        measure.workload.percentile = Some(HeadlinePercentile::P99);
        measure.workload.query_count = Some(100);
    });
    assert_eq!((code, reason.as_str()), (2, "TooFewQueries"));
    assert!(message.contains("662"), "{message}");
    let (code, reason, _) = ends(|measure| measure.energy = EnergyPolicy::Required);
    assert_eq!((code, reason.as_str()), (2, "MeterMissing"));
    let (code, reason, _) = ends(|measure| measure.workload.scenario = Scenario::Server);
    assert_eq!((code, reason.as_str()), (2, "LatencyBoundMissing"));
    assert!(store.contents.lock().unwrap().results.is_empty());
}

/// A recorded meter of two watts that is gone after so many milliseconds; 0: it stays.
fn recorded_meter(dir: &Path, milliseconds: u64) -> String {
    let meter = dir.join(format!("meter-{milliseconds}"));
    std::fs::create_dir(&meter).unwrap();
    let repeat = milliseconds == 0;
    let about = format!(r#"{{"name": "lab", "scope": "board", "periodNanoseconds": 5000000, "repeat": {repeat}}}"#);
    support::file(&meter, "meter.json", about.as_bytes());
    let rows: String = (0..=milliseconds.max(50) / 5).map(|index| format!("{},2.0\n", index * 5_000_000)).collect();
    support::file(&meter, "readings.csv", format!("nanoseconds,watts\n{rows}").as_bytes());
    format!("replay:{}", text(&meter))
}

#[test]
fn the_energy_policy_decides_what_a_meters_failure_means() {
    use edgeyard_job::spec::EnergyPolicy::{BestEffort, Disabled, Required};
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = models::dense_onnx();
    let store = Store::with(&[&model]);
    let (stays, goes) = (recorded_meter(dir.path(), 0), recorded_meter(dir.path(), 300));
    let missing = "hwmon:no-such-chip".to_owned();
    for (policy, meter, code, said, energy) in [
        (Required, Some(&stays), 0, "Succeeded", None),
        (Required, Some(&goes), 4, "MeterFailed", None),
        (Required, Some(&missing), 4, "MeterMissing", None),
        (Required, None, 2, "MeterMissing", None),
        (BestEffort, Some(&goes), 0, "Succeeded", Some("MeterFailed")),
        (BestEffort, Some(&missing), 0, "Succeeded", Some("MeterMissing")),
        (BestEffort, None, 0, "Succeeded", Some("NoMeter")),
        (Disabled, Some(&stays), 0, "Succeeded", Some("Disabled")),
    ] {
        let mut spec = spec(&store.url, &[&model], None);
        if let Work::Measure(measure) = &mut spec.work {
            (measure.energy, measure.meter) = (policy, meter.cloned());
        }
        store.contents.lock().unwrap().results.clear();
        let (output, words) = run(dir.path(), &serde_json::to_string(&spec).unwrap());
        let told = format!("{policy:?} {meter:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), words.unwrap().reason.as_str()), (Some(code), said), "{told}");
        if code != 0 {
            continue;
        }
        let contents = store.contents.lock().unwrap();
        let record: Record = serde_json::from_slice(&contents.results["7c0e/2"]).unwrap();
        assert_eq!(record.nulls_without_reason(), Vec::<String>::new(), "{told}");
        let result = &record.results[0];
        assert_eq!(result.unavailable.get("energy").map(String::as_str), energy, "{told}");
        assert_eq!(result.energy.is_some(), energy.is_none(), "{told}");
        // Latencies do not hang on a meter, and what it told before it failed is kept.
        assert!(result.latency.is_some(), "{told}");
        let told_power = meter == Some(&goes) || energy.is_none();
        assert_eq!(record.power.is_some_and(|power| power.count >= 60), told_power, "{told}");
    }
}
