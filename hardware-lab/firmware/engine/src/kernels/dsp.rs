//! Kernels for the DSP extension: two products per SMLAD. The loops themselves are in dsp.s; here inputs are laid out for
//! them. What they rely on is `Finish::plain`; everything else goes to the portable kernels.
//!
//! Values are kept as pairs of 16 bits, doubled: with a doubled sum, SMMULR is the reference's rounding high multiplication.

use super::{Planes, Rows, Windows, portable, taps};
use crate::ops::{Channel, Finish, Window};
use core::arch::{asm, global_asm};

global_asm!(include_str!("dsp.s"), options(raw));

/// One output channel as the loops read it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Packed {
    /// Twice the start of the sum.
    start: i32,
    multiplier: i32,
    /// Right shift.
    shift: i32,
    /// Rounding and zero point, to be added before the shift.
    lift: i32,
}

/// Arguments of the loops over rows; dsp.s knows the offsets.
#[repr(C)]
struct RowsArguments {
    input: *const u32,
    weights: *const i8,
    channels: *const Packed,
    channels_end: *const Packed,
    output: *mut i8,
    output_step: usize,
    /// Iterations of the loop over two groups of four values.
    pairs: usize,
    /// Whether the first iteration starts at its second group.
    odd: usize,
    /// Bytes from where reading a row of weights ends back to the next row.
    back: usize,
    low: i32,
    high: i32,
    /// Whether low and high say less than int8 does.
    clamp: usize,
    /// Bytes of a row of weights.
    length: usize,
}

/// Arguments of the loop over a line of a depthwise convolution; dsp.s knows the offsets.
#[derive(Clone, Copy)]
#[repr(C)]
struct PlanesArguments {
    lines: [*const u32; MOST_LINES],
    weights: *const u32,
    /// Four starts, then multiplier, shift and lift of each.
    channels: *const i32,
    output: *mut i8,
    output_step: usize,
    pairs: usize,
    /// Bounds in each byte.
    low: u32,
    high: u32,
    /// Whether they say less than int8 does.
    clamp: usize,
}

unsafe extern "C" {
    fn edgeyard_dsp_expand_4(from: *const i8, to: *mut u32, groups: usize);
    fn edgeyard_dsp_expand_1(from: *const i8, to: *mut u32, groups: usize);
    fn edgeyard_dsp_expand_line(from: *const i8, to: *mut u32, columns: usize, step: usize, blocks: usize, gap: usize);
    fn edgeyard_dsp_rows_4(arguments: *const RowsArguments);
    fn edgeyard_dsp_wide_4(arguments: *const RowsArguments);
    fn edgeyard_dsp_rows_1(arguments: *const RowsArguments);
    fn edgeyard_dsp_planes_3_1(arguments: *const PlanesArguments);
    fn edgeyard_dsp_planes_3_2(arguments: *const PlanesArguments);
    fn edgeyard_dsp_planes_5_1(arguments: *const PlanesArguments);
    fn edgeyard_dsp_planes_5_2(arguments: *const PlanesArguments);
    fn edgeyard_dsp_planes_7_1(arguments: *const PlanesArguments);
    fn edgeyard_dsp_planes_7_2(arguments: *const PlanesArguments);
}

fn pack(channel: &Channel, finish: &Finish) -> Packed {
    let shift = -channel.scale.shift;
    let lift = (2 * finish.zero_point + 1) << (shift - 1);
    Packed { start: channel.start << 1, multiplier: channel.scale.value, shift, lift }
}

/// Splits off `count` values of `T` from a buffer whose start is aligned for it.
fn take<T>(scratch: &mut [i8], count: usize) -> Option<(*mut T, &mut [i8])> {
    let (now, later) = scratch.split_at_mut_checked(count * size_of::<T>())?;
    let start = now.as_mut_ptr().cast::<T>();
    if start.is_aligned() { Some((start, later)) } else { None }
}

