//! Answers frames until the host goes away: hello, load, run, memory. See PROTOCOL.md for the payloads.

use crate::link::{Broken, Head, Link};
use crate::{NO_OP, RUNNING, board, memory, running};
use core::fmt::{self, Write};
use core::sync::atomic::Ordering;
use edgeyard_engine::{Engine, Tensor, schema};

const HELLO: u8 = 0x01;
const LOAD: u8 = 0x02;
const RUN: u8 = 0x03;
const MEMORY: u8 = 0x04;
/// Makes the core fault, so that a host can prove that it would learn of it.
const TRAP: u8 = 0x7f;
const HELLO_REPLY: u8 = 0x81;
const LOAD_REPLY: u8 = 0x82;
const RUN_REPLY: u8 = 0x83;
const MEMORY_REPLY: u8 = 0x84;
const REFUSED: u8 = 0x90;
const FAULT: u8 = 0x91;
const PANIC: u8 = 0x92;

static mut LINK: Link = Link::new();

/// The one link. Fault handlers use it too; they never return, so that nobody sees what they leave.
fn link() -> &'static mut Link {
    let link = &raw mut LINK;
    // SAFETY: one thread of execution; callers do not keep the reference over another call.
    unsafe { &mut *link }
}

/// What is loaded.
struct Loaded {
    engine: Engine<'static>,
    /// Instructions of each operator in the last run.
    counts: &'static mut [u32],
    model_len: usize,
}

/// Serves until the host closes the link; returns the exit status.
pub fn serve() -> usize {
    if link().open().is_err() {
        return 4;
    }
    let mut loaded = None;
    loop {
        let Ok(head) = link().head() else { return 0 };
        let done = match head.kind {
            HELLO => hello(head),
            LOAD => load(head, &mut loaded),
            RUN => run(head, &mut loaded),
            MEMORY => memory_use(head, loaded.as_ref()),
            TRAP => trap(head),
            _ => refuse_after(head, "unknown kind of frame"),
        };
        if done.is_err() {
            return 4;
        }
    }
}

/// Ticks of one operator. Never inlined, so that measuring costs the same whatever is measured; and with a name that the
/// instruction-counting plugin looks for.
#[unsafe(no_mangle)]
#[inline(never)]
fn edgeyard_measure(engine: &mut Engine<'_>, op: usize) -> Option<u32> {
    board::start();
    edgeyard_run_op(engine, op);
    board::elapsed()
}

/// As [`edgeyard_measure`]: a name to look for.
#[unsafe(no_mangle)]
#[inline(never)]
fn edgeyard_run_op(engine: &mut Engine<'_>, op: usize) {
    engine.run_op(op);
}

/// Instructions that a number of ticks stands for, exactly; see the board.
fn instructions(ticks: Option<u32>) -> Option<u32> {
    ticks.map(board::instructions)
}

fn hello(head: Head) -> Result<(), Broken> {
    link().skip(head.length)?;
    if !link().verify()? {
        return refuse("checksum");
    }
    // SAFETY: only their lengths are taken.
    let (arena, model) = unsafe { (memory::arena().len(), memory::model().len()) };
    let link = link();
    link.begin(HELLO_REPLY, 4 + board::NAME.len() + 6 * 4);
    link.text(board::NAME.as_bytes());
    link.u32(memory::code_bytes());
    link.u32(memory::static_bytes());
    link.u32(arena as u32);
    link.u32(model as u32);
    link.u32(memory::stack().len() as u32);
    link.u32(board::UNIT);
    link.end();
    Ok(())
}

fn load(head: Head, loaded: &mut Option<Loaded>) -> Result<(), Broken> {
    *loaded = None;
    // SAFETY: the engine that borrowed them is gone.
    let (model, arena) = unsafe { (memory::model(), memory::arena()) };
    let room = model.len();
    let Some(model) = model.get_mut(..head.length) else {
        let mut text = Text::new();
        let _ = write!(text, "the model has {} bytes, and the machine has room for {room}", head.length);
        return refuse_after(head, text.as_str());
    };
    link().payload(model)?;
    if !link().verify()? {
        return refuse("checksum");
    }
    let model: &'static [u8] = model;
    // The counters lie at the start of the arena, before the engine's part: their number is known only now.
    let ops = schema::Model::read(model).map(|m| m.graph.operators.len()).unwrap_or(0);
    let Some((counts, arena)) = arena.split_at_mut_checked((4 * ops).next_multiple_of(16)) else {
        let mut text = Text::new();
        let _ = write!(text, "{ops} operators are more than the arena has room for");
        return refuse(text.as_str());
    };
    // SAFETY: the region starts on a multiple of 16, has room for `ops` words, and any bits are a number.
    let counts = unsafe { core::slice::from_raw_parts_mut(counts.as_mut_ptr().cast::<u32>(), ops) };
    match Engine::load(model, arena) {
        Err(e) => {
            let mut text = Text::new();
            let _ = write!(text, "{e}");
            refuse(text.as_str())
        }
        Ok(engine) => {
            describe(&engine);
            *loaded = Some(Loaded { engine, counts, model_len: model.len() });
            Ok(())
        }
    }
}

