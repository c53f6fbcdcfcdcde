//! Prints the JSON Schema of the job spec, or of the report with `report`.

fn main() {
    let schema = match std::env::args().nth(1).as_deref() {
        Some("report") => schemars::schema_for!(edgeyard_job::Report),
        _ => schemars::schema_for!(edgeyard_job::JobSpec),
    };
    println!("{}", serde_json::to_string_pretty(&schema).expect("a schema is JSON"));
}
