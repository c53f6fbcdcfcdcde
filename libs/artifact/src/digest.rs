//! The identity of everything stored: a sha256 digest, written `sha256:` and 64 lower-case hex digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "sha256:";
/// Length of a written digest: the prefix and 64 hex digits.
const WRITTEN_LEN: usize = PREFIX.len() + 64;

/// A sha256 digest. Compares, orders and prints as its written form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// What is wrong with a text that should be a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a digest: write \"sha256:\" and 64 lower-case hexadecimal digits")]
pub struct DigestError {
    /// The refused text, cut to 100 characters.
    pub text: String,
}

impl Digest {
    /// The digest with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the prefix: the file name in an OCI image layout.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first 12 hex digits, for tables.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let refused = || DigestError { text: text.chars().take(100).collect() };
        let digits = text.strip_prefix(PREFIX).ok_or_else(refused)?;
        // `hex` takes capitals too; a digest has one written form only, because it is compared as text elsewhere.
        if !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| refused())?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The digest of some bytes.
pub fn digest_of(bytes: impl AsRef<[u8]>) -> Digest {
    Digest(Sha256::digest(bytes.as_ref()).into())
}

/// Computes a digest from pieces, and counts their bytes.
#[derive(Clone, Default)]
pub struct Hasher {
    sha: Sha256,
    len: u64,
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.sha.update(bytes.as_ref());
        self.len += bytes.as_ref().len() as u64;
    }

    /// Bytes seen so far.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has been seen yet.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        Digest(self.sha.finalize().into())
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Every digest that is written as a whole JSON string in `body`, once each, in order of first appearance.
///
/// This defines what a stored result refers to, and so what the store must not sweep.
pub fn find_digests(body: &serde_json::Value) -> Vec<Digest> {
    fn walk(value: &serde_json::Value, found: &mut Vec<Digest>) {
        match value {
            serde_json::Value::String(text) if text.len() == WRITTEN_LEN => {
                if let Ok(digest) = text.parse()
                    && !found.contains(&digest)
                {
                    found.push(digest);
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            serde_json::Value::Object(fields) => fields.values().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(body, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn published_vector() {
        assert_eq!(digest_of("abc").to_string(), ABC);
        let mut hasher = Hasher::new();
        hasher.update("a");
        hasher.update("bc");
        assert_eq!(hasher.len(), 3);
        assert_eq!(hasher.finish().to_string(), ABC);
    }

    #[test]
    fn one_written_form() {
        let digest: Digest = ABC.parse().unwrap();
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{ABC}\""));
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{ABC}\"")).unwrap(), digest);
        assert_eq!(digest.short(), "ba7816bf8f01");
        let capitals = format!("sha256:{}", ABC["sha256:".len()..].to_uppercase());
        for wrong in ["", "abc", "sha256:", "sha512:00", &ABC[..70], &format!("{ABC}0"), &capitals, "sha256:\u{e9}"] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn references_are_whole_strings_anywhere() {
        let body = serde_json::json!({"a": [{"digest": ABC}, ABC], "text": format!("see {ABC}"), "n": 1});
        assert_eq!(find_digests(&body), vec![ABC.parse().unwrap()]);
    }
}
