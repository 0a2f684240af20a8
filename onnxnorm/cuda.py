"""What of CUDA this machine has: the devices that its driver sees, and the libraries that are installed as packages."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import redirect_stdout
from io import StringIO

import onnxruntime as ort

__all__ = ["cuda_devices", "missing_libraries"]


def missing_libraries() -> str:
    """Load CUDA libraries that are installed as Python packages, and return in one line which one is missing."""
    if not hasattr(ort, "preload_dlls"):
        return ""
    with redirect_stdout(StringIO()) as output:
        ort.preload_dlls()
    return next((line for line in output.getvalue().splitlines() if "load" in line), "")


def cuda_devices() -> int:
    """Return the number of devices that the CUDA driver sees; 0 without a driver."""
    if "CUDA_VISIBLE_DEVICES" in os.environ and os.environ["CUDA_VISIBLE_DEVICES"].strip() in {"", "-1"}:
        return 0
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
