//! From bytes to the owned tree. Everything that later code indexes with is checked here, so that a [`Model`] that was
//! read holds together: tensor, buffer, operator-code and subgraph indices are in range and constants have the size
//! their shape says.

use crate::flat::read::{Reader, Table};
use crate::model::{Blocks, Model, Operator, OperatorCode, Quantization, Signature, Subgraph, Tensor};
use crate::ops::BuiltinOp;
use crate::options::Options;
use crate::types::TensorType;
use crate::{IDENTIFIER, ReadError};

/// Reads a .tflite file.
///
/// # Errors
/// Says what is malformed and where. No input makes it panic, read outside `bytes`, or allocate out of proportion.
pub fn read(bytes: &[u8]) -> Result<Model, ReadError> {
    let reader = Reader::new(bytes);
    let root = reader.root(IDENTIFIER)?;
    let version = root.u32(0, 0, "model version")?;
    if version != 3 {
        return Err(ReadError::SchemaVersion { version });
    }
    let codes = root.tables(1, "operator codes")?.iter().map(operator_code).collect::<Result<Vec<_>, _>>()?;
    let buffers = root
        .tables(4, "buffers")?
        .iter()
        .map(|table| buffer(table, reader.bytes()).map(<[u8]>::to_vec))
        .collect::<Result<Vec<_>, _>>()?;
    let subgraphs = root
        .tables(2, "subgraphs")?
        .iter()
        .map(|table| subgraph(table, &codes, &buffers))
        .collect::<Result<Vec<_>, _>>()?;
    if subgraphs.is_empty() {
        return Err(ReadError::Missing { what: "subgraph" });
    }
    let metadata = root
        .tables(6, "metadata")?
        .iter()
        .map(|table| {
            let index = table.u32(1, 0, "metadata buffer")?;
            in_range("metadata buffer", i64::from(index), buffers.len())?;
            Ok((table.string(0, "metadata name")?.unwrap_or_default(), index))
        })
        .collect::<Result<Vec<_>, ReadError>>()?;
    let signatures = root
        .tables(7, "signatures")?
        .iter()
        .map(|table| signature(table, &subgraphs))
        .collect::<Result<Vec<_>, _>>()?;
    let description = root.string(3, "description")?.unwrap_or_default();
    Ok(Model { description, subgraphs, buffers, metadata, signatures })
}

fn in_range(what: &'static str, index: i64, count: usize) -> Result<(), ReadError> {
    match usize::try_from(index) {
        Ok(index) if index < count => Ok(()),
        _ => Err(ReadError::BadIndex { what, index, count }),
    }
}

fn operator_code(table: &Table<'_, '_>) -> Result<OperatorCode, ReadError> {
    // The first field held the operator until numbers passed 127; newer files fill both, and the larger one counts.
    let deprecated = i32::from(table.u8(0, 0, "operator code")? as i8);
    let builtin = table.i32(3, 0, "operator code")?.max(deprecated);
    let custom = table.string(1, "custom operator")?;
    Ok(OperatorCode { builtin: BuiltinOp(builtin), custom, version: table.i32(2, 1, "operator version")? })
}

fn buffer<'a>(table: &Table<'_, 'a>, file: &'a [u8]) -> Result<&'a [u8], ReadError> {
    const WHAT: &str = "buffer";
    // Files past 2 GiB keep data behind the FlatBuffer and give its place in the file.
    let (offset, size) = (table.u64(1, 0, WHAT)?, table.u64(2, 0, WHAT)?);
    if offset > 1 {
        let outside = || ReadError::OutOfBounds { what: WHAT, offset: offset as usize, file: file.len() };
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let end = start.checked_add(usize::try_from(size).map_err(|_| outside())?).ok_or_else(outside)?;
        return file.get(start..end).ok_or_else(outside);
    }
    Ok(table.byte_vector(0, WHAT)?.unwrap_or_default())
}

