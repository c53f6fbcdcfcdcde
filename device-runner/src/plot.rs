//! Plots as SVG, drawn by hand: latencies over time, a histogram and power need no library.

use std::fmt::Write as _;

use edgeyard_measure::{Sample, pick};

use crate::table::duration;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 80.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 40.0;
/// More points than this cannot be told apart on the plot.
const MOST_POINTS: usize = 5000;
const BINS: usize = 80;

struct Frame {
    out: String,
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn new(
        title: &str,
        x: (f64, f64),
        y: (f64, f64),
        x_label: impl Fn(f64) -> String,
        y_label: impl Fn(f64) -> String,
    ) -> Self {
        let mut frame = Self { out: String::new(), x, y };
        let escaped = escaped(title);
        frame.draw(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{escaped}</text>\n"
        ));
        for tick in 0..=5 {
            let share = f64::from(tick) / 5.0;
            let (x, y) = (frame.x.0 + share * (frame.x.1 - frame.x.0), frame.y.0 + share * (frame.y.1 - frame.y.0));
            let (px, py) = (frame.px(x), frame.py(y));
            let (base, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
            frame.draw(format_args!(
                "<line x1=\"{LEFT}\" y1=\"{py:.1}\" x2=\"{right}\" y2=\"{py:.1}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
                 <text x=\"{px:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                LEFT - 6.0,
                py + 4.0,
                y_label(y),
                base + 18.0,
                x_label(x),
            ));
        }
        frame
    }

    fn draw(&mut self, what: std::fmt::Arguments) {
        self.out.write_fmt(what).expect("a string takes everything");
    }

    fn px(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0).max(1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn py(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (y - self.y.0) / (self.y.1 - self.y.0).max(1.0) * (HEIGHT - BOTTOM - TOP)
    }

    fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }
}

fn sorted(samples: &[Sample]) -> Vec<u64> {
    let mut durations: Vec<u64> = samples.iter().map(|sample| sample.duration).collect();
    durations.sort_unstable();
    durations
}

/// A variant on a plot.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// Its name.
    pub label: &'a str,
    /// Its samples, in the order they were made.
    pub samples: &'a [Sample],
    /// Its turns: when each began and ended.
    pub windows: &'a [(u64, u64)],
}

/// Colours that people with any colour vision can tell apart (Okabe and Ito 2008).
const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000"];

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

impl Frame {
    /// Shades the turns of the variants, and names these.
    fn turns(&mut self, traces: &[Trace]) {
        let mut x = WIDTH - RIGHT;
        for (index, Trace { label, windows, .. }) in traces.iter().enumerate().rev() {
            let colour = colour(index);
            for (start, end) in *windows {
                let (left, right) = (self.px(*start as f64), self.px(*end as f64));
                self.draw(format_args!(
                    "<rect class=\"window\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\" \
                     fill-opacity=\"0.1\"/>\n",
                    (right - left).max(0.2),
                    HEIGHT - BOTTOM - TOP
                ));
            }
            let label = escaped(label);
            self.draw(format_args!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{colour}\">{label}</text>\n",
                HEIGHT - 10.0
            ));
            // About as wide as a character of the font is.
            x -= 6.5 * label.chars().count() as f64 + 20.0;
        }
    }
}

/// The samples of all variants at the times they were made, with their turns; the slowest per mille lie on the upper edge.
/// Nothing without samples.
pub fn over_time(title: &str, traces: &[Trace]) -> String {
    let all: Vec<Sample> = traces.iter().flat_map(|trace| trace.samples).copied().collect();
    let durations = sorted(&all);
    let first = all.iter().map(|sample| sample.start).min();
    let last = all.iter().map(|sample| sample.start.saturating_add(sample.duration)).max();
    let (Some(first), Some(last)) = (first, last) else { return String::new() };
    let low = durations[0] as f64;
    let high = pick(&durations, 0.999).unwrap_or_default() as f64 * 1.05;
    let span = (first as f64, last as f64);
    let mut frame =
        Frame::new(title, span, (low * 0.95, high), |x| format!("{:.1} s", (x - span.0) / 1e9), |y| duration(y as u64));
    frame.turns(traces);
    for (index, trace) in traces.iter().enumerate() {
        let colour = colour(index);
        for sample in trace.samples.iter().step_by(trace.samples.len().div_ceil(MOST_POINTS).max(1)) {
            let (x, y) = (frame.px(sample.start as f64), frame.py((sample.duration as f64).min(high)));
            frame.draw(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1\" fill=\"{colour}\" fill-opacity=\"0.6\"/>\n"
            ));
        }
    }
    frame.finish()
}

