//! Changes of resolution.

use edgeyard_tflite::{BuiltinOp, Options, op_options as opt};

use super::super::LowerError;
use super::super::layout::{Layout, stored_shape};
use super::super::walk::Walk;
use super::select;

/// `Resize` of height and width, and the older `Upsample`.
pub(super) fn resize(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let node = walk.node();
    let Some(axes) = Layout::channels_last(x.dims.len()).filter(|_| x.dims.len() == 4) else {
        return Err(walk.refuse(format!("its input has {} dimensions", x.dims.len()), "only images are resized"));
    };
    let upsample = node.op_type == "Upsample";
    let scales = scales(walk, upsample)?;
    let dims = sizes(walk, &x.dims, scales.as_deref())?;
    if dims[..2] != x.dims[..2] {
        return Err(walk.refuse("it resizes batch or channels", "only height and width are resized"));
    }
    if node.int("antialias", 0) != 0 {
        return Err(walk.refuse("it is antialiased", "export without antialiasing"));
    }
    let transform =
        node.string("coordinate_transformation_mode").unwrap_or(if upsample { "asymmetric" } else { "half_pixel" });
    for axis in [2, 3] {
        // Coordinates follow the given scale, which TFLite derives from the sizes: they have to agree.
        let derived = dims[axis] as f32 / x.dims[axis] as f32;
        // Scales for some axes only are checked by the sizes they gave.
        let given = scales.as_ref().filter(|scales| scales.len() == 4).map(|scales| scales[axis]);
        if given.is_some_and(|scale| (scale - derived).abs() > 1e-5 * derived) {
            return Err(walk.refuse("its scales do not give whole sizes", "export it with sizes instead of scales"));
        }
    }
    let mode = node.string("mode").unwrap_or("nearest");
    match mode {
        "nearest" => nearest(walk, &dims, transform, upsample),
        "linear" => {
            let (align_corners, half_pixel_centers) = match transform {
                "align_corners" => (true, false),
                "half_pixel" => (false, true),
                // They differ only where the output is a single pixel.
                "pytorch_half_pixel" if !dims[2..].contains(&1) => (false, true),
                "asymmetric" => (false, false),
                other => return Err(walk.refuse(format!("its coordinates are {other}"), "use half_pixel")),
            };
            let input = x.in_axes(&mut walk.draft, walk.at, &axes);
            let sizes = walk.draft.ints(&dims[2..]);
            let options = opt::ResizeBilinear { align_corners, half_pixel_centers, ..opt::ResizeBilinear::default() };
            let shape = stored_shape(&dims, &axes);
            let output = walk.emit(BuiltinOp::RESIZE_BILINEAR, options, &[input, sizes], &shape);
            walk.define(output, dims, axes);
            Ok(())
        }
        other => Err(walk.refuse(format!("its mode is {other}"), "modes nearest and linear are lowered")),
    }
}

