//! Prints the JSON Schema of the optimizer's report.

fn main() {
    let schema = schemars::schema_for!(edgeyard_job::Report);
    println!("{}", serde_json::to_string_pretty(&schema).expect("a schema is JSON"));
}
