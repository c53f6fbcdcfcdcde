//! Reads ONNX files, hostile ones included: every length is checked against the bytes that are there, every name
//! against what defines it, so that the rest of the optimizer can trust the graph.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::node::{Attribute, Node};
use super::tensor::{DataType, Tensor, TensorData};
use super::wire::{Field, Reader, Scalar, WireError};
use super::{Dim, External, Graph, Model, OPSETS, Value};

const MAX_NODES: usize = 1_000_000;
pub(super) const MAX_RANK: usize = 16;
const MAX_DEPTH: usize = 16;
const MAX_ELEMENTS: usize = 1 << 33;
/// Far above any version of the format: a first number beyond it tells that a file is something else.
const MAX_IR_VERSION: u64 = 64;

/// Why a file is no model that can be worked with.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It is something else.
    #[error("not an ONNX file: {0}")]
    NotOnnx(String),
    /// It starts as an ONNX file and then breaks.
    #[error("the ONNX file is {0}")]
    Wire(#[from] WireError),
    /// A well-formed file that contradicts itself.
    #[error("the ONNX file is invalid: {0}")]
    Invalid(String),
    /// A valid file that is not supported.
    #[error("the ONNX file is not supported: {0}")]
    Unsupported(String),
    /// Weights beside the model.
    #[error("tensor {tensor}: external data file {file}: {problem}")]
    External {
        /// Whose data.
        tensor: String,
        /// The location the model gives.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file could not be read.
    #[error("cannot read the model")]
    Io(#[from] std::io::Error),
}

type Result<T, E = LoadError> = std::result::Result<T, E>;

/// Reads a model file; external data is looked for beside it.
pub fn load_file(path: &Path) -> Result<Model> {
    let data = fs_err::read(path)?;
    load(&data, path.parent())
}

/// Reads a model from memory; without `folder`, external data is an error.
pub fn load(data: &[u8], folder: Option<&Path>) -> Result<Model> {
    let context = Context { folder };
    let mut reader = Reader::new(data);
    let first = reader.field().map(|field| field.is_some_and(|field| looks_like_model(&field)));
    if !matches!(first, Ok(true)) {
        return Err(LoadError::NotOnnx(what_else(data)));
    }
    let mut reader = Reader::new(data);
    let (mut ir_version, mut graph, mut opsets, mut rest) = (0, None, BTreeMap::new(), Vec::new());
    while let Some(field) = reader.field()? {
        match field.number {
            1 => ir_version = field.int()?,
            7 => graph = Some(field.message()?),
            8 => {
                let (domain, version) = opset(field.message()?)?;
                opsets.insert(domain, version);
            }
            _ => rest.extend_from_slice(field.raw),
        }
    }
    if !u64::try_from(ir_version).is_ok_and(|version| version <= MAX_IR_VERSION) {
        return Err(LoadError::Invalid(format!("its ir_version {ir_version} is no version of the format")));
    }
    let Some(graph) = graph else {
        return Err(LoadError::NotOnnx(format!("it holds no graph; it may be cut off at byte {}", data.len())));
    };
    let Some(&opset) = opsets.get("") else {
        return Err(LoadError::Invalid(format!(
            "no operator set of the default domain is named; the file may be cut off at byte {}",
            data.len()
        )));
    };
    if !OPSETS.contains(&opset) {
        return Err(LoadError::Unsupported(format!(
            "opset {opset}; opsets {} to {} are: export it again with one of them",
            OPSETS.start(),
            OPSETS.end()
        )));
    }
    let graph = self::graph(graph, opset, &context)?;
    Ok(Model { ir_version, opsets, graph, rest })
}

struct Context<'a> {
    folder: Option<&'a Path>,
}

/// ONNX writers put fields in order of their numbers, so the first tells whether this can be a model.
fn looks_like_model(field: &Field<'_>) -> bool {
    match field.value {
        Scalar::Varint(version) => field.number == 1 && (1..=MAX_IR_VERSION).contains(&version),
        Scalar::Bytes(_) => matches!(field.number, 2 | 7 | 8),
        _ => false,
    }
}

fn what_else(data: &[u8]) -> String {
    let starts = |magic: &[u8]| data.starts_with(magic);
    if data.is_empty() {
        "it is empty".to_owned()
    } else if data.get(4..8) == Some(b"TFL3") {
        "it is a TensorFlow Lite model; declare it as a .tflite instead of as ONNX".to_owned()
    } else if starts(b"PK\x03\x04") {
        "it is a zip archive (a PyTorch checkpoint, a Keras model or an .npz); export it to ONNX".to_owned()
    } else if starts(b"version https://git-lfs") {
        "it is a Git LFS pointer; run `git lfs pull`".to_owned()
    } else if starts(b"<") {
        "it is a web page or XML; the address does not give the model itself".to_owned()
    } else if starts(b"\x89HDF") {
        "it is an HDF5 file (Keras); export it to ONNX".to_owned()
    } else if starts(b"\x1f\x8b") {
        "it is compressed with gzip; unpack it first".to_owned()
    } else {
        "it does not start with an ONNX format version".to_owned()
    }
}

fn opset(mut reader: Reader<'_>) -> Result<(String, i64)> {
    let (mut domain, mut version) = (String::new(), 0);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => domain = field.text()?.to_owned(),
            2 => version = field.int()?,
            _ => {}
        }
    }
    if domain == "ai.onnx" {
        domain.clear();
    }
    Ok((domain, version))
}