/// The resulting shape, from sizes or scales.
fn sizes(walk: &Walk<'_>, dims: &[usize], scales: Option<&[f32]>) -> Result<Vec<usize>, LowerError> {
    if walk.node().int("keep_aspect_ratio_policy", 0) != 0
        || walk.node().string("keep_aspect_ratio_policy").is_some_and(|policy| policy != "stretch")
    {
        return Err(walk.refuse("it keeps an aspect ratio", "export it with the sizes it gives"));
    }
    let partial = match walk.node().ints("axes") {
        Some(axes) => axes.iter().map(|&axis| super::axis(walk, axis, dims.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).collect(),
    };
    let mut result = dims.to_vec();
    let given = match scales {
        Some(_) => None,
        None => walk.integers(3, "sizes")?,
    };
    match (scales, given) {
        (Some(scales), _) if scales.len() == partial.len() => {
            for (&axis, scale) in partial.iter().zip(scales) {
                result[axis] = (dims[axis] as f32 * scale).floor() as usize;
            }
        }
        (None, Some(sizes)) if sizes.len() == partial.len() => {
            for (&axis, &size) in partial.iter().zip(&sizes) {
                result[axis] = usize::try_from(size).unwrap_or(0);
            }
        }
        _ => return Err(walk.refuse("it has neither sizes nor scales for its axes", "repair the model")),
    }
    if result.contains(&0) {
        return Err(walk.refuse("its result is empty", "repair the model"));
    }
    Ok(result)
}

fn scales(walk: &Walk<'_>, upsample: bool) -> Result<Option<Vec<f32>>, LowerError> {
    let index = if upsample { 1 } else { 2 };
    let Some(name) = walk.node().input(index) else {
        return Ok(walk.node().floats("scales").map(<[f32]>::to_vec));
    };
    let (_, scales) = walk
        .optional_floats(name)
        .ok_or_else(|| walk.refuse("its scales are computed at run time", "make them constants"))?;
    Ok(Some(scales).filter(|scales| !scales.is_empty()))
}

/// Nearest neighbour: RESIZE_NEAREST_NEIGHBOR where one of its rules picks the same pixels, gathers otherwise.
fn nearest(walk: &mut Walk<'_>, dims: &[usize], transform: &str, upsample: bool) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let rounding = walk.node().string("nearest_mode").unwrap_or(if upsample { "floor" } else { "round_prefer_floor" });
    let wanted = |axis: usize| -> Option<Vec<usize>> {
        let (from, to) = (x.dims[axis], dims[axis]);
        (0..to).map(|at| source(at, from, to, transform, rounding)).collect()
    };
    let (Some(rows), Some(columns)) = (wanted(2), wanted(3)) else {
        return Err(walk.refuse(format!("its coordinates are {transform} with {rounding}"), "use half_pixel"));
    };
    let rules = [(false, false), (false, true), (true, false)];
    let rule = rules.into_iter().find(|&(align_corners, half_pixel_centers)| {
        let picks = |axis: usize, wanted: &[usize]| {
            let (from, to) = (x.dims[axis], dims[axis]);
            (0..to).all(|at| tflite_source(at, from, to, align_corners, half_pixel_centers) == wanted[at])
        };
        picks(2, &rows) && picks(3, &columns)
    });
    let Some((align_corners, half_pixel_centers)) = rule else {
        let tall = select::picked(walk, &x, 2, &rows);
        let both = select::picked(walk, &tall, 3, &columns);
        walk.define_as(0, both);
        return Ok(());
    };
    let axes = Layout::channels_last(4).expect("rank 4 has one");
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let sizes = walk.draft.ints(&dims[2..]);
    let options = opt::ResizeNearestNeighbor { align_corners, half_pixel_centers };
    let shape = stored_shape(dims, &axes);
    let output = walk.emit(BuiltinOp::RESIZE_NEAREST_NEIGHBOR, options, &[input, sizes], &shape);
    walk.draft.tensors[output].non_negative = walk.draft.tensors[input].non_negative;
    walk.define(output, dims.to_vec(), axes);
    Ok(())
}

/// Which pixel ONNX takes.
fn source(at: usize, from: usize, to: usize, transform: &str, rounding: &str) -> Option<usize> {
    let (at, scale) = (at as f64, to as f64 / from as f64);
    let position = match transform {
        "half_pixel" => (at + 0.5) / scale - 0.5,
        "pytorch_half_pixel" => {
            if to > 1 {
                (at + 0.5) / scale - 0.5
            } else {
                0.0
            }
        }
        "asymmetric" => at / scale,
        "align_corners" => {
            if to > 1 {
                at * (from as f64 - 1.0) / (to as f64 - 1.0)
            } else {
                0.0
            }
        }
        _ => return None,
    };
    let rounded = match rounding {
        "floor" => position.floor(),
        "ceil" => position.ceil(),
        "round_prefer_floor" => (position - 0.5).ceil(),
        "round_prefer_ceil" => (position + 0.5).floor(),
        _ => return None,
    };
    Some(rounded.clamp(0.0, from as f64 - 1.0) as usize)
}

/// Which pixel TFLite's kernel takes.
fn tflite_source(at: usize, from: usize, to: usize, align_corners: bool, half_pixel_centers: bool) -> usize {
    let scale = if align_corners && to > 1 { (from as f32 - 1.0) / (to as f32 - 1.0) } else { from as f32 / to as f32 };
    let offset = if half_pixel_centers { 0.5 } else { 0.0 };
    let position = (at as f32 + offset) * scale;
    let rounded = if align_corners { position.round() } else { position.floor() };
    (rounded as usize).min(from - 1)
}

/// `DepthToSpace`.
pub(super) fn depth_to_space(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let (mut x, axes, block) = blocks(walk)?;
    let area = block * block;
    if x.dims[1] % area != 0 {
        return Err(walk.refuse(format!("{} channels do not divide by {area}", x.dims[1]), "repair the model"));
    }
    let channels = x.dims[1] / area;
    if walk.node().string("mode") == Some("CRD") {
        // TFLite takes the block position before the channel; bring the channels into that order.
        let order: Vec<usize> =
            (0..area).flat_map(|position| (0..channels).map(move |channel| channel * area + position)).collect();
        if channels > 1 {
            x = select::picked(walk, &x, 1, &order);
        }
    }
    let dims = vec![x.dims[0], channels, x.dims[2] * block, x.dims[3] * block];
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let shape = stored_shape(&dims, &axes);
    let options = opt::DepthToSpace { block_size: block as i32 };
    let output = walk.emit(BuiltinOp::DEPTH_TO_SPACE, options, &[input], &shape);
    walk.define(output, dims, axes);
    Ok(())
}

/// `SpaceToDepth`.
pub(super) fn space_to_depth(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let (x, axes, block) = blocks(walk)?;
    if x.dims[2] % block != 0 || x.dims[3] % block != 0 {
        return Err(walk.refuse(format!("its image does not divide into blocks of {block}"), "repair the model"));
    }
    let dims = vec![x.dims[0], x.dims[1] * block * block, x.dims[2] / block, x.dims[3] / block];
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let shape = stored_shape(&dims, &axes);
    let options: Options = opt::SpaceToDepth { block_size: block as i32 }.into();
    let output = walk.emit(BuiltinOp::SPACE_TO_DEPTH, options, &[input], &shape);
    walk.define(output, dims, axes);
    Ok(())
}

type Blocks = (super::super::layout::Stored, Vec<Option<usize>>, usize);

fn blocks(walk: &mut Walk<'_>) -> Result<Blocks, LowerError> {
    let x = walk.operand(0)?;
    let block = usize::try_from(walk.node().int("blocksize", 0)).unwrap_or(0);
    let axes = Layout::channels_last(x.dims.len()).filter(|_| x.dims.len() == 4 && block > 0);
    let axes = axes.ok_or_else(|| walk.refuse("it needs an image and a block size", "repair the model"))?;
    Ok((x, axes, block))
}
