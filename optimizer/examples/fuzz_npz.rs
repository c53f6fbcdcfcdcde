//! Fuzzes the reader of data sets: damaged archives, and whole archives around damaged arrays.

#[path = "fuzzing/mod.rs"]
mod fuzzing;

use std::io::{Cursor, Write};
use std::path::Path;
use std::process::ExitCode;

use edgeyard_optimizer::dataset::{Dataset, DatasetError};
use fuzzing::Dice;

#[global_allocator]
static MEMORY: fuzzing::Bounded = fuzzing::Bounded;

fn main() -> ExitCode {
    fuzzing::run(make, read)
}

fn make(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    if !seeds.is_empty() && dice.roll(2) == 0 {
        let mut input = dice.pick(seeds).clone();
        fuzzing::damage(&mut input, dice);
        return input;
    }
    let mut archive = archive(dice);
    if dice.roll(3) == 0 {
        fuzzing::damage(&mut archive, dice);
    }
    archive
}

/// An archive whose check sums are right, so that what is inside is read.
fn archive(dice: &mut Dice) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for name in ["x.npy", "y.npy"] {
        let name = if dice.roll(20) == 0 { "z.npy" } else { name };
        let method = *dice.pick(&[zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated]);
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        if zip.start_file(name, options).is_ok() {
            let _ = zip.write_all(&array(dice));
        }
    }
    zip.finish().map(Cursor::into_inner).unwrap_or_default()
}

fn array(dice: &mut Dice) -> Vec<u8> {
    let kind = *dice.pick(&["<f4", "<f4", "<f8", "<f2", "<i8", "|u1", ">f4", "|O", "<f99", ""]);
    let order = *dice.pick(&["False", "False", "False", "True", "0"]);
    let dims: Vec<String> = (0..dice.roll(5))
        .map(|_| if dice.roll(5) == 0 { dice.odd_number().to_string() } else { dice.roll(9).to_string() })
        .collect();
    let mut header =
        format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': ({},), }}\n", dims.join(",")).into_bytes();
    if dice.roll(3) == 0 {
        fuzzing::damage(&mut header, dice);
    }
    let mut out = b"\x93NUMPY".to_vec();
    out.extend([*dice.pick(&[1, 1, 1, 2, 3, 9]), 0]);
    let length = if dice.roll(8) == 0 { dice.odd_number() as u16 } else { header.len() as u16 };
    out.extend(length.to_le_bytes());
    if out[6] != 1 {
        out.extend([0, 0]);
    }
    out.extend(&header);
    out.extend((0..dice.roll(2000)).map(|_| dice.roll(256) as u8));
    out
}

fn read(input: &[u8]) -> Result<bool, String> {
    // The input lies where the loop has put it.
    let _ = input;
    let Ok(dataset) = Dataset::open(Path::new("current.bin")) else { return Ok(false) };
    let _ = dataset.labels();
    let size: usize = dataset.sample_shape().iter().product();
    let mut seen = 0;
    let read = dataset.for_each_batch::<DatasetError>(64, 8, |first, values, count| {
        seen += count;
        assert!(values.len() == count * size && first + count == seen, "a batch is not what it says");
        Ok(true)
    });
    Ok(read.is_ok())
}
