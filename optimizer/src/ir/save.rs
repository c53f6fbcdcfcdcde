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
        let graph = self.graph.written(outside, more);
        let mut writer = Writer::with_capacity(head.len() + graph.len() + tail.len() + 16);
        writer.raw(&head.finish()).bytes(7, &graph).raw(&tail);
        writer.finish()
    }
}

impl Graph {
    fn kept_outside(&self, name: &str, external: &External) -> bool {
        self.initializers.get(name).is_some_and(|tensor| digest(tensor) == external.digest)
    }

    fn written(&self, outside: bool, more: &[Value]) -> Vec<u8> {
        // Room for the constants, which are nearly all of it: growing would move them again and again.
        let data = self.initializers.iter().map(|(name, tensor)| tensor.byte_len() + name.len() + 64);
        let mut writer = Writer::with_capacity(data.sum());
        for node in &self.nodes {
            writer.bytes(1, &node.to_bytes());
        }
        writer.bytes(2, self.name.as_bytes());
        for (name, tensor) in &self.initializers {
            match self.external.get(name).filter(|external| outside && self.kept_outside(name, external)) {
                Some(external) => writer.bytes(5, &external.proto),
                None => put_tensor(&mut writer, 5, name, tensor),
            };
        }
        writer.raw(&self.rest);
        for value in &self.inputs {
            writer.bytes(11, &value_bytes(value));
        }
        for value in self.outputs.iter().chain(more) {
            writer.bytes(12, &value_bytes(value));
        }
        writer.finish()
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
        Attribute::Tensor(value) => put_tensor(&mut writer, 5, "", value).int(20, 4),
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

/// Writes a tensor as a field; its data go from where they are to where they belong, without a stop.
fn put_tensor<'a>(writer: &'a mut Writer, number: u32, name: &str, tensor: &Tensor) -> &'a mut Writer {
    if let TensorData::Opaque(proto) = &tensor.data {
        return writer.bytes(number, proto);
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
    let head = head.finish();
    writer.announce(number, head.len() + len).raw(&head).append(|out| tensor.put_bytes(out))
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
