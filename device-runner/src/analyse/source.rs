//! Latencies in files from elsewhere: CSV, JSON lines, a JSON array, or one number a line. Pure: text in, numbers out, and for
//! what is wrong the line and what would be right.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::loadgen::{self, Summary};

/// What a file holds.
#[derive(Debug, PartialEq)]
pub enum Source {
    /// Latencies in the order of the file.
    Series(Series),
    /// LoadGen's account of a run, without its latencies.
    Summary(Box<Summary>),
}

/// Latencies in the order of the file, in a unit that the caller knows, or that of the column's name.
#[derive(Debug, Default, PartialEq)]
pub struct Series {
    /// The kind of file, for people.
    pub format: &'static str,
    /// The column or member that they were in.
    pub column: Option<String>,
    /// The latencies.
    pub values: Vec<f64>,
}

/// What a text holds; `column` names the column or member of the latencies.
///
/// # Errors
/// With the line that is wrong and what would be right.
pub fn read(text: &str, column: Option<&str>) -> Result<Source, String> {
    let text = text.trim_start_matches('\u{feff}');
    let Some((_, first)) = lines(text).next() else { return Err("it is empty".into()) };
    let series = if first.starts_with(":::MLLOG") {
        return loadgen::detail(text).map(|summary| Source::Summary(Box::new(summary)));
    } else if text.contains("MLPerf Results Summary") {
        return loadgen::summary(text).map(|summary| Source::Summary(Box::new(summary)));
    } else if first.starts_with('[') {
        return array(text, column);
    } else if first.starts_with('{') && first.contains("\"traceEvents\"") {
        loadgen::trace(text)?
    } else if first.starts_with('{') {
        json_lines(text, column)?
    } else {
        table(text, column)?
    };
    if series.values.is_empty() {
        return Err("it has no latencies".into());
    }
    Ok(Source::Series(series))
}

/// Lines with their numbers, without blank ones and comments.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// A number that can be a latency.
fn latency(at: usize, number: f64) -> Result<f64, String> {
    if number.is_finite() && number >= 0.0 {
        return Ok(number);
    }
    let what = if number < 0.0 { "negative" } else { "not a number" };
    Err(format!("line {at}: {number} is {what}, which no latency can be"))
}

fn number(at: usize, text: &str) -> Result<f64, String> {
    if text.is_empty() {
        return Err(format!("line {at}: the latency is empty"));
    }
    latency(at, text.parse().map_err(|_| format!("line {at}: {text:?} is no number"))?)
}

/// A CSV with a header (separated by commas, semicolons or tabs), or one number a line.
fn table(text: &str, column: Option<&str>) -> Result<Series, String> {
    let mut lines = lines(text).peekable();
    let Some(&(_, first)) = lines.peek() else { return Ok(Series::default()) };
    // What stands between quotes separates nothing.
    let outside: String = first.split('"').step_by(2).collect();
    let separator = [',', ';', '\t'].into_iter().find(|separator| outside.contains(*separator)).unwrap_or(',');
    let header: Vec<Cow<str>> = cells(first, separator).collect();
    if header.iter().all(|cell| cell.parse::<f64>().is_ok()) {
        if header.len() > 1 {
            return Err("line 1: it has columns but no header that names them: add one".into());
        }
        if let Some(name) = column {
            return Err(format!("it has no column {name:?}: it is a list of numbers without a header"));
        }
        let values = lines.map(|(at, line)| number(at, line)).collect::<Result<_, _>>()?;
        return Ok(Series { format: "list of numbers", column: None, values });
    }
    lines.next();
    let names = || header.join(", ");
    let place = match column {
        Some(name) => header
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| format!("it has no column {name:?}; it has {}", names()))?,
        None if header.len() == 1 => 0,
        None => {
            let row: Vec<Cow<str>> = lines.peek().map(|(_, line)| cells(line, separator).collect()).unwrap_or_default();
            let numbers: Vec<usize> = (0..row.len()).filter(|place| row[*place].parse::<f64>().is_ok()).collect();
            match numbers.as_slice() {
                [only] if row.len() == header.len() => *only,
                _ => return Err(format!("choose one of its columns with --column: {}", names())),
            }
        }
    };
    let mut values = Vec::new();
    for (at, line) in lines {
        let (mut found, mut count) = (None, 0);
        for cell in cells(line, separator) {
            if count == place {
                found = Some(cell);
            }
            count += 1;
        }
        let cell = found.filter(|_| count == header.len()).ok_or_else(|| {
            let cut = if count < header.len() { ": the file seems cut off here" } else { "" };
            format!("line {at} has {count} of {} columns{cut}", header.len())
        })?;
        values.push(number(at, &cell)?);
    }
    Ok(Series { format: "CSV", column: Some(header[place].to_string()), values })
}

