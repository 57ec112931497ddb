"""Freed memory is used again without a page fault."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from forethought.allocator import keep_freed_memory

_FAULTS = """
import resource, sys, torch
from forethought.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    kept = [torch.ones(3_000_000) for _ in range(8)]  # as activations are, until the backward pass

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    # By itself glibc may learn to keep such blocks, if nothing lies above them in the heap: here it starts from not
    # doing so.
    settings = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", _FAULTS, how]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=settings)
    return int(told.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc and cannot be asked")
def test_freed_memory_is_used_again_without_a_page_fault() -> None:
    assert 10 * faults("keep") < faults("give back")
