//! Percentiles as LoadGen picks them: the sample at ⌊n·p⌋ of the sorted series (`results.cc`), never interpolated, so
//! that every reported latency is one that was measured.

/// The method's name in records.
pub const METHOD: &str = "floor-index";

/// Where the percentile `p` (0 to 1) stands in `n` sorted samples.
///
/// # Panics
/// Never; with `n` 0 the answer is 0 and means nothing.
pub fn floor_index(n: usize, p: f64) -> usize {
    ((n as f64 * p) as usize).min(n.saturating_sub(1))
}

/// The percentile `p` of a sorted series; `None` if it is empty.
pub fn pick<T: Copy>(sorted: &[T], p: f64) -> Option<T> {
    sorted.get(floor_index(sorted.len(), p)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_index_of_loadgen() {
        let sorted: Vec<u32> = (0..100).collect();
        assert_eq!(pick(&sorted, 0.5), Some(50));
        assert_eq!(pick(&sorted, 0.9), Some(90));
        assert_eq!(pick(&sorted, 0.999), Some(99));
        assert_eq!(pick(&sorted, 1.0), Some(99));
        assert_eq!(pick(&[7], 0.9), Some(7));
        assert_eq!(pick::<u32>(&[], 0.9), None);
    }
}
