"""One torch thread for every test: with other work on the machine, more are slower."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
