//! A TCG plugin for QEMU 9.1 and later that counts the guest's instructions by kind: the second opinion on the firmware's own
//! counter, and the mix that latency estimates start from.
//!
//! It counts while the guest is inside the firmware's `edgeyard_run_op` and what that calls, until `edgeyard_measure` goes on. The
//! argument `out=FILE` names where the counts go when QEMU ends, as JSON: `{instructions, kinds{}, runs[]}`, one of `runs` for each
//! operator that ran, in order; the firmware starts each inference with an operator that does nothing. One core is assumed.

mod kinds;

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kinds::{KINDS, kind};

type Id = u64;

/// The plugin API that QEMU is asked for; it takes all down to 2. Instructions are read as from version 3 on.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 3;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, callback: extern "C" fn(Id, *mut c_void));
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut c_void,
        callback: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_atexit_cb(id: Id, callback: extern "C" fn(Id, *mut c_void), data: *mut c_void);
    fn qemu_plugin_tb_n_insns(block: *const c_void) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const c_void, i: usize) -> *mut c_void;
    fn qemu_plugin_insn_symbol(instruction: *const c_void) -> *const c_char;
    fn qemu_plugin_insn_data(instruction: *const c_void, to: *mut c_void, length: usize) -> usize;
}

static COUNTS: [AtomicU64; KINDS.len()] = [const { AtomicU64::new(0) }; KINDS.len()];
static COUNTING: AtomicBool = AtomicBool::new(false);
/// Instructions of all runs when the current one began, and the runs that ended.
static RUNS: Mutex<(u64, Vec<u64>)> = Mutex::new((0, Vec::new()));
static OUT: Mutex<Option<String>> = Mutex::new(None);

/// Where counting starts and where it stops.
const INSIDE: &str = "edgeyard_run_op";
const OUTSIDE: &str = "edgeyard_measure";

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn total() -> u64 {
    COUNTS.iter().map(|c| c.load(Relaxed)).sum()
}

extern "C" fn executed(_core: c_uint, data: *mut c_void) {
    if COUNTING.load(Relaxed) {
        let counter = &COUNTS[data as usize % KINDS.len()];
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }
}

extern "C" fn inside(_core: c_uint, _data: *mut c_void) {
    if !COUNTING.swap(true, Relaxed) {
        lock(&RUNS).0 = total();
    }
}

extern "C" fn outside(_core: c_uint, _data: *mut c_void) {
    if COUNTING.swap(false, Relaxed) {
        let mut runs = lock(&RUNS);
        let taken = total() - runs.0;
        runs.1.push(taken);
    }
}

extern "C" fn translated(_id: Id, block: *mut c_void) {
    // SAFETY: QEMU hands out a block that lives during this call, and its instructions. Callbacks of one instruction run in
    // the order of their registration: switching before counting.
    unsafe {
        for i in 0..qemu_plugin_tb_n_insns(block) {
            let instruction = qemu_plugin_tb_get_insn(block, i);
            let symbol = qemu_plugin_insn_symbol(instruction);
            let symbol = if symbol.is_null() { c"" } else { CStr::from_ptr(symbol) };
            if symbol.to_bytes() == INSIDE.as_bytes() {
                qemu_plugin_register_vcpu_insn_exec_cb(instruction, inside, 0, std::ptr::null_mut());
            } else if symbol.to_bytes() == OUTSIDE.as_bytes() {
                qemu_plugin_register_vcpu_insn_exec_cb(instruction, outside, 0, std::ptr::null_mut());
            }
            let mut bytes = [0_u8; 4];
            let length = qemu_plugin_insn_data(instruction, bytes.as_mut_ptr().cast(), bytes.len());
            let kind = kind(bytes.get(..length).unwrap_or(&bytes));
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, executed, 0, kind as *mut c_void);
        }
    }
}

extern "C" fn ended(_id: Id, _data: *mut c_void) {
    let kinds: Vec<String> = KINDS.iter().zip(&COUNTS).map(|(k, n)| format!("\"{k}\":{}", n.load(Relaxed))).collect();
    let runs: Vec<String> = lock(&RUNS).1.iter().map(u64::to_string).collect();
    let text =
        format!("{{\"instructions\":{},\"kinds\":{{{}}},\"runs\":[{}]}}\n", total(), kinds.join(","), runs.join(","));
    if let Some(out) = &*lock(&OUT)
        && let Err(e) = std::fs::write(out, &text)
    {
        eprintln!("instruction-mix: cannot write {out}: {e}");
    }
}

/// QEMU's entry point.
///
/// # Safety
/// QEMU calls it with `count` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    _info: *const c_void,
    count: c_int,
    values: *const *const c_char,
) -> c_int {
    for i in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: promised by the caller.
        let argument = unsafe { CStr::from_ptr(*values.add(i)) }.to_string_lossy().into_owned();
        match argument.split_once('=') {
            Some(("out", path)) => *lock(&OUT) = Some(path.to_owned()),
            _ => {
                eprintln!("instruction-mix: unknown argument {argument:?}: use out=FILE");
                return 1;
            }
        }
    }
    // SAFETY: registers callbacks that live as long as the plugin.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
        qemu_plugin_register_atexit_cb(id, ended, std::ptr::null_mut());
    }
    0
}
