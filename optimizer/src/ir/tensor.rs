//! Constant tensors of a graph, typed, with their element types' ONNX numbers.

use half::f16;

/// Element types, with ONNX's numbers (`TensorProto.DataType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum DataType {
    /// Not said.
    Undefined = 0,
    /// 32-bit float.
    F32 = 1,
    /// Unsigned 8-bit integer.
    U8 = 2,
    /// 8-bit integer.
    I8 = 3,
    /// Unsigned 16-bit integer.
    U16 = 4,
    /// 16-bit integer.
    I16 = 5,
    /// 32-bit integer.
    I32 = 6,
    /// 64-bit integer.
    I64 = 7,
    /// Text.
    String = 8,
    /// Truth value, one byte.
    Bool = 9,
    /// IEEE half.
    F16 = 10,
    /// 64-bit float.
    F64 = 11,
    /// Any other: kept, not understood.
    Other = -1,
}

impl DataType {
    /// From ONNX's number.
    pub fn from_onnx(number: i64) -> Self {
        match number {
            0 => Self::Undefined,
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            6 => Self::I32,
            7 => Self::I64,
            8 => Self::String,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            _ => Self::Other,
        }
    }

    /// ONNX's number.
    pub fn onnx(self) -> i64 {
        self as i64
    }

    /// Bytes of one element, for types of fixed size.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 | Self::F16 => Some(2),
            Self::F32 | Self::I32 => Some(4),
            Self::I64 | Self::F64 => Some(8),
            Self::Undefined | Self::String | Self::Other => None,
        }
    }
}

impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Undefined => "undefined",
            Self::F32 => "float32",
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::String => "string",
            Self::Bool => "bool",
            Self::F16 => "float16",
            Self::F64 => "float64",
            Self::Other => "another type",
        })
    }
}

