//! Embeds the device classes of `hardware-lab/catalogue`.

use std::path::Path;
use std::{env, fs};

fn main() {
    let catalogue =
        Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../hardware-lab/catalogue");
    println!("cargo:rerun-if-changed={}", catalogue.display());
    let mut files: Vec<_> = fs::read_dir(&catalogue)
        .expect("hardware-lab/catalogue is part of the repository")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    let mut list = String::from("[");
    for file in files {
        let name = file.file_name().expect("a file has a name").to_string_lossy();
        let path = file.canonicalize().expect("it was listed");
        list.push_str(&format!("({name:?}, include_str!({:?})), ", path.display().to_string()));
    }
    list.push(']');
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("catalogue.rs");
    fs::write(out, list).expect("OUT_DIR is writable");
}