fn graph(reader: Reader<'_>, opset: i64, context: &Context<'_>) -> Result<Graph> {
    let mut graph = graph_fields(reader, opset, context)?;
    // What a branch gives is known by what makes it: exporters leave its type out.
    if let Some(value) = graph.inputs.iter().chain(&graph.outputs).find(|value| value.dtype == DataType::Undefined) {
        let text = format!("input or output {} is not a tensor of a known type", value.name);
        return Err(LoadError::Unsupported(text));
    }
    check_names(&mut graph)?;
    check_numbers(&graph)?;
    Ok(graph)
}

/// A graph inside an attribute of a node, `then_branch` for example; `None` when the attribute is no graph. Names are
/// not checked: an inner graph may read what lies around it.
pub(crate) fn inner_graph(node: &Node, attribute: &str, opset: i64) -> Option<Result<Graph>> {
    let Some(Attribute::Opaque(bytes)) = node.attributes.get(attribute) else { return None };
    let find = || -> Result<Option<Graph>> {
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.field()? {
            if field.number == 6 {
                return Ok(Some(graph_fields(field.message()?, opset, &Context { folder: None })?));
            }
        }
        Ok(None)
    };
    find().transpose()
}

/// A weight that is not a number makes every result one: better said before work starts than by a runtime's output.
/// Infinities stay: attention masks are made of them.
pub(super) fn check_numbers(graph: &Graph) -> Result<()> {
    for (name, tensor) in &graph.initializers {
        let at = match &tensor.data {
            TensorData::F32(data) => first_nan(data),
            TensorData::F64(data) => data.iter().position(|value| value.is_nan()),
            TensorData::F16(data) => data.iter().position(|bits| half::f16::from_bits(*bits).is_nan()),
            _ => None,
        };
        if let Some(at) = at {
            return Err(LoadError::Invalid(format!(
                "tensor {name}: element {at} of {} is not a number (NaN); repair or train the model again",
                tensor.len()
            )));
        }
    }
    Ok(())
}

/// Where the first NaN stands. Blocks are searched without a branch for each value, which vector registers do.
fn first_nan(data: &[f32]) -> Option<usize> {
    const BLOCK: usize = 1024;
    let broken = |block: &[f32]| block.iter().fold(false, |broken, value| broken | value.is_nan());
    let block = data.chunks(BLOCK).position(broken)?;
    data[block * BLOCK..].iter().position(|value| value.is_nan()).map(|at| block * BLOCK + at)
}

