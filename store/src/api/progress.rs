//! How far jobs are: the last word of each, in memory only, because the next word follows in seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::results::read_body;
use super::{ApiError, App, names};
use crate::auth::Right;

const LARGEST_BODY: usize = 64 << 10;
/// Jobs remembered; beyond that those fall out that have been silent longest.
const CAPACITY: usize = 10_000;

type Key = (String, String, u32);

/// The last word of each job.
#[derive(Default)]
pub struct ProgressBoard {
    words: Mutex<HashMap<Key, (Bytes, i64)>>,
}

impl ProgressBoard {
    fn put(&self, key: Key, word: Bytes, now: i64) {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() >= CAPACITY && !words.contains_key(&key) {
            let oldest = words.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                words.remove(&oldest);
            }
        }
        words.insert(key, (word, now));
    }

    fn get(&self, key: &Key) -> Option<Bytes> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).get(key).map(|(word, _)| word.clone())
    }
}

pub(super) async fn put(
    State(app): State<Arc<App>>,
    Path((namespace, uid, attempt)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let attempt = names::attempt(&attempt)?;
    names::check_name("uid", &uid)?;
    let fence = app.admit(&headers, &namespace, Right::WriteProgress(uid.clone(), attempt)).await?;
    app.check_fence(fence.as_ref())?;
    let body = read_body(body, LARGEST_BODY).await?;
    serde_json::from_slice::<serde::de::IgnoredAny>(&body)
        .map_err(|error| ApiError::bad("MalformedProgress", format!("progress is a JSON document: {error}")))?;
    app.progress.put((namespace, uid, attempt), body, app.now());
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path((namespace, uid, attempt)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let attempt = names::attempt(&attempt)?;
    app.admit(&headers, &namespace, Right::ReadProgress(uid.clone(), attempt)).await?;
    let missing = format!("nothing is known of the progress of {uid}/{attempt}");
    let word = app.progress.get(&(namespace, uid, attempt)).ok_or_else(|| ApiError::not_found(missing))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], word).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silent_fall_out() {
        let board = ProgressBoard::default();
        let key = |n: usize| ("ns".to_owned(), n.to_string(), 1);
        for n in 0..CAPACITY {
            board.put(key(n), Bytes::new(), n as i64);
        }
        board.put(key(0), Bytes::from("again"), CAPACITY as i64);
        board.put(key(CAPACITY), Bytes::new(), CAPACITY as i64 + 1);
        assert_eq!(board.get(&key(0)), Some(Bytes::from("again")));
        assert_eq!(board.get(&key(1)), None);
        assert!(board.get(&key(2)).is_some() && board.get(&key(CAPACITY)).is_some());
    }
}
