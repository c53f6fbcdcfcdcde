//! Pins and usage.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use edgeyard_artifact::{Digest, PinList, Usage};
use serde::Deserialize;

use super::results::read_body;
use super::{ApiError, App, names};
use crate::auth::Right;
use crate::index::Change;

const LARGEST_BODY: usize = 4 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    digests: Vec<Digest>,
}

pub(super) async fn put(
    State(app): State<Arc<App>>,
    Path((namespace, owner)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    names::check_name("owner", &owner)?;
    app.admit(&headers, &namespace, Right::Pin).await?;
    let Pin { digests } = serde_json::from_slice(&read_body(body, LARGEST_BODY).await?)
        .map_err(|error| ApiError::bad("MalformedPin", format!("a pin is {{\"digests\": [\"sha256:…\"]}}: {error}")))?;
    app.index.change(vec![Change::Pin { namespace, owner, digests }]).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Path((namespace, owner)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    names::check_name("owner", &owner)?;
    app.admit(&headers, &namespace, Right::Unpin).await?;
    app.index.change(vec![Change::Unpin { namespace, owner }]).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<PinList>, ApiError> {
    app.admit_anywhere(&headers, "", Right::ListPins).await?;
    Ok(Json(PinList { items: app.index.pin_owners()? }))
}

pub(super) async fn usage(
    State(app): State<Arc<App>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Usage>, ApiError> {
    app.admit(&headers, &namespace, Right::SeeUsage).await?;
    let used_bytes = app.index.used(&namespace)?;
    Ok(Json(Usage { used_bytes, quota_bytes: app.quotas.of(&namespace) }))
}
