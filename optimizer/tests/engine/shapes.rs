//! Inferred shapes against those that ONNX Runtime computes, over many settings of each operator.

use edgeyard_optimizer::ir::{Attribute, Tensor, infer, load};
use edgeyard_optimizer::runtime::OnnxRuntime;
use edgeyard_optimizer::simplify::{Shapes, explicit_padding, simplify};

use super::support::{Builder, Noise, assert_near, int, ints, run, run_one, text};

/// The inferred shape of `y` is the real one.
fn check(builder: &Builder, input: &[usize]) {
    let model = builder.loaded();
    let simplified = simplify(&model.graph, &Shapes::Declared).unwrap();
    let inferred = simplified.shape_of("y").map(<[usize]>::to_vec);
    let x = Noise::new(1).values(input.iter().product());
    let real = run(&builder.bytes(), &x, input).remove(0).1;
    assert_eq!(inferred.as_deref(), Some(real.as_slice()), "{:?}", model.graph.nodes);
}

/// ONNX Runtime's word on whether a model is valid.
fn valid(builder: &Builder) -> bool {
    OnnxRuntime::load().unwrap().session(&builder.bytes(), 1).is_ok()
}

#[test]
fn windows_are_those_of_the_runtime() {
    let mut noise = Noise::new(7);
    let mut checked = 0;
    for round in 0..300 {
        let (h, w) = (4 + noise.below(9), 4 + noise.below(9));
        let (kh, kw) = (1 + noise.below(4), 1 + noise.below(4));
        let strides = [1 + noise.below(3) as i64, 1 + noise.below(3) as i64];
        let mut attributes = vec![("strides", ints(&strides))];
        let automatic = noise.below(3) == 0;
        let auto = ["SAME_UPPER", "SAME_LOWER", "VALID"][noise.below(3)];
        if automatic {
            attributes.push(("auto_pad", text(auto)));
        } else {
            let pad = |noise: &mut Noise, kernel: usize| noise.below(kernel) as i64;
            let pads = [pad(&mut noise, kh), pad(&mut noise, kw), pad(&mut noise, kh), pad(&mut noise, kw)];
            attributes.push(("pads", ints(&pads)));
        }
        let builder = Builder::new(19, &[1, 4, h, w]);
        let builder = if round % 2 == 0 {
            // ONNX Runtime refuses automatic padding together with dilations.
            let limit = if automatic { 1 } else { 2 };
            attributes.push(("dilations", ints(&[1 + noise.below(limit) as i64, 1 + noise.below(limit) as i64])));
            let group = [1, 2, 4][noise.below(3)];
            attributes.push(("group", int(group as i64)));
            let weights = noise.tensor(&[8, 4 / group, kh, kw]);
            builder.constant("w", weights).node("Conv", &["x", "w"], "y", &attributes)
        } else {
            attributes.push(("kernel_shape", ints(&[kh as i64, kw as i64])));
            if !automatic {
                attributes.push(("ceil_mode", int(noise.below(2) as i64)));
            }
            builder.node(["MaxPool", "AveragePool"][noise.below(2)], &["x"], "y", &attributes)
        };
        let model = builder.loaded();
        let fits = infer(&model.graph, &model.graph.nodes[0]).is_ok();
        if !fits {
            continue;
        }
        checked += 1;
        check(&builder, &[1, 4, h, w]);
        // With the padding made explicit the result stays the same.
        let mut explicit = model.clone();
        explicit.graph = simplify(&model.graph, &Shapes::Declared).unwrap();
        explicit_padding(&mut explicit.graph);
        let x = noise.values(4 * h * w);
        let expected = run_one(&builder.bytes(), &x, &[1, 4, h, w]);
        assert_near(&expected, &run_one(&explicit.to_bytes(), &x, &[1, 4, h, w]), 1e-6);
    }
    assert!(checked > 200, "only {checked} settings were valid");
}

