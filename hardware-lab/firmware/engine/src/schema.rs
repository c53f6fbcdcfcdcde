//! The parts of the TFLite schema (version 3) that an int8 interpreter reads: which slot of which table holds what.

use crate::flatbuffer::{self, Malformed, Table, Vector};
use core::fmt;

type Result<T> = core::result::Result<T, Malformed>;

/// A TFLite file.
#[derive(Clone, Copy)]
pub struct Model<'b> {
    root: Table<'b>,
    /// The first subgraph; models with control flow have more.
    pub graph: Graph<'b>,
    /// Number of subgraphs.
    pub graphs: usize,
    codes: Vector<'b>,
    buffers: Vector<'b>,
}

/// A subgraph.
#[derive(Clone, Copy)]
pub struct Graph<'b> {
    /// Tables of tensors.
    pub tensors: Vector<'b>,
    /// Tensor numbers of the inputs.
    pub inputs: Vector<'b>,
    /// Tensor numbers of the outputs.
    pub outputs: Vector<'b>,
    /// Tables of operators, in the order of execution.
    pub operators: Vector<'b>,
}

/// One tensor as the file describes it.
#[derive(Clone, Copy)]
pub struct TensorRecord<'b> {
    /// Dimensions; empty for a scalar.
    pub shape: Vector<'b>,
    /// Number of a [`DType`].
    pub dtype: u8,
    /// Number of the buffer with its constant data.
    pub buffer: usize,
    /// Name, in whatever bytes the file has.
    pub name: &'b [u8],
    /// Scales; more than one if per channel.
    pub scales: Vector<'b>,
    /// Zero points, as `i64`.
    pub zero_points: Vector<'b>,
    /// Axis of the per-channel scales.
    pub axis: i32,
}

/// One operator as the file describes it.
#[derive(Clone, Copy)]
pub struct OperatorRecord<'b> {
    /// What it is.
    pub code: OpCode,
    /// Version of the operator that the file asks for; 1 if it does not say.
    pub version: i32,
    /// Tensor numbers; -1 leaves an optional input out.
    pub inputs: Vector<'b>,
    /// Tensor numbers.
    pub outputs: Vector<'b>,
    /// The options table of its kind.
    pub options: Option<Table<'b>>,
}

/// Number of a builtin operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpCode(pub i32);

/// Element types that a model may name; only some have kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float: only at the edge, into QUANTIZE and out of DEQUANTIZE.
    Float32,
    /// Shapes, axes and biases.
    Int32,
    /// Quantised values.
    Int8,
    /// Anything else.
    Other(u8),
}

impl<'b> Model<'b> {
    /// Reads the head of a file.
    pub fn read(bytes: &'b [u8]) -> core::result::Result<Self, crate::Error> {
        let root = flatbuffer::root(bytes, b"TFL3")?;
        let version = root.u32(0, 0)?;
        if version != 3 {
            return Err(crate::Error::Version(version));
        }
        let graphs = root.vector(2, 4)?;
        let first = graphs.table(0)?;
        let graph = Graph {
            tensors: first.vector(0, 4)?,
            inputs: first.vector(1, 4)?,
            outputs: first.vector(2, 4)?,
            operators: first.vector(3, 4)?,
        };
        Ok(Model { root, graph, graphs: graphs.len(), codes: root.vector(1, 4)?, buffers: root.vector(4, 4)? })
    }

    /// The file's description of itself.
    pub fn description(&self) -> Result<&'b [u8]> {
        self.root.string(3)
    }

    /// Tensor `i`.
    pub fn tensor(&self, i: usize) -> Result<TensorRecord<'b>> {
        let t = self.graph.tensors.table(i)?;
        let (scales, zero_points, axis) = match t.table(4)? {
            Some(q) => (q.vector(2, 4)?, q.vector(3, 8)?, q.i32(6, 0)?),
            None => (Vector::empty(), Vector::empty(), 0),
        };
        Ok(TensorRecord {
            shape: t.vector(0, 4)?,
            dtype: t.u8(1, 0)?,
            buffer: t.u32(2, 0)? as usize,
            name: t.string(3)?,
            scales,
            zero_points,
            axis,
        })
    }

    /// The constant bytes of buffer `i`; empty if it has none. Data outside the FlatBuffer (huge files) is refused.
    pub fn buffer(&self, i: usize) -> Result<&'b [u8]> {
        let b = self.buffers.table(i)?;
        if b.u64(1, 0)? > 1 {
            return Err(Malformed("buffer: its data lies outside the flatbuffer"));
        }
        b.vector(0, 1)?.as_bytes()
    }

    /// Operator `i` of the first subgraph.
    pub fn operator(&self, i: usize) -> Result<OperatorRecord<'b>> {
        let o = self.graph.operators.table(i)?;
        let code = self.codes.table(o.u32(0, 0)? as usize)?;
        // Files before 2020 have only the byte; later ones both, and the larger counts.
        let number = code.i32(3, 0)?.max(i32::from(code.u8(0, 0)? as i8));
        Ok(OperatorRecord {
            code: OpCode(number),
            version: code.i32(2, 1)?,
            inputs: o.vector(1, 4)?,
            outputs: o.vector(2, 4)?,
            options: o.table(4)?,
        })
    }
}

