//! Metrics as a scraper asks for them: OpenMetrics, which `prometheus-client` writes, or the older text format 0.0.4,
//! which `promtool check metrics` and many tools read.

/// Content type of OpenMetrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of the older text format.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type and body for a scraper whose `Accept` headers are `accept`.
pub fn negotiate<'a>(accept: impl IntoIterator<Item = &'a str>, open_metrics: String) -> (&'static str, String) {
    if accept.into_iter().any(|accept| accept.contains("application/openmetrics-text")) {
        (OPEN_METRICS, open_metrics)
    } else {
        (TEXT, to_text_format(&open_metrics))
    }
}

/// OpenMetrics names a counter's family without `_total`, and has lines that the older format does not know.
#[must_use]
pub fn to_text_format(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let counters: Vec<&str> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let header = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match header.and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) if counters.contains(&name) => {
                text.push_str(&line[..7]);
                text.push_str(name);
                text.push_str("_total ");
                text.push_str(rest);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "# HELP a_bytes Size.\n# TYPE a_bytes gauge\n# UNIT a_bytes bytes\na_bytes 1\n# HELP b Things.\n# TYPE b counter\nb_total{x=\"y z\"} 2\n# EOF\n";

    #[test]
    fn counters_keep_their_help_and_type_in_the_older_format() {
        let (kind, text) = negotiate(["*/*"], OPEN.to_owned());
        assert_eq!(kind, TEXT);
        assert_eq!(
            text,
            "# HELP a_bytes Size.\n# TYPE a_bytes gauge\na_bytes 1\n# HELP b_total Things.\n# TYPE b_total counter\nb_total{x=\"y z\"} 2\n"
        );
    }

    #[test]
    fn prometheus_gets_what_it_prefers() {
        let asked = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5";
        assert_eq!(negotiate([asked], OPEN.to_owned()), (OPEN_METRICS, OPEN.to_owned()));
    }
}
