//! Operators that mean the same in any order of dimensions.

use edgeyard_tflite::{Activation, BuiltinOp as Op, MirrorMode, Operator, Options, TensorType};

use super::{Import, ImportError};
use crate::ir::{Attribute, Node, Tensor};

impl Import<'_> {
    /// Writes one operator as nodes.
    pub(super) fn operator(&mut self, operator: &Operator) -> Result<(), ImportError> {
        if operator.code.builtin == Op::TOPK_V2 {
            return self.top_k(operator);
        }
        if operator.outputs.len() != 1 {
            return Err(self.refuse(format!("it has {} outputs", operator.outputs.len())));
        }
        let options = &operator.options;
        match operator.code.builtin {
            Op::CONV_2D => self.conv(options),
            Op::DEPTHWISE_CONV_2D => self.depthwise(options),
            Op::TRANSPOSE_CONV => self.transpose_conv(options),
            Op::MAX_POOL_2D => self.pool("MaxPool", options),
            Op::AVERAGE_POOL_2D => self.pool("AveragePool", options),
            Op::RESIZE_BILINEAR | Op::RESIZE_NEAREST_NEIGHBOR => self.resize(options),
            Op::DEPTH_TO_SPACE | Op::SPACE_TO_DEPTH => self.blocks(options),
            Op::FULLY_CONNECTED => self.fully_connected(options),
            Op::BATCH_MATMUL => self.batch_matmul(options),
            Op::ADD => self.binary("Add", options),
            Op::SUB => self.binary("Sub", options),
            Op::MUL => self.binary("Mul", options),
            Op::DIV => self.binary("Div", options),
            Op::MAXIMUM => self.binary("Max", options),
            Op::MINIMUM => self.binary("Min", options),
            Op::POW => self.binary("Pow", options),
            Op::PRELU => self.binary("PRelu", options),
            Op::GREATER => self.binary("Greater", options),
            Op::GREATER_EQUAL => self.binary("GreaterOrEqual", options),
            Op::LESS => self.binary("Less", options),
            Op::LESS_EQUAL => self.binary("LessOrEqual", options),
            Op::EQUAL => self.binary("Equal", options),
            Op::LOGICAL_AND => self.binary("And", options),
            Op::LOGICAL_OR => self.binary("Or", options),
            Op::LOGICAL_NOT => self.unary("Not", Vec::new()),
            // What they convert between is the same here.
            Op::QUANTIZE | Op::DEQUANTIZE => self.unary("Identity", Vec::new()),
            Op::RELU => self.unary("Relu", Vec::new()),
            Op::LOGISTIC => self.unary("Sigmoid", Vec::new()),
            Op::TANH => self.unary("Tanh", Vec::new()),
            Op::HARD_SWISH => self.unary("HardSwish", Vec::new()),
            Op::ELU => self.unary("Elu", Vec::new()),
            Op::ABS => self.unary("Abs", Vec::new()),
            Op::NEG => self.unary("Neg", Vec::new()),
            Op::EXP => self.unary("Exp", Vec::new()),
            Op::LOG => self.unary("Log", Vec::new()),
            Op::SQRT => self.unary("Sqrt", Vec::new()),
            Op::SIN => self.unary("Sin", Vec::new()),
            Op::COS => self.unary("Cos", Vec::new()),
            Op::FLOOR => self.unary("Floor", Vec::new()),
            Op::CEIL => self.unary("Ceil", Vec::new()),
            Op::ROUND => self.unary("Round", Vec::new()),
            Op::SIGN => self.unary("Sign", Vec::new()),
            Op::LOG_SOFTMAX => self.unary("LogSoftmax", vec![("axis", Attribute::Int(-1))]),
            Op::L2_NORMALIZATION => {
                self.unary("LpNormalization", vec![("axis", Attribute::Int(-1)), ("p", Attribute::Int(2))])
            }
            Op::GELU => self.gelu(options),
            Op::LEAKY_RELU => match options {
                Options::LeakyRelu(options) => {
                    self.unary("LeakyRelu", vec![("alpha", Attribute::Float(options.alpha))])
                }
                _ => Err(self.refuse("its options are missing")),
            },
            Op::RELU6 => self.clipped(0.0, 6.0),
            Op::RELU_N1_TO_1 => self.clipped(-1.0, 1.0),
            Op::RSQRT => {
                let x = self.read(0)?;
                let root = self.inner("Sqrt", &[&x], Vec::new());
                self.last("Reciprocal", &[&root], Vec::new())
            }
            Op::SQUARE => {
                let x = self.read(0)?;
                self.last("Mul", &[&x, &x], Vec::new())
            }
            Op::SQUARED_DIFFERENCE => {
                let (a, b) = (self.read(0)?, self.read(1)?);
                let difference = self.inner("Sub", &[&a, &b], Vec::new());
                self.last("Mul", &[&difference, &difference], Vec::new())
            }
            Op::SOFTMAX => self.softmax(options),
            Op::RESHAPE | Op::SQUEEZE | Op::EXPAND_DIMS => self.reshape(),
            Op::TRANSPOSE => {
                let (x, order) = (self.read(0)?, self.integers(1)?);
                self.last("Transpose", &[&x], vec![("perm", Attribute::Ints(order))])
            }
            Op::CONCATENATION => self.concatenation(operator, options),
            Op::PAD | Op::PADV2 | Op::MIRROR_PAD => self.pad(options),
            Op::MEAN => self.reduce("ReduceMean", options),
            Op::SUM => self.reduce("ReduceSum", options),
            Op::REDUCE_MAX => self.reduce("ReduceMax", options),
            Op::REDUCE_MIN => self.reduce("ReduceMin", options),
            Op::REDUCE_PROD => self.reduce("ReduceProd", options),
            Op::CUMSUM => self.cumulative(options),
            Op::LOCAL_RESPONSE_NORMALIZATION => self.local_response(options),
            Op::FLOOR_MOD => self.floor_mod(),
            Op::ARG_MAX => self.arg("ArgMax"),
            Op::ARG_MIN => self.arg("ArgMin"),
            Op::SLICE => self.slice(),
            Op::STRIDED_SLICE => self.strided_slice(options),
            Op::GATHER => self.gather(options),
            Op::CAST => self.cast(),
            Op::REVERSE_V2 => self.reverse(),
            Op::UNIDIRECTIONAL_SEQUENCE_LSTM => self.sequence_lstm(options),
            Op::SELECT_V2 | Op::SELECT => {
                let (condition, a, b) = (self.read(0)?, self.read(1)?, self.read(2)?);
                self.last("Where", &[&condition, &a, &b], Vec::new())
            }
            _ => Err(self.refuse("there is no import for it")),
        }
    }

    /// A node that makes the operator's output.
    pub(super) fn last(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<(&str, Attribute)>,
    ) -> Result<(), ImportError> {
        let output = self.names[self.output()?].clone();
        self.node(op, inputs, &output, attributes);
        Ok(())
    }

    fn unary(&mut self, op: &str, attributes: Vec<(&str, Attribute)>) -> Result<(), ImportError> {
        let x = self.read(0)?;
        self.last(op, &[&x], attributes)
    }

    fn clipped(&mut self, low: f32, high: f32) -> Result<(), ImportError> {
        let (x, output) = (self.read(0)?, self.names[self.output()?].clone());
        self.clip(&x, &output, low, high);
        Ok(())
    }

    fn binary(&mut self, op: &str, options: &Options) -> Result<(), ImportError> {
        let activation = match options {
            Options::Add(options) => options.fused_activation_function,
            Options::Sub(options) => options.fused_activation_function,
            Options::Mul(options) => options.fused_activation_function,
            Options::Div(options) => options.fused_activation_function,
            _ => Activation::None,
        };
        let (a, b) = (self.read(0)?, self.read(1)?);
        if activation == Activation::None {
            return self.last(op, &[&a, &b], Vec::new());
        }
        let made = self.inner(op, &[&a, &b], Vec::new());
        self.finish(&made, activation)
    }

    fn gelu(&mut self, options: &Options) -> Result<(), ImportError> {
        let tanh = matches!(options, Options::Gelu(options) if options.approximate);
        let kind = if tanh { "tanh" } else { "none" };
        self.unary("Gelu", vec![("approximate", Attribute::String(kind.into()))])
    }

    fn softmax(&mut self, options: &Options) -> Result<(), ImportError> {
        let beta = if let Options::Softmax(options) = options { options.beta } else { 1.0 };
        let mut x = self.read(0)?;
        if beta != 1.0 {
            let factor = self.enter("beta", Tensor::f32(&[], vec![beta]));
            x = self.inner("Mul", &[&x, &factor], Vec::new());
        }
        self.last("Softmax", &[&x], vec![("axis", Attribute::Int(-1))])
    }

    /// The output's shape says what becomes of it.
    fn reshape(&mut self) -> Result<(), ImportError> {
        let x = self.read(0)?;
        let shape: Vec<i64> = self.shape(self.output()?).iter().map(|&dim| dim as i64).collect();
        let shape = self.list("shape", &shape);
        self.last("Reshape", &[&x, &shape], Vec::new())
    }

    fn concatenation(&mut self, operator: &Operator, options: &Options) -> Result<(), ImportError> {
        let Options::Concatenation(options) = options else { return Err(self.refuse("its options are missing")) };
        let parts: Vec<String> =
            (0..operator.inputs.len()).map(|position| self.read(position)).collect::<Result<_, _>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let made = self.inner("Concat", &parts, vec![("axis", Attribute::Int(i64::from(options.axis)))]);
        self.finish(&made, options.fused_activation_function)
    }

    fn pad(&mut self, options: &Options) -> Result<(), ImportError> {
        let (x, amounts) = (self.read(0)?, self.integers(1)?);
        // Pairs per dimension become all the begins, then all the ends.
        let pads: Vec<i64> = amounts.iter().step_by(2).chain(amounts.iter().skip(1).step_by(2)).copied().collect();
        let pads = self.list("pads", &pads);
        let mode = match options {
            Options::MirrorPad(options) if options.mode == MirrorMode::Reflect => "reflect",
            Options::MirrorPad(_) => return Err(self.refuse("it repeats the border")),
            _ => "constant",
        };
        let mut inputs = vec![x, pads];
        if self.optional(2).is_some() && mode == "constant" {
            let at = self.operand(2)?;
            let value = self.constant(at)?.to_f32().and_then(|values| values.first().copied());
            let value = value.ok_or_else(|| self.refuse("what it pads with is no float"))?;
            inputs.push(self.enter("value", Tensor::f32(&[], vec![value])));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.last("Pad", &inputs, vec![("mode", Attribute::String(mode.into()))])
    }

    fn reduce(&mut self, op: &str, options: &Options) -> Result<(), ImportError> {
        let keep = matches!(options, Options::Reducer(options) if options.keep_dims);
        let (x, axes) = (self.read(0)?, self.integers(1)?);
        let axes = self.list("axes", &axes);
        self.last(op, &[&x, &axes], vec![("keepdims", Attribute::Int(i64::from(keep)))])
    }

    fn arg(&mut self, op: &str) -> Result<(), ImportError> {
        let (x, axis) = (self.read(0)?, self.integers(1)?);
        let [axis] = axis[..] else { return Err(self.refuse("its axis is not one number")) };
        let attributes = vec![("axis", Attribute::Int(axis)), ("keepdims", Attribute::Int(0))];
        if self.source.tensors[self.output()?].dtype == TensorType::Int64 {
            return self.last(op, &[&x], attributes);
        }
        let made = self.inner(op, &[&x], attributes);
        self.last("Cast", &[&made], vec![("to", Attribute::Int(crate::ir::DataType::I32.onnx()))])
    }

    /// Values, and positions as 32-bit integers.
    fn top_k(&mut self, operator: &Operator) -> Result<(), ImportError> {
        let [values, places] = operator.outputs[..] else {
            return Err(self.refuse(format!("it has {} outputs", operator.outputs.len())));
        };
        let (x, k) = (self.read(0)?, self.integers(1)?);
        let k = self.list("k", &k);
        let [values, places] = [values, places].map(|at| self.names[at as usize].clone());
        let wide = self.graph.fresh(&format!("{places}_wide"));
        let label = format!("TopK_{}", self.at);
        let node = Node::new("TopK", &label, &[&x, &k], &[&values, &wide]).with("axis", Attribute::Int(-1));
        self.graph.nodes.push(node);
        self.node("Cast", &[&wide], &places, vec![("to", Attribute::Int(crate::ir::DataType::I32.onnx()))]);
        Ok(())
    }

    fn cumulative(&mut self, options: &Options) -> Result<(), ImportError> {
        let Options::Cumsum(options) = options else { return Err(self.refuse("its options are missing")) };
        let (x, axis) = (self.read(0)?, self.integers(1)?);
        let axis = self.list("axis", &axis);
        let flags = [("exclusive", options.exclusive), ("reverse", options.reverse)];
        let flags = flags.into_iter().map(|(name, flag)| (name, Attribute::Int(i64::from(flag)))).collect();
        self.last("CumSum", &[&x, &axis], flags)
    }

    /// ONNX has the channels second, and alpha for all neighbours together.
    fn local_response(&mut self, options: &Options) -> Result<(), ImportError> {
        let Options::LocalResponseNormalization(options) = options else {
            return Err(self.refuse("its options are missing"));
        };
        let size = i64::from(options.radius) * 2 + 1;
        let x = self.read(0)?;
        let moved = self.inner("Transpose", &[&x], vec![("perm", Attribute::Ints(vec![0, 3, 1, 2]))]);
        let made = self.inner(
            "LRN",
            &[&moved],
            vec![
                ("size", Attribute::Int(size)),
                ("alpha", Attribute::Float(options.alpha * size as f32)),
                ("beta", Attribute::Float(options.beta)),
                ("bias", Attribute::Float(options.bias)),
            ],
        );
        self.last("Transpose", &[&made], vec![("perm", Attribute::Ints(vec![0, 2, 3, 1]))])
    }

    /// What is left of x over y has y's sign: for floats, where ONNX's has x's, x - y floor(x / y).
    fn floor_mod(&mut self) -> Result<(), ImportError> {
        let (x, y) = (self.read(0)?, self.read(1)?);
        if self.dtype(self.output()?)? != crate::ir::DataType::F32 {
            return self.last("Mod", &[&x, &y], Vec::new());
        }
        let ratio = self.inner("Div", &[&x, &y], Vec::new());
        let whole = self.inner("Floor", &[&ratio], Vec::new());
        let taken = self.inner("Mul", &[&y, &whole], Vec::new());
        self.last("Sub", &[&x, &taken], Vec::new())
    }

    fn slice(&mut self) -> Result<(), ImportError> {
        let (x, begin, size) = (self.read(0)?, self.integers(1)?, self.integers(2)?);
        let shape = self.shape(self.operand(0)?);
        if begin.len() != shape.len() || size.len() != shape.len() {
            return Err(self.refuse("its bounds do not fit its input"));
        }
        let ends: Vec<i64> = (0..shape.len())
            .map(|at| if size[at] == -1 { shape[at] as i64 } else { begin[at].saturating_add(size[at]) })
            .collect();
        let (starts, ends) = (self.list("starts", &begin), self.list("ends", &ends));
        self.last("Slice", &[&x, &starts, &ends], Vec::new())
    }

    fn strided_slice(&mut self, options: &Options) -> Result<(), ImportError> {
        let Options::StridedSlice(options) = options else { return Err(self.refuse("its options are missing")) };
        if (options.ellipsis_mask, options.new_axis_mask, options.shrink_axis_mask, options.offset) != (0, 0, 0, false)
        {
            return Err(self.refuse("it adds or drops dimensions"));
        }
        let (x, mut begin) = (self.read(0)?, self.integers(1)?);
        let (mut end, strides) = (self.integers(2)?, self.integers(3)?);
        if end.len() != begin.len() || strides.len() != begin.len() || begin.len() > 8 {
            return Err(self.refuse("its bounds differ in length"));
        }
        for at in 0..begin.len() {
            let backwards = strides[at] < 0;
            if options.begin_mask & (1 << at) != 0 {
                begin[at] = if backwards { i64::MAX } else { 0 };
            }
            if options.end_mask & (1 << at) != 0 {
                end[at] = if backwards { i64::MIN } else { i64::MAX };
            }
        }
        let axes: Vec<i64> = (0..begin.len() as i64).collect();
        let lists = [("starts", &begin), ("ends", &end), ("axes", &axes), ("steps", &strides)];
        let [starts, ends, axes, steps] = lists.map(|(name, values)| self.list(name, values));
        self.last("Slice", &[&x, &starts, &ends, &axes, &steps], Vec::new())
    }

    fn gather(&mut self, options: &Options) -> Result<(), ImportError> {
        let Options::Gather(options) = options else { return Err(self.refuse("its options are missing")) };
        if options.batch_dims != 0 {
            return Err(self.refuse("it has batch dimensions"));
        }
        let (x, indices) = (self.read(0)?, self.read(1)?);
        self.last("Gather", &[&x, &indices], vec![("axis", Attribute::Int(i64::from(options.axis)))])
    }

    fn cast(&mut self) -> Result<(), ImportError> {
        let to = self.dtype(self.output()?)?;
        self.unary("Cast", vec![("to", Attribute::Int(to.onnx()))])
    }

    fn fully_connected(&mut self, options: &Options) -> Result<(), ImportError> {
        let Options::FullyConnected(options) = options else { return Err(self.refuse("its options are missing")) };
        if options.weights_format != 0 {
            return Err(self.refuse("its weights are shuffled"));
        }
        let weights = self.shape(self.operand(1)?);
        let [outputs, inputs] = weights[..] else { return Err(self.refuse("its weights are no matrix")) };
        let (mut x, w) = (self.read(0)?, self.read(1)?);
        if self.shape(self.operand(0)?).len() != 2 || self.shape(self.operand(0)?)[1] != inputs {
            let rows = self.list("rows", &[-1, inputs as i64]);
            x = self.inner("Reshape", &[&x, &rows], Vec::new());
        }
        let mut operands = vec![x, w];
        if self.optional(2).is_some() {
            operands.push(self.read(2)?);
        }
        let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
        let mut made = self.inner("Gemm", &operands, vec![("transB", Attribute::Int(1))]);
        let shape = self.shape(self.output()?);
        if shape.len() != 2 || shape[1] != outputs {
            let dims: Vec<i64> = shape.iter().map(|&dim| dim as i64).collect();
            let dims = self.list("shape", &dims);
            made = self.inner("Reshape", &[&made, &dims], Vec::new());
        }
        self.finish(&made, options.fused_activation_function)
    }

    fn batch_matmul(&mut self, options: &Options) -> Result<(), ImportError> {
        let Options::BatchMatMul(options) = options else { return Err(self.refuse("its options are missing")) };
        let mut sides = Vec::new();
        for (position, turned) in [(0, options.adj_x), (1, options.adj_y)] {
            let side = self.read(position)?;
            let rank = self.shape(self.operand(position)?).len() as i64;
            sides.push(if turned && rank >= 2 {
                let order = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
                self.inner("Transpose", &[&side], vec![("perm", Attribute::Ints(order))])
            } else {
                side
            });
        }
        self.last("MatMul", &[&sides[0], &sides[1]], Vec::new())
    }
}
