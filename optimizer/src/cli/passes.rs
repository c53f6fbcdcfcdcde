//! Passes on the command line: `TYPE` or `TYPE:key=value,key=value`, with the names that manifests have. A wrong word is answered
//! with all that would be right.

use std::fmt::Write;

use edgeyard_job::spec::Pass;
use serde_json::{Map, Value, json};

/// What a setting takes.
#[derive(Debug, Clone, Copy)]
enum Takes {
    Share,
    Count,
    Flag,
    Word(&'static [&'static str]),
}

/// A setting of a pass.
struct Setting {
    key: &'static str,
    takes: Takes,
    required: bool,
}

/// A pass by its name here.
struct Named {
    name: &'static str,
    /// What it is in a manifest, and what the name alone says.
    object: &'static [(&'static str, &'static str)],
    about: &'static str,
    settings: &'static [Setting],
}

const fn may(key: &'static str, takes: Takes) -> Setting {
    Setting { key, takes, required: false }
}

const fn must(key: &'static str, takes: Takes) -> Setting {
    Setting { key, takes, required: true }
}

const SCHEMES: Takes = Takes::Word(&["Float16", "Int8", "Int8Dynamic", "Int4Weights", "Int16Activations"]);
const CALIBRATORS: Takes = Takes::Word(&["MinMax", "MovingAverage", "Percentile", "Entropy", "MeanSquaredError"]);
const GRANULARITIES: Takes = Takes::Word(&["PerChannel", "PerTensor"]);

const NAMED: &[Named] = &[
    Named {
        name: "int8",
        object: &[("type", "Quantize"), ("scheme", "Int8")],
        about: "8-bit integer weights and activations; needs --calibration",
        settings: &[
            may("calibrator", CALIBRATORS),
            may("granularity", GRANULARITIES),
            may("biasCorrection", Takes::Flag),
            may("maxFloatOperators", Takes::Count),
        ],
    },
    Named {
        name: "fp16",
        object: &[("type", "Quantize"), ("scheme", "Float16")],
        about: "16-bit floating point weights",
        settings: &[],
    },
    Named {
        name: "int8-dynamic",
        object: &[("type", "Quantize"), ("scheme", "Int8Dynamic")],
        about: "8-bit integer weights; activations are quantised while the model runs",
        settings: &[],
    },
    Named {
        name: "int4",
        object: &[("type", "Quantize"), ("scheme", "Int4Weights")],
        about: "4-bit integer weights",
        settings: &[may("blockSize", Takes::Count)],
    },
    Named {
        name: "int16",
        object: &[("type", "Quantize"), ("scheme", "Int16Activations")],
        about: "8-bit integer weights and 16-bit integer activations; needs --calibration",
        settings: &[may("calibrator", CALIBRATORS), may("granularity", GRANULARITIES)],
    },
    Named {
        name: "quantize",
        object: &[("type", "Quantize")],
        about: "any of the above, by its scheme",
        settings: &[
            must("scheme", SCHEMES),
            may("calibrator", CALIBRATORS),
            may("granularity", GRANULARITIES),
            may("biasCorrection", Takes::Flag),
            may("maxFloatOperators", Takes::Count),
            may("blockSize", Takes::Count),
        ],
    },
    Named {
        name: "prune",
        object: &[("type", "Prune")],
        about: "leave out weights: single ones, all but n of m, or whole channels",
        settings: &[
            must("pattern", Takes::Word(&["Unstructured", "NOfM", "Structured"])),
            may("score", Takes::Word(&["Magnitude", "Taylor"])),
            may("sparsity", Takes::Share),
            may("n", Takes::Count),
            may("m", Takes::Count),
        ],
    },
    Named {
        name: "factorize",
        object: &[("type", "Factorize")],
        about: "replace layers by products of thinner ones, to a share of the energy or of the multiply-accumulates",
        settings: &[
            may("method", Takes::Word(&["Auto", "SpatialSvd", "Tucker2", "Svd"])),
            may("energy", Takes::Share),
            may("macs", Takes::Share),
        ],
    },
    Named {
        name: "equalize",
        object: &[("type", "Equalize")],
        about: "make the weights of neighbouring layers alike in size",
        settings: &[],
    },
];