/// Tells what was loaded. The frame's length is the sum of what follows, counted by the same code.
fn describe(engine: &Engine<'_>) {
    let tensors = || {
        let inputs = (0..engine.inputs()).filter_map(|i| engine.input(i));
        inputs.chain((0..engine.outputs()).filter_map(|i| engine.output(i)))
    };
    let names = || {
        (0..engine.ops()).filter_map(|i| engine.op_code(i)).map(|code| {
            let mut text = Text::new();
            let _ = write!(text, "{code}");
            text
        })
    };
    let sizes: usize = tensors().map(|(t, name)| 4 + name.len() + 20 + 4 * t.shape.rank()).sum();
    let words: usize = names().map(|n| 4 + n.as_str().len()).sum();
    let usage = engine.usage();
    let link = link();
    link.begin(LOAD_REPLY, 5 * 4 + sizes + words);
    link.u32(usage.tensors as u32);
    link.u32(usage.tables as u32);
    link.u32(engine.inputs() as u32);
    link.u32(engine.outputs() as u32);
    for (t, name) in tensors() {
        tensor(link, t, name);
    }
    link.u32(engine.ops() as u32);
    for name in names() {
        link.text(name.as_str().as_bytes());
    }
    link.end();
}

fn tensor(link: &mut Link, t: &Tensor, name: &[u8]) {
    link.text(name);
    link.u32(match t.dtype {
        schema::DType::Int8 => 9,
        schema::DType::Int32 => 2,
        schema::DType::Float32 => 0,
        schema::DType::Other(code) => code.into(),
    });
    link.u32(t.scale.to_bits());
    link.u32(t.zero_point as u32);
    link.u32(t.len() as u32);
    link.u32(t.shape.rank() as u32);
    for d in t.shape.dims() {
        link.u32(*d);
    }
}

fn run(head: Head, loaded: &mut Option<Loaded>) -> Result<(), Broken> {
    let Some(Loaded { engine, counts, .. }) = loaded else {
        return refuse_after(head, "no model is loaded");
    };
    let wanted: usize = (0..engine.inputs()).filter_map(|i| engine.input(i)).map(|(t, _)| t.len()).sum();
    if head.length != wanted {
        let mut text = Text::new();
        let _ = write!(text, "the input has {} bytes, and the model's inputs have {wanted}", head.length);
        return refuse_after(head, text.as_str());
    }
    for i in 0..engine.inputs() {
        link().payload(engine.input_mut(i))?;
    }
    if !link().verify()? {
        return refuse("checksum");
    }
    // An operator that does not exist: what measuring itself costs.
    let overhead = instructions(edgeyard_measure(engine, usize::MAX)).unwrap_or(0);
    let mut total = 0u64;
    for (i, count) in counts.iter_mut().enumerate() {
        RUNNING.store(i as u32, Ordering::Relaxed);
        let Some(n) = instructions(edgeyard_measure(engine, i)) else {
            RUNNING.store(NO_OP, Ordering::Relaxed);
            return refuse("an operator took more instructions than the counter holds");
        };
        *count = n.saturating_sub(overhead);
        total += u64::from(*count);
    }
    RUNNING.store(NO_OP, Ordering::Relaxed);
    let bytes: usize = (0..engine.outputs()).map(|i| engine.output_bytes(i).len()).sum();
    let link = link();
    link.begin(RUN_REPLY, 8 + 4 + 4 * counts.len() + bytes);
    link.u64(total);
    link.u32(counts.len() as u32);
    for count in counts.iter() {
        link.u32(*count);
    }
    for i in 0..engine.outputs() {
        link.bytes(engine.output_bytes(i));
    }
    link.end();
    Ok(())
}

fn memory_use(head: Head, loaded: Option<&Loaded>) -> Result<(), Broken> {
    link().skip(head.length)?;
    if !link().verify()? {
        return refuse("checksum");
    }
    let (arena, counters, model) =
        loaded.map_or((0, 0, 0), |l| (l.engine.usage().total(), 4 * l.counts.len(), l.model_len));
    let link = link();
    link.begin(MEMORY_REPLY, 5 * 4);
    link.u32(memory::code_bytes());
    link.u32(model as u32);
    link.u32(arena as u32);
    link.u32(memory::stack_used());
    link.u32(memory::static_bytes() + counters as u32);
    link.end();
    Ok(())
}

fn trap(head: Head) -> Result<(), Broken> {
    link().skip(head.length)?;
    link().verify()?;
    // SAFETY: an undefined instruction; the fault handler takes over and never returns.
    unsafe { core::arch::asm!("udf #0", options(noreturn)) }
}

fn refuse_after(head: Head, why: &str) -> Result<(), Broken> {
    link().skip(head.length)?;
    link().verify()?;
    refuse(why)
}

fn refuse(why: &str) -> Result<(), Broken> {
    let link = link();
    link.begin(REFUSED, 4 + why.len());
    link.text(why.as_bytes());
    link.end();
    Ok(())
}

/// Sends the registers that the core pushed (r0-r3, r12, lr, pc, xpsr) and CFSR, HFSR, MMFAR, BFAR.
pub fn report_fault(words: &[u32; 12]) {
    let link = link();
    link.begin(FAULT, 4 + 4 * words.len());
    link.u32(running());
    for word in words {
        link.u32(*word);
    }
    link.end();
}

/// Sends the operator in which the firmware gave up.
pub fn report_panic() {
    let link = link();
    link.begin(PANIC, 4);
    link.u32(running());
    link.end();
}

/// A short text without allocation; what does not fit is cut off.
struct Text {
    bytes: [u8; 200],
    len: usize,
}

impl Text {
    fn new() -> Self {
        Text { bytes: [0; 200], len: 0 }
    }

    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("")
    }
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars().filter(char::is_ascii) {
            let Some(slot) = self.bytes.get_mut(self.len) else { return Ok(()) };
            *slot = c as u8;
            self.len += 1;
        }
        Ok(())
    }
}