/// Four bytes as two doubled pairs: bytes 0 and 2, bytes 1 and 3.
#[inline(always)]
fn pairs(word: u32) -> (u32, u32) {
    let (even, odd): (u32, u32);
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "sxtb16 {e}, {w}",
            "sxtb16 {o}, {w}, ror #8",
            "sadd16 {e}, {e}, {e}",
            "sadd16 {o}, {o}, {o}",
            w = in(reg) word, e = out(reg) even, o = out(reg) odd,
            options(pure, nomem, nostack),
        );
    }
    (even, odd)
}

/// Where the pairs of rows go: four rows side by side, group by group, or a single one.
#[derive(Clone, Copy)]
struct Sink {
    to: *mut u32,
    four: bool,
}

impl Sink {
    fn step(self) -> usize {
        if self.four { 2 * PIXELS } else { 2 }
    }

    /// The place of `groups` further on.
    ///
    /// # Safety
    /// It is within the buffer, or one past it.
    unsafe fn after(self, groups: usize) -> Sink {
        // SAFETY: promised by the caller.
        Sink { to: unsafe { self.to.add(groups * self.step()) }, ..self }
    }

    /// Writes values as pairs; the last group is filled with zeros.
    ///
    /// # Safety
    /// There is room for all groups.
    unsafe fn expand(self, values: &[i8]) {
        let groups = values.len() / 4;
        let rest = &values[groups * 4..];
        // SAFETY: promised by the caller; the loops read `4 * groups` values.
        unsafe {
            if groups > 0 {
                let run = if self.four { edgeyard_dsp_expand_4 } else { edgeyard_dsp_expand_1 };
                run(values.as_ptr(), self.to, groups);
            }
            if !rest.is_empty() {
                let mut group = [0; 4];
                group[..rest.len()].copy_from_slice(rest);
                self.after(groups).put(pairs(u32::from_ne_bytes(group.map(|b| b as u8))), 1);
            }
        }
    }

    /// Writes the same group `count` times.
    ///
    /// # Safety
    /// There is room.
    unsafe fn put(self, (even, odd): (u32, u32), count: usize) {
        let mut to = self.to;
        for _ in 0..count {
            // SAFETY: promised by the caller.
            unsafe {
                to.write(even);
                to.add(1).write(odd);
                to = to.add(self.step());
            }
        }
    }
}

const PIXELS: usize = 4;

/// Weights of at most this many bytes are kept as pairs while an operator runs, four bytes for two of them.
const WIDE: usize = 2048;

/// Words that the weights take as pairs; 0 if they are left as they are.
fn wide_words(length: usize, channels: usize, pixels: usize) -> usize {
    let groups = length.div_ceil(4);
    if pixels >= PIXELS && groups.is_multiple_of(2) && length * channels <= WIDE { groups * 2 * channels } else { 0 }
}

pub(super) fn rows_scratch(length: usize, channels: usize, pixels: usize, gathered: bool) -> usize {
    let side_by_side = if pixels < PIXELS { 1 } else { PIXELS };
    let gathered = if gathered { length } else { 0 };
    let wide = wide_words(length, channels, pixels) * size_of::<u32>();
    channels * size_of::<Packed>() + length.div_ceil(4) * 8 * side_by_side + wide + gathered
}

pub(super) fn multiply(rows: &Rows<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let length = rows.length;
    let fill = |n: usize, sink: Sink, _: &mut [i8]| {
        if let Some(row) = input.get(n * length..(n + 1) * length) {
            // SAFETY: `product` gives a place with room for a row.
            unsafe { sink.expand(row) };
        }
    };
    if !(can(rows) && product(rows, output, scratch, false, fill)) {
        portable::multiply(rows, input, output, scratch);
    }
}

