//! What rules can ask about an operator or a model: quantities by name. A rule file uses these names; a name that is not
//! here is refused when the file is read, so that no rule is silently without effect.

use crate::view::{Attribute, Operator, Tensor, View};

/// What a quantity came to: every value counts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fact {
    Number(f64),
    Text(String),
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Quantities of an operator.
pub(crate) const OF_OPERATORS: &[&str] = &[
    // Element types: of what is computed, of constants, of one operand.
    "activationType",
    "inputType",
    "outputType",
    "weightType",
    "biasType",
    // Shapes. `outerDimension`: those before the three innermost.
    "rank",
    "inputRank",
    "dimension",
    "batch",
    "outerDimension",
    "lastDimension",
    "height",
    "width",
    // Windows; of convolutions from their weights, dilated.
    "kernelHeight",
    "kernelWidth",
    "kernelArea",
    "scaleHeight",
    "scaleWidth",
    // Quantisation of what is computed, and of constants.
    "activationScales",
    "activationZeroPoint",
    "weightScales",
    "weightZeroPoint",
    // 1 if the operand at that place is computed, 0 if it is in the file.
    "computedWeights",
    "computedParameters",
    // 1 if the sizes are not all known.
    "dynamic",
    // The operator's domain in ONNX.
    "domain",
    // Which dimensions are reduced, padded, joined or split, from constants or settings: see `Attribute`.
];

/// Quantities of a whole model.
pub(crate) const OF_MODELS: &[&str] = &["subgraphs", "opset", "inputs", "outputs", "interfaceType", "dynamicInputs"];

/// Whether a rule may ask for it: a quantity above, or a setting as `attribute:NAME`.
pub(crate) fn is_known(name: &str) -> bool {
    name.starts_with("attribute:") || OF_OPERATORS.contains(&name) || OF_MODELS.contains(&name)
}

/// Whether a quantity belongs to the whole model.
pub(crate) fn of_model(name: &str) -> bool {
    OF_MODELS.contains(&name)
}

