//! Reports and targets as text for people.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode as Code;

use edgeyard_job::report::{Accuracy, Report, ReportResult};
use edgeyard_job::spec::{ModelFormat, Pass, Scheme};
use edgeyard_targets::Target;

use super::{Output, print};

/// The text of an optimisation's report.
pub fn report(report: &Report, path: &Path) -> String {
    let mut text = String::new();
    let ReportResult::Optimize(made) = &report.result else { return text };
    let size = |bytes: u64| format!("{bytes} B");
    let share = 100.0 * made.artifact.size_bytes as f64 / made.source_size_bytes.max(1) as f64;
    let score = |accuracy: &Accuracy| {
        let Accuracy { value, lower, upper, sample_count, .. } = accuracy;
        format!("{:.2} % [{:.2}, {:.2}], n = {sample_count}", value * 100.0, lower * 100.0, upper * 100.0)
    };
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    line("artefact", path.display().to_string());
    line("digest", made.artifact.digest.clone());
    line("size", format!("{} ({share:.1} % of {})", size(made.artifact.size_bytes), size(made.source_size_bytes)));
    if let (Some(before), Some(after)) = (&made.source_accuracy, &made.accuracy) {
        line("accuracy", score(after));
        line("  source", score(before));
    }
    if let Some(drop) = made.accuracy_drop {
        line("  drop", format!("{:.2} points", drop * 100.0));
    }
    if let Some(agreement) = &made.agreement {
        let noise = agreement.sqnr_db.map_or("outputs are equal".to_owned(), |db| format!("SQNR {db:.1} dB"));
        let same = agreement.same_top1 * 100.0;
        line("agreement", format!("{noise}, same top-1 on {same:.2} % of {} samples", agreement.sample_count));
    }
    if let Some(calibration) = &made.calibration {
        let text = format!(
            "{} over {} samples, {} tensors",
            calibration.calibrator, calibration.sample_count, calibration.tensors
        );
        line("calibration", text);
    }
    line("verification", format!("{:?} in {}", made.verification.level, made.verification.runtime));
    line("", made.verification.details.clone());
    for note in &made.notes {
        line("note", note.clone());
    }
    let seconds: Vec<String> = made.seconds.iter().map(|(step, seconds)| format!("{step} {seconds:.2} s")).collect();
    line("time", seconds.join(", "));
    text
}

/// Prints the targets.
pub fn targets(output: Output) -> Code {
    let scheme = |scheme| vec![Pass::quantize(scheme)];
    let takes = |target: &Target| -> Vec<&'static str> {
        let all = [("plain", Vec::new()), ("fp16", scheme(Scheme::Float16)), ("int8", scheme(Scheme::Int8))];
        all.into_iter().filter(|(_, passes)| target.recipe(passes).is_ok()).map(|(name, _)| name).collect()
    };
    let format = |target: &Target| match target.format {
        ModelFormat::Onnx => "ONNX",
        ModelFormat::TfLite => "TFLite",
    };
    let all = Target::all();
    let text = match output {
        Output::Text => {
            let mut text = format!("{:<11}{:<8}{:<19}{}\n", "TARGET", "FORMAT", "TAKES", "RUNTIME");
            for target in all.iter() {
                let takes = takes(target).join(", ");
                let _ = writeln!(text, "{:<11}{:<8}{takes:<19}{}", target.name, format(target), target.summary);
            }
            text
        }
        Output::Json => {
            let items: Vec<serde_json::Value> = all
                .iter()
                .map(|target| {
                    serde_json::json!({
                        "name": target.name,
                        "format": format(target),
                        "takes": takes(target),
                        "summary": target.summary,
                    })
                })
                .collect();
            format!("{:#}\n", serde_json::Value::Array(items))
        }
    };
    print(text.as_bytes())
}
