//! Kernels for the vector extension of ARMv8.1-M: sixteen products per instruction. The loops themselves are in mve.s; here
//! inputs are laid out for them. What they rely on is `Finish::plain`; everything else goes to the portable kernels.

use super::{Planes, Rows, Windows, portable, taps};
use crate::ops::{Channel, Finish, Window};
use core::arch::global_asm;

global_asm!(include_str!("mve.s"), options(raw));

/// Arguments of the loop over rows; mve.s knows the offsets.
#[derive(Clone, Copy)]
#[repr(C)]
struct RowsArguments {
    input: *const i8,
    weights: *const i8,
    channels: *const Channel,
    output: *mut i8,
    output_step: usize,
    pixels: usize,
    length: usize,
    /// Bytes from where reading a row ends back to the next row.
    back: usize,
    zero_point: i32,
    low: i32,
    high: i32,
}

/// Arguments of the loops over pairs of rows; mve.s knows the offsets.
#[derive(Clone, Copy)]
#[repr(C)]
struct PairsArguments {
    first: *const i8,
    second: *const i8,
    weights: *const i8,
    channels: *const Channel,
    output: *mut i8,
    output_step: usize,
    pairs: usize,
    /// Packs of 16 values but one; for short rows the length.
    packs: usize,
    /// Bytes from where reading a pair ends to the next.
    forth: usize,
    zero_point: i32,
    low: i32,
    high: i32,
}

/// Arguments of the loop over a line of a depthwise convolution; mve.s knows the offsets.
#[derive(Clone, Copy)]
#[repr(C)]
struct PlanesArguments {
    lines: [*const i8; 3],
    weights: *const i8,
    channels: *const Channel,
    output: *mut i8,
    output_step: usize,
    pixels: usize,
    /// Bytes between the windows of two neighbours.
    step: usize,
    zero_point: i32,
    low: i32,
    high: i32,
}

/// Arguments of the loops that lay lines of an image out as planes; mve.s knows the offsets.
#[repr(C)]
struct SpreadArguments {
    lines: [*const i8; TILE_LINES],
    /// Bytes from one column to the next.
    steps: [usize; TILE_LINES],
    planes: *mut i8,
    columns: usize,
    plane: usize,
}

/// Arguments of the loops over two lines of output; mve.s knows the offsets.
#[derive(Clone, Copy)]
#[repr(C)]
struct TileArguments {
    planes: *const i8,
    entries: *const TileEntry,
    output: *mut i8,
    /// Bytes from four pixels of output to the next.
    output_step: usize,
    /// Groups of four pixels.
    groups: usize,
    /// For the last pixels, which are done in a group with some before them: how far back that starts.
    back: usize,
    output_back: usize,
    /// Bytes of a plane.
    plane: usize,
    /// Bytes to the planes of the second line.
    second: usize,
    low: i32,
    high: i32,
    /// Where the eight values of a group go.
    places: *const [u16; 8],
}

/// What the loops over tiles read of a channel.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
struct TileEntry {
    windows: [[i8; 16]; 4],
    start: i32,
    multiplier: i32,
    shift: i32,
    one: i32,
    zero_point: i32,
    padding: [i32; 3],
}

unsafe extern "C" {
    fn edgeyard_mve_spread_3(arguments: *const SpreadArguments);
    fn edgeyard_mve_spread_4(arguments: *const SpreadArguments);
    fn edgeyard_mve_interleave(from: *const i8, to: *mut i8, columns: usize);
    fn edgeyard_mve_tile_weights(from: *const i8, to: *mut TileEntry, channels: usize);
    fn edgeyard_mve_tiles_1(arguments: *const TileArguments);
    fn edgeyard_mve_tiles_1_clamp(arguments: *const TileArguments);
    fn edgeyard_mve_tiles_2(arguments: *const TileArguments);
    fn edgeyard_mve_tiles_2_clamp(arguments: *const TileArguments);
    fn edgeyard_mve_rows(arguments: *const RowsArguments);
    fn edgeyard_mve_short(arguments: *const RowsArguments);
    fn edgeyard_mve_pairs(arguments: *const PairsArguments);
    fn edgeyard_mve_pairs_clamp(arguments: *const PairsArguments);
    fn edgeyard_mve_pairs_long(arguments: *const PairsArguments);
    fn edgeyard_mve_pairs_long_clamp(arguments: *const PairsArguments);
    fn edgeyard_mve_short_pairs(arguments: *const PairsArguments);
    fn edgeyard_mve_short_pairs_clamp(arguments: *const PairsArguments);
    fn edgeyard_mve_pack(rows: *const i8, to: *mut i8, packs: usize, length: usize);
    fn edgeyard_mve_window(from: *const i8, to: *mut i8, lines: usize, bytes: usize, step: usize, to_step: usize);
    fn edgeyard_mve_columns(from: *const i8, to: *mut i8, columns: usize, step: usize);
    fn edgeyard_mve_planes(arguments: *const PlanesArguments);
}

