//! What goes into models and comes out: element types, shapes, quantisation, and the bytes that a data set's samples
//! become for one model.

use edgeyard_measure::random::Random;
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// Types of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Element {
    /// IEEE 754, 32 bits.
    F32,
    /// IEEE 754, 64 bits.
    F64,
    /// IEEE 754, 16 bits.
    F16,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// One byte.
    Bool,
}

impl Element {
    /// Bytes of one.
    pub const fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// NumPy's description.
    pub const fn descr(self) -> &'static str {
        match self {
            Self::F32 => "<f4",
            Self::F64 => "<f8",
            Self::F16 => "<f2",
            Self::I8 => "|i1",
            Self::U8 => "|u1",
            Self::I16 => "<i2",
            Self::I32 => "<i4",
            Self::I64 => "<i8",
            Self::Bool => "|b1",
        }
    }

    /// The inverse of [`Element::descr`]; `None` for what no model takes.
    pub fn from_descr(descr: &str) -> Option<Self> {
        const ALL: [Element; 9] = [
            Element::F32,
            Element::F64,
            Element::F16,
            Element::I8,
            Element::U8,
            Element::I16,
            Element::I32,
            Element::I64,
            Element::Bool,
        ];
        let (order, kind) = descr.split_at_checked(1)?;
        ALL.into_iter().find(|element| order != ">" && &element.descr()[1..] == kind)
    }

    /// The number at the beginning of `bytes`.
    pub fn read(self, bytes: &[u8]) -> f64 {
        fn take<const N: usize>(bytes: &[u8]) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&bytes[..N]);
            out
        }
        match self {
            Self::F32 => f64::from(f32::from_le_bytes(take(bytes))),
            Self::F64 => f64::from_le_bytes(take(bytes)),
            Self::F16 => half_to_f64(u16::from_le_bytes(take(bytes))),
            Self::I8 => f64::from(bytes[0] as i8),
            Self::U8 | Self::Bool => f64::from(bytes[0]),
            Self::I16 => f64::from(i16::from_le_bytes(take(bytes))),
            Self::I32 => f64::from(i32::from_le_bytes(take(bytes))),
            Self::I64 => i64::from_le_bytes(take(bytes)) as f64,
        }
    }

    /// Appends a number, rounded and saturated as the type needs.
    pub fn write(self, value: f64, out: &mut Vec<u8>) {
        match self {
            Self::F32 => out.extend((value as f32).to_le_bytes()),
            Self::F64 => out.extend(value.to_le_bytes()),
            Self::F16 => out.extend(f64_to_half(value).to_le_bytes()),
            Self::I8 => out.push(value.round() as i8 as u8),
            Self::U8 => out.push(value.round() as u8),
            Self::I16 => out.extend((value.round() as i16).to_le_bytes()),
            Self::I32 => out.extend((value.round() as i32).to_le_bytes()),
            Self::I64 => out.extend((value.round() as i64).to_le_bytes()),
            Self::Bool => out.push(u8::from(value != 0.0)),
        }
    }

    const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }
}

fn half_to_f64(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2.0_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2.0_f64.powi(exponent - 15),
    }
}

fn f64_to_half(value: f64) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let size = value.abs();
    if size.is_nan() {
        return sign | 0x7e00;
    }
    if size >= 65520.0 {
        return sign | 0x7c00;
    }
    let exponent = if size < 2.0_f64.powi(-14) { -14 } else { size.log2().floor() as i32 };
    // Ties go to even; a carry out of the fraction lands in the exponent, as it must.
    let steps = (size * 2.0_f64.powi(10 - exponent)).round_ties_even() as u16;
    if steps < 1024 { sign | steps } else { sign | (((exponent + 15) as u16) << 10).wrapping_add(steps - 1024) }
}

