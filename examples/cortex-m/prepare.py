"""Fetches person_detect.tflite, which the published crate microflow carries, and copies it. Needs cargo only.

    python prepare.py OUT_DIR

The model is TensorFlow Lite Micro's int8 person detector: MobileNetV1 of width 0.25 on 96x96 grey images, 300,568 bytes.
"""

import json
import pathlib
import shutil
import subprocess
import sys

# A lock file for models that a crate carries; the crate is fetched and never built.
CRATE = pathlib.Path(__file__).parents[2] / "hardware-lab/firmware/models/Cargo.toml"


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path", str(CRATE)]
    packages = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    crate = next(package for package in packages if package["name"] == "microflow")
    model = pathlib.Path(crate["manifest_path"]).parent / "models/person_detect.tflite"
    print(shutil.copy(model, out / model.name))


if __name__ == "__main__":
    main()