impl DType {
    /// From the number in the file.
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => DType::Float32,
            2 => DType::Int32,
            9 => DType::Int8,
            other => DType::Other(other),
        }
    }

    /// Bytes of one element; none for types without a kernel.
    pub fn size(self) -> Option<usize> {
        match self {
            DType::Float32 | DType::Int32 => Some(4),
            DType::Int8 => Some(1),
            DType::Other(_) => None,
        }
    }

    /// The schema's name.
    pub fn name(self) -> &'static str {
        match self {
            DType::Float32 => "FLOAT32",
            DType::Int32 => "INT32",
            DType::Int8 => "INT8",
            DType::Other(1) => "FLOAT16",
            DType::Other(3) => "UINT8",
            DType::Other(4) => "INT64",
            DType::Other(5) => "STRING",
            DType::Other(6) => "BOOL",
            DType::Other(7) => "INT16",
            DType::Other(17) => "INT4",
            DType::Other(_) => "another type",
        }
    }
}

macro_rules! op_codes {
    ($($name:ident = $code:literal),* $(,)?) => {
        #[allow(missing_docs)]
        impl OpCode {
            $(pub const $name: OpCode = OpCode($code);)*
        }
    };
}

op_codes! {
    ADD = 0, AVERAGE_POOL_2D = 1, CONCATENATION = 2, CONV_2D = 3, DEPTHWISE_CONV_2D = 4, DEQUANTIZE = 6,
    FULLY_CONNECTED = 9, LOGISTIC = 14, MAX_POOL_2D = 17, MUL = 18, RELU = 19, RELU6 = 21, RESHAPE = 22, SOFTMAX = 25,
    TANH = 28, PAD = 34, TRANSPOSE = 39, MEAN = 40, SUB = 41, SQUEEZE = 43, STRIDED_SLICE = 45, SPLIT = 49, PADV2 = 60,
    EXPAND_DIMS = 70, RESIZE_NEAREST_NEIGHBOR = 97, QUANTIZE = 114, HARD_SWISH = 117,
}

impl OpCode {
    /// The newest version of an operator with a kernel here; none for other operators.
    ///
    /// The numbers are those of TensorFlow's own list (`tools/versioning/runtime_version.cc`, 2.18): all that these versions
    /// add is either read and supported, or in fields and types that loading refuses.
    pub fn newest_version(self) -> Option<i32> {
        Some(match self {
            OpCode::RESHAPE | OpCode::EXPAND_DIMS | OpCode::HARD_SWISH => 1,
            OpCode::SQUEEZE => 2,
            OpCode::AVERAGE_POOL_2D | OpCode::MAX_POOL_2D | OpCode::LOGISTIC | OpCode::TANH | OpCode::SOFTMAX => 3,
            OpCode::RELU | OpCode::RELU6 | OpCode::MEAN | OpCode::QUANTIZE => 3,
            OpCode::CONCATENATION | OpCode::PAD | OpCode::PADV2 | OpCode::SPLIT => 4,
            OpCode::RESIZE_NEAREST_NEIGHBOR => 4,
            OpCode::ADD | OpCode::SUB => 5,
            OpCode::DEQUANTIZE | OpCode::TRANSPOSE => 6,
            OpCode::DEPTHWISE_CONV_2D | OpCode::MUL => 7,
            OpCode::CONV_2D | OpCode::STRIDED_SLICE => 8,
            OpCode::FULLY_CONNECTED => 13,
            _ => return None,
        })
    }
}

impl fmt::Display for OpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0).ok().and_then(|i| NAMES.get(i)).filter(|n| !n.is_empty()) {
            Some(name) => f.write_str(name),
            None => write!(f, "builtin operator {}", self.0),
        }
    }
}

