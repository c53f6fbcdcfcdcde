//! Prints the JSON Schema of the record.

fn main() {
    let schema = edgeyard_record::json_schema();
    println!("{}", serde_json::to_string_pretty(&schema).expect("a schema is JSON"));
}
