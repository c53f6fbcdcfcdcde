//! What can be refused before an emulator starts: a damaged file, a float model, one that no layout of memory can fit. What
//! depends on kernels (operators, versions, shapes) the firmware refuses itself, by name.

use super::{CortexMError, Limits};
use edgeyard_tflite::{BuiltinOp, Model, ReadError, Subgraph, TensorType};

/// These touch floats at the edges of an int8 model, or only move bytes.
const TAKES_FLOATS: [BuiltinOp; 5] =
    [BuiltinOp::QUANTIZE, BuiltinOp::DEQUANTIZE, BuiltinOp::RESHAPE, BuiltinOp::SQUEEZE, BuiltinOp::EXPAND_DIMS];

/// Refuses what cannot run on any device of a class with these limits.
///
/// # Errors
/// `NotTflite`, `Corrupt`, `Float`, or `Limit` with both numbers.
pub fn preflight(file: &[u8], limits: &Limits) -> Result<(), CortexMError> {
    limits.check_model(file)?;
    let model = match edgeyard_tflite::read(file) {
        Ok(model) => model,
        // Whole, but with parts that our reader leaves out: the firmware says which, and may know them.
        Err(ReadError::Unsupported { .. }) => return Ok(()),
        Err(error) => return Err(CortexMError::Corrupt(error)),
    };
    let Some(graph) = model.subgraphs.first() else { return Ok(()) };
    refuse_floats(graph)?;
    limits.check_live(live_bytes(&model, graph))
}

fn refuse_floats(graph: &Subgraph) -> Result<(), CortexMError> {
    for (index, operator) in graph.operators.iter().enumerate() {
        if TAKES_FLOATS.contains(&operator.code.builtin) {
            continue;
        }
        for tensor in operator.inputs.iter().chain(&operator.outputs) {
            // Absent optional inputs are -1.
            let Some(tensor) = usize::try_from(*tensor).ok().and_then(|t| graph.tensors.get(t)) else { continue };
            if matches!(tensor.dtype, TensorType::Float16 | TensorType::Float32 | TensorType::Float64) {
                let operator = operator.code.custom.clone().unwrap_or_else(|| operator.code.builtin.to_string());
                return Err(CortexMError::Float { index, operator, tensor: tensor.name.clone() });
            }
        }
    }
    Ok(())
}

/// Bytes of the tensors that are alive together, at the worst operator: no plan of an arena needs less. The firmware's needs
/// more by its tables, working memory and alignment. Tensors of unknown size count nothing.
fn live_bytes(model: &Model, graph: &Subgraph) -> u64 {
    let last_operator = graph.operators.len().saturating_sub(1);
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; graph.tensors.len()];
    let mut touch = |tensor: i32, at: usize| {
        if let Some(life) = usize::try_from(tensor).ok().and_then(|t| lives.get_mut(t)) {
            let (first, last) = life.get_or_insert((at, at));
            (*first, *last) = ((*first).min(at), (*last).max(at));
        }
    };
    graph.inputs.iter().for_each(|t| touch(*t, 0));
    for (at, operator) in graph.operators.iter().enumerate() {
        operator.inputs.iter().chain(&operator.outputs).for_each(|t| touch(*t, at));
    }
    graph.outputs.iter().for_each(|t| touch(*t, last_operator));
    let alive = |at: usize| -> u64 {
        let tensors = graph.tensors.iter().zip(&lives);
        let computed = tensors.filter(|(tensor, _)| model.data_of(tensor).is_empty());
        let alive = computed.filter(|(_, life)| life.is_some_and(|(first, last)| first <= at && at <= last));
        alive.map(|(tensor, _)| tensor.byte_size().unwrap_or(0) as u64).fold(0, u64::saturating_add)
    };
    (0..=last_operator).map(alive).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeyard_tflite::{Operator, Tensor, op_options};

    /// x -> a -> b -> y of these bytes, with x also read by the last operator.
    fn chain(dtype: TensorType, bytes: [i32; 4]) -> Model {
        let mut model = Model::new("chain");
        let named = |(name, n): (&str, i32)| Tensor { name: name.into(), ..Tensor::new(dtype, vec![n]) };
        let step = |inputs: Vec<i32>, output| {
            Operator::builtin(BuiltinOp::ADD, op_options::Add::default(), inputs, vec![output])
        };
        model.subgraphs.push(Subgraph {
            tensors: ["x", "a", "b", "y"].into_iter().zip(bytes).map(named).collect(),
            inputs: vec![0],
            outputs: vec![3],
            operators: vec![step(vec![0, -1], 1), step(vec![1], 2), step(vec![2, 0], 3)],
            ..Subgraph::default()
        });
        model
    }

    #[test]
    fn the_live_set_is_what_lives_together() {
        let model = chain(TensorType::Int8, [10, 100, 1000, 3]);
        assert_eq!(live_bytes(&model, &model.subgraphs[0]), 10 + 100 + 1000);
        let model = chain(TensorType::Int8, [10, 5, 100, 3000]);
        assert_eq!(live_bytes(&model, &model.subgraphs[0]), 10 + 100 + 3000);
    }

    #[test]
    fn both_numbers_of_a_limit_are_told() {
        let file = edgeyard_tflite::write(&chain(TensorType::Int8, [10, 100, 1000, 3])).unwrap();
        let exact = Limits { arena: Some(1110), memory: Some(1110), flash: Some(file.len() as u64) };
        preflight(&file, &exact).unwrap();
        let refused = |limits: Limits| preflight(&file, &limits).unwrap_err().to_string();
        let e = refused(Limits { arena: Some(1109), ..exact });
        assert_eq!(e, "the model needs 1110 bytes of arena at the least, and the device has 1109");
        let e = refused(Limits { memory: Some(64), ..exact });
        assert_eq!(e, "the model needs 1110 bytes of memory at the least, and the device has 64");
        let e = refused(Limits { flash: Some(99), ..exact });
        assert_eq!(e, format!("the model needs {} bytes of flash, and the device has 99", file.len()));
    }

    #[test]
    fn a_float_tensor_is_named() {
        let file = edgeyard_tflite::write(&chain(TensorType::Float32, [1, 1, 1, 1])).unwrap();
        let e = preflight(&file, &Limits::default()).unwrap_err().to_string();
        assert!(e.contains("operator 0 (ADD)") && e.contains("tensor \"x\"") && e.contains("int8"), "{e}");
    }

    #[test]
    fn a_damaged_file_is_told_from_one_of_another_kind() {
        let file = edgeyard_tflite::write(&chain(TensorType::Int8, [1, 1, 1, 1])).unwrap();
        let refused = |bytes: &[u8]| preflight(bytes, &Limits::default()).unwrap_err();
        assert!(matches!(refused(&file[..file.len() / 2]), CortexMError::Corrupt(_)));
        assert!(matches!(refused(b"nothing of the kind"), CortexMError::NotTflite(_)));
    }
}
