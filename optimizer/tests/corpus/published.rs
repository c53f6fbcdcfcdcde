//! The published models, and what is expected of each.

use super::harness::{Expected, Lowers, check, corpus};

type Shapes = &'static [(&'static str, &'static [usize])];

const fn model(name: &'static str, shapes: Shapes, int8: f64) -> Expected {
    Expected { name, shapes, float: Lowers::To(80.0), int8: Lowers::To(int8) }
}

const fn refused(name: &'static str, shapes: Shapes, why: &'static str) -> Expected {
    Expected { name, shapes, float: Lowers::Not(why), int8: Lowers::Not(why) }
}

const SILERO: Shapes = &[("input", &[1, 576]), ("state", &[2, 1, 128])];

#[test]
fn optical_character_recognition() {
    check(
        &corpus(),
        &[
            model("ppocr-det", &[("x", &[1, 3, 320, 320])], 14.0),
            refused("ppocr-rec", &[("x", &[1, 3, 48, 320])], "broadcasts in 5 dimensions"),
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
            // The sampling rate is an input, so which branch of its If is taken is not known.
            refused("silero-vad", SILERO, "input sr"),
            refused("silero-vad-ifless", SILERO, "input sr"),
            refused("silero-vad-16k", SILERO, "input sr"),
            refused("magika", &[], "input bytes"),
            // Its logarithm magnifies rounding: ONNX Runtime's own optimiser keeps 87 dB of it, LiteRT 65 dB.
            Expected { float: Lowers::To(60.0), ..model("basic-pitch", &[], 26.0) },
            refused("wakeword-mel", &[("input", &[1, 12640])], "op Clip (node Clip_28)"),
            model("wakeword-embedding", &[], 25.0),
            model("wakeword-alexa", &[], 45.0),
            model("wakeword-timer", &[], 45.0),
        ],
    );
}
