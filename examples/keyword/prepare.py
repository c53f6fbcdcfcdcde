"""Speaks ten keywords with espeak-ng and turns them into the .npz data sets of this example. Needs numpy and espeak-ng 1.51.

    python prepare.py OUT_DIR [--test 4000] [--train]

Writes calib.npz (x: 256 clips of training voices), test.npz (x, y: 4,000 clips of voices that training never heard) and smoke.npz
(x, y: the first 512 of them); with --train also train.npz. A clip is one second at 16 kHz with noise and a random start; x holds its
49 frames of 10 MFCCs as MLPerf Tiny's keyword spotting has them (40 ms every 20 ms, 40 mel bands from 20 to 4,000 Hz), float32
N×1×49×10, scaled by the constants below; y is the position in WORDS.
"""

import argparse
import concurrent.futures
import io
import pathlib
import subprocess
import wave

import numpy as np

WORDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
ACCENTS = ["en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029"]
# Every fourth is kept for testing.
VOICES = (
    "adam Alex Alicia Andrea Andy anika Annie antonio aunty belinda benjamin boris caleb david Denis Diogo ed edward edward2 "
    "f1 f2 f3 f4 f5 Gene Gene2 grandma grandpa gustave Henrique Hugo iven iven2 iven3 iven4 Jacky john klatt klatt2 klatt3 "
    "klatt4 Lee linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo Marco Mario max Michael michel miguel Mike norbert pablo paul pedro "
    "quincy rob robert sandro shelby steph steph2 steph3 travis victor zac"
).split()
TEST_VOICES = VOICES[1::4]
TRAIN_VOICES = [voice for voice in VOICES if voice not in TEST_VOICES]
TEST, TRAIN = 4000, 18000
RATE, FRAME, HOP, BANDS, COEFFICIENTS = 16000, 640, 320, 40, 10
# Mean and deviation of the coefficients over training clips, rounded: part of the example, so that every sample is scaled alike.
MEAN = np.array([-5.7, 3.5, -0.2, -2.3, 0.3, -0.1, -1.3, 1.1, -0.8, -0.1])
DEVIATION = np.array([21.4, 6.0, 2.4, 2.8, 2.4, 1.8, 2.0, 1.9, 1.5, 1.3])


def mel_filters():
    def mel(hertz):
        return 1127 * np.log1p(np.asarray(hertz) / 700)

    edges = np.linspace(mel(20), mel(4000), BANDS + 2)
    bins = mel(np.fft.rfftfreq(1024, 1 / RATE))
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))


FILTERS = mel_filters()
COSINES = np.sqrt(2 / BANDS) * np.cos(np.pi / BANDS * np.outer(np.arange(COEFFICIENTS), np.arange(BANDS) + 0.5))


def features(clip):
    """49×10 scaled MFCCs of one second."""
    frames = np.lib.stride_tricks.sliding_window_view(clip, FRAME)[::HOP] * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(frames, 1024)) ** 2
    return ((np.log(power @ FILTERS.T + 1e-6) @ COSINES.T - MEAN) / DEVIATION).astype(np.float32)


def speak(word, voice, accent, speed, pitch):
    command = ["espeak-ng", "-v", f"{accent}+{voice}", "-s", str(speed), "-p", str(pitch), "--stdout", word]
    with wave.open(io.BytesIO(subprocess.run(command, check=True, capture_output=True).stdout)) as file:
        rate, data = file.getframerate(), file.readframes(1 << 20)
    samples = np.frombuffer(data, np.int16) / 32768
    # Low-pass by a short window, then linear interpolation: what is above 4 kHz is not looked at.
    samples = np.convolve(samples, np.hanning(7) / np.hanning(7).sum(), "same")
    return np.interp(np.arange(0, len(samples), rate / RATE), np.arange(len(samples)), samples)


def clip(seed, voices):
    """One clip and its word's number."""
    rng = np.random.default_rng(seed)
    label = seed[1] % len(WORDS)
    spoken = speak(
        WORDS[label], voices[rng.integers(len(voices))], ACCENTS[rng.integers(len(ACCENTS))], rng.integers(110, 220), rng.integers(15, 85)
    )
    heard = np.flatnonzero(np.abs(spoken) > 0.02 * np.abs(spoken).max(initial=1e-9))
    spoken = spoken[heard[0] : heard[-1] + 1][:RATE] if heard.size else spoken[:RATE]
    spoken = spoken / np.abs(spoken).max() * rng.uniform(0.1, 0.9)
    second = np.zeros(RATE)
    start = rng.integers(0, RATE - len(spoken) + 1)
    second[start : start + len(spoken)] = spoken
    noise = rng.standard_normal(RATE)
    if rng.uniform() < 0.5:
        noise = np.convolve(noise, np.ones(8) / 8, "same")
    level = np.sqrt(np.mean(spoken**2)) * 10 ** (-rng.uniform(0, 30) / 20)
    return features(second + noise / noise.std() * level), label


def clips(part, count, voices):
    seeds = [(part, number) for number in range(count)]
    with concurrent.futures.ProcessPoolExecutor() as pool:
        made = list(pool.map(clip, seeds, [voices] * count, chunksize=64))
    return np.stack([x for x, _ in made])[:, None], np.array([y for _, y in made], np.int64)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=pathlib.Path)
    arguments.add_argument("--test", type=int, default=TEST, help="how many test clips, from the first on")
    arguments.add_argument("--train", action="store_true")
    arguments = arguments.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    x, y = clips(1, arguments.test, TEST_VOICES)
    np.savez_compressed(arguments.out / "test.npz", x=x, y=y)
    np.savez_compressed(arguments.out / "smoke.npz", x=x[:512], y=y[:512])
    x, y = clips(2, TRAIN if arguments.train else 256, TRAIN_VOICES)
    np.savez_compressed(arguments.out / "calib.npz", x=x[:256])
    if arguments.train:
        np.savez_compressed(arguments.out / "train.npz", x=x, y=y)
    for file in sorted(arguments.out.glob("*.npz")):
        print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
