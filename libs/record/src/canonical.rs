//! Canonical JSON after RFC 8785, for documents without floating point numbers: keys sorted by
//! UTF-16 code units, no white space, the shortest escapes.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Why a document has no canonical form.
#[derive(thiserror::Error, Debug)]
pub enum CanonicalError {
    /// A number with a fraction or beyond 2^53.
    #[error("{at}: {number} is not an integer of at most 2^53 in size")]
    Number {
        /// JSON pointer of the number.
        at: String,
        /// The number.
        number: serde_json::Number,
    },
    /// Not representable as JSON at all.
    #[error("cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// The canonical bytes of a document.
pub fn canonical_json<T: Serialize>(document: &T) -> Result<Vec<u8>, CanonicalError> {
    let mut out = Vec::new();
    write(&serde_json::to_value(document)?, "", &mut out)?;
    Ok(out)
}

/// `sha256:…` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn write(value: &Value, at: &str, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    const LARGEST: i64 = 1 << 53;
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(integer) if (-LARGEST..=LARGEST).contains(&integer) => {
                out.extend_from_slice(integer.to_string().as_bytes());
            }
            _ => return Err(CanonicalError::Number { at: at.to_owned(), number: number.clone() }),
        },
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, &format!("{at}/{index}"), out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push(b'{');
            for (index, (key, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, key)?;
                out.push(b':');
                write(member, &format!("{at}/{key}"), out)?;
            }
            out.push(b'}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => serde_json::to_writer(&mut *out, value)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_by_utf16_and_nothing_is_padded() {
        // RFC 8785 §3.2.3: U+FB33 sorts after the surrogates of U+1F600.
        let document = json!({"\u{fb33}": 1, "\u{1f600}": [true, null], "b": {"z": -2, "a": "\u{7}\"é"}});
        let text = String::from_utf8(canonical_json(&document).unwrap()).unwrap();
        assert_eq!(text, "{\"b\":{\"a\":\"\\u0007\\\"é\",\"z\":-2},\"\u{1f600}\":[true,null],\"\u{fb33}\":1}");
    }

    #[test]
    fn a_fraction_is_refused_with_its_place() {
        let error = canonical_json(&json!({"a": [1, 0.5]})).unwrap_err();
        assert_eq!(error.to_string(), "/a/1: 0.5 is not an integer of at most 2^53 in size");
        assert!(canonical_json(&json!(9_007_199_254_740_993_i64)).is_err());
    }

    #[test]
    fn the_digest_is_sha256() {
        assert_eq!(digest(b"abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
