//! Inputs of ModelOptimizations and EdgeBenchmarks: whether they are in the store, and the job that brings them there.

use std::collections::BTreeMap;

use edgeyard_crds::artifact_source::Origin;
use edgeyard_job::report::ImportedInput;
use edgeyard_job::spec;
use edgeyard_plan::inputs::{self, PlannedInput};
use edgeyard_plan::optimization::{Settled, Task};
use edgeyard_plan::outcome::Outcome;
use edgeyard_plan::{Refusal, jobs, names, pods, reason};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::api::PartialObjectMeta;
use kube::{Api, Resource, ResourceExt as _};

use crate::frame::names::label;
use crate::frame::write::{self, call};
use crate::frame::{Context, Error};

use super::observe::SeenJob;
use super::reports;
use super::template::{self, Identity, Program, Volumes};

/// Seconds that a grant outlives its job.
pub const GRANT_MARGIN: i64 = 300;

/// What is seen of an object's inputs.
#[derive(Clone, Debug, Default)]
pub struct SeenInputs {
    /// The import, settled if there is nothing to import.
    pub task: Task,
    /// What the import found, once it has.
    pub imported: BTreeMap<String, ImportedInput>,
    /// What has to be there before work can start, and is not.
    pub missing: Option<Refusal>,
}

/// Looks at an object's inputs. Of `jobs`, those without a variant are imports.
///
/// # Errors
/// [`Error`].
pub async fn look<K>(
    context: &Context,
    owner: &K,
    planned: &[PlannedInput],
    jobs: &[SeenJob],
) -> Result<SeenInputs, Error>
where
    K: Resource<DynamicType = ()>,
{
    let namespace = owner.meta().namespace.clone().unwrap_or_default();
    if let Some(missing) = not_stored(context, &namespace, planned).await? {
        return Ok(SeenInputs { missing: Some(missing), ..SeenInputs::default() });
    }
    if planned.iter().all(|input| input.stored().is_some()) {
        return Ok(SeenInputs { task: Task::done(), ..SeenInputs::default() });
    }
    let key = names::import_key(owner.meta().uid.as_deref().unwrap_or_default());
    let mut attempts = Vec::new();
    for job in jobs.iter().filter(|job| !job.job.labels().contains_key(label::VARIANT)) {
        let mut attempt = job.as_attempt();
        if let Some(Outcome::Done { .. } | Outcome::ConstraintNotMet { .. }) = attempt.outcome {
            match read(context, &namespace, &key, planned, attempt.number).await? {
                Some(Ok(found)) => return Ok(settled(found)),
                Some(Err(why)) => attempt.outcome = Some(Outcome::Infrastructure(why)),
                None => attempt.outcome = Some(Outcome::Infrastructure(lost())),
            }
        }
        attempts.push(attempt);
    }
    let task = Task::from_attempts(&attempts);
    let missing =
        if task.active || task.settled.is_some() { None } else { not_there(context, &namespace, planned).await? };
    Ok(SeenInputs { task, missing, imported: BTreeMap::new() })
}

/// What an earlier life of this import left in the store: then nothing has to be done again.
///
/// # Errors
/// [`Error`].
pub async fn adopt<K>(
    context: &Context,
    owner: &K,
    planned: &[PlannedInput],
    attempt: u32,
) -> Result<Option<SeenInputs>, Error>
where
    K: Resource<DynamicType = ()>,
{
    let namespace = owner.meta().namespace.clone().unwrap_or_default();
    let key = names::import_key(owner.meta().uid.as_deref().unwrap_or_default());
    Ok(match read(context, &namespace, &key, planned, attempt).await? {
        Some(Ok(found)) => Some(settled(found)),
        Some(Err(_)) | None => None,
    })
}

