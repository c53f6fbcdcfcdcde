//! One function per ONNX operator. Each asks the walk for operands in the layout TFLite's kernel wants and defines
//! where its result lies. Operators that are not in the table cannot be lowered.

mod activation;
mod conv;
mod einsum;
mod elementwise;
mod formula;
mod index;
mod logic;
mod matmul;
mod normalize;
mod pool;
mod rank;
mod recurrent;
mod reduce;
mod resize;
mod select;
mod shape;
mod transpose_conv;
mod window;

use edgeyard_tflite::BuiltinOp as Tfl;

use super::LowerError;
use super::walk::Walk;
use crate::ir::Node;

/// Lowers one node.
pub(super) fn lower(walk: &mut Walk<'_>, node: &Node) -> Result<(), LowerError> {
    if !node.is_standard() {
        return Err(walk.refuse("it is not one of ONNX's own operators", "replace it before exporting the model"));
    }
    match node.op_type.as_str() {
        "Conv" => conv::conv(walk),
        "ConvTranspose" => transpose_conv::conv_transpose(walk),
        "BatchNormalization" => conv::batch_normalization(walk),
        "Gemm" => matmul::gemm(walk),
        "MatMul" => matmul::matmul(walk),
        "Add" => elementwise::add(walk),
        "Sub" => elementwise::sub(walk),
        "Mul" => elementwise::mul(walk),
        "Div" => elementwise::div(walk),
        "Min" => elementwise::extreme(walk, Tfl::MINIMUM),
        "Max" => elementwise::extreme(walk, Tfl::MAXIMUM),
        "Pow" => elementwise::pow(walk),
        "PRelu" => elementwise::prelu(walk),
        "Relu" => activation::relu(walk),
        "Clip" => activation::clip(walk),
        "Sigmoid" => activation::unary(walk, Tfl::LOGISTIC, true),
        "Tanh" => activation::unary(walk, Tfl::TANH, false),
        "Abs" => activation::unary(walk, Tfl::ABS, true),
        "Neg" => elementwise::neg(walk),
        "Exp" => activation::unary(walk, Tfl::EXP, true),
        "Sqrt" => activation::unary(walk, Tfl::SQRT, true),
        "Log" => activation::unary(walk, Tfl::LOG, false),
        "Ceil" => activation::unary(walk, Tfl::CEIL, false),
        "Floor" => activation::unary(walk, Tfl::FLOOR, false),
        "Sin" => activation::unary(walk, Tfl::SIN, false),
        "Cos" => activation::unary(walk, Tfl::COS, false),
        "Gelu" => activation::gelu(walk),
        "Softplus" => activation::softplus(walk),
        "LogSoftmax" => activation::log_softmax(walk),
        "LayerNormalization" => normalize::layer(walk),
        "InstanceNormalization" => normalize::instance(walk),
        "GroupNormalization" => normalize::group(walk),
        "LRN" => normalize::local_response(walk),
        "LpNormalization" => normalize::l2(walk),
        "Elu" => activation::elu(walk),
        "LeakyRelu" => activation::leaky_relu(walk),
        "HardSigmoid" => activation::hard_sigmoid(walk),
        "HardSwish" => activation::hard_swish(walk),
        "Softmax" => activation::softmax(walk),
        "MaxPool" => pool::max_pool(walk),
        "AveragePool" => pool::average_pool(walk),
        "GlobalAveragePool" => reduce::global_average_pool(walk),
        "GlobalMaxPool" => pool::global_max_pool(walk),
        "ReduceMean" => reduce::reduce(walk, Tfl::MEAN),
        "ReduceSum" => reduce::reduce(walk, Tfl::SUM),
        "ReduceMax" => reduce::reduce(walk, Tfl::REDUCE_MAX),
        "ReduceMin" => reduce::reduce(walk, Tfl::REDUCE_MIN),
        "ReduceProd" => reduce::reduce(walk, Tfl::REDUCE_PROD),
        "ReduceL1" => reduce::norm(walk, reduce::Norm::L1),
        "ReduceL2" => reduce::norm(walk, reduce::Norm::L2),
        "ReduceSumSquare" => reduce::norm(walk, reduce::Norm::SumSquare),
        "ReduceLogSum" => reduce::norm(walk, reduce::Norm::LogSum),
        "ReduceLogSumExp" => reduce::norm(walk, reduce::Norm::LogSumExp),
        "ArgMax" => reduce::arg(walk, Tfl::ARG_MAX),
        "ArgMin" => reduce::arg(walk, Tfl::ARG_MIN),
        "Cast" => logic::cast(walk),
        "Where" => logic::choose(walk),
        "Expand" => logic::expand(walk),
        "Greater" => logic::compare(walk, Tfl::GREATER),
        "GreaterOrEqual" => logic::compare(walk, Tfl::GREATER_EQUAL),
        "Less" => logic::compare(walk, Tfl::LESS),
        "LessOrEqual" => logic::compare(walk, Tfl::LESS_EQUAL),
        "Equal" => logic::compare(walk, Tfl::EQUAL),
        "And" => logic::compare(walk, Tfl::LOGICAL_AND),
        "Or" => logic::compare(walk, Tfl::LOGICAL_OR),
        "Not" => logic::not(walk),
        "Xor" => logic::xor(walk),
        "IsNaN" => logic::is_nan(walk),
        "IsInf" => logic::is_inf(walk),
        "ThresholdedRelu" => logic::thresholded(walk),
        "Shrink" => logic::shrink(walk),
        "CastLike" => logic::cast_like(walk),
        "Mod" => elementwise::modulo(walk),
        "TopK" => rank::top_k(walk),
        "CumSum" => rank::cum_sum(walk),
        "Einsum" => einsum::einsum(walk),
        "OneHot" => index::one_hot(walk),
        "Trilu" => index::trilu(walk),
        "GatherElements" => index::gather_elements(walk),
        "GatherND" => index::gather_nd(walk),
        "ScatterElements" | "Scatter" => index::scatter_elements(walk),
        "ScatterND" => index::scatter_nd(walk),
        "Tan" => formula::tangent(walk),
        "Erf" => formula::erf(walk),
        "Reciprocal" => formula::reciprocal(walk),
        "Mish" => formula::mish(walk),
        "Softsign" => formula::softsign(walk),
        "Selu" => {
            let (alpha, gamma) = (node.float("alpha", 1.673_263_2), node.float("gamma", 1.050_701));
            formula::elu_like(walk, alpha, gamma, 1.0)
        }
        "Celu" => {
            let alpha = node.float("alpha", 1.0);
            formula::elu_like(walk, alpha, 1.0, alpha)
        }
        "Sum" => formula::sum(walk, false),
        "Mean" => formula::sum(walk, true),
        "Round" => activation::unary(walk, Tfl::ROUND, false),
        "Sign" => activation::unary(walk, Tfl::SIGN, false),
        "LSTM" => recurrent::lstm(walk),
        "GRU" => recurrent::gru(walk),
        "Flatten" => shape::flatten(walk),
        "Reshape" => shape::reshape(walk),
        "Squeeze" => shape::squeeze(walk),
        "Unsqueeze" => shape::unsqueeze(walk),
        "Transpose" => shape::transpose(walk),
        "Identity" | "Dropout" => shape::identity(walk),
        "Concat" => shape::concat(walk),
        "Pad" => shape::pad(walk),
        "Tile" => shape::tile(walk),
        "Slice" => select::slice(walk),
        "Split" => select::split(walk),
        "Gather" => select::gather(walk),
        "DepthToSpace" => resize::depth_to_space(walk),
        "SpaceToDepth" => resize::space_to_depth(walk),
        "Resize" | "Upsample" => resize::resize(walk),
        "NonZero" | "Compress" | "Unique" | "NonMaxSuppression" => Err(walk.refuse(
            "how large its result is depends on what is fed",
            "leave it out of the model and do it on the result",
        )),
        "If" | "Loop" | "Scan" => {
            Err(walk.refuse("it has graphs of its own", "export the model without control flow, its loops written out"))
        }
        _ => Err(walk.refuse(
            "there is no lowering for it",
            "replace it by supported operators, or use a target that runs ONNX",
        )),
    }
}

/// A possibly negative axis of a tensor of `rank` dimensions.
fn axis(walk: &Walk<'_>, axis: i64, rank: usize) -> Result<usize, LowerError> {
    let counted = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(counted)
        .ok()
        .filter(|&axis| axis < rank)
        .ok_or_else(|| walk.refuse(format!("its axis {axis} does not exist in {rank} dimensions"), "repair the model"))
}
