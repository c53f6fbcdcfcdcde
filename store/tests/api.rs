//! The contract of the HTTP API, over real HTTP.

mod common;

use common::{Options, START, TOKEN, TestStore, bytes, http, reason, refused};
use edgeyard_artifact::grant::Claims;
use edgeyard_artifact::{Bearer, Descriptor, ErrorBody, ErrorClass, ResultFilter, digest_of};
use edgeyard_store::quota::Quotas;
use edgeyard_store::rfc3339;

const RECORD: &str = "application/vnd.edgeyard.record.v1+json";

#[tokio::test]
async fn a_blob_goes_in_and_comes_out_in_memory_and_as_a_file() {
    let store = TestStore::start().await;
    let client = store.client();
    // Longer than one part of an upload.
    let model = bytes(20 << 20, 1);
    let digest = digest_of(&model);
    assert!(!client.has_blob("vision", &digest).await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, &model).unwrap();
    let made = client.put_blob("vision", path.as_path(), "application/vnd.onnx").await.unwrap();
    let expected = Descriptor { digest, size_bytes: model.len() as u64, media_type: "application/vnd.onnx".into() };
    assert_eq!(made, expected);
    assert!(client.has_blob("vision", &digest).await.unwrap());
    assert_eq!(client.blob_size("vision", &digest).await.unwrap(), Some(model.len() as u64));
    assert_eq!(client.blob_size("speech", &digest).await.unwrap(), None);
    assert_eq!(client.get_blob("vision", &digest).await.unwrap(), model);
    let copy = folder.path().join("copy.onnx");
    assert_eq!(client.get_blob_to_file("vision", &digest, &copy).await.unwrap(), model.len() as u64);
    assert_eq!(std::fs::read(&copy).unwrap(), model);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no temporary file stays: {names:?}");
    let usage = client.usage("vision").await.unwrap();
    assert_eq!((usage.used_bytes, usage.quota_bytes), (model.len() as u64, common::QUOTA));
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let store = TestStore::start().await;
    let client = store.client();
    let made = client.put_blob("vision", Vec::new(), "text/plain").await.unwrap();
    assert_eq!(client.get_blob("vision", &made.digest).await.unwrap().len(), 0);
}

#[tokio::test]
async fn statuses_headers_and_ranges() {
    let store = TestStore::start().await;
    let http = http();
    let text = "0123456789";
    let digest = digest_of(text);
    let url = format!("{}/v1/namespaces/vision/blobs/{digest}", store.url);
    let put = || http.put(&url).bearer_auth(TOKEN).header("content-type", "application/vnd.tflite").body(text);
    assert_eq!(put().send().await.unwrap().status(), 201);
    assert_eq!(put().send().await.unwrap().status(), 200);
    let head = http.head(&url).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-length"], "10");
    assert_eq!(head.headers()["content-type"], "application/vnd.tflite");
    assert_eq!(head.headers()["etag"], format!("\"{digest}\""));
    for (range, status, body, content_range) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-2", 206, "89", "bytes 8-9/10"),
        ("bytes=5-100", 206, "56789", "bytes 5-9/10"),
        ("bytes=0-1,3-4", 200, text, ""),
    ] {
        let answer = http.get(&url).bearer_auth(TOKEN).header("range", range).send().await.unwrap();
        assert_eq!(answer.status(), status, "{range}");
        let found = answer.headers().get("content-range").map_or("", |v| v.to_str().unwrap()).to_owned();
        assert_eq!(found, content_range, "{range}");
        assert_eq!(answer.text().await.unwrap(), body, "{range}");
    }
    let beyond = http.get(&url).bearer_auth(TOKEN).header("range", "bytes=10-").send().await.unwrap();
    assert_eq!(beyond.status(), 416);
    assert_eq!(beyond.headers()["content-range"], "bytes */10");
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_leave_nothing() {
    let store = TestStore::start().await;
    let http = http();
    let digest = digest_of("right");
    let url = |name: &str| format!("{}/v1/namespaces/vision/blobs/{name}", store.url);
    // More than one part, so that something was staged.
    for wrong in [b"wrong".to_vec(), bytes(17 << 20, 3)] {
        let answer = http.put(url(&digest.to_string())).bearer_auth(TOKEN).body(wrong).send().await.unwrap();
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.json::<ErrorBody>().await.unwrap().reason, "DigestMismatch");
    }
    let answer = http.put(url("sha256:12")).bearer_auth(TOKEN).body("x").send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.json::<ErrorBody>().await.unwrap().reason, "InvalidDigest");
    assert_eq!(reason(store.client().get_blob("vision", &digest).await), refused(404, "NotFound"));
    let files = std::fs::read_dir(store.folder.path().join("blobs/sha256")).unwrap().count();
    assert_eq!(files, 1, "only OCI's empty document");
}

