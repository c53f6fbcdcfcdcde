//! The kind of a Thumb instruction, from its bits: disassemblers that come with emulators do not know Helium. Encodings are those
//! of the Armv8-M Architecture Reference Manual (DDI 0553), C2.1 "Top level T32 instruction set encoding". Nothing but `core`, for
//! tests elsewhere include this file.

/// Kinds, in the order of the counters.
pub const KINDS: [&str; 7] = ["other", "load", "store", "multiply", "branch", "vector", "float"];

const OTHER: usize = 0;
const LOAD: usize = 1;
const STORE: usize = 2;
const MULTIPLY: usize = 3;
const BRANCH: usize = 4;
const VECTOR: usize = 5;
const FLOAT: usize = 6;

/// The kind of an instruction of two or four bytes, as they lie in memory.
pub fn kind(bytes: &[u8]) -> usize {
    let half = |at: usize| bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match (half(0), half(2)) {
        (Some(first), Some(second)) => wide(first, second),
        (Some(first), None) => narrow(first),
        (None, _) => OTHER,
    }
}

fn narrow(i: u16) -> usize {
    match i >> 12 {
        0b0100 if i & 0xffc0 == 0x4340 => MULTIPLY,
        // BX and BLX of a register.
        0b0100 if i & 0xff00 == 0x4700 => BRANCH,
        // From the literal pool.
        0b0100 if i & 0xf800 == 0x4800 => LOAD,
        // With a register as offset: three stores, then five loads.
        0b0101 if (i >> 9) & 7 < 3 => STORE,
        0b0101 => LOAD,
        // With a number as offset, one bit says which.
        0b0110 | 0b0111 | 0b1000 | 0b1001 | 0b1100 if i & 0x0800 == 0 => STORE,
        0b0110 | 0b0111 | 0b1000 | 0b1001 | 0b1100 => LOAD,
        // CBZ and CBNZ, PUSH, POP.
        0b1011 if i & 0xf500 == 0xb100 => BRANCH,
        0b1011 if i & 0xfe00 == 0xb400 => STORE,
        0b1011 if i & 0xfe00 == 0xbc00 => LOAD,
        // UDF and SVC share the space of conditional branches.
        0b1101 if i & 0x0e00 != 0x0e00 => BRANCH,
        0b1110 => BRANCH,
        _ => OTHER,
    }
}

fn wide(a: u16, b: u16) -> usize {
    match a >> 8 {
        // Coprocessors 9 to 11 are floating point but for moves to a lane of all lanes; 14 and 15, and all of 0xEF and 0xFF, Helium.
        0xef | 0xff => VECTOR,
        0xec..=0xee | 0xfc..=0xfe => match (b >> 8) & 0xf {
            // VDUP.
            0xb if a & 0xff90 == 0xee80 && b & 0x005f == 0x0010 => VECTOR,
            0x9..=0xb => FLOAT,
            0x8 | 0xe | 0xf => VECTOR,
            _ => OTHER,
        },
        // TBB and TBH; multiple, double and exclusive loads and stores: one bit says which.
        0xe8 | 0xe9 if a & 0xfff0 == 0xe8d0 && b & 0x00e0 == 0 => BRANCH,
        0xe8 | 0xe9 if a & 0x0010 == 0 => STORE,
        0xe8 | 0xe9 => LOAD,
        0xf8 | 0xf9 if a & 0x0010 == 0 => STORE,
        0xf8 | 0xf9 => LOAD,
        // SDIV and UDIV lie among the long multiplications.
        0xfb if a & 0xffd0 == 0xfb90 => OTHER,
        0xfb => MULTIPLY,
        0xf0..=0xf7 if b & 0x8000 != 0 => control(a, b),
        _ => OTHER,
    }
}

/// Branches, and what shares their space: barriers, hints, moves to special registers.
fn control(a: u16, b: u16) -> usize {
    // VCTP makes a mask for the tail of a vector.
    if b == 0xe801 {
        return VECTOR;
    }
    // BL, and the loops of Armv8.1-M (WLS, DLS, LE and their tail-predicated forms).
    let (calls_or_loops, unconditional) = (b & 0x4000 != 0, b & 0x1000 != 0);
    // A condition of 0b111x is no condition.
    if calls_or_loops || unconditional || a & 0x0380 != 0x0380 { BRANCH } else { OTHER }
}
