"""What was needed for a moment is given back, though what stays lies around it."""

import os
import platform
import subprocess
import sys

import pytest

NEEDS = """
import os, sys
import numpy as np
from fusion.daemon.allocator import keep_memory_low

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

if sys.argv[1] == "low":
    assert keep_memory_low()
np.ones(4 << 20, np.uint8)
before, stays, passing = resident(), [], []
for _ in range(200):
    passing.append(np.ones(300 << 10, np.uint8))
    stays.append(bytes(2000))
passing.clear()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
def test_what_is_given_back_leaves_the_process():
    left = {}
    for how in ("low", "untouched"):
        tuned = {
            name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
        }
        done = subprocess.run([sys.executable, "-c", NEEDS, how], env=tuned, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        left[how] = float(done.stdout)
    assert left["low"] < 5 < 40 < left["untouched"]
