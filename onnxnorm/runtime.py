"""ONNX Runtime sessions: the one place that knows providers, devices, threads and where external data lies."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onnxnorm.errors import ModelError, OptionError, ProviderError, ProviderWarning
from onnxnorm.model.files import Model
from onnxnorm.options import RUNNING, Options, option
from onnxnorm.threads import available_threads

__all__ = ["Feeds", "RunConcurrency", "Runtime", "RuntimeOptions", "Session"]

Feeds: TypeAlias = Mapping[str, "NDArray[Any] | ort.OrtValue"]
"""Inputs by name: arrays, or values that lie where the session runs (`Session.place`)."""

_log = logging.getLogger(__name__)

_FOLDER = "session.model_external_initializers_file_folder_path"
_SHORT = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
# Without TF32, whose 10 bits of mantissa would show in the verification.
_OPTIONS: dict[str, dict[str, str]] = {"CUDAExecutionProvider": {"use_tf32": "0"}}
_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
_LEAST_A_RUN = 4
_SMALL = 1 << 16  # bytes: 128 x 128 in gray, 73 x 73 in colour


@dataclass(frozen=True)
class RunConcurrency:
    """How samples go through a network: `runs` at a time, of `size` samples each, each run with `threads` threads."""

    runs: int
    size: int
    threads: int | None


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions(Options):
    """Where networks run; see `Runtime`."""

    provider: str = option(
        "auto",
        "cpu, cuda, tensorrt, or a name; auto: cuda where a device is. Its own options follow it: "
        "cuda:device_id=1,cudnn_conv_algo_search=HEURISTIC.",
        panel=RUNNING,
    )
    threads: int | None = option(None, "Default: one per core.", panel=RUNNING, least=1)

    @property
    def runtime(self) -> Runtime:
        """The runtime that these options describe."""
        return Runtime(self.provider, self.threads)


@dataclass(frozen=True)
class Runtime:
    """How to run networks: an execution provider (`auto`: CUDA where a device is, else the CPU), and threads.

    The provider may bring options of its own, as ONNX Runtime names them: `cuda:device_id=1,use_tf32=1`. `threads`
    None is one a core.
    """

    provider: str = "auto"
    threads: int | None = None

    def concurrency(self, samples: int, fixed: int | None = None, sample_bytes: int | None = None) -> RunConcurrency:
        """How to have `samples` in the network at once, for a model whose batch is `fixed` or free.

        On the CPU several runs with few threads each beat one run with many: nobody waits at the end of every operator
        for the slowest thread, and no thread spins while the next images are decoded. Where a sample is small, what is
        done around a run weighs; each thread then has a run of `samples`. A device does one run at a time.
        """
        if self._providers()[0] != _SHORT["cpu"]:
            return RunConcurrency(1, fixed or samples, self.threads)
        threads = self.threads or available_threads()
        if sample_bytes is not None and sample_bytes <= _SMALL:
            return RunConcurrency(threads, fixed or samples, 1)
        runs = max(1, min(threads, samples // (fixed or min(samples, _LEAST_A_RUN))))
        return RunConcurrency(runs, fixed or -(-samples // runs), threads // runs)

    def session(self, model: Model | onnx.ModelProto, folder: Path | None = None, *, optimize: bool = True) -> Session:
        """Open a session on a Model, or on a ModelProto whose external data lies in `folder`.

        Raises ProviderError if the provider cannot be had, ModelError if the runtime rejects the model.
        """
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # The memory pattern of a first batch is kept beside the arena: half as much memory again, and not faster.
        options.enable_mem_pattern = False
        if self.threads is not None:
            if self.threads < 1:
                raise OptionError(f"--threads must be at least 1, not {self.threads}")
            options.intra_op_num_threads = self.threads
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        serialized, folder = _serialized(model, folder)
        if folder is not None:
            options.add_session_config_entry(_FOLDER, str(folder))
        names = self._providers()
        own = [_OPTIONS.get(name, {}) for name in names]
        own[0] = own[0] | self._options()
        missing = _missing_libraries() if names[0] in _DEVICES else ""
        try:
            session = ort.InferenceSession(serialized, options, providers=list(zip(names, own, strict=True)))
        except _REJECTED as error:
            if names[0] != _SHORT["cpu"] and "provider" in str(error).lower():
                raise ProviderError(f"provider {self.provider!r} does not start: {_first_line(error)}") from error
            raise ModelError(f"ONNX Runtime rejects the model: {_first_line(error)}") from error
        started = session.get_providers()[0]
        if started != names[0]:
            self._fell_back(started, missing)
        _log.info("session on %s with %s threads", started, self.threads or "all")
        return Session(session, _DEVICES.get(started, ""), int(own[0].get("device_id", 0)))

    def _providers(self) -> list[str]:
        available = ort.get_available_providers()
        if self._name() == "auto":
            cuda = _SHORT["cuda"] in available and _cuda_devices() > 0
            return [_SHORT["cuda"], _SHORT["cpu"]] if cuda else [_SHORT["cpu"]]
        name = _SHORT.get(self._name().lower(), self._name())
        if name not in available:
            raise ProviderError(
                f"provider {self.provider!r} is not in this ONNX Runtime, which has {', '.join(available)}"
            )
        if name in {_SHORT["cuda"], _SHORT["tensorrt"]} and _cuda_devices() == 0:
            raise ProviderError(
                f"provider {self.provider!r} needs a CUDA device, and there is none; use --provider cpu"
            )
        return [name] if name == _SHORT["cpu"] else [name, _SHORT["cpu"]]

    def _fell_back(self, started: str, missing: str) -> None:
        """Say that the provider did not start: an error if it was asked for by name."""
        why = f" ({missing})" if missing else ""
        mend = "install the CUDA libraries, pip install 'onnxnorm[cuda]' or the system's own"
        if self._name() == "auto":
            message = f"a CUDA device is here, but ONNX Runtime cannot use it{why}: the CPU runs; {mend}"
            warnings.warn(ProviderWarning(message), stacklevel=3)
        else:
            raise ProviderError(
                f"provider {self.provider!r} was asked for, but ONNX Runtime only started {started}{why}; {mend}, or "
                "use --provider cpu"
            )

    def _name(self) -> str:
        return self.provider.partition(":")[0]

    def _options(self) -> dict[str, str]:
        """The provider's own options."""
        text = self.provider.partition(":")[2]
        pairs = [item.partition("=") for item in text.split(",")] if text else []
        if any(not (key and equals and value) for key, equals, value in pairs):
            raise OptionError(f"--provider {self.provider!r}: expected NAME or NAME:OPTION=VALUE,OPTION=VALUE")
        if pairs and self._name() == "auto":
            raise OptionError(f"--provider {self.provider!r}: options belong to a provider; name it instead of auto")
        return {key: value for key, _, value in pairs}


