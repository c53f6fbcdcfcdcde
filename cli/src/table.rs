//! Tables as kubectl prints them, and durations for people.

/// Columns of even width, two spaces apart.
pub fn render(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|&column| column.to_owned()).collect()];
    lines.extend(rows);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Nanoseconds in the unit that suits them.
pub fn duration(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} µs", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = render(&["A", "B"], [vec!["long".to_owned(), "x".to_owned()]]);
        assert_eq!(text, "A     B\nlong  x\n");
    }

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(41_234), "41.2 µs");
        assert_eq!(duration(2_500_000), "2.50 ms");
        assert_eq!(duration(1_500_000_000), "1.50 s");
    }
}
