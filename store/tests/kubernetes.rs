//! TokenReview, SubjectAccessReview and the grant key, against a mocked API server.

mod common;

use std::sync::{Arc, Mutex};

use common::{Options, TestStore, reason, refused};
use edgeyard_artifact::grant::{self, SigningKey};
use edgeyard_artifact::{Bearer, ClientError, ResultFilter};
use edgeyard_store::auth::{AUDIENCE, GrantKeys, Reviewer};
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

/// What the mocked API server knows and what it was asked.
#[derive(Default)]
struct Cluster {
    asked: Vec<String>,
    grant_key: Option<Value>,
    audience: Option<String>,
    down: bool,
}

fn mock() -> (kube::Client, Arc<Mutex<Cluster>>) {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let cluster = Arc::new(Mutex::new(Cluster { audience: Some(AUDIENCE.into()), ..Default::default() }));
    let shared = Arc::clone(&cluster);
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (parts, body) = request.into_parts();
            let body: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
            let mut cluster = shared.lock().unwrap();
            let (status, answer) = answer(&mut cluster, parts.uri.path(), body);
            send.send_response(
                Response::builder().status(status).body(Body::from(serde_json::to_vec(&answer).unwrap())).unwrap(),
            );
        }
    });
    (kube::Client::new(service, "edgeyard-system"), cluster)
}

/// Alice may only list results of `vision`; nobody else is known.
fn answer(cluster: &mut Cluster, path: &str, mut body: Value) -> (u16, Value) {
    if cluster.down {
        return (
            403,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no"}),
        );
    }
    match path {
        "/apis/authentication.k8s.io/v1/tokenreviews" => {
            assert_eq!(body["spec"]["audiences"], json!([AUDIENCE]));
            cluster.asked.push(format!("token {}", body["spec"]["token"].as_str().unwrap()));
            body["status"] = match body["spec"]["token"].as_str() {
                Some("alice") => json!({
                    "authenticated": true,
                    "audiences": cluster.audience.iter().collect::<Vec<_>>(),
                    "user": {"username": "alice", "uid": "1", "groups": ["ml"], "extra": {"scopes": ["a"]}},
                }),
                _ => json!({"authenticated": false, "error": "unknown token"}),
            };
            (201, body)
        }
        "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
            let spec = &body["spec"];
            assert_eq!((&spec["user"], &spec["groups"], &spec["uid"]), (&json!("alice"), &json!(["ml"]), &json!("1")));
            assert_eq!(spec["extra"], json!({"scopes": ["a"]}));
            let asked = &spec["resourceAttributes"];
            assert_eq!(asked["group"], "edgeyard.dev");
            let text = |field: &str| asked[field].as_str().unwrap().to_owned();
            let asked = format!("{} {} in {}", text("verb"), text("resource"), text("namespace"));
            let allowed = asked == "list results in vision";
            cluster.asked.push(asked);
            body["status"] = json!({"allowed": allowed});
            (201, body)
        }
        "/api/v1/namespaces/edgeyard-system/configmaps/edgeyard-grant-key" => {
            cluster.asked.push("key".into());
            match &cluster.grant_key {
                Some(data) => (
                    200,
                    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "edgeyard-grant-key"}, "data": data}),
                ),
                None => (
                    404,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound", "message": "no"}),
                ),
            }
        }
        other => panic!("{other}"),
    }
}

async fn store() -> (TestStore, Arc<Mutex<Cluster>>) {
    let (client, cluster) = mock();
    let keys = GrantKeys::config_map(kube::Api::namespaced(client.clone(), "edgeyard-system"), "edgeyard-grant-key");
    let reviewer = Some(Reviewer::new(client));
    (TestStore::with(Options { reviewer, keys: Some(keys), ..Options::default() }).await, cluster)
}

fn asked(cluster: &Mutex<Cluster>) -> Vec<String> {
    std::mem::take(&mut cluster.lock().unwrap().asked)
}

#[tokio::test]
async fn the_cluster_decides_and_is_asked_once_a_minute() {
    let (store, cluster) = store().await;
    let alice = store.client_with(Bearer::Token("alice".into()));
    alice.list_results("vision", &ResultFilter::default()).await.unwrap();
    assert_eq!(asked(&cluster), ["token alice", "list results in vision"]);
    alice.list_results("vision", &ResultFilter::default()).await.unwrap();
    assert_eq!(asked(&cluster), [""; 0], "positive answers are remembered");
    store.advance(60);
    alice.list_results("vision", &ResultFilter::default()).await.unwrap();
    assert_eq!(asked(&cluster), ["token alice", "list results in vision"]);
}

