//! ADD, SUB and MUL, with broadcasting.

use super::{Op, Prepare, at};
use crate::Error;
use crate::fixed::Multiplier;
use crate::schema::OpCode;
use crate::tensor::{Memory, Shape, Tensor};

#[derive(Clone, Copy)]
enum Kind {
    /// Sum of both, each scaled first; SUB has a negative second.
    Sum {
        scales: [Multiplier; 2],
        sign: i32,
    },
    Product,
}

#[derive(Clone, Copy)]
pub(crate) struct Elementwise {
    inputs: [u32; 2],
    output: u32,
    kind: Kind,
    out_scale: Multiplier,
    low: i32,
    high: i32,
}

/// Sums are formed with this many more bits.
const LEFT_SHIFT: u32 = 20;

pub(crate) fn prepare<'a>(p: &Prepare<'_, '_, 'a>, code: OpCode) -> Result<Op<'a>, Error> {
    let (a, b, output) = (p.input8(0)?, p.input8(1)?, p.output8(0)?);
    broadcast(&a.1.shape, &b.1.shape)
        .filter(|s| s.elements() == output.1.shape.elements())
        .ok_or_else(|| p.unsupported("shapes that do not broadcast to the output's"))?;
    let (sa, sb, so) = (f64::from(a.1.scale), f64::from(b.1.scale), f64::from(output.1.scale));
    let (kind, out_scale) = if code == OpCode::MUL {
        (Kind::Product, p.multiplier(sa * sb / so)?)
    } else {
        let twice = 2.0 * f64::from(a.1.scale.max(b.1.scale));
        let out = twice / (f64::from(1u32 << LEFT_SHIFT) * so);
        if out >= 1.0 {
            return Err(p.unsupported("an output scale far below the inputs'"));
        }
        let sign = if code == OpCode::SUB { -1 } else { 1 };
        (Kind::Sum { scales: [p.multiplier(sa / twice)?, p.multiplier(sb / twice)?], sign }, p.multiplier(out)?)
    };
    let (low, high) = p.activation(0, output.1)?;
    Ok(Op::Elementwise(Elementwise { inputs: [a.0, b.0], output: output.0, kind, out_scale, low, high }))
}

/// The shape that two shapes broadcast to.
fn broadcast(a: &Shape, b: &Shape) -> Option<Shape> {
    let rank = a.rank().max(b.rank());
    let (pa, pb) = (a.padded::<{ Shape::MAX_RANK }>()?, b.padded::<{ Shape::MAX_RANK }>()?);
    let mut dims = [1; Shape::MAX_RANK];
    for ((d, x), y) in dims.iter_mut().zip(pa).zip(pb) {
        *d = match (x, y) {
            (1, n) | (n, 1) => n as u32,
            (x, y) if x == y => x as u32,
            _ => return None,
        };
    }
    Shape::new(dims.get(Shape::MAX_RANK - rank..)?)
}

/// Steps through `shape` (padded to six dimensions) for each element of `out`: 0 along broadcast dimensions.
fn strides(shape: &Shape) -> [usize; Shape::MAX_RANK] {
    let dims = shape.padded::<{ Shape::MAX_RANK }>().unwrap_or_default();
    let mut strides = [0; Shape::MAX_RANK];
    let mut step = 1;
    for (s, d) in strides.iter_mut().zip(dims).rev() {
        *s = if d == 1 { 0 } else { step };
        step *= d;
    }
    strides
}

impl Elementwise {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        let (a, b, out) = (at(tensors, self.inputs[0]), at(tensors, self.inputs[1]), at(tensors, self.output));
        let (za, zb, zo) = (a.zero_point, b.zero_point, out.zero_point);
        // SAFETY: see `ops::run`.
        let (xa, xb, to) = unsafe { (memory.i8(a), memory.i8(b), memory.i8_mut(out)) };
        let combine = |x: i8, y: i8| {
            let (x, y) = (i32::from(x) - za, i32::from(y) - zb);
            let raw = match &self.kind {
                Kind::Product => x * y,
                Kind::Sum { scales, sign } => {
                    scales[0].apply(x << LEFT_SHIFT).wrapping_add(scales[1].apply(y << LEFT_SHIFT).wrapping_mul(*sign))
                }
            };
            self.out_scale.apply(raw).wrapping_add(zo).max(self.low).min(self.high) as i8
        };
        if a.shape == b.shape {
            for ((o, x), y) in to.iter_mut().zip(xa).zip(xb) {
                *o = combine(*x, *y);
            }
            return;
        }
        let Some(shape) = broadcast(&a.shape, &b.shape) else { return };
        let dims = shape.padded::<{ Shape::MAX_RANK }>().unwrap_or_default();
        let (sa, sb) = (strides(&a.shape), strides(&b.shape));
        let mut index = [0usize; Shape::MAX_RANK];
        for o in to {
            let offset = |s: &[usize; Shape::MAX_RANK]| s.iter().zip(index).map(|(s, i)| s * i).sum::<usize>();
            if let (Some(x), Some(y)) = (xa.get(offset(&sa)), xb.get(offset(&sb))) {
                *o = combine(*x, *y);
            }
            super::layout::advance(&mut index, &dims);
        }
    }
}
