//! NumPy archives: data sets come as `.npz` with the arrays `x` and `y`, outputs leave as one.

use std::io::{Cursor, Read as _, Write as _};

use crate::error::Failure;
use crate::tensor::{Array, Element};

const MAGIC: &[u8] = b"\x93NUMPY";
/// No array of a data set is larger; a header that says so is a lie.
const LARGEST: u64 = 16 << 30;

/// Reads one array; `None` if the archive has none of that name.
///
/// # Errors
/// `DatasetMalformed`.
pub fn read(archive: &[u8], name: &str) -> Result<Option<Array>, Failure> {
    let malformed =
        |why: String| Failure::bad_input("DatasetMalformed", format!("the data set is no usable .npz: {why}"));
    let mut zip = zip::ZipArchive::new(Cursor::new(archive)).map_err(|error| malformed(error.to_string()))?;
    let mut file = match zip.by_name(&format!("{name}.npy")) {
        Ok(file) => file,
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(malformed(error.to_string())),
    };
    let mut bytes = Vec::new();
    (&mut file).take(LARGEST).read_to_end(&mut bytes).map_err(|error| malformed(error.to_string()))?;
    parse(bytes).map(Some).map_err(|why| malformed(format!("array {name:?} {why}")))
}

/// The names of the arrays.
pub fn names(archive: &[u8]) -> Vec<String> {
    zip::ZipArchive::new(Cursor::new(archive))
        .map(|zip| zip.file_names().map(|name| name.trim_end_matches(".npy").to_owned()).collect())
        .unwrap_or_default()
}

/// Writes arrays.
///
/// # Errors
/// When a shape does not fit its data.
pub fn write<'a>(arrays: impl IntoIterator<Item = (&'a str, &'a Array)>) -> Result<Vec<u8>, Failure> {
    let failed = |error: zip::result::ZipError| Failure::infrastructure("OutputsUnwritable", error.to_string());
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, array) in arrays {
        zip.start_file(format!("{name}.npy"), options).map_err(failed)?;
        zip.write_all(&header(array))?;
        zip.write_all(&array.data)?;
    }
    Ok(zip.finish().map_err(failed)?.into_inner())
}

fn header(array: &Array) -> Vec<u8> {
    let shape: Vec<String> = array.shape.iter().map(|n| format!("{n},")).collect();
    let mut text =
        format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", array.element.descr(), shape.join(" "));
    // NumPy aligns the data to 64 bytes.
    let unpadded = MAGIC.len() + 4 + text.len() + 1;
    text.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out
}

fn parse(mut bytes: Vec<u8>) -> Result<Array, String> {
    let cut = || "breaks off".to_owned();
    if !bytes.starts_with(MAGIC) {
        return Err("is not in NumPy's format".into());
    }
    let (length, start) = match *bytes.get(6).ok_or_else(cut)? {
        1 => (u16::from_le_bytes([*bytes.get(8).ok_or_else(cut)?, *bytes.get(9).ok_or_else(cut)?]) as usize, 10),
        2 | 3 => {
            let field = bytes.get(8..12).ok_or_else(cut)?;
            (u32::from_le_bytes([field[0], field[1], field[2], field[3]]) as usize, 12)
        }
        version => return Err(format!("has the unknown format version {version}")),
    };
    let text =
        std::str::from_utf8(bytes.get(start..start + length).ok_or_else(cut)?).map_err(|_| "has no text header")?;
    let descr = quoted(text, "descr").ok_or("has elements of a structure")?.to_owned();
    let element = Element::from_descr(&descr).ok_or_else(|| {
        format!("has elements of type {descr:?}: use float32, float64, int8, uint8, int16, int32 or int64")
    })?;
    if text.contains("'fortran_order': True") {
        return Err("is in Fortran order: save numpy.ascontiguousarray(a)".into());
    }
    let shape = text.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).ok_or("has no shape")?.0;
    let shape =
        shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::parse).collect::<Result<Vec<usize>, _>>();
    let shape = shape.map_err(|_| "has no readable shape")?;
    let size =
        shape.iter().try_fold(element.size(), |size, n| size.checked_mul(*n)).ok_or("has an impossible shape")?;
    let data = bytes.split_off(start + length);
    if data.len() != size {
        return Err(format!("has shape {shape:?} but {} bytes instead of {size}", data.len()));
    }
    Ok(Array { element, shape, data })
}

fn quoted<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("'{key}': '"))?;
    Some(rest.split_once('\'')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let array = Array { element: Element::I16, shape: vec![2, 3], data: (0..12).collect() };
        let scalar = Array { element: Element::F32, shape: vec![], data: vec![0, 0, 128, 63] };
        let archive = write([("a", &array), ("b/c", &scalar)]).unwrap();
        assert_eq!(read(&archive, "a").unwrap(), Some(array));
        assert_eq!(read(&archive, "b/c").unwrap(), Some(scalar));
        assert_eq!(read(&archive, "x").unwrap(), None);
    }

    #[test]
    fn damage_is_told() {
        let array = Array { element: Element::F32, shape: vec![8], data: vec![0; 32] };
        let archive = write([("x", &array)]).unwrap();
        assert_eq!(read(&archive[..archive.len() / 2], "x").unwrap_err().reason, "DatasetMalformed");
        let mut text = header(&array);
        text.extend([0; 16]);
        assert!(parse(text).unwrap_err().contains("16 bytes instead of 32"));
    }
}
