//! One pass over a tensor: its extremes, whether all of it is finite, and the values that a histogram will count, taken
//! while they are in the cache.

use super::Range;
use super::feed::Batch;

/// Floats that stay in the first cache while they are looked at twice.
const BLOCK: usize = 1 << 12;
/// Separate lanes let the compiler use vector registers.
const LANES: usize = 16;

/// What one sample showed of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub tensor: String,
    /// `None` when a value is not finite.
    pub range: Option<Range>,
    /// Some of the values, evenly spread.
    pub picked: Vec<f32>,
}

/// Looks at samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Values of a sample that are picked, at most.
    pub most: usize,
}

impl Look {
    /// What each sample of a batch shows of a tensor that has so many rows.
    pub fn at(self, tensor: &str, values: &[f32], rows: usize, batch: &Batch<'_>) -> impl Iterator<Item = Seen> {
        // A fixed batch larger than what is left holds the last sample more than once: it counts once.
        let samples = values.chunks_exact((values.len() / rows).max(1)).take(batch.count.min(rows));
        samples.enumerate().map(move |(row, values)| {
            let (range, picked) = self.scan(values, batch.first + row);
            Seen { tensor: tensor.to_owned(), range, picked }
        })
    }

    fn scan(self, values: &[f32], sample: usize) -> (Option<Range>, Vec<f32>) {
        // An odd stride meets every channel and column of tensors whose sizes are powers of two; another first value
        // each time meets all positions in turn.
        let stride = if values.len() <= self.most { 1 } else { values.len().div_ceil(self.most.max(1)) | 1 };
        let mut next = if self.most == 0 { values.len() } else { sample % stride };
        let mut picked = Vec::with_capacity(self.most.min(values.len()));
        let mut extremes = Extremes::default();
        for (at, block) in values.chunks(BLOCK).enumerate() {
            extremes.add(block);
            while let Some(value) = block.get(next - at * BLOCK) {
                picked.push(*value);
                next += stride;
            }
        }
        (extremes.range(), picked)
    }
}

/// Smallest and largest; `None` without values or with one that is not finite.
#[cfg(test)]
pub(super) fn range(values: &[f32]) -> Option<Range> {
    Look { most: 0 }.scan(values, 0).0
}

#[derive(Clone, Copy)]
struct Extremes {
    low: [f32; LANES],
    high: [f32; LANES],
    /// Zero while all is finite: a comparison passes over what is not a number, a sum keeps it.
    nothing: [f32; LANES],
}

impl Default for Extremes {
    fn default() -> Self {
        Self { low: [f32::INFINITY; LANES], high: [f32::NEG_INFINITY; LANES], nothing: [0.0; LANES] }
    }
}

impl Extremes {
    fn add(&mut self, values: &[f32]) {
        let (chunks, rest) = values.as_chunks::<LANES>();
        let Self { mut low, mut high, mut nothing } = *self;
        let mut look = |lane: usize, value: f32| {
            // As comparisons these are one instruction each; `f32::min` takes several, to pass over NaN on either side.
            low[lane] = if value < low[lane] { value } else { low[lane] };
            high[lane] = if value > high[lane] { value } else { high[lane] };
            nothing[lane] += value * 0.0;
        };
        for chunk in chunks {
            for (lane, value) in chunk.iter().enumerate() {
                look(lane, *value);
            }
        }
        for (lane, value) in rest.iter().enumerate() {
            look(lane, *value);
        }
        *self = Self { low, high, nothing };
    }

    fn range(&self) -> Option<Range> {
        let min = self.low.into_iter().fold(f32::INFINITY, f32::min);
        let max = self.high.into_iter().fold(f32::NEG_INFINITY, f32::max);
        (self.nothing.iter().sum::<f32>() == 0.0 && min <= max).then_some(Range { min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_that_of_all_values_and_nonsense_is_noticed() {
        // Several blocks, and a rest that fills no lanes.
        for len in [100, 3 * BLOCK + 7] {
            let mut values: Vec<f32> = (0..len).map(|i| (i as f32 - 30.0) / 7.0).collect();
            assert_eq!(range(&values), Some(Range { min: -30.0 / 7.0, max: (len as f32 - 31.0) / 7.0 }));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [5, len - 1] {
                    let good = std::mem::replace(&mut values[at], bad);
                    assert_eq!(range(&values), None);
                    values[at] = good;
                }
            }
        }
        assert_eq!(range(&[]), None);
    }

    #[test]
    fn picked_values_are_evenly_spread_and_move_on_from_sample_to_sample() {
        let values: Vec<f32> = (0..2 * BLOCK + 100).map(|i| i as f32).collect();
        let look = Look { most: 1000 };
        let (first, second) = (look.scan(&values, 0).1, look.scan(&values, 1).1);
        assert!(first.len() <= 1000 && first.len() > 900, "{}", first.len());
        assert!(first.windows(2).all(|pair| pair[1] - pair[0] == 9.0) && first[0] == 0.0);
        assert!(second.windows(2).all(|pair| pair[1] - pair[0] == 9.0) && second[0] == 1.0);
        assert_eq!(Look { most: values.len() }.scan(&values, 3).1, values);
        assert!(Look { most: 0 }.scan(&values, 3).1.is_empty());
    }

    #[test]
    fn rows_that_fill_up_a_batch_are_not_seen() {
        let values = [1.0, 2.0, 3.0, 4.0, 9.0, 9.0];
        let batch = Batch { values: &[], shape: &[3], count: 2, first: 0 };
        let seen: Vec<Seen> = Look { most: 0 }.at("t", &values, 3, &batch).collect();
        let range = |min: f32, max: f32| Some(Range { min, max });
        assert_eq!(seen.iter().map(|seen| seen.range).collect::<Vec<_>>(), [range(1.0, 2.0), range(3.0, 4.0)]);
    }
}