/// Makes the import's Secret and Job. `object_label` is the label that the object's children carry.
///
/// # Errors
/// [`Error`].
pub async fn start<K>(
    context: &Context,
    owner: &K,
    object_label: &str,
    planned: &[PlannedInput],
    attempt: u32,
    deadline_seconds: i64,
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()>,
{
    let (namespace, name) = (owner.meta().namespace.clone().unwrap_or_default(), owner.name_any());
    let uid = owner.meta().uid.clone().unwrap_or_default();
    let key = names::import_key(&uid);
    let credentials = inputs::credentials(planned).map_err(|why| Error::Unexpected(why.message))?;
    let expires = context.now().as_second() + deadline_seconds + GRANT_MARGIN;
    let grant = context.sign(&template::claims(&namespace, &key, attempt, &[], expires));
    let identity = Identity {
        namespace: namespace.clone(),
        name: names::job(&name, &uid, &["import"], attempt),
        labels: BTreeMap::from([
            (object_label.to_owned(), name.clone()),
            (label::ATTEMPT.to_owned(), attempt.to_string()),
        ]),
        annotations: BTreeMap::new(),
        owner: owner_of(owner)?,
    };
    let spec = jobs::import_spec(
        spec::Identity { namespace, name, uid: key, attempt },
        store_access(context, grant),
        planned,
        context.settings.allow_private_addresses,
        context.settings.max_input_bytes,
    );
    let volumes = Volumes::of_inputs(planned, credentials);
    let pod = template::pod(&context.settings, Program::Optimizer, &identity.name, &pods::import(), &volumes);
    write::apply(&context.client, &template::secret(&identity, &spec)).await?;
    write::create(&context.client, &template::job(&identity, pod, deadline_seconds)).await?;
    Ok(())
}

/// A child's reference to the object that it is made for.
///
/// # Errors
/// For an object that does not come from the API server.
pub fn owner_of<K: Resource<DynamicType = ()>>(
    owner: &K,
) -> Result<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference, Error> {
    owner.controller_owner_ref(&()).ok_or_else(|| Error::Unexpected(format!("{} has no UID", write::describe(owner))))
}

/// How a pod reaches the store.
pub fn store_access(context: &Context, grant: String) -> spec::StoreAccess {
    spec::StoreAccess {
        url: context.store_access.url.clone(),
        certificate_authority: context.store_access.certificate_authority_pem.clone(),
        grant,
    }
}

fn settled(imported: BTreeMap<String, ImportedInput>) -> SeenInputs {
    SeenInputs { task: Task::done(), imported, missing: None }
}

fn lost() -> Refusal {
    Refusal::new(reason::RESULT_MISSING, "the import ended well, but the store has no report of it")
}

/// The import's report, checked against what was asked for.
async fn read(
    context: &Context,
    namespace: &str,
    key: &str,
    planned: &[PlannedInput],
    attempt: u32,
) -> Result<Option<Result<BTreeMap<String, ImportedInput>, Refusal>>, Error> {
    let found = reports::imported(context, namespace, key, attempt).await?;
    Ok(found.map(|found| inputs::imported(planned, &found)))
}

/// The first digest given alone that the store does not have in this namespace.
async fn not_stored(context: &Context, namespace: &str, planned: &[PlannedInput]) -> Result<Option<Refusal>, Error> {
    for input in planned {
        let Some(text) = input.stored() else { continue };
        let Ok(digest) = text.parse() else {
            return Ok(Some(Refusal::new(
                reason::INVALID_SPEC,
                format!("{}: {text} is not a sha256 digest", input.field),
            )));
        };
        let has = context.store.has_blob(namespace, &digest).await;
        if !has.map_err(|error| Error::store(format!("look for {digest}"), error))? {
            return Ok(Some(Refusal::new(
                reason::DIGEST_NOT_STORED,
                format!(
                    "{}: the store has no {digest} in namespace {namespace}: bring it there with `kubectl edgeyard push \
                     FILE -n {namespace}`, or name a configMapKeyRef, persistentVolumeClaim or uri",
                    input.field
                ),
            )));
        }
    }
    Ok(None)
}

/// The first ConfigMap, key, claim or Secret that an import needs and that does not exist.
async fn not_there(context: &Context, namespace: &str, planned: &[PlannedInput]) -> Result<Option<Refusal>, Error> {
    let absent = |field: &str, what: String| {
        Some(Refusal::new(reason::INPUT_NOT_FOUND, format!("{field}: {what} in namespace {namespace}: create it")))
    };
    for input in planned {
        match &input.origin {
            Origin::Stored(_) => {}
            Origin::ConfigMap { key, .. } => {
                let Some(map) = write::get::<ConfigMap>(&context.client, namespace, &key.name.0).await? else {
                    return Ok(absent(&input.field, format!("there is no ConfigMap {}", key.name)));
                };
                let in_data = map.data.is_some_and(|data| data.contains_key(&key.key));
                if !in_data && !map.binary_data.is_some_and(|data| data.contains_key(&key.key)) {
                    return Ok(absent(&input.field, format!("ConfigMap {} has no key {}", key.name, key.key)));
                }
            }
            Origin::Claim { file, .. } => {
                let name = &file.claim_name.0;
                if write::get::<PersistentVolumeClaim>(&context.client, namespace, name).await?.is_none() {
                    return Ok(absent(&input.field, format!("there is no PersistentVolumeClaim {name}")));
                }
            }
            Origin::Remote { credentials: Some(secret), .. } => {
                // The operator has no business with what is in it.
                let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
                let found: Option<PartialObjectMeta<Secret>> =
                    call(format!("look for Secret {secret:?}"), api.get_metadata_opt(&secret.name.0)).await?;
                if found.is_none() {
                    return Ok(absent(&input.field, format!("there is no Secret {}", secret.name)));
                }
            }
            Origin::Remote { credentials: None, .. } => {}
        }
    }
    Ok(None)
}

/// The digest of each input, if all are in the store.
pub fn digests(planned: &[PlannedInput], seen: &SeenInputs) -> Option<jobs::Digests> {
    matches!(seen.task.settled, Some(Settled::Done)).then(|| jobs::digests(planned, &seen.imported).ok()).flatten()
}