/// A model's input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TensorInfo {
    /// Its name in the model.
    pub name: String,
    /// Its elements.
    pub element: Element,
    /// Its shape; dimensions that the model leaves open are 1.
    pub shape: Vec<usize>,
    /// What one step of a quantised element is worth.
    pub scale: Option<f32>,
    /// The quantised element that means zero.
    pub zero_point: Option<i64>,
}

impl TensorInfo {
    /// Elements in it.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in it.
    pub fn bytes(&self) -> usize {
        self.len() * self.element.size()
    }
}

/// An array of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its elements.
    pub element: Element,
    /// Its shape; the first dimension counts samples.
    pub shape: Vec<usize>,
    /// Its elements, little-endian, row by row.
    pub data: Vec<u8>,
}

impl Array {
    /// Samples in it.
    pub fn count(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// Bytes of one sample.
    pub fn sample_bytes(&self) -> usize {
        self.shape.iter().skip(1).product::<usize>() * self.element.size()
    }

    /// One sample's bytes.
    pub fn sample(&self, index: usize) -> &[u8] {
        let size = self.sample_bytes();
        &self.data[index * size..(index + 1) * size]
    }
}

/// How a data set's samples become a model's input.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    input: TensorInfo,
    element: Element,
    /// Samples that one inference takes.
    pub batch: usize,
    /// Where each element of a sample comes from; `None` if in order.
    order: Option<Vec<usize>>,
}

impl Fit {
    /// Matches samples with an input.
    ///
    /// A sample fits if its shape is the input's without the batch dimension, if it is apart from dimensions of 1, or if it
    /// is channels-first where the input is channels-last. Floating point samples are quantised with the input's scale and
    /// zero point; samples of the input's own type are taken as they are.
    ///
    /// # Errors
    /// `DatasetDoesNotFit` with both shapes.
    pub fn new(data: &Array, input: &TensorInfo) -> Result<Self, Failure> {
        let sample = &data.shape[1.min(data.shape.len())..];
        let refused = |why: &str| {
            Failure::bad_input(
                "DatasetDoesNotFit",
                format!(
                    "samples have shape {sample:?} of {:?}, the model's input {:?} has shape {:?} of {:?}: {why}",
                    data.element, input.name, input.shape, input.element
                ),
            )
        };
        if input.shape.is_empty() {
            return Err(refused("a scalar input takes no samples"));
        }
        let (batch, rest) = (input.shape[0], &input.shape[1..]);
        let solid = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
        let order = if sample == rest || solid(sample) == solid(rest) {
            None
        } else if let (&[c, h, w], &[rows, columns, channels]) = (sample, rest)
            && (h, w, c) == (rows, columns, channels)
        {
            Some((0..h * w).flat_map(|at| (0..c).map(move |channel| channel * h * w + at)).collect())
        } else {
            return Err(refused("make a data set in the model's shape"));
        };
        if !data.element.is_float() && data.element != input.element && !input.element.is_float() {
            return Err(refused("give samples in floating point or in the input's own type"));
        }
        if data.element.is_float()
            && !input.element.is_float()
            && input.scale.is_none()
            && input.element != Element::Bool
        {
            return Err(refused("the input has no scale to quantise with: give samples in the input's own type"));
        }
        Ok(Self { input: input.clone(), element: data.element, batch, order })
    }

    /// Appends one sample in the form that the model takes.
    pub fn convert(&self, sample: &[u8], out: &mut Vec<u8>) {
        let Self { input, element, batch: _, order } = self;
        if element == &input.element && order.is_none() {
            out.extend_from_slice(sample);
            return;
        }
        let size = element.size();
        let count = sample.len() / size;
        for index in 0..count {
            let at = order.as_ref().map_or(index, |order| order[index]) * size;
            let value = element.read(&sample[at..]);
            let value = match (element.is_float(), input.element.is_float(), input.scale) {
                // In f32, as TensorFlow Lite's own quantise operator computes.
                (true, false, Some(scale)) => {
                    f64::from((value as f32 / scale).round()) + input.zero_point.unwrap_or(0) as f64
                }
                _ => value,
            };
            input.element.write(value, out);
        }
    }
}

