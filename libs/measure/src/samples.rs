//! Raw samples, packed without loss: when each inference began and how long it took, in the order they were made.
//!
//! Each sample is two LEB128 numbers: the gap since the end of the sample before it, and the zigzag of the change in
//! duration. The stream is compressed with zlib; in a JSON document it is base64 as well.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The name of the packing in a JSON document.
pub const ENCODING: &str = "base64+zlib;leb128(gap,zigzag(delta))";
/// The name of the packing in a blob.
pub const BLOB_ENCODING: &str = "zlib;leb128(gap,zigzag(delta))";
/// No honest stream unpacks to more.
const LARGEST: u64 = 1 << 30;

/// One inference, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When it began, since the run began.
    pub start: u64,
    /// How long it took.
    pub duration: u64,
}

/// Why packed samples cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// Not base64.
    #[error("the samples are not base64")]
    Base64(#[from] base64::DecodeError),
    /// Not zlib, or cut off.
    #[error("the samples cannot be decompressed")]
    Zlib(#[from] std::io::Error),
    /// More than any run makes.
    #[error("the samples unpack to more than {LARGEST} bytes")]
    TooLarge,
    /// The numbers make no series.
    #[error("the samples break off or overflow")]
    Malformed,
}

/// Packs samples. Those that follow on one another without overlapping take least room; all others come back the same too.
pub fn pack(samples: &[Sample]) -> Vec<u8> {
    let mut numbers = Vec::with_capacity(samples.len() * 4);
    let (mut end, mut last) = (0_u64, 0_u64);
    for sample in samples {
        leb128(&mut numbers, sample.start.wrapping_sub(end));
        leb128(&mut numbers, zigzag(sample.duration.wrapping_sub(last) as i64));
        end = sample.start.wrapping_add(sample.duration);
        last = sample.duration;
    }
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    packer.write_all(&numbers).expect("a vector takes everything");
    packer.finish().expect("a vector takes everything")
}

/// The inverse of [`pack`].
///
/// # Errors
/// [`SamplesError`].
pub fn unpack(packed: &[u8]) -> Result<Vec<Sample>, SamplesError> {
    let mut numbers = Vec::new();
    flate2::read::ZlibDecoder::new(packed).take(LARGEST + 1).read_to_end(&mut numbers)?;
    // Whoever stopped here would lose samples and not say so.
    if numbers.len() as u64 > LARGEST {
        return Err(SamplesError::TooLarge);
    }
    let mut rest = numbers.as_slice();
    let mut samples = Vec::new();
    let (mut end, mut last) = (0_u64, 0_u64);
    while !rest.is_empty() {
        let start = end.wrapping_add(read_leb128(&mut rest)?);
        let duration = last.wrapping_add(unzigzag(read_leb128(&mut rest)?) as u64);
        end = start.wrapping_add(duration);
        last = duration;
        samples.push(Sample { start, duration });
    }
    Ok(samples)
}

/// Packed samples as they stand in a JSON document.
pub fn to_text(packed: &[u8]) -> String {
    STANDARD.encode(packed)
}

/// The inverse of [`to_text`] and [`pack`].
///
/// # Errors
/// [`SamplesError`].
pub fn from_text(text: &str) -> Result<Vec<Sample>, SamplesError> {
    unpack(&STANDARD.decode(text)?)
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn leb128(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_leb128(rest: &mut &[u8]) -> Result<u64, SamplesError> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(SamplesError::Malformed)?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(SamplesError::Malformed);
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(SamplesError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(numbers in proptest::collection::vec(any::<(u64, u64)>(), 0..200)) {
            let samples: Vec<_> = numbers.iter().map(|&(start, duration)| Sample { start, duration }).collect();
            prop_assert_eq!(from_text(&to_text(&pack(&samples))).unwrap(), samples);
        }
    }

    #[test]
    fn a_stream_that_breaks_off_is_refused() {
        let packed = pack(&[Sample { start: 1_000_000, duration: 900_000 }; 50]);
        assert!(unpack(&packed[..packed.len() / 2]).is_err());
        assert!(from_text("not base64!").is_err());
        let mut half = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        half.write_all(&[0x80]).unwrap();
        assert!(matches!(unpack(&half.finish().unwrap()), Err(SamplesError::Malformed)));
    }
}