/// Names of the builtin operators, by number.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE",
    "EMBEDDING_LOOKUP", "FLOOR", "FULLY_CONNECTED", "HASHTABLE_LOOKUP", "L2_NORMALIZATION", "L2_POOL_2D",
    "LOCAL_RESPONSE_NORMALIZATION", "LOGISTIC", "LSH_PROJECTION", "LSTM", "MAX_POOL_2D", "MUL", "RELU",
    "RELU_N1_TO_1", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RNN", "SOFTMAX", "SPACE_TO_DEPTH", "SVDF", "TANH",
    "CONCAT_EMBEDDINGS", "SKIP_GRAM", "CALL", "CUSTOM", "EMBEDDING_LOOKUP_SPARSE", "PAD",
    "UNIDIRECTIONAL_SEQUENCE_RNN", "GATHER", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND", "TRANSPOSE", "MEAN", "SUB",
    "DIV", "SQUEEZE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "STRIDED_SLICE", "BIDIRECTIONAL_SEQUENCE_RNN", "EXP",
    "TOPK_V2", "SPLIT", "LOG_SOFTMAX", "DELEGATE", "BIDIRECTIONAL_SEQUENCE_LSTM", "CAST", "PRELU", "MAXIMUM",
    "ARG_MAX", "MINIMUM", "LESS", "NEG", "PADV2", "GREATER", "GREATER_EQUAL", "LESS_EQUAL", "SELECT", "SLICE", "SIN",
    "TRANSPOSE_CONV", "SPARSE_TO_DENSE", "TILE", "EXPAND_DIMS", "EQUAL", "NOT_EQUAL", "LOG", "SUM", "SQRT", "RSQRT",
    "SHAPE", "POW", "ARG_MIN", "FAKE_QUANT", "REDUCE_PROD", "REDUCE_MAX", "PACK", "LOGICAL_OR", "ONE_HOT",
    "LOGICAL_AND", "LOGICAL_NOT", "UNPACK", "REDUCE_MIN", "FLOOR_DIV", "REDUCE_ANY", "SQUARE", "ZEROS_LIKE", "FILL",
    "FLOOR_MOD", "RANGE", "RESIZE_NEAREST_NEIGHBOR", "LEAKY_RELU", "SQUARED_DIFFERENCE", "MIRROR_PAD", "ABS",
    "SPLIT_V", "UNIQUE", "CEIL", "REVERSE_V2", "ADD_N", "GATHER_ND", "COS", "WHERE", "RANK", "ELU",
    "REVERSE_SEQUENCE", "MATRIX_DIAG", "QUANTIZE", "MATRIX_SET_DIAG", "ROUND", "HARD_SWISH", "IF", "WHILE",
    "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "SCATTER_ND", "SELECT_V2", "DENSIFY", "SEGMENT_SUM",
    "BATCH_MATMUL", "PLACEHOLDER_FOR_GREATER_OP_CODES", "CUMSUM", "CALL_ONCE", "BROADCAST_TO", "RFFT2D", "CONV_3D",
    "IMAG", "REAL", "COMPLEX_ABS", "HASHTABLE", "HASHTABLE_FIND", "HASHTABLE_IMPORT", "HASHTABLE_SIZE", "REDUCE_ALL",
    "CONV_3D_TRANSPOSE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "BROADCAST_ARGS",
    "RANDOM_STANDARD_NORMAL", "BUCKETIZE", "RANDOM_UNIFORM", "MULTINOMIAL", "GELU", "DYNAMIC_UPDATE_SLICE",
    "RELU_0_TO_1", "UNSORTED_SEGMENT_PROD", "UNSORTED_SEGMENT_MAX", "UNSORTED_SEGMENT_SUM", "ATAN2",
    "UNSORTED_SEGMENT_MIN", "SIGN", "BITCAST", "BITWISE_XOR", "RIGHT_SHIFT", "STABLEHLO_LOGISTIC", "STABLEHLO_ADD",
    "STABLEHLO_DIVIDE", "STABLEHLO_MULTIPLY", "STABLEHLO_MAXIMUM", "STABLEHLO_RESHAPE", "STABLEHLO_CLAMP",
    "STABLEHLO_CONCATENATE", "STABLEHLO_BROADCAST_IN_DIM", "STABLEHLO_CONVOLUTION", "STABLEHLO_SLICE",
    "STABLEHLO_CUSTOM_CALL", "STABLEHLO_REDUCE", "STABLEHLO_ABS", "STABLEHLO_AND", "STABLEHLO_COSINE",
    "STABLEHLO_EXPONENTIAL", "STABLEHLO_FLOOR", "STABLEHLO_LOG", "STABLEHLO_MINIMUM", "STABLEHLO_NEGATE",
    "STABLEHLO_OR", "STABLEHLO_POWER", "STABLEHLO_REMAINDER", "STABLEHLO_RSQRT", "STABLEHLO_SELECT",
    "STABLEHLO_SUBTRACT", "STABLEHLO_TANH", "STABLEHLO_SCATTER", "STABLEHLO_COMPARE", "STABLEHLO_CONVERT",
    "STABLEHLO_DYNAMIC_SLICE", "STABLEHLO_DYNAMIC_UPDATE_SLICE", "STABLEHLO_PAD", "STABLEHLO_IOTA",
    "STABLEHLO_DOT_GENERAL", "STABLEHLO_REDUCE_WINDOW", "STABLEHLO_SORT", "STABLEHLO_WHILE", "STABLEHLO_GATHER",
    "STABLEHLO_TRANSPOSE", "DILATE", "STABLEHLO_RNG_BIT_GENERATOR", "REDUCE_WINDOW", "STABLEHLO_COMPOSITE",
    "STABLEHLO_SHIFT_LEFT", "STABLEHLO_CBRT",
];