/// Inputs made up from a seed, all inputs of the model one after the other: floating point from 0 to 1, quantised
/// integers over their whole range, other integers 0 or 1.
pub fn generate(inputs: &[TensorInfo], generator: &mut Random) -> Vec<u8> {
    let mut out = Vec::with_capacity(inputs.iter().map(TensorInfo::bytes).sum());
    for input in inputs {
        for _ in 0..input.len() {
            let unit = generator.unit();
            let value = match input.element {
                Element::F16 | Element::F32 | Element::F64 => unit,
                Element::I8 => (unit * 256.0).floor() - 128.0,
                Element::U8 => (unit * 256.0).floor(),
                Element::I16 | Element::I32 | Element::I64 | Element::Bool => (unit * 2.0).floor(),
            };
            input.element.write(value, &mut out);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(element: Element, shape: &[usize]) -> TensorInfo {
        TensorInfo { name: "x".into(), element, shape: shape.into(), scale: None, zero_point: None }
    }

    fn floats(shape: &[usize], values: &[f32]) -> Array {
        Array {
            element: Element::F32,
            shape: shape.into(),
            data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    #[test]
    fn halves_round_to_even_and_back() {
        for (value, bits) in
            [(1.0, 0x3c00), (-2.0, 0xc000), (65504.0, 0x7bff), (5.960_464_477_539_063e-8, 1), (0.1, 0x2e66)]
        {
            assert_eq!(f64_to_half(value), bits, "{value}");
        }
        for bits in (0..0x7c00).step_by(7) {
            assert_eq!(f64_to_half(half_to_f64(bits)), bits);
        }
        assert_eq!(f64_to_half(70000.0), 0x7c00);
        assert_eq!(f64_to_half(1.0 - 2.0_f64.powi(-13)), 0x3c00);
    }

    #[test]
    fn floats_are_quantised_and_saturate() {
        let quantised = TensorInfo { scale: Some(0.5), zero_point: Some(-128), ..input(Element::I8, &[1, 4]) };
        let data = floats(&[1, 4], &[0.0, 0.25, 10.0, 1000.0]);
        let fit = Fit::new(&data, &quantised).unwrap();
        let mut out = Vec::new();
        fit.convert(data.sample(0), &mut out);
        assert_eq!(out.iter().map(|b| *b as i8).collect::<Vec<_>>(), [-128, -127, -108, 127]);
    }

    #[test]
    fn channels_first_becomes_channels_last() {
        let data = floats(&[1, 2, 1, 3], &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
        let fit = Fit::new(&data, &input(Element::F32, &[1, 1, 3, 2])).unwrap();
        let mut out = Vec::new();
        fit.convert(data.sample(0), &mut out);
        let read: Vec<f64> = out.chunks(4).map(|b| Element::F32.read(b)).collect();
        assert_eq!(read, [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_shapes() {
        let error = Fit::new(&floats(&[1, 4], &[0.0; 4]), &input(Element::F32, &[1, 5])).unwrap_err();
        assert_eq!(error.reason, "DatasetDoesNotFit");
        assert!(error.message.contains("[4]") && error.message.contains("[1, 5]"), "{error}");
        let unscaled = Fit::new(&floats(&[1, 4], &[0.0; 4]), &input(Element::I8, &[1, 4]));
        assert!(unscaled.unwrap_err().message.contains("no scale"));
    }

    #[test]
    fn generated_inputs_are_the_same_for_ever() {
        let made = generate(&[input(Element::I8, &[4])], &mut Random::new(42));
        // SplitMix64 with seed 42 begins 0xbdd732262feb6e95, 0x28efe333b266f103, …
        assert_eq!(made[..2], [0xbd ^ 0x80, 0x28 ^ 0x80]);
    }
}