/// A pass as it stood on the command line.
#[derive(Debug, Clone)]
pub struct Stated {
    /// Its name here.
    pub name: &'static str,
    object: Map<String, Value>,
}

impl Stated {
    /// The pass, with `defaults` where a quantising pass says nothing itself.
    pub fn pass(mut self, defaults: &[(&str, &str)]) -> Result<Pass, String> {
        if self.object.get("type") == Some(&json!("Quantize")) {
            for (key, value) in defaults {
                self.object.entry(*key).or_insert_with(|| json!(value));
            }
        }
        serde_json::from_value(Value::Object(self.object)).map_err(|error| format!("pass {}: {error}", self.name))
    }
}

/// Reads `TYPE[:key=value,…]`.
pub fn parse(text: &str) -> Result<Stated, String> {
    let (name, settings) = text.split_once(':').unwrap_or((text, ""));
    let Some(named) = NAMED.iter().find(|named| named.name.eq_ignore_ascii_case(name)) else {
        let all: Vec<&str> = NAMED.iter().map(|named| named.name).collect();
        return Err(format!("there is no pass `{name}`; there are {}", all.join(", ")));
    };
    let mut object: Map<String, Value> =
        named.object.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    for stated in settings.split(',').filter(|stated| !stated.trim().is_empty()) {
        let (key, value) = stated.split_once('=').ok_or_else(|| format!("`{stated}` is not KEY=VALUE"))?;
        let Some(setting) = named.settings.iter().find(|setting| setting.key.eq_ignore_ascii_case(key.trim())) else {
            let known: Vec<&str> = named.settings.iter().map(|setting| setting.key).collect();
            let known =
                if known.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", known.join(", ")) };
            return Err(format!("{} has no setting `{}`; {known}", named.name, key.trim()));
        };
        let value = setting.takes.read(value.trim()).map_err(|why| format!("{}: {} {why}", named.name, setting.key))?;
        if object.insert(setting.key.to_owned(), value).is_some() {
            return Err(format!("{}: {} is said twice", named.name, setting.key));
        }
    }
    if let Some(missing) = named.settings.iter().find(|setting| setting.required && !object.contains_key(setting.key)) {
        let example = format!("{}:{}={}", named.name, missing.key, missing.takes.example());
        return Err(format!("{} needs {}, {}; such as {example}", named.name, missing.key, missing.takes.describe()));
    }
    Ok(Stated { name: named.name, object })
}

impl Takes {
    fn read(self, text: &str) -> Result<Value, String> {
        let wrong = || format!("is `{text}`; it takes {}", self.describe());
        match self {
            Self::Share => {
                let share: f64 = text.parse().map_err(|_| wrong())?;
                if (0.0..=1.0).contains(&share) { Ok(json!(share)) } else { Err(wrong()) }
            }
            Self::Count => Ok(json!(text.parse::<u32>().map_err(|_| wrong())?)),
            Self::Flag => Ok(json!(text.parse::<bool>().map_err(|_| wrong())?)),
            Self::Word(words) => {
                let word = words.iter().find(|word| word.eq_ignore_ascii_case(text)).ok_or_else(wrong)?;
                Ok(json!(word))
            }
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Share => "a share from 0 to 1, such as 0.5".to_owned(),
            Self::Count => "a whole number".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Share => "0.5",
            Self::Count => "4",
            Self::Flag => "true",
            Self::Word(words) => words.first().copied().unwrap_or(""),
        }
    }
}

