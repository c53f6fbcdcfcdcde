//! Who calls, and whether they may. A pod shows a grant, people and the operator show a ServiceAccount token, and a store
//! without a cluster may have one static token.

mod cache;
mod keys;
mod kubernetes;

use edgeyard_artifact::grant::{self, Claims, GrantError};
use edgeyard_artifact::{Digest, digest_of};
use k8s_openapi::api::authentication::v1::UserInfo;

pub use keys::GrantKeys;
pub use kubernetes::{AUDIENCE, Reviewer};

use crate::api::ApiError;
use crate::index::Fence;

/// Whoever has shown who they are.
#[derive(Debug, Clone)]
pub enum Caller {
    /// A pod with a grant.
    Grant(Box<Claims>),
    /// Someone that the cluster knows.
    Person {
        /// Who.
        user: Box<UserInfo>,
        /// Digest of the token, to remember answers by.
        token: Digest,
    },
    /// The holder of the static token.
    Trusted,
}

/// What a request does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// Read a blob.
    ReadBlob(Digest),
    /// Add a blob.
    WriteBlob,
    /// Read one result.
    ReadResult(String, u32),
    /// Add a result.
    WriteResult(String, u32),
    /// List results.
    ListResults,
    /// Read how far a job is.
    ReadProgress(String, u32),
    /// Say how far a job is.
    WriteProgress(String, u32),
    /// Keep blobs from being swept.
    Pin,
    /// Let them be swept.
    Unpin,
    /// See who keeps blobs, in all namespaces.
    ListPins,
    /// See what a namespace uses.
    SeeUsage,
}

impl Right {
    /// The verb and resource (of group `edgeyard.dev`) that a cluster is asked about.
    pub const fn attributes(&self) -> (&'static str, &'static str) {
        match self {
            Self::ReadBlob(_) => ("get", "blobs"),
            Self::WriteBlob => ("create", "blobs"),
            Self::ReadResult(..) | Self::ReadProgress(..) => ("get", "results"),
            Self::WriteResult(..) => ("create", "results"),
            Self::WriteProgress(..) => ("update", "results"),
            Self::ListResults => ("list", "results"),
            Self::Pin => ("update", "blobs"),
            Self::Unpin => ("delete", "blobs"),
            Self::ListPins | Self::SeeUsage => ("list", "blobs"),
        }
    }
}

/// Decides who may do what.
pub struct Authority {
    keys: GrantKeys,
    reviewer: Option<Reviewer>,
    static_token: Option<Digest>,
}

impl Authority {
    /// From the sources that the store was started with.
    pub fn new(keys: GrantKeys, reviewer: Option<Reviewer>, static_token: Option<&str>) -> Self {
        Self { keys, reviewer, static_token: static_token.map(|token| digest_of(token.trim())) }
    }

    /// Who shows this `Authorization` header at `now` (milliseconds since 1970).
    ///
    /// # Errors
    /// 401 when the token is missing or void, 503 when that cannot be found out.
    pub async fn authenticate(&self, header: Option<&str>, now: i64) -> Result<Caller, ApiError> {
        let token = header
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty())
            .map(|(_, token)| token.trim())
            .ok_or_else(|| {
                ApiError::unauthorized(
                    "show a token as \"Authorization: Bearer …\"; `kubectl create token default --audience edgeyard-store` makes one",
                )
            })?;
        if grant::is_grant(token) {
            return self.grant(token, now).await;
        }
        // Comparing digests takes the same time wherever the texts differ.
        let digest = digest_of(token);
        if self.static_token == Some(digest) {
            return Ok(Caller::Trusted);
        }
        match &self.reviewer {
            Some(reviewer) => {
                let user = reviewer.authenticate(token, digest, now).await?;
                Ok(Caller::Person { user: Box::new(user), token: digest })
            }
            None => Err(ApiError::unauthorized("the token is not the one that this store was started with")),
        }
    }

    async fn grant(&self, token: &str, now: i64) -> Result<Caller, ApiError> {
        let seconds = now.div_euclid(1000);
        let mut verified = grant::verify(&self.keys.known(now).await?, token, seconds);
        if let Err(GrantError::Signature { .. }) = verified {
            // The operator may have made a new key since.
            verified = grant::verify(&self.keys.refreshed(now).await?, token, seconds);
        }
        match verified {
            Ok(claims) => Ok(Caller::Grant(Box::new(claims))),
            Err(error) => Err(ApiError::unauthorized(error.to_string())),
        }
    }

    /// Whether the caller may do this in a namespace (in all of them if it is empty); gives the lease that a grant's
    /// writes are fenced by.
    ///
    /// # Errors
    /// 403 when not, 503 when that cannot be found out.
    pub async fn authorize(
        &self,
        caller: &Caller,
        namespace: &str,
        right: &Right,
        now: i64,
    ) -> Result<Option<Fence>, ApiError> {
        match caller {
            Caller::Trusted => Ok(None),
            Caller::Grant(claims) => {
                grant_allows(claims, namespace, right)?;
                let lease = claims.device.clone().zip(claims.fencing_token);
                Ok(lease.map(|(device, token)| Fence { device, token }))
            }
            Caller::Person { user, token } => {
                let Some(reviewer) = &self.reviewer else {
                    return Err(ApiError::forbidden("this store asks no cluster about rights"));
                };
                let (verb, resource) = right.attributes();
                if reviewer.authorize(user, *token, namespace, verb, resource, now).await? {
                    return Ok(None);
                }
                let who = user.username.as_deref().unwrap_or("the token's owner");
                Err(ApiError::forbidden(format!(
                    "{who} may not {verb} {resource} of group edgeyard.dev in {}: bind a Role that allows it",
                    if namespace.is_empty() { "all namespaces".to_owned() } else { format!("namespace {namespace}") }
                )))
            }
        }
    }
}

fn grant_allows(claims: &Claims, namespace: &str, right: &Right) -> Result<(), ApiError> {
    if claims.namespace != namespace {
        return Err(ApiError::forbidden(format!(
            "the grant is for namespace {}, not for {namespace}",
            claims.namespace
        )));
    }
    let own = |uid: &str, attempt: u32| claims.uid == uid && claims.attempt == attempt;
    let allowed = match right {
        Right::ReadBlob(digest) => claims.read.contains(digest),
        Right::WriteBlob => true,
        Right::ReadResult(uid, attempt)
        | Right::WriteResult(uid, attempt)
        | Right::ReadProgress(uid, attempt)
        | Right::WriteProgress(uid, attempt) => own(uid, *attempt),
        Right::ListResults | Right::Pin | Right::Unpin | Right::ListPins | Right::SeeUsage => false,
    };
    if allowed {
        return Ok(());
    }
    let what = match right {
        Right::ReadBlob(digest) => format!("read {digest}"),
        Right::ReadResult(uid, attempt) | Right::ReadProgress(uid, attempt) => format!("read {uid}/{attempt}"),
        Right::WriteResult(uid, attempt) | Right::WriteProgress(uid, attempt) => format!("write {uid}/{attempt}"),
        other => {
            let (verb, resource) = other.attributes();
            format!("{verb} {resource}")
        }
    };
    Err(ApiError::forbidden(format!("the grant of {}/{} does not allow to {what}", claims.uid, claims.attempt)))
}
