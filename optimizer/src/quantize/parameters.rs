//! Scales and zero points.

use thiserror::Error;

use crate::calibrate::Range;
use crate::ir::Graph;

/// A constant that no integer stands for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("constant {tensor} holds a value that is not a number or infinite: the model is broken, export it again")]
pub struct WeightError {
    /// Which one.
    pub tensor: String,
}

/// Checks what operators compute with. Bounds, padding and masks may be infinite: only operators whose constants
/// become integers are looked at.
///
/// # Errors
/// [`WeightError`] with the first tensor that is not finite.
pub fn check_weights(graph: &Graph) -> Result<(), WeightError> {
    const COMPUTED_WITH: [&str; 10] =
        ["Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "BatchNormalization", "PRelu"];
    for node in graph.nodes.iter().filter(|node| COMPUTED_WITH.contains(&node.op_type.as_str())) {
        for name in &node.inputs {
            let data = graph.constant(name).and_then(|tensor| tensor.as_f32());
            if data.is_some_and(|data| data.iter().any(|value| !value.is_finite())) {
                return Err(WeightError { tensor: name.clone() });
            }
        }
    }
    Ok(())
}

/// The 8-bit type that activations are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 0 to 255.
    UInt8,
    /// -128 to 127.
    Int8,
}

impl Element {
    /// Smallest and largest value.
    pub fn limits(self) -> (i32, i32) {
        match self {
            Self::UInt8 => (0, 255),
            Self::Int8 => (-128, 127),
        }
    }
}

/// `real = scale * (stored - zero_point)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Asymmetric {
    /// The step between stored values.
    pub scale: f32,
    /// The stored value of 0.
    pub zero_point: i32,
    /// How values are stored.
    pub element: Element,
}

impl Asymmetric {
    /// Parameters that cover a range and represent 0 exactly: padding and ReLU depend on that.
    pub fn cover(range: Range, element: Element) -> Self {
        let (min, max) = (f64::from(range.min.min(0.0)), f64::from(range.max.max(0.0)));
        let (low, high) = element.limits();
        let span = max - min;
        if span < f64::from(f32::MIN_POSITIVE) * 256.0 {
            return Self { scale: 1.0, zero_point: low, element };
        }
        let scale = span / f64::from(high - low);
        let zero_point = (f64::from(low) - min / scale).round().clamp(f64::from(low), f64::from(high)) as i32;
        Self { scale: scale as f32, zero_point, element }
    }

    /// Parameters that cover a range with zero in the middle: the zero point is 0, or 128 for unsigned integers.
    pub fn symmetric(range: Range, element: Element) -> Self {
        let peak = range.max.max(-range.min);
        let zero_point = match element {
            Element::UInt8 => 128,
            Element::Int8 => 0,
        };
        let scale = if peak > f32::MIN_POSITIVE * 256.0 { peak / 127.0 } else { 1.0 };
        Self { scale, zero_point, element }
    }

    /// The real values of the smallest and the largest stored one.
    pub fn range(&self) -> Range {
        let (low, high) = self.element.limits();
        let real = |stored: i32| (stored - self.zero_point) as f32 * self.scale;
        Range { min: real(low), max: real(high) }
    }
}

/// Symmetric 8-bit weights: one scale for each channel of `axis`, or one in all. Values lie in -127 to 127, so that the
/// negative of every value exists, as runtimes demand.
pub fn quantize_weights(weights: &[f32], dims: &[usize], axis: Option<usize>) -> (Vec<i8>, Vec<f32>) {
    let (channels, inner) = match axis {
        Some(axis) => (dims[axis], dims[axis + 1..].iter().product::<usize>().max(1)),
        None => (1, weights.len().max(1)),
    };
    let channel = |position: usize| position / inner % channels.max(1);
    let mut peaks = vec![0f32; channels];
    for (position, value) in weights.iter().enumerate() {
        let peak = &mut peaks[channel(position)];
        *peak = peak.max(value.abs());
    }
    let scales: Vec<f32> =
        peaks.iter().map(|peak| if *peak > f32::MIN_POSITIVE * 256.0 { peak / 127.0 } else { 1.0 }).collect();
    let stored = weights
        .iter()
        .enumerate()
        .map(|(position, value)| (value / scales[channel(position)]).round().clamp(-127.0, 127.0) as i8)
        .collect();
    (stored, scales)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_the_range_is_covered() {
        for (min, max) in [(-1.0, 3.0), (0.0, 6.0), (0.5, 6.0), (-4.0, -1.0), (-1e-3, 1e-6)] {
            for element in [Element::UInt8, Element::Int8] {
                let parameters = Asymmetric::cover(Range { min, max }, element);
                let (low, high) = element.limits();
                assert!((low..=high).contains(&parameters.zero_point));
                let range = parameters.range();
                let slack = parameters.scale * 0.51;
                assert!(range.min <= min.min(0.0) + slack && range.max >= max.max(0.0) - slack, "{parameters:?}");
            }
        }
    }

    #[test]
    fn symmetric_parameters_have_zero_in_the_middle() {
        for (min, max) in [(-1.0, 3.0), (0.0, 6.0), (-4.0, -1.0), (0.0, 0.0)] {
            let parameters = Asymmetric::symmetric(Range { min, max }, Element::Int8);
            assert_eq!(parameters.zero_point, 0);
            let range = parameters.range();
            assert!(range.min <= min && range.max >= max * 0.999_999, "{parameters:?}");
        }
        assert_eq!(Asymmetric::symmetric(Range { min: -1.0, max: 1.0 }, Element::UInt8).zero_point, 128);
    }

    #[test]
    fn a_tensor_that_is_always_zero_gets_usable_parameters() {
        let parameters = Asymmetric::cover(Range { min: 0.0, max: 0.0 }, Element::UInt8);
        assert_eq!((parameters.scale, parameters.zero_point), (1.0, 0));
    }

    #[test]
    fn channels_have_their_own_scales_along_any_axis() {
        let weights = [1.0, 10.0, -0.5, 5.0, 0.25, 2.5];
        let (stored, scales) = quantize_weights(&weights, &[3, 2], Some(1));
        assert_eq!(scales, [1.0 / 127.0, 10.0 / 127.0]);
        assert_eq!(stored, [127, 127, -64, 64, 32, 32]);
        let (stored, scales) = quantize_weights(&weights, &[3, 2], Some(0));
        assert_eq!(scales, [10.0 / 127.0, 5.0 / 127.0, 2.5 / 127.0]);
        assert_eq!(stored, [13, 127, -13, 127, 13, 127]);
        let (_, scales) = quantize_weights(&[0.0, 0.0], &[2], None);
        assert_eq!(scales, [1.0]);
    }
}
