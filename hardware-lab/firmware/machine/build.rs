//! Picks the linker script of the machine that the features name.

use std::env;
use std::path::Path;

fn main() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("link");
    println!("cargo:rustc-link-search={}", folder.display());
    println!("cargo:rerun-if-changed=link");
    let mut machines = ["mps2-an385", "mps2-an386", "mps2-an500", "mps3-an547", "nrf52840", "stm32h743"].into_iter();
    let chosen =
        |name: &&str| env::var_os(format!("CARGO_FEATURE_{}", name.to_uppercase().replace('-', "_"))).is_some();
    match machines.find(chosen) {
        Some(name) => println!("cargo:rustc-link-arg-bins=-T{name}.ld"),
        None => println!("cargo:warning=no machine chosen: build with --features NAME, see machines.toml"),
    }
}
