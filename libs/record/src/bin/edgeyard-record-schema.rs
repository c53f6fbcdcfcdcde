//! Prints the JSON Schema of the record.

fn main() {
    let schema = schemars::schema_for!(edgeyard_record::Record);
    println!("{}", serde_json::to_string_pretty(&schema).expect("a schema is JSON"));
}
