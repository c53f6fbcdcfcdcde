//! The `Range` header: one range of bytes. Several ranges, or another unit, mean the whole blob, as RFC 9110 allows.

/// What a `Range` header asks of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it.
    Whole,
    /// A part, not empty and within the blob.
    Part(std::ops::Range<u64>),
    /// Nothing that the blob has.
    Unsatisfiable,
}

pub(super) fn parse(header: Option<&str>, size: u64) -> Asked {
    let Some((first, last)) = header
        .and_then(|text| text.trim().strip_prefix("bytes="))
        .filter(|text| !text.contains(','))
        .and_then(|text| text.trim().split_once('-'))
    else {
        return Asked::Whole;
    };
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => match suffix.parse::<u64>() {
            Ok(length) => size.saturating_sub(length)..size,
            Err(_) => return Asked::Whole,
        },
        (first, last) => {
            let Ok(first) = first.parse::<u64>() else { return Asked::Whole };
            match last {
                "" => first..size,
                last => match last.parse::<u64>() {
                    Ok(last) if last >= first => first..size.min(last.saturating_add(1)),
                    _ => return Asked::Whole,
                },
            }
        }
    };
    if range.start >= range.end { Asked::Unsatisfiable } else { Asked::Part(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_9110_examples() {
        // Section 14.1.2: a representation of 10000 bytes.
        assert_eq!(parse(Some("bytes=0-499"), 10_000), Asked::Part(0..500));
        assert_eq!(parse(Some("bytes=500-999"), 10_000), Asked::Part(500..1000));
        assert_eq!(parse(Some("bytes=-500"), 10_000), Asked::Part(9_500..10_000));
        assert_eq!(parse(Some("bytes=9500-"), 10_000), Asked::Part(9_500..10_000));
        assert_eq!(parse(Some("bytes=0-0,-1"), 10_000), Asked::Whole);
    }

    #[test]
    fn ends_are_cut_and_nonsense_is_ignored() {
        assert_eq!(parse(None, 10), Asked::Whole);
        assert_eq!(parse(Some("bytes=5-99"), 10), Asked::Part(5..10));
        assert_eq!(parse(Some("bytes=-99"), 10), Asked::Part(0..10));
        assert_eq!(parse(Some("bytes=10-"), 10), Asked::Unsatisfiable);
        assert_eq!(parse(Some("bytes=-0"), 10), Asked::Unsatisfiable);
        assert_eq!(parse(Some("bytes=0-"), 0), Asked::Unsatisfiable);
        for ignored in ["bytes=9-5", "bytes=x-y", "bytes=-", "bytes=5", "items=0-1", ""] {
            assert_eq!(parse(Some(ignored), 10), Asked::Whole, "{ignored}");
        }
        assert_eq!(parse(Some("bytes=0-18446744073709551615"), 10), Asked::Part(0..10));
    }
}
