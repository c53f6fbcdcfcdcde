//! Asks the cluster who a token belongs to (TokenReview) and what they may do (SubjectAccessReview).

use std::time::Duration;

use edgeyard_artifact::Digest;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::cache::Cache;
use crate::api::ApiError;

/// The audience that a token must be made for: one for the API server or another service is of no use here.
pub const AUDIENCE: &str = "edgeyard-store";
const GROUP: &str = "edgeyard.dev";
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the cluster.
pub struct Reviewer {
    tokens: Api<TokenReview>,
    access: Api<SubjectAccessReview>,
    known: Cache<Digest, UserInfo>,
    allowed: Cache<(Digest, String, &'static str, &'static str), ()>,
}

impl Reviewer {
    /// With a client whose ServiceAccount may create both kinds of review (ClusterRole `system:auth-delegator`).
    pub fn new(client: Client) -> Self {
        let (tokens, access) = (Api::all(client.clone()), Api::all(client));
        Self { tokens, access, known: Cache::new(), allowed: Cache::new() }
    }

    pub(super) async fn authenticate(&self, token: &str, digest: Digest, now: i64) -> Result<UserInfo, ApiError> {
        if let Some(user) = self.known.get(&digest, now) {
            return Ok(user);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![AUDIENCE.to_owned()]) },
            ..Default::default()
        };
        let answer = in_time(self.tokens.create(&PostParams::default(), &review))
            .await
            .map_err(|why| ApiError::unavailable(format!("the cluster cannot say whose token this is: {why}")))?;
        let status = answer.status.unwrap_or_default();
        // An authenticator that knows no audiences would confirm a token for any service.
        let for_us = status.audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE);
        match status.user {
            Some(user) if status.authenticated == Some(true) && for_us => {
                self.known.put(digest, user.clone(), now);
                Ok(user)
            }
            _ => {
                let why = status.error.unwrap_or_else(|| "not authenticated".to_owned());
                Err(ApiError::unauthorized(format!(
                    "the cluster does not accept the token for audience {AUDIENCE} ({why}); `kubectl create token default --audience {AUDIENCE}` makes one"
                )))
            }
        }
    }

    pub(super) async fn authorize(
        &self,
        user: &UserInfo,
        token: Digest,
        namespace: &str,
        verb: &'static str,
        resource: &'static str,
        now: i64,
    ) -> Result<bool, ApiError> {
        let key = (token, namespace.to_owned(), verb, resource);
        if self.allowed.get(&key, now).is_some() {
            return Ok(true);
        }
        let UserInfo { username, uid, groups, extra } = user.clone();
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: username,
                uid,
                groups,
                extra,
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.to_owned()),
                    verb: Some(verb.to_owned()),
                    group: Some(GROUP.to_owned()),
                    resource: Some(resource.to_owned()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = in_time(self.access.create(&PostParams::default(), &review))
            .await
            .map_err(|why| ApiError::unavailable(format!("the cluster cannot say what the token may do: {why}")))?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        if allowed {
            self.allowed.put(key, (), now);
        }
        Ok(allowed)
    }
}

/// A call to the API server with a bound on its time, because the client's own retries can hold it for minutes.
pub(super) async fn in_time<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            tracing::warn!(error = %error, "the API server refused a review");
            Err("the API server refused to answer, see the store's log".to_owned())
        }
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}
