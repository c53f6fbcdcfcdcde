//! The system as a newcomer installs it: the chart, the catalogue of device classes, and the lab of the examples.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::wait::wait_for;
use crate::{Cluster, root};

/// Where the chart is installed.
pub const SYSTEM: &str = "edgeyard-system";
/// Where the devices are.
pub const NAMESPACE: &str = "edgeyard-lab";
/// The release's name.
pub const RELEASE: &str = "edgeyard";
/// The tag of images that were built from this checkout.
pub const TAG: &str = "dev";

/// Installs or upgrades the chart, and waits until it is ready.
pub fn install(cluster: &Cluster, settings: &[&str]) -> Result<()> {
    let chart = root().join("charts/edgeyard");
    let chart = chart.to_str().context("the checkout's path is text")?;
    let tag = format!("image.tag={TAG}");
    let mut arguments = vec![
        "upgrade",
        "--install",
        RELEASE,
        chart,
        "--namespace",
        SYSTEM,
        "--create-namespace",
        "--wait",
        "--timeout",
        "180s",
        // The CRDs may be there already, applied by hand or by the suite `crds-server`.
        "--take-ownership",
        "--set",
        &tag,
        "--set",
        "image.pullPolicy=Never",
        "--set",
        "store.persistence.size=1Gi",
    ];
    for setting in settings {
        arguments.extend(["--set", setting]);
    }
    cluster.helm(&arguments)?;
    cluster.kubectl(&["label", "namespace", SYSTEM, "--overwrite", "pod-security.kubernetes.io/enforce=restricted"])?;
    let kinds = [
        "modeloptimizations",
        "edgebenchmarks",
        "benchmarkruns",
        "edgedeviceclasses",
        "edgedevices",
        "leasequeues",
        "deviceleases",
    ];
    for kind in kinds {
        let crd = format!("crd/{kind}.edgeyard.dev");
        cluster.kubectl(&["wait", "--for=condition=Established", &crd, "--timeout=60s"])?;
    }
    Ok(())
}

/// Applies the device classes and the lab of the examples, and waits until its devices can be leased.
pub fn furnish(cluster: &Cluster) -> Result<()> {
    for file in fs::read_dir(root().join("hardware-lab/catalogue"))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            cluster.apply(&fs::read_to_string(path)?)?;
        }
    }
    let lab = fs::read_to_string(root().join("examples/lab.yaml"))?;
    cluster.apply(&lab.replace("name: edgeyard-lab}}", &format!("name: {}}}}}", cluster.node()?)))?;
    for device in ["host-cpu-0", "qemu-m4-0", "qemu-rpi-0"] {
        wait_for(&format!("device {device} to be free"), Duration::from_secs(60), || {
            let device = cluster.get("edgedevice", NAMESPACE, device)?;
            Ok(device.filter(|d| d["status"]["state"] == "Free"))
        })?;
    }
    Ok(())
}

/// Everything that most tests need: chart and lab, whatever was there before.
pub fn ready(cluster: &Cluster) -> Result<()> {
    install(cluster, &[])?;
    furnish(cluster)
}