@dataclass(frozen=True)
class Session:
    """An open session; `device` is where it wants its inputs, "" for the memory of this machine."""

    ort: ort.InferenceSession = field(repr=False)
    device: str = ""
    number: int = 0

    @property
    def provider(self) -> str:
        """The provider that runs."""
        return str(self.ort.get_providers()[0])

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it must be fed."""
        return tuple(item.name for item in self.ort.get_inputs())

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it returns."""
        return tuple(item.name for item in self.ort.get_outputs())

    def place(self, feeds: Mapping[str, NDArray[Any]]) -> Feeds:
        """Copy feeds to the device, if there is one, so that a run need not wait for them."""
        if not self.device:
            return feeds
        return {name: ort.OrtValue.ortvalue_from_numpy(feeds[name], self.device, self.number) for name in self.inputs}

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """All outputs by name; feeds that the session does not take are left out."""
        names = self.outputs
        wanted = {name: feeds[name] for name in self.inputs}
        try:
            results = self._bound(wanted) if self.device else self.ort.run(list(names), wanted)
        except _REJECTED as error:
            shapes = ", ".join(f"{name} {_shape(value)}" for name, value in feeds.items())
            raise ModelError(f"ONNX Runtime fails on inputs {shapes}: {_first_line(error)}") from error
        for name, result in zip(names, results, strict=True):
            if not isinstance(result, (np.ndarray, np.generic)):
                raise ModelError(
                    f"output {name!r} is a {type(result).__name__}; only tensors can be measured and compared"
                )
        return {name: np.asarray(array) for name, array in zip(names, results, strict=True)}

    def _bound(self, feeds: Feeds) -> list[Any]:
        """Run on the inputs where they are; only the outputs come back."""
        binding = self.ort.io_binding()
        for name, value in feeds.items():
            if isinstance(value, ort.OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, "cpu")
        self.ort.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())


_errors = ort.capi.onnxruntime_pybind11_state
_REJECTED: tuple[type[BaseException], ...] = (
    *(kind for kind in vars(_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)


def _serialized(model: Model | onnx.ModelProto, folder: Path | None) -> tuple[bytes, Path | None]:
    if isinstance(model, onnx.ModelProto):
        return model.SerializeToString(), folder
    in_place = model.in_place()
    return (model.to_bytes(), None) if in_place is None else (in_place[0].SerializeToString(), in_place[1])


def _shape(value: NDArray[Any] | ort.OrtValue) -> tuple[int, ...]:
    return tuple(value.shape() if isinstance(value, ort.OrtValue) else value.shape)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300]


def _missing_libraries() -> str:
    """Load the CUDA libraries that come as Python packages, where they are installed; what is missing, in a line."""
    if not hasattr(ort, "preload_dlls"):
        return ""
    with redirect_stdout(StringIO()) as said:
        ort.preload_dlls()
    return next((line for line in said.getvalue().splitlines() if "load" in line), "")


def _cuda_devices() -> int:
    """Devices that the CUDA driver sees; 0 without a driver."""
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
