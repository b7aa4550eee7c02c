"""One thread a test worker: two workers with two threads each on two cores wait for each other."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for subprocesses

import torch

torch.set_num_threads(1)
