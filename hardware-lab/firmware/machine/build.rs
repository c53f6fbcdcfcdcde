//! Picks the linker script of the machine that the features name.

use std::env;
use std::path::Path;

fn main() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("link");
    println!("cargo:rustc-link-search={}", folder.display());
    println!("cargo:rerun-if-changed=link");
    let machine = [("MPS2_AN385", "mps2-an385.ld"), ("MPS2_AN386", "mps2-an386.ld")]
        .into_iter()
        .find(|(feature, _)| env::var_os(format!("CARGO_FEATURE_{feature}")).is_some());
    match machine {
        Some((_, script)) => println!("cargo:rustc-link-arg-bins=-T{script}"),
        None => println!("cargo:warning=no machine chosen: build with --features NAME, see machines.toml"),
    }
}
