//! Datasets: `.npz` archives with samples `x` and, for evaluation, labels `y`. Samples are read from the first on,
//! a batch at a time, so that memory does not depend on how many there are.

use std::io::Read;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::ir::DataType;

/// No header of a NumPy array is longer.
const MAX_HEADER: usize = 1 << 16;
/// No sample of a model for edge devices is larger.
const MAX_SAMPLE: usize = 1 << 28;
const MAX_SAMPLES: usize = 1 << 32;
/// Samples are carried as 32-bit floats, which hold every smaller integer: class numbers, bytes, words of a vocabulary.
const EXACT: f32 = (1 << 24) as f32;

/// Why a dataset cannot be used.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// The file cannot be read as an archive of arrays.
    #[error("{file} is not a usable .npz archive: {problem}")]
    Archive {
        /// The file's name.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// An array is not there.
    #[error("{file} has no array {array}; it has {has}. {hint}")]
    MissingArray {
        /// The file's name.
        file: String,
        /// Which array.
        array: &'static str,
        /// What is there.
        has: String,
        /// What to do.
        hint: &'static str,
    },
    /// An array is not what it must be.
    #[error("array {array} of {file}: {problem}")]
    Array {
        /// The file's name.
        file: String,
        /// Which array.
        array: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// Element types that datasets may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F16,
    F32,
    F64,
    U8,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
}

#[derive(Debug, Clone)]
struct Header {
    element: Element,
    shape: Vec<usize>,
}

/// A dataset whose headers were read and checked.
#[derive(Debug, Clone)]
pub struct Dataset {
    path: PathBuf,
    name: String,
    x: Header,
}

impl Dataset {
    /// Opens an archive and checks the samples' type and shape.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hint = "Save samples as `numpy.savez(file, x=…)`.";
        let x = with_array(path, &name, "x", hint, |_, header| Ok(header))?;
        let wrong = |problem: String| DatasetError::Array { file: name.clone(), array: "x", problem };
        let size = x.shape[1..].iter().try_fold(1usize, |size, dim| size.checked_mul(*dim));
        if x.shape[0] == 0 || size.is_none_or(|size| size == 0 || size > MAX_SAMPLE) {
            return Err(wrong(format!("its shape is {:?}; the first axis counts samples, at least one", x.shape)));
        }
        Ok(Self { path: path.to_owned(), name, x })
    }

    /// The file's name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.x.shape[0]
    }

    /// Never true: a dataset without samples does not open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of one sample.
    pub fn sample_shape(&self) -> &[usize] {
        &self.x.shape[1..]
    }

    /// Checks that samples are of the kind that an input of this type takes: integers where it takes integers.
    ///
    /// # Errors
    /// [`DatasetError::Array`] that names both types.
    pub fn check_type(&self, input: DataType) -> Result<(), DatasetError> {
        let integers = matches!(input, DataType::I32 | DataType::I64 | DataType::U8);
        let wrong = |problem: String| Err(DatasetError::Array { file: self.name.clone(), array: "x", problem });
        match (self.x.element.is_float(), integers) {
            (false, false) => wrong(format!(
                "its elements are integers; the model takes {input}: scale as in training and save as float32"
            )),
            (true, true) => wrong(format!("its elements are floating point; the model takes {input}: save integers")),
            _ => Ok(()),
        }
    }

    /// Checks that samples fit an input of this shape, where -1 is free.
    ///
    /// # Errors
    /// [`DatasetError::Array`] that names both shapes.
    pub fn check_shape(&self, input: &[i64]) -> Result<(), DatasetError> {
        let sample = self.sample_shape();
        let fits = input.len() == sample.len() + 1
            && input[1..].iter().zip(sample).all(|(dim, size)| *dim < 0 || *dim == *size as i64);
        if fits {
            return Ok(());
        }
        let text = |dim: &i64| if *dim < 0 { "?".to_owned() } else { dim.to_string() };
        let input: Vec<String> = input.iter().skip(1).map(text).collect();
        Err(DatasetError::Array {
            file: self.name.clone(),
            array: "x",
            problem: format!("a sample has the shape {sample:?}, the model's input has [{}]", input.join(", ")),
        })
    }

    /// The labels, one for each sample.
    ///
    /// # Errors
    /// [`DatasetError::MissingArray`] without labels, [`DatasetError::Array`] when they are no class numbers.
    pub fn labels(&self) -> Result<Vec<i64>, DatasetError> {
        let hint = "Accuracy needs labels: save as `numpy.savez(file, x=…, y=…)` with a class number for each sample.";
        with_array(&self.path, &self.name, "y", hint, |reader, header| {
            let wrong = |problem: String| DatasetError::Array { file: self.name.clone(), array: "y", problem };
            if header.shape != [self.len()] {
                return Err(wrong(format!(
                    "its shape is {:?}; one class number for each of the {} samples is expected",
                    header.shape,
                    self.len()
                )));
            }
            if header.element.is_float() {
                return Err(wrong("its elements are floating point; class numbers are integers".to_owned()));
            }
            let mut labels = Vec::with_capacity(self.len().min(1 << 20));
            let mut element = vec![0; header.element.size()];
            for _ in 0..self.len() {
                reader.read_exact(&mut element).map_err(|error| wrong(cut(&error)))?;
                labels.push(header.element.integer(&element));
            }
            Ok(labels)
        })
    }

    /// Calls `next` with every batch in order (first sample's number, samples, their count) until it gives false or
    /// `limit` samples were seen.
    ///
    /// # Errors
    /// [`DatasetError`], or what `next` gives.
    pub fn for_each_batch<E: From<DatasetError>>(
        &self,
        limit: usize,
        batch: usize,
        mut next: impl FnMut(usize, Vec<f32>, usize) -> Result<bool, E>,
    ) -> Result<(), E> {
        let total = limit.min(self.len());
        let size: usize = self.sample_shape().iter().product();
        let outcome = with_array(&self.path, &self.name, "x", "", |reader, header| {
            let wrong = |problem: String| DatasetError::Array { file: self.name.clone(), array: "x", problem };
            let mut bytes = Vec::new();
            let mut first = 0;
            while first < total {
                let count = batch.max(1).min(total - first);
                // A header may promise more than memory holds: only what is there is taken up.
                let wanted = count * size * header.element.size();
                bytes.clear();
                (&mut *reader).take(wanted as u64).read_to_end(&mut bytes).map_err(|error| wrong(cut(&error)))?;
                if bytes.len() < wanted {
                    return Err(wrong(cut(&std::io::ErrorKind::UnexpectedEof.into())));
                }
                let values = header.element.floats(&bytes);
                if !header.element.is_float()
                    && let Some(at) = values.iter().position(|value| value.abs() >= EXACT)
                {
                    let text =
                        format!("sample {} holds an integer of 2^24 or more, which is not fed", first + at / size);
                    return Err(wrong(text));
                }
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    return Err(wrong(format!("sample {} holds a value that is not finite", first + at / size)));
                }
                match next(first, values, count) {
                    Ok(true) => first += count,
                    Ok(false) => return Ok(Ok(())),
                    Err(error) => return Ok(Err(error)),
                }
            }
            Ok(Ok(()))
        });
        outcome?
    }
}

