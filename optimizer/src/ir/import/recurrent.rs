//! UNIDIRECTIONAL_SEQUENCE_LSTM as ONNX's LSTM. The operator keeps its state from one inference to the next; here every
//! inference starts from zero, which is the same for the first one, and for files that empty the state themselves.

use edgeyard_tflite::{Activation, Options};

use super::{Import, ImportError};
use crate::ir::{Attribute, Tensor};

/// TFLite's gates are input, forget, cell, output; ONNX's input, output, forget, cell.
const ORDER: [usize; 4] = [0, 3, 1, 2];
/// TFLite's peepholes are input, forget, output; ONNX's input, output, forget.
const PEEPHOLES: [usize; 3] = [9, 11, 10];
const INPUT_WEIGHTS: usize = 1;
const RECURRENT_WEIGHTS: usize = 5;
const BIASES: usize = 12;

impl Import<'_> {
    /// Writes the operator; all of its weights are ordinary tensors, so gates are put together by `Concat`.
    pub(super) fn sequence_lstm(&mut self, options: &Options) -> Result<(), ImportError> {
        let Options::UnidirectionalSequenceLstm(options) = options else {
            return Err(self.refuse("its options are missing"));
        };
        if options.fused_activation_function != Activation::Tanh {
            return Err(self.refuse("its activation is not TANH"));
        }
        if options.cell_clip != 0.0 || options.proj_clip != 0.0 || options.diagonal_recurrent_tensors {
            return Err(self.refuse("it clips its state or has diagonal weights"));
        }
        if (16..18).chain(20..24).any(|place| self.optional(place).is_some()) {
            return Err(self.refuse("it has a projection or layer normalisation"));
        }
        let shape = self.shape(self.operand(0)?);
        let recurrent = self.shape(self.operand(RECURRENT_WEIGHTS + 1)?);
        let ([first, second, _], [hidden, width]) = (&shape[..], &recurrent[..]) else {
            return Err(self.refuse("its input or weights have other dimensions than an LSTM's"));
        };
        let (hidden, width) = (*hidden, *width);
        if hidden != width {
            return Err(self.refuse("its recurrent weights are not square"));
        }
        let mut x = self.read(0)?;
        let (time, batch) = if options.time_major { (*first, *second) } else { (*second, *first) };
        let turned = || vec![("perm", Attribute::Ints(vec![1, 0, 2]))];
        if !options.time_major {
            x = self.inner("Transpose", &[&x], turned());
        }
        let w = self.gates(INPUT_WEIGHTS, &[])?;
        let r = self.gates(RECURRENT_WEIGHTS, &[])?;
        let zeros = self.enter("zeros", Tensor::f32(&[4 * hidden], vec![0.0; 4 * hidden]));
        let b = self.gates(BIASES, &[zeros])?;
        let mut inputs = vec![x, w, r, b];
        if PEEPHOLES.iter().any(|place| self.optional(*place).is_some()) {
            let parts: Vec<String> = PEEPHOLES.iter().map(|place| self.read(*place)).collect::<Result<_, _>>()?;
            let p = self.one_direction(&parts);
            inputs.extend(["", "", "", &p].map(str::to_owned));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let size = vec![("hidden_size", Attribute::Int(hidden as i64))];
        let made = self.inner("LSTM", &inputs, size);
        let dims = self.list("shape", &[time as i64, batch as i64, hidden as i64]);
        if options.time_major {
            return self.last("Reshape", &[&made, &dims], Vec::new());
        }
        let made = self.inner("Reshape", &[&made, &dims], Vec::new());
        self.last("Transpose", &[&made], turned())
    }

    /// Four gates in ONNX's order, and what comes behind them.
    fn gates(&mut self, first: usize, behind: &[String]) -> Result<String, ImportError> {
        if self.optional(first).is_none() {
            return Err(self.refuse("its input gate is coupled to its forget gate"));
        }
        let mut parts: Vec<String> = ORDER.iter().map(|place| self.read(first + place)).collect::<Result<_, _>>()?;
        parts.extend_from_slice(behind);
        Ok(self.one_direction(&parts))
    }

    /// Parts one behind the other, with an axis for the direction in front.
    fn one_direction(&mut self, parts: &[String]) -> String {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let joined = self.inner("Concat", &parts, vec![("axis", Attribute::Int(0))]);
        let axes = self.list("axes", &[0]);
        self.inner("Unsqueeze", &[&joined, &axes], Vec::new())
    }

    /// REVERSE_V2: a slice that steps backwards.
    pub(super) fn reverse(&mut self) -> Result<(), ImportError> {
        let (x, axes) = (self.read(0)?, self.integers(1)?);
        let count = axes.len();
        let lists =
            [("starts", vec![-1; count]), ("ends", vec![i64::MIN; count]), ("axes", axes), ("steps", vec![-1; count])];
        let [starts, ends, axes, steps] = lists.map(|(name, values)| self.list(name, &values));
        self.last("Slice", &[&x, &starts, &ends, &axes, &steps], Vec::new())
    }
}
