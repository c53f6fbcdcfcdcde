//! Every error answer: a status, one word for programs, a sentence for people.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use edgeyard_artifact::{Digest, ErrorBody};

use crate::index::{IndexError, Outcome};

/// An error answer.
#[derive(Debug)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// One CamelCase word.
    pub reason: &'static str,
    /// What happened and what to do.
    pub message: String,
}

impl ApiError {
    /// Any error.
    pub fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }

    /// 400.
    pub fn bad(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, message)
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this path does not take that method")
    }

    /// 409, the lease is over.
    pub fn stale(highest: i64) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "StaleFencingToken",
            format!("the device has been leased again since (fencing token {highest}): this run must stop"),
        )
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", format!("at most {limit} bytes are taken here"))
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message)
    }

    /// 507.
    pub fn quota(namespace: &str, used: u64, size: u64, quota: u64) -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "QuotaExceeded",
            format!(
                "namespace {namespace} uses {used} of {quota} bytes and {size} more do not fit: delete ModelOptimizations that are no longer needed, or raise the quota (--namespace-quota {namespace}=BYTES)"
            ),
        )
    }

    /// 500 for a file that the index names and the storage has not.
    pub fn lost(digest: &Digest) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "BlobLost",
            format!("{digest} is known but its bytes are gone: restore them, or upload them again"),
        )
    }
}

/// What a writing request answers: `Ok(true)` when something came to be.
pub(super) fn written(outcome: &Outcome, namespace: &str, size: u64, quota: u64) -> Result<bool, ApiError> {
    match outcome {
        Outcome::Done => Ok(true),
        Outcome::Unchanged => Ok(false),
        Outcome::AttemptTaken { digest } => Err(ApiError::new(
            StatusCode::CONFLICT,
            "AttemptTaken",
            format!("this attempt already has another result ({digest}); a new try needs a higher attempt"),
        )),
        Outcome::StaleFencingToken { highest } => Err(ApiError::stale(*highest)),
        Outcome::QuotaExceeded { used } => Err(ApiError::quota(namespace, *used, size, quota)),
    }
}

impl From<IndexError> for ApiError {
    fn from(error: IndexError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "the index failed");
        Self::unavailable("the store cannot read or write its index at present")
    }
}

impl From<object_store::Error> for ApiError {
    fn from(error: object_store::Error) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "the storage failed");
        Self::unavailable("the store cannot read or write its data at present")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, reason, message } = self;
        let mut response = (status, Json(ErrorBody { reason: reason.to_owned(), message })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