fn cut(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it ends early; the file is cut off".to_owned(),
        _ => error.to_string(),
    }
}

fn with_array<T>(
    path: &Path,
    file: &str,
    array: &'static str,
    hint: &'static str,
    read: impl FnOnce(&mut dyn Read, Header) -> Result<T, DatasetError>,
) -> Result<T, DatasetError> {
    let archive = |problem: String| DatasetError::Archive { file: file.to_owned(), problem };
    let handle = fs_err::File::open(path).map_err(|error| archive(error.to_string()))?;
    let mut zip = zip::ZipArchive::new(std::io::BufReader::new(handle)).map_err(|error| archive(error.to_string()))?;
    let entry = format!("{array}.npy");
    if zip.index_for_name(&entry).is_none() {
        let names: Vec<&str> = zip.file_names().map(|name| name.trim_end_matches(".npy")).take(10).collect();
        let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(DatasetError::MissingArray { file: file.to_owned(), array, has, hint });
    }
    let mut entry = zip.by_name(&entry).map_err(|error| archive(error.to_string()))?;
    let wrong = |problem: String| DatasetError::Array { file: file.to_owned(), array, problem };
    let header = header(&mut entry).map_err(wrong)?;
    if header.shape.is_empty() || header.shape[0] > MAX_SAMPLES {
        return Err(wrong(format!("its shape is {:?}; the first axis counts samples", header.shape)));
    }
    read(&mut entry, header)
}

fn header(reader: &mut dyn Read) -> Result<Header, String> {
    let mut magic = [0; 8];
    reader.read_exact(&mut magic).map_err(|error| cut(&error))?;
    if &magic[..6] != b"\x93NUMPY" {
        return Err("it is no NumPy array".to_owned());
    }
    let mut size = [0; 4];
    let width = if magic[6] == 1 { 2 } else { 4 };
    reader.read_exact(&mut size[..width]).map_err(|error| cut(&error))?;
    let size = u32::from_le_bytes(size) as usize;
    if size > MAX_HEADER {
        return Err(format!("its header says it is {size} bytes long"));
    }
    let mut text = vec![0; size];
    reader.read_exact(&mut text).map_err(|error| cut(&error))?;
    let text = String::from_utf8_lossy(&text);
    let value = |key: &str| text.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    let descr = value("descr").and_then(|rest| rest.strip_prefix('\'')?.split('\'').next());
    let descr = descr.ok_or("its element type is no plain number")?;
    if value("fortran_order").is_none_or(|rest| !rest.starts_with("False")) {
        return Err("it is in Fortran order; save numpy.ascontiguousarray(…)".to_owned());
    }
    let shape = value("shape").and_then(|rest| Some(rest.strip_prefix('(')?.split_once(')')?.0));
    let shape = shape.ok_or("its header has no shape")?;
    let dims = shape.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    let shape: Option<Vec<usize>> = dims.map(|dim| dim.parse().ok()).collect();
    let element = Element::parse(descr)
        .ok_or_else(|| format!("its element type is {descr}; little-endian floating point or integers are expected"))?;
    Ok(Header { element, shape: shape.ok_or("its shape is no list of numbers")? })
}