#[tokio::test]
async fn a_digest_is_no_capability() {
    let store = TestStore::start().await;
    let model = bytes(100, 1);
    let made = store.client().put_blob("vision", model.clone(), "x/y").await.unwrap();
    // Another namespace does not see it, may put it itself, and then each has its own.
    assert_eq!(reason(store.client().get_blob("speech", &made.digest).await), refused(404, "NotFound"));
    let put = store.grant(&store.claims("speech", "run")).put_blob("speech", model, "x/y").await.unwrap();
    assert_eq!(put.digest, made.digest);
    assert_eq!(store.client().usage("speech").await.unwrap().used_bytes, 100);
    // A grant of another namespace is refused before anything is looked up.
    let other = store.reader("speech", vec![made.digest]);
    assert_eq!(reason(other.get_blob("vision", &made.digest).await), refused(403, "Forbidden"));
    assert_eq!(reason(other.get_result("vision", "reader", 1).await), refused(403, "Forbidden"));
    assert_eq!(reason(other.put_blob("vision", vec![1], "x/y").await), refused(403, "Forbidden"));
}

#[tokio::test]
async fn a_grant_allows_what_it_says_and_nothing_else() {
    let store = TestStore::start().await;
    let model = store.client().put_blob("vision", vec![1, 2, 3], "x/y").await.unwrap();
    let secret = store.client().put_blob("vision", vec![4, 5, 6], "x/y").await.unwrap();
    let pod = store.grant(&Claims { read: vec![model.digest], ..store.claims("vision", "run") });
    assert_eq!(pod.get_blob("vision", &model.digest).await.unwrap().as_ref(), [1, 2, 3]);
    assert_eq!(reason(pod.get_blob("vision", &secret.digest).await), refused(403, "Forbidden"));
    assert_eq!(reason(pod.put_result("vision", "run", 2, RECORD, "{}").await), refused(403, "Forbidden"));
    assert_eq!(reason(pod.put_result("vision", "other", 1, RECORD, "{}").await), refused(403, "Forbidden"));
    assert_eq!(reason(pod.list_results("vision", &ResultFilter::default()).await), refused(403, "Forbidden"));
    assert_eq!(reason(pod.pin("vision", "me", &[model.digest]).await), refused(403, "Forbidden"));
    assert_eq!(reason(pod.unpin("vision", "me").await), refused(403, "Forbidden"));
    assert_eq!(reason(pod.usage("vision").await), refused(403, "Forbidden"));
    pod.put_result("vision", "run", 1, RECORD, "{}").await.unwrap();
    assert_eq!(pod.get_result("vision", "run", 1).await.unwrap(), "{}");
    store.advance(3600);
    let expired = pod.get_blob("vision", &model.digest).await.unwrap_err();
    assert_eq!(expired.class(), ErrorClass::Infrastructure, "another attempt gets a new grant");
    assert_eq!(reason::<()>(Err(expired)), refused(401, "Unauthorized"));
}

