//! Operators that fewer exporters write, lowered in every mode, against onnxruntime, LiteRT and TensorFlow Lite Micro:
//! ordering, accumulating, picking by index, Einsum, and broadcasts in more dimensions than kernels have.

use edgeyard_optimizer::ir::{DataType, Tensor, TensorData};
use edgeyard_optimizer::lower::{Mode, to_tflite};
use edgeyard_optimizer::simplify::{Shapes, simplify};

use super::harness::{Case, case, check, float, int, ints, text};

fn constant(case: Case, name: &str, shape: &[usize], data: TensorData) -> Case {
    let mut case = case;
    case.model.graph.initializers.insert(name.into(), Tensor { dims: shape.to_vec(), data });
    case
}

fn places(case: Case, name: &str, shape: &[usize], values: &[i64]) -> Case {
    constant(case, name, shape, TensorData::I64(values.to_vec()))
}

fn flagged(case: Case, name: &str, shape: &[usize]) -> Case {
    let flags = (0..shape.iter().product()).map(|at: usize| at % 3 == 0).collect();
    constant(case, name, shape, TensorData::Bool(flags))
}

/// Only floats: what comes out counts or compares, which rounding makes another thing.
fn exact(mut case: Case) -> Case {
    case.int8 = None;
    case
}

#[test]
fn broadcasts_in_many_dimensions_agree() {
    let two = |name: &str, op: &str, a: &[usize], b: &[usize]| {
        case(name).input("x", a).input("z", b).output("y").node(op, &["x", "z"], "y", &[])
    };
    let floats = int(DataType::F32.onnx());
    check(vec![
        // Three runs of dimensions that broadcast alike.
        two("merged_mul", "Mul", &[2, 3, 1, 4, 5], &[1, 1, 6, 4, 5]).int8(28.0),
        two("merged_add", "Add", &[1, 2, 3, 4, 5], &[1, 2, 3, 1, 1]).int8(28.0),
        // They alternate: one side is written out.
        two("alternating", "Add", &[2, 1, 3, 1, 4], &[1, 5, 1, 6, 1]).int8(28.0),
        two("alternating_one_side", "Mul", &[2, 5, 3, 6, 4], &[2, 1, 3, 1, 4]).int8(28.0),
        exact(
            case("merged_compare")
                .input("x", &[2, 1, 3, 1, 4])
                .input("z", &[1, 5, 1, 6, 1])
                .output("y")
                .node("Greater", &["x", "z"], "g", &[])
                .node("Cast", &["g"], "y", &[("to", floats)]),
        ),
        // A mask that stretches to windows.
        flagged(case("choice").input("x", &[2, 3, 2, 4, 5]).input("z", &[2, 1, 1, 4, 5]).output("y"), "mask", &[4, 5])
            .node("Where", &["mask", "x", "z"], "y", &[])
            .int8(28.0)
            .without_micro(),
        // Heads out of one product, as attention has them: five dimensions, transposed.
        case("heads")
            .input("x", &[1, 6, 24])
            .ints("split", &[1, 6, 3, 2, 4])
            .floats("half", &[1], vec![0.5])
            .node("Reshape", &["x", "split"], "r", &[])
            .node("Transpose", &["r"], "t", &[("perm", ints(&[2, 0, 3, 1, 4]))])
            .node("Mul", &["t", "half"], "y", &[])
            .output("y")
            .int8(28.0),
    ]);
}

#[test]
fn bounds_that_are_computed_agree() {
    let x = |name: &str| case(name).input("x", &[1, 3, 4, 5]).output("y");
    let top = |case: Case| case.node("ReduceMax", &["x"], "top", &[("keepdims", int(0))]);
    check(vec![
        top(x("clip_above")).node("Neg", &["top"], "low", &[]).node("Clip", &["x", "low", "top"], "y", &[]).int8(28.0),
        top(x("clip_below"))
            .floats("five", &[], vec![1.5])
            .floats("most", &[], vec![f32::MAX])
            .node("Sub", &["top", "five"], "low", &[])
            .node("Clip", &["x", "low", "most"], "y", &[])
            .int8(20.0),
    ]);
}

