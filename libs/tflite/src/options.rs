//! The builtin options of operators, one type per table of the schema that has fields. The list below is the whole
//! knowledge of the format: it gives slot order, field types and defaults to both reading and writing.

use crate::flat::read::Table;
use crate::flat::write::{Builder, Fields, Position};
use crate::types::{Activation, MirrorMode, Padding, TensorType};
use crate::{ReadError, WriteError};

/// A field type of an options table.
trait Field: Sized {
    fn read(table: &Table<'_, '_>, slot: u16, default: Self) -> Result<Self, ReadError>;
    fn write(&self, builder: &mut Builder, fields: &mut Fields, slot: u16, default: Self);
}

const WHAT: &str = "operator options";

impl Field for i32 {
    fn read(table: &Table<'_, '_>, slot: u16, default: Self) -> Result<Self, ReadError> {
        table.i32(slot, default, WHAT)
    }

    fn write(&self, _: &mut Builder, fields: &mut Fields, slot: u16, default: Self) {
        fields.i32(slot, *self, default);
    }
}

impl Field for i64 {
    fn read(table: &Table<'_, '_>, slot: u16, default: Self) -> Result<Self, ReadError> {
        Ok(table.u64(slot, default as u64, WHAT)? as i64)
    }

    fn write(&self, _: &mut Builder, fields: &mut Fields, slot: u16, default: Self) {
        fields.u64(slot, *self as u64, default as u64);
    }
}

impl Field for f32 {
    fn read(table: &Table<'_, '_>, slot: u16, default: Self) -> Result<Self, ReadError> {
        table.f32(slot, default, WHAT)
    }

    fn write(&self, _: &mut Builder, fields: &mut Fields, slot: u16, default: Self) {
        fields.f32(slot, *self, default);
    }
}

impl Field for bool {
    fn read(table: &Table<'_, '_>, slot: u16, default: Self) -> Result<Self, ReadError> {
        Ok(table.u8(slot, u8::from(default), WHAT)? != 0)
    }

    fn write(&self, _: &mut Builder, fields: &mut Fields, slot: u16, default: Self) {
        fields.u8(slot, u8::from(*self), u8::from(default));
    }
}

impl Field for u8 {
    fn read(table: &Table<'_, '_>, slot: u16, default: Self) -> Result<Self, ReadError> {
        table.u8(slot, default, WHAT)
    }

    fn write(&self, _: &mut Builder, fields: &mut Fields, slot: u16, default: Self) {
        fields.u8(slot, *self, default);
    }
}

/// Absent and empty vectors read alike, and an empty one is not written.
impl Field for Vec<i32> {
    fn read(table: &Table<'_, '_>, slot: u16, default: Self) -> Result<Self, ReadError> {
        Ok(table.i32s(slot, WHAT)?.unwrap_or(default))
    }

    fn write(&self, builder: &mut Builder, fields: &mut Fields, slot: u16, _: Self) {
        if !self.is_empty() {
            let position = builder.i32s(self);
            fields.child(slot, position);
        }
    }
}

impl Field for Vec<f32> {
    fn read(table: &Table<'_, '_>, slot: u16, default: Self) -> Result<Self, ReadError> {
        Ok(table.f32s(slot, WHAT)?.unwrap_or(default))
    }

    fn write(&self, builder: &mut Builder, fields: &mut Fields, slot: u16, _: Self) {
        if !self.is_empty() {
            let position = builder.f32s(self);
            fields.child(slot, position);
        }
    }
}

impl Field for String {
    fn read(table: &Table<'_, '_>, slot: u16, default: Self) -> Result<Self, ReadError> {
        Ok(table.string(slot, WHAT)?.unwrap_or(default))
    }

    fn write(&self, builder: &mut Builder, fields: &mut Fields, slot: u16, _: Self) {
        if !self.is_empty() {
            let position = builder.string(self);
            fields.child(slot, position);
        }
    }
}

macro_rules! enum_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn read(table: &Table<'_, '_>, slot: u16, default: Self) -> Result<Self, ReadError> {
                <$type>::from_number(table.u8(slot, default as u8, WHAT)?)
            }

            fn write(&self, _: &mut Builder, fields: &mut Fields, slot: u16, default: Self) {
                fields.u8(slot, *self as u8, default as u8);
            }
        }
    )*};
}

enum_field!(Activation, MirrorMode, Padding, TensorType);

