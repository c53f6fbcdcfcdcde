//! Inputs whose value is known before the model is built into a device: a sampling rate, a switch, a state that starts
//! from zero. They become constants, so that what depends on nothing else is folded and branches on them are taken.

use std::collections::BTreeMap;

use super::SimplifyError;
use crate::ir::{DataType, Dim, Graph, Tensor, TensorData};

/// No input whose value is one number repeated is larger.
const MAX_ELEMENTS: usize = 1 << 24;

/// Makes constants of inputs: every element of the input NAME is `values[NAME]`. Free dimensions take their sizes from
/// `shapes`, the batch is 1 without one. Shapes of inputs that are gone afterwards are taken out of `shapes`.
///
/// # Errors
/// [`SimplifyError::WrongValue`] for a name that is no input, for a number that the input's type does not hold, and when
/// no input would be left.
pub fn bind(
    graph: &mut Graph,
    values: &BTreeMap<String, f64>,
    shapes: &mut BTreeMap<String, Vec<usize>>,
) -> Result<(), SimplifyError> {
    for (name, &value) in values {
        let wrong = |problem: String| SimplifyError::WrongValue { input: name.clone(), problem };
        let Some(at) = graph.inputs.iter().position(|input| input.name == *name) else {
            let all: Vec<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
            return Err(wrong(format!("it is no input of the model, whose inputs are {}", all.join(", "))));
        };
        if graph.inputs.len() == 1 {
            return Err(wrong("the model would have no input left".to_owned()));
        }
        let input = &graph.inputs[at];
        let dims = match (shapes.get(name), input.has_shape) {
            (Some(shape), _) => shape.clone(),
            (None, false) => {
                return Err(wrong(format!("the model does not say its shape: add --input-shape {name}=…")));
            }
            (None, true) => {
                let size = |(position, dim): (usize, &Dim)| match dim {
                    Dim::Static(size) => Ok(*size),
                    _ if position == 0 => Ok(1),
                    dim => Err(SimplifyError::FreeDimension { input: name.clone(), dim: dim.to_string(), position }),
                };
                input.shape.iter().enumerate().map(size).collect::<Result<_, _>>()?
            }
        };
        let len = dims.iter().try_fold(1_usize, |len, dim| len.checked_mul(*dim)).filter(|len| *len <= MAX_ELEMENTS);
        let len = len.ok_or_else(|| wrong(format!("its shape {dims:?} is too large for a constant")))?;
        let data = filled(input.dtype, value, len).map_err(wrong)?;
        graph.inputs.remove(at);
        graph.initializers.insert(name.clone(), Tensor { dims, data });
        shapes.remove(name);
    }
    Ok(())
}

/// `len` elements of one value.
fn filled(dtype: DataType, value: f64, len: usize) -> Result<TensorData, String> {
    let whole = |least: f64, most: f64| {
        let fits = value.fract() == 0.0 && (least..=most).contains(&value);
        fits.then_some(value as i64).ok_or_else(|| format!("{value} is no value of {dtype}, the input's type"))
    };
    // Beyond 2^53 a number with a fraction in it would pass for a whole one.
    let exact = 2.0_f64.powi(53);
    Ok(match dtype {
        DataType::F32 => TensorData::F32(vec![value as f32; len]),
        DataType::F64 => TensorData::F64(vec![value; len]),
        DataType::F16 => TensorData::F16(vec![half::f16::from_f64(value).to_bits(); len]),
        DataType::I64 => TensorData::I64(vec![whole(-exact, exact)?; len]),
        DataType::I32 => TensorData::I32(vec![whole(f64::from(i32::MIN), f64::from(i32::MAX))? as i32; len]),
        DataType::U8 => TensorData::U8(vec![whole(0.0, 255.0)? as u8; len]),
        DataType::I8 => TensorData::I8(vec![whole(-128.0, 127.0)? as i8; len]),
        DataType::Bool => TensorData::Bool(vec![whole(0.0, 1.0)? != 0; len]),
        other => return Err(format!("it is of type {other}; numbers and truth values can be given")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Node, Value};
    use crate::simplify::{Shapes, simplify};

    fn graph() -> Graph {
        Graph {
            inputs: vec![Value::fixed("x", DataType::F32, &[1, 4]), Value::fixed("rate", DataType::I64, &[])],
            outputs: vec![Value::fixed("y", DataType::F32, &[1, 4])],
            nodes: vec![
                Node::new("Cast", "", &["rate"], &["r"]).with("to", crate::ir::Attribute::Int(1)),
                Node::new("Mul", "", &["x", "r"], &["y"]),
            ],
            opset: 16,
            ..Graph::default()
        }
    }

    #[test]
    fn a_given_input_is_a_constant() {
        let mut bound = graph();
        let mut shapes = [("rate".to_owned(), vec![])].into();
        bind(&mut bound, &[("rate".to_owned(), 16.0)].into(), &mut shapes).unwrap();
        assert!(shapes.is_empty(), "{shapes:?}");
        let simple = simplify(&bound, &Shapes::Fixed(shapes)).unwrap();
        assert_eq!(simple.nodes.len(), 1);
        let factor = simple.constant(simple.nodes[0].input(1).unwrap()).unwrap();
        assert_eq!((factor.dims.len(), factor.to_f32()), (0, Some(vec![16.0])));
    }

    #[test]
    fn values_that_do_not_fit_are_told() {
        let says = |name: &str, value: f64| {
            bind(&mut graph(), &[(name.to_owned(), value)].into(), &mut BTreeMap::new()).unwrap_err().to_string()
        };
        assert!(says("sr", 1.0).contains("whose inputs are x, rate"), "{}", says("sr", 1.0));
        assert!(says("rate", 0.5).contains("0.5 is no value of int64"), "{}", says("rate", 0.5));
        let mut one = graph();
        one.inputs.remove(1);
        let error = bind(&mut one, &[("x".to_owned(), 0.0)].into(), &mut BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("no input left"), "{error}");
    }
}
