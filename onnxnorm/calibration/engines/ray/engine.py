"""The engine on a Ray cluster: at RAY_ADDRESS, else the one on this machine, else a new local one."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from onnxnorm.calibration.engines.ray.chunks import ChunkQueue
from onnxnorm.calibration.engines.ray.executor import RayExecutor
from onnxnorm.calibration.engines.ray.pool import Pool
from onnxnorm.calibration.engines.ray.worker import Setup, Worker
from onnxnorm.calibration.job import Job
from onnxnorm.calibration.step import Increment
from onnxnorm.data.batches import Skipped
from onnxnorm.data.usable import check_usable
from onnxnorm.errors import OptionError
from onnxnorm.model.files import Model
from onnxnorm.runtime import Runtime

__all__ = ["RayEngine", "connected"]

_MODEL_BY_PATH = 1 << 30


@contextmanager
def connected(runtime: Runtime, workers: int | None) -> Iterator[RayEngine]:
    """Connect to a cluster for the duration of a context, or use a connection that exists already.

    Args:
        runtime: the execution provider, and the number of threads of each worker.
        workers: number of workers; None for as many as the cluster has room for.

    Raises:
        OptionError: if Ray is not installed.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise OptionError("--engine ray needs Ray: pip install 'onnxnorm[ray]'") from None
    own_connection = not ray.is_initialized()
    if own_connection:
        ray.init(log_to_driver=False, logging_level="warning")
    try:
        threads, gpu = runtime.threads or 1, _wants_gpu(ray, runtime)
        room = ray.cluster_resources()
        fits = int(room.get("GPU", 0)) if gpu else int(room.get("CPU", 1)) // threads
        yield RayEngine(ray, threads, gpu, workers or max(1, fits))
    finally:
        if own_connection:
            ray.shutdown()


@dataclass(frozen=True)
class RayEngine:
    """Measures in at most `size` Ray actors, each with `threads` cores, and with a GPU if `gpu`."""

    ray: Any
    threads: int
    gpu: bool
    size: int

    @property
    def executor(self) -> RayExecutor:
        """Lists folders in tasks of the cluster."""
        return RayExecutor(self.ray, self.size)

    def measure(self, job: Job) -> Generator[Increment, None, None]:
        """Yield an increment after every chunk. Raises OptionError if the samples cannot be counted."""
        if job.dataset.total is None:
            raise OptionError("--engine ray needs DATA whose samples can be counted: files, or arrays in a list")
        good, bad = job.selection.measured, list[Skipped]()
        pool = Pool(self.ray, self._starter(job), self.size, ChunkQueue(job, self.size), self._needs())
        try:
            for increment in pool.measured():
                good += increment.images
                bad.extend(increment.skipped)
                yield increment
        finally:
            pool.close()
        check_usable(good, bad, job.selection)

    def _starter(self, job: Job) -> partial[Any]:
        provider = job.options.provider
        runtime = Runtime("cpu" if provider == "auto" and not self.gpu else provider, self.threads)
        folder, settings = os.getcwd(), job.model.settings
        setup = Setup(job.options, runtime, job.together, folder, settings, job.dataset.one_size, job.opened)
        kind = self.ray.remote(num_cpus=self.threads, num_gpus=int(self.gpu), max_restarts=0)(Worker)
        return partial(kind.remote, _sent(self.ray, job.model), setup)

    def _needs(self) -> str:
        room = self.ray.cluster_resources()
        has = f"the cluster has {room.get('CPU', 0):g} and {room.get('GPU', 0):g} in all"
        return f"each needs {self.threads} CPU(s) and {int(self.gpu)} GPU(s), {has}"


def _wants_gpu(ray: Any, runtime: Runtime) -> bool:
    name = runtime.provider.partition(":")[0].lower()
    if name == "auto":
        return bool(ray.cluster_resources().get("GPU", 0) >= 1)
    return name in {"cuda", "tensorrt", "cudaexecutionprovider", "tensorrtexecutionprovider"}


def _sent(ray: Any, model: Model) -> Any:
    """Return the model for the workers: its bytes, or for a large model its path, on a file system that they share."""
    if model.path is not None and sum(data.length for data in model.tensor_data.values()) > _MODEL_BY_PATH:
        return str(Path(model.path).absolute())
    return ray.put(model.to_bytes())
