//! Results: reports and records, one for each (uid, attempt), kept byte for byte.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use edgeyard_artifact::{Descriptor, ResultList, digest_of, find_digests};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;

use super::error::written;
use super::{ApiError, App, blobs, names};
use crate::auth::Right;
use crate::index::{Change, ResultQuery};

/// Samples beyond this go into a blob of their own.
const LARGEST_BODY: usize = 32 << 20;
const DEFAULT_LIMIT: u32 = 100;
const LARGEST_LIMIT: u32 = 1_000;

/// A body of at most `limit` bytes.
pub(super) async fn read_body(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit)),
        Err(error) => Err(ApiError::bad("UploadBroken", format!("the upload broke off: {error}"))),
    }
}

pub(super) async fn put(
    State(app): State<Arc<App>>,
    Path((namespace, uid, attempt)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Descriptor>), ApiError> {
    let attempt = names::attempt(&attempt)?;
    names::check_name("uid", &uid)?;
    let fence = app.admit(&headers, &namespace, Right::WriteResult(uid.clone(), attempt)).await?;
    let media_type = names::media_type(&headers)?;
    let body = read_body(body, LARGEST_BODY).await?;
    app.metrics.received(body.len());
    let parsed: serde_json::Value = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad("MalformedResult", format!("a result is a JSON document: {error}")))?;
    let name = parsed.pointer("/metadata/name").and_then(serde_json::Value::as_str).unwrap_or_default();
    let (digest, size, quota) = (digest_of(&body), body.len() as u64, app.quotas.of(&namespace));
    let change = Change::PutResult {
        namespace: namespace.clone(),
        uid,
        attempt,
        name: name.chars().take(253).collect(),
        digest,
        size,
        media_type: media_type.clone(),
        references: find_digests(&parsed),
        quota,
        fence,
    };
    let outcome = {
        let _publishing = app.publishing.read().await;
        app.storage.write_blob(body).await?;
        app.index.change(vec![change]).await?
    };
    let created = written(&outcome[0], &namespace, size, quota)?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(Descriptor { digest, size_bytes: size, media_type })))
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path((namespace, uid, attempt)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let attempt = names::attempt(&attempt)?;
    app.admit(&headers, &namespace, Right::ReadResult(uid.clone(), attempt)).await?;
    let found = app.index.result(&namespace, &uid, attempt)?;
    let found =
        found.ok_or_else(|| ApiError::not_found(format!("namespace {namespace} has no result of {uid}/{attempt}")))?;
    blobs::send(&app, &found.digest, found.size, &found.media_type, None).await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    media_type: Option<String>,
    name: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    filter: Result<Query<Filter>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<ResultList>, ApiError> {
    app.admit(&headers, &namespace, Right::ListResults).await?;
    let Query(Filter { media_type, name, limit }) = filter.map_err(|error| {
        ApiError::bad("InvalidQuery", format!("{}: take mediaType, name and limit", error.body_text()))
    })?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=LARGEST_LIMIT).contains(&limit) {
        return Err(ApiError::bad("InvalidQuery", format!("limit is 1 to {LARGEST_LIMIT}")));
    }
    Ok(Json(ResultList { items: app.index.results(&namespace, &ResultQuery { media_type, name, limit })? }))
}