impl Element {
    fn parse(descr: &str) -> Option<Self> {
        Some(match descr {
            "<f2" => Self::F16,
            "<f4" => Self::F32,
            "<f8" => Self::F64,
            "|u1" | "<u1" => Self::U8,
            "|i1" | "<i1" => Self::I8,
            "<i2" => Self::I16,
            "<u2" => Self::U16,
            "<i4" => Self::I32,
            "<u4" => Self::U32,
            "<i8" => Self::I64,
            "<u8" => Self::U64,
            _ => return None,
        })
    }

    fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }

    fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    fn floats(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|chunk| half::f16::from_le_bytes(*chunk).to_f32()).collect(),
            Self::F64 => bytes.as_chunks().0.iter().map(|chunk| f64::from_le_bytes(*chunk) as f32).collect(),
            _ => bytes.chunks_exact(self.size()).map(|chunk| self.integer(chunk) as f32).collect(),
        }
    }

    /// One integer of this type; floats are not asked.
    fn integer(self, bytes: &[u8]) -> i64 {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let value = i64::from_le_bytes(wide);
        match self {
            Self::I8 => i64::from(value as i8),
            Self::I16 => i64::from(value as i16),
            Self::I32 => i64::from(value as i32),
            _ => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(data);
        out
    }

    fn archive(arrays: &[(&str, Vec<u8>)]) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(".npz").tempfile().unwrap();
        let mut zip = zip::ZipWriter::new(file.reopen().unwrap());
        for (name, bytes) in arrays {
            zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        file
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn samples_come_in_batches_and_labels_in_one() {
        let x = npy("<f4", "False", "(3, 2)", &floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        let file = archive(&[("x", x), ("y", npy("|u1", "False", "(3,)", &[7, 8, 255]))]);
        let dataset = Dataset::open(file.path()).unwrap();
        assert_eq!(dataset.labels().unwrap(), [7, 8, 255]);
        let mut seen = Vec::new();
        let collect = |first, values, count| {
            seen.push((first, values, count));
            Ok::<_, DatasetError>(true)
        };
        dataset.for_each_batch(usize::MAX, 2, collect).unwrap();
        assert_eq!(seen, [(0, vec![0.0, 1.0, 2.0, 3.0], 2), (2, vec![4.0, 5.0], 1)]);
    }

    #[test]
    fn integers_are_for_models_that_take_integers() {
        let open = |descr: &str, values: &[u8]| {
            let file = archive(&[("x", npy(descr, "False", "(2, 1)", values))]);
            (Dataset::open(file.path()).unwrap(), file)
        };
        let (words, _file) = open("<i4", &[7, 0, 0, 0, 0, 0, 0, 1]);
        assert!(words.check_type(DataType::I64).is_ok());
        let error = words.check_type(DataType::F32).unwrap_err().to_string();
        assert!(error.contains("its elements are integers; the model takes float32"), "{error}");
        let error = words.for_each_batch(2, 2, |_, _, _| Ok::<_, DatasetError>(true)).unwrap_err().to_string();
        assert!(error.contains("sample 1 holds an integer of 2^24 or more"), "{error}");
        let (sounds, _file) = open("<f4", &floats(&[0.0, 1.0]));
        let error = sounds.check_type(DataType::U8).unwrap_err().to_string();
        assert!(error.contains("floating point; the model takes uint8"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let open = |arrays: &[(&str, Vec<u8>)]| {
            let file = archive(arrays);
            Dataset::open(file.path()).and_then(|dataset| {
                dataset.labels()?;
                dataset.for_each_batch(9, 1, |_, _, _| Ok::<_, DatasetError>(true))
            })
        };
        let x = npy("<f4", "False", "(1, 2)", &floats(&[0.0, 1.0]));
        let says = |arrays: &[(&str, Vec<u8>)], text: &str| {
            let error = open(arrays).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        says(&[("x", x.clone())], "Accuracy needs labels");
        says(&[("images", x.clone())], "it has images");
        says(&[("x", npy("<f4", "True", "(1, 2)", &floats(&[0.0, 1.0])))], "Fortran");
        says(&[("x", x.clone()), ("y", npy("<i8", "False", "(2,)", &[0; 16]))], "one class number for each of the 1");
        says(
            &[("x", npy("<f4", "False", "(2, 2)", &floats(&[0.0; 3]))), ("y", npy("|i1", "False", "(2,)", &[0; 2]))],
            "cut off",
        );
        says(
            &[
                ("x", npy("<f4", "False", "(1, 2)", &floats(&[0.0, f32::NAN]))),
                ("y", npy("|i1", "False", "(1,)", &[0])),
            ],
            "not finite",
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Dataset::open(file.path()).unwrap_err().to_string().contains("not a usable .npz"));
    }
}