/// Rows of weights that the loop takes at once.
const CHANNELS: usize = 4;

/// Values of a row that one vector holds.
const SHORT: usize = 16;

/// Packs of a row that the loop over pairs takes without counting.
const UNROLLED: usize = 17;

/// Windows that are gathered before the loop runs over them.
const PIXELS: usize = 16;

/// Bytes that four rows of weights take when packed, for rows of input that go in pairs.
fn packed_bytes(length: usize, pixels: usize) -> usize {
    if length <= SHORT || pixels < 2 { 0 } else { CHANNELS * length.next_multiple_of(SHORT) }
}

/// Bytes from one gathered row to the next: packed weights may be multiplied with what lies between, since they are zero there.
fn pitch(length: usize) -> usize {
    if length <= SHORT { length } else { length.next_multiple_of(SHORT) }
}

pub(super) fn rows_scratch(length: usize, _channels: usize, pixels: usize, gathered: bool) -> usize {
    packed_bytes(length, pixels) + if gathered { pitch(length) * pixels.min(PIXELS) } else { 0 }
}

pub(super) fn multiply(rows: &Rows<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let pixels = output.len() / rows.channels.len();
    if can(rows) && input.len() >= pixels * rows.length {
        product(rows, (input, rows.length), output, pixels, scratch);
    } else {
        portable::multiply(rows, input, output, scratch);
    }
}

pub(super) fn multiply_windows(rows: &Rows<'_>, windows: &Windows<'_>, output: &mut [i8], scratch: &mut [i8]) {
    if !can(rows) {
        portable::multiply_windows(rows, windows, output, scratch);
        return;
    }
    let (length, step, count) = (rows.length, pitch(rows.length), rows.channels.len());
    let Some((packed, scratch)) = scratch.split_at_mut_checked(packed_bytes(length, output.len() / count)) else {
        return;
    };
    let batch = (scratch.len() / step).clamp(1, PIXELS);
    for (i, pixels) in output.chunks_mut(batch * count).enumerate() {
        let taken = pixels.len() / count;
        let Some(gathered) = scratch.get_mut(..taken * step) else { return };
        gather(windows, i * batch, gathered, (length, step));
        product(rows, (gathered, step), pixels, taken, packed);
    }
}

/// As [`Windows::gather`] for the rows from `n` on, with whole lines of a window at a time; outside the image a row is filled first.
fn gather(windows: &Windows<'_>, n: usize, rows: &mut [i8], (length, step): (usize, usize)) {
    let w = windows.window;
    let line = w.k_w * w.in_c;
    if windows.channels.1 != w.in_c || w.dilation_h != 1 || w.dilation_w != 1 || length != w.k_h * line {
        for (i, row) in rows.chunks_exact_mut(step).enumerate() {
            windows.gather(n + i, &mut row[..length]);
        }
        return;
    }
    let to_step = step;
    let step = w.in_w * w.in_c;
    let (y, mut x) = windows.pixel(n);
    let mut top = (y * w.stride_h) as isize - w.pad_h;
    let mut left = (x * w.stride_w) as isize - w.pad_w;
    // The furthest that a window may start and still lie inside; below zero if none does.
    let (last_top, last_left) = (w.in_h as isize - w.k_h as isize, w.in_w as isize - w.k_w as isize);
    for row in rows.chunks_exact_mut(to_step) {
        let row = &mut row[..length];
        let to = row.as_mut_ptr();
        if top >= 0 && left >= 0 && top <= last_top && left <= last_left {
            let from = top as usize * step + left as usize * w.in_c;
            if from + (w.k_h - 1) * step + line <= windows.image.len() {
                // SAFETY: the last line ends within the image, and `row` holds all lines of the window.
                unsafe { edgeyard_mve_window(windows.image.as_ptr().add(from), to, w.k_h, line, step, line) };
            }
        } else {
            partly(windows, (top, left), row);
        }
        x += 1;
        left += w.stride_w as isize;
        if x == w.out_w {
            (x, left, top) = (0, -w.pad_w, top + w.stride_h as isize);
        }
    }
}

