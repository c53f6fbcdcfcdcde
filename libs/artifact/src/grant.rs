//! Grants: what a pod shows to the store instead of an identity in the cluster.
//!
//! The operator signs a few claims with Ed25519; the store verifies them with the public key alone. A grant is
//! `eyg1.` + base64url(JSON claims) + `.` + base64url(signature over everything before the dot). Time is always passed in.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::Signer as _;
pub use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{Digest, digest_of};

/// How every grant begins; the digit is the format's version.
pub const PREFIX: &str = "eyg1.";
/// Longer texts are refused unread: a grant travels in an HTTP header.
const MAX_LEN: usize = 64 * 1024;

/// What a grant allows. An unknown claim is refused: it may be a restriction that this program does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claims {
    /// The namespace whose blobs and results these are.
    pub namespace: String,
    /// UID under which the one result may be put.
    pub uid: String,
    /// Attempt under which the one result may be put.
    pub attempt: u32,
    /// The leased device as `namespace/name`, for runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The lease's fencing token; the store refuses one lower than the highest it has seen for the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing_token: Option<i64>,
    /// The digests that may be read.
    #[serde(default)]
    pub read: Vec<Digest>,
    /// Unix seconds from which on the grant is void.
    pub expires_at: i64,
    /// Which key signed; [`sign`] writes it, whatever is here.
    #[serde(default)]
    pub key_id: String,
}

/// Why a grant is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Not the three parts of a grant, or their content cannot be read.
    #[error("the grant is malformed: {0}")]
    Malformed(&'static str),
    /// No key given verifies the signature.
    #[error("the grant's signature fits none of the known keys (key id {key_id:?})")]
    Signature {
        /// The key id that the grant names.
        key_id: String,
    },
    /// Its time is over.
    #[error("the grant expired at {expires_at} (Unix seconds), it is {now}")]
    Expired {
        /// From when on it was void.
        expires_at: i64,
        /// The time given to [`verify`].
        now: i64,
    },
    /// A device without fencing token, or the other way round.
    #[error("the grant names a device without a fencing token, or a token without a device")]
    Unfenced,
}

/// Why a key's text is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key: expected base64 of 32 bytes")]
pub struct KeyError;

/// Whether a bearer token is meant to be a grant.
pub fn is_grant(bearer: &str) -> bool {
    bearer.starts_with(PREFIX)
}

/// Makes a new private key from the system's random source.
///
/// # Errors
/// When the system has no randomness to give.
pub fn generate() -> Result<SigningKey, getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(SigningKey::from_bytes(&seed))
}

/// A short name for a public key: 16 hex digits of its sha256.
pub fn key_id(key: &VerifyingKey) -> String {
    digest_of(key.as_bytes()).hex()[..16].to_owned()
}

/// Signs claims; `key_id` becomes that of `key`.
pub fn sign(key: &SigningKey, claims: &Claims) -> String {
    let claims = Claims { key_id: key_id(&key.verifying_key()), ..claims.clone() };
    let json = serde_json::to_vec(&claims).expect("claims hold only text and numbers");
    let signed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
    format!("{signed}.{signature}")
}

/// Checks a grant against the keys that may have signed it and the time `now` (Unix seconds).
///
/// # Errors
/// [`GrantError`]; nothing of the claims is believed before the signature fits.
pub fn verify(keys: &[VerifyingKey], grant: &str, now: i64) -> Result<Claims, GrantError> {
    if grant.len() > MAX_LEN {
        return Err(GrantError::Malformed("too long"));
    }
    let rest = grant.strip_prefix(PREFIX).ok_or(GrantError::Malformed("it does not begin with eyg1."))?;
    let (body, signature) = rest.split_once('.').ok_or(GrantError::Malformed("it has no signature"))?;
    let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| GrantError::Malformed("claims are not base64url"))?;
    let signature =
        URL_SAFE_NO_PAD.decode(signature).map_err(|_| GrantError::Malformed("signature is not base64url"))?;
    let signature = ed25519_dalek::Signature::from_slice(&signature)
        .map_err(|_| GrantError::Malformed("a signature has 64 bytes"))?;
    let signed = &grant.as_bytes()[..PREFIX.len() + body.len()];
    if !keys.iter().any(|key| key.verify_strict(signed, &signature).is_ok()) {
        // Only for the message, so that a rotated key is found quickly.
        let named = serde_json::from_slice::<serde_json::Value>(&json).ok();
        let key_id = named.as_ref().and_then(|v| v["keyId"].as_str()).unwrap_or_default();
        return Err(GrantError::Signature { key_id: key_id.chars().take(32).collect() });
    }
    let claims: Claims =
        serde_json::from_slice(&json).map_err(|_| GrantError::Malformed("claims are not those of this version"))?;
    if now >= claims.expires_at {
        return Err(GrantError::Expired { expires_at: claims.expires_at, now });
    }
    if claims.device.is_some() != claims.fencing_token.is_some() {
        return Err(GrantError::Unfenced);
    }
    Ok(claims)
}

