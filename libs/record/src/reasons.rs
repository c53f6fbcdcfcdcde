//! Finds the nulls of a record that nothing explains.

use serde_json::{Map, Value};

/// An object on the way to a value, and the way from it.
pub(crate) struct Above<'a> {
    object: &'a Map<String, Value>,
    way: Vec<&'a str>,
}

/// Walks `value`, which is at `path`, and adds the paths of unexplained nulls to `found`.
pub(crate) fn walk<'a>(value: &'a Value, above: &mut Vec<Above<'a>>, path: &mut String, found: &mut Vec<String>) {
    match value {
        Value::Null => {
            if !above.iter().any(|above| explains(above)) {
                found.push(path.clone());
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let length = path.len();
                path.push_str(&format!("/{index}"));
                walk(item, above, path, found);
                path.truncate(length);
            }
        }
        Value::Object(object) => {
            above.push(Above { object, way: Vec::new() });
            for (key, member) in object {
                let chosen_otherwise = matches!(key.as_str(), "data" | "digest")
                    && member.is_null()
                    && object.contains_key("encoding")
                    && ["data", "digest"].iter().any(|other| object.get(*other).is_some_and(|form| !form.is_null()));
                if key == "unavailable" || key == "failure" && member.is_null() || chosen_otherwise {
                    continue;
                }
                let length = path.len();
                path.push('/');
                path.push_str(key);
                above.iter_mut().for_each(|above| above.way.push(key));
                walk(member, above, path, found);
                above.iter_mut().for_each(|above| {
                    above.way.pop();
                });
                path.truncate(length);
            }
            above.pop();
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn explains(above: &Above<'_>) -> bool {
    above
        .object
        .get("unavailable")
        .and_then(|reasons| reasons.get(above.way.join(".")))
        .and_then(Value::as_str)
        .is_some_and(|reason| !reason.is_empty())
}

/// Adds the paths of reasons to `found` that explain nothing: the way leads to a value, or nowhere. Entries of a map of
/// percentiles may be absent.
pub(crate) fn stale(value: &Value, path: &mut String, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let length = path.len();
                path.push_str(&format!("/{index}"));
                stale(item, path, found);
                path.truncate(length);
            }
        }
        Value::Object(object) => {
            for way in object.get("unavailable").and_then(Value::as_object).into_iter().flatten().map(|(way, _)| way) {
                if !leads_to_null(value, way) {
                    found.push(format!("{path}/unavailable/{way}"));
                }
            }
            for (key, member) in object.iter().filter(|(key, _)| *key != "unavailable") {
                let length = path.len();
                path.push('/');
                path.push_str(key);
                stale(member, path, found);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether a way of member names, joined by dots, leads to a null; names may have dots themselves.
fn leads_to_null(value: &Value, way: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| leads_to_null(item, way)),
        Value::Object(object) => object.iter().any(|(name, member)| match way.strip_prefix(name.as_str()) {
            Some("") => member.is_null(),
            Some(rest) => rest.strip_prefix('.').is_some_and(|rest| {
                leads_to_null(member, rest)
                    || name == "percentiles" && member.get(rest).is_none() && rest.parse::<f64>().is_ok()
            }),
            None => false,
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn unexplained(value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        walk(value, &mut Vec::new(), &mut String::new(), &mut found);
        found
    }

    #[test]
    fn a_reason_may_stand_anywhere_above() {
        let record = json!({
            "unavailable": {"phases.variant": "WholeRun"},
            "phases": [{"variant": null}, {"variant": "a"}],
            "results": [{
                "failure": null,
                "latency": null,
                "energy": {"net": null, "gross": null, "unavailable": {"net": "NoIdle"}},
                "unavailable": {"latency": "EmulatedClock"},
            }],
        });
        assert_eq!(unexplained(&record), ["/results/0/energy/gross"]);
    }

    #[test]
    fn a_reason_for_what_is_known_is_stale() {
        let stale = |record: Value| {
            let mut found = Vec::new();
            super::stale(&record, &mut String::new(), &mut found);
            found
        };
        let good = json!({
            "phases": [{"variant": null}, {"variant": "a"}],
            "latency": {"percentiles": {"50": {"lower": null}}, "unavailable": {"percentiles.99.9": "F", "percentiles.50.lower": "F"}},
            "unavailable": {"phases.variant": "WholeRun"},
        });
        assert_eq!(stale(good), Vec::<String>::new());
        let bad = json!([
            {"energy": 1, "unavailable": {"energy": "NoMeter"}},
            {"energy": null, "unavailable": {"enery": "NoMeter"}},
            {"percentiles": {"50": {"lower": 1}}, "unavailable": {"percentiles.50.lower": "F", "percentiles.50": "F"}},
        ]);
        assert_eq!(
            stale(bad),
            [
                "/0/unavailable/energy",
                "/1/unavailable/enery",
                "/2/unavailable/percentiles.50",
                "/2/unavailable/percentiles.50.lower",
            ]
        );
    }

    #[test]
    fn samples_have_one_form() {
        let form = |data: Value, digest: Value| unexplained(&json!({"encoding": "e", "data": data, "digest": digest}));
        assert!(form(json!("x"), Value::Null).is_empty());
        assert_eq!(form(Value::Null, Value::Null), ["/data", "/digest"]);
        assert_eq!(unexplained(&json!({"a": null, "unavailable": {"a": ""}})), ["/a"]);
    }
}