/// The window that starts at line `top` and column `left`, some of which lies outside the image.
#[inline(never)]
fn partly(windows: &Windows<'_>, (top, left): (isize, isize), row: &mut [i8]) {
    let w = windows.window;
    let (ys, xs) = (Window::inside(top, w.k_h, w.in_h), Window::inside(left, w.k_w, w.in_w));
    row.fill(windows.fill);
    let (bytes, step, line) = (xs.len() * w.in_c, w.in_w * w.in_c, w.k_w * w.in_c);
    if ys.is_empty() || bytes == 0 {
        return;
    }
    let from = ((top + ys.start as isize) as usize * w.in_w + (left + xs.start as isize) as usize) * w.in_c;
    let to = ys.start * line + xs.start * w.in_c;
    if from + (ys.len() - 1) * step + bytes <= windows.image.len() {
        // SAFETY: the last line ends within the image; in `row` they go to the same lines and columns of the window.
        unsafe {
            let (from, to) = (windows.image.as_ptr().add(from), row.as_mut_ptr().add(to));
            edgeyard_mve_window(from, to, ys.len(), bytes, step, line);
        }
    }
}

fn can(rows: &Rows<'_>) -> bool {
    let whole = rows.weights.len() == rows.length * rows.channels.len() && rows.length > 0;
    whole && rows.finish.plain && rows.channels.len() >= CHANNELS
}

/// Multiplies `pixels` rows of input, `step` bytes apart and which the caller checked to be there, with all rows of weights.
/// Rows of whole packs, or with bytes between that may be read, go in pairs, if `packed` has room for four rows of weights.
fn product(rows: &Rows<'_>, (input, step): (&[i8], usize), output: &mut [i8], pixels: usize, packed: &mut [i8]) {
    let (count, length) = (rows.channels.len(), rows.length);
    let finish = rows.finish;
    let short = length <= SHORT;
    let whole = step.is_multiple_of(SHORT) && packed.len() >= packed_bytes(length, pixels);
    // Places of outputs are 16 bits.
    let pairs = pixels >= 2 && count < 1 << 15 && (short || whole);
    let clamp = finish.low > -128 || finish.high < 127;
    let mut first = 0;
    while first < count && pixels > 0 {
        // The last four overlap their neighbours if the channels are no multiple of four.
        let at = first.min(count - CHANNELS);
        first += CHANNELS;
        // SAFETY: `at` is a channel, with a row of weights and an output in each pixel.
        let weights = unsafe { rows.weights.as_ptr().add(at * length) };
        let channels = unsafe { rows.channels.as_ptr().add(at) };
        let output = unsafe { output.as_mut_ptr().add(at) };
        let (zero_point, low, high) = (finish.zero_point, finish.low, finish.high);
        if !pairs {
            let arguments = RowsArguments {
                input: input.as_ptr(),
                weights,
                channels,
                output,
                output_step: count,
                pixels,
                length,
                back: (length.next_multiple_of(SHORT) - length).wrapping_sub(step - length),
                zero_point,
                low,
                high,
            };
            // SAFETY: rows and pixels are there; the loops read no further than a row's length.
            unsafe { if short { edgeyard_mve_short(&arguments) } else { edgeyard_mve_rows(&arguments) } }
            continue;
        }
        let packs = length.div_ceil(SHORT);
        if !short {
            // SAFETY: four rows of weights are there, and `packed` has room for them.
            unsafe { edgeyard_mve_pack(weights, packed.as_mut_ptr(), packs, length) };
        }
        let run = match (short, packs > UNROLLED, clamp) {
            (true, _, false) => edgeyard_mve_short_pairs,
            (true, _, true) => edgeyard_mve_short_pairs_clamp,
            (false, false, false) => edgeyard_mve_pairs,
            (false, false, true) => edgeyard_mve_pairs_clamp,
            (false, true, false) => edgeyard_mve_pairs_long,
            (false, true, true) => edgeyard_mve_pairs_long_clamp,
        };
        let pair = |pixel: usize, pairs: usize| PairsArguments {
            // SAFETY: the pixel and the next have rows and outputs.
            first: unsafe { input.as_ptr().add(pixel * step) },
            second: unsafe { input.as_ptr().add((pixel + 1) * step) },
            weights: if short { weights } else { packed.as_ptr() },
            channels,
            output: unsafe { output.add(pixel * count) },
            output_step: count,
            pairs,
            packs: if short { length } else { packs - 1 },
            forth: (2 * step).wrapping_sub(if short { 0 } else { packs * SHORT }),
            zero_point,
            low,
            high,
        };
        // SAFETY: as above; packed rows are read in whole packs, which a row's step covers.
        unsafe { run(&pair(0, pixels / 2)) };
        if pixels % 2 == 1 {
            // The last two once more: one of them is new.
            unsafe { run(&pair(pixels - 2, 1)) };
        }
    }
}

