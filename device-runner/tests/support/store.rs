//! A store of four routes on a loopback port: as much of the contract as a pod that measures meets.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use edgeyard_record::digest;
use serde_json::json;

/// What the store was sent.
#[derive(Default)]
pub struct Contents {
    /// By digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// By `uid/attempt`.
    pub results: BTreeMap<String, Vec<u8>>,
    /// Steps that were told, in order.
    pub steps: Vec<String>,
    /// What requests are refused with, for results.
    pub refuse_results: Option<(u16, &'static str)>,
}

/// A running store.
pub struct Store {
    /// Its URL.
    pub url: String,
    /// What is in it.
    pub contents: Arc<Mutex<Contents>>,
}

impl Store {
    /// Starts with some blobs.
    pub fn with(blobs: &[&[u8]]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let blobs = blobs.iter().map(|blob| (digest(blob), blob.to_vec())).collect();
        let contents = Arc::new(Mutex::new(Contents { blobs, ..Contents::default() }));
        let shared = Arc::clone(&contents);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { url, contents }
    }
}

fn serve(mut stream: TcpStream, contents: &Mutex<Contents>) {
    let mut from = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let (method, path) = line.split_once(' ').map(|(m, rest)| (m, rest.split(' ').next().unwrap())).unwrap();
        let (mut length, mut chunked, mut bearer) = (0, false, false);
        loop {
            let mut header = String::new();
            from.read_line(&mut header).unwrap();
            let header = header.trim();
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(": ").unwrap();
            match name.to_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "transfer-encoding" => chunked = value == "chunked",
                "authorization" => bearer = value == "Bearer eyg1.test.grant",
                _ => {}
            }
        }
        let body = if chunked { chunks(&mut from) } else { exactly(&mut from, length) };
        let (status, answer) = if bearer {
            answer(method, path, body, &mut contents.lock().unwrap())
        } else {
            refuse(401, "Unauthorized")
        };
        let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", answer.len());
        let body: &[u8] = if method == "HEAD" { &[] } else { &answer };
        if stream.write_all(body).is_err() {
            return;
        }
    }
}

fn exactly(from: &mut impl std::io::Read, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    from.read_exact(&mut body).unwrap();
    body
}

fn chunks(from: &mut BufReader<TcpStream>) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        from.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        body.extend(exactly(from, size));
        exactly(from, 2);
        if size == 0 {
            return body;
        }
    }
}

fn refuse(status: u16, reason: &str) -> (u16, Vec<u8>) {
    (status, json!({"reason": reason, "message": "no"}).to_string().into_bytes())
}

fn answer(method: &str, path: &str, body: Vec<u8>, contents: &mut Contents) -> (u16, Vec<u8>) {
    let parts: Vec<&str> = path.trim_start_matches("/v1/namespaces/vision/").split('/').collect();
    let stored = |bytes: &[u8]| {
        let descriptor = json!({"digest": digest(bytes), "sizeBytes": bytes.len(), "mediaType": "application/json"});
        (201, descriptor.to_string().into_bytes())
    };
    match (method, parts.as_slice()) {
        ("GET" | "HEAD", ["blobs", name]) => {
            let name = name.replace("%3A", ":");
            contents.blobs.get(&name).map_or_else(|| refuse(404, "NotFound"), |blob| (200, blob.clone()))
        }
        ("PUT", ["blobs", name]) => {
            assert_eq!(digest(&body), name.replace("%3A", ":"));
            let answer = stored(&body);
            contents.blobs.insert(digest(&body), body);
            answer
        }
        ("PUT", ["results", uid, attempt]) => {
            if let Some((status, reason)) = contents.refuse_results {
                return refuse(status, reason);
            }
            let answer = stored(&body);
            contents.results.insert(format!("{uid}/{attempt}"), body);
            answer
        }
        ("PUT", ["progress", _, _]) => {
            let progress: edgeyard_job::Progress = serde_json::from_slice(&body).unwrap();
            contents.steps.push(progress.step);
            (200, Vec::new())
        }
        _ => refuse(404, "NotFound"),
    }
}