fn graph_fields(mut reader: Reader<'_>, opset: i64, context: &Context<'_>) -> Result<Graph> {
    let mut graph = Graph { opset, ..Graph::default() };
    let mut all_inputs = Vec::new();
    while let Some(field) = reader.field()? {
        match field.number {
            1 => {
                if graph.nodes.len() == MAX_NODES {
                    return Err(LoadError::Unsupported(format!("more than {MAX_NODES} nodes")));
                }
                graph.nodes.push(node(field.message()?, context)?);
            }
            2 => graph.name = field.text()?.to_owned(),
            5 => {
                let proto = field.message()?.bytes();
                let (name, tensor) = tensor(field.message()?, context)?;
                if let Some(file) = external_file(proto)? {
                    let proto = proto.to_vec();
                    graph.external.insert(name.clone(), External { file, proto, digest: digest(&tensor) });
                }
                if graph.initializers.insert(name.clone(), tensor).is_some() {
                    return Err(LoadError::Invalid(format!("two initializers are called {name}")));
                }
            }
            11 => all_inputs.push(value(field.message()?)?),
            12 => graph.outputs.push(value(field.message()?)?),
            13 => {
                let value = value(field.message()?)?;
                graph.values.insert(value.name.clone(), value);
            }
            15 => return Err(LoadError::Unsupported("sparse initializers".to_owned())),
            _ => graph.rest.extend_from_slice(field.raw),
        }
    }
    // Before format version 4 every initializer had to be listed as an input too.
    graph.inputs = all_inputs.into_iter().filter(|value| !graph.initializers.contains_key(&value.name)).collect();
    for value in graph.inputs.iter().chain(&graph.outputs) {
        graph.values.insert(value.name.clone(), value.clone());
    }
    for (name, value) in &graph.values {
        if let Some(shape) = value.static_shape() {
            graph.shapes.insert(name.clone(), shape);
        }
    }
    Ok(graph)
}

/// Every tensor is defined once and before it is read; nodes are sorted if the file did not do it.
fn check_names(graph: &mut Graph) -> Result<()> {
    let invalid = |text: String| Err(LoadError::Invalid(text));
    let mut defined: BTreeSet<&str> = graph.initializers.keys().map(String::as_str).collect();
    for input in &graph.inputs {
        if input.name.is_empty() || !defined.insert(&input.name) {
            return invalid(format!("two inputs are called '{}', or it has no name", input.name));
        }
    }
    let mut made: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            if defined.contains(output.as_str()) || made.insert(output, index).is_some() {
                return invalid(format!("tensor {output} is made twice, again by node {}", node.label()));
            }
        }
    }
    for output in &graph.outputs {
        if !made.contains_key(output.name.as_str()) && !defined.contains(output.name.as_str()) {
            return invalid(format!("output {} is made by no node", output.name));
        }
    }
    let (mut waits, mut readers) = (vec![0usize; graph.nodes.len()], vec![Vec::new(); graph.nodes.len()]);
    for (index, node) in graph.nodes.iter().enumerate() {
        for input in node.inputs.iter().filter(|name| !name.is_empty()) {
            if !made.contains_key(input.as_str()) && !defined.contains(input.as_str()) {
                return invalid(format!("node {} reads {input}, which nothing makes", node.label()));
            }
        }
        for input in node.reads() {
            if let Some(producer) = made.get(input) {
                waits[index] += 1;
                readers[*producer].push(index);
            }
        }
    }
    let mut ready: BTreeSet<usize> = (0..waits.len()).filter(|index| waits[*index] == 0).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for reader in &readers[index] {
            waits[*reader] -= 1;
            if waits[*reader] == 0 {
                ready.insert(*reader);
            }
        }
    }
    if order.len() < graph.nodes.len() {
        let stuck = waits.iter().position(|count| *count > 0).map_or("?", |index| graph.nodes[index].label());
        return invalid(format!("the graph has a cycle through node {stuck}"));
    }
    if !order.is_sorted() {
        let mut nodes: Vec<Option<Node>> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
        graph.nodes = order.iter().filter_map(|index| nodes[*index].take()).collect();
    }
    Ok(())
}

fn node(mut reader: Reader<'_>, context: &Context<'_>) -> Result<Node> {
    let mut node = Node { raw: Some(reader.bytes().to_vec()), ..Node::default() };
    let mut inner = BTreeSet::new();
    while let Some(field) = reader.field()? {
        match field.number {
            1 => node.inputs.push(field.text()?.to_owned()),
            2 => node.outputs.push(field.text()?.to_owned()),
            3 => node.name = field.text()?.to_owned(),
            4 => node.op_type = field.text()?.to_owned(),
            5 => {
                let (name, value) = attribute(field.message()?, context, &mut inner)?;
                node.attributes.insert(name, value);
            }
            7 => node.domain = field.text()?.to_owned(),
            _ => {}
        }
    }
    if node.op_type.is_empty() {
        return Err(LoadError::Invalid(format!("node {} has no operator type", node.label())));
    }
    node.captures = inner.into_iter().collect();
    Ok(node)
}