/// Channels that the loop over lines takes at once.
const BLOCK: usize = 8;

/// How a depthwise convolution is done.
enum Plan {
    /// One input channel and a window of at most 4x4: lines side by side make the window one row.
    Columns,
    /// One input channel: an ordinary convolution, once the weights are turned.
    Turned,
    /// 3x3, two lines of output at a time, with the taps of a window side by side.
    Tiles,
    /// 3x3 on images too small for that, eight channels at a time.
    Lines,
    /// Any other window, with one output channel per input channel.
    Taps,
    Portable,
}

fn plan(w: &Window, finish: &Finish) -> Plan {
    let three = (w.k_h, w.k_w, w.dilation_h, w.dilation_w) == (3, 3, 1, 1);
    if finish.plain && w.in_c == 1 && columns_fit(w) {
        Plan::Columns
    } else if finish.plain && w.in_c == 1 {
        Plan::Turned
    } else if finish.plain && three && w.in_c == w.out_c && tiles_fit(w) {
        Plan::Tiles
    } else if finish.plain && finish.symmetric && three && w.in_c == w.out_c && w.out_c >= BLOCK {
        Plan::Lines
    } else if taps::can(w) {
        Plan::Taps
    } else {
        Plan::Portable
    }
}

pub(super) fn planes_scratch(window: &Window, finish: &Finish) -> usize {
    match plan(window, finish) {
        Plan::Taps => taps::scratch(window),
        Plan::Portable => portable::planes_scratch(window, finish),
        Plan::Columns => SHORT * window.out_c + line_columns(window) * TILE_LINES + window.in_w,
        Plan::Turned => {
            let pixels = window.out_h * window.out_w;
            window.taps() * window.out_c + rows_scratch(window.taps(), window.out_c, pixels, true)
        }
        Plan::Tiles => BLOCK * (size_of::<TileEntry>() + tile_sets(window) * plane_bytes(window)),
        Plan::Lines => window.out_c.div_ceil(BLOCK) * BLOCK * (9 + 3 * columns(window)),
    }
}

pub(super) fn convolve(planes: &Planes<'_>, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    match plan(planes.window, planes.finish) {
        Plan::Taps => taps::convolve(planes, image, output, scratch),
        Plan::Portable => portable::convolve(planes, image, output, scratch),
        Plan::Columns => one_channel(planes, image, output, scratch),
        Plan::Turned => turned(planes, image, output, scratch),
        Plan::Tiles => tiles(planes, image, output, scratch),
        Plan::Lines => lines(planes, image, output, scratch),
    }
}

