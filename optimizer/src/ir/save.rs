//! Writes models. Nodes nobody touched and fields nobody read go out byte for byte as they came in; the same model
//! always gives the same bytes.

use std::collections::BTreeSet;

use super::load::digest;
use super::node::{Attribute, Node};
use super::tensor::{DataType, Tensor, TensorData};
use super::wire::Writer;
use super::{Dim, External, Graph, Model, Value};

/// The lowest format version whose readers take initializers that are not inputs, and opset 11 and up.
const MIN_IR_VERSION: i64 = 6;

impl Model {
    /// The file's bytes, weights inside.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.written(false, &[])
    }

    /// The file's bytes, constants that lay in files beside the model and were not changed still there: the second part
    /// names those files, relative to the model. They are not written, and must stay as they are.
    pub fn to_bytes_beside_data(&self) -> (Vec<u8>, BTreeSet<String>) {
        let kept = |(name, external): &(&String, &External)| self.graph.kept_outside(name, external);
        let files = self.graph.external.iter().filter(kept).map(|(_, external)| external.file.clone()).collect();
        (self.written(true, &[]), files)
    }

    /// The file's bytes, weights inside, with more outputs than the model has.
    pub(crate) fn to_bytes_showing(&self, more: &[Value]) -> Vec<u8> {
        self.written(false, more)
    }

    fn written(&self, outside: bool, more: &[Value]) -> Vec<u8> {
        let mut head = Writer::default();
        head.int(1, self.ir_version.max(MIN_IR_VERSION)).raw(&self.rest);
        let mut writer = Writer::default();
        for (domain, version) in &self.opsets {
            let mut opset = Writer::default();
            if !domain.is_empty() {
                opset.bytes(1, domain.as_bytes());
            }
            writer.bytes(8, &opset.int(2, *version).clone().finish());
        }
        let tail = writer.finish();
        let graph = self.graph.pieces(outside, more);
        let len = graph.iter().map(Piece::len).sum();
        let mut writer = Writer::with_capacity(head.len() + len + tail.len() + 16);
        writer.raw(&head.finish()).announce(7, len);
        for piece in &graph {
            match piece {
                Piece::Fields(bytes) => writer.raw(bytes),
                Piece::Data(tensor) => writer.append(|out| tensor.put_bytes(out)),
            };
        }
        writer.raw(&tail);
        writer.finish()
    }
}

/// A part of a graph's message. The lengths of all are known before any is copied, so that weights go from where they are
/// to where they belong without a stop.
enum Piece<'a> {
    Fields(Vec<u8>),
    Data(&'a Tensor),
}

impl Piece<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Fields(bytes) => bytes.len(),
            Self::Data(tensor) => tensor.byte_len(),
        }
    }
}

impl Graph {
    fn kept_outside(&self, name: &str, external: &External) -> bool {
        self.initializers.get(name).is_some_and(|tensor| digest(tensor) == external.digest)
    }

    fn pieces(&self, outside: bool, more: &[Value]) -> Vec<Piece<'_>> {
        let (mut pieces, mut writer) = (Vec::new(), Writer::default());
        for node in &self.nodes {
            writer.bytes(1, &node.to_bytes());
        }
        writer.bytes(2, self.name.as_bytes());
        for (name, tensor) in &self.initializers {
            if let Some(external) =
                self.external.get(name).filter(|external| outside && self.kept_outside(name, external))
            {
                writer.bytes(5, &external.proto);
                continue;
            }
            announce_tensor(&mut writer, 5, name, tensor);
            pieces.push(Piece::Fields(std::mem::take(&mut writer).finish()));
            pieces.push(Piece::Data(tensor));
        }
        writer.raw(&self.rest);
        for value in &self.inputs {
            writer.bytes(11, &value_bytes(value));
        }
        for value in self.outputs.iter().chain(more) {
            writer.bytes(12, &value_bytes(value));
        }
        pieces.push(Piece::Fields(writer.finish()));
        pieces
    }
}

impl Node {
    /// The `NodeProto`.
    pub fn to_bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut writer = Writer::default();
        for name in &self.inputs {
            writer.bytes(1, name.as_bytes());
        }
        for name in &self.outputs {
            writer.bytes(2, name.as_bytes());
        }
        if !self.name.is_empty() {
            writer.bytes(3, self.name.as_bytes());
        }
        writer.bytes(4, self.op_type.as_bytes());
        for (name, value) in &self.attributes {
            writer.bytes(5, &attribute_bytes(name, value));
        }
        if !self.domain.is_empty() {
            writer.bytes(7, self.domain.as_bytes());
        }
        writer.finish()
    }
}

fn attribute_bytes(name: &str, value: &Attribute) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.bytes(1, name.as_bytes());
    match value {
        Attribute::Float(value) => writer.float(2, *value).int(20, 1),
        Attribute::Int(value) => writer.int(3, *value).int(20, 2),
        Attribute::String(value) => writer.bytes(4, value).int(20, 3),
        Attribute::Tensor(value) => {
            announce_tensor(&mut writer, 5, "", value);
            writer.append(|out| value.put_bytes(out)).int(20, 4)
        }
        Attribute::Floats(values) => {
            for value in values {
                writer.float(7, *value);
            }
            writer.int(20, 6)
        }
        Attribute::Ints(values) => {
            for value in values {
                writer.int(8, *value);
            }
            writer.int(20, 7)
        }
        Attribute::Strings(values) => {
            for value in values {
                writer.bytes(9, value);
            }
            writer.int(20, 8)
        }
        Attribute::Opaque(bytes) => return bytes.clone(),
    };
    writer.finish()
}

/// Writes a tensor as a field, all but its data, which must follow. Of an opaque one this is all.
fn announce_tensor(writer: &mut Writer, number: u32, name: &str, tensor: &Tensor) {
    if let TensorData::Opaque(proto) = &tensor.data {
        writer.bytes(number, proto);
        return;
    }
    let mut head = Writer::default();
    if !tensor.dims.is_empty() {
        head.packed_ints(1, &tensor.dims.iter().map(|dim| *dim as i64).collect::<Vec<_>>());
    }
    head.int(2, tensor.dtype().onnx());
    if !name.is_empty() {
        head.bytes(8, name.as_bytes());
    }
    let len = tensor.byte_len();
    head.announce(9, len);
    writer.announce(number, head.len() + len).raw(&head.finish());
}

fn value_bytes(value: &Value) -> Vec<u8> {
    let Value { name, dtype, shape, has_shape } = value;
    let mut writer = Writer::default();
    writer.bytes(1, name.as_bytes());
    if *dtype == DataType::Undefined {
        return writer.finish();
    }
    let mut kind = Writer::default();
    kind.int(1, dtype.onnx());
    if *has_shape {
        let mut dims = Writer::default();
        for dim in shape {
            let mut inner = Writer::default();
            match dim {
                Dim::Static(size) => {
                    inner.int(1, *size as i64);
                }
                Dim::Symbol(name) => {
                    inner.bytes(2, name.as_bytes());
                }
                Dim::Unknown => {}
            }
            dims.bytes(1, &inner.finish());
        }
        kind.bytes(2, &dims.finish());
    }
    let mut tensor = Writer::default();
    tensor.bytes(1, &kind.finish());
    writer.bytes(2, &tensor.finish());
    writer.finish()
}
