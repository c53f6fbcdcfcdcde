//! Puts operators back together that exporters of older operator sets took apart: HardSigmoid and HardSwish, Sigmoid
//! and with it SiLU, GELU, LayerNormalization. One operator is faster everywhere, has one calibrated range, and is what
//! runtimes have kernels for.

use crate::ir::{Attribute, DataType, Graph, Node, Tensor, axis};

/// Which operators may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// Those of the graph's operator set: the result is written as ONNX again.
    OfOpset,
    /// All: the result is lowered, where operator sets mean nothing.
    All,
}

/// What takes the place of a node: nodes of which the last makes its output, and the constants they read.
#[derive(Default)]
struct Rewrite {
    nodes: Vec<Node>,
    constants: Vec<(String, Tensor)>,
}

impl From<Node> for Rewrite {
    fn from(node: Node) -> Self {
        Self { nodes: vec![node], constants: Vec::new() }
    }
}

/// Applies every pattern until none fits. Tensors that stay keep their names and values.
pub fn fuse_patterns(graph: &mut Graph, allowed: Allowed) {
    let mut at = 0;
    while at < graph.nodes.len() {
        let Some(rewrite) = (Pattern { graph, allowed }).at(at) else {
            at += 1;
            continue;
        };
        let before = graph.nodes.len();
        let shape = graph.shape_of(graph.nodes[at].output()).map(<[usize]>::to_vec);
        graph.initializers.extend(rewrite.constants);
        let added = rewrite.nodes.len() - 1;
        for node in &rewrite.nodes[..added] {
            if let Some(shape) = &shape {
                graph.note(node.output(), DataType::F32, shape);
            }
        }
        graph.nodes.splice(at..=at, rewrite.nodes);
        super::remove_dead(graph);
        // What was taken apart lies before this node: the rest has moved to the front by as much.
        at = at.saturating_sub(before + added - graph.nodes.len());
    }
}

struct Pattern<'a> {
    graph: &'a Graph,
    allowed: Allowed,
}

impl<'a> Pattern<'a> {
    /// What may take the place of node `at`.
    fn at(&self, at: usize) -> Option<Rewrite> {
        let node = &self.graph.nodes[at];
        if !node.is_standard() || node.outputs.len() != 1 {
            return None;
        }
        let mut rewrite = match node.op_type.as_str() {
            "Div" => self
                .hard_sigmoid(node)
                .or_else(|| self.hard_swish_scaled(node))
                .or_else(|| self.sigmoid(node))
                .map(Rewrite::from)
                .or_else(|| self.silu(node))
                .or_else(|| self.layer_norm(node)),
            "Mul" => self
                .hard_sigmoid(node)
                .or_else(|| self.hard_swish(node))
                .or_else(|| self.hard_swish_scaled(node))
                .or_else(|| self.gelu(node))
                .or_else(|| self.gelu_tanh(node))
                .or_else(|| self.layer_norm_scale(node))
                .map(Rewrite::from)
                .or_else(|| self.layer_norm(node)),
            "Reciprocal" => self.sigmoid_of(node.input(0)?).map(Rewrite::from),
            "Add" => self.layer_norm_shift(node).map(Rewrite::from),
            _ => None,
        }?;
        let last = rewrite.nodes.last_mut()?;
        last.touch();
        last.name.clone_from(&node.name);
        last.outputs.clone_from(&node.outputs);
        Some(rewrite)
    }

    fn may(&self, since: i64) -> bool {
        self.allowed == Allowed::All || self.graph.opset >= since
    }

