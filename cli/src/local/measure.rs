//! An EdgeBenchmark: the same pairing of variants and devices as in a cluster, then one run after the other, because
//! two measurements on one machine would disturb each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use edgeyard_crds::benchmark::EdgeBenchmark;
use edgeyard_crds::device_class::Architecture;
use edgeyard_crds::devices::Candidates;
use edgeyard_crds::run::{BenchmarkRunSpec, PinnedEvaluation};
use edgeyard_crds::scalars::{Digest, ObjectName};
use edgeyard_job::spec::Identity;
use edgeyard_plan::benchmark::{
    self, ACCURACY, Benchmark, DeviceClass, PlannedRun, Pool, Resolution, pairs, pool, resolve,
};
use edgeyard_plan::jobs::GrantedDevice;
use edgeyard_plan::run::{self, Expected};
use edgeyard_plan::{Refusal, jobs, reason};
use edgeyard_record::Record;
use kube::ResourceExt as _;
use serde_json::Value;

use super::manifests::Manifests;
use super::optimize::{Optimized, namespace};
use super::workshop::{Workshop, finished, unix_seconds};

/// The namespace of devices that are this machine's.
const LAB: &str = "local";

/// A record that was made.
pub(super) struct Measured {
    /// Its file in the folder.
    pub(super) file: String,
    /// Its digest.
    pub(super) digest: String,
    /// Its content.
    pub(super) document: Value,
}

/// Gives the records, and what did not come out.
pub(super) async fn run(
    shop: &Arc<Workshop>,
    manifests: &Manifests,
    optimized: &[Optimized],
    written: &EdgeBenchmark,
) -> Result<(Vec<Measured>, Vec<String>)> {
    let name = written.name_any();
    let place = || format!("EdgeBenchmark {name}");
    let plan = benchmark::validate(written.spec.clone()).with_context(place)?;
    if plan.suspend || plan.cancel {
        bail!("{}: spec.suspend or spec.cancel is true: nothing would be measured", place());
    }
    let work =
        Measuring { shop, manifests, namespace: namespace(written), name: name.clone(), uid: shop.uid(written)? };
    // One that is refused does not keep others from being measured.
    match work.plan(&plan, optimized).await? {
        Ok((planned, pools, accuracy)) => work.measure(written, planned, &pools, accuracy).await.with_context(place),
        Err(why) => Ok((Vec::new(), vec![format!("{}: {}: {why}", place(), why.reason)])),
    }
}

struct Measuring<'a> {
    shop: &'a Arc<Workshop>,
    manifests: &'a Manifests,
    namespace: String,
    name: String,
    uid: String,
}

type Planned = (Vec<PlannedRun>, BTreeMap<String, Pool>, Option<PinnedEvaluation>);

