//! A Python environment with other people's runtimes, against which the tests compare ours (`xtask/oracles.txt`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err as fs;

use super::cached;
use crate::layout::short_digest;
use crate::shell::{cmd, output, quiet};

/// tflite-micro imports two helper modules of tensorflow (2 GB) and calls three functions of them; these stand in.
const TENSORFLOW: &[(&str, &str)] = &[
    ("__init__.py", ""),
    ("python/__init__.py", ""),
    ("python/util/__init__.py", ""),
    ("python/util/all_util.py", "def remove_undocumented(*args, **kwargs):\n    \"\"\"Nothing to hide.\"\"\"\n"),
    ("python/platform/__init__.py", ""),
    ("python/platform/gfile.py", "import os\n\nGFile = open\nExists = os.path.exists\n"),
];

const CHECK: &str = "import numpy, onnx, onnxruntime, scipy; from ai_edge_litert.interpreter import Interpreter; \
                     from tflite_micro import runtime; runtime.Interpreter";

/// The environment's Python.
///
/// # Errors
/// When the list of packages cannot be read.
pub fn python(root: &Path, cache: &Path) -> Result<PathBuf> {
    Ok(cache.join(name(root)?).join("bin/python"))
}

/// The list of its packages.
pub fn list(root: &Path) -> PathBuf {
    root.join("xtask/oracles.txt")
}

fn name(root: &Path) -> Result<String> {
    let mut parts = vec![fs::read_to_string(list(root))?];
    parts.extend(TENSORFLOW.iter().map(|(_, text)| (*text).to_owned()));
    Ok(format!("oracles-{}", short_digest(&parts)))
}

/// Makes the environment.
///
/// # Errors
/// When a package cannot be installed or imported.
pub fn install(root: &Path, cache: &Path) -> Result<()> {
    cached(cache, &name(root)?, "oracles: a Python environment with the reference runtimes", |dir| {
        quiet(cmd("/usr/bin/python3", ["-m", "venv"]).arg(dir))?;
        let python = dir.join("bin/python").to_string_lossy().into_owned();
        quiet(cmd(&python, ["-m", "pip", "install", "--no-deps", "--requirement"]).arg(list(root)))?;
        let site = output(&mut cmd(&python, ["-c", "import sysconfig; print(sysconfig.get_path('purelib'), end='')"]))?;
        for (path, text) in TENSORFLOW {
            let file = Path::new(&site).join("tensorflow").join(path);
            fs::create_dir_all(file.parent().context("a file has a folder")?)?;
            fs::write(file, text)?;
        }
        quiet(&mut cmd(&python, ["-c", CHECK]))
    })?;
    Ok(())
}
