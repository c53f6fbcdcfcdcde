//! How large an object can become within its bounds.

use edgeyard_crds::generate::{all, schema};
use edgeyard_crds::largest::largest;

const LIMIT: usize = 64 * 1024;

#[test]
fn every_field_is_bounded_and_every_status_is_small() {
    let mut wrong = vec![];
    for crd in all() {
        let schema = schema(&crd);
        for part in ["spec", "status"] {
            for wide in [false, true] {
                match largest(&schema["properties"][part], part, wide) {
                    Ok(value) => {
                        let bytes = value.to_string().len();
                        println!(
                            "{:>18} {part:<6} {bytes:>7} bytes{}",
                            crd.spec.names.kind,
                            if wide { " with wide text" } else { "" }
                        );
                        if part == "status" && bytes > LIMIT {
                            wrong.push(format!("{} {part}: {bytes} bytes", crd.spec.names.kind));
                        }
                    }
                    Err(e) => wrong.push(format!("{}: {e}", crd.spec.names.kind)),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