fn turned(planes: &Planes<'_>, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let w = planes.window;
    let (taps, count) = (w.taps(), w.out_c);
    let Some((weights, rest)) = scratch.split_at_mut_checked(taps * count) else { return };
    for (t, row) in planes.weights.chunks_exact(count).enumerate() {
        for (c, value) in row.iter().enumerate() {
            if let Some(slot) = weights.get_mut(c * taps + t) {
                *slot = *value;
            }
        }
    }
    let rows = Rows { weights, slack: 0, length: taps, channels: planes.channels, finish: planes.finish };
    let windows = Windows { window: w, image, channels: (0, 1), first: 0, fill: planes.fill };
    multiply_windows(&rows, &windows, output, rest);
}

/// Columns of input, padding included, below a line of windows.
fn columns(window: &Window) -> usize {
    (window.out_w - 1) * window.stride_w + 3
}

/// The first channel of block `b`; the last block overlaps its neighbour if the channels are no multiple of eight.
fn first_channel(b: usize, channels: usize) -> usize {
    (BLOCK * b).min(channels - BLOCK)
}

/// A line of output at a time, over a ring of three lines of input with their padding, block after block.
fn lines(planes: &Planes<'_>, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let w = planes.window;
    let (count, blocks, columns) = (w.out_c, w.out_c.div_ceil(BLOCK), columns(w));
    let line_bytes = blocks * columns * BLOCK;
    let Some((weights, ring)) = scratch.split_at_mut_checked(blocks * BLOCK * 9) else { return };
    let Some(ring) = ring.get_mut(..3 * line_bytes) else { return };
    for (b, block) in weights.chunks_exact_mut(9 * BLOCK).enumerate() {
        for (tap, row) in block.chunks_exact_mut(BLOCK).zip(planes.weights.chunks_exact(count)) {
            let first = first_channel(b, count);
            tap.copy_from_slice(row.get(first..first + BLOCK).unwrap_or(&[0; BLOCK]));
        }
    }
    // Padding left and right is written once: lines of the image lie between, lines outside the image are all padding.
    ring.fill(planes.fill);
    let mut loaded = isize::MIN;
    for (y, out) in output.chunks_exact_mut(w.out_w * count).enumerate() {
        let top = (y * w.stride_h) as isize - w.pad_h;
        let slots = [0, 1, 2].map(|k: isize| (top + k).rem_euclid(3) as usize * line_bytes);
        for line in loaded.max(top)..top + 3 {
            let slot = slots[(line - top) as usize];
            if let Some(to) = ring.get_mut(slot..slot + line_bytes) {
                spread_line(planes, image, line, to);
            }
        }
        loaded = top + 3;
        for b in 0..blocks {
            let first = first_channel(b, count);
            let arguments = PlanesArguments {
                // SAFETY of all below: the block's part of a slot, its weights, its channels, its part of a pixel.
                lines: slots.map(|s| unsafe { ring.as_ptr().add(s + b * columns * BLOCK) }),
                weights: unsafe { weights.as_ptr().add(b * BLOCK * 9) },
                channels: unsafe { planes.channels.as_ptr().add(first) },
                output: unsafe { out.as_mut_ptr().add(first) },
                output_step: count,
                pixels: w.out_w,
                step: BLOCK * w.stride_w,
                zero_point: planes.finish.zero_point,
                low: planes.finish.low,
                high: planes.finish.high,
            };
            // SAFETY: lines hold the columns below `out_w` windows; `out` holds as many pixels of `count` channels.
            unsafe { edgeyard_mve_planes(&arguments) };
        }
    }
}

/// Writes one line of the image, block after block, between the padding that is there; all padding outside the image.
fn spread_line(planes: &Planes<'_>, image: &[i8], line: isize, to: &mut [i8]) {
    let w = planes.window;
    let (count, columns) = (w.in_c, columns(w));
    let inside = line >= 0 && line < w.in_h as isize;
    if !inside {
        to.fill(planes.fill);
        return;
    }
    let lead = (w.pad_w as usize).min(columns);
    let body = (w.in_w + w.pad_w as usize).min(columns).saturating_sub(lead);
    for (b, block) in to.chunks_exact_mut(columns * BLOCK).enumerate() {
        let start = line as usize * w.in_w * count + first_channel(b, count);
        let Some(middle) = block.get_mut(lead * BLOCK..(lead + body) * BLOCK) else { return };
        if body > 0 && start + (body - 1) * count + BLOCK <= image.len() {
            // SAFETY: the last column of eight channels ends within the image; `middle` holds `body` columns.
            unsafe { edgeyard_mve_columns(image.as_ptr().add(start), middle.as_mut_ptr(), body, count) };
        }
    }
}