impl Measuring<'_> {
    async fn plan(&self, plan: &Benchmark, optimized: &[Optimized]) -> Result<Result<Planned, Refusal>> {
        let imported = match self.shop.bring(&self.namespace, &self.name, &self.uid, &plan.inputs).await? {
            Ok(imported) => imported,
            Err(why) => return Ok(Err(why)),
        };
        // Sizes of artefacts that are named by digest come from the files, as an import would tell them.
        let mut known = imported.clone();
        for input in &plan.inputs {
            if let (Some(digest), Some(file)) = (input.stored(), self.shop.files.of(input)?) {
                let size_bytes = std::fs::metadata(&file)?.len();
                let (name, media_type) = (input.name.clone(), input.media_type.to_owned());
                let found = edgeyard_job::report::ImportedInput { name, digest: digest.into(), size_bytes, media_type };
                known.insert(input.name.clone(), found);
            }
        }
        let optimizations = optimized
            .iter()
            .filter(|found| namespace(&found.object) == self.namespace)
            .map(|found| (found.object.name_any(), found.object.clone()))
            .collect();
        let planned = (|| {
            let (artifacts, unverified) = match resolve(plan, &optimizations, &known)? {
                Resolution::Resolved { artifacts, unverified } => (artifacts, unverified),
                // In a cluster it may still come; here all that there is has been run.
                Resolution::Wait(why) => return Err(why),
            };
            let mut pools = BTreeMap::new();
            let mut classes = BTreeMap::new();
            for entry in &plan.devices {
                let found = pool(entry, &self.manifests.devices)?;
                classes.insert(entry.name.clone(), self.class(&found.class)?.clone());
                pools.insert(entry.name.clone(), found);
            }
            let pairs = pairs(&self.name, plan, &artifacts, &unverified, &pools, &classes)?;
            for skipped in &pairs.skipped {
                self.shop.say(&format!(
                    "{}: {} {} on {} is left out: {}",
                    self.name, skipped.model, skipped.variant, skipped.device, skipped.reason
                ));
            }
            let accuracy = match plan.metric {
                Some(metric) => {
                    let digests = jobs::digests(&plan.inputs, &imported)?;
                    let digest = digests.get(ACCURACY).cloned().unwrap_or_default();
                    Some(PinnedEvaluation { digest: Digest(digest), metric })
                }
                None => None,
            };
            Ok((pairs.runs, pools, accuracy))
        })();
        Ok(planned)
    }

    fn class(&self, name: &str) -> Result<&DeviceClass, Refusal> {
        let class = self.manifests.classes.get(name).ok_or_else(|| {
            let known: Vec<_> = self.manifests.classes.keys().map(String::as_str).collect();
            let message =
                format!("there is no EdgeDeviceClass {name}; known are {}: give its manifest by -f", known.join(", "));
            Refusal::new(reason::DEVICE_CLASS_NOT_FOUND, message)
        })?;
        let here = match std::env::consts::ARCH {
            "aarch64" => Architecture::Arm64,
            _ => Architecture::Amd64,
        };
        if class.shape.architecture != here {
            let message = format!(
                "EdgeDeviceClass {name} is for {:?} and this machine is {here:?}: `local` emulates no processors, run it in a cluster",
                class.shape.architecture
            );
            return Err(Refusal::new(reason::NO_DEVICE_MATCHES, message));
        }
        Ok(class)
    }

    async fn measure(
        &self,
        written: &EdgeBenchmark,
        planned: Vec<PlannedRun>,
        pools: &BTreeMap<String, Pool>,
        accuracy: Option<PinnedEvaluation>,
    ) -> Result<(Vec<Measured>, Vec<String>)> {
        let mut records = Vec::new();
        let mut problems = Vec::new();
        for planned in planned {
            let device = device(&planned, pools)?;
            let spec = self.run_spec(written, &planned, accuracy.clone());
            match self.measure_one(&planned, device, spec).await? {
                Ok(record) => records.push(record),
                Err(why) => problems.push(format!("BenchmarkRun {}: {}: {why}", planned.name, why.reason)),
            }
        }
        Ok((records, problems))
    }

    fn run_spec(
        &self,
        written: &EdgeBenchmark,
        planned: &PlannedRun,
        accuracy: Option<PinnedEvaluation>,
    ) -> BenchmarkRunSpec {
        let spec = &written.spec;
        let mut workload = spec.workload.clone();
        workload.seed = Some(workload.seed.unwrap_or_else(|| run::seed_of(&self.uid)));
        BenchmarkRunSpec {
            benchmark_name: ObjectName(self.name.clone()),
            device: planned.request.clone(),
            unit: planned.unit,
            queue_ref: None,
            priority: spec.priority,
            workload,
            variants: planned.variants.clone(),
            accuracy,
            energy: spec.measurement.energy,
            cool_down_celsius: spec.measurement.cool_down_celsius,
            timeouts: spec.timeouts.clone(),
            device_loss: spec.device_loss.clone(),
            suspend: false,
            cancel: false,
        }
    }

    async fn measure_one(
        &self,
        planned: &PlannedRun,
        device: String,
        spec: BenchmarkRunSpec,
    ) -> Result<Result<Measured, Refusal>> {
        let uid = self.shop.uid(&(&self.uid, &planned.name))?;
        let run = run::validate(spec)?;
        let class = self.class(&planned.class)?;
        let fencing_token = unix_seconds().saturating_mul(1000);
        let granted = GrantedDevice { namespace: LAB.into(), name: device.clone(), uid: uid.clone(), fencing_token };
        let identity =
            Identity { namespace: self.namespace.clone(), name: self.name.clone(), uid: uid.clone(), attempt: 1 };
        let job = jobs::measure_spec(identity, self.shop.access(), &run, granted, class);
        let lease = Some((format!("{LAB}/{device}"), fencing_token));
        let outcome = self.shop.perform("edgeyard-device-runner", &planned.name, lease, job).await?;
        let digest = match finished(outcome) {
            Ok(digest) => digest,
            Err(why) => return Ok(Err(why)),
        };
        let bytes = self.shop.client.get_blob(&self.namespace, &digest.parse()?).await?;
        let record: Record = serde_json::from_slice(&bytes).context("the record cannot be read")?;
        let expected = Expected {
            namespace: self.namespace.clone(),
            uid,
            attempt: 1,
            device: (LAB.to_owned(), device),
            fencing_token,
        };
        if let Err(why) = run::check(&run, &expected, &record) {
            return Ok(Err(why));
        }
        let file = format!("records/{}.json", planned.name);
        let path = self.shop.path(&file);
        std::fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Ok(Measured { file, digest, document: serde_json::from_slice(&bytes)? }))
    }
}

/// The device of a run: the first that it may have; its entry's devices are dealt out already where it has several.
fn device(planned: &PlannedRun, pools: &BTreeMap<String, Pool>) -> Result<String> {
    let names = match planned.request.clone().candidates()? {
        Candidates::Named(names) => names.into_iter().map(|name| name.0).collect(),
        Candidates::OfClass(_) | Candidates::Labelled(_) => {
            pools.get(&planned.request.name.0).map(|pool| pool.names.clone()).unwrap_or_default()
        }
    };
    names.into_iter().next().with_context(|| format!("no device is left for {}", planned.name))
}