pub(super) fn multiply_windows(rows: &Rows<'_>, windows: &Windows<'_>, output: &mut [i8], scratch: &mut [i8]) {
    let w = windows.window;
    let (from, count) = windows.channels;
    let whole = count == w.in_c && w.dilation_w == 1;
    let padding = pairs(u32::from(windows.fill as u8) * 0x0101_0101);
    let fill = |n: usize, sink: Sink, buffer: &mut [i8]| {
        let (y, x) = windows.pixel(n);
        let top = (y * w.stride_h) as isize - w.pad_h;
        let left = (x * w.stride_w) as isize - w.pad_w;
        let inside = left >= 0 && left as usize + w.k_w <= w.in_w;
        // Lines of the window are expanded from the image itself if groups of four never cross from one to the next.
        let lines = whole && inside && (w.k_w * count).is_multiple_of(4);
        if !lines && !count.is_multiple_of(4) {
            windows.gather(n, buffer);
            // SAFETY: `product` gives a place with room for a row.
            unsafe { sink.expand(buffer) };
            return;
        }
        let mut sink = sink;
        for ky in 0..w.k_h {
            let iy = top + (ky * w.dilation_h) as isize;
            let line = iy as usize * w.in_w;
            let outside = iy < 0 || iy >= w.in_h as isize;
            // SAFETY of all below: `product` gives a place with room for a row, and each line takes its part of it.
            if outside {
                let groups = w.k_w * count / 4;
                unsafe { sink.put(padding, groups) };
                sink = unsafe { sink.after(groups) };
            } else if lines {
                let start = (line + left as usize) * count;
                let values = windows.image.get(start..start + w.k_w * count).unwrap_or(&[]);
                unsafe { sink.expand(values) };
                sink = unsafe { sink.after(w.k_w * count / 4) };
            } else {
                for kx in 0..w.k_w {
                    let ix = left + (kx * w.dilation_w) as isize;
                    let start = (line.wrapping_add(ix as usize)).wrapping_mul(w.in_c).wrapping_add(from);
                    if ix < 0 || ix >= w.in_w as isize {
                        unsafe { sink.put(padding, count / 4) };
                    } else if let Some(values) = windows.image.get(start..start + count) {
                        unsafe { sink.expand(values) };
                    }
                    sink = unsafe { sink.after(count / 4) };
                }
            }
        }
    };
    if !(can(rows) && product(rows, output, scratch, true, fill)) {
        portable::multiply_windows(rows, windows, output, scratch);
    }
}

/// The loops read weights in fours, so that the last row may read past its end.
fn can(rows: &Rows<'_>) -> bool {
    let whole = rows.weights.len() == rows.length * rows.channels.len() && rows.length > 0;
    whole && rows.finish.plain && (rows.length.is_multiple_of(4) || rows.slack >= 3)
}

