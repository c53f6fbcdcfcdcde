//! Small networks of many families, with weights from a seed.

use edgeyard_optimizer::ir::{Attribute, DataType, Model, Tensor, Value};

use super::support::{Builder, Noise, int, ints, text};

/// A network under construction; layers are numbered.
pub struct Net {
    builder: Option<Builder>,
    noise: Noise,
    count: usize,
}

/// A finished network.
pub struct Made {
    pub name: &'static str,
    pub model: Model,
    pub input: Vec<usize>,
}

impl Net {
    pub fn new(seed: u64, input: &[usize]) -> Self {
        Self { builder: Some(Builder::new(17, input)), noise: Noise::new(seed), count: 0 }
    }

    pub fn constant(&mut self, name: &str, tensor: Tensor) -> String {
        self.builder = self.builder.take().map(|builder| builder.constant(name, tensor));
        name.to_owned()
    }

    /// Numbers of the size that keeps activations near 1.
    pub fn weights(&mut self, name: &str, dims: &[usize], fan: usize) -> String {
        let factor = (1.5 / fan as f32).sqrt();
        let values = self.noise.values(dims.iter().product()).into_iter().map(|value| value * factor).collect();
        self.constant(name, Tensor::f32(dims, values))
    }

    pub fn op(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        self.count += 1;
        let output = format!("{}{}", op.to_lowercase(), self.count);
        self.builder = self.builder.take().map(|builder| builder.node(op, inputs, &output, attributes));
        output
    }

    /// `same` padding for odd kernels.
    pub fn conv(&mut self, x: &str, from: usize, to: usize, kernel: usize, group: usize, stride: i64) -> String {
        let name = format!("w{}", self.count);
        let w = self.weights(&name, &[to, from / group, kernel, kernel], from / group * kernel * kernel);
        let b = self.weights(&format!("{name}b"), &[to], 16);
        let pad = (kernel / 2) as i64;
        let attributes = [("group", int(group as i64)), ("pads", ints(&[pad; 4])), ("strides", ints(&[stride; 2]))];
        self.op("Conv", &[x, &w, &b], &attributes)
    }

    pub fn relu(&mut self, x: &str) -> String {
        self.op("Relu", &[x], &[])
    }

    pub fn conv_relu(&mut self, x: &str, from: usize, to: usize, kernel: usize) -> String {
        let y = self.conv(x, from, to, kernel, 1, 1);
        self.relu(&y)
    }

    pub fn norm(&mut self, x: &str, channels: usize) -> String {
        let name = format!("n{}", self.count);
        let parameters: Vec<String> =
            ["g", "s", "m"].iter().map(|kind| self.weights(&format!("{name}{kind}"), &[channels], 2)).collect();
        let variance = self.noise.values(channels).iter().map(|value| value.abs() + 0.5).collect();
        let variance = self.constant(&format!("{name}v"), Tensor::f32(&[channels], variance));
        let inputs = [x, &parameters[0], &parameters[1], &parameters[2], &variance];
        self.op("BatchNormalization", &inputs, &[])
    }

    pub fn gemm(&mut self, x: &str, from: usize, to: usize) -> String {
        let name = format!("f{}", self.count);
        let w = self.weights(&name, &[to, from], from);
        let b = self.weights(&format!("{name}b"), &[to], 16);
        self.op("Gemm", &[x, &w, &b], &[("transB", int(1))])
    }

