//! From the owned tree to bytes: one table of operator codes, constant data aligned to 16 bytes, equal vectors stored
//! once.

use crate::flat::write::{Builder, Fields, Position};
use crate::model::{Model, Operator, OperatorCode, Quantization, Signature, Subgraph, Tensor};
use crate::ops::BuiltinOp;
use crate::{IDENTIFIER, WriteError};

/// Constants larger than this are not compared for sharing.
const SHARED_LIMIT: usize = 4096;

/// FlatBuffers offsets are 32-bit and signed in places.
const FILE_LIMIT: usize = i32::MAX as usize;

/// Numbers from here on do not fit the first operator-code field, which then holds this.
const PLACEHOLDER: i32 = 127;

/// Writes a .tflite file.
///
/// # Errors
/// Refuses what the tree cannot represent (sparse tensors, quantization details, unread options), dangling indices and
/// files past 2 GiB.
pub fn write(model: &Model) -> Result<Vec<u8>, WriteError> {
    check(model)?;
    let mut builder = Builder::default();
    let mut codes: Vec<&OperatorCode> = Vec::new();
    for operator in model.subgraphs.iter().flat_map(|subgraph| &subgraph.operators) {
        if !codes.contains(&&operator.code) {
            codes.push(&operator.code);
        }
    }

    // The last thing pushed comes first in the file, so constants, pushed first, end up behind the structure.
    let buffers: Vec<Position> = model.buffers.iter().map(|data| buffer(&mut builder, data)).collect();
    let subgraphs: Vec<Position> =
        model.subgraphs.iter().map(|graph| subgraph(&mut builder, graph, &codes)).collect::<Result<_, WriteError>>()?;
    let code_tables: Vec<Position> = codes.iter().map(|code| operator_code(&mut builder, code)).collect();
    let metadata: Vec<Position> = model
        .metadata
        .iter()
        .map(|(name, index)| {
            let mut fields = Fields::default();
            fields.child(0, builder.string(name));
            fields.u32(1, *index, 0);
            builder.table(fields)
        })
        .collect();
    let signatures: Vec<Position> = model.signatures.iter().map(|one| signature(&mut builder, one)).collect();

    let mut root = Fields::default();
    root.u32(0, 3, 0);
    root.child(1, builder.tables(&code_tables));
    root.child(2, builder.tables(&subgraphs));
    if !model.description.is_empty() {
        root.child(3, builder.string(&model.description));
    }
    root.child(4, builder.tables(&buffers));
    if !metadata.is_empty() {
        root.child(6, builder.tables(&metadata));
    }
    if !signatures.is_empty() {
        root.child(7, builder.tables(&signatures));
    }
    let root = builder.table(root);
    Ok(builder.finish(root, IDENTIFIER))
}

fn check(model: &Model) -> Result<(), WriteError> {
    if model.buffers.first().is_none_or(|first| !first.is_empty()) {
        return Err(WriteError::FirstBuffer);
    }
    let data: usize = model.buffers.iter().map(Vec::len).sum();
    let tensors: usize = model.subgraphs.iter().map(|graph| graph.tensors.len() + graph.operators.len()).sum();
    // A kilobyte a tensor is far above what its tables take, per-channel scales aside, which constants bound.
    if data.saturating_mul(2).saturating_add(tensors.saturating_mul(1024)) > FILE_LIMIT {
        return Err(WriteError::TooLarge { bytes: data });
    }
    for graph in &model.subgraphs {
        let check = |what: &'static str, index: i64, count: usize| match usize::try_from(index) {
            Ok(at) if at < count => Ok(()),
            _ => Err(WriteError::BadIndex { what, index, count }),
        };
        for tensor in &graph.tensors {
            check("tensor buffer", i64::from(tensor.buffer), model.buffers.len())?;
            let stored = model.data_of(tensor).len();
            if stored != 0 && tensor.byte_size().is_some_and(|expected| expected != stored) {
                return Err(WriteError::DataSize { tensor: tensor.name.clone(), shape: tensor.shape.clone(), stored });
            }
            if tensor.sparse {
                return Err(WriteError::NotCarried { what: "sparse tensors" });
            }
            if tensor.quantization.as_ref().is_some_and(|q| q.has_details) {
                return Err(WriteError::NotCarried { what: "quantization details" });
            }
            if let Some(blocks) = tensor.quantization.as_ref().and_then(|quantization| quantization.blocks) {
                check("scales of blocks", i64::from(blocks.scales), graph.tensors.len())?;
                if blocks.zero_points != -1 {
                    check("zero points of blocks", i64::from(blocks.zero_points), graph.tensors.len())?;
                }
            }
        }
        let required = graph.inputs.iter().chain(&graph.outputs);
        for &index in required.chain(graph.operators.iter().flat_map(|operator| &operator.outputs)) {
            check("tensor", i64::from(index), graph.tensors.len())?;
        }
        for &index in graph.operators.iter().flat_map(|operator| operator.inputs.iter().chain(&operator.intermediates))
        {
            if index != -1 {
                check("tensor", i64::from(index), graph.tensors.len())?;
            }
        }
    }
    for (_, index) in &model.metadata {
        if *index as usize >= model.buffers.len() {
            return Err(WriteError::BadIndex {
                what: "metadata buffer",
                index: i64::from(*index),
                count: model.buffers.len(),
            });
        }
    }
    Ok(())
}