/// Multiplies row after row, four at a time where there are four; false if nothing was done for want of scratch.
/// `fill(n, sink, buffer)` writes row `n` to the sink; `buffer` has room for a row if it is `gathered`.
fn product(
    rows: &Rows<'_>,
    output: &mut [i8],
    scratch: &mut [i8],
    gathered: bool,
    fill: impl Fn(usize, Sink, &mut [i8]),
) -> bool {
    let (count, groups) = (rows.channels.len(), rows.length.div_ceil(4));
    let pixels = output.len() / count;
    let side_by_side = if pixels < PIXELS { 1 } else { PIXELS };
    let Some((table, rest)) = take::<Packed>(scratch, count) else { return false };
    let Some((input, rest)) = take::<u32>(rest, groups * 2 * side_by_side) else { return false };
    let words = wide_words(rows.length, count, pixels);
    let Some((wide, rest)) = take::<u32>(rest, words) else { return false };
    let Some(buffer) = rest.get_mut(..if gathered { rows.length } else { 0 }) else { return false };
    for (i, channel) in rows.channels.iter().enumerate() {
        // SAFETY: `take` made room for `count`.
        unsafe { table.add(i).write(pack(channel, rows.finish)) };
    }
    if words > 0 {
        for (i, row) in rows.weights.chunks_exact(rows.length).enumerate() {
            for (g, values) in row.chunks(4).enumerate() {
                let mut group = [0; 4];
                group[..values.len()].copy_from_slice(values);
                let (even, odd) = plain_pairs(u32::from_ne_bytes(group.map(|value| value as u8)));
                // SAFETY: `take` made room for `groups` of each of `count` rows.
                unsafe {
                    let to = wide.add((i * groups + g) * 2);
                    to.write(even);
                    to.add(1).write(odd);
                }
            }
        }
    }
    let mut arguments = RowsArguments {
        input,
        weights: rows.weights.as_ptr(),
        channels: table,
        // SAFETY: the end of the table.
        channels_end: unsafe { table.add(count) },
        output: output.as_mut_ptr(),
        output_step: count,
        pairs: groups.div_ceil(2),
        odd: groups % 2,
        back: groups * 4 - rows.length,
        low: rows.finish.low,
        high: rows.finish.high,
        clamp: usize::from(rows.finish.low > -128 || rows.finish.high < 127),
        length: rows.length,
    };
    let mut next = 0;
    while next < pixels {
        let left = pixels - next;
        // Two or three left over cost less as part of four, of which some are computed again.
        let four = left >= PIXELS || (left > 1 && pixels >= PIXELS);
        let first = if four { next.min(pixels - PIXELS) } else { next };
        let taken = if four { PIXELS } else { 1 };
        for i in 0..taken {
            // SAFETY: the rows lie side by side, two words of each group apart.
            fill(first + i, Sink { to: unsafe { input.add(2 * i) }, four }, buffer);
        }
        // SAFETY: all pointers in `arguments` are to buffers of the sizes that the loops take from them; `first + taken`
        // pixels lie within `output`.
        unsafe {
            arguments.output = output.as_mut_ptr().add(first * count);
            arguments.weights = if four && words > 0 { wide.cast() } else { rows.weights.as_ptr() };
            match (four, words > 0) {
                (true, true) => edgeyard_dsp_wide_4(&arguments),
                (true, false) => edgeyard_dsp_rows_4(&arguments),
                (false, _) => edgeyard_dsp_rows_1(&arguments),
            }
        }
        next = first + taken;
    }
    true
}

/// How a depthwise convolution is done.
enum Plan {
    /// One input channel: an ordinary convolution, once the weights are turned.
    Turned,
    /// 3x3, 5x5 or 7x7, four channels at a time.
    Lines,
    /// Any other window, with one output channel per input channel.
    Taps,
    Portable,
}

fn plan(w: &Window, finish: &Finish) -> Plan {
    let square = w.k_h == w.k_w && [3, 5, 7].contains(&w.k_h) && (w.dilation_h, w.dilation_w) == (1, 1);
    let square = square && w.stride_w <= 2 && w.out_w >= 2;
    if finish.plain && w.in_c == 1 {
        Plan::Turned
    } else if finish.plain && square && w.in_c == w.out_c && w.out_c >= 4 {
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
        Plan::Turned => {
            turned_bytes(window) + rows_scratch(window.taps(), window.out_c, window.out_h * window.out_w, true)
        }
        Plan::Lines => {
            let blocks = window.out_c.div_ceil(4);
            blocks * (BLOCK_CHANNELS * 4 + block_weights(window) * 4 + window.k_h * columns(window) * 8)
        }
    }
}

pub(super) fn convolve(planes: &Planes<'_>, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    match plan(planes.window, planes.finish) {
        Plan::Taps => taps::convolve(planes, image, output, scratch),
        Plan::Portable => portable::convolve(planes, image, output, scratch),
        Plan::Turned => turned(planes, image, output, scratch),
        Plan::Lines => lines(planes, image, output, scratch),
    }
}

fn turned_bytes(window: &Window) -> usize {
    (window.taps() * window.out_c + 3).next_multiple_of(16)
}

fn turned(planes: &Planes<'_>, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let w = planes.window;
    let (taps, count) = (w.taps(), w.out_c);
    let Some((weights, rest)) = scratch.split_at_mut_checked(turned_bytes(w)) else { return };
    for (t, row) in planes.weights.chunks_exact(count).enumerate() {
        for (c, value) in row.iter().enumerate() {
            if let Some(slot) = weights.get_mut(c * taps + t) {
                *slot = *value;
            }
        }
    }
    let (weights, slack) = weights.split_at(taps * count);
    let rows = Rows { weights, slack: slack.len(), length: taps, channels: planes.channels, finish: planes.finish };
    let windows = Windows { window: w, image, channels: (0, 1), first: 0, fill: planes.fill };
    multiply_windows(&rows, &windows, output, rest);
}

