//! `cluster up`: clears what is dead, then starts everything as early as what it needs answers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use fs_err::os::unix::fs::symlink;

use super::config::Program;
use super::{
    Arm64, NODE, State, bin_dir, cgroup, config, daemon, down, images, is_up, kubeconfig, kubectl, lock, mounts,
    network, pki, place, volumes,
};
use crate::shell::{need_root, output, piped, say, step, wait_for};
use crate::{layout, setup};

/// How long any one thing may take to answer on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Starts the cluster unless it runs; the images built last are in it afterwards.
///
/// # Errors
/// The part that did not come up, with the end of its log.
pub fn up() -> Result<()> {
    need_root("a cluster (namespaces, mounts, control groups)")?;
    let _lock = lock()?;
    let start = Instant::now();
    if is_up() {
        volumes::recycle()?;
        say("✓ the cluster is up already");
        return Ok(());
    }
    if !down::leftovers()?.is_empty() {
        if let Some(State { checkout }) = State::read() {
            say(&format!("… a cluster of {} is not usable from here; clearing it away", checkout.display()));
        }
        step("clearing what an earlier cluster left", down::clear)?;
    }
    let (root, cache) = (layout::root()?, layout::cache()?);
    let archives = images::node_images(&root, &cache)?;
    let built = setup::kubernetes::dir(&root, &cache)?;
    let join = step("network, control groups, keys", || prepare(&root))?;
    let begin = |program| daemon::start(program, &built, &join);

    begin(Program::Etcd)?;
    begin(Program::Containerd)?;
    begin(Program::ApiServer)?;
    std::thread::scope(|scope| {
        // Images load while the API server starts: both wait for the disk more than for the processor.
        let loading = scope.spawn(|| {
            alive_until(Program::Containerd, images::is_ready)?;
            archives.iter().try_for_each(|archive| images::import(archive))
        });
        step("API server", || {
            alive_until(Program::ApiServer, || output(&mut kubectl(["get", "--raw=/readyz"])?).map(drop))
        })?;
        for program in
            [Program::ControllerManager, Program::Scheduler, Program::Proxy, Program::Prometheus, Program::Discovery]
        {
            begin(program)?;
        }
        loading.join().unwrap_or_else(|_| bail!("the thread that imports images panicked"))?;
        begin(Program::Kubelet)?;
        let manifests = format!("{}{}", config::addons(), volumes::create()?);
        step("CoreDNS, storage", || {
            wait_for("the API server to take manifests", LIMIT, || {
                piped(&mut kubectl(["apply", "-f", "-"])?, &manifests)
            })
        })
    })?;
    step("node ready", || alive_until(Program::Kubelet, || condition("node", NODE, "Ready", "")))?;
    Arm64::register()?.keep();
    step("images of this checkout", || crate::images::import_built().map(drop))?;
    if let Some((name, _)) = daemon::list().iter().find(|(_, alive)| !alive) {
        bail!("{name} died; its log is {}", daemon::log(name)?.display());
    }
    step("DNS ready", || {
        wait_for("CoreDNS", LIMIT, || condition("deployment", "coredns", "Available", "kube-system"))
    })?;
    link_tools(&root, &cache)?;
    say(&format!("✓ cluster up in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

/// Namespaces, folders, keys, configuration; returns the file through which a daemon joins the control group.
fn prepare(root: &Path) -> Result<std::path::PathBuf> {
    let kept = place()?.join("data");
    for stale in [&kept, &place()?.join("log")] {
        if stale.exists() {
            fs::remove_dir_all(stale)?;
        }
    }
    fs::create_dir_all(&kept)?;
    fs::create_dir_all(config::data())?;
    State { checkout: root.to_path_buf() }.write()?;
    mounts::bind(&kept, &config::data())?;
    for folder in ["etcd", "kubelet", "prometheus"] {
        fs::create_dir_all(config::data().join(folder))?;
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(config::data().join("etcd"), mode)?;
    let join = cgroup::create()?;
    network::create()?;
    config::write()?;
    fs::copy("/proc/self/exe", Program::Discovery.executable(root))?;
    pki::write(&config::data().join("pki"))?;
    // Readable only for who started the cluster: it holds the administrator's key.
    fs::copy(config::data().join("pki/admin.conf"), kubeconfig()?)?;
    fs::set_permissions(kubeconfig()?, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(join)
}

/// Waits until `ready`; a program that died meanwhile ends the wait with its last words.
fn alive_until(program: Program, mut ready: impl FnMut() -> Result<()>) -> Result<()> {
    let mut dead = None;
    let waited = wait_for(program.name(), LIMIT, || {
        if !daemon::is_alive(program) {
            dead = Some(daemon::last_words(program));
            return Ok(());
        }
        ready()
    });
    match dead {
        Some(words) => bail!("{} died; its log ends with:\n{words}", program.name()),
        None => {
            waited.with_context(|| format!("the log of {} ends with:\n{}", program.name(), daemon::last_words(program)))
        }
    }
}

fn condition(kind: &str, name: &str, condition: &str, namespace: &str) -> Result<()> {
    let path = format!("jsonpath={{.status.conditions[?(@.type=='{condition}')].status}}");
    let mut kubectl = kubectl(["get", kind, name, "-o", &path])?;
    if !namespace.is_empty() {
        kubectl.args(["--namespace", namespace]);
    }
    match output(&mut kubectl)?.as_str() {
        "True" => Ok(()),
        other => bail!("{kind} {name} has {condition}={other}"),
    }
}

/// `target/cluster/bin`: what a user puts on the PATH.
fn link_tools(root: &Path, cache: &Path) -> Result<()> {
    let dir = bin_dir()?;
    fs::create_dir_all(&dir)?;
    let links = [
        ("kubectl", setup::kubernetes::dir(root, cache)?.join("kubectl")),
        ("helm", setup::kubernetes::helm_dir(root, cache)?.join("helm")),
        // A link to what is not built yet is harmless: kubectl finds the plugin once it is.
        ("kubectl-edgeyard", layout::cargo_target()?.join("release/kubectl-edgeyard")),
    ];
    for (name, program) in links {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link)?;
        }
        symlink(program, link)?;
    }
    Ok(())
}
