//! The suite `cluster`: what people and the other suites rely on, tried on the real thing, at last with the cluster killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use serde_json::{Value, json};

use super::config::{Program, TOOLS_IMAGE};
use super::{NODE_ADDRESS, cgroup, daemon, down, is_up, kubectl, recycle_volumes, up};
use crate::shell::{cmd, output, piped, quiet, wait_for};
use crate::test::{Outcome, Skip};
use crate::{images, layout};

const LIMIT: Duration = Duration::from_secs(60);

/// One test: what a name promises.
type Case = fn() -> Result<()>;

/// Runs every case; the cluster is down afterwards.
pub fn run() -> Outcome {
    let mut outcome = Outcome::default();
    let cases: [(&str, Case); 12] = [
        ("up from nothing", up_from_nothing),
        ("up again leaves what runs alone", up_again),
        ("a restricted job completes and its log is read", restricted_job),
        ("exec", exec),
        ("a service answers by name, and port-forward reaches it", service),
        ("foreign names do not resolve", foreign_names),
        ("a claim is writable for a non-root user and its volume comes back empty", claim),
        ("a pod with a whole CPU has a core of its own", whole_cpu),
        ("prometheus scrapes an annotated pod", scrape),
        ("up recovers from a cluster killed hard", killed_hard),
        ("up clears another checkout's cluster away", other_checkout),
        ("down leaves nothing, twice", nothing_left),
    ];
    let mut all = cases.to_vec();
    if matches!(super::imported_digest(images::WORKER_ARM64), Ok(Some(_))) || images::is_built(images::WORKER_ARM64) {
        all.insert(9, ("an arm64 pod runs", arm64));
    } else {
        let reason = "the arm64 image is not built; run `cargo xtask images`".to_owned();
        outcome.skipped.push(Skip { name: "cluster: an arm64 pod runs".into(), reason });
    }
    for (name, case) in all {
        outcome.add(name, case());
    }
    outcome
}

fn up_from_nothing() -> Result<()> {
    down()?;
    up()?;
    ensure!(is_up(), "up ended well but the cluster does not run");
    kube(&["create", "namespace", "suite"])?;
    kube(&["label", "namespace", "suite", "pod-security.kubernetes.io/enforce=restricted"])?;
    // Pods need it, and the controller makes it a moment later.
    wait_for("the default service account", LIMIT, || {
        kube(&["-n", "suite", "get", "serviceaccount", "default"]).map(drop)
    })
}

fn up_again() -> Result<()> {
    let before = cgroup::daemons()?;
    up()?;
    ensure!(before == cgroup::daemons()?, "a second up started or ended something");
    Ok(())
}

fn restricted_job() -> Result<()> {
    let pod = pod("unused", &["sh", "-c", "id -u; echo all is well"], json!({}));
    let mut spec = pod["spec"].clone();
    spec["restartPolicy"] = "Never".into();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": "suite"},
        "spec": {"template": {"spec": spec}},
    });
    apply(&job)?;
    kube(&["-n", "suite", "wait", "--for=condition=Complete", "job/job", "--timeout=60s"])?;
    let log = kube(&["-n", "suite", "logs", "job/job"])?;
    ensure!(log == "65532\nall is well\n", "the log is {log:?}");
    Ok(())
}

fn exec() -> Result<()> {
    run_pod("exec", &["sleep", "infinity"], json!({}))?;
    let said = kube(&["-n", "suite", "exec", "exec", "--", "sh", "-c", "echo $((6 * 7))"])?;
    ensure!(said == "42\n", "exec printed {said:?}");
    Ok(())
}

fn service() -> Result<()> {
    let serve = "mkdir /tmp/www && echo from the pod >/tmp/www/index.html && httpd -f -p 8080 -h /tmp/www";
    run_pod("web", &["sh", "-c", serve], json!({}))?;
    kube(&["-n", "suite", "expose", "pod", "web", "--port=80", "--target-port=8080"])?;
    wait_for("the service to answer", LIMIT, || {
        // A connection begun before the service's rules are there never meets them: conntrack keeps it on its way.
        let wget = ["timeout", "3", "wget", "-qO-", "http://web.suite.svc.cluster.local/"];
        let body = kube(&[&["-n", "suite", "exec", "exec", "--"][..], &wget].concat())?;
        ensure!(body == "from the pod\n", "it said {body:?}");
        Ok(())
    })?;
    let mut forward = Background(
        kubectl(["-n", "suite", "port-forward", "service/web", ":80"])?
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?,
    );
    let mut line = String::new();
    // Kept until the end: kubectl dies when nobody reads what it says about each connection.
    let mut said = BufReader::new(forward.0.stdout.take().context("it is piped")?);
    said.read_line(&mut line)?;
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    let body = get("127.0.0.1", port.with_context(|| format!("port-forward said {line:?}"))?, "/")?;
    ensure!(body == "from the pod\n", "port-forward gave {body:?}");
    Ok(())
}