/// A private key as base64, for a Secret.
pub fn encode_private(key: &SigningKey) -> String {
    STANDARD.encode(key.to_bytes())
}

/// A public key as base64, for a ConfigMap.
pub fn encode_public(key: &VerifyingKey) -> String {
    STANDARD.encode(key.as_bytes())
}

/// Reads what [`encode_private`] wrote; white space round it is ignored.
///
/// # Errors
/// [`KeyError`] when it is not base64 of 32 bytes.
pub fn decode_private(text: &str) -> Result<SigningKey, KeyError> {
    Ok(SigningKey::from_bytes(&decode_32(text)?))
}

/// Reads what [`encode_public`] wrote; white space round it is ignored.
///
/// # Errors
/// [`KeyError`] when it is not base64 of 32 bytes that are a point of the curve.
pub fn decode_public(text: &str) -> Result<VerifyingKey, KeyError> {
    VerifyingKey::from_bytes(&decode_32(text)?).map_err(|_| KeyError)
}

fn decode_32(text: &str) -> Result<[u8; 32], KeyError> {
    STANDARD.decode(text.trim()).map_err(|_| KeyError)?.try_into().map_err(|_| KeyError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            namespace: "vision".into(),
            uid: "9f7a".into(),
            attempt: 2,
            device: Some("edgeyard-lab/host-cpu-0".into()),
            fencing_token: Some(1_790_000_000_000),
            read: vec![digest_of("model")],
            expires_at: 1_000,
            key_id: String::new(),
        }
    }

    #[test]
    fn round_trip_through_written_keys() {
        let key = decode_private(&encode_private(&generate().unwrap())).unwrap();
        let public = decode_public(&format!("{}\n", encode_public(&key.verifying_key()))).unwrap();
        let grant = sign(&key, &claims());
        assert!(is_grant(&grant));
        let other = generate().unwrap().verifying_key();
        let read = verify(&[other, public], &grant, 999).unwrap();
        assert_eq!(read, Claims { key_id: key_id(&public), ..claims() });
    }

    #[test]
    fn refuses_other_keys_expiry_and_every_changed_byte() {
        let key = generate().unwrap();
        let public = key.verifying_key();
        let grant = sign(&key, &claims());
        let other = generate().unwrap().verifying_key();
        assert_eq!(verify(&[other], &grant, 0), Err(GrantError::Signature { key_id: key_id(&public) }));
        assert_eq!(verify(&[], &grant, 0), Err(GrantError::Signature { key_id: key_id(&public) }));
        assert_eq!(verify(&[public], &grant, 1_000), Err(GrantError::Expired { expires_at: 1_000, now: 1_000 }));
        for at in 0..grant.len() {
            let mut bytes = grant.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(verify(&[public], &changed, 0).is_err(), "byte {at}");
        }
        for cut in 0..grant.len() {
            assert!(verify(&[public], &grant[..cut], 0).is_err());
        }
    }

    #[test]
    fn a_device_needs_its_fencing_token() {
        let key = generate().unwrap();
        let grant = sign(&key, &Claims { fencing_token: None, ..claims() });
        assert_eq!(verify(&[key.verifying_key()], &grant, 0), Err(GrantError::Unfenced));
    }

    #[test]
    fn an_unknown_claim_is_refused() {
        let key = generate().unwrap();
        let mut json = serde_json::to_value(claims()).unwrap();
        json["onlyOnTuesdays"] = true.into();
        let signed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json.to_string()));
        let grant = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes()));
        assert!(matches!(verify(&[key.verifying_key()], &grant, 0), Err(GrantError::Malformed(_))));
    }

    #[test]
    fn keys_of_the_wrong_length_are_refused() {
        for text in ["", "AAAA", "not base64!"] {
            assert_eq!(decode_public(text), Err(KeyError));
            assert_eq!(decode_private(text).err(), Some(KeyError));
        }
    }
}
