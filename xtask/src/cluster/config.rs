//! Configuration files and command lines of the cluster's programs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::{DNS_SERVICE, NODE, NODE_ADDRESS, POD_SUBNET, RUN, SERVICE_SUBNET, cgroup};

/// Image of a pod's sandbox; it is also the tool box of the cluster suite.
pub const TOOLS_IMAGE: &str = "localhost/edgeyard/lab-tools:1";
/// Image of CoreDNS.
pub const COREDNS_IMAGE: &str = "localhost/edgeyard/lab-coredns:1";

const CONTAINERD: &str = include_str!("../../../hardware-lab/cluster/containerd.toml");
const CNI: &str = include_str!("../../../hardware-lab/cluster/cni.json");
const KUBELET: &str = include_str!("../../../hardware-lab/cluster/kubelet.yaml");
const PROMETHEUS: &str = include_str!("../../../hardware-lab/cluster/prometheus.yaml");
const ADDONS: &str = include_str!("../../../hardware-lab/cluster/addons.yaml");

/// The data folder inside [`RUN`].
pub fn data() -> PathBuf {
    Path::new(RUN).join("data")
}

/// containerd's socket.
pub fn containerd_socket() -> PathBuf {
    Path::new(RUN).join("containerd.sock")
}

fn fill(template: &str) -> String {
    [
        ("{{RUN}}", RUN),
        ("{{CGROUP}}", cgroup::ROOT),
        ("{{TOOLS_IMAGE}}", TOOLS_IMAGE),
        ("{{COREDNS_IMAGE}}", COREDNS_IMAGE),
        ("{{POD_SUBNET}}", POD_SUBNET),
        ("{{DNS_SERVICE}}", DNS_SERVICE),
        ("{{NODE_ADDRESS}}", NODE_ADDRESS),
    ]
    .iter()
    .fold(template.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// Writes every configuration file below the data folder.
pub fn write() -> Result<()> {
    let dir = data().join("config");
    fs::create_dir_all(dir.join("cni"))?;
    for (name, template) in [
        ("containerd.toml", CONTAINERD),
        ("cni/10-edgeyard-lab.conflist", CNI),
        ("kubelet.yaml", KUBELET),
        ("prometheus.yaml", PROMETHEUS),
    ] {
        fs::write(dir.join(name), fill(template))?;
    }
    // Pods that ask for the node's DNS get none: the lab reaches nothing outside itself.
    fs::write(dir.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
    Ok(())
}

/// Manifests of CoreDNS, the storage class and the namespace defaults.
pub fn addons() -> String {
    fill(ADDONS)
}

/// Programs of a cluster: what is started, in the order of [`ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    Etcd,
    Containerd,
    ApiServer,
    ControllerManager,
    Scheduler,
    Kubelet,
    Proxy,
    Prometheus,
    Discovery,
}

/// Every program.
pub const ALL: [Program; 9] = [
    Program::Etcd,
    Program::Containerd,
    Program::ApiServer,
    Program::ControllerManager,
    Program::Scheduler,
    Program::Kubelet,
    Program::Proxy,
    Program::Prometheus,
    Program::Discovery,
];

impl Program {
    /// The executable, by name; also the name of its log and its pid file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Containerd => "containerd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
            Self::Prometheus => "prometheus",
            Self::Discovery => "edgeyard-discovery",
        }
    }

    /// Debian's program, or the one that Go built in `built`.
    pub fn executable(self, built: &Path) -> PathBuf {
        match self {
            Self::Containerd | Self::Prometheus => self.name().into(),
            // A copy of this program: the original may be rebuilt while the cluster runs.
            Self::Discovery => data().join(self.name()),
            _ => built.join(self.name()),
        }
    }

    /// Its arguments.
    pub fn arguments(self, built: &Path) -> Vec<String> {
        let data = data().display().to_string();
        let pki = format!("{data}/pki");
        let conf = |user: &str| format!("{pki}/{user}.conf");
        let same_conf = |user: &str| {
            ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
                .map(|f| format!("--{f}={}", conf(user)))
                .to_vec()
        };
        match self {
            Self::Etcd => vec![
                format!("--data-dir={data}/etcd"),
                "--listen-client-urls=http://127.0.0.1:2379".into(),
                "--advertise-client-urls=http://127.0.0.1:2379".into(),
                "--listen-peer-urls=http://127.0.0.1:2380".into(),
                // Nothing here must survive a power cut, and fsync is most of what an API write costs.
                "--unsafe-no-fsync".into(),
            ],
            Self::Containerd => vec![format!("--config={data}/config/containerd.toml")],
            Self::ApiServer => [
                "--etcd-servers=http://127.0.0.1:2379",
                "--secure-port=6443",
                &format!("--advertise-address={NODE_ADDRESS}"),
                &format!("--service-cluster-ip-range={SERVICE_SUBNET}"),
                &format!("--client-ca-file={pki}/ca.crt"),
                &format!("--tls-cert-file={pki}/apiserver.crt"),
                &format!("--tls-private-key-file={pki}/apiserver.key"),
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-account-key-file={pki}/accounts.pub"),
                &format!("--service-account-signing-key-file={pki}/accounts.key"),
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                &format!("--kubelet-client-certificate={pki}/kubelet-client.crt"),
                &format!("--kubelet-client-key={pki}/kubelet-client.key"),
                &format!("--kubelet-certificate-authority={pki}/ca.crt"),
                // By name, logs and exec would need a DNS that knows the node.
                "--kubelet-preferred-address-types=InternalIP",
                "--allow-privileged=true",
                &format!("--requestheader-client-ca-file={pki}/ca.crt"),
                "--requestheader-allowed-names=front-proxy-client",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                &format!("--proxy-client-cert-file={pki}/front-proxy.crt"),
                &format!("--proxy-client-key-file={pki}/front-proxy.key"),
                "--profiling=false",
            ]
            .map(str::to_owned)
            .to_vec(),
            Self::ControllerManager => {
                let mut flags = same_conf("controller-manager");
                flags.extend([
                    "--use-service-account-credentials".into(),
                    format!("--service-account-private-key-file={pki}/accounts.key"),
                    format!("--root-ca-file={pki}/ca.crt"),
                    format!("--cluster-cidr={POD_SUBNET}"),
                    "--leader-elect=false".into(),
                    "--bind-address=127.0.0.1".into(),
                    // Starting all controllers is some hundred requests; the default of 20 a second takes seconds.
                    "--kube-api-qps=500".into(),
                    "--kube-api-burst=1000".into(),
                    // Its default is a folder of the host.
                    format!("--flex-volume-plugin-dir={data}/volume-plugins"),
                ]);
                flags
            }
            Self::Scheduler => {
                let mut flags = same_conf("scheduler");
                flags.extend(["--leader-elect=false".into(), "--bind-address=127.0.0.1".into()]);
                flags
            }
            Self::Kubelet => vec![
                format!("--config={data}/config/kubelet.yaml"),
                format!("--kubeconfig={}", conf("kubelet")),
                format!("--hostname-override={NODE}"),
                format!("--node-ip={NODE_ADDRESS}"),
                "--node-labels=edgeyard.dev/lab=true,edgeyard.dev/host=edgeyard-lab".into(),
                format!("--root-dir={data}/kubelet"),
                format!("--cert-dir={pki}"),
            ],
            Self::Proxy => [
                &format!("--kubeconfig={}", conf("proxy")),
                &format!("--hostname-override={NODE}"),
                &format!("--cluster-cidr={POD_SUBNET}"),
                "--proxy-mode=iptables",
                // The limits belong to the host, and may be read-only here.
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
            ]
            .map(str::to_owned)
            .to_vec(),
            Self::Prometheus => vec![
                format!("--config.file={data}/config/prometheus.yaml"),
                format!("--storage.tsdb.path={data}/prometheus"),
                format!("--web.listen-address={NODE_ADDRESS}:9090"),
                "--web.enable-lifecycle".into(),
            ],
            Self::Discovery => vec!["cluster".into(), "discover".into(), built.join("kubectl").display().to_string()],
        }
    }
}
