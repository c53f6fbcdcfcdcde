//! Kubernetes, etcd, CoreDNS and Helm, built by Go from the modules pinned in `hardware-lab/cluster/`.
//!
//! Each folder there is a module with `tool` dependencies and nothing else; its `go.sum` fixes every byte.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err as fs;

use super::cached;
use crate::layout::short_digest;
use crate::shell::{cmd, quiet, say};

/// Builds what is missing: about 9 minutes on 2 cores the first time, nothing after.
///
/// # Errors
/// When Go is missing or a build fails.
pub fn install(root: &Path, cache: &Path) -> Result<()> {
    let all = [dir(root, cache)?, coredns_dir(root, cache)?, helm_dir(root, cache)?];
    if all.iter().any(|d| !d.exists()) {
        say("… building Kubernetes, CoreDNS and Helm beside the rest (about 9 minutes on 2 cores, once)");
    }
    for module in MODULES {
        build(root, cache, module)?;
    }
    Ok(())
}

/// The folder of kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, kubectl and etcd.
pub fn dir(root: &Path, cache: &Path) -> Result<PathBuf> {
    Ok(cache.join(KUBERNETES.cache_name(root)?))
}

/// The folder of `coredns`.
pub fn coredns_dir(root: &Path, cache: &Path) -> Result<PathBuf> {
    Ok(cache.join(COREDNS.cache_name(root)?))
}

/// The folder of `helm`.
pub fn helm_dir(root: &Path, cache: &Path) -> Result<PathBuf> {
    Ok(cache.join(HELM.cache_name(root)?))
}

struct Module {
    name: &'static str,
    /// The required module that gives the version.
    package: &'static str,
    /// What to put into the binary with `-X`, `{v}` being the version; without it clients see v0.0.0.
    stamps: &'static [&'static str],
    /// Names that Go takes from the path and that say too little.
    rename: &'static [(&'static str, &'static str)],
}

const KUBERNETES: Module = Module {
    name: "kubernetes",
    package: "k8s.io/kubernetes",
    stamps: &[
        "k8s.io/component-base/version.gitVersion={v}",
        "k8s.io/component-base/version.gitMajor={major}",
        "k8s.io/component-base/version.gitMinor={minor}",
        "k8s.io/client-go/pkg/version.gitVersion={v}",
    ],
    rename: &[("server", "etcd")],
};
const COREDNS: Module = Module { name: "coredns", package: "github.com/coredns/coredns", stamps: &[], rename: &[] };
const HELM: Module = Module {
    name: "helm",
    package: "helm.sh/helm/v3",
    stamps: &["helm.sh/helm/v3/internal/version.version={v}"],
    rename: &[],
};
const MODULES: [&Module; 3] = [&KUBERNETES, &COREDNS, &HELM];

impl Module {
    fn source(&self, root: &Path) -> PathBuf {
        root.join("hardware-lab/cluster").join(self.name)
    }

    fn version(&self, go_mod: &str) -> Result<String> {
        let words = || go_mod.lines().map(|line| line.trim().trim_start_matches("require ").split_whitespace());
        words()
            .find_map(|mut w| (w.next()? == self.package).then(|| w.next()).flatten())
            .map(str::to_owned)
            .with_context(|| format!("go.mod of {} does not require {}", self.name, self.package))
    }

    fn flags(&self, version: &str) -> String {
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let fill = |s: &&str| s.replace("{v}", version).replace("{major}", major).replace("{minor}", minor);
        self.stamps.iter().fold("-s -w".to_owned(), |flags, stamp| format!("{flags} -X {}", fill(stamp)))
    }

    fn cache_name(&self, root: &Path) -> Result<String> {
        let go_mod = fs::read_to_string(self.source(root).join("go.mod"))?;
        let go_sum = fs::read_to_string(self.source(root).join("go.sum"))?;
        let version = self.version(&go_mod)?;
        let digest = short_digest([&go_mod, &go_sum, &self.flags(&version)]);
        Ok(format!("{}-{}-{digest}", self.name, version.trim_start_matches('v')))
    }
}

fn build(root: &Path, cache: &Path, module: &Module) -> Result<()> {
    let version = module.version(&fs::read_to_string(module.source(root).join("go.mod"))?)?;
    let what = format!("{} {version}, built by Go", module.name);
    cached(cache, &module.cache_name(root)?, &what, |out| {
        quiet(
            // Ten steps nicer than what the user does meanwhile.
            cmd("nice", ["go", "build", "-trimpath", "-mod=readonly", "-ldflags", &module.flags(&version), "-o"])
                .arg(out)
                .arg("tool")
                .current_dir(module.source(root))
                .env("CGO_ENABLED", "0"),
        )
        .context("Go builds the cluster's programs; is Go 1.26 or later on the PATH?")?;
        for (from, to) in module.rename {
            fs::rename(out.join(from), out.join(to))?;
        }
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_a_require_line_alone_or_in_a_block() {
        assert_eq!(HELM.version("module x\n\nrequire helm.sh/helm/v3 v3.1.0\n").unwrap(), "v3.1.0");
        assert_eq!(HELM.version("require (\n\thelm.sh/helm/v3 v3.2.0 // indirect\n)\n").unwrap(), "v3.2.0");
        assert!(HELM.version("require helm.sh/helm/v2 v2.0.0\n").is_err());
    }

    #[test]
    fn the_version_is_stamped() {
        let flags = KUBERNETES.flags("v1.36.3");
        assert!(flags.contains("gitMinor=36") && flags.contains("gitVersion=v1.36.3"), "{flags}");
    }
}
