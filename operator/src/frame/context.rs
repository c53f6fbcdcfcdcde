//! What every reconciler is given.

use std::sync::Arc;
use std::time::Duration;

use edgeyard_artifact::grant::{self, Claims, SigningKey};
use edgeyard_artifact::{Bearer, Client as StoreClient, ClientError, StoreAccess};
use kube::Client;

use super::clock::{Clock, SystemClock, Timestamp};
use super::events::Events;
use super::metrics::Metrics;
use super::{Settings, Shutdown};

/// A reconciler must not hang on the store: it comes back later instead.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// What every reconciler is given. One exists; it is shared.
pub struct Context {
    /// The way to the API server; writes go through [`write`](super::write).
    pub client: Client,
    /// The command line.
    pub settings: Settings,
    /// Where the store is: goes into job specs.
    pub store_access: StoreAccess,
    /// The operator's own way to the store.
    pub store: StoreClient,
    /// Tells people what happened.
    pub events: Events,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Ends controllers.
    pub shutdown: Shutdown,
    grant_key: SigningKey,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Context {
    /// Puts a context together.
    ///
    /// # Errors
    /// When the store's URL or certificate authority cannot be used.
    pub fn new(
        client: Client,
        settings: Settings,
        store_ca_pem: Option<String>,
        grant_key: SigningKey,
    ) -> Result<Self, ClientError> {
        let store_access = StoreAccess { url: settings.store_url.clone(), certificate_authority_pem: store_ca_pem };
        let bearer = Bearer::TokenFile(settings.store_token_file.clone());
        let store = StoreClient::new(store_access.clone(), bearer)?.with_patience(STORE_PATIENCE);
        Ok(Self {
            events: Events::new(client.clone()),
            client,
            settings,
            store_access,
            store,
            metrics: Arc::default(),
            clock: Arc::new(SystemClock),
            shutdown: Shutdown::default(),
            grant_key,
        })
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Signs what a pod may do at the store.
    pub fn sign(&self, claims: &Claims) -> String {
        grant::sign(&self.grant_key, claims)
    }
}