/// Words per block of four channels: starts, and three words each of scaling.
const BLOCK_CHANNELS: usize = 16;
/// The most lines of a window.
const MOST_LINES: usize = 7;

/// Words per block of four channels: two pairs per tap.
fn block_weights(window: &Window) -> usize {
    2 * window.taps()
}

/// Columns of input, padding included, below a line of windows.
fn columns(window: &Window) -> usize {
    (window.out_w - 1) * window.stride_w + window.k_w
}

/// The first channel of block `b`; the last block overlaps its neighbour if the channels are no multiple of four.
fn first_channel(b: usize, channels: usize) -> usize {
    (4 * b).min(channels - 4)
}

fn word(bytes: &[i8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, |b: [i8; 4]| u32::from_ne_bytes(b.map(|v| v as u8)))
}

/// A line of output at a time, over a ring of as many expanded lines of input as a window has.
fn lines(planes: &Planes<'_>, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let w = planes.window;
    let (count, blocks, columns, size) = (w.out_c, w.out_c.div_ceil(4), columns(w), w.k_h);
    let Some((channels, rest)) = take::<i32>(scratch, blocks * BLOCK_CHANNELS) else { return };
    let Some((weights, rest)) = take::<u32>(rest, blocks * block_weights(w)) else { return };
    let Some((ring, _)) = take::<u32>(rest, size * blocks * columns * 2) else { return };
    if image.len() < w.in_h * w.in_w * count {
        return;
    }
    for b in 0..blocks {
        let first = first_channel(b, count);
        // SAFETY: within what `take` split off for `blocks`.
        unsafe { prepare_block(planes, first, channels.add(b * BLOCK_CHANNELS), weights.add(b * block_weights(w))) };
    }
    let line_words = blocks * columns * 2;
    // Padding left and right is written once: lines of the image lie between, lines outside the image are all padding.
    let padding = plain_pairs(u32::from(planes.fill as u8) * 0x0101_0101);
    // SAFETY: the whole ring.
    unsafe { Sink { to: ring, four: false }.put(padding, size * blocks * columns) };
    let bytes = |v: i32| u32::from(v as i8 as u8) * 0x0101_0101;
    let run = match (size, w.stride_w) {
        (3, 1) => edgeyard_dsp_planes_3_1,
        (3, _) => edgeyard_dsp_planes_3_2,
        (5, 1) => edgeyard_dsp_planes_5_1,
        (5, _) => edgeyard_dsp_planes_5_2,
        (_, 1) => edgeyard_dsp_planes_7_1,
        (..) => edgeyard_dsp_planes_7_2,
    };
    let mut arguments = PlanesArguments {
        lines: [ring.cast_const(); MOST_LINES],
        weights,
        channels,
        output: output.as_mut_ptr(),
        output_step: count,
        pairs: 0,
        low: bytes(planes.finish.low),
        high: bytes(planes.finish.high),
        clamp: usize::from(planes.finish.low > -128 || planes.finish.high < 127),
    };
    let mut loaded = isize::MIN;
    for (y, out) in output.chunks_exact_mut(w.out_w * count).enumerate() {
        let top = (y * w.stride_h) as isize - w.pad_h;
        let end = top + size as isize;
        let mut slot = top.rem_euclid(size as isize) as usize;
        for (k, line) in arguments.lines.iter_mut().take(size).enumerate() {
            // SAFETY: a slot of the ring has `line_words`.
            let to = unsafe { ring.add(slot * line_words) };
            *line = to;
            if top + k as isize >= loaded {
                // SAFETY: as above.
                unsafe { expand_line(planes, image, top + k as isize, to, padding) };
            }
            slot = if slot + 1 == size { 0 } else { slot + 1 };
        }
        loaded = end;
        (arguments.weights, arguments.channels) = (weights, channels);
        for b in 0..blocks {
            // SAFETY: lines hold the columns below `2 * pairs` windows; `out` holds as many pixels of `count` channels.
            unsafe {
                arguments.output = out.as_mut_ptr().add(first_channel(b, count));
                arguments.pairs = w.out_w / 2;
                run(&arguments);
                if w.out_w % 2 == 1 {
                    // The last two once more: one of them is new.
                    let mut last = PlanesArguments { pairs: 1, ..arguments };
                    last.lines = last.lines.map(|l| l.wrapping_add((w.out_w - 2) * 2 * w.stride_w));
                    last.output = arguments.output.add((w.out_w - 2) * count);
                    run(&last);
                }
                for line in arguments.lines.iter_mut().take(size) {
                    *line = line.wrapping_add(columns * 2);
                }
                arguments.weights = arguments.weights.add(block_weights(w));
                arguments.channels = arguments.channels.add(BLOCK_CHANNELS);
            }
        }
    }
}