fn foreign_names() -> Result<()> {
    let said = kube(&["-n", "suite", "exec", "exec", "--", "sh", "-c", "nslookup models.example.com 2>&1; true"])?;
    ensure!(said.contains("NXDOMAIN"), "nslookup said {said}");
    Ok(())
}

fn claim() -> Result<()> {
    apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim", "namespace": "suite"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }))?;
    let volumes = json!({
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}, {"name": "tmp", "emptyDir": {}}],
    });
    run_pod("claim", &["sh", "-c", "echo kept >/claim/file && sleep infinity"], volumes)?;
    wait_for("the file", LIMIT, || {
        kube(&["-n", "suite", "exec", "claim", "--", "grep", "kept", "/claim/file"]).map(drop)
    })?;
    let volume = kube(&["-n", "suite", "get", "pvc", "claim", "-o", "jsonpath={.spec.volumeName}"])?;
    kube(&["-n", "suite", "delete", "pod/claim", "pvc/claim", "--now"])?;
    wait_for("the volume to come back", LIMIT, || {
        recycle_volumes()?;
        let phase = kube(&["get", "pv", &volume, "-o", "jsonpath={.status.phase}"])?;
        ensure!(phase == "Available", "it is {phase}");
        Ok(())
    })?;
    let left = fs::read_dir(super::config::data().join("volumes").join(&volume))?.count();
    ensure!(left == 0, "{left} files are left in volume {volume}");
    Ok(())
}

fn whole_cpu() -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores >= 2, "this machine has one core; the lab needs two");
    let resources = json!({"resources": {"limits": {"cpu": "1", "memory": "64Mi"}}});
    run_pod("whole", &["sleep", "infinity"], resources)?;
    let allowed = |pod: &str| kube(&["-n", "suite", "exec", pod, "--", "grep", "Cpus_allowed_list", "/proc/1/status"]);
    let own = allowed("whole")?.split_whitespace().nth(1).context("a list of cores")?.to_owned();
    ensure!(own.parse::<usize>().is_ok(), "the pod may use cores {own}, not one");
    wait_for("other pods to leave that core", LIMIT, || {
        let others = allowed("exec")?;
        ensure!(!others.trim_end().ends_with(&own), "another pod may use {others}");
        Ok(())
    })?;
    kube(&["-n", "suite", "delete", "pod", "whole", "--now"]).map(drop)
}

fn scrape() -> Result<()> {
    let serve = "mkdir /tmp/www && echo lab_suite_value 42 >/tmp/www/metrics && httpd -f -p 8080 -h /tmp/www";
    let mut pod = pod("scraped", &["sh", "-c", serve], json!({}));
    pod["metadata"]["annotations"] = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080"});
    apply(&pod)?;
    wait_for("the value in Prometheus", LIMIT, || {
        let answer: Value = serde_json::from_str(&get(NODE_ADDRESS, 9090, "/api/v1/query?query=lab_suite_value")?)?;
        let result = &answer["data"]["result"][0];
        ensure!(result["value"][1] == "42" && result["metric"]["pod"] == "scraped", "it answered {answer}");
        Ok(())
    })
}

fn arm64() -> Result<()> {
    let mut pod = pod("arm64", &["edgeyard-device-runner", "--version"], json!({}));
    pod["spec"]["containers"][0]["image"] = images::WORKER_ARM64.into();
    apply(&pod)?;
    wait_for("the pod to end", LIMIT, || {
        let phase = kube(&["-n", "suite", "get", "pod", "arm64", "-o", "jsonpath={.status.phase}"])?;
        ensure!(phase == "Succeeded", "it is {phase}: {}", kube(&["-n", "suite", "logs", "arm64"]).unwrap_or_default());
        Ok(())
    })?;
    let log = kube(&["-n", "suite", "logs", "arm64"])?;
    ensure!(log.starts_with("edgeyard-device-runner "), "it said {log:?}");
    // That it is what it says: the program in the build context is for another machine than ours.
    let program = layout::target()?.join("images/context/worker-arm64/bin/worker/edgeyard-device-runner");
    let header = fs::read(program)?;
    ensure!(header.get(18..20) == Some(&[0xb7, 0][..]), "the program in the arm64 image is not for AArch64");
    Ok(())
}