fn numbers(values: impl IntoIterator<Item = i64>) -> Vec<Fact> {
    values.into_iter().map(|value| Fact::Number(value as f64)).collect()
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Fact> {
    values.into_iter().filter(|text| !text.is_empty()).map(|text| Fact::Text(text.to_owned())).collect()
}

/// The values of a model's quantity.
pub(crate) fn model(view: &View, name: &str) -> Vec<Fact> {
    let interface = || view.inputs.iter().chain(&view.outputs).filter_map(|index| view.tensors.get(*index));
    match name {
        "subgraphs" => numbers([view.subgraphs as i64]),
        "opset" => numbers(view.opset),
        "inputs" => numbers([view.inputs.len() as i64]),
        "outputs" => numbers([view.outputs.len() as i64]),
        "interfaceType" => texts(interface().map(|tensor| tensor.dtype.as_str())),
        "dynamicInputs" => {
            let dynamic = |tensor: &&Tensor| tensor.shape.as_ref().is_none_or(|shape| shape.iter().any(|dim| *dim < 0));
            let inputs = view.inputs.iter().filter_map(|index| view.tensors.get(*index));
            numbers([inputs.filter(dynamic).count() as i64])
        }
        _ => Vec::new(),
    }
}

/// The values of an operator's quantity; none if the operator has no such thing.
pub(crate) fn operator(view: &View, operator: &Operator, name: &str) -> Vec<Fact> {
    if let Some(attribute) = name.strip_prefix("attribute:") {
        return match operator.attributes.get(attribute) {
            Some(Attribute::Int(value)) => numbers([*value]),
            Some(Attribute::Float(value)) => vec![Fact::Number(*value)],
            Some(Attribute::Text(text)) => texts([text.as_str()]),
            Some(Attribute::Ints(values)) => numbers(values.iter().copied()),
            None => Vec::new(),
        };
    }
    let computed = || view.reads(operator).filter(|tensor| !tensor.constant).chain(view.makes(operator));
    let weights =
        || [1, 2].into_iter().filter_map(|place| view.input(operator, place)).filter(|tensor| tensor.constant);
    // A bias is 32 bits wide wherever weights are not, and has its own rules.
    let weight = || view.input(operator, 1).filter(|tensor| tensor.constant);
    let first = view.input(operator, 0);
    let made = view.makes(operator).next();
    let dims = |tensor: Option<&Tensor>| tensor.and_then(|tensor| tensor.shape.clone()).unwrap_or_default();
    match name {
        "activationType" => texts(computed().map(|tensor| tensor.dtype.as_str())),
        "inputType" => texts(first.map(|tensor| tensor.dtype.as_str())),
        "outputType" => texts(made.map(|tensor| tensor.dtype.as_str())),
        "weightType" => texts(weight().map(|tensor| tensor.dtype.as_str())),
        "biasType" => texts(view.input(operator, 2).map(|tensor| tensor.dtype.as_str())),
        "rank" => numbers(computed().filter_map(|tensor| Some(tensor.shape.as_ref()?.len() as i64))),
        "inputRank" => numbers(first.and_then(|tensor| Some(tensor.shape.as_ref()?.len() as i64))),
        "dimension" => numbers(computed().flat_map(|tensor| tensor.shape.clone().unwrap_or_default())),
        "batch" => numbers(dims(first).into_iter().take(1).filter(|_| dims(first).len() > 1)),
        "outerDimension" => numbers(computed().flat_map(|tensor| {
            let shape = tensor.shape.clone().unwrap_or_default();
            let outer = shape.len().saturating_sub(3);
            shape.into_iter().take(outer).collect::<Vec<_>>()
        })),
        "lastDimension" => numbers(dims(first).last().copied()),
        "height" | "width" => match dims(first)[..] {
            [_, height, width, _] => numbers([if name == "height" { height } else { width }]),
            _ => Vec::new(),
        },
        "kernelHeight" | "kernelWidth" | "kernelArea" => match kernel(view, operator) {
            Some((height, width)) => numbers([match name {
                "kernelHeight" => height,
                "kernelWidth" => width,
                _ => height * width,
            }]),
            None => Vec::new(),
        },
        "scaleHeight" | "scaleWidth" => match (&dims(first)[..], &dims(made)[..]) {
            ([_, h, w, _], [_, to_h, to_w, _]) if *h > 0 && *w > 0 => {
                let (from, to) = if name == "scaleHeight" { (*h, *to_h) } else { (*w, *to_w) };
                vec![Fact::Number(to as f64 / from as f64)]
            }
            _ => Vec::new(),
        },
        "activationScales" => numbers(computed().filter(|tensor| tensor.scales > 0).map(|tensor| tensor.scales as i64)),
        "activationZeroPoint" => numbers(computed().flat_map(|tensor| tensor.zero_points.clone())),
        "weightScales" => numbers(weight().filter(|tensor| tensor.scales > 0).map(|tensor| tensor.scales as i64)),
        "weightZeroPoint" => numbers(weights().flat_map(|tensor| tensor.zero_points.clone())),
        "computedWeights" => numbers(view.input(operator, 1).map(|tensor| i64::from(!tensor.constant))),
        "computedParameters" => {
            let later = operator.inputs.iter().skip(1).flatten().filter_map(|index| view.tensors.get(*index));
            numbers(later.map(|tensor| i64::from(!tensor.constant)))
        }
        "dynamic" => numbers(
            computed()
                .map(|tensor| i64::from(tensor.shape.as_ref().is_none_or(|shape| shape.iter().any(|dim| *dim < 0)))),
        ),
        "domain" => texts([operator.kind.rsplit_once('.').map_or("ai.onnx", |(domain, _)| domain)]),
        _ => Vec::new(),
    }
}

/// Height and width of a window, dilation included.
fn kernel(view: &View, operator: &Operator) -> Option<(i64, i64)> {
    let int = |name: &str| match operator.attributes.get(name) {
        Some(Attribute::Int(value)) => Some(*value),
        _ => None,
    };
    if let (Some(height), Some(width)) = (int("filter_height"), int("filter_width")) {
        return Some((height, width));
    }
    // [outputs, height, width, inputs] of CONV_2D and TRANSPOSE_CONV, [1, height, width, channels] of the depthwise one.
    if !["CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"].contains(&operator.kind.as_str()) {
        return None;
    }
    let [_, height, width, _] = view.input(operator, 1)?.shape.as_deref()? else { return None };
    let dilated = |size: i64, by: Option<i64>| (size - 1) * by.unwrap_or(1).max(1) + 1;
    Some((dilated(*height, int("dilation_h_factor")), dilated(*width, int("dilation_w_factor"))))
}
