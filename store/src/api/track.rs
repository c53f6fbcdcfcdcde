//! Counts, times and logs every request.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::App;

pub(super) async fn track(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // The pattern, not the path: the number of series must not grow with what is stored.
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let (status, elapsed) = (response.status(), started.elapsed());
    app.metrics.request(&route, &method, status, elapsed);
    let (status, milliseconds) = (status.as_u16(), elapsed.as_millis() as u64);
    if method.is_safe() && status < 400 {
        tracing::debug!(%method, path, status, milliseconds, "request");
    } else {
        tracing::info!(%method, path, status, milliseconds, "request");
    }
    response
}