#[test]
fn shape_operators_are_those_of_the_runtime() {
    let list = |values: &[i64]| Tensor::i64(&[values.len()], values.to_vec());
    let x = || Builder::new(13, &[2, 3, 4, 5]);
    let shape = [2, 3, 4, 5];
    for axis in -4..=4 {
        check(&x().node("Flatten", &["x"], "y", &[("axis", int(axis))]), &shape);
    }
    for target in [&[6, -1][..], &[0, 0, 20], &[-1], &[0, -1, 5], &[5, 4, 3, 2]] {
        check(&x().constant("s", list(target)).node("Reshape", &["x", "s"], "y", &[]), &shape);
    }
    for perm in [[0, 2, 3, 1], [3, 2, 1, 0], [1, 0, 3, 2]] {
        check(&x().node("Transpose", &["x"], "y", &[("perm", ints(&perm))]), &shape);
    }
    check(&x().node("Transpose", &["x"], "y", &[]), &shape);
    for axis in [-4, -1, 0, 2] {
        check(&x().node("Concat", &["x", "x", "x"], "y", &[("axis", int(axis))]), &shape);
        check(&x().node("Softmax", &["x"], "y", &[("axis", int(axis))]), &shape);
        let index = Tensor::i64(&[2, 1], vec![1, -1]);
        check(&x().constant("i", index).node("Gather", &["x", "i"], "y", &[("axis", int(axis))]), &shape);
    }
    for pads in [[0, 0, 1, 2, 0, 0, 3, 4], [1, 1, 1, 1, 1, 1, 1, 1], [0, 0, -1, 0, 0, 0, 0, -2]] {
        check(&x().constant("p", list(&pads)).node("Pad", &["x", "p"], "y", &[]), &shape);
    }
    for keep in [0, 1] {
        let attributes = |axes: &[i64]| vec![("axes", ints(axes)), ("keepdims", int(keep))];
        for axes in [&[2, 3][..], &[-1], &[0, 1, 2, 3], &[1]] {
            check(&x().node("ReduceMean", &["x"], "y", &attributes(axes)), &shape);
        }
        check(&x().node("ReduceMax", &["x"], "y", &[("keepdims", int(keep))]), &shape);
    }
    for (starts, ends, steps) in
        [([1, 0], [3, 100], [1, 2]), ([-2, -1], [100, -100], [1, -1]), ([3, 2], [1, 2], [-1, 1])]
    {
        let builder = x().constant("s", list(&starts)).constant("e", list(&ends)).constant("a", list(&[2, 3]));
        let builder = builder.constant("t", list(&steps)).node("Slice", &["x", "s", "e", "a", "t"], "y", &[]);
        let model = builder.loaded();
        let graph = simplify(&model.graph, &Shapes::Declared).unwrap();
        // An empty result cannot be run; its shape can still be told.
        if graph.shape_of("y").unwrap().contains(&0) {
            continue;
        }
        check(&builder, &shape);
    }
    for (other, fits) in
        [(&[5][..], true), (&[4, 1], true), (&[1, 3, 1, 1], true), (&[3], false), (&[7, 1, 1, 1, 1], true)]
    {
        let builder = x().constant("b", Noise::new(2).tensor(other)).node("Add", &["x", "b"], "y", &[]);
        assert_eq!(valid(&builder), fits);
        let model = builder.loaded();
        assert_eq!(simplify(&model.graph, &Shapes::Declared).is_ok(), fits);
        if fits {
            check(&builder, &shape);
        }
    }
    for dims in [&[5, 6][..], &[2, 3, 5, 7], &[1, 1, 5, 2], &[5]] {
        check(&x().constant("b", Noise::new(3).tensor(dims)).node("MatMul", &["x", "b"], "y", &[]), &shape);
    }
    check(&x().node("GlobalAveragePool", &["x"], "y", &[]), &shape);
}

#[test]
fn transposed_convolutions_are_those_of_the_runtime() {
    let mut noise = Noise::new(11);
    for _ in 0..20 {
        let pads: Vec<i64> = (0..4).map(|_| noise.below(2) as i64).collect();
        let stride = 1 + noise.below(3) as i64;
        let extra = noise.below(stride as usize) as i64;
        let attributes =
            [("pads", ints(&pads)), ("strides", ints(&[stride, stride])), ("output_padding", ints(&[extra, extra]))];
        let weights = noise.tensor(&[3, 2, 3, 3]);
        let builder = Builder::new(13, &[1, 3, 5, 4]).constant("w", weights);
        check(&builder.node("ConvTranspose", &["x", "w"], "y", &attributes), &[1, 3, 5, 4]);
    }
}

#[test]
fn a_constant_node_of_any_kind_is_folded() {
    let tensor = Tensor::f32(&[1, 3], vec![1.0, 2.0, 3.0]);
    for (name, value) in
        [("value", Attribute::Tensor(tensor)), ("value_floats", Attribute::Floats(vec![1.0, 2.0, 3.0]))]
    {
        let builder =
            Builder::new(13, &[2, 3]).node("Constant", &[], "c", &[(name, value)]).node("Mul", &["x", "c"], "y", &[]);
        let graph = simplify(&builder.loaded().graph, &Shapes::Declared).unwrap();
        assert_eq!(graph.nodes.len(), 1);
        assert_eq!(graph.initializers["c"].to_f32().unwrap(), [1.0, 2.0, 3.0]);
        assert!(load(&builder.bytes(), None).is_ok());
        check(&builder, &[2, 3]);
    }
}