#[tokio::test]
async fn without_a_good_token_nothing_is_told() {
    let store = TestStore::start().await;
    let foreign = edgeyard_artifact::grant::generate().unwrap();
    let forged = edgeyard_artifact::grant::sign(&foreign, &store.claims("vision", "run"));
    for bearer in [Bearer::Token("wrong".into()), Bearer::Grant(forged), Bearer::Grant("eyg1.x.y".into())] {
        let client = store.client_with(bearer);
        assert_eq!(reason(client.get_blob("vision", &digest_of("x")).await), refused(401, "Unauthorized"));
        assert_eq!(reason(client.put_result("vision", "run", 1, RECORD, "{}").await), refused(401, "Unauthorized"));
    }
    let answer = http().get(format!("{}/v1/namespaces/vision/results", store.url)).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    assert!(answer.json::<ErrorBody>().await.unwrap().message.contains("kubectl create token"));
}

#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let store = TestStore::with(Options { quotas: Quotas::new(1000, []), ..Options::default() }).await;
    let refusal = store.client().put_blob("vision", bytes(32 << 20, 1), "x/y").await;
    assert_eq!(reason(refusal), refused(507, "QuotaExceeded"));
    let stranger = store.client_with(Bearer::Token("wrong".into()));
    assert_eq!(reason(stranger.put_blob("vision", bytes(32 << 20, 1), "x/y").await), refused(401, "Unauthorized"));
}

#[tokio::test]
async fn results_are_kept_byte_for_byte_once() {
    let store = TestStore::start().await;
    let client = store.client();
    // Spaces and order of keys must survive.
    let body = "{ \"metadata\": {\"name\": \"mnist\"},\n \"b\": 1, \"a\": 2 }";
    let http = http();
    let url = format!("{}/v1/namespaces/vision/results/run-1/1", store.url);
    let put = |text: &'static str| http.put(&url).bearer_auth(TOKEN).header("content-type", RECORD).body(text);
    let first = put(body).send().await.unwrap();
    assert_eq!(first.status(), 201);
    let made: Descriptor = first.json().await.unwrap();
    let expected = Descriptor { digest: digest_of(body), size_bytes: body.len() as u64, media_type: RECORD.into() };
    assert_eq!(made, expected);
    let again = put(body).send().await.unwrap();
    assert_eq!(again.status(), 200);
    assert_eq!(again.json::<Descriptor>().await.unwrap(), expected);
    let other = put("{}").send().await.unwrap();
    assert_eq!(other.status(), 409);
    assert_eq!(other.json::<ErrorBody>().await.unwrap().reason, "AttemptTaken");
    assert_eq!(client.get_result("vision", "run-1", 1).await.unwrap(), body);
    assert_eq!(client.get_blob("vision", &made.digest).await.unwrap(), body, "a result is a blob too");
    assert_eq!(reason(client.get_result("vision", "run-1", 2).await), refused(404, "NotFound"));
    assert_eq!(reason(client.get_result("speech", "run-1", 1).await), refused(404, "NotFound"));
    let garbage = client.put_result("vision", "run-1", 3, RECORD, "not json").await;
    assert_eq!(reason(garbage), refused(400, "MalformedResult"));
}

