//! The store on S3, against a small S3 in this process: what the protocol says, for the calls that the store makes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use edgeyard_artifact::{Bearer, Client, StoreAccess, digest_of};
use tempfile::TempDir;

const TOKEN: &str = "a static token of the tests";

/// Objects by key, and parts of unfinished uploads by number.
#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Bytes>,
    parts: BTreeMap<String, BTreeMap<u32, Bytes>>,
    finished_uploads: u32,
}

type Shared = Arc<Mutex<Bucket>>;

async fn s3(
    State(bucket): State<Shared>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert!(headers.contains_key(header::AUTHORIZATION), "every request is signed");
    let key = uri.path().trim_start_matches("/lab").trim_start_matches('/').to_owned();
    let mut bucket = bucket.lock().unwrap();
    let tag = |bytes: &[u8]| format!("\"{}\"", digest_of(bytes).short());
    let missing = || {
        let text = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>no</Message></Error>";
        (StatusCode::NOT_FOUND, text).into_response()
    };
    match (method.as_str(), query.get("uploadId")) {
        ("GET", _) if query.contains_key("list-type") => {
            let prefix = query.get("prefix").cloned().unwrap_or_default();
            let contents: String = bucket
                .objects
                .iter()
                .filter(|(key, _)| key.starts_with(&prefix))
                .map(|(key, bytes)| {
                    format!("<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{}</ETag></Contents>", bytes.len(), tag(bytes))
                })
                .collect();
            format!(
                "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
            )
            .into_response()
        }
        ("GET" | "HEAD", _) => {
            let Some(bytes) = bucket.objects.get(&key).cloned() else { return missing() };
            let whole = bytes.len();
            let part =
                headers.get(header::RANGE).and_then(|v| v.to_str().unwrap().strip_prefix("bytes=")?.split_once('-'));
            let modified =
                [(header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT".to_owned()), (header::ETAG, tag(&bytes))];
            match part {
                Some((first, last)) => {
                    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                    let place = [(header::CONTENT_RANGE, format!("bytes {first}-{last}/{whole}"))];
                    (StatusCode::PARTIAL_CONTENT, modified, place, bytes.slice(first..=last)).into_response()
                }
                None => (modified, bytes).into_response(),
            }
        }
        ("POST", None) if query.contains_key("uploads") => {
            let id = format!("upload-{}", bucket.parts.len());
            bucket.parts.insert(id.clone(), BTreeMap::new());
            format!("<?xml version=\"1.0\"?><InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>").into_response()
        }
        ("POST", None) if query.contains_key("delete") => {
            let text = String::from_utf8(body.to_vec()).unwrap();
            for key in text.split("<Key>").skip(1) {
                bucket.objects.remove(key.split("</Key>").next().unwrap());
            }
            "<?xml version=\"1.0\"?><DeleteResult></DeleteResult>".into_response()
        }
        ("PUT", Some(id)) => {
            let tag = tag(&body);
            bucket.parts.get_mut(id).unwrap().insert(query["partNumber"].parse().unwrap(), body);
            [(header::ETAG, tag)].into_response()
        }
        ("POST", Some(id)) => {
            let parts = bucket.parts.remove(id).unwrap();
            assert!(parts.values().rev().skip(1).all(|part| part.len() >= 5 << 20), "S3 refuses smaller parts");
            let whole: Bytes = parts.into_values().flatten().collect();
            let tag = tag(&whole);
            bucket.objects.insert(key, whole);
            bucket.finished_uploads += 1;
            format!("<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>").into_response()
        }
        ("DELETE", Some(id)) => {
            bucket.parts.remove(id);
            StatusCode::NO_CONTENT.into_response()
        }
        ("PUT", None) => {
            let tag = tag(&body);
            bucket.objects.insert(key, body);
            [(header::ETAG, tag)].into_response()
        }
        ("DELETE", None) => {
            bucket.objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        other => panic!("{other:?} {uri}"),
    }
}

fn program(endpoint: &str, folder: &Path, command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_edgeyard-store"));
    program.args(["--log-format", "text", command, "--data", "s3://lab/some/prefix", "--index"]);
    program.arg(folder.join("index.sqlite")).env("AWS_ENDPOINT", endpoint).env("AWS_ALLOW_HTTP", "true");
    program.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_REGION", "here");
    // A proxy for the outside world does not lead to loopback.
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        program.env_remove(proxy);
    }
    program
}

fn serve(endpoint: &str, folder: &Path) -> (std::process::Child, Client) {
    let (token, file) = (folder.join("token"), folder.join("address"));
    std::fs::write(&token, TOKEN).unwrap();
    let _ = std::fs::remove_file(&file);
    let mut program = program(endpoint, folder, "serve");
    program
        .args(["--insecure", "--listen", "127.0.0.1:0", "--static-token"])
        .arg(token)
        .arg("--address-file")
        .arg(&file);
    let mut child = program.stderr(Stdio::null()).spawn().unwrap();
    let address = loop {
        if let Ok(address) = std::fs::read_to_string(&file) {
            break address;
        }
        assert!(child.try_wait().unwrap().is_none(), "the store ended");
        std::thread::yield_now();
    };
    let access = StoreAccess { url: format!("http://{address}"), certificate_authority_pem: None };
    (child, Client::new(access, Bearer::Token(TOKEN.into())).unwrap().with_patience(std::time::Duration::ZERO))
}

fn printed(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_lies_in_the_bucket() {
    let bucket = Shared::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let limit = axum::extract::DefaultBodyLimit::disable();
    let router = Router::new().fallback(s3).layer(limit).with_state(Arc::clone(&bucket));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let folder = TempDir::new().unwrap();
    let (mut child, client) = serve(&endpoint, folder.path());
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let digest = client.put_blob("vision", large.clone(), "x/y").await.unwrap().digest;
    client.put_result("vision", "run", 1, "x/record", "{\"metadata\":{\"name\":\"n\"}}").await.unwrap();
    assert_eq!(bucket.lock().unwrap().finished_uploads, 1, "large blobs go up in parts");
    assert!(bucket.lock().unwrap().objects.keys().all(|key| key.starts_with("some/prefix/")));
    // Nothing but the bucket is left.
    child.kill().unwrap();
    child.wait().unwrap();
    edgeyard_store::index::remove_database(&folder.path().join("index.sqlite")).unwrap();
    let (mut child, client) = serve(&endpoint, folder.path());
    assert_eq!(client.get_blob("vision", &digest).await.unwrap(), large);
    let listed = client.list_results("vision", &Default::default()).await.unwrap().items;
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "n"));
    child.kill().unwrap();
    child.wait().unwrap();

    let swept =
        printed(program(&endpoint, folder.path(), "sweep").args(["--sweep-grace-seconds", "0"]).output().unwrap());
    assert!(swept.starts_with("removed 1 blobs (20000000 bytes)"), "{swept}");
    let checked = printed(program(&endpoint, folder.path(), "fsck").output().unwrap());
    // The record, two shards and OCI's empty document.
    assert!(checked.ends_with(": 0 damaged, 0 missing\n"), "{checked}");
    assert!(!bucket.lock().unwrap().objects.keys().any(|key| key.ends_with(&digest.hex())));
}
