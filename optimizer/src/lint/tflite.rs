//! A `.tflite` as rules see it.

use std::collections::BTreeMap;

use edgeyard_job::spec::ModelFormat;
use edgeyard_targets::{Attribute, Operator, Tensor, View};
use edgeyard_tflite::{Model, Options, Subgraph};

/// The view of a model's first graph. `labels` names its operators; without, they are called after what they make.
pub fn view(model: &Model, labels: Option<&[String]>) -> View {
    let empty = Subgraph::default();
    let graph = model.subgraphs.first().unwrap_or(&empty);
    let index = |list: &[i32]| list.iter().filter_map(|index| usize::try_from(*index).ok()).collect::<Vec<_>>();
    let tensors = graph.tensors.iter().map(|tensor| {
        let dims = if tensor.shape_signature.is_empty() { &tensor.shape } else { &tensor.shape_signature };
        let quantization = tensor.quantization.as_ref();
        let mut zero_points = quantization.map(|found| found.zero_point.clone()).unwrap_or_default();
        zero_points.sort_unstable();
        zero_points.dedup();
        Tensor {
            name: tensor.name.clone(),
            dtype: tensor.dtype.to_string(),
            shape: tensor.has_rank.then(|| dims.iter().map(|dim| i64::from(*dim)).collect()),
            constant: !model.data_of(tensor).is_empty(),
            scales: quantization.map_or(0, |found| found.scale.len()),
            zero_points,
        }
    });
    let operators = graph.operators.iter().enumerate().map(|(at, operator)| {
        let made = operator.outputs.first().and_then(|index| graph.tensors.get(usize::try_from(*index).ok()?));
        let own = made.map(|tensor| tensor.name.as_str()).filter(|name| !name.is_empty());
        let own = own.map_or_else(|| format!("operator {at}"), str::to_owned);
        Operator {
            label: labels.and_then(|labels| labels.get(at).cloned()).unwrap_or(own),
            kind: operator
                .code
                .custom
                .as_ref()
                .map_or_else(|| operator.code.builtin.to_string(), |_| "CUSTOM".to_owned()),
            version: i64::from(operator.code.version),
            inputs: operator.inputs.iter().map(|index| usize::try_from(*index).ok()).collect(),
            outputs: index(&operator.outputs),
            attributes: attributes(&operator.options),
        }
    });
    View {
        format: ModelFormat::TfLite,
        subgraphs: model.subgraphs.len(),
        opset: None,
        tensors: tensors.collect(),
        inputs: index(&graph.inputs),
        outputs: index(&graph.outputs),
        operators: operators.collect(),
    }
}

/// The settings that rules ask for, by the schema's names.
fn attributes(options: &Options) -> BTreeMap<String, Attribute> {
    let mut found = BTreeMap::new();
    let mut int = |name: &str, value: i32| found.insert(name.to_owned(), Attribute::Int(i64::from(value)));
    let mut texts = Vec::new();
    match options {
        Options::Conv2D(o) => {
            int("stride_w", o.stride_w);
            int("stride_h", o.stride_h);
            int("dilation_w_factor", o.dilation_w_factor);
            int("dilation_h_factor", o.dilation_h_factor);
            texts.push(("padding", o.padding.to_string()));
            texts.push(("fused_activation_function", o.fused_activation_function.to_string()));
        }
        Options::DepthwiseConv2D(o) => {
            int("stride_w", o.stride_w);
            int("stride_h", o.stride_h);
            int("dilation_w_factor", o.dilation_w_factor);
            int("dilation_h_factor", o.dilation_h_factor);
            int("depth_multiplier", o.depth_multiplier);
            texts.push(("padding", o.padding.to_string()));
            texts.push(("fused_activation_function", o.fused_activation_function.to_string()));
        }
        Options::Pool2D(o) => {
            int("stride_w", o.stride_w);
            int("stride_h", o.stride_h);
            int("filter_width", o.filter_width);
            int("filter_height", o.filter_height);
            texts.push(("padding", o.padding.to_string()));
            texts.push(("fused_activation_function", o.fused_activation_function.to_string()));
        }
        Options::TransposeConv(o) => {
            int("stride_w", o.stride_w);
            int("stride_h", o.stride_h);
            texts.push(("padding", o.padding.to_string()));
        }
        Options::FullyConnected(o) => {
            int("weights_format", i32::from(o.weights_format));
            int("keep_num_dims", i32::from(o.keep_num_dims));
            texts.push(("fused_activation_function", o.fused_activation_function.to_string()));
        }
        Options::Concatenation(o) => {
            int("axis", o.axis);
            texts.push(("fused_activation_function", o.fused_activation_function.to_string()));
        }
        Options::ResizeBilinear(o) => {
            int("align_corners", i32::from(o.align_corners));
            int("half_pixel_centers", i32::from(o.half_pixel_centers));
        }
        Options::ResizeNearestNeighbor(o) => {
            int("align_corners", i32::from(o.align_corners));
            int("half_pixel_centers", i32::from(o.half_pixel_centers));
        }
        Options::StridedSlice(o) => {
            int("ellipsis_mask", o.ellipsis_mask);
            int("new_axis_mask", o.new_axis_mask);
        }
        _ => {}
    }
    found.extend(texts.into_iter().map(|(name, text)| (name.to_owned(), Attribute::Text(text))));
    found
}