    fn producer(&self, name: &str) -> Option<&'a Node> {
        self.graph.nodes.iter().find(|node| node.outputs.first().is_some_and(|output| output == name))
    }

    /// The producer of `name` if it is that operator and its result goes nowhere else.
    fn made_by(&self, name: &str, op: &str) -> Option<&'a Node> {
        let node = self.producer(name).filter(|node| node.is(op))?;
        self.only_reader(name).then_some(node)
    }

    fn only_reader(&self, name: &str) -> bool {
        let readers = self.graph.nodes.iter().flat_map(Node::reads).filter(|read| *read == name).count();
        readers == 1 && !self.graph.is_output(name)
    }

    fn constant(&self, name: &str) -> Option<&'a Tensor> {
        self.graph.constant(name)
    }

    /// The value of a constant of one element.
    fn scalar(&self, name: &str) -> Option<f32> {
        match self.constant(name)?.as_f32()? {
            [value] => Some(*value),
            _ => None,
        }
    }

    /// A commutative node's input that is a scalar constant, and the other one. The constant must not add axes.
    fn with_scalar(&self, node: &'a Node) -> Option<(&'a str, f32)> {
        let (a, b) = (node.input(0)?, node.input(1)?);
        let fits = |constant: &str, other: &str| {
            let rank = self.constant(constant).map_or(0, |tensor| tensor.dims.len());
            rank == 0 || self.graph.shape_of(other).is_some_and(|shape| shape.len() >= rank)
        };
        match (self.scalar(a), self.scalar(b)) {
            (None, Some(value)) if fits(b, a) => Some((a, value)),
            (Some(value), None) if fits(a, b) => Some((b, value)),
            _ => None,
        }
    }

    /// Both orders of a node's two inputs.
    fn orders(&self, node: &'a Node) -> Option<[(&'a str, &'a str); 2]> {
        let (a, b) = (node.input(0)?, node.input(1)?);
        Some([(a, b), (b, a)])
    }

    /// `x` of `Clip(x + 3, 0, 6)`.
    fn relu6_of_shifted(&self, name: &str) -> Option<&'a str> {
        let clip = self.made_by(name, "Clip")?;
        let bound = |index: usize, attribute: &str| match clip.input(index) {
            Some(name) => self.scalar(name),
            None => clip.has(attribute).then(|| clip.float(attribute, 0.0)),
        };
        if (bound(1, "min")?, bound(2, "max")?) != (0.0, 6.0) {
            return None;
        }
        let add = self.made_by(clip.input(0)?, "Add")?;
        let (x, three) = self.with_scalar(add)?;
        (three == 3.0).then_some(x)
    }

    /// What a node divides by 6, by a Div or a Mul.
    fn sixth_of(&self, node: &'a Node) -> Option<&'a str> {
        if node.is("Div") {
            let (value, by) = (node.input(0)?, self.scalar(node.input(1)?)?);
            return (by == 6.0).then_some(value);
        }
        let (value, by) = self.with_scalar(node)?;
        ((by - 1.0 / 6.0).abs() < 1e-6).then_some(value)
    }

    /// `Clip(x + 3, 0, 6) / 6`.
    fn hard_sigmoid(&self, node: &'a Node) -> Option<Node> {
        let x = self.relu6_of_shifted(self.sixth_of(node)?)?;
        let new = Node::new("HardSigmoid", "", &[x], &[]);
        Some(new.with("alpha", Attribute::Float(1.0 / 6.0)).with("beta", Attribute::Float(0.5)))
    }

    /// `x * HardSigmoid(x)` with HardSwish's slope.
    fn hard_swish(&self, node: &'a Node) -> Option<Node> {
        if !node.is("Mul") || !self.may(14) {
            return None;
        }
        self.orders(node)?.into_iter().find_map(|(x, gate)| {
            let gate = self.made_by(gate, "HardSigmoid").filter(|gate| gate.input(0) == Some(x))?;
            let (alpha, beta) = (gate.float("alpha", 0.2), gate.float("beta", 0.5));
            ((alpha - 1.0 / 6.0).abs() < 1e-6 && beta == 0.5).then(|| Node::new("HardSwish", "", &[x], &[]))
        })
    }

    /// `x * Clip(x + 3, 0, 6) / 6`.
    fn hard_swish_scaled(&self, node: &'a Node) -> Option<Node> {
        if !self.may(14) {
            return None;
        }
        let product = self.made_by(self.sixth_of(node)?, "Mul")?;
        self.orders(product)?
            .into_iter()
            .find_map(|(x, gate)| (self.relu6_of_shifted(gate)? == x).then(|| Node::new("HardSwish", "", &[x], &[])))
    }

    /// `x` of `1 + exp(-x)`.
    fn exponential(&self, name: &str) -> Option<&'a str> {
        let (power, one) = self.with_scalar(self.made_by(name, "Add")?)?;
        let negative = self.made_by(self.made_by(power, "Exp")?.input(0)?, "Neg")?;
        (one == 1.0).then(|| negative.input(0)).flatten()
    }

    fn sigmoid_of(&self, name: &str) -> Option<Node> {
        Some(Node::new("Sigmoid", "", &[self.exponential(name)?], &[]))
    }

    /// `1 / (1 + exp(-x))`.
    fn sigmoid(&self, node: &'a Node) -> Option<Node> {
        (self.scalar(node.input(0)?)? == 1.0).then(|| self.sigmoid_of(node.input(1)?)).flatten()
    }

    /// `x / (1 + exp(-x))`: SiLU as `x * Sigmoid(x)`, since ONNX has no operator for it before operator set 24.
    fn silu(&self, node: &'a Node) -> Option<Rewrite> {
        let (x, sum) = (node.input(0)?, node.input(1)?);
        if self.exponential(sum)? != x {
            return None;
        }
        let gate = self.graph.fresh(&format!("{}_sigmoid", node.output()));
        let sigmoid = Node::new("Sigmoid", &gate, &[x], &[&gate]);
        let product = Node::new("Mul", "", &[x, &gate], &[node.output()]);
        Some(Rewrite { nodes: vec![sigmoid, product], constants: Vec::new() })
    }

    /// `x * 0.5 * (1 + erf(x / sqrt(2)))` in any order of the products.
    fn gelu(&self, node: &'a Node) -> Option<Node> {
        self.halved_gate(node, |gate| {
            let erf = self.made_by(gate, "Erf")?;
            let inner = self.producer(erf.input(0)?)?;
            if !self.only_reader(erf.input(0)?) {
                return None;
            }
            let (x, factor) = if inner.is("Div") {
                (inner.input(0)?, 1.0 / self.scalar(inner.input(1)?)?)
            } else if inner.is("Mul") {
                self.with_scalar(inner)?
            } else {
                return None;
            };
            ((factor - std::f32::consts::FRAC_1_SQRT_2).abs() < 1e-4).then_some(x)
        })
        .map(|x| Node::new("Gelu", "", &[x], &[]))
    }

    /// `x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`.
    fn gelu_tanh(&self, node: &'a Node) -> Option<Node> {
        self.halved_gate(node, |gate| {
            let scaled = self.made_by(self.made_by(gate, "Tanh")?.input(0)?, "Mul")?;
            let (sum, factor) = self.with_scalar(scaled)?;
            if (factor - (2.0 / std::f32::consts::PI).sqrt()).abs() > 1e-4 {
                return None;
            }
            let sum = self.made_by(sum, "Add")?;
            self.orders(sum)?.into_iter().find_map(|(x, cubic)| {
                let (cube, factor) = self.with_scalar(self.made_by(cubic, "Mul")?)?;
                let power = self.made_by(cube, "Pow")?;
                let cubed = power.input(0)? == x && self.scalar(power.input(1)?)? == 3.0;
                (cubed && (factor - 0.044_715).abs() < 1e-5).then_some(x)
            })
        })
        .map(|x| Node::new("Gelu", "", &[x], &[]).with("approximate", Attribute::String(b"tanh".to_vec())))
    }

    /// The `x` of `x * 0.5 * (1 + gate(x))`, whose products may associate in any way.
    fn halved_gate(&self, node: &'a Node, gate: impl Fn(&str) -> Option<&'a str>) -> Option<&'a str> {
        if !node.is("Mul") || !self.may(20) {
            return None;
        }
        let mut factors = vec![node.input(0)?, node.input(1)?];
        let mut at = 0;
        while at < factors.len() && factors.len() < 4 {
            match self.made_by(factors[at], "Mul") {
                Some(inner) => {
                    factors.splice(at..=at, [inner.input(0)?, inner.input(1)?]);
                }
                None => at += 1,
            }
        }
        let mut half = 1.0;
        let mut rest = Vec::new();
        for factor in factors {
            match self.scalar(factor) {
                Some(value) => half *= value,
                None => rest.push(factor),
            }
        }
        let [one, other] = rest[..] else { return None };
        if half != 0.5 {
            return None;
        }
        [(one, other), (other, one)].into_iter().find_map(|(x, sum)| {
            let (value, shift) = self.with_scalar(self.made_by(sum, "Add")?)?;
            (shift == 1.0 && gate(value)? == x).then_some(x)
        })
    }

    /// `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon)` over the last axes, without scale and shift.
    fn layer_norm(&self, node: &'a Node) -> Option<Rewrite> {
        if !self.may(17) {
            return None;
        }
        let pairs = if node.is("Div") { vec![(node.input(0)?, node.input(1)?)] } else { self.orders(node)?.to_vec() };
        pairs.into_iter().find_map(|(centred, deviation)| {
            let root = if node.is("Div") {
                self.made_by(deviation, "Sqrt")?
            } else {
                self.made_by(self.made_by(deviation, "Reciprocal")?.input(0)?, "Sqrt")?
            };
            let (variance, epsilon) = self.with_scalar(self.made_by(root.input(0)?, "Add")?)?;
            let mean_of_squares = self.made_by(variance, "ReduceMean")?;
            let squares = self.producer(mean_of_squares.input(0)?)?;
            let squared = match squares.op_type.as_str() {
                "Pow" => self.scalar(squares.input(1)?)? == 2.0,
                "Mul" => squares.input(1) == squares.input(0),
                _ => false,
            };
            // Some exporters compute the difference twice.
            let twin = self.producer(squares.input(0)?)?;
            let centring = self.producer(centred).filter(|node| node.is("Sub"))?;
            let same = twin.is("Sub") && twin.inputs == centring.inputs;
            let x = centring.input(0)?;
            let mean = self.producer(centring.input(1)?).filter(|node| node.is("ReduceMean"))?;
            let axes = self.last_axes(mean, x)?;
            let fits = squared && same && mean.input(0) == Some(x) && self.last_axes(mean_of_squares, x)? == axes;
            let shape = self.graph.shape_of(x)?.get(axes..)?;
            if !fits || epsilon <= 0.0 {
                return None;
            }
            // LayerNormalization needs a scale; a product that follows gives its own.
            let ones = self.graph.fresh(&format!("{}_ones", node.output()));
            let new = Node::new("LayerNormalization", "", &[x, &ones], &[])
                .with("axis", Attribute::Int(axes as i64))
                .with("epsilon", Attribute::Float(epsilon));
            let scale = Tensor::f32(shape, vec![1.0; shape.iter().product()]);
            Some(Rewrite { nodes: vec![new], constants: vec![(ones, scale)] })
        })
    }

    /// The first of the last axes that a ReduceMean takes together, keeping them as ones.
    fn last_axes(&self, node: &Node, x: &str) -> Option<usize> {
        let rank = self.graph.shape_of(x)?.len();
        let given = match node.ints("axes") {
            Some(axes) => axes.to_vec(),
            None => self.constant(node.input(1)?)?.to_i64()?,
        };
        let mut axes: Vec<usize> = given.iter().map(|value| axis(*value, rank)).collect::<Option<_>>()?;
        axes.sort_unstable();
        let first = *axes.first()?;
        (node.int("keepdims", 1) != 0 && axes.into_iter().eq(first..rank)).then_some(first)
    }

    /// A scale on a LayerNormalization that has none but ones.
    fn layer_norm_scale(&self, node: &'a Node) -> Option<Node> {
        self.orders(node)?.into_iter().find_map(|(value, factor)| {
            let norm = self.made_by(value, "LayerNormalization").filter(|norm| norm.input(2).is_none())?;
            let (have, want) = (self.constant(norm.input(1)?)?, self.constant(factor)?);
            if have.as_f32()?.iter().any(|value| *value != 1.0) {
                return None;
            }
            let mut new = norm.clone();
            new.touch();
            new.inputs[1] = factor.to_owned();
            (have.dims == want.dims && want.as_f32().is_some()).then_some(new)
        })
    }

    /// A shift on a LayerNormalization without one.
    fn layer_norm_shift(&self, node: &'a Node) -> Option<Node> {
        self.orders(node)?.into_iter().find_map(|(value, shift)| {
            let norm = self.made_by(value, "LayerNormalization").filter(|norm| norm.input(2).is_none())?;
            let (scale, shift_tensor) = (self.constant(norm.input(1)?)?, self.constant(shift)?);
            let mut new = norm.clone();
            new.touch();
            new.inputs.truncate(2);
            new.inputs.push(shift.to_owned());
            let fits = scale.dims == shift_tensor.dims && shift_tensor.as_f32().is_some();
            (fits && norm.outputs.len() == 1).then_some(new)
        })
    }
}
