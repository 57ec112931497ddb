"""What is kept on disk: the files of `modules.storage`, in one place with generators as tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..envs.room_options import pack_generator, unpack_generator
from ..modules.storage import (
    HEADER_LIMIT,
    Shapes,
    array_bytes,
    file_size,
    from_json,
    in_a_line,
    parse_array,
    parse_json,
    parse_tensors,
    read_bytes,
    read_json,
    read_tensors,
    save_tensors,
    sync_folder,
    tensor_bytes,
    tensor_shapes,
    to_json,
    write_atomically,
    write_new,
)

__all__ = [
    "HEADER_LIMIT",
    "Shapes",
    "array_bytes",
    "file_size",
    "from_json",
    "generator_from",
    "generator_tensor",
    "in_a_line",
    "parse_array",
    "parse_json",
    "parse_tensors",
    "read_bytes",
    "read_json",
    "read_tensors",
    "save_tensors",
    "sync_folder",
    "tensor_bytes",
    "tensor_shapes",
    "to_json",
    "write_atomically",
    "write_new",
]


def generator_tensor(generator: np.random.Generator) -> Tensor:
    """The state of a numpy generator as a tensor; undone by `generator_from`."""
    return torch.from_numpy(pack_generator(generator).view(np.int64))


def generator_from(packed: Tensor) -> np.random.Generator:
    """Undo `generator_tensor`."""
    return unpack_generator(packed.numpy())
