//! Results as people read them.

use edgeyard_record::{InstructionMix, Record, VariantResult};

/// Columns of equal width, two spaces apart.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width + 2 - cell.chars().count()));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A duration in the unit that suits it.
pub fn duration(nanoseconds: u64) -> String {
    let n = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} µs", n / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", n / 1e6),
        _ => format!("{:.2} s", n / 1e9),
    }
}

/// A number with its thousands set apart.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// An instruction mix, the most frequent kind first.
pub fn mix(mix: &InstructionMix) -> String {
    let InstructionMix { load, store, multiply, branch, vector, float, other } = *mix;
    let mut kinds = [
        ("load", load),
        ("store", store),
        ("multiply", multiply),
        ("branch", branch),
        ("vector", vector),
        ("float", float),
        ("other", other),
    ];
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counted = kinds.iter().filter(|(_, count)| *count > 0);
    counted.map(|(kind, count)| format!("{kind} {}", thousands(*count))).collect::<Vec<_>>().join(", ")
}

/// A record's results, one line a variant, and what is wrong with them.
pub fn record(record: &Record) -> String {
    let header =
        ["VARIANT", "TARGET", "SIZE", "P50", "P90", "P99", "INSTRUCTIONS", "PEAK MEMORY", "ACCURACY", "VALIDITY"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(record.results.iter().map(row));
    let mut out = align(&rows);
    for result in &record.results {
        for (reason, advice) in result.validity.reasons.iter().zip(&result.validity.recommendations) {
            out.push_str(&format!("{}/{}: {reason}: {advice}\n", result.variant, result.target));
        }
    }
    out
}

fn row(result: &VariantResult) -> Vec<String> {
    let percentile = |name: &str| {
        let found = result.latency.as_ref().and_then(|latency| latency.percentiles.get(name));
        found.map_or_else(|| "-".into(), |percentile| duration(percentile.value_nanoseconds))
    };
    let count = |number: Option<u64>| number.map_or_else(|| "-".into(), thousands);
    let percent =
        |ratio: &str| ratio.parse::<f64>().map_or_else(|_| ratio.to_owned(), |ratio| format!("{:.2}", ratio * 100.0));
    let accuracy = result.accuracy.as_ref().map_or_else(
        || "-".into(),
        |accuracy| {
            format!("{} % [{}, {}]", percent(&accuracy.value), percent(&accuracy.lower), percent(&accuracy.upper))
        },
    );
    vec![
        result.variant.clone(),
        result.target.clone(),
        thousands(result.size_bytes),
        percentile("50"),
        percentile("90"),
        percentile("99"),
        count(result.instructions_per_inference),
        count(result.peak_memory_bytes),
        accuracy,
        match &result.failure {
            Some(failure) => failure.reason.clone(),
            None => result.validity.state.clone(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_thousands() {
        assert_eq!([999, 36_900, 1_850_000, 2_500_000_000].map(duration), ["999 ns", "36.9 µs", "1.85 ms", "2.50 s"]);
        assert_eq!([0, 999, 1_000, 1_833_384].map(thousands), ["0", "999", "1,000", "1,833,384"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["µ".to_owned(), "b".into()], vec!["aaa".into(), "c".into()]];
        assert_eq!(align(&rows), "µ    b\naaa  c\n");
    }
}
