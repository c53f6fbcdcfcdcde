//! A difference as bars: text for terminals, SVG for reports. A long bar is a good layer.

use std::fmt::Write;

use edgeyard_job::inspection::{Agreement, Difference};

/// The scale's right end, unless a layer is better still.
const USUAL_DB: f64 = 60.0;
/// Characters of a bar in text.
const BAR: usize = 40;

/// Layers and outputs as lines of text.
#[must_use]
pub fn bars(difference: &Difference) -> String {
    let mut text = String::new();
    let most = most(difference);
    let name = |agreement: &Agreement| agreement.tensor.chars().count().min(40);
    let width = rows(difference).map(name).max().unwrap_or(0);
    let operators = rows(difference).map(|row| row.operator.chars().count()).max().unwrap_or(0);
    for row in rows(difference) {
        let filled = (share(row, most) * BAR as f64).round() as usize;
        let bar: String = std::iter::repeat_n('█', filled).chain(std::iter::repeat_n('░', BAR - filled)).collect();
        let _ = writeln!(text, "{:<width$}  {:<operators$}  {bar} {}", short(&row.tensor), row.operator, label(row));
    }
    text
}

fn rows(difference: &Difference) -> impl Iterator<Item = &Agreement> + Clone {
    difference.layers.iter().chain(&difference.outputs)
}

fn most(difference: &Difference) -> f64 {
    rows(difference).filter_map(|row| row.sqnr_db).fold(USUAL_DB, f64::max)
}

/// How much of the scale a bar fills; equal tensors fill it.
fn share(row: &Agreement, most: f64) -> f64 {
    match row.sqnr_db {
        Some(db) => (db / most).clamp(0.0, 1.0),
        None if row.max_abs_difference == 0.0 => 1.0,
        None => 0.0,
    }
}

fn label(row: &Agreement) -> String {
    match row.sqnr_db {
        Some(db) => format!("{db:.1} dB"),
        None if row.max_abs_difference == 0.0 => "equal".to_owned(),
        None => "the reference is 0".to_owned(),
    }
}

/// The end of a long name says more than its beginning.
fn short(name: &str) -> String {
    let count = name.chars().count();
    if count <= 40 { name.to_owned() } else { format!("…{}", name.chars().skip(count - 39).collect::<String>()) }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The same as a picture of its own: one bar a row, dB on the axis, whole names in the titles.
#[must_use]
pub fn svg(difference: &Difference) -> String {
    const ROW: usize = 18;
    const LEFT: usize = 380;
    const WIDE: usize = 480;
    const TOP: usize = 56;
    let count = rows(difference).count();
    let (most, bottom) = (most(difference), TOP + count * ROW);
    let (height, width) = (bottom + 40, LEFT + WIDE + 110);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let Difference { reference, other, sample_count, .. } = difference;
    let _ = writeln!(
        text,
        "<text x=\"12\" y=\"22\" font-size=\"15\">{} against {}: signal to noise over {sample_count} samples</text>",
        escaped(&other.name),
        escaped(&reference.name)
    );
    let step = if most > 120.0 { 50.0 } else { 20.0 };
    for tick in 0..=(most / step) as usize {
        let x = LEFT as f64 + tick as f64 * step / most * WIDE as f64;
        let _ = writeln!(
            text,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{} dB</text>",
            TOP - 8,
            tick as f64 * step
        );
    }
    for (index, row) in rows(difference).enumerate() {
        let y = TOP + index * ROW;
        let colour = if index >= difference.layers.len() { "#b3541e" } else { "#2b6ca3" };
        let _ = writeln!(
            text,
            "<g><title>{} ({}): {}, largest difference {:.3e}</title>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text></g>",
            escaped(&row.tensor),
            escaped(&row.operator),
            label(row),
            row.max_abs_difference,
            LEFT - 8,
            y + 13,
            escaped(&format!("{} {}", short(&row.tensor), row.operator)),
            y + 2,
            share(row, most) * WIDE as f64,
            ROW - 4,
            LEFT as f64 + share(row, most) * WIDE as f64 + 6.0,
            y + 13,
            label(row)
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"12\" y=\"{}\">layers blue, outputs brown; samples: {}</text>\n</svg>",
        height - 14,
        escaped(&difference.samples)
    );
    text
}
