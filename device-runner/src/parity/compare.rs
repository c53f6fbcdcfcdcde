//! Two runs' outputs, element by element. Pure.

use serde::Serialize;

use crate::cortex_m::{DType, TensorInfo};

/// How outputs differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Whether every byte is the same.
    pub equal: bool,
    /// The largest distance of two elements: steps of integers, plain numbers of floats.
    #[serde(serialize_with = "plain")]
    pub max_abs_difference: f64,
    /// Elements that differ, or that one side lacks.
    pub mismatches: u64,
    /// Elements of all inferences.
    pub elements: u64,
    /// The first element that differs.
    #[serde(rename = "firstMismatch")]
    pub first: Option<Mismatch>,
}

/// An element that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mismatch {
    /// Number of the input.
    pub input: usize,
    /// Number of the output tensor.
    pub output: usize,
    /// Number of the element in it.
    pub element: usize,
    /// What the device computed.
    pub got: f64,
    /// What the oracle computed.
    pub want: f64,
}

/// Compares the bytes of all outputs, inference after inference.
pub fn compare(outputs: &[TensorInfo], got: &[u8], want: &[u8]) -> Difference {
    let mut difference =
        Difference { equal: got == want, max_abs_difference: 0.0, mismatches: 0, elements: 0, first: None };
    let (mut at, end) = (0, got.len().max(want.len()));
    let mut input = 0;
    while at < end {
        let before = at;
        for (output, tensor) in outputs.iter().enumerate() {
            let size = if tensor.dtype == DType::Int8 { 1 } else { 4 };
            for element in 0..tensor.bytes / size {
                let pick = |bytes: &[u8]| bytes.get(at..at + size).map(<[u8]>::to_vec);
                let (g, w) = (pick(got), pick(want));
                at += size;
                difference.elements += 1;
                if g == w {
                    continue;
                }
                difference.mismatches += 1;
                if let (Some(g), Some(w)) = (g, w) {
                    let (got, want) = (value(tensor.dtype, &g), value(tensor.dtype, &w));
                    difference.max_abs_difference = difference.max_abs_difference.max((got - want).abs());
                    difference.first.get_or_insert(Mismatch { input, output, element, got, want });
                }
            }
        }
        input += 1;
        if at == before {
            // Outputs of no size cannot account for bytes.
            difference.mismatches += 1;
            break;
        }
    }
    difference
}

fn value(dtype: DType, bytes: &[u8]) -> f64 {
    match (dtype, bytes) {
        (DType::Int8, [byte]) => f64::from(*byte as i8),
        (DType::Int32, &[a, b, c, d]) => f64::from(i32::from_le_bytes([a, b, c, d])),
        (DType::Float32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        _ => f64::NAN,
    }
}

/// Whole numbers without a fraction, as integers' steps are.
fn plain<S: serde::Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
    if number.fract() == 0.0 && *number < 9e15 { to.serialize_u64(*number as u64) } else { to.serialize_f64(*number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: DType, bytes: usize) -> TensorInfo {
        TensorInfo { name: "y".into(), dtype, shape: vec![bytes], scale: 1.0, zero_point: 0, bytes }
    }

    #[test]
    fn equal_bytes_are_equal() {
        let outputs = [tensor(DType::Int8, 2), tensor(DType::Float32, 4)];
        let bytes: Vec<u8> = (0..12).collect();
        let same = compare(&outputs, &bytes, &bytes);
        let want = Difference { equal: true, max_abs_difference: 0.0, mismatches: 0, elements: 6, first: None };
        assert_eq!(same, want);
        assert_eq!(serde_json::to_value(&same).unwrap()["maxAbsDifference"], 0);
    }

    #[test]
    fn the_largest_distance_and_the_first_place_are_told() {
        let outputs = [tensor(DType::Int8, 2), tensor(DType::Int8, 1)];
        let (got, want) = ([1, 2, 3, 4, 0x80, 6], [1, 2, 5, 4, 0x7f, 6]);
        let difference = compare(&outputs, &got, &want);
        assert_eq!((difference.equal, difference.mismatches, difference.elements), (false, 2, 6));
        assert_eq!(difference.max_abs_difference, 255.0);
        assert_eq!(difference.first, Some(Mismatch { input: 0, output: 1, element: 0, got: 3.0, want: 5.0 }));
    }

    #[test]
    fn what_one_side_lacks_differs() {
        let outputs = [tensor(DType::Int8, 2)];
        let difference = compare(&outputs, &[1, 2, 3, 4], &[1, 2]);
        assert_eq!((difference.equal, difference.mismatches), (false, 2));
        assert!(!compare(&[], &[1], &[]).equal);
    }

    #[test]
    fn floats_are_compared_by_their_bits() {
        let outputs = [tensor(DType::Float32, 4)];
        let difference = compare(&outputs, &0.0_f32.to_le_bytes(), &(-0.0_f32).to_le_bytes());
        assert_eq!((difference.equal, difference.mismatches, difference.max_abs_difference), (false, 1, 0.0));
    }
}