#[tokio::test]
async fn every_kind_of_request_asks_for_its_own_right_and_a_no_is_not_remembered() {
    let (store, cluster) = store().await;
    let alice = store.client_with(Bearer::Token("alice".into()));
    let digest = edgeyard_artifact::digest_of("x");
    let forbidden = refused(403, "Forbidden");
    assert_eq!(reason(alice.list_results("speech", &ResultFilter::default()).await), forbidden);
    assert_eq!(reason(alice.list_results("speech", &ResultFilter::default()).await), forbidden);
    assert_eq!(reason(alice.get_blob("vision", &digest).await), forbidden);
    assert_eq!(reason(alice.put_blob("vision", vec![1], "x/y").await), forbidden);
    assert_eq!(reason(alice.get_result("vision", "u", 1).await), forbidden);
    assert_eq!(reason(alice.put_result("vision", "u", 1, "x/y", "{}").await), forbidden);
    assert_eq!(reason(alice.get_progress::<Value>("vision", "u", 1).await), forbidden);
    assert_eq!(reason(alice.put_progress("vision", "u", 1, &1).await), forbidden);
    assert_eq!(reason(alice.pin("vision", "o", &[]).await), forbidden);
    assert_eq!(reason(alice.unpin("vision", "o").await), forbidden);
    assert_eq!(reason(alice.usage("vision").await), forbidden);
    assert_eq!(reason(alice.list_pins().await), forbidden);
    let expected = [
        "token alice",
        "list results in speech",
        "list results in speech",
        "get blobs in vision",
        "create blobs in vision",
        "get results in vision",
        "create results in vision",
        "get results in vision",
        "update results in vision",
        "update blobs in vision",
        "delete blobs in vision",
        "list blobs in vision",
        "list blobs in ",
    ];
    assert_eq!(asked(&cluster), expected);
}

#[tokio::test]
async fn unknown_tokens_and_tokens_for_others_are_401() {
    let (store, cluster) = store().await;
    let mallory = store.client_with(Bearer::Token("mallory".into()));
    assert_eq!(reason(mallory.usage("vision").await), refused(401, "Unauthorized"));
    cluster.lock().unwrap().audience = Some("another-service".into());
    let alice = store.client_with(Bearer::Token("alice".into()));
    assert_eq!(reason(alice.usage("vision").await), refused(401, "Unauthorized"));
    cluster.lock().unwrap().audience = None;
    assert_eq!(reason(alice.usage("vision").await), refused(401, "Unauthorized"));
}

#[tokio::test]
async fn while_the_cluster_cannot_answer_the_store_says_503() {
    let (store, cluster) = store().await;
    cluster.lock().unwrap().down = true;
    let alice = store.client_with(Bearer::Token("alice".into()));
    let error = alice.usage("vision").await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { status: 503, .. }), "{error}");
}

#[tokio::test]
async fn the_grant_key_comes_from_the_config_map_and_may_be_rotated() {
    let (store, cluster) = store().await;
    let written = |key: &SigningKey| grant::encode_public(&key.verifying_key());
    let (first, second) = (store.key.clone(), grant::generate().unwrap());
    let put = async |key: &SigningKey| {
        let bearer = Bearer::Grant(grant::sign(key, &store.claims("vision", "run")));
        store.client_with(bearer).put_blob("vision", vec![1], "x/y").await
    };
    // Before the operator has made one, pods wait rather than fail.
    assert!(matches!(put(&first).await, Err(ClientError::Unavailable { status: 503, .. })));
    cluster.lock().unwrap().grant_key = Some(json!({"public": written(&first)}));
    put(&first).await.unwrap();
    assert_eq!(reason(put(&second).await), refused(401, "Unauthorized"));
    cluster.lock().unwrap().grant_key = Some(json!({"public": written(&second), "previous": written(&first)}));
    store.advance(2);
    put(&second).await.unwrap();
    put(&first).await.unwrap();
    // A key that was withdrawn is believed for a minute at most.
    cluster.lock().unwrap().grant_key = Some(json!({"public": written(&second)}));
    store.advance(60);
    assert_eq!(reason(put(&first).await), refused(401, "Unauthorized"));
}