#[test]
fn what_orders_and_accumulates_agrees() {
    let x = |name: &str| case(name).input("x", &[1, 5, 4, 6]);
    let top = |name: &str, axis: i64, largest: i64| {
        places(x(name), "k", &[1], &[3]).node(
            "TopK",
            &["x", "k"],
            "v,i",
            &[("axis", int(axis)), ("largest", int(largest))],
        )
    };
    let sum = |name: &str, axis: i64, exclusive: i64, reverse: i64| {
        let case = places(x(name), "axis", &[], &[axis]);
        case.node("CumSum", &["x", "axis"], "y", &[("exclusive", int(exclusive)), ("reverse", int(reverse))])
            .output("y")
            .int8(28.0)
            .without_micro()
    };
    check(vec![
        top("top_values", -1, 1).output("v").int8(28.0).without_micro(),
        top("top_values_of_channels", 1, 1).output("v").int8(28.0).without_micro(),
        exact(top("top_both", 2, 1).output("v").output_of("i", DataType::I64)),
        top("least_values", 1, 0).output("v").int8(28.0).without_micro(),
        exact(top("least_both", 3, 0).output("v").output_of("i", DataType::I64)),
        sum("sums", 1, 0, 0),
        sum("sums_exclusive", -1, 1, 0),
        sum("sums_reverse", 2, 0, 1),
    ]);
}

#[test]
fn einsum_agrees() {
    let two = |name: &str, equation: &str, a: &[usize], b: &[usize]| {
        case(name)
            .input("x", a)
            .input("z", b)
            .output("y")
            .node("Einsum", &["x", "z"], "y", &[("equation", text(equation))])
            .int8(26.0)
    };
    let weights = |name: &str, equation: &str, a: &[usize], w: &[usize]| {
        case(name)
            .input("x", a)
            .weights("w", w)
            .output("y")
            .node("Einsum", &["x", "w"], "y", &[("equation", text(equation))])
            .int8(26.0)
            .reference_within(1)
    };
    let one = |name: &str, equation: &str| {
        case(name).input("x", &[2, 3, 4]).output("y").node("Einsum", &["x"], "y", &[("equation", text(equation))])
    };
    check(vec![
        two("scores", "bhid,bhjd->bhij", &[1, 2, 5, 4], &[1, 2, 6, 4]),
        two("mixed", "bhij,bhjd->bihd", &[1, 2, 5, 6], &[1, 2, 6, 4]),
        two("heads_last", "bqhd,bkhd->bhqk", &[1, 5, 2, 4], &[1, 6, 2, 4]),
        two("pixels", "nchw,nkc->nkhw", &[1, 4, 3, 5], &[1, 6, 4]),
        two("outer", "bi,bj->bij", &[2, 3], &[2, 4]),
        two("products", "bi,bi->bi", &[2, 3], &[2, 3]),
        // One side sums over a letter of its own.
        two("own_letter", "bik,bj->ij", &[2, 3, 4], &[2, 5]).without_micro(),
        weights("dense", "bld,de->ble", &[1, 5, 8], &[8, 6]),
        weights("dense_heads", "bld,dhe->blhe", &[1, 5, 8], &[8, 2, 3]),
        weights("dense_heads_back", "blhe,hed->bld", &[1, 5, 2, 4], &[2, 4, 6]),
        weights("dense_of_channels", "nchw,oc->nohw", &[1, 4, 3, 5], &[6, 4]),
        one("turned", "abc->cab").int8(30.0),
        one("summed", "abc->ca").int8(24.0).without_reference(),
    ]);
}

#[test]
fn einsums_that_are_not_lowered_are_refused_by_their_equation() {
    let refusal = |equation: &str, inputs: &[&[usize]]| {
        let names = ["x", "z", "v"];
        let mut made = case("refused");
        for (name, shape) in names.iter().zip(inputs) {
            made = made.input(name, shape);
        }
        let made = made.node("Einsum", &names[..inputs.len()], "y", &[("equation", text(equation))]).output("y");
        let graph = simplify(&made.model.graph, &Shapes::Fixed(Default::default())).unwrap();
        to_tflite(&graph, Mode::Float32, None).unwrap_err().to_string()
    };
    let diagonal = refusal("bii->bi", &[&[2, 3, 3]]);
    assert!(diagonal.contains("its equation bii->bi takes a diagonal"), "{diagonal}");
    let three = refusal("ab,bc,cd->ad", &[&[2, 3], &[3, 4], &[4, 5]]);
    assert!(three.contains("ab,bc,cd->ad is not one of one or two tensors"), "{three}");
}

