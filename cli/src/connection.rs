//! The way to the cluster and, through a port-forward of our own, to the store in it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use edgeyard_artifact::{Bearer, Client as StoreClient, ClientError, StoreAccess};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use tokio::net::{TcpListener, TcpStream};

const AUDIENCE: &str = "edgeyard-store";
const PORT: u16 = 8443;
const TOKEN_SECONDS: i64 = 3600;

/// Which cluster, and as whom.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// The namespace; by default that of the current context.
    #[arg(long, short, global = true)]
    namespace: Option<String>,
    /// The kubeconfig's context; by default the current one.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Where Edgeyard is installed.
    #[arg(long, global = true, default_value = "edgeyard-system")]
    system_namespace: String,
    /// The ServiceAccount of the namespace in whose name the store is asked.
    #[arg(long, global = true, default_value = "default")]
    service_account: String,
}

/// A connection to the store for one namespace.
pub struct Store {
    /// The store's client.
    pub client: StoreClient,
    /// The namespace.
    pub namespace: String,
    service_account: String,
}

impl Options {
    /// A client of the cluster, and the namespace to work in.
    pub async fn client(&self) -> Result<(Client, String)> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match Kubeconfig::read() {
            Ok(kubeconfig) => {
                Config::from_custom_kubeconfig(kubeconfig, &options).await.context("the kubeconfig cannot be used")?
            }
            Err(outside) => Config::incluster().map_err(|_| outside).context(
                "no cluster: set KUBECONFIG (`export KUBECONFIG=target/cluster/kubeconfig` for the lab's own)",
            )?,
        };
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok((Client::try_from(config)?, namespace))
    }

    /// A client of the store.
    pub async fn store(&self) -> Result<Store> {
        let (client, namespace) = self.client().await?;
        let token = token(&client, &namespace, &self.service_account).await?;
        let system = &self.system_namespace;
        let access = StoreAccess {
            url: format!("https://edgeyard-store.{system}.svc:{PORT}"),
            certificate_authority_pem: Some(authority(&client, system).await?),
        };
        let address = forward(client, system.clone()).await?;
        let store = StoreClient::through(access, Bearer::Token(token), address)?
            .with_patience(std::time::Duration::from_secs(60));
        Ok(Store { client: store, namespace, service_account: self.service_account.clone() })
    }
}

impl Store {
    /// An error of the store with what to do about it.
    pub fn explain(&self, error: ClientError) -> anyhow::Error {
        let Self { namespace, service_account, .. } = self;
        let forbidden = error.reason() == Some("Forbidden");
        let error = anyhow::Error::new(error);
        if !forbidden {
            return error;
        }
        error.context(format!(
            "the ServiceAccount {service_account} of {namespace} may not do this; give it the right by\n  kubectl create rolebinding \
             edgeyard-store -n {namespace} --clusterrole=edgeyard-store-user --serviceaccount={namespace}:{service_account}"
        ))
    }
}

async fn token(client: &Client, namespace: &str, account: &str) -> Result<String> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![AUDIENCE.into()]),
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = api
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("no token for the ServiceAccount {account} of {namespace}: does the namespace exist, and may you create serviceaccounts/token there?"))?;
    answer.status.and_then(|status| status.token).context("the API server gave no token")
}

async fn authority(client: &Client, system: &str) -> Result<String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), system);
    let map = api.get("edgeyard-store-ca").await.with_context(|| {
        format!("no store in the namespace {system}: is the chart installed there? (--system-namespace)")
    })?;
    map.data.and_then(|mut data| data.remove("ca.crt")).context("the ConfigMap edgeyard-store-ca has no ca.crt")
}

/// Listens on loopback and passes every connection on to the store's pod, as `kubectl port-forward` does.
async fn forward(client: Client, system: String) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let pods: Api<Pod> = Api::namespaced(client, &system);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let pods = pods.clone();
            tokio::spawn(async move {
                // The client sees a closed connection and tries again: the store's pod may be on its way back.
                let _ = pass_on(&pods, stream).await;
            });
        }
    });
    Ok(address)
}

async fn pass_on(pods: &Api<Pod>, mut stream: TcpStream) -> Result<()> {
    let selector = ListParams::default().labels("app.kubernetes.io/name=edgeyard,app.kubernetes.io/component=store");
    let running = pods.list(&selector).await?.into_iter().find(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
    });
    let Some(pod) = running else { bail!("no pod of the store runs") };
    let mut forwarder = pods.portforward(&pod.name_any(), &[PORT]).await?;
    let mut remote = forwarder.take_stream(PORT).context("a stream of the port that was asked for")?;
    tokio::io::copy_bidirectional(&mut stream, &mut remote).await?;
    Ok(())
}
