//! For tests: an API server that expects exactly these requests, in this order.

use std::sync::Arc;

use clap::Parser as _;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::clock::{FixedClock, Timestamp};
use super::{Context, Settings};

/// One request and its answer.
pub struct Exchange {
    method: &'static str,
    path: String,
    check: Box<dyn Fn(&Value) + Send>,
    status: u16,
    answer: Value,
}

impl Exchange {
    /// `path` is a beginning of path and query.
    pub fn new(method: &'static str, path: impl Into<String>, status: u16, answer: Value) -> Self {
        Self { method, path: path.into(), check: Box::new(|_| {}), status, answer }
    }

    /// What the request's body must be like.
    pub fn with_body(mut self, check: impl Fn(&Value) + Send + 'static) -> Self {
        self.check = Box::new(check);
        self
    }

    /// The answer to what is not there.
    pub fn not_found(method: &'static str, path: impl Into<String>) -> Self {
        Self::new(method, path, 404, status(404, "NotFound"))
    }

    /// The answer to an outdated write.
    pub fn conflict(method: &'static str, path: impl Into<String>) -> Self {
        Self::new(method, path, 409, status(409, "Conflict"))
    }
}

/// A context whose API server expects these requests; the task ends when all came, and fails when others did.
pub fn context(now: &str, script: Vec<Exchange>) -> (Arc<Context>, JoinHandle<()>) {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let server = tokio::spawn(async move {
        for Exchange { method, path, check, status, answer } in script {
            let Some((request, send)) = handle.next_request().await else { panic!("{method} {path} was not asked") };
            let asked = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            assert_eq!(request.method().as_str(), method, "{asked}");
            assert!(asked.starts_with(&path), "{asked} instead of {path}");
            let body = request.into_body().collect_bytes().await.unwrap();
            check(&serde_json::from_slice(&body).unwrap_or(Value::Null));
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            send.send_response(Response::builder().status(status).body(answer).unwrap());
        }
        if let Some((request, _)) = handle.next_request().await {
            panic!("unexpected: {} {}", request.method(), request.uri());
        }
    });
    let settings = Settings::parse_from(["edgeyard-operator", "--store-url", "http://127.0.0.1:1"]);
    let key = edgeyard_artifact::grant::generate().unwrap();
    let mut context = Context::new(Client::new(service, "default"), settings, None, key).unwrap();
    context.clock = Arc::new(FixedClock(now.parse::<Timestamp>().unwrap()));
    (Arc::new(context), server)
}

/// Ends the context, and so the mock; fails if the requests were not those expected.
pub async fn finish(context: Arc<Context>, server: JoinHandle<()>) {
    assert_eq!(Arc::strong_count(&context), 1, "somebody still holds the context");
    drop(context);
    server.await.unwrap();
}

fn status(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason })
}