/// The cells of a line of CSV; a quoted one may hold separators and doubled quotes.
fn cells(line: &str, separator: char) -> impl Iterator<Item = Cow<'_, str>> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        if let Some(quoted) = text.trim_start().strip_prefix('"') {
            let mut end = 0;
            while let Some(quote) = quoted[end..].find('"') {
                end += quote;
                if !quoted[end + 1..].starts_with('"') {
                    let after = &quoted[end + 1..];
                    rest = after.find(separator).map(|at| &after[at + separator.len_utf8()..]);
                    return Some(Cow::Owned(quoted[..end].replace("\"\"", "\"")));
                }
                end += 2;
            }
        }
        let (cell, after) = text.split_once(separator).map_or((text, None), |(cell, after)| (cell, Some(after)));
        rest = after;
        Some(Cow::Borrowed(cell.trim()))
    })
}

fn json_lines(text: &str, column: Option<&str>) -> Result<Series, String> {
    let mut name = column.map(str::to_owned);
    let mut values = Vec::new();
    for (at, line) in lines(text) {
        let object: Map<String, Value> = serde_json::from_str(line).map_err(|error| broken(at, line, &error))?;
        values.push(member(at, &object, &mut name)?);
    }
    Ok(Series { format: "JSON lines", column: name, values })
}

/// What to say of a line that is no JSON.
pub(super) fn broken(at: usize, line: &str, error: &serde_json::Error) -> String {
    if error.is_eof() {
        format!("line {at} breaks off: the file seems cut off here")
    } else if ["NaN", "nan", "Infinity"].iter().any(|odd| line.contains(odd)) {
        format!("line {at}: NaN and infinity are no latencies, and no JSON")
    } else {
        format!("line {at} is not JSON: {error}")
    }
}

/// The latency among an object's members; without a name, the only number, whose name is kept.
fn member(at: usize, object: &Map<String, Value>, name: &mut Option<String>) -> Result<f64, String> {
    let names = || object.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let key = match name {
        Some(key) => &*key,
        None => {
            let mut numbers = object.iter().filter(|(_, value)| value.is_number());
            match (numbers.next(), numbers.next()) {
                (Some((key, _)), None) => &*name.insert(key.clone()),
                _ => return Err(format!("choose one of its members with --column: {}", names())),
            }
        }
    };
    let value = object.get(key).ok_or_else(|| format!("line {at} has no member {key:?}; it has {}", names()))?;
    latency(at, value.as_f64().ok_or_else(|| format!("line {at}: {key:?} is {value}, no number"))?)
}