fn killed_hard() -> Result<()> {
    kill_daemons()?;
    ensure!(!is_up(), "the daemons were killed and the cluster still answers");
    up()?;
    let said = quick_pod("after-kill")?;
    ensure!(said == "alive\n", "a pod on the recovered cluster said {said:?}");
    Ok(())
}

fn other_checkout() -> Result<()> {
    let root = layout::root()?;
    let other = tempfile::tempdir()?;
    for name in ["Cargo.toml", "xtask", "hardware-lab"] {
        symlink(root.join(name), other.path().join(name))?;
    }
    // Of the other checkout in every way but the program: it makes its own target/cluster.
    quiet(cmd("/proc/self/exe", ["cluster", "up"]).env("EDGEYARD_ROOT", other.path()))?;
    ensure!(!is_up(), "the other checkout's cluster passes for this one's");
    ensure!(other.path().join("target/cluster/kubeconfig").exists(), "the other checkout has no kubeconfig");
    kill_daemons()?;
    up()?;
    let said = quick_pod("after-other")?;
    ensure!(said == "alive\n", "a pod said {said:?}");
    let data = other.path().join("target/cluster/data");
    ensure!(!data.exists(), "{} of the other checkout was not cleared", data.display());
    Ok(())
}

fn nothing_left() -> Result<()> {
    down()?;
    // Looked for by other means than down's own.
    let mounts = fs::read_to_string("/proc/mounts")?;
    ensure!(!mounts.contains("edgeyard-lab"), "mounts are left:\n{mounts}");
    for command in
        [cmd("ip", ["netns", "list"]), cmd("ip", ["-oneline", "link"]), cmd("ps", ["-eo", "args"])].iter_mut()
    {
        let listed = output(command)?;
        let left: Vec<&str> =
            listed.lines().filter(|l| ["edgeyard-lab", "eylab"].iter().any(|n| l.contains(n))).collect();
        ensure!(left.is_empty(), "{command:?} shows {left:?}");
    }
    let groups = output(&mut cmd("find", ["/sys/fs/cgroup", "-type", "d", "-name", "edgeyard-lab*"]))?;
    ensure!(groups.is_empty(), "control groups are left:\n{groups}");
    ensure!(!std::path::Path::new(super::RUN).exists(), "{} is left", super::RUN);
    down()
}

/// SIGKILL to every daemon at once, container shims included; what runs in pods goes on, as after a crash.
fn kill_daemons() -> Result<()> {
    let pids = cgroup::daemons()?;
    ensure!(pids.len() >= 9, "only {} daemons were there to kill", pids.len());
    pids.iter().for_each(|pid| cgroup::kill(*pid));
    wait_for("the API server to be dead", LIMIT, || {
        ensure!(!daemon::is_alive(Program::ApiServer), "it lives");
        Ok(())
    })
}

fn quick_pod(name: &str) -> Result<String> {
    wait_for("the namespace", LIMIT, || {
        let manifest = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "suite"}});
        apply(&manifest)?;
        kube(&["-n", "suite", "get", "serviceaccount", "default"]).map(drop)
    })?;
    run_pod(name, &["sh", "-c", "echo alive; sleep infinity"], json!({}))?;
    kube(&["-n", "suite", "logs", name])
}

/// A restricted pod of the tool box image; `extra` has `resources` for the container or fields of the pod's spec.
fn pod(name: &str, command: &[&str], extra: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "suite", "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "restartPolicy": "Never",
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "containers": [{
                "name": "main", "image": TOOLS_IMAGE, "imagePullPolicy": "Never", "command": command,
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }],
        },
    });
    if let Some(resources) = extra.get("resources") {
        pod["spec"]["containers"][0]["resources"] = resources.clone();
    }
    if let Some(volumes) = extra.get("volumes") {
        pod["spec"]["volumes"] = volumes.clone();
        pod["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "v", "mountPath": "/claim"}, {"name": "tmp", "mountPath": "/tmp"}]);
    }
    pod
}

fn run_pod(name: &str, command: &[&str], extra: Value) -> Result<()> {
    apply(&pod(name, command, extra))?;
    kube(&["-n", "suite", "wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"])
        .map(drop)
        .with_context(|| kube(&["-n", "suite", "describe", "pod", name]).unwrap_or_default())
}

fn apply(object: &Value) -> Result<()> {
    piped(&mut kubectl(["apply", "-f", "-"])?, &object.to_string()).map(drop)
}

fn kube(args: &[&str]) -> Result<String> {
    output(&mut kubectl(args)?)
}

/// The body of a plain HTTP GET.
fn get(host: &str, port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((host, port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => bail!("{host}:{port}{path} answered {answer}"),
    }
}

/// A program that ends with this value.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