/// One line per table: union number, name, and the fields in slot order with their defaults.
macro_rules! options {
    ($($number:literal $name:ident { $($field:ident : $type:ty = $default:expr),* $(,)? })*) => {
        $(
            #[doc = concat!("Fields of `", stringify!($name), "Options`, as the schema names them.")]
            #[derive(Debug, Clone, PartialEq)]
            #[allow(missing_docs)]
            pub struct $name { $(pub $field: $type,)* }

            impl Default for $name {
                /// The schema's defaults.
                fn default() -> Self {
                    Self { $($field: $default,)* }
                }
            }

            impl From<$name> for Options {
                fn from(options: $name) -> Options {
                    Options::$name(options)
                }
            }

            impl $name {
                fn read(table: &Table<'_, '_>) -> Result<Self, ReadError> {
                    let mut slot = 0_u16;
                    $(
                        let $field = Field::read(table, slot, $default)?;
                        slot += 1;
                    )*
                    let _ = slot;
                    Ok(Self { $($field,)* })
                }

                fn write(&self, builder: &mut Builder) -> Fields {
                    let mut fields = Fields::default();
                    let mut slot = 0_u16;
                    $(
                        let default: $type = $default;
                        self.$field.write(builder, &mut fields, slot, default);
                        slot += 1;
                    )*
                    let _ = slot;
                    fields
                }
            }
        )*

        /// The builtin options of an operator.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        pub enum Options {
            /// The operator carries no options.
            None,
            /// An options table without fields; the number is the union's.
            Empty(u8),
            /// Options this crate does not read (StableHLO's and later ones); such a model cannot be written back.
            Unread(u8),
            $($name($name),)*
        }

        impl Options {
            pub(crate) fn read(number: u8, table: Option<Table<'_, '_>>) -> Result<Self, ReadError> {
                if number == 0 {
                    return Ok(Self::None);
                }
                // Writers may leave out a table whose fields are all defaults only together with its number.
                let table = table.ok_or(ReadError::Missing { what: WHAT })?;
                match number {
                    $($number => Ok(Self::$name($name::read(&table)?)),)*
                    number if EMPTY.contains(&number) => Ok(Self::Empty(number)),
                    number => Ok(Self::Unread(number)),
                }
            }

            /// The union's number and the table, if there is one.
            pub(crate) fn write(&self, builder: &mut Builder) -> Result<Option<(u8, Position)>, WriteError> {
                let (number, fields) = match self {
                    Self::None => return Ok(None),
                    Self::Empty(number) => (*number, Fields::default()),
                    Self::Unread(number) => return Err(WriteError::UnreadOptions { number: *number }),
                    $(Self::$name(options) => ($number, options.write(builder)),)*
                };
                Ok(Some((number, builder.shared_table(fields))))
            }
        }
    };
}

/// Union numbers of the options tables that have no fields.
const EMPTY: [u8; 66] = [
    22, 24, 25, 26, 33, 34, 36, 38, 39, 41, 42, 43, 44, 45, 46, 47, 48, 51, 52, 53, 54, 56, 60, 62, 63, 65, 66, 67, 68,
    72, 73, 76, 78, 81, 82, 83, 84, 85, 86, 88, 89, 90, 91, 95, 96, 97, 98, 99, 100, 104, 105, 108, 109, 110, 112, 113,
    117, 118, 119, 120, 121, 122, 123, 124, 125, 126,
];