/// Lines of input that a column of a plane holds.
const TILE_LINES: usize = 4;
/// Pixels of a line that the loops over tiles take at once.
const TILE_PIXELS: usize = 4;

/// Planes for each line of output that is done at once: with stride 1 two lines share them.
fn tile_sets(window: &Window) -> usize {
    window.stride_w
}

/// Bytes of a plane: the columns below a line of windows, of which the last is read as four.
fn plane_bytes(window: &Window) -> usize {
    (columns(window) + window.stride_w - 1) * TILE_LINES
}

/// Whether the loops over tiles take a 3x3 window: there is a whole group of pixels, and all places fit 16 bits.
fn tiles_fit(w: &Window) -> bool {
    let strides = w.stride_h == w.stride_w && w.stride_w <= 2;
    let places = (w.out_w + TILE_PIXELS) * w.out_c;
    strides
        && w.out_c >= BLOCK
        && w.out_w >= TILE_PIXELS
        && w.out_h >= 2
        && places < 1 << 16
        && BLOCK * plane_bytes(w) + TILE_LINES < 1 << 16
}

/// Eight channels after the other; of each, two lines of output at a time, over planes of their lines of input.
fn tiles(planes: &Planes<'_>, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let w = planes.window;
    let (count, plane) = (w.out_c, plane_bytes(w));
    let Some((entries, area)) = scratch.split_at_mut_checked(BLOCK * size_of::<TileEntry>()) else { return };
    let Some(area) = area.get_mut(..tile_sets(w) * BLOCK * plane) else { return };
    let table = entries.as_mut_ptr().cast::<TileEntry>();
    let line = w.in_w * w.in_c;
    if !table.is_aligned() || image.len() < w.in_h * line || output.len() < w.out_h * w.out_w * count {
        return;
    }
    // What lies between the taps and beside the image is written once.
    entries.fill(0);
    area.fill(planes.fill);
    let clamp = planes.finish.low > -128 || planes.finish.high < 127;
    let run = match (w.stride_w, clamp) {
        (1, false) => edgeyard_mve_tiles_1,
        (1, true) => edgeyard_mve_tiles_1_clamp,
        (_, false) => edgeyard_mve_tiles_2,
        (_, true) => edgeyard_mve_tiles_2_clamp,
    };
    let (c, row) = (count as u16, (w.out_w * count) as u16);
    let places = if w.stride_w == 1 {
        [0, 2 * c, row, row + 2 * c, c, 3 * c, row + c, row + 3 * c]
    } else {
        [0, row, c, row + c, 2 * c, row + 2 * c, 3 * c, row + 3 * c]
    };
    let rest = w.out_w % TILE_PIXELS;
    let again = if rest == 0 { 0 } else { TILE_PIXELS - rest };
    let mut arguments = TileArguments {
        planes: area.as_ptr(),
        entries: table,
        output: output.as_mut_ptr(),
        output_step: TILE_PIXELS * count,
        groups: w.out_w / TILE_PIXELS,
        back: again * w.stride_w * TILE_LINES,
        output_back: again * count,
        plane,
        second: BLOCK * plane,
        low: planes.finish.low,
        high: planes.finish.high,
        places: &places,
    };
    let lead = (w.pad_w as usize).min(columns(w));
    let body = (w.in_w + lead).min(columns(w)) - lead;
    let outside = [planes.fill; BLOCK];
    for b in 0..count.div_ceil(BLOCK) {
        let first = first_channel(b, count);
        let Some(channels) = planes.channels.get(first..first + BLOCK) else { return };
        // SAFETY: nine rows of weights of `count` channels; `table` has `BLOCK` entries.
        unsafe {
            edgeyard_mve_tile_weights(planes.weights.as_ptr().add(first), table, count);
            for (i, channel) in channels.iter().enumerate() {
                let entry = &mut *table.add(i);
                (entry.start, entry.multiplier, entry.shift) =
                    (channel.start, channel.scale.value, channel.scale.shift);
                (entry.one, entry.zero_point) = (1, planes.finish.zero_point);
            }
        }
        let mut next = 0;
        while next < w.out_h {
            // The last two lines once more if their number is odd: one of them is new.
            let y = next.min(w.out_h - 2);
            next += 2;
            for set in 0..tile_sets(w) {
                let top = ((y + set) * w.stride_h) as isize - w.pad_h;
                let mut spread = SpreadArguments {
                    lines: [outside.as_ptr(); TILE_LINES],
                    steps: [0; TILE_LINES],
                    // SAFETY: the set's planes, from the first column of the image on.
                    planes: unsafe { area.as_mut_ptr().add(set * BLOCK * plane + lead * TILE_LINES) },
                    columns: body,
                    plane,
                };
                for k in 0..TILE_LINES {
                    let at = top + k as isize;
                    if at >= 0 && at < w.in_h as isize {
                        // SAFETY: a line of the image, of `body` columns at least.
                        spread.lines[k] = unsafe { image.as_ptr().add(at as usize * line + first) };
                        spread.steps[k] = count;
                    }
                }
                // SAFETY: eight channels of `body` columns are read, and the planes have as many after `lead`.
                unsafe { if w.stride_w == 1 { edgeyard_mve_spread_4(&spread) } else { edgeyard_mve_spread_3(&spread) } }
            }
            // SAFETY: two lines of output from here on, and this block's part of each pixel.
            unsafe {
                arguments.output = output.as_mut_ptr().add(y * w.out_w * count + first);
                run(&arguments);
            }
        }
    }
}