/// Scaling and weights of four channels.
///
/// # Safety
/// The pointers have room for [`BLOCK_CHANNELS`] and [`block_weights`] words.
unsafe fn prepare_block(planes: &Planes<'_>, first: usize, channels: *mut i32, weights: *mut u32) {
    let count = planes.window.out_c;
    for i in 0..4 {
        let Some(channel) = planes.channels.get(first + i) else { return };
        let Packed { start, multiplier, shift, lift } = pack(channel, planes.finish);
        // SAFETY: within the block.
        unsafe {
            channels.add(i).write(start);
            channels.add(4 + 3 * i).write(multiplier);
            channels.add(5 + 3 * i).write(shift);
            channels.add(6 + 3 * i).write(lift);
        }
    }
    for t in 0..planes.window.taps() {
        // Doubled here, and not in each value of the image.
        let (even, odd) = pairs(word(planes.weights, t * count + first));
        // SAFETY: within the block.
        unsafe {
            weights.add(2 * t).write(even);
            weights.add(2 * t + 1).write(odd);
        }
    }
}

/// As [`pairs`], not doubled: the other factor already is.
fn plain_pairs(word: u32) -> (u32, u32) {
    let (even, odd): (u32, u32);
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "sxtb16 {e}, {w}",
            "sxtb16 {o}, {w}, ror #8",
            w = in(reg) word, e = out(reg) even, o = out(reg) odd,
            options(pure, nomem, nostack),
        );
    }
    (even, odd)
}

/// Writes one line of the image as pairs, block after block, between the padding that is there; all padding outside the image.
///
/// # Safety
/// `to` has room for all blocks' columns, and the image has all its lines.
unsafe fn expand_line(planes: &Planes<'_>, image: &[i8], line: isize, to: *mut u32, padding: (u32, u32)) {
    let w = planes.window;
    let (count, columns) = (w.in_c, columns(w));
    let blocks = count.div_ceil(4);
    if line < 0 || line >= w.in_h as isize {
        // SAFETY: promised by the caller.
        unsafe { Sink { to, four: false }.put(padding, blocks * columns) };
        return;
    }
    let lead = (w.pad_w as usize).min(columns);
    let body = (w.in_w + lead).min(columns) - lead;
    if body == 0 {
        return;
    }
    let gap = (columns - body) * 8;
    // SAFETY: the line lies in the image, and each block's columns end within it; the last block overlaps its neighbour if the
    // channels are no multiple of four.
    unsafe {
        let from = image.as_ptr().add(line as usize * w.in_w * count);
        let (to, whole) = (to.add(2 * lead), count / 4);
        edgeyard_dsp_expand_line(from, to, body, count, whole, gap);
        if whole < blocks {
            edgeyard_dsp_expand_line(from.add(count - 4), to.add(2 * whole * columns), body, count, 1, gap);
        }
    }
}
