"""What a library prints from C does not reach the standard output."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, os
from onnxnorm.rewriting.ceiling.muted import muted
libc = ctypes.CDLL(None)
print("before", flush=True)
with muted():
    libc.printf(b"from C\\n")
libc.printf(b"after\\n")
libc.fflush(None)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="prints through the C library of POSIX")
def test_what_is_printed_from_c_goes_nowhere() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert ran.stdout == "before\nafter\n"


@pytest.mark.skipif(sys.platform == "win32", reason="closes a descriptor of POSIX")
def test_a_closed_output_stays_closed() -> None:
    script = "import os\nos.close(1)\nfrom onnxnorm.rewriting.ceiling.muted import muted\nwith muted():\n    pass\n"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "Error" not in ran.stderr