fn buffer(builder: &mut Builder, data: &[u8]) -> Position {
    let mut fields = Fields::default();
    if !data.is_empty() {
        let position = if data.len() <= SHARED_LIMIT {
            builder.vector(data.to_vec(), 1, 16)
        } else {
            builder.unshared_vector(data, 1, 16)
        };
        fields.child(0, position);
    }
    builder.shared_table(fields)
}

fn operator_code(builder: &mut Builder, code: &OperatorCode) -> Position {
    let mut fields = Fields::default();
    let builtin = if code.custom.is_some() { BuiltinOp::CUSTOM } else { code.builtin };
    // Both fields: interpreters older than TensorFlow 2.4 read only the first.
    fields.u8(0, builtin.0.min(PLACEHOLDER) as u8, 0);
    if let Some(custom) = &code.custom {
        fields.child(1, builder.string(custom));
    }
    fields.i32(2, code.version, 1);
    fields.i32(3, builtin.0, 0);
    builder.table(fields)
}

fn subgraph(builder: &mut Builder, graph: &Subgraph, codes: &[&OperatorCode]) -> Result<Position, WriteError> {
    let tensors: Vec<Position> = graph.tensors.iter().map(|one| tensor(builder, one)).collect();
    let operators: Vec<Position> =
        graph.operators.iter().map(|one| operator(builder, one, codes)).collect::<Result<_, _>>()?;
    let mut fields = Fields::default();
    fields.child(0, builder.tables(&tensors));
    fields.child(1, builder.i32s(&graph.inputs));
    fields.child(2, builder.i32s(&graph.outputs));
    fields.child(3, builder.tables(&operators));
    if !graph.name.is_empty() {
        fields.child(4, builder.string(&graph.name));
    }
    Ok(builder.table(fields))
}

fn tensor(builder: &mut Builder, tensor: &Tensor) -> Position {
    let mut fields = Fields::default();
    fields.child(0, builder.i32s(&tensor.shape));
    fields.u8(1, tensor.dtype as u8, 0);
    fields.u32(2, tensor.buffer, 0);
    if !tensor.name.is_empty() {
        fields.child(3, builder.string(&tensor.name));
    }
    if let Some(quantization) = &tensor.quantization {
        fields.child(4, self::quantization(builder, quantization));
    }
    fields.u8(5, u8::from(tensor.is_variable), 0);
    if !tensor.shape_signature.is_empty() {
        fields.child(7, builder.i32s(&tensor.shape_signature));
    }
    // Needed only where the shape does not say it: a scalar.
    fields.u8(8, u8::from(tensor.has_rank && tensor.shape.is_empty()), 0);
    builder.table(fields)
}

fn quantization(builder: &mut Builder, quantization: &Quantization) -> Position {
    let mut fields = Fields::default();
    for (slot, values) in [(0, &quantization.min), (1, &quantization.max), (2, &quantization.scale)] {
        if !values.is_empty() {
            fields.child(slot, builder.f32s(values));
        }
    }
    if !quantization.zero_point.is_empty() {
        fields.child(3, builder.i64s(&quantization.zero_point));
    }
    if let Some(blocks) = quantization.blocks {
        let mut details = Fields::default();
        details.i32(0, blocks.scales, 0);
        details.i32(1, blocks.zero_points, 0);
        details.i32(2, blocks.size, 0);
        fields.u8(4, crate::decode::BLOCKWISE, 0);
        fields.child(5, builder.table(details));
    }
    fields.i32(6, quantization.dimension, 0);
    builder.shared_table(fields)
}

fn operator(builder: &mut Builder, operator: &Operator, codes: &[&OperatorCode]) -> Result<Position, WriteError> {
    let code = codes.iter().position(|code| **code == operator.code).expect("every operator's code was collected");
    let mut fields = Fields::default();
    fields.u32(0, code as u32, 0);
    fields.child(1, builder.i32s(&operator.inputs));
    fields.child(2, builder.i32s(&operator.outputs));
    if let Some((number, options)) = operator.options.write(builder)? {
        fields.u8(3, number, 0);
        fields.child(4, options);
    }
    if !operator.custom_options.is_empty() {
        fields.child(5, builder.vector(operator.custom_options.clone(), 1, 1));
    }
    if !operator.mutating_inputs.is_empty() {
        fields.child(7, builder.vector(operator.mutating_inputs.clone(), 1, 1));
    }
    if !operator.intermediates.is_empty() {
        fields.child(8, builder.i32s(&operator.intermediates));
    }
    Ok(builder.table(fields))
}

fn signature(builder: &mut Builder, signature: &Signature) -> Position {
    let mut named = |tensors: &[(String, u32)]| {
        let tables: Vec<Position> = tensors
            .iter()
            .map(|(name, index)| {
                let mut fields = Fields::default();
                fields.child(0, builder.string(name));
                fields.u32(1, *index, 0);
                builder.table(fields)
            })
            .collect();
        builder.tables(&tables)
    };
    let (inputs, outputs) = (named(&signature.inputs), named(&signature.outputs));
    let mut fields = Fields::default();
    fields.child(0, inputs);
    fields.child(1, outputs);
    fields.child(2, builder.string(&signature.key));
    fields.u32(4, signature.subgraph, 0);
    builder.table(fields)
}
