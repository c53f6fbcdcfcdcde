//! Prints every CRD as YAML, for `kubectl apply --server-side -f -`; with `largest KIND`, the
//! largest status of a kind as JSON.

use edgeyard_crds::{generate, largest};

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => generate::all().iter().try_for_each(|crd| {
            let yaml = serde_yaml::to_string(crd).map_err(|e| e.to_string())?;
            println!("---\n{yaml}");
            Ok(())
        }),
        ["largest", kind] => {
            let crds = generate::all();
            let crd = crds.iter().find(|crd| crd.spec.names.kind == *kind).ok_or(format!("no kind {kind}"))?;
            println!("{}", largest::largest(&generate::schema(crd)["properties"]["status"], "status", false)?);
            Ok(())
        }
        _ => Err("usage: edgeyard-crds [largest KIND]".into()),
    }
}