#[test]
fn what_picks_and_places_by_index_agrees() {
    let x = |name: &str| case(name).input("x", &[1, 3, 4, 5]);
    let whole: Vec<i64> = (0..24).map(|at| at * 7 % 3 - if at % 2 == 0 { 3 } else { 0 }).collect();
    let one_hot = |name: &str, axis: i64| {
        let case = places(x(name), "depth", &[], &[5]).floats("values", &[2], vec![0.25, 2.0]);
        exact(
            case.node("ArgMax", &["x"], "i", &[("axis", int(3)), ("keepdims", int(0))])
                .node("OneHot", &["i", "depth", "values"], "y", &[("axis", int(axis))])
                .output("y"),
        )
    };
    let trilu = |name: &str, k: i64, upper: i64| {
        places(x(name), "k", &[], &[k])
            .node("Trilu", &["x", "k"], "y", &[("upper", int(upper))])
            .output("y")
            .int8(28.0)
            .without_micro()
    };
    let slice = |name: &str, starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        x(name)
            .ints("starts", starts)
            .ints("ends", ends)
            .ints("axes", axes)
            .ints("steps", steps)
            .node("Slice", &["x", "starts", "ends", "axes", "steps"], "y", &[])
            .output("y")
    };
    let pad = |name: &str, mode: &str| {
        x(name)
            .ints("pads", &[0, 0, 2, 1, 0, 0, 1, 3])
            .node("Pad", &["x", "pads"], "y", &[("mode", text(mode))])
            .output("y")
    };
    check(vec![
        places(x("gather_elements"), "i", &[1, 3, 2, 4], &whole)
            .node("GatherElements", &["x", "i"], "y", &[("axis", int(1))])
            .output("y"),
        places(x("gather_nd"), "i", &[2, 2], &[0, 2, -1, 1]).node("GatherND", &["x", "i"], "y", &[]).output("y"),
        places(x("gather_matrix"), "i", &[2, 3], &[3, 0, -1, 1, 1, 2])
            .node("Gather", &["x", "i"], "y", &[("axis", int(2))])
            .output("y"),
        places(x("scatter_nd").input("u", &[2, 4, 5]), "i", &[2, 2], &[0, 2, 0, 0])
            .node("ScatterND", &["x", "i", "u"], "y", &[])
            .output("y"),
        places(x("scatter_elements").input("u", &[1, 1, 4, 2]), "i", &[1, 1, 4, 2], &[0, 3, 1, 0, 4, 2, 3, -1])
            .node("ScatterElements", &["x", "i", "u"], "y", &[("axis", int(3))])
            .output("y"),
        // The row that is the largest, and one that is counted from either end.
        exact(
            x("gather_found")
                .node("ReduceMean", &["x"], "m", &[("axes", ints(&[0, 2, 3])), ("keepdims", int(0))])
                .node("ArgMax", &["m"], "i", &[("axis", int(0)), ("keepdims", int(0))])
                .node("Gather", &["x", "i"], "y", &[("axis", int(1))])
                .output("y"),
        ),
        exact(
            x("gather_counted")
                .floats("low", &[], vec![-2.9])
                .floats("high", &[], vec![1.9])
                .node("ReduceSum", &["x", "axes"], "s", &[("keepdims", int(0))])
                .ints("axes", &[0, 1, 2])
                .node("Clip", &["s", "low", "high"], "c", &[])
                .node("Cast", &["c"], "i", &[("to", int(DataType::I64.onnx()))])
                .node("Gather", &["x", "i"], "y", &[("axis", int(2))])
                .output("y"),
        ),
        one_hot("one_hot_last", -1),
        one_hot("one_hot_second", 1),
        trilu("upper_triangle", 1, 1),
        trilu("lower_triangle", 0, 0),
        slice("flipped", &[-1], &[i64::MIN], &[3], &[-1]),
        slice("flipped_by_two", &[3, 0], &[0, 2], &[2, 1], &[-2, 1]),
        pad("pad_edge", "edge"),
        pad("pad_wrap", "wrap").opset(19),
    ]);
}