fn attribute(
    mut reader: Reader<'_>,
    context: &Context<'_>,
    captures: &mut BTreeSet<String>,
) -> Result<(String, Attribute)> {
    let whole = reader.bytes();
    let (mut name, mut kind) = (String::new(), 0);
    let (mut f, mut i, mut s, mut t, mut opaque) = (None, None, None, None, false);
    let (mut floats, mut ints, mut strings) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(field) = reader.field()? {
        match field.number {
            1 => name = field.text()?.to_owned(),
            2 => f = Some(field.float()?),
            3 => i = Some(field.int()?),
            4 => s = Some(field.message()?.bytes().to_vec()),
            5 => t = Some(tensor(field.message()?, context)?.1),
            6 | 11 => {
                outer_names(field.message()?, captures, 0)?;
                opaque = true;
            }
            7 => field.floats(&mut floats)?,
            8 => field.ints(&mut ints)?,
            9 => strings.push(field.message()?.bytes().to_vec()),
            20 => kind = field.int()?,
            13 => {}
            _ => opaque = true,
        }
    }
    let value = match kind {
        _ if opaque => Attribute::Opaque(whole.to_vec()),
        1 => Attribute::Float(f.unwrap_or(0.0)),
        2 => Attribute::Int(i.unwrap_or(0)),
        3 => Attribute::String(s.unwrap_or_default()),
        4 => match t {
            Some(tensor) => Attribute::Tensor(tensor),
            None => return Err(LoadError::Invalid(format!("attribute {name} announces a tensor and holds none"))),
        },
        6 => Attribute::Floats(floats),
        7 => Attribute::Ints(ints),
        8 => Attribute::Strings(strings),
        // Old writers leave the type out.
        _ => match (f, i, s, t) {
            (Some(value), ..) => Attribute::Float(value),
            (_, Some(value), ..) => Attribute::Int(value),
            (_, _, Some(value), _) => Attribute::String(value),
            (.., Some(value)) => Attribute::Tensor(value),
            _ if !ints.is_empty() => Attribute::Ints(ints),
            _ if !floats.is_empty() => Attribute::Floats(floats),
            _ => Attribute::Opaque(whole.to_vec()),
        },
    };
    Ok((name, value))
}

/// Names that an inner graph reads without defining them.
fn outer_names(mut reader: Reader<'_>, captures: &mut BTreeSet<String>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(LoadError::Unsupported(format!("graphs nested more than {MAX_DEPTH} deep")));
    }
    let (mut reads, mut own) = (BTreeSet::new(), BTreeSet::new());
    while let Some(field) = reader.field()? {
        let mut inner = match field.number {
            1 | 5 | 11 | 12 => field.message()?,
            _ => continue,
        };
        while let Some(part) = inner.field()? {
            match (field.number, part.number) {
                (1, 1) | (12, 1) => {
                    reads.insert(part.text()?.to_owned());
                }
                (1, 2) | (5, 8) | (11, 1) => {
                    own.insert(part.text()?.to_owned());
                }
                (1, 5) => {
                    let mut attribute = part.message()?;
                    while let Some(part) = attribute.field()? {
                        if matches!(part.number, 6 | 11) {
                            outer_names(part.message()?, &mut reads, depth + 1)?;
                        }
                    }
                }
                _ => {}
            }
        }
    }
    captures.extend(reads.difference(&own).filter(|name| !name.is_empty()).cloned());
    Ok(())
}