options! {
    1 Conv2D {
        padding: Padding = Padding::Same, stride_w: i32 = 0, stride_h: i32 = 0,
        fused_activation_function: Activation = Activation::None,
        dilation_w_factor: i32 = 1, dilation_h_factor: i32 = 1,
        quantized_bias_type: TensorType = TensorType::Float32,
    }
    2 DepthwiseConv2D {
        padding: Padding = Padding::Same, stride_w: i32 = 0, stride_h: i32 = 0, depth_multiplier: i32 = 0,
        fused_activation_function: Activation = Activation::None,
        dilation_w_factor: i32 = 1, dilation_h_factor: i32 = 1,
    }
    3 ConcatEmbeddings {
        num_channels: i32 = 0, num_columns_per_channel: Vec<i32> = Vec::new(),
        embedding_dim_per_channel: Vec<i32> = Vec::new(),
    }
    4 LshProjection { r#type: u8 = 0 }
    5 Pool2D {
        padding: Padding = Padding::Same, stride_w: i32 = 0, stride_h: i32 = 0, filter_width: i32 = 0,
        filter_height: i32 = 0, fused_activation_function: Activation = Activation::None,
    }
    6 Svdf {
        rank: i32 = 0, fused_activation_function: Activation = Activation::None,
        asymmetric_quantize_inputs: bool = false,
    }
    7 Rnn { fused_activation_function: Activation = Activation::None, asymmetric_quantize_inputs: bool = false }
    8 FullyConnected {
        fused_activation_function: Activation = Activation::None, weights_format: u8 = 0,
        keep_num_dims: bool = false, asymmetric_quantize_inputs: bool = false,
        quantized_bias_type: TensorType = TensorType::Float32,
    }
    9 Softmax { beta: f32 = 0.0 }
    10 Concatenation { axis: i32 = 0, fused_activation_function: Activation = Activation::None }
    11 Add { fused_activation_function: Activation = Activation::None, pot_scale_int16: bool = true }
    12 L2Norm { fused_activation_function: Activation = Activation::None }
    13 LocalResponseNormalization { radius: i32 = 0, bias: f32 = 0.0, alpha: f32 = 0.0, beta: f32 = 0.0 }
    14 Lstm {
        fused_activation_function: Activation = Activation::None, cell_clip: f32 = 0.0, proj_clip: f32 = 0.0,
        kernel_type: u8 = 0, asymmetric_quantize_inputs: bool = false,
    }
    15 ResizeBilinear {
        deprecated_new_height: i32 = 0, deprecated_new_width: i32 = 0,
        align_corners: bool = false, half_pixel_centers: bool = false,
    }
    16 Call { subgraph: i32 = 0 }
    17 Reshape { new_shape: Vec<i32> = Vec::new() }
    18 SkipGram { ngram_size: i32 = 0, max_skip_size: i32 = 0, include_all_ngrams: bool = false }
    19 SpaceToDepth { block_size: i32 = 0 }
    20 EmbeddingLookupSparse { combiner: u8 = 0 }
    21 Mul { fused_activation_function: Activation = Activation::None }
    23 Gather { axis: i32 = 0, batch_dims: i32 = 0 }
    27 Reducer { keep_dims: bool = false }
    28 Sub { fused_activation_function: Activation = Activation::None, pot_scale_int16: bool = true }
    29 Div { fused_activation_function: Activation = Activation::None }
    30 Squeeze { squeeze_dims: Vec<i32> = Vec::new() }
    31 SequenceRnn {
        time_major: bool = false, fused_activation_function: Activation = Activation::None,
        asymmetric_quantize_inputs: bool = false,
    }
    32 StridedSlice {
        begin_mask: i32 = 0, end_mask: i32 = 0, ellipsis_mask: i32 = 0, new_axis_mask: i32 = 0,
        shrink_axis_mask: i32 = 0, offset: bool = false,
    }
    35 Split { num_splits: i32 = 0 }
    37 Cast { in_data_type: TensorType = TensorType::Float32, out_data_type: TensorType = TensorType::Float32 }
    40 ArgMax { output_type: TensorType = TensorType::Float32 }
    49 TransposeConv {
        padding: Padding = Padding::Same, stride_w: i32 = 0, stride_h: i32 = 0,
        fused_activation_function: Activation = Activation::None,
        quantized_bias_type: TensorType = TensorType::Float32,
    }
    50 SparseToDense { validate_indices: bool = false }
    55 Shape { out_type: TensorType = TensorType::Float32 }
    57 ArgMin { output_type: TensorType = TensorType::Float32 }
    58 FakeQuant { min: f32 = 0.0, max: f32 = 0.0, num_bits: i32 = 0, narrow_range: bool = false }
    59 Pack { values_count: i32 = 0, axis: i32 = 0 }
    61 OneHot { axis: i32 = 0 }
    64 Unpack { num: i32 = 0, axis: i32 = 0 }
    69 BidirectionalSequenceLstm {
        fused_activation_function: Activation = Activation::None, cell_clip: f32 = 0.0, proj_clip: f32 = 0.0,
        merge_outputs: bool = false, time_major: bool = true, asymmetric_quantize_inputs: bool = false,
    }
    70 BidirectionalSequenceRnn {
        time_major: bool = false, fused_activation_function: Activation = Activation::None,
        merge_outputs: bool = false, asymmetric_quantize_inputs: bool = false,
    }
    71 UnidirectionalSequenceLstm {
        fused_activation_function: Activation = Activation::None, cell_clip: f32 = 0.0, proj_clip: f32 = 0.0,
        time_major: bool = false, asymmetric_quantize_inputs: bool = false, diagonal_recurrent_tensors: bool = false,
    }
    74 ResizeNearestNeighbor { align_corners: bool = false, half_pixel_centers: bool = false }
    75 LeakyRelu { alpha: f32 = 0.0 }
    77 MirrorPad { mode: MirrorMode = MirrorMode::Reflect }
    79 SplitV { num_splits: i32 = 0 }
    80 Unique { idx_out_type: TensorType = TensorType::Int32 }
    87 ReverseSequence { seq_dim: i32 = 0, batch_dim: i32 = 0 }
    92 If { then_subgraph_index: i32 = 0, else_subgraph_index: i32 = 0 }
    93 While { cond_subgraph_index: i32 = 0, body_subgraph_index: i32 = 0 }
    94 DepthToSpace { block_size: i32 = 0 }
    101 BatchMatMul { adj_x: bool = false, adj_y: bool = false, asymmetric_quantize_inputs: bool = false }
    102 Cumsum { exclusive: bool = false, reverse: bool = false }
    103 CallOnce { init_subgraph_index: i32 = 0 }
    106 Conv3D {
        padding: Padding = Padding::Same, stride_d: i32 = 0, stride_w: i32 = 0, stride_h: i32 = 0,
        fused_activation_function: Activation = Activation::None,
        dilation_d_factor: i32 = 1, dilation_w_factor: i32 = 1, dilation_h_factor: i32 = 1,
    }
    107 Hashtable {
        table_id: i32 = 0, key_dtype: TensorType = TensorType::Float32, value_dtype: TensorType = TensorType::Float32,
    }
    111 VarHandle { container: String = String::new(), shared_name: String = String::new() }
    114 Random { seed: i64 = 0, seed2: i64 = 0 }
    115 Bucketize { boundaries: Vec<f32> = Vec::new() }
    116 Gelu { approximate: bool = false }
}