#[tokio::test]
async fn listing_filters_and_is_newest_first() {
    let store = TestStore::start().await;
    let client = store.client();
    for (number, (name, media_type)) in [("a", "x/report"), ("b", RECORD), ("a", RECORD)].into_iter().enumerate() {
        let body = format!("{{\"metadata\":{{\"name\":\"{name}\"}},\"n\":{number}}}");
        client.put_result("vision", &format!("uid-{number}"), 1, media_type, body).await.unwrap();
        store.advance(1);
    }
    let list = async |filter: ResultFilter| {
        let items = client.list_results("vision", &filter).await.unwrap().items;
        items.into_iter().map(|item| item.uid).collect::<Vec<_>>()
    };
    assert_eq!(list(ResultFilter::default()).await, ["uid-2", "uid-1", "uid-0"]);
    assert_eq!(list(ResultFilter { name: Some("a".into()), ..Default::default() }).await, ["uid-2", "uid-0"]);
    assert_eq!(list(ResultFilter { media_type: Some(RECORD.into()), ..Default::default() }).await, ["uid-2", "uid-1"]);
    assert_eq!(list(ResultFilter { limit: Some(1), ..Default::default() }).await, ["uid-2"]);
    let all = client.list_results("vision", &ResultFilter::default()).await.unwrap().items;
    assert_eq!((all[0].name.as_str(), all[0].attempt), ("a", 1));
    assert_eq!(all[2].created_at, rfc3339(START));
    assert_eq!(all[2].created_at, "2026-09-21T14:13:20Z");
    assert!(client.list_results("speech", &ResultFilter::default()).await.unwrap().items.is_empty());
    let unlimited = client.list_results("vision", &ResultFilter { limit: Some(0), ..Default::default() }).await;
    assert_eq!(reason(unlimited), refused(400, "InvalidQuery"));
}

#[tokio::test]
async fn an_old_lease_cannot_write() {
    let store = TestStore::start().await;
    let holder = |uid: &str, token: i64| {
        let (device, fencing_token) = (Some("lab/cpu".into()), Some(token));
        store.grant(&Claims { device, fencing_token, ..store.claims("vision", uid) })
    };
    let (old, new) = (holder("old", 10), holder("new", 11));
    old.put_result("vision", "old", 1, RECORD, "{\"n\":1}").await.unwrap();
    new.put_blob("vision", vec![1], "x/y").await.unwrap();
    let stale = old.put_blob("vision", vec![2], "x/y").await.unwrap_err();
    assert_eq!(stale.class(), ErrorClass::Superseded);
    assert_eq!(reason::<()>(Err(stale)), refused(409, "StaleFencingToken"));
    let stale = holder("late", 10).put_result("vision", "late", 1, RECORD, "{}").await;
    assert_eq!(reason(stale), refused(409, "StaleFencingToken"));
    assert_eq!(reason(old.put_progress("vision", "old", 1, &1).await), refused(409, "StaleFencingToken"));
    // An answer that was lost can be asked for again: nothing changes by it.
    old.put_result("vision", "old", 1, RECORD, "{\"n\":1}").await.unwrap();
    new.put_result("vision", "new", 1, RECORD, "{}").await.unwrap();
    // Another device is another fence.
    let device = Some("lab/other".into());
    let other = store.grant(&Claims { device, fencing_token: Some(1), ..store.claims("vision", "o") });
    other.put_blob("vision", vec![3], "x/y").await.unwrap();
}

#[tokio::test]
async fn a_full_namespace_answers_507_and_keeps_what_it_has() {
    let quotas = Quotas::new(100, [("vision".to_owned(), 250)]);
    let store = TestStore::with(Options { quotas, ..Options::default() }).await;
    let client = store.client();
    assert_eq!(reason(client.put_blob("speech", bytes(101, 1), "x/y").await), refused(507, "QuotaExceeded"));
    let first = client.put_blob("vision", bytes(200, 1), "x/y").await.unwrap();
    let second = client.put_blob("vision", bytes(51, 2), "x/y").await.unwrap_err();
    assert_eq!(second.class(), ErrorClass::Quota);
    assert!(second.to_string().contains("200 of 250 bytes"), "{second}");
    client.put_blob("vision", bytes(50, 3), "x/y").await.unwrap();
    // What is there may be put again.
    client.put_blob("vision", bytes(200, 1), "x/y").await.unwrap();
    assert_eq!(reason(client.put_result("vision", "run", 1, RECORD, "{}").await), refused(507, "QuotaExceeded"));
    assert_eq!(client.get_blob("vision", &first.digest).await.unwrap(), bytes(200, 1));
    // Without a length the limit holds as well.
    let http = http();
    let large = bytes(300, 4);
    let url = format!("{}/v1/namespaces/vision/blobs/{}", store.url, digest_of(&large));
    let pieces: Vec<_> = large.chunks(60).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    assert_eq!(http.put(url).bearer_auth(TOKEN).body(body).send().await.unwrap().status(), 507);
    assert_eq!(client.usage("vision").await.unwrap().used_bytes, 250);
}

