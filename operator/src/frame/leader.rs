//! Leader election over a `coordination/v1` Lease: one operator works, others stand by.
//!
//! As in client-go, a Lease is judged by how long *we* have seen it unchanged, never by comparing the clocks of two
//! machines. A leader that cannot renew in time stops the program: its pod restarts and stands by.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use tokio::time::{Instant, sleep};

use super::clock::Timestamp;
use super::write::call;
use super::{Error, Shutdown};

/// Name of the Lease.
pub const NAME: &str = "edgeyard-operator";

/// A candidate for leadership.
pub struct Candidate {
    api: Api<Lease>,
    namespace: String,
    identity: String,
    duration: Duration,
    /// The Lease as last seen changed (holder, renewal), and when that was.
    seen: Option<(LeaseSpec, Instant)>,
}

/// How a term of office ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// On shutdown; another may follow at once.
    Released,
    /// The Lease could not be renewed in time, or somebody else has it.
    Lost,
}

impl Candidate {
    /// A candidate; `identity` must be its own (a pod's name and something random).
    pub fn new(client: Client, namespace: &str, identity: String, duration: Duration) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            identity,
            duration,
            seen: None,
        }
    }

    /// Waits until this candidate is the leader; `false` when shutdown came first.
    pub async fn acquire(&mut self, shutdown: &Shutdown) -> bool {
        loop {
            match self.try_acquire().await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = %error.chain(), "leader election"),
            }
            tokio::select! {
                () = sleep(self.duration / 5) => {}
                () = shutdown.wait() => return false,
            }
        }
    }

    /// Renews until shutdown or loss. On shutdown the Lease is kept until `drained` ends, then given back.
    pub async fn hold(&mut self, drained: impl Future<Output = ()>) -> Ended {
        let mut renewed = Instant::now();
        tokio::pin!(drained);
        loop {
            tokio::select! {
                () = sleep(self.duration / 5) => {}
                () = &mut drained => {
                    if let Err(error) = self.release().await {
                        tracing::warn!(error = %error.chain(), "the leader's Lease could not be given back");
                    }
                    return Ended::Released;
                }
            }
            // A call that hangs must not outlast the deadline: another would lead beside us.
            let deadline = renewed + self.duration * 2 / 3;
            match tokio::time::timeout_at(deadline, self.try_acquire()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return Ended::Lost,
                Ok(Err(error)) => tracing::warn!(error = %error.chain(), "the leader's Lease was not renewed"),
                Err(_) => tracing::warn!("the leader's Lease was not renewed in time"),
            }
            if Instant::now() >= deadline {
                return Ended::Lost;
            }
        }
    }

    /// One round: takes or renews the Lease if that is allowed.
    async fn try_acquire(&mut self) -> Result<bool, Error> {
        let action = format!("read the Lease {}/{NAME}", self.namespace);
        let Some(lease) = call(action, self.api.get_opt(NAME)).await? else {
            return self.create().await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(&*self.identity);
        if !ours && !self.is_vacant(&spec) {
            return Ok(false);
        }
        let renewed = self.spec(&spec, ours);
        self.replace(lease, renewed).await
    }

    /// Nobody has it, or nobody has renewed it for as long as it was promised.
    fn is_vacant(&mut self, spec: &LeaseSpec) -> bool {
        if spec.holder_identity.as_deref().unwrap_or_default().is_empty() {
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen == spec => {
                let promised = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
                since.elapsed() >= promised.unwrap_or(self.duration)
            }
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }

    async fn create(&self) -> Result<bool, Error> {
        let lease = Lease {
            metadata: ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() },
            spec: Some(self.spec(&LeaseSpec::default(), false)),
        };
        let created = call("create the leader's Lease", self.api.create(&PostParams::default(), &lease)).await;
        won(created.map(drop))
    }

    async fn release(&mut self) -> Result<(), Error> {
        let Some(lease) = call("read the leader's Lease", self.api.get_opt(NAME)).await? else {
            return Ok(());
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() == Some(&*self.identity) {
            self.replace(lease, LeaseSpec { holder_identity: Some(String::new()), ..spec }).await?;
        }
        Ok(())
    }

    /// The `resourceVersion` that was read decides between two candidates.
    async fn replace(&self, lease: Lease, spec: LeaseSpec) -> Result<bool, Error> {
        let lease = Lease { spec: Some(spec), ..lease };
        let replaced = call("renew the leader's Lease", self.api.replace(NAME, &PostParams::default(), &lease)).await;
        won(replaced.map(drop))
    }

    fn spec(&self, old: &LeaseSpec, ours: bool) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: if ours { old.acquire_time.clone() } else { Some(now.clone()) },
            lease_transitions: if ours { old.lease_transitions } else { Some(old.lease_transitions.unwrap_or(0) + 1) },
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}

/// Somebody else was faster: that is an answer, not a failure.
fn won(result: Result<(), Error>) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(Error::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::frame::mock::{Exchange, context, finish};

    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/sys/leases";
    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/sys/leases/edgeyard-operator";

    fn lease(holder: &str) -> Value {
        json!({
            "metadata": { "name": NAME, "namespace": "sys", "resourceVersion": "3" },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 4,
                      "renewTime": "2026-11-23T09:00:00.000000Z" },
        })
    }

    /// What a candidate `me` does at this script of answers, after it has seen the last Lease for so many seconds.
    async fn round(seen: Option<(Value, u64)>, script: Vec<Exchange>) -> bool {
        let (context, server) = context("2026-11-23T09:00:00Z", script);
        let mut me = Candidate::new(context.client.clone(), "sys", "me".into(), Duration::from_secs(15));
        me.seen = seen.map(|(lease, seconds)| {
            let lease: Lease = serde_json::from_value(lease).unwrap();
            (lease.spec.unwrap(), Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap())
        });
        let leads = me.try_acquire().await.unwrap();
        drop(me);
        finish(context, server).await;
        leads
    }

    fn taken(body: &Value) {
        assert_eq!(body["spec"]["holderIdentity"], "me");
        assert_eq!(body["spec"]["leaseTransitions"], 5);
        assert_eq!(body["metadata"]["resourceVersion"], "3");
    }

    #[tokio::test]
    async fn the_first_makes_the_lease_and_the_slower_stands_by() {
        let create = |answer: Exchange| vec![Exchange::not_found("GET", LEASE), answer];
        assert!(round(None, create(Exchange::new("POST", LEASES, 201, lease("me")))).await);
        assert!(!round(None, create(Exchange::conflict("POST", LEASES))).await);
    }

    #[tokio::test]
    async fn another_leader_is_replaced_only_when_silent_for_its_promised_time() {
        let look = || Exchange::new("GET", LEASE, 200, lease("other"));
        assert!(!round(None, vec![look()]).await);
        assert!(!round(Some((lease("other"), 14)), vec![look()]).await);
        let mut renewed = lease("other");
        renewed["spec"]["renewTime"] = json!("2026-11-23T08:59:00.000000Z");
        assert!(!round(Some((renewed, 3600)), vec![look()]).await, "it has renewed since");
        let take = Exchange::new("PUT", LEASE, 200, lease("me")).with_body(taken);
        assert!(round(Some((lease("other"), 15)), vec![look(), take]).await);
        assert!(!round(Some((lease("other"), 15)), vec![look(), Exchange::conflict("PUT", LEASE)]).await);
    }

    #[tokio::test]
    async fn a_lease_given_back_is_free_at_once() {
        let take = Exchange::new("PUT", LEASE, 200, lease("me")).with_body(taken);
        assert!(round(None, vec![Exchange::new("GET", LEASE, 200, lease("")), take]).await);
    }
}