/// A tensor's elements, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// IEEE halves, as bits.
    F16(Vec<u16>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// 64-bit integers.
    I64(Vec<i64>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// 16-bit integers.
    I16(Vec<i16>),
    /// Unsigned 16-bit integers.
    U16(Vec<u16>),
    /// 8-bit integers.
    I8(Vec<i8>),
    /// Unsigned 8-bit integers.
    U8(Vec<u8>),
    /// Truth values.
    Bool(Vec<bool>),
    /// A type that passes do not understand: the whole `TensorProto`, kept to be written back.
    Opaque(Vec<u8>),
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The shape; empty for a scalar.
    pub dims: Vec<usize>,
    /// The elements.
    pub data: TensorData,
}

impl Tensor {
    /// A float32 tensor.
    pub fn f32(dims: &[usize], data: Vec<f32>) -> Self {
        Self { dims: dims.to_vec(), data: TensorData::F32(data) }
    }

    /// An int64 tensor.
    pub fn i64(dims: &[usize], data: Vec<i64>) -> Self {
        Self { dims: dims.to_vec(), data: TensorData::I64(data) }
    }

    /// The number of elements its shape says.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> DataType {
        match &self.data {
            TensorData::F32(_) => DataType::F32,
            TensorData::F16(_) => DataType::F16,
            TensorData::F64(_) => DataType::F64,
            TensorData::I64(_) => DataType::I64,
            TensorData::I32(_) => DataType::I32,
            TensorData::I16(_) => DataType::I16,
            TensorData::U16(_) => DataType::U16,
            TensorData::I8(_) => DataType::I8,
            TensorData::U8(_) => DataType::U8,
            TensorData::Bool(_) => DataType::Bool,
            TensorData::Opaque(_) => DataType::Other,
        }
    }

    /// The elements, when they are float32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            TensorData::F32(data) => Some(data),
            _ => None,
        }
    }

    /// The elements as float32, from any float type.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        match &self.data {
            TensorData::F32(data) => Some(data.clone()),
            TensorData::F16(data) => Some(data.iter().map(|bits| f16::from_bits(*bits).to_f32()).collect()),
            TensorData::F64(data) => Some(data.iter().map(|value| *value as f32).collect()),
            _ => None,
        }
    }

    /// The elements as 64-bit integers, from any integer type.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        Some(match &self.data {
            TensorData::I64(data) => data.clone(),
            TensorData::I32(data) => data.iter().map(|value| i64::from(*value)).collect(),
            TensorData::I16(data) => data.iter().map(|value| i64::from(*value)).collect(),
            TensorData::U16(data) => data.iter().map(|value| i64::from(*value)).collect(),
            TensorData::I8(data) => data.iter().map(|value| i64::from(*value)).collect(),
            TensorData::U8(data) => data.iter().map(|value| i64::from(*value)).collect(),
            TensorData::Bool(data) => data.iter().map(|value| i64::from(*value)).collect(),
            _ => return None,
        })
    }

    /// The elements as little-endian bytes, as `raw_data` holds them; `None` for opaque ones.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        if let TensorData::Opaque(_) = self.data {
            return None;
        }
        let mut out = Vec::with_capacity(self.byte_len());
        self.put_bytes(&mut out);
        Some(out)
    }

    /// How many bytes [`Tensor::put_bytes`] appends.
    pub(super) fn byte_len(&self) -> usize {
        let elements = match &self.data {
            TensorData::F32(data) => data.len(),
            TensorData::F64(data) => data.len(),
            TensorData::I64(data) => data.len(),
            TensorData::I32(data) => data.len(),
            TensorData::I16(data) => data.len(),
            TensorData::F16(data) | TensorData::U16(data) => data.len(),
            TensorData::I8(data) => data.len(),
            TensorData::U8(data) => data.len(),
            TensorData::Bool(data) => data.len(),
            TensorData::Opaque(_) => 0,
        };
        elements * self.dtype().size().unwrap_or(0)
    }

    /// Appends the elements as little-endian bytes; of opaque ones nothing.
    pub(super) fn put_bytes(&self, out: &mut Vec<u8>) {
        match &self.data {
            TensorData::F32(data) => words(data, |value| value.to_le_bytes(), out),
            TensorData::F64(data) => words(data, |value| value.to_le_bytes(), out),
            TensorData::I64(data) => words(data, |value| value.to_le_bytes(), out),
            TensorData::I32(data) => words(data, |value| value.to_le_bytes(), out),
            TensorData::I16(data) => words(data, |value| value.to_le_bytes(), out),
            TensorData::F16(data) | TensorData::U16(data) => words(data, |value| value.to_le_bytes(), out),
            TensorData::I8(data) => words(data, |value| value.to_le_bytes(), out),
            TensorData::U8(data) => out.extend_from_slice(data),
            TensorData::Bool(data) => words(data, |value| [u8::from(value)], out),
            TensorData::Opaque(_) => {}
        }
    }

    /// From little-endian bytes; `None` when the length does not fit or the type has no fixed size.
    pub fn from_bytes(dims: Vec<usize>, dtype: DataType, bytes: &[u8]) -> Option<Self> {
        let len = dims.iter().try_fold(1usize, |len, dim| len.checked_mul(*dim))?;
        if len.checked_mul(dtype.size()?)? != bytes.len() {
            return None;
        }
        macro_rules! words {
            ($variant:ident, $type:ty) => {
                TensorData::$variant(bytes.as_chunks().0.iter().map(|chunk| <$type>::from_le_bytes(*chunk)).collect())
            };
        }
        let data = match dtype {
            DataType::F32 => words!(F32, f32),
            DataType::F64 => words!(F64, f64),
            DataType::I64 => words!(I64, i64),
            DataType::I32 => words!(I32, i32),
            DataType::I16 => words!(I16, i16),
            DataType::U16 => words!(U16, u16),
            DataType::F16 => words!(F16, u16),
            DataType::I8 => TensorData::I8(bytes.iter().map(|byte| *byte as i8).collect()),
            DataType::U8 => TensorData::U8(bytes.to_vec()),
            DataType::Bool => TensorData::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
            DataType::Undefined | DataType::String | DataType::Other => return None,
        };
        Some(Self { dims, data })
    }
}

/// Appends elements as bytes, a block at a time: the compiler turns whole blocks into vector moves.
fn words<T: Copy, const SIZE: usize>(data: &[T], bytes: impl Fn(T) -> [u8; SIZE], out: &mut Vec<u8>) {
    let mut block = [[0; SIZE]; 512];
    for chunk in data.chunks(block.len()) {
        for (place, value) in block.iter_mut().zip(chunk) {
            *place = bytes(*value);
        }
        out.extend_from_slice(block[..chunk.len()].as_flattened());
    }
}