#[test]
fn functions_and_norms_agree() {
    let x = |name: &str| case(name).input("x", &[1, 3, 4, 5]).output("y");
    let alone = |name: &str, op: &str| x(name).node(op, &["x"], "y", &[]).int8(20.0).without_micro();
    let norm = |name: &str, op: &str, keep: i64| {
        x(name).node(op, &["x"], "y", &[("axes", ints(&[1, 3])), ("keepdims", int(keep))]).int8(24.0).without_micro()
    };
    let lrn = |name: &str, shape: &[usize], size: i64| {
        case(name)
            .input("x", shape)
            .output("y")
            .node("LRN", &["x"], "y", &[("size", int(size)), ("alpha", float(0.3)), ("bias", float(2.0))])
            .int8(28.0)
            .without_micro()
    };
    let group = |name: &str, opset: i64, factors: usize| {
        case(name)
            .opset(opset)
            .input("x", &[1, 6, 4, 5])
            .spread("s", &[factors], 0.5, 1.0)
            .weights("b", &[factors])
            .output("y")
            .node("GroupNormalization", &["x", "s", "b"], "y", &[("num_groups", int(3))])
            .int8(26.0)
            .without_micro()
    };
    check(vec![
        norm("reduce_l1", "ReduceL1", 1),
        norm("reduce_l2", "ReduceL2", 0),
        norm("reduce_sum_square", "ReduceSumSquare", 1),
        norm("reduce_log_sum_exp", "ReduceLogSumExp", 0),
        norm("reduce_prod", "ReduceProd", 0).int8(12.0),
        x("reduce_log_sum")
            .node("Exp", &["x"], "e", &[])
            .node("ReduceLogSum", &["e"], "y", &[("axes", ints(&[1])), ("keepdims", int(1))])
            .int8(18.0)
            .without_micro(),
        x("thresholded").node("ThresholdedRelu", &["x"], "y", &[("alpha", float(0.4))]).int8(18.0).without_micro(),
        x("shrink")
            .node("Shrink", &["x"], "y", &[("lambd", float(0.6)), ("bias", float(0.2))])
            .int8(14.0)
            .without_micro(),
        x("tangent")
            .floats("quarter", &[], vec![0.25])
            .node("Mul", &["x", "quarter"], "q", &[])
            .node("Tan", &["q"], "y", &[])
            .int8(26.0)
            .without_micro(),
        alone("sine", "Sin"),
        lrn("lrn", &[1, 7, 3, 4], 5),
        lrn("lrn_of_three", &[1, 6, 5, 2], 3),
        group("group_norm_of_groups", 18, 3),
        group("group_norm_of_channels", 21, 6),
    ]);
}

#[test]
fn remainders_and_what_is_no_number_agree() {
    let x = |name: &str| case(name).input("x", &[1, 3, 4, 5]).output("y");
    let floats = int(DataType::F32.onnx());
    let whole = int(DataType::I32.onnx());
    let limits = x("is_inf").floats("zero", &[], vec![0.0]).node("Relu", &["x"], "r", &[]);
    check(vec![
        exact(x("remainder").floats("by", &[5], vec![0.75, -0.5, 1.5, -2.0, 0.3]).within(1e-4).node(
            "Mod",
            &["x", "by"],
            "y",
            &[("fmod", int(1))],
        )),
        exact(
            constant(x("remainder_of_integers"), "by", &[1], TensorData::I32(vec![3]))
                .floats("ten", &[], vec![10.0])
                .node("Mul", &["x", "ten"], "t", &[])
                .node("Cast", &["t"], "i", &[("to", whole)])
                .node("Mod", &["i", "by"], "m", &[])
                .node("Cast", &["m"], "y", &[("to", floats.clone())]),
        ),
        exact(x("is_nan").node("Sqrt", &["x"], "s", &[]).node("IsNaN", &["s"], "n", &[]).node(
            "Cast",
            &["n"],
            "y",
            &[("to", floats.clone())],
        )),
        exact(
            limits
                .node("Sub", &["r", "x"], "d", &[])
                .node("Relu", &["d"], "below", &[])
                .node("Reciprocal", &["below"], "big", &[])
                .node("IsInf", &["big"], "n", &[("detect_negative", int(0))])
                .node("Cast", &["n"], "y", &[("to", floats.clone())]),
        ),
        exact(
            x("either")
                .floats("zero", &[], vec![0.0])
                .floats("one", &[], vec![1.0])
                .node("Greater", &["x", "zero"], "a", &[])
                .node("Less", &["x", "one"], "b", &[])
                .node("Xor", &["a", "b"], "c", &[])
                .node("CastLike", &["c", "x"], "y", &[]),
        ),
    ]);
}

#[test]
fn what_cannot_be_lowered_is_refused_by_name() {
    let made = case("non_zero").input("x", &[2, 3]).node("NonZero", &["x"], "y", &[]).output_of("y", DataType::I64);
    let error = to_tflite(&made.model.graph, Mode::Float32, None).unwrap_err().to_string();
    assert!(error.contains("op NonZero") && error.contains("depends on what is fed"), "{error}");
}
