"""What every test starts from: one thread a process, a headless renderer, no network."""

import os

for _variable, _value in (
    ("OMP_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("LP_NUM_THREADS", "0"),
    ("HF_HUB_OFFLINE", "1"),
    ("TRANSFORMERS_OFFLINE", "1"),
):
    os.environ.setdefault(_variable, _value)