/// What `--help` says of passes.
pub fn help() -> String {
    let mut text = "Passes, in the order in which they are done:\n".to_owned();
    for Named { name, about, settings, .. } in NAMED {
        let _ = writeln!(text, "  {name:<13} {about}");
        for Setting { key, takes, required } in *settings {
            let needed = if *required { " (required)" } else { "" };
            let _ = writeln!(text, "  {:<15}{key}: {}{needed}", "", takes.describe());
        }
    }
    text.push_str(
        "
Examples:
  Convert a model as it is:
    edgeyard-optimizer run --model net.onnx --target litert --out made
  8-bit integers for a microcontroller, checked on labelled data:
    edgeyard-optimizer run --model net.onnx --target tflm --pass int8 --calibration calib.npz \\
      --evaluation test.npz --max-accuracy-drop 0.01 --out made
  Half the channels, then half of what is left by low rank, then 8-bit integers:
    edgeyard-optimizer run --model net.onnx --target ort-x86 --calibration calib.npz --out made \\
      --pass prune:pattern=Structured,sparsity=0.5 --pass factorize:macs=0.5 --pass int8:calibrator=Entropy,biasCorrection=true",
    );
    text
}

#[cfg(test)]
mod tests {
    use edgeyard_job::spec::{Calibrator, Granularity, Pattern, Scheme, Score};

    use super::*;

    fn pass(text: &str) -> Result<Pass, String> {
        parse(text)?.pass(&[])
    }

    #[test]
    fn what_help_names_is_read() {
        assert_eq!(pass("int8").unwrap(), Pass::quantize(Scheme::Int8));
        assert_eq!(pass("FP16").unwrap(), Pass::quantize(Scheme::Float16));
        assert_eq!(pass("equalize").unwrap(), Pass::Equalize {});
        assert_eq!(pass("quantize:scheme=int8dynamic").unwrap(), pass("int8-dynamic").unwrap());
        assert_eq!(
            pass("prune:pattern=nofm,n=2,m=4,score=Taylor").unwrap(),
            Pass::Prune { pattern: Pattern::NOfM, score: Score::Taylor, sparsity: None, n: Some(2), m: Some(4) }
        );
        let Pass::Quantize { calibrator, bias_correction, .. } =
            pass("int8:calibrator=Entropy,biasCorrection=true").unwrap()
        else {
            unreachable!()
        };
        assert_eq!((calibrator, bias_correction), (Calibrator::Entropy, true));
        let Pass::Factorize { macs, energy, .. } = pass("factorize:macs=0.5").unwrap() else { unreachable!() };
        assert_eq!((macs, energy), (Some(0.5), None));
    }

    #[test]
    fn what_a_pass_says_itself_counts_more_than_a_default() {
        let stated = parse("int8:calibrator=Entropy").unwrap();
        let made = stated.pass(&[("calibrator", "Percentile"), ("granularity", "PerTensor")]).unwrap();
        let Pass::Quantize { calibrator, granularity, .. } = made else { unreachable!() };
        assert_eq!((calibrator, granularity), (Calibrator::Entropy, Granularity::PerTensor));
    }

    #[test]
    fn a_wrong_word_is_answered_with_the_right_ones() {
        let says = |text: &str| pass(text).unwrap_err();
        assert!(says("shrink").contains("there are int8, fp16"), "{}", says("shrink"));
        assert_eq!(
            says("prune:sparsity=0.5"),
            "prune needs pattern, one of Unstructured, NOfM, Structured; such as prune:pattern=Unstructured"
        );
        assert_eq!(
            says("prune:pattern=Structured,share=0.5"),
            "prune has no setting `share`; it takes pattern, score, sparsity, n, m"
        );
        assert_eq!(says("factorize:macs=2"), "factorize: macs is `2`; it takes a share from 0 to 1, such as 0.5");
        assert_eq!(says("fp16:calibrator=MinMax"), "fp16 has no setting `calibrator`; it takes none");
        assert_eq!(says("int4:blockSize=32,blockSize=64"), "int4: blockSize is said twice");
        assert_eq!(says("int8:calibrator"), "`calibrator` is not KEY=VALUE");
    }
}
