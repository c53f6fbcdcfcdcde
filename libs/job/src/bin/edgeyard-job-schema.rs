//! Prints the JSON Schema of the job spec.

fn main() {
    let schema = schemars::schema_for!(edgeyard_job::JobSpec);
    println!("{}", serde_json::to_string_pretty(&schema).expect("a schema is JSON"));
}