    pub fn pool(&mut self, x: &str) -> String {
        self.op("MaxPool", &[x], &[("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2]))])
    }

    /// Global average, flattened, and 7 classes.
    pub fn head(&mut self, x: &str, channels: usize) -> String {
        let y = self.op("GlobalAveragePool", &[x], &[]);
        let y = self.op("Flatten", &[&y], &[]);
        self.gemm(&y, channels, 7)
    }

    pub fn done(self, name: &'static str, outputs: &[&str]) -> Made {
        let mut model = self.builder.unwrap().model;
        let value =
            |name: &&str| Value { name: (*name).to_owned(), dtype: DataType::F32, shape: Vec::new(), has_shape: false };
        model.graph.outputs = outputs.iter().map(value).collect();
        let input = model.graph.inputs[0].shape.iter().map(|dim| dim.to_string().parse().unwrap_or(2)).collect();
        // As a file would be read.
        let model = edgeyard_optimizer::ir::load(&model.to_bytes(), None).unwrap();
        Made { name, model, input }
    }
}

fn plain() -> Made {
    let mut n = Net::new(1, &[0, 3, 8, 8]);
    let y = n.conv_relu("x", 3, 16, 3);
    let y = n.pool(&y);
    let y = n.conv_relu(&y, 16, 24, 3);
    let y = n.head(&y, 24);
    n.done("plain", &[&y])
}

fn resnet() -> Made {
    let mut n = Net::new(2, &[1, 3, 8, 8]);
    let mut x = n.conv("x", 3, 16, 3, 1, 1);
    x = n.norm(&x, 16);
    for (from, to, stride) in [(16, 16, 1), (16, 32, 2)] {
        let y = n.conv(&x, from, to, 3, 1, stride);
        let y = n.norm(&y, to);
        let y = n.relu(&y);
        let y = n.conv(&y, to, to, 3, 1, 1);
        let y = n.norm(&y, to);
        let shortcut = if from == to { x.clone() } else { n.conv(&x, from, to, 1, 1, stride) };
        let y = n.op("Add", &[&y, &shortcut], &[]);
        x = n.relu(&y);
    }
    let y = n.head(&x, 32);
    n.done("resnet", &[&y])
}

fn mobilenet() -> Made {
    let mut n = Net::new(3, &[1, 3, 8, 8]);
    n.constant("low", Tensor::f32(&[], vec![0.0]));
    n.constant("high", Tensor::f32(&[], vec![6.0]));
    let x = n.conv("x", 3, 16, 3, 1, 1);
    let mut x = n.op("Clip", &[&x, "low", "high"], &[]);
    for (from, to) in [(16, 16), (16, 24)] {
        let y = n.conv(&x, from, from * 4, 1, 1, 1);
        let y = n.op("Clip", &[&y, "low", "high"], &[]);
        let y = n.conv(&y, from * 4, from * 4, 3, from * 4, 1);
        let y = n.op("Clip", &[&y, "low", "high"], &[]);
        let y = n.conv(&y, from * 4, to, 1, 1, 1);
        x = if from == to { n.op("Add", &[&x, &y], &[]) } else { y };
    }
    let y = n.head(&x, 24);
    n.done("mobilenet", &[&y])
}

fn squeeze_excite() -> Made {
    let mut n = Net::new(4, &[1, 3, 8, 8]);
    let x = n.conv_relu("x", 3, 16, 3);
    let s = n.op("GlobalAveragePool", &[&x], &[]);
    let s = n.conv_relu(&s, 16, 8, 1);
    let s = n.conv(&s, 8, 16, 1, 1, 1);
    let s = n.op("HardSigmoid", &[&s], &[]);
    let x = n.op("Mul", &[&x, &s], &[]);
    let y = n.conv_relu(&x, 16, 16, 3);
    let y = n.op("ReduceMean", &[&y], &[("axes", ints(&[2, 3])), ("keepdims", int(0))]);
    let y = n.gemm(&y, 16, 7);
    n.done("squeeze-excite", &[&y])
}

fn densenet() -> Made {
    let mut n = Net::new(5, &[1, 3, 8, 8]);
    let mut x = n.conv("x", 3, 8, 3, 1, 1);
    let mut channels = 8;
    for _ in 0..3 {
        let y = n.norm(&x, channels);
        let y = n.relu(&y);
        let y = n.conv(&y, channels, 12, 3, 1, 1);
        x = n.op("Concat", &[&x, &y], &[("axis", int(1))]);
        channels += 12;
    }
    let y = n.head(&x, channels);
    n.done("densenet", &[&y])
}

fn inception() -> Made {
    let mut n = Net::new(6, &[1, 3, 8, 8]);
    let x = n.conv_relu("x", 3, 16, 3);
    let a = n.conv_relu(&x, 16, 8, 1);
    let b = n.conv_relu(&x, 16, 8, 1);
    let b = n.conv_relu(&b, 8, 12, 3);
    let c = n.op("AveragePool", &[&x], &[("kernel_shape", ints(&[3, 3])), ("pads", ints(&[1; 4]))]);
    let c = n.conv_relu(&c, 16, 8, 1);
    let y = n.op("Concat", &[&a, &b, &c], &[("axis", int(-3))]);
    let y = n.conv_relu(&y, 28, 16, 1);
    let y = n.head(&y, 16);
    n.done("inception", &[&y])
}

fn resnext(groups: usize, name: &'static str) -> Made {
    let mut n = Net::new(7, &[1, 3, 8, 8]);
    let x = n.conv_relu("x", 3, 16, 3);
    let y = n.conv_relu(&x, 16, 32, 1);
    let y = n.conv(&y, 32, 32, 3, groups, 1);
    let y = n.relu(&y);
    let y = n.conv(&y, 32, 16, 1, 1, 1);
    let y = n.op("Add", &[&x, &y], &[]);
    let y = n.head(&y, 16);
    n.done(name, &[&y])
}

fn shuffle_one() -> Made {
    let mut n = Net::new(8, &[0, 3, 8, 8]);
    n.constant("groups", Tensor::i64(&[5], vec![0, 2, 16, 8, 8]));
    n.constant("flat", Tensor::i64(&[4], vec![-1, 32, 8, 8]));
    let x = n.conv_relu("x", 3, 32, 3);
    let y = n.conv(&x, 32, 32, 1, 2, 1);
    let y = n.op("Reshape", &[&y, "groups"], &[]);
    let y = n.op("Transpose", &[&y], &[("perm", ints(&[0, 2, 1, 3, 4]))]);
    let y = n.op("Reshape", &[&y, "flat"], &[]);
    let y = n.conv(&y, 32, 32, 3, 32, 1);
    let y = n.conv_relu(&y, 32, 16, 1);
    let y = n.head(&y, 16);
    n.done("shuffle", &[&y])
}

fn shuffle_two() -> Made {
    let mut n = Net::new(9, &[1, 3, 8, 8]);
    let x = n.conv_relu("x", 3, 32, 3);
    let builder = n.builder.take().unwrap();
    let mut builder = builder.node("Split", &[&x], "left", &[("axis", int(1))]);
    builder.model.graph.nodes.last_mut().unwrap().outputs.push("right".into());
    n.builder = Some(builder);
    let y = n.conv_relu("right", 16, 16, 1);
    let y = n.op("Concat", &["left", &y], &[("axis", int(1))]);
    for (name, values) in [("from", vec![8]), ("to", vec![i64::MAX]), ("axis", vec![1])] {
        n.constant(name, Tensor::i64(&[1], values));
    }
    let y = n.op("Slice", &[&y, "from", "to", "axis"], &[]);
    let y = n.conv_relu(&y, 24, 16, 1);
    let y = n.head(&y, 16);
    n.done("split", &[&y])
}

fn unet() -> Made {
    let mut n = Net::new(10, &[1, 3, 8, 8]);
    let a = n.conv_relu("x", 3, 8, 3);
    let y = n.pool(&a);
    let b = n.conv_relu(&y, 8, 16, 3);
    let y = n.pool(&b);
    let y = n.conv_relu(&y, 16, 24, 3);
    n.weights("up", &[24, 16, 2, 2], 24 * 4);
    n.weights("upb", &[16], 16);
    let y = n.op("ConvTranspose", &[&y, "up", "upb"], &[("strides", ints(&[2, 2]))]);
    let y = n.op("Concat", &[&y, &b], &[("axis", int(1))]);
    let y = n.conv_relu(&y, 32, 12, 3);
    n.constant("sizes", Tensor::i64(&[4], vec![1, 12, 8, 8]));
    let y = n.op("Resize", &[&y, "", "", "sizes"], &[("mode", text("nearest"))]);
    let y = n.op("Concat", &[&y, &a], &[("axis", int(1))]);
    let y = n.conv_relu(&y, 20, 8, 3);
    let y = n.conv(&y, 8, 2, 1, 1, 1);
    n.done("unet", &[&y])
}

fn shared() -> Made {
    let mut n = Net::new(11, &[1, 3, 8, 8]);
    let a = n.conv_relu("x", 3, 16, 3);
    let b = n.pool(&a);
    n.weights("both", &[16, 16, 3, 3], 144);
    let pads = [("pads", ints(&[1; 4]))];
    let (a, b) = (n.op("Conv", &[&a, "both"], &pads), n.op("Conv", &[&b, "both"], &pads));
    let (a, b) = (n.op("GlobalMaxPool", &[&a], &[]), n.op("GlobalMaxPool", &[&b], &[]));
    let y = n.op("Sub", &[&a, &b], &[]);
    let y = n.op("Flatten", &[&y], &[]);
    let y = n.gemm(&y, 16, 7);
    n.done("shared", &[&y])
}

fn perceptron() -> Made {
    let mut n = Net::new(12, &[0, 2, 6, 6]);
    let y = n.conv_relu("x", 2, 8, 3);
    let y = n.op("Flatten", &[&y], &[]);
    let y = n.gemm(&y, 8 * 36, 32);
    let y = n.op("Tanh", &[&y], &[]);
    n.weights("m", &[32, 16], 32);
    n.weights("mb", &[16], 16);
    let y = n.op("MatMul", &[&y, "m"], &[]);
    let y = n.op("Add", &["mb", &y], &[]);
    let y = n.relu(&y);
    let y = n.gemm(&y, 16, 7);
    n.done("perceptron", &[&y])
}

fn outputs() -> Made {
    let mut n = Net::new(13, &[1, 3, 8, 8]);
    let x = n.conv_relu("x", 3, 16, 3);
    let features = n.conv(&x, 16, 8, 3, 1, 1);
    let y = n.relu(&features);
    let y = n.conv_relu(&y, 8, 16, 3);
    let y = n.head(&y, 16);
    n.done("outputs", &[&y, &features])
}

fn one_dimensional() -> Made {
    let mut n = Net::new(14, &[1, 6, 32]);
    n.weights("a", &[16, 6, 5], 30);
    let y = n.op("Conv", &["x", "a"], &[("pads", ints(&[2, 2]))]);
    n.weights("slope", &[16, 1], 4);
    let y = n.op("PRelu", &[&y, "slope"], &[]);
    n.weights("b", &[24, 16, 3], 48);
    let y = n.op("Conv", &[&y, "b"], &[("dilations", ints(&[2]))]);
    let y = n.op("Sigmoid", &[&y], &[]);
    let y = n.head(&y, 24);
    n.done("one-dimensional", &[&y])
}

fn transposed() -> Made {
    let mut n = Net::new(15, &[1, 8, 4, 4]);
    let y = n.conv_relu("x", 8, 16, 1);
    n.weights("depth", &[16, 1, 2, 2], 4);
    let y = n.op("ConvTranspose", &[&y, "depth"], &[("group", int(16)), ("strides", ints(&[2, 2]))]);
    n.weights("wide", &[16, 6, 3, 3], 72);
    let y = n.op("ConvTranspose", &[&y, "wide"], &[("group", int(2)), ("pads", ints(&[1; 4]))]);
    let y = n.relu(&y);
    let y = n.conv(&y, 12, 24, 3, 12, 1);
    let y = n.conv_relu(&y, 24, 8, 1);
    let y = n.head(&y, 8);
    n.done("transposed", &[&y])
}

fn transformer() -> Made {
    let mut n = Net::new(16, &[1, 5, 16]);
    n.weights("ls", &[16], 2);
    n.weights("lb", &[16], 2);
    let y = n.op("LayerNormalization", &["x", "ls", "lb"], &[]);
    n.weights("in", &[16, 32], 16);
    n.weights("inb", &[32], 16);
    let y = n.op("MatMul", &[&y, "in"], &[]);
    let y = n.op("Add", &[&y, "inb"], &[]);
    let y = n.op("Tanh", &[&y], &[]);
    n.weights("out", &[32, 16], 32);
    let y = n.op("MatMul", &[&y, "out"], &[]);
    let y = n.op("Add", &[&y, "x"], &[]);
    let y = n.op("Softmax", &[&y], &[("axis", int(-1))]);
    n.done("transformer", &[&y])
}

/// As PyTorch writes `x.view(x.size(0), -1)` for a free batch.
fn view() -> Made {
    let mut n = Net::new(17, &[0, 3, 8, 8]);
    let y = n.conv_relu("x", 3, 8, 3);
    let y = n.pool(&y);
    n.constant("zero", Tensor::i64(&[], vec![0]));
    n.constant("first", Tensor::i64(&[1], vec![0]));
    n.constant("rest", Tensor::i64(&[1], vec![-1]));
    let s = n.op("Shape", &[&y], &[]);
    let s = n.op("Gather", &[&s, "zero"], &[("axis", int(0))]);
    let s = n.op("Unsqueeze", &[&s, "first"], &[]);
    let s = n.op("Concat", &[&s, "rest"], &[("axis", int(0))]);
    let y = n.op("Reshape", &[&y, &s], &[]);
    let y = n.gemm(&y, 8 * 16, 7);
    n.done("view", &[&y])
}

/// One of each family.
pub fn all() -> Vec<Made> {
    vec![
        plain(),
        resnet(),
        mobilenet(),
        squeeze_excite(),
        densenet(),
        inception(),
        resnext(16, "resnext"),
        resnext(2, "wide groups"),
        shuffle_one(),
        shuffle_two(),
        unet(),
        shared(),
        perceptron(),
        outputs(),
        one_dimensional(),
        transposed(),
        transformer(),
        view(),
    ]
}