/// A JSON array of numbers or of objects; LoadGen's accuracy log is one.
fn array(text: &str, column: Option<&str>) -> Result<Source, String> {
    let items: Vec<Value> = serde_json::from_str(text).map_err(|error| {
        let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        broken(error.line(), line, &error)
    })?;
    let is_response = |item: &Value| ["seq_id", "qsl_idx", "data"].iter().all(|key| item.get(key).is_some());
    if column.is_none() && !items.is_empty() && items.iter().all(is_response) {
        return Ok(Source::Summary(Box::new(Summary::of_responses(items.len() as u64))));
    }
    let mut name = column.map(str::to_owned);
    let mut values = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        // Lines mean little here; items are counted from 1 as well.
        let about = |why: String| why.replacen("line", "item", 1);
        values.push(match item {
            Value::Object(object) => member(index + 1, object, &mut name).map_err(about)?,
            Value::Number(number) if column.is_none() => {
                latency(index + 1, number.as_f64().unwrap_or(f64::NAN)).map_err(about)?
            }
            other => return Err(format!("item {} is {other}, no latency", index + 1)),
        });
    }
    if values.is_empty() {
        return Err("it has no latencies".into());
    }
    Ok(Source::Series(Series { format: "JSON array", column: name, values }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str, column: Option<&str>) -> Vec<f64> {
        match read(text, column).unwrap() {
            Source::Series(series) => series.values,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(values("1\n2.5\n", None), [1.0, 2.5]);
        assert_eq!(values("t,latency\n0,1\n1,2\n", Some("latency")), [1.0, 2.0]);
        assert_eq!(values("\u{feff}name;ms\r\nx;1e3\r\ny;2\r\n", None), [1000.0, 2.0]);
        assert_eq!(values("\"the, name\"\t\"a \"\"b\"\"\"\n# a remark\n\"x\ty\"\t\"7\"\n", Some("a \"b\"")), [7.0]);
        assert_eq!(values("{\"id\":\"a\",\"ms\":3}\n\n{\"id\":\"b\",\"ms\":4}", None), [3.0, 4.0]);
        assert_eq!(values("[1, 2,\n 3]", None), [1.0, 2.0, 3.0]);
        assert_eq!(values("[{\"ms\": 1, \"n\": 0}, {\"ms\": 2, \"n\": 0}]", Some("ms")), [1.0, 2.0]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, column, wanted) in [
            ("", None, "empty"),
            ("\n  \n", None, "empty"),
            ("ms\n", None, "no latencies"),
            ("a,b\n1,2\n", None, "--column: a, b"),
            ("a,b\n1,2\n", Some("c"), "no column \"c\"; it has a, b"),
            ("1,2\n", None, "header"),
            ("1\n2\n", Some("ms"), "no column \"ms\""),
            ("a,b\n1,2\n3", Some("b"), "line 3 has 1 of 2 columns: the file seems cut off"),
            ("a,b\n1,2\n3,", Some("b"), "line 3: the latency is empty"),
            ("a,b\n1,2,3\n", Some("b"), "line 2 has 3 of 2 columns"),
            ("1\nx\n", None, "line 2: \"x\" is no number"),
            ("ms\n1\n-2\n", None, "line 3: -2 is negative"),
            ("ms\n1\nNaN\n", None, "line 3: NaN is not a number"),
            ("ms\n1\ninf\n", None, "line 3: inf is not a number"),
            ("{\"ms\":3}\n{\"ms\":", None, "line 2 breaks off: the file seems cut off"),
            ("{\"ms\":3}\n{\"ms\":NaN}", None, "line 2: NaN"),
            ("{\"ms\":3}\n{\"ms\":null}", None, "line 2: \"ms\" is null"),
            ("{\"ms\":3}\n{\"s\":3}", None, "line 2 has no member \"ms\"; it has s"),
            ("{\"a\":3,\"b\":4}", None, "--column: a, b"),
            ("{\"a\":3,\"b\":-4}", Some("b"), "line 1: -4 is negative"),
            ("[1, 2,\n 3", None, "line 2 breaks off: the file seems cut off"),
            ("[1, -2]", None, "item 2: -2 is negative"),
            ("[]", None, "no latencies"),
        ] {
            let error = read(text, column).expect_err(text);
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_file_may_be_cut_off_anywhere() {
        let entry = |key: &str, value: &str| format!(":::MLLOG {{\"key\": \"{key}\", \"value\": {value}}}\n");
        let log = entry("effective_scenario", "\"Server\"") + &entry("result_query_count", "700") + &entry("µ", "1");
        let trace = "{\"traceEvents\":[\n{\"name\":\"Sample\",\"ph\":\"b\",\"id\":1,\"ts\":1.5},\n\
                     {\"name\":\"Sample\",\"ph\":\"e\",\"id\":1,\"ts\":2.5}]}";
        // Until these have their last character, or but for the end of the line, they are no more than a part.
        for whole in [trace, "[1, 2,\n {\"ms\": 3}]", "{\"a\":\"µ\",\"ms\":3}", &log[..log.len() / 2]] {
            for end in (1..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
                assert!(read(&whole[..end], None).is_err(), "{}", &whole[..end]);
            }
        }
        // Of these every beginning must be read or refused, whatever is between quotes.
        for whole in ["\"a \"\"µ\"\"\";b\n\"1\";\"2\"\"\n3;4\n", &log, "1\n2e\n"] {
            for end in (0..=whole.len()).filter(|end| whole.is_char_boundary(*end)) {
                let _ = read(&whole[..end], Some("b"));
                let _ = read(&whole[..end], None);
            }
        }
    }
}
