//! The HTTP API under `/v1`, and what stands beside it: health, metrics and the page.

mod blobs;
mod drain;
mod error;
mod names;
mod page;
mod pins;
mod progress;
mod range;
mod results;
mod track;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, put};
use tokio::sync::{RwLock, Semaphore};

pub use error::ApiError;
pub use progress::ProgressBoard;

use crate::Clock;
use crate::auth::{Authority, Right};
use crate::index::{Fence, Index};
use crate::metrics::Metrics;
use crate::quota::Quotas;
use crate::storage::Storage;

/// What every request works with.
pub struct App {
    /// The bytes.
    pub storage: Storage,
    /// What belongs to whom.
    pub index: Index,
    /// Who may do what.
    pub authority: Authority,
    /// How much a namespace may store.
    pub quotas: Quotas,
    /// How far jobs are.
    pub progress: ProgressBoard,
    /// Counters.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
    /// Taken for reading while a blob gets its name and its row, for writing while the sweep removes both: otherwise a
    /// blob could lose its file between the two.
    pub publishing: RwLock<()>,
    /// Bounds the memory that uploads hold; see [`UPLOADS`].
    pub uploads: Semaphore,
}

/// Uploads taken at the same time; others wait for their turn.
pub const UPLOADS: usize = 16;

impl App {
    fn now(&self) -> i64 {
        (self.clock)()
    }

    /// Who calls, and whether they may; gives the lease that writes are fenced by.
    async fn admit(&self, headers: &HeaderMap, namespace: &str, right: Right) -> Result<Option<Fence>, ApiError> {
        names::check_namespace(namespace)?;
        self.admit_anywhere(headers, namespace, right).await
    }

    /// As `admit`; an empty namespace stands for all of them.
    async fn admit_anywhere(
        &self,
        headers: &HeaderMap,
        namespace: &str,
        right: Right,
    ) -> Result<Option<Fence>, ApiError> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let caller = self.authority.authenticate(header, self.now()).await?;
        self.authority.authorize(&caller, namespace, &right, self.now()).await
    }

    /// Refuses early what the index would refuse after the upload.
    fn check_fence(&self, fence: Option<&Fence>) -> Result<(), ApiError> {
        if let Some(Fence { device, token }) = fence
            && let Some(highest) = self.index.highest_token(device)?
            && *token < highest
        {
            return Err(ApiError::stale(highest));
        }
        Ok(())
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let v1 = Router::new()
        .route("/blobs/{digest}", put(blobs::put).get(blobs::get))
        .route("/results", get(results::list))
        .route("/results/{uid}/{attempt}", put(results::put).get(results::get))
        .route("/progress/{uid}/{attempt}", put(progress::put).get(progress::get))
        .route("/pins/{owner}", put(pins::put).delete(pins::delete))
        .route("/usage", get(pins::usage));
    health_routes()
        .merge(page::routes())
        .route("/v1/pins", get(pins::list))
        .nest("/v1/namespaces/{namespace}", v1)
        .fallback(|| async { ApiError::not_found("there is nothing at this path; the API is under /v1/namespaces") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), track::track))
        .layer(axum::middleware::from_fn(drain::drain))
        .with_state(app)
}

/// Health and metrics alone, for a port of their own.
pub fn probes(app: Arc<App>) -> Router {
    health_routes().with_state(app)
}

fn health_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    if !app.index.is_healthy() {
        return Err(ApiError::unavailable("the last change could not be made durable; see the log"));
    }
    match app.storage.read(crate::layout::OCI_LAYOUT).await {
        Ok(Some(_)) => Ok("ok\n"),
        Ok(None) => Err(ApiError::unavailable("the data is gone")),
        Err(error) => Err(error.into()),
    }
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<impl IntoResponse, ApiError> {
    let usage = app.index.used_by_namespace()?;
    let text = app.metrics.render(&usage, &app.quotas);
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let (kind, text) = edgeyard_exposition::negotiate(accept, text);
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, kind)], text))
}
