//! Prints the JSON Schema of what `edgeyard-optimizer inspect` prints.

fn main() {
    let schema = schemars::schema_for!(edgeyard_job::inspection::Inspection);
    println!("{}", serde_json::to_string_pretty(&schema).expect("a schema is JSON"));
}
