//! Job specs: what each pod is told.

use std::collections::BTreeMap;

use edgeyard_crds::benchmark_status::Fidelity;
use edgeyard_job::report::ImportedInput;
use edgeyard_job::spec::{
    self, CalibrationData, EvaluationData, Identity, Import, JobSpec, Measure, Optimize, SPEC_VERSION, StoreAccess,
    StoredModel, Work,
};

use crate::benchmark::DeviceClass;
use crate::inputs::PlannedInput;
use crate::optimization::{CALIBRATION, EVALUATION, Optimization, PlannedArtifact, SOURCE};
use crate::run::Run;
use crate::{Refusal, reason};

/// Digest of each input by its name, once all of them are in the store.
pub type Digests = BTreeMap<String, String>;

/// Brings inputs into the store.
pub fn import_spec(
    identity: Identity,
    store: StoreAccess,
    inputs: &[PlannedInput],
    allow_private_addresses: bool,
    max_bytes: u64,
) -> JobSpec {
    let inputs = inputs.iter().filter_map(PlannedInput::import).collect();
    job(identity, store, Work::Import(Import { inputs, allow_private_addresses, max_bytes }))
}

/// Digests of all inputs: those that were given, and those that an import found.
pub fn digests(inputs: &[PlannedInput], imported: &BTreeMap<String, ImportedInput>) -> Result<Digests, Refusal> {
    inputs
        .iter()
        .map(|input| {
            let digest = match (input.stored(), imported.get(&input.name)) {
                (Some(digest), _) => digest.to_owned(),
                (None, Some(found)) => found.digest.clone(),
                (None, None) => {
                    return Err(Refusal::new(
                        reason::RESULT_MISSING,
                        format!("{}: the import's report does not say what {} is", input.field, input.name),
                    ));
                }
            };
            Ok((input.name.clone(), digest))
        })
        .collect()
}

/// Makes one artefact.
///
/// # Errors
/// When `digests` lacks an input; see [`digests`].
pub fn optimize_spec(
    identity: Identity,
    store: StoreAccess,
    plan: &Optimization,
    artifact: &PlannedArtifact,
    digests: &Digests,
) -> Result<JobSpec, Refusal> {
    let digest = |name: &str| {
        digests
            .get(name)
            .cloned()
            .ok_or_else(|| Refusal::new(reason::RESULT_MISSING, format!("the digest of input {name} is not known")))
    };
    let calibration = match plan.sample_count.filter(|_| artifact.reads_calibration()) {
        Some(sample_count) => Some(CalibrationData { digest: digest(CALIBRATION)?, sample_count }),
        None => None,
    };
    let evaluation = match plan.metric {
        Some(metric) => Some(EvaluationData { digest: digest(EVALUATION)?, metric }),
        None => None,
    };
    let work = Work::Optimize(Optimize {
        source: StoredModel { digest: digest(SOURCE)?, format: plan.source_format },
        calibration,
        evaluation,
        variant: artifact.variant.clone(),
        target: artifact.target.clone(),
        passes: artifact.passes.clone(),
        max_accuracy_drop: plan.max_accuracy_drop,
        max_size_bytes: plan.max_size_bytes,
        input_shapes: plan.input_shapes.clone(),
        input_values: plan.input_values.clone(),
    });
    Ok(job(identity, store, work))
}

/// The device that a run was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedDevice {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The lease's token.
    pub fencing_token: i64,
}

/// Measures a run's variants on the device that it was granted.
pub fn measure_spec(
    identity: Identity,
    store: StoreAccess,
    run: &Run,
    device: GrantedDevice,
    class: &DeviceClass,
) -> JobSpec {
    let GrantedDevice { namespace, name, uid, fencing_token } = device;
    let work = Work::Measure(Measure {
        device: spec::Device {
            namespace,
            name,
            uid,
            class: class.name.clone(),
            request: run.request.name.0.clone(),
            fidelity: match class.fidelity {
                Fidelity::Hardware => spec::Fidelity::Hardware,
                Fidelity::Emulated => spec::Fidelity::Emulated,
            },
            fencing_token,
        },
        backend: class.backend.clone(),
        limits: class.limits.clone(),
        workload: run.workload.clone(),
        threads: class.shape.threads,
        variants: run.variants.clone(),
        accuracy: run.accuracy.clone(),
        energy: run.energy,
        meter: class.meter.as_ref().map(|meter| meter.argument.clone()),
        cool_down_millidegrees: run.cool_down_millidegrees,
        deadline_seconds: u64::try_from(run.timeouts.run_seconds).unwrap_or(1),
    });
    job(identity, store, work)
}

/// Every digest that a job reads: what its grant has to allow.
pub fn reads(work: &Work) -> Vec<String> {
    let mut digests: Vec<String> = match work {
        Work::Import(_) => Vec::new(),
        Work::Optimize(work) => [
            Some(&work.source.digest),
            work.calibration.as_ref().map(|data| &data.digest),
            work.evaluation.as_ref().map(|data| &data.digest),
        ]
        .into_iter()
        .flatten()
        .cloned()
        .collect(),
        Work::Measure(work) => work
            .variants
            .iter()
            .map(|variant| &variant.digest)
            .chain(work.accuracy.as_ref().map(|data| &data.digest))
            .cloned()
            .collect(),
    };
    digests.sort();
    digests.dedup();
    digests
}

fn job(identity: Identity, store: StoreAccess, work: Work) -> JobSpec {
    JobSpec { schema_version: SPEC_VERSION.to_owned(), identity, store, work }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimization;

    fn identity() -> Identity {
        Identity { namespace: "vision".into(), name: "mnist".into(), uid: "u.int8.tflm".into(), attempt: 1 }
    }

    fn store() -> StoreAccess {
        StoreAccess { url: "https://store".into(), certificate_authority: None, grant: "eyg1.x.y".into() }
    }

    #[test]
    fn an_optimize_job_reads_only_what_it_needs() {
        let plan = optimization::tests::from_yaml(optimization::tests::MINIMAL).unwrap();
        let digests = Digests::from(
            [(SOURCE, "sha256:1"), (CALIBRATION, "sha256:2"), (EVALUATION, "sha256:3")]
                .map(|(k, v)| (k.into(), v.into())),
        );
        let reads_of = |index: usize| {
            reads(&optimize_spec(identity(), store(), &plan, &plan.artifacts[index], &digests).unwrap().work)
        };
        assert_eq!(reads_of(0), ["sha256:1", "sha256:3"]);
        assert_eq!(reads_of(3), ["sha256:1", "sha256:2", "sha256:3"]);
    }

    #[test]
    fn an_import_brings_what_is_not_stored() {
        let plan = optimization::tests::from_yaml(optimization::tests::MINIMAL).unwrap();
        let spec = import_spec(identity(), store(), &plan.inputs, false, 10);
        let Work::Import(import) = &spec.work else { panic!() };
        assert_eq!(import.inputs.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["source", "calibration"]);
        let refusal = digests(&plan.inputs, &BTreeMap::new()).unwrap_err();
        assert_eq!(refusal.reason, reason::RESULT_MISSING);
    }
}
