//! Reads what jobs put into the store.

use edgeyard_artifact::{ClientError, Descriptor};
use edgeyard_crds::descriptor;
use edgeyard_crds::scalars::Digest;
use edgeyard_job::report::{ImportedInput, Optimized, Report, ReportResult};

use crate::frame::{Context, Error};

/// The report under a key, if the store has it and it can be read.
///
/// # Errors
/// [`Error::Store`] when the store gives no answer.
pub async fn report(context: &Context, namespace: &str, key: &str, attempt: u32) -> Result<Option<Report>, Error> {
    let Some(bytes) = result(context, namespace, key, attempt).await? else { return Ok(None) };
    Ok(serde_json::from_slice(&bytes)
        .inspect_err(|error| tracing::warn!(key, attempt, %error, "a report cannot be read"))
        .ok())
}

/// The bytes of a result; `None` if there is none.
///
/// # Errors
/// [`Error::Store`] when the store gives no answer.
pub async fn result(context: &Context, namespace: &str, key: &str, attempt: u32) -> Result<Option<Vec<u8>>, Error> {
    match context.store.get_result(namespace, key, attempt).await {
        Ok(bytes) => Ok(Some(bytes.to_vec())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error::store(format!("read the result of {key}/{attempt}"), error)),
    }
}

/// What an import found.
///
/// # Errors
/// [`Error::Store`] when the store gives no answer.
pub async fn imported(
    context: &Context,
    namespace: &str,
    key: &str,
    attempt: u32,
) -> Result<Option<Vec<ImportedInput>>, Error> {
    Ok(report(context, namespace, key, attempt).await?.and_then(|report| match report.result {
        ReportResult::Import { inputs } => Some(inputs),
        ReportResult::Optimize(_) => None,
    }))
}

/// What an optimisation made.
///
/// # Errors
/// [`Error::Store`] when the store gives no answer.
pub async fn optimized(
    context: &Context,
    namespace: &str,
    key: &str,
    attempt: u32,
) -> Result<Option<Box<Optimized>>, Error> {
    Ok(report(context, namespace, key, attempt).await?.and_then(|report| match report.result {
        ReportResult::Optimize(made) => Some(made),
        ReportResult::Import { .. } => None,
    }))
}

/// Puts a document of the operator's own. If another version of it is there already, that one stays and is described.
///
/// # Errors
/// [`Error::Store`] when the store gives no answer or refuses.
pub async fn put(
    context: &Context,
    namespace: &str,
    key: &str,
    media_type: &str,
    body: Vec<u8>,
) -> Result<descriptor::Descriptor, Error> {
    const ATTEMPT: u32 = 1;
    let action = || format!("store the result of {key}");
    match context.store.put_result(namespace, key, ATTEMPT, media_type, body).await {
        Ok(Descriptor { digest, size_bytes, media_type }) => Ok(descriptor::Descriptor {
            digest: Digest(digest.to_string()),
            size_bytes: i64::try_from(size_bytes).unwrap_or(i64::MAX),
            media_type,
        }),
        Err(error) if taken(&error) => {
            let present = result(context, namespace, key, ATTEMPT).await?;
            let bytes = present.ok_or_else(|| Error::store(action(), error))?;
            Ok(descriptor::Descriptor {
                digest: Digest(edgeyard_artifact::digest_of(&bytes).to_string()),
                size_bytes: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
                media_type: media_type.to_owned(),
            })
        }
        Err(error) => Err(Error::store(action(), error)),
    }
}

fn taken(error: &ClientError) -> bool {
    error.reason() == Some("AttemptTaken")
}
