//! Blobs: streamed in and out.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use edgeyard_artifact::Digest;
use futures::StreamExt as _;

use super::error::written;
use super::range::{self, Asked};
use super::{ApiError, App, names};
use crate::auth::Right;
use crate::index::Change;

/// A client that sends nothing for so long has gone without a word.
const IDLE: Duration = Duration::from_secs(60);

pub(super) async fn put(
    State(app): State<Arc<App>>,
    Path((namespace, digest)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let expected = names::digest(&digest)?;
    let fence = app.admit(&headers, &namespace, Right::WriteBlob).await?;
    let media_type = names::media_type(&headers)?;
    app.check_fence(fence.as_ref())?;
    let quota = app.quotas.of(&namespace);
    // What the namespace has already may be put again even when it is full.
    let room = match app.index.blob(&namespace, &expected)? {
        Some(_) => u64::MAX,
        None => quota.saturating_sub(app.index.used(&namespace)?),
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let full = |size: u64| ApiError::quota(&namespace, quota.saturating_sub(room), size, quota);
    if let Some(size) = announced.filter(|size| *size > room) {
        return Err(full(size));
    }
    // Never closed, so this only waits.
    let _turn = app.uploads.acquire().await.ok();
    let _counted = app.metrics.upload();
    let mut upload = app.storage.begin(expected);
    let mut pieces = body.into_data_stream();
    let failure = loop {
        match tokio::time::timeout(IDLE, pieces.next()).await {
            Ok(None) => break None,
            Ok(Some(Ok(piece))) => {
                app.metrics.received(piece.len());
                if upload.len() + piece.len() as u64 > room {
                    break Some(full(upload.len() + piece.len() as u64));
                }
                if let Err(error) = upload.push(&piece).await {
                    break Some(error.into());
                }
            }
            Ok(Some(Err(error))) => {
                break Some(ApiError::bad("UploadBroken", format!("the upload broke off: {error}")));
            }
            Err(_) => {
                let message = format!("no byte came for {} s", IDLE.as_secs());
                break Some(ApiError::new(StatusCode::REQUEST_TIMEOUT, "UploadBroken", message));
            }
        }
    };
    let actual = upload.digest();
    let failure = failure.or_else(|| {
        (actual != expected).then(|| {
            ApiError::bad("DigestMismatch", format!("{} bytes came with digest {actual}, not {expected}", upload.len()))
        })
    });
    if let Some(failure) = failure {
        upload.abort().await;
        return Err(failure);
    }
    let size = upload.len();
    let outcome = {
        let _publishing = app.publishing.read().await;
        upload.publish().await?;
        let change = Change::PutBlob { namespace: namespace.clone(), digest: expected, size, media_type, quota, fence };
        app.index.change(vec![change]).await?
    };
    let created = written(&outcome[0], &namespace, size, quota)?;
    Ok(if created { StatusCode::CREATED } else { StatusCode::OK })
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path((namespace, digest)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let digest = names::digest(&digest)?;
    app.admit(&headers, &namespace, Right::ReadBlob(digest)).await?;
    let found = app.index.blob(&namespace, &digest)?;
    let found = found.ok_or_else(|| ApiError::not_found(format!("namespace {namespace} has no blob {digest}")))?;
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    send(&app, &digest, found.size, &found.media_type, asked).await
}

/// A blob, or the part of it that `asked` (a `Range` header) names.
pub(super) async fn send(
    app: &App,
    digest: &Digest,
    size: u64,
    media_type: &str,
    asked: Option<&str>,
) -> Result<Response, ApiError> {
    let (status, range) = match range::parse(asked, size) {
        Asked::Whole => (StatusCode::OK, 0..size),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Unsatisfiable => {
            let error = ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "RangeNotSatisfiable",
                format!("the blob has {size} bytes"),
            );
            return Ok(([(header::CONTENT_RANGE, format!("bytes */{size}"))], error).into_response());
        }
    };
    let length = range.end - range.start;
    let content_range = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
    let stream = app.storage.stream_blob(digest, range).await?.ok_or_else(|| ApiError::lost(digest))?;
    let sent = app.metrics.sent_counter();
    let body = Body::from_stream(stream.inspect(move |piece| {
        if let Ok(piece) = piece {
            sent.inc_by(piece.len() as u64);
        }
    }));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let media_type = HeaderValue::from_str(media_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // What tenants upload must never run as a page of this origin.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{digest}\"")) {
        headers.insert(header::ETAG, tag);
    }
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&content_range)
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}
