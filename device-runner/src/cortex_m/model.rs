//! What the firmware says of a loaded model.

use super::CortexMError;
use super::frame::Fields;

/// Element type of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// Quantised.
    Int8,
    /// Plain 32-bit integers.
    Int32,
    /// Floats, before QUANTIZE or after DEQUANTIZE.
    Float32,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, the batch included.
    pub shape: Vec<usize>,
    /// Real value of one step; 0 if not quantised.
    pub scale: f32,
    /// Value that stands for zero.
    pub zero_point: i32,
    /// Bytes of its data.
    pub bytes: usize,
}

/// A loaded model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// In the order in which their bytes follow one another.
    pub inputs: Vec<TensorInfo>,
    /// As [`ModelInfo::inputs`].
    pub outputs: Vec<TensorInfo>,
    /// Bytes of the arena: tensors at their peak, working memory, tables.
    pub arena_bytes: u64,
    /// Names of the operators, in the order in which they run.
    pub ops: Vec<String>,
}

impl ModelInfo {
    pub(super) fn decode(payload: &[u8]) -> Result<Self, CortexMError> {
        let mut f = Fields(payload);
        let arena_bytes = u64::from(f.u32()?) + u64::from(f.u32()?);
        let (inputs, outputs) = (f.u32()?, f.u32()?);
        let inputs = (0..inputs).map(|_| tensor(&mut f)).collect::<Result<_, _>>()?;
        let outputs = (0..outputs).map(|_| tensor(&mut f)).collect::<Result<_, _>>()?;
        let ops = (0..f.u32()?).map(|_| f.text()).collect::<Result<_, _>>()?;
        Ok(ModelInfo { inputs, outputs, arena_bytes, ops })
    }

    /// Bytes of all inputs together.
    pub fn input_bytes(&self) -> usize {
        self.inputs.iter().map(|t| t.bytes).sum()
    }
}

fn tensor(f: &mut Fields<'_>) -> Result<TensorInfo, CortexMError> {
    let name = f.text()?;
    let dtype = match f.u32()? {
        9 => DType::Int8,
        2 => DType::Int32,
        0 => DType::Float32,
        _ => return Err(CortexMError::Protocol("an unknown element type")),
    };
    let scale = f32::from_bits(f.u32()?);
    let zero_point = f.u32()? as i32;
    let bytes = f.u32()? as usize;
    let shape = (0..f.u32()?).map(|_| f.u32().map(|d| d as usize)).collect::<Result<_, _>>()?;
    Ok(TensorInfo { name, dtype, shape, scale, zero_point, bytes })
}