fn value(mut reader: Reader<'_>) -> Result<Value> {
    let mut value = Value { name: String::new(), dtype: DataType::Undefined, shape: Vec::new(), has_shape: false };
    while let Some(field) = reader.field()? {
        match field.number {
            1 => value.name = field.text()?.to_owned(),
            2 => {
                let mut kind = field.message()?;
                while let Some(field) = kind.field()? {
                    if field.number == 1 {
                        tensor_type(field.message()?, &mut value)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(value)
}

fn tensor_type(mut reader: Reader<'_>, value: &mut Value) -> Result<()> {
    while let Some(field) = reader.field()? {
        match field.number {
            1 => value.dtype = DataType::from_onnx(field.int()?),
            2 => {
                value.has_shape = true;
                let mut shape = field.message()?;
                while let Some(field) = shape.field()? {
                    if field.number == 1 {
                        value.shape.push(dim(field.message()?)?);
                    }
                }
                if value.shape.len() > MAX_RANK {
                    return Err(LoadError::Unsupported(format!("{} has more than {MAX_RANK} dimensions", value.name)));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn dim(mut reader: Reader<'_>) -> Result<Dim> {
    let mut dim = Dim::Unknown;
    while let Some(field) = reader.field()? {
        match field.number {
            // Some exporters write -1 or 0 for "any".
            1 => match usize::try_from(field.int()?) {
                Ok(size) if (1..=MAX_ELEMENTS).contains(&size) => dim = Dim::Static(size),
                Ok(0) | Err(_) => dim = Dim::Unknown,
                Ok(size) => return Err(LoadError::Unsupported(format!("a dimension of {size}"))),
            },
            2 if !field.text()?.is_empty() => dim = Dim::Symbol(field.text()?.to_owned()),
            _ => {}
        }
    }
    Ok(dim)
}

fn tensor(mut reader: Reader<'_>, context: &Context<'_>) -> Result<(String, Tensor)> {
    let whole = reader.bytes();
    let (mut name, mut dtype, mut dims, mut raw) = (String::new(), 0, Vec::new(), None);
    let (mut floats, mut ints, mut longs, mut doubles) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut external, mut entries) = (false, BTreeMap::new());
    while let Some(field) = reader.field()? {
        match field.number {
            1 => field.ints(&mut dims)?,
            2 => dtype = field.int()?,
            4 => field.floats(&mut floats)?,
            5 => field.ints(&mut ints)?,
            7 => field.ints(&mut longs)?,
            8 => name = field.text()?.to_owned(),
            9 => raw = Some(field.message()?.bytes()),
            10 => field.doubles(&mut doubles)?,
            13 => {
                let mut entry = field.message()?;
                let (mut key, mut value) = (String::new(), String::new());
                while let Some(field) = entry.field()? {
                    match field.number {
                        1 => key = field.text()?.to_owned(),
                        2 => value = field.text()?.to_owned(),
                        _ => {}
                    }
                }
                entries.insert(key, value);
            }
            14 => external = field.int()? == 1,
            _ => {}
        }
    }
    let invalid = |text: String| LoadError::Invalid(format!("tensor {name}: {text}"));
    if dims.len() > MAX_RANK {
        return Err(invalid(format!("more than {MAX_RANK} dimensions")));
    }
    let dims = dims.into_iter().map(usize::try_from).collect::<std::result::Result<Vec<_>, _>>();
    let dims = dims.map_err(|_| invalid("a negative dimension".to_owned()))?;
    let len = dims.iter().try_fold(1usize, |len, dim| len.checked_mul(*dim)).filter(|len| *len <= MAX_ELEMENTS);
    let len = len.ok_or_else(|| invalid("too many elements".to_owned()))?;
    let dtype = DataType::from_onnx(dtype);
    let Some(size) = dtype.size() else {
        if external {
            return Err(LoadError::Unsupported(format!("tensor {name}: external data of this element type")));
        }
        return Ok((name, Tensor { dims, data: TensorData::Opaque(whole.to_vec()) }));
    };
    let wrong = |have: usize| invalid(format!("its shape says {len} elements, its data has {have}"));
    let tensor = if external {
        let bytes = external_bytes(&name, &entries, len * size, context)?;
        Tensor::from_bytes(dims, dtype, &bytes).ok_or_else(|| wrong(bytes.len() / size))?
    } else if let Some(raw) = raw.filter(|raw| !raw.is_empty() || len == 0) {
        Tensor::from_bytes(dims, dtype, raw).ok_or_else(|| wrong(raw.len() / size))?
    } else {
        let data = match dtype {
            DataType::F32 => TensorData::F32(floats),
            DataType::F64 => TensorData::F64(doubles),
            DataType::I64 => TensorData::I64(longs),
            DataType::I32 => TensorData::I32(ints.iter().map(|value| *value as i32).collect()),
            DataType::I16 => TensorData::I16(ints.iter().map(|value| *value as i16).collect()),
            DataType::U16 => TensorData::U16(ints.iter().map(|value| *value as u16).collect()),
            DataType::F16 => TensorData::F16(ints.iter().map(|value| *value as u16).collect()),
            DataType::I8 => TensorData::I8(ints.iter().map(|value| *value as i8).collect()),
            DataType::U8 => TensorData::U8(ints.iter().map(|value| *value as u8).collect()),
            DataType::Bool => TensorData::Bool(ints.iter().map(|value| *value != 0).collect()),
            DataType::Undefined | DataType::String | DataType::Other => {
                return Err(invalid("no element type".to_owned()));
            }
        };
        let have = match &data {
            TensorData::F32(data) => data.len(),
            TensorData::F64(data) => data.len(),
            TensorData::I64(data) => data.len(),
            TensorData::I32(data) => data.len(),
            TensorData::I16(data) => data.len(),
            TensorData::U16(data) | TensorData::F16(data) => data.len(),
            TensorData::I8(data) => data.len(),
            TensorData::U8(data) => data.len(),
            TensorData::Bool(data) => data.len(),
            TensorData::Opaque(_) => 0,
        };
        if have != len {
            return Err(wrong(have));
        }
        Tensor { dims, data }
    };
    Ok((name, tensor))
}

/// The file a `TensorProto` has its data in, if not in itself.
fn external_file(proto: &[u8]) -> Result<Option<String>> {
    let (mut reader, mut external, mut location) = (Reader::new(proto), false, None);
    while let Some(field) = reader.field()? {
        match field.number {
            13 => {
                let mut entry = field.message()?;
                let (mut key, mut value) = (String::new(), String::new());
                while let Some(field) = entry.field()? {
                    match field.number {
                        1 => key = field.text()?.to_owned(),
                        2 => value = field.text()?.to_owned(),
                        _ => {}
                    }
                }
                if key == "location" {
                    location = Some(value);
                }
            }
            14 => external = field.int()? == 1,
            _ => {}
        }
    }
    Ok(location.filter(|_| external))
}

/// Tells whether a tensor is still the one that was read.
pub(super) fn digest(tensor: &Tensor) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    (&tensor.dims, tensor.dtype(), tensor.to_bytes()).hash(&mut hasher);
    hasher.finish()
}

fn external_bytes(
    tensor: &str,
    entries: &BTreeMap<String, String>,
    size: usize,
    context: &Context<'_>,
) -> Result<Vec<u8>> {
    let file = entries.get("location").cloned().unwrap_or_default();
    let fail = |problem: String| LoadError::External { tensor: tensor.to_owned(), file: file.clone(), problem };
    let Some(folder) = context.folder else {
        return Err(fail("weights outside the model file cannot come with it here; save the model as one file".into()));
    };
    let relative = PathBuf::from(&file);
    if file.is_empty() || relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(fail("the location must be a relative path below the model's folder".to_owned()));
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let path = fs_err::canonicalize(folder.join(relative)).map_err(|error| fail(error.to_string()))?;
    let root = fs_err::canonicalize(folder).map_err(|error| fail(error.to_string()))?;
    if !path.starts_with(root) {
        return Err(fail("the location leads out of the model's folder".to_owned()));
    }
    let number = |key: &str| match entries.get(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| fail(format!("{key} is not a number: {text}"))),
    };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(size as u64));
    if length != size as u64 {
        return Err(fail(format!("the shape needs {size} bytes, the model gives a length of {length}")));
    }
    let total = fs_err::metadata(&path).map_err(|error| fail(error.to_string()))?.len();
    if offset.checked_add(length).is_none_or(|end| end > total) {
        return Err(fail(format!("bytes {offset} to {offset}+{length} are needed, the file has {total}")));
    }
    let read = || -> std::io::Result<Vec<u8>> {
        use std::io::{Read, Seek, SeekFrom};
        let mut handle = fs_err::File::open(&path)?;
        handle.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; size];
        handle.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| fail(error.to_string()))
}