#[tokio::test]
async fn progress_is_the_last_word() {
    let store = TestStore::start().await;
    let pod = store.grant(&store.claims("vision", "run"));
    let read = async || store.client().get_progress::<serde_json::Value>("vision", "run", 1).await.unwrap();
    assert_eq!(read().await, None);
    pod.put_progress("vision", "run", 1, &serde_json::json!({"done": 1})).await.unwrap();
    pod.put_progress("vision", "run", 1, &serde_json::json!({"done": 2})).await.unwrap();
    assert_eq!(read().await, Some(serde_json::json!({"done": 2})));
    assert_eq!(reason(pod.put_progress("vision", "other", 1, &1).await), refused(403, "Forbidden"));
}

#[tokio::test]
async fn pins_check_their_body() {
    let store = TestStore::start().await;
    let client = store.client();
    client.pin("vision", "mo-1", &[digest_of("x")]).await.unwrap();
    client.pin("speech", "mo-2", &[]).await.unwrap();
    let owners = client.list_pins().await.unwrap().items;
    let owners: Vec<_> = owners.iter().map(|pin| (pin.namespace.as_str(), pin.owner.as_str())).collect();
    assert_eq!(owners, [("speech", "mo-2"), ("vision", "mo-1")]);
    let pod = store.grant(&store.claims("vision", "run"));
    assert_eq!(reason(pod.list_pins().await), refused(403, "Forbidden"));
    client.unpin("vision", "mo-1").await.unwrap();
    client.unpin("vision", "mo-1").await.unwrap();
    let http = http();
    let url = format!("{}/v1/namespaces/vision/pins/mo-1", store.url);
    for wrong in ["{}", "{\"digests\":[\"x\"]}", "[]", "{\"digests\":[],\"more\":1}"] {
        let answer = http.put(&url).bearer_auth(TOKEN).body(wrong).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{wrong}");
        assert_eq!(answer.json::<ErrorBody>().await.unwrap().reason, "MalformedPin");
    }
}

#[tokio::test]
async fn health_metrics_the_page_and_unknown_paths() {
    let store = TestStore::start().await;
    store.client().put_blob("vision", vec![0; 1234], "x/y").await.unwrap();
    let http = http();
    let get = async |path: &str| {
        let answer = http.get(format!("{}{path}", store.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/healthz").await.0, 200);
    assert_eq!(get("/readyz").await.0, 200);
    let (status, metrics) = get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "edgeyard_store_requests_total{route=\"/v1/namespaces/{namespace}/blobs/{digest}\",method=\"PUT\",code=\"201\"} 1",
        "edgeyard_store_received_bytes_total 1234",
        "edgeyard_store_used_bytes{namespace=\"vision\"} 1234",
        "edgeyard_store_uploads_in_progress 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let (status, page) = get("/").await;
    assert_eq!(status, 200);
    assert!(page.contains("Token") && !page.contains("http://") && !page.contains("https://"), "no outside assets");
    assert_eq!(get("/page.js").await.0, 200);
    assert_eq!(get("/page.css").await.0, 200);
    let (status, body) = get("/v2").await;
    assert_eq!((status, serde_json::from_str::<ErrorBody>(&body).unwrap().reason.as_str()), (404, "NotFound"));
    let posted = http.post(format!("{}/v1/namespaces/vision/results", store.url)).send().await.unwrap();
    assert_eq!(posted.status(), 405);
    let named = http.get(format!("{}/v1/namespaces/Vision/usage", store.url)).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(named.json::<ErrorBody>().await.unwrap().reason, "InvalidName");
}