fn subgraph(table: &Table<'_, '_>, codes: &[OperatorCode], buffers: &[Vec<u8>]) -> Result<Subgraph, ReadError> {
    let tensors =
        table.tables(0, "tensors")?.iter().map(|table| tensor(table, buffers)).collect::<Result<Vec<_>, _>>()?;
    for blocks in tensors.iter().filter_map(|tensor| tensor.quantization.as_ref()?.blocks) {
        in_range("scales of blocks", i64::from(blocks.scales), tensors.len())?;
        if blocks.zero_points != -1 {
            in_range("zero points of blocks", i64::from(blocks.zero_points), tensors.len())?;
        }
    }
    let operators = table
        .tables(3, "operators")?
        .iter()
        .map(|table| operator(table, codes, tensors.len()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Subgraph {
        name: table.string(4, "subgraph name")?.unwrap_or_default(),
        inputs: indices(table, 1, "subgraph inputs", tensors.len(), false)?,
        outputs: indices(table, 2, "subgraph outputs", tensors.len(), false)?,
        tensors,
        operators,
    })
}

fn indices(
    table: &Table<'_, '_>,
    slot: u16,
    what: &'static str,
    count: usize,
    optional: bool,
) -> Result<Vec<i32>, ReadError> {
    let indices = table.i32s(slot, what)?.unwrap_or_default();
    for &index in &indices {
        if !(optional && index == -1) {
            in_range(what, i64::from(index), count)?;
        }
    }
    Ok(indices)
}

fn tensor(table: &Table<'_, '_>, buffers: &[Vec<u8>]) -> Result<Tensor, ReadError> {
    let shape = table.i32s(0, "tensor shape")?.unwrap_or_default();
    let tensor = Tensor {
        name: table.string(3, "tensor name")?.unwrap_or_default(),
        shape_signature: table.i32s(7, "shape signature")?.unwrap_or_default(),
        dtype: TensorType::from_number(table.u8(1, 0, "tensor type")?)?,
        buffer: table.u32(2, 0, "tensor buffer")?,
        quantization: table.table(4, "quantization")?.as_ref().map(quantization).transpose()?,
        is_variable: table.u8(5, 0, "variable")? != 0,
        sparse: table.has(6)?,
        // Files from before this field leave it out although the shape is there.
        has_rank: table.u8(8, 0, "has rank")? != 0 || !shape.is_empty(),
        shape,
    };
    in_range("tensor buffer", i64::from(tensor.buffer), buffers.len())?;
    if tensor.elements().is_none() {
        return Err(ReadError::BadShape { tensor: tensor.name, shape: tensor.shape });
    }
    let stored = buffers[tensor.buffer as usize].len();
    if let Some(expected) = tensor.byte_size()
        && !tensor.sparse
        && stored != 0
        && stored != expected
    {
        return Err(ReadError::DataSize { tensor: tensor.name, stored, expected });
    }
    if let Some(quantization) = &tensor.quantization {
        let (scales, zero_points) = (quantization.scale.len(), quantization.zero_point.len());
        if zero_points != 0 && zero_points != scales {
            return Err(ReadError::Scales { tensor: tensor.name, scales, zero_points });
        }
    }
    if table.u32(10, 0, "external buffer")? != 0 {
        return Err(ReadError::Unsupported { what: "constants in external files" });
    }
    Ok(tensor)
}

/// The kind of quantization details that blocks are.
pub(crate) const BLOCKWISE: u8 = 2;

fn quantization(table: &Table<'_, '_>) -> Result<Quantization, ReadError> {
    const WHAT: &str = "quantization details";
    let kind = table.u8(4, 0, WHAT)?;
    Ok(Quantization {
        min: table.f32s(0, "quantization min")?.unwrap_or_default(),
        max: table.f32s(1, "quantization max")?.unwrap_or_default(),
        scale: table.f32s(2, "scales")?.unwrap_or_default(),
        zero_point: table.i64s(3, "zero points")?.unwrap_or_default(),
        dimension: table.i32(6, 0, "quantized dimension")?,
        blocks: match table.table(5, WHAT)?.filter(|_| kind == BLOCKWISE) {
            Some(details) => Some(Blocks {
                scales: details.i32(0, 0, WHAT)?,
                zero_points: details.i32(1, 0, WHAT)?,
                size: details.i32(2, 0, WHAT)?,
            }),
            None => None,
        },
        has_details: kind != 0 && kind != BLOCKWISE,
    })
}

fn operator(table: &Table<'_, '_>, codes: &[OperatorCode], tensors: usize) -> Result<Operator, ReadError> {
    let code = table.u32(0, 0, "operator code index")?;
    in_range("operator code index", i64::from(code), codes.len())?;
    let second = table.u8(11, 0, "operator options")?;
    let options = if second != 0 {
        Options::Unread(second)
    } else {
        Options::read(table.u8(3, 0, "operator options")?, table.table(4, "operator options")?)?
    };
    if table.u64(9, 0, "large custom options")? > 1 {
        return Err(ReadError::Unsupported { what: "custom options stored behind the FlatBuffer" });
    }
    Ok(Operator {
        code: codes[code as usize].clone(),
        inputs: indices(table, 1, "operator inputs", tensors, true)?,
        outputs: indices(table, 2, "operator outputs", tensors, false)?,
        options,
        custom_options: table.byte_vector(5, "custom options")?.unwrap_or_default().to_vec(),
        mutating_inputs: table.byte_vector(7, "mutating inputs")?.unwrap_or_default().to_vec(),
        intermediates: indices(table, 8, "intermediates", tensors, true)?,
    })
}

fn signature(table: &Table<'_, '_>, subgraphs: &[Subgraph]) -> Result<Signature, ReadError> {
    let subgraph = table.u32(4, 0, "signature subgraph")?;
    in_range("signature subgraph", i64::from(subgraph), subgraphs.len())?;
    let tensors = subgraphs[subgraph as usize].tensors.len();
    let named = |slot| {
        table
            .tables(slot, "signature tensors")?
            .iter()
            .map(|table| {
                let index = table.u32(1, 0, "signature tensor")?;
                in_range("signature tensor", i64::from(index), tensors)?;
                Ok((table.string(0, "signature tensor")?.unwrap_or_default(), index))
            })
            .collect::<Result<Vec<_>, ReadError>>()
    };
    Ok(Signature {
        key: table.string(2, "signature key")?.unwrap_or_default(),
        inputs: named(0)?,
        outputs: named(1)?,
        subgraph,
    })
}
