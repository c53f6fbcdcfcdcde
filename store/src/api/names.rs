//! What may stand in a path.

use edgeyard_artifact::Digest;

use super::ApiError;

/// A namespace is a DNS label.
pub(super) fn check_namespace(text: &str) -> Result<(), ApiError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good =
        (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-');
    if good { Ok(()) } else { Err(ApiError::bad("InvalidName", format!("{text:?} is not the name of a namespace"))) }
}

/// A uid or an owner: printable ASCII without spaces, so that it is safe in keys and logs.
pub(super) fn check_name(what: &str, text: &str) -> Result<(), ApiError> {
    let good =
        (1..=253).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:~/-".contains(&b));
    if good {
        return Ok(());
    }
    let rule = "1 to 253 letters, digits or ._:~/-";
    Err(ApiError::bad("InvalidName", format!("{what} {:?} is not {rule}", text.chars().take(60).collect::<String>())))
}

pub(super) fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error: edgeyard_artifact::DigestError| ApiError::bad("InvalidDigest", error.to_string()))
}

pub(super) fn attempt(text: &str) -> Result<u32, ApiError> {
    text.parse().map_err(|_| ApiError::bad("InvalidName", format!("attempt {text:?} is not a number")))
}

/// The media type to keep; absent means bytes of no known type.
pub(super) fn media_type(headers: &axum::http::HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get(axum::http::header::CONTENT_TYPE) else {
        return Ok("application/octet-stream".to_owned());
    };
    let text = value.to_str().unwrap_or_default();
    if text.len() > 255 || !text.contains('/') {
        return Err(ApiError::bad("InvalidMediaType", "Content-Type is not a media type of at most 255 characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["vision", "a", "kube-system", &"a".repeat(63)] {
            assert!(check_namespace(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "ä", &"a".repeat(64)] {
            assert!(check_namespace(bad).is_err(), "{bad}");
        }
        assert!(check_name("uid", "0f3c-int8-tflm").is_ok());
        for bad in ["", "a b", "a\nb", "ä", &"a".repeat(254)] {
            assert!(check_name("uid", bad).is_err(), "{bad}");
        }
    }
}
