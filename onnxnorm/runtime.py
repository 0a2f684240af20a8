"""ONNX Runtime sessions. No other module deals with providers, devices, threads or the folder of external data."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onnxnorm.cuda import cuda_devices, missing_libraries
from onnxnorm.errors import MemoryShortageError, ModelError, OptionError, ProviderError, ProviderWarning
from onnxnorm.model.boundary import first_line, lacks_memory
from onnxnorm.model.files import Model
from onnxnorm.model.inputs import whole_batches
from onnxnorm.options import RUNNING, Options, option
from onnxnorm.threads import RunConcurrency, available_threads, stoppable

__all__ = ["Feeds", "RunConcurrency", "Runtime", "RuntimeOptions", "Session"]

Feeds: TypeAlias = Mapping[str, "NDArray[Any] | ort.OrtValue"]
"""Inputs by name: arrays, or values on the device of the session (`Session.place`)."""

_log = logging.getLogger(__name__)

_FOLDER = "session.model_external_initializers_file_folder_path"
_SHORT = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
# TF32 is off, because its 10 bits of mantissa would cause errors that the verification sees.
_OPTIONS: dict[str, dict[str, str]] = {"CUDAExecutionProvider": {"use_tf32": "0"}}
_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
_LEAST_A_RUN = 4
_SMALL = 1 << 16  # bytes of a float32 sample: 128 x 128 pixels in gray, 73 x 73 in colour


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions(Options):
    """The options that say where networks run; see `Runtime`."""

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
    """How to run networks.

    Attributes:
        provider: an execution provider, perhaps with options as ONNX Runtime names them, such as
            `cuda:device_id=1,use_tf32=1`. `auto` is CUDA if there is a device, else the CPU.
        threads: number of threads; None for one per core.
        arena: whether memory in main memory is kept between runs, which is faster. When memory is short, an arena takes
            all that is left, and gives nothing back.
        patterns: whether all that a run needs is taken from the arena at once, as the first run of the same sizes
            needed it. Where values are small, networks run a little faster (docs/scaling.md); they take more memory.
    """

    provider: str = "auto"
    threads: int | None = None
    arena: bool = True
    patterns: bool = False

    @property
    def on_cpu(self) -> bool:
        """Whether networks run on the CPU. Raises ProviderError if the provider is not there."""
        return self._providers()[0] == _SHORT["cpu"]

    def concurrency(self, samples: int, fixed: int | None = None, sample_bytes: int | None = None) -> RunConcurrency:
        """Choose how to run about `samples` samples at once.

        On the CPU, several runs with few threads each are faster than one run with many: threads do not wait for the
        slowest one at the end of every operator, and no thread spins while the next images are decoded. If samples are
        small, the overhead of a run matters, so each thread gets `samples` at once. A device does one run at a time.
        Sizes are multiples of a fixed batch size.

        Args:
            samples: number of samples to run at once.
            fixed: the batch size of the model; None if it is free.
            sample_bytes: size of one sample in bytes; None if it is not known.
        """
        if not self.on_cpu:
            return RunConcurrency(1, whole_batches(samples, fixed), self.threads)
        threads = self.threads or available_threads()
        if sample_bytes is not None and sample_bytes <= _SMALL:
            return RunConcurrency(threads, whole_batches(samples, fixed), 1)
        runs = max(1, min(threads, samples // max(fixed or 1, min(samples, _LEAST_A_RUN))))
        return RunConcurrency(runs, whole_batches(-(-samples // runs), fixed), threads // runs)

    def session(self, model: Model | onnx.ModelProto, folder: Path | None = None, *, optimize: bool = True) -> Session:
        """Open a session on a Model, or on a ModelProto whose external data is in `folder`.

        Raises ProviderError if the provider cannot be started, and ModelError if the runtime rejects the model.
        """
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.enable_mem_pattern = self.patterns
        options.enable_cpu_mem_arena = self.arena
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
        missing = missing_libraries() if names[0] in _DEVICES else ""
        try:
            load = partial(ort.InferenceSession, serialized, options, providers=list(zip(names, own, strict=True)))
            session = stoppable(load, lambda: options.set_load_cancellation_flag(True))
        except _REJECTED as error:
            if names[0] != _SHORT["cpu"] and "provider" in str(error).lower():
                raise ProviderError(f"provider {self.provider!r} does not start: {first_line(error)}") from error
            if lacks_memory(error):
                raise MemoryShortageError(
                    f"there is not enough memory to load the model: {first_line(error)}"
                ) from error
            raise ModelError(f"ONNX Runtime rejects the model: {first_line(error)}") from error
        started = session.get_providers()[0]
        if started != names[0]:
            self._fell_back(started, missing)
        _log.info("session on %s with %s threads", started, self.threads or "all")
        return Session(session, _DEVICES.get(started, ""), int(own[0].get("device_id", 0)))

    def _providers(self) -> list[str]:
        available = ort.get_available_providers()
        if self._name() == "auto":
            cuda = _SHORT["cuda"] in available and cuda_devices() > 0
            return [_SHORT["cuda"], _SHORT["cpu"]] if cuda else [_SHORT["cpu"]]
        name = _SHORT.get(self._name().lower(), self._name())
        if name not in available:
            raise ProviderError(
                f"provider {self.provider!r} is not in this ONNX Runtime, which has {', '.join(available)}"
            )
        if name in {_SHORT["cuda"], _SHORT["tensorrt"]} and cuda_devices() == 0:
            raise ProviderError(
                f"provider {self.provider!r} needs a CUDA device, and there is none; use --provider cpu"
            )
        return [name] if name == _SHORT["cpu"] else [name, _SHORT["cpu"]]

    def _fell_back(self, started: str, missing: str) -> None:
        """Warn that the CPU runs instead of the provider, or raise ProviderError if the provider was given by name."""
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
        """Parse the options of the provider. Raises OptionError if they are malformed."""
        text = self.provider.partition(":")[2]
        pairs = [item.partition("=") for item in text.split(",")] if text else []
        if any(not (key and equals and value) for key, equals, value in pairs):
            raise OptionError(f"--provider {self.provider!r}: expected NAME or NAME:OPTION=VALUE,OPTION=VALUE")
        if pairs and self._name() == "auto":
            raise OptionError(f"--provider {self.provider!r}: options belong to a provider; name it instead of auto")
        return {key: value for key, _, value in pairs}


@dataclass(frozen=True)
class Session:
    """An open session; its inputs are placed on `device`, by ID `number`, or in main memory if `device` is empty."""

    ort: ort.InferenceSession = field(repr=False)
    device: str = ""
    number: int = 0

    @property
    def provider(self) -> str:
        """Name of the execution provider in use."""
        return str(self.ort.get_providers()[0])

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(item.name for item in self.ort.get_inputs())

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(item.name for item in self.ort.get_outputs())

    def place(self, feeds: Mapping[str, NDArray[Any]]) -> Feeds:
        """Copy feeds to the device, if there is one, so that a run does not wait for the transfer.

        Raises MemoryShortageError if the device has no memory for them.
        """
        if not self.device:
            return feeds
        try:
            return {
                name: ort.OrtValue.ortvalue_from_numpy(feeds[name], self.device, self.number) for name in self.inputs
            }
        except _REJECTED as error:
            if not lacks_memory(error):
                raise
            raise MemoryShortageError(f"the device has no memory for the inputs: {first_line(error)}") from error

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Return all outputs by name; feeds that are not inputs are ignored.

        Raises ModelError if the runtime fails, or if an output is not a tensor; MemoryShortageError if memory is short.
        """
        names, inputs, options = self.outputs, {name: feeds[name] for name in self.inputs}, ort.RunOptions()
        try:
            results = stoppable(lambda: self._run(inputs, options), lambda: setattr(options, "terminate", True))
        except _REJECTED as error:
            shapes = ", ".join(f"{name} {_shape(value)}" for name, value in feeds.items())
            if lacks_memory(error):
                raise MemoryShortageError(
                    f"there is not enough memory to run the model on inputs {shapes} ({first_line(error)}); "
                    "use a smaller --batch-size or --size, or a larger machine"
                ) from error
            raise ModelError(f"ONNX Runtime fails on inputs {shapes}: {first_line(error)}") from error
        for name, result in zip(names, results, strict=True):
            if not isinstance(result, (np.ndarray, np.generic)):
                raise ModelError(
                    f"output {name!r} is a {type(result).__name__}; only tensors can be measured and compared"
                )
        return {name: np.asarray(array) for name, array in zip(names, results, strict=True)}

    def _run(self, feeds: Feeds, options: ort.RunOptions) -> list[Any]:
        """Run, without copying inputs that are on the device; outputs are copied to main memory."""
        if not self.device:
            return list(self.ort.run(list(self.outputs), feeds, options))
        binding = self.ort.io_binding()
        for name, value in feeds.items():
            if isinstance(value, ort.OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, "cpu")
        self.ort.run_with_iobinding(binding, options)
        return list(binding.copy_outputs_to_cpu())


_errors = ort.capi.onnxruntime_pybind11_state
_REJECTED: tuple[type[BaseException], ...] = (
    MemoryError,
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
