"""data.py OUT KIND: data sets that are wrong: `narrow` images of 27 columns, `unlabelled` ones without y."""

import sys

import numpy as np

out, kind = sys.argv[1:]
rng = np.random.default_rng(1)
if kind == "narrow":
    np.savez(out, x=rng.random((32, 1, 28, 27), np.float32), y=np.zeros(32, np.int64))
elif kind == "unlabelled":
    np.savez(out, x=rng.random((32, 1, 28, 28), np.float32))
else:
    raise SystemExit(f"unknown kind {kind}")
