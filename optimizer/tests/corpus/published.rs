//! The published models, and what is expected of each.

use super::harness::{Expected, check, corpus};

type Shapes = &'static [(&'static str, &'static [usize])];

const fn model(name: &'static str, shapes: Shapes, int8: f64) -> Expected {
    Expected { name, shapes, values: &[], float: 80.0, int8 }
}

const RATE: &[(&str, f64)] = &[("sr", 16_000.0)];
const SILERO: Shapes = &[("input", &[1, 576]), ("state", &[2, 1, 128])];

#[test]
fn optical_character_recognition() {
    check(
        &corpus(),
        &[
            model("ppocr-det", &[("x", &[1, 3, 320, 320])], 14.0),
            model("ppocr-rec", &[("x", &[1, 3, 48, 320])], 8.0),
            model("ppocr-cls", &[("x", &[1, 3, 48, 192])], 35.0),
        ],
    );
}

#[test]
fn images() {
    check(
        &corpus(),
        &[
            model("yolov8-nudenet", &[("images", &[1, 3, 320, 320])], 30.0),
            // Its 1×1 convolutions take differences of large channels, layer after layer: the rounding of 8 bits adds up.
            model("picodet-layout", &[], -2.0),
            model("lcnet-orientation", &[], 16.0),
        ],
    );
}

#[test]
fn sounds_and_bytes() {
    check(
        &corpus(),
        &[
            // The sampling rate is an input that decides which branch of an If is taken. Tones are no voice: int8 gives a
            // probability of 0.03 in steps of 1/256.
            Expected { values: RATE, ..model("silero-vad", SILERO, 3.0) },
            Expected { values: RATE, ..model("silero-vad-ifless", SILERO, 3.0) },
            Expected { values: RATE, ..model("silero-vad-16k", SILERO, 3.0) },
            model("magika", &[], 40.0),
            // Its logarithm magnifies rounding: ONNX Runtime's own optimiser keeps 87 dB of it, LiteRT 65 dB.
            Expected { float: 60.0, ..model("basic-pitch", &[], 26.0) },
            // Squares and logarithms of a spectrum: 8 bits leave little.
            model("wakeword-mel", &[("input", &[1, 12640])], 4.0),
            model("wakeword-embedding", &[], 25.0),
            model("wakeword-alexa", &[], 45.0),
            model("wakeword-timer", &[], 45.0),
        ],
    );
}
