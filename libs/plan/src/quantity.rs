//! Reads amounts as Kubernetes writes them (`4Mi`, `500m`, `2`).

use edgeyard_crds::scalars::Quantity;

/// The amount in thousandths, rounded up as Kubernetes rounds; `None` for what is not a quantity or too large.
pub fn thousandths(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 3 {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let fraction: u128 = if fraction.is_empty() { 0 } else { format!("{fraction:0<3}").parse().ok()? };
    let in_thousandths = whole * 1000 + fraction;
    let scaled = match suffix {
        "m" => in_thousandths.div_ceil(1000),
        "" => in_thousandths,
        "k" => in_thousandths.checked_mul(1000)?,
        "M" => in_thousandths.checked_mul(1_000_000)?,
        "G" => in_thousandths.checked_mul(1_000_000_000)?,
        "T" => in_thousandths.checked_mul(1_000_000_000_000)?,
        "Ki" => in_thousandths.checked_mul(1 << 10)?,
        "Mi" => in_thousandths.checked_mul(1 << 20)?,
        "Gi" => in_thousandths.checked_mul(1 << 30)?,
        "Ti" => in_thousandths.checked_mul(1 << 40)?,
        _ => return None,
    };
    u64::try_from(scaled).ok()
}

/// The amount in whole units, rounded up.
pub fn units(quantity: &Quantity) -> Option<u64> {
    thousandths(quantity).map(|n| n.div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_schema_lets_in() {
        let read = |text: &str| thousandths(&Quantity(text.into()));
        assert_eq!(read("500m"), Some(500));
        assert_eq!(read("1"), Some(1000));
        assert_eq!(read("1.5"), Some(1500));
        assert_eq!(read("0.0"), Some(0));
        assert_eq!(units(&Quantity("4Mi".into())), Some(4 << 20));
        assert_eq!(units(&Quantity("1.5Gi".into())), Some(3 << 29));
        assert_eq!(units(&Quantity("2k".into())), Some(2000));
        assert_eq!(units(&Quantity("1m".into())), Some(1));
        assert_eq!(
            [read(""), read("m"), read("4Xi"), read("-1"), read("1.0000"), read("999999999999999Ti")],
            [None; 6]
        );
    }
}
