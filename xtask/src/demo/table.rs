//! The demo's last words: variant × device.

use super::rows::Row;

const COLUMNS: [&str; 9] = ["VARIANT", "TARGET", "DEVICE", "SIZE", "ACCURACY", "DROP", "P50", "P90", "INSTRUCTIONS"];

/// The table as text.
pub fn render(rows: &[Row]) -> String {
    let mut lines = vec![COLUMNS.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(line));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += padded.join("  ").trim_end();
        text.push('\n');
    }
    let remarks: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let why = row.reasons.get("validity").or_else(|| row.reasons.get("failure"))?;
            Some(format!("  {} {} on {}: {why}", row.variant, row.target, row.device))
        })
        .collect();
    if !remarks.is_empty() {
        text += &format!("Not to be relied on (`kubectl edgeyard get` says more):\n{}\n", remarks.join("\n"));
    }
    text
}

fn line(row: &Row) -> Vec<String> {
    let unknown = || "–".to_owned();
    let time = |seconds: f64| {
        if seconds < 1e-3 { format!("{:.1} µs", seconds * 1e6) } else { format!("{:.2} ms", seconds * 1e3) }
    };
    vec![
        row.variant.clone(),
        row.target.clone(),
        row.device.clone(),
        row.size_bytes.map_or_else(unknown, |bytes| format!("{bytes} B")),
        row.accuracy.as_ref().map_or_else(unknown, |a| {
            format!("{:.2} % [{:.2}, {:.2}] n={}", a.value * 100.0, a.lower * 100.0, a.upper * 100.0, a.n)
        }),
        row.accuracy_drop.map_or_else(unknown, |drop| format!("{:+.2} pt", drop * 100.0 + 0.0)),
        row.latency.as_ref().map_or_else(unknown, |latency| time(latency.p50_seconds)),
        row.latency.as_ref().map_or_else(unknown, |latency| time(latency.p90_seconds)),
        row.instructions_per_inference.map_or_else(unknown, |count| count.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_unknown_is_a_dash_and_never_zero() {
        let row = Row {
            model: "m".into(),
            variant: "int8".into(),
            target: "tflm".into(),
            device: "m4-0".into(),
            device_class: "c".into(),
            fidelity: "Emulated".into(),
            digest: "d".into(),
            format: "TFLite".into(),
            size_bytes: Some(7),
            accuracy: None,
            accuracy_drop: Some(0.001),
            latency: None,
            instructions_per_inference: Some(1000),
            record_digest: "r".into(),
            reasons: BTreeMap::from([("validity".into(), "Invalid: Throttled".into())]),
        };
        let text = render(&[row]);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["int8", "tflm", "m4-0", "7", "B", "–", "+0.10", "pt", "–", "–", "1000"]);
        assert!(text.contains("int8 tflm on m4-0: Invalid: Throttled"));
    }
}