/// Whether a window over one channel fits a vector when columns of four lines lie side by side.
fn columns_fit(w: &Window) -> bool {
    let window = w.k_h <= TILE_LINES && w.k_w <= TILE_LINES && (w.dilation_h, w.dilation_w) == (1, 1);
    window && w.out_w >= 2 && w.out_c >= CHANNELS
}

/// Columns below a line of windows, padding included; each is read as a vector's width.
fn line_columns(w: &Window) -> usize {
    (w.out_w - 1) * w.stride_w + SHORT / TILE_LINES
}

/// A line of output at a time: its windows are rows of 16 values that overlap, multiplied with weights in the same order.
fn one_channel(planes: &Planes<'_>, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let w = planes.window;
    let count = w.out_c;
    let Some((weights, rest)) = scratch.split_at_mut_checked(SHORT * count) else { return };
    let Some((area, rest)) = rest.split_at_mut_checked(line_columns(w) * TILE_LINES) else { return };
    let Some(outside) = rest.get_mut(..w.in_w) else { return };
    // Zero weights stand where a column has no line of the window, and beside it.
    weights.fill(0);
    area.fill(planes.fill);
    outside.fill(planes.fill);
    for (t, row) in planes.weights.chunks_exact(count).enumerate() {
        let at = t % w.k_w * TILE_LINES + t / w.k_w;
        for (slot, value) in weights.iter_mut().skip(at).step_by(SHORT).zip(row) {
            *slot = *value;
        }
    }
    let rows = Rows { weights, slack: 0, length: SHORT, channels: planes.channels, finish: planes.finish };
    let lead = (w.pad_w as usize).min(line_columns(w));
    let body = (w.in_w + lead).min(line_columns(w)) - lead;
    for (y, out) in output.chunks_exact_mut(w.out_w * count).enumerate() {
        let top = (y * w.stride_h) as isize - w.pad_h;
        for k in 0..w.k_h {
            let at = top + k as isize;
            let inside = at >= 0 && at < w.in_h as isize;
            let line = if inside { image.get(at as usize * w.in_w..(at as usize + 1) * w.in_w) } else { None };
            let from = line.unwrap_or(outside);
            if let Some(to) = area.get_mut(lead * TILE_LINES + k..) {
                // SAFETY: `body` columns are read from a line, and `area` has as many after `lead`.
                unsafe { edgeyard_mve_interleave(from.as_ptr(), to.as_mut_ptr(), body) };
            }
        }
        product(&rows, (area, w.stride_w * TILE_LINES), out, w.out_w, &mut []);
    }
}