/// Power at the times it was read, pairs of nanoseconds and microwatts, with the turns of the variants. Of readings that fall
/// on one column of the plot the lowest and the highest are drawn. Nothing without readings.
pub fn power(title: &str, readings: &[Sample], traces: &[Trace]) -> String {
    let (Some(first), Some(last)) = (readings.first(), readings.last()) else { return String::new() };
    let most = readings.iter().map(|reading| reading.duration).max().unwrap_or(1) as f64;
    let span = (first.start as f64, last.start as f64);
    let watts = |y: f64| format!("{:.3} W", y / 1e6);
    let mut frame = Frame::new(title, span, (0.0, most * 1.05), |x| format!("{:.1} s", (x - span.0) / 1e9), watts);
    frame.turns(traces);
    let mut points = String::new();
    for column in readings.chunks(readings.len().div_ceil(WIDTH as usize).max(1)) {
        let lowest = column.iter().min_by_key(|reading| reading.duration);
        let highest = column.iter().max_by_key(|reading| reading.duration);
        for reading in lowest.into_iter().chain(highest) {
            let (x, y) = (frame.px(reading.start as f64), frame.py(reading.duration as f64));
            points.push_str(&format!("{x:.1},{y:.1} "));
        }
    }
    frame.draw(format_args!("<polyline points=\"{}\" fill=\"none\" stroke=\"#333\"/>\n", points.trim_end()));
    frame.finish()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// How often each latency was measured, with the 50th and 90th percentile; the slowest per cent are in the last bar. Nothing
/// without samples.
pub fn histogram(title: &str, samples: &[Sample]) -> String {
    let durations = sorted(samples);
    let (Some(low), Some(high)) = (durations.first().copied(), pick(&durations, 0.99)) else { return String::new() };
    let width = ((high - low) as f64 / BINS as f64).max(1.0);
    let mut bins = vec![0_u64; BINS];
    for sample in &durations {
        bins[(((sample - low) as f64 / width) as usize).min(BINS - 1)] += 1;
    }
    let most = bins.iter().copied().max().unwrap_or(1) as f64;
    let span = (low as f64, low as f64 + width * BINS as f64);
    let mut frame = Frame::new(title, span, (0.0, most), |x| duration(x as u64), |y| format!("{y:.0}"));
    for (index, count) in bins.iter().enumerate() {
        let (x0, x1) = (frame.px(span.0 + width * index as f64), frame.px(span.0 + width * (index + 1) as f64));
        let y = frame.py(*count as f64);
        let height = HEIGHT - BOTTOM - y;
        frame.draw(format_args!(
            "<rect x=\"{x0:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#1f77b4\"/>\n",
            (x1 - x0 - 0.5).max(0.5)
        ));
    }
    for (name, p) in [("p50", 0.5), ("p90", 0.9)] {
        let value = pick(&durations, p).unwrap_or_default() as f64;
        let x = frame.px(value.min(span.1));
        let base = HEIGHT - BOTTOM;
        frame.draw(format_args!(
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{base}\" stroke=\"#d62728\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#d62728\">{name}</text>\n",
            x + 3.0,
            TOP + 10.0
        ));
    }
    frame.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_a_place() {
        let samples: Vec<Sample> = (0..100).map(|n| Sample { start: n * 1000, duration: 500 + n % 7 }).collect();
        let trace = |label, samples, windows| Trace { label, samples, windows };
        let traces = [trace("x", &samples[..50], &[(0, 50_500)]), trace("<y>", &samples[50..], &[(50_500, 99_000)])];
        let plot = over_time("a <b> & c", &traces);
        assert_eq!(plot.matches("<circle").count(), 100);
        assert_eq!(plot.matches("class=\"window\"").count(), 2);
        assert!(plot.contains("a &lt;b> &amp; c") && plot.contains("&lt;y>") && !plot.contains("NaN"));
        assert_eq!(over_time("none", &[]), "");
        let bars = histogram("h", &samples);
        assert_eq!(bars.matches("<rect").count(), BINS + 1);
        assert!(!bars.contains("NaN"));
        assert!(!histogram("constant", &[Sample { start: 0, duration: 5 }; 9]).contains("NaN"));
    }

    #[test]
    fn power_keeps_its_extremes() {
        let readings: Vec<Sample> = (0..9000)
            .map(|n| Sample { start: n * 1000, duration: if n == 4321 { 9_000_000 } else { 1_000_000 } })
            .collect();
        let plot = power("p", &readings, &[]);
        // 9 W of 9.45 W at the top.
        let top = TOP + (HEIGHT - BOTTOM - TOP) * 0.45 / 9.45;
        assert!(plot.contains(&format!(",{top:.1} ")), "the one reading of 9 W is drawn");
        assert!(plot.contains("9.450 W") && !plot.contains("NaN"));
        assert_eq!(power("p", &[], &[]), "");
    }
}
