"""What converters to float16 make of a network, before and after a rewrite: the table of docs/fp16.md.

    python3 -m venv build/converters
    build/converters/bin/pip install onnxruntime onnxconverter-common 'nvidia-modelopt[onnx]'
    build/converters/bin/python -m tools.measurements.converters ORIGINAL.onnx REWRITTEN.onnx SAMPLES.npz

Each converter gets the float32 model and one sample, with its own defaults, and inputs and outputs in float32, and is
ended after `--minutes` (default 5), for onnxconverter-common's search runs the network again for every try. Counted
are the nodes that write float32 in what it returns, casts left out. What that computes is not compared: on a CPU, ONNX
Runtime runs many operators of float16 in float32, where nothing overflows; `tools.measurements.ceiling` rounds every
value. Needs neither onnxnorm nor a GPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx

Feeds = dict[str, Any]

UNCOUNTED = {"Cast", "Constant", "Identity", "Shape", "ConstantOfShape"}


def by_runtime(path: Path, feeds: Feeds) -> onnx.ModelProto:
    """ONNX Runtime's converter, which blocks some operators and looks at no values."""
    del feeds
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted: onnx.ModelProto = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    return converted


def by_common(path: Path, feeds: Feeds) -> onnx.ModelProto:
    """onnxconverter-common's search for nodes that must stay in float32, by comparing outputs."""
    from onnxconverter_common import auto_mixed_precision

    converted: onnx.ModelProto = auto_mixed_precision.auto_convert_mixed_precision(
        onnx.load(path), feeds, rtol=0.01, atol=0.001, keep_io_types=True
    )
    return converted


def by_autocast(path: Path, feeds: Feeds) -> onnx.ModelProto:
    """NVIDIA's AutoCast: nodes stay that meet values above 512 or weights above 65504."""
    from modelopt.onnx.autocast import convert_to_mixed_precision

    samples = path.with_suffix(".npz")
    np.savez(samples, **feeds)
    converted: onnx.ModelProto = convert_to_mixed_precision(
        str(path), low_precision_type="fp16", calibration_data=str(samples), keep_io_types=True
    )
    return converted


CONVERTERS: dict[str, Callable[[Path, Feeds], onnx.ModelProto]] = {
    "ONNX Runtime": by_runtime,
    "onnxconverter-common": by_common,
    "AutoCast": by_autocast,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path)
    parser.add_argument("rewritten", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--converter", choices=CONVERTERS, action="append", help="only this one")
    parser.add_argument("--minutes", type=float, default=5.0, help="time for one model (default: %(default)g)")
    given = parser.parse_args()
    print("| network | converter | original: in float32 | rewritten: in float32 |")
    print("|---|---|---:|---:|")
    for name in given.converter or CONVERTERS:
        cells = [within(given.minutes, name, path, given.samples) for path in (given.original, given.rewritten)]
        print("|", " | ".join([given.original.stem, name, *cells]), "|", flush=True)


def within(minutes: float, name: str, path: Path, samples: Path) -> str:
    """The nodes that a converter leaves in float32, and its seconds, or that it found no end in this time."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=converting, args=(sender, name, path, samples))
    start = perf_counter()
    process.start()
    sender.close()
    try:
        if not receiver.poll(60 * minutes):
            return f"no end in {minutes:g} minutes"
        return f"{receiver.recv()}, {perf_counter() - start:.0f} s"
    except EOFError:
        return "it crashed"
    finally:
        process.kill()
        process.join()


def converting(sender: Any, name: str, path: Path, samples: Path) -> None:
    """Send what a converter comes to."""
    sender.send(converted(name, path, samples))


def converted(name: str, path: Path, samples: Path) -> str:
    """The nodes that a converter leaves in float32."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # converters print a lot
        single, feeds = single_sample(path, samples, Path(folder))
        try:
            left, counted = in_float32(CONVERTERS[name](single, feeds))
        except Exception as failure:  # noqa: BLE001 - converters raise anything, and what they say is the result
            said = (str(failure).strip().splitlines() or [""])[0][:80]
            return f"{type(failure).__name__}: {said}"
    return f"{left} of {counted}"


def single_sample(path: Path, samples: Path, folder: Path) -> tuple[Path, Feeds]:
    """The model with a batch of 1, which converters compile best, and the first sample."""
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    arrays = np.load(samples)
    feeds = {value.name: arrays[value.name][:1] for value in inputs}
    for value in inputs:
        for dim, size in zip(value.type.tensor_type.shape.dim, feeds[value.name].shape, strict=True):
            dim.dim_value = size
    del model.graph.value_info[:]
    onnx.save(model, folder / "single.onnx")
    return folder / "single.onnx", feeds


def in_float32(model: onnx.ModelProto) -> tuple[int, int]:
    """How many nodes write float32, and how many write floating-point numbers."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output, *inferred.input)}
    written = [kinds.get(node.output[0]) for node in model.graph.node if node.op_type not in UNCOUNTED and node.output]
    floats = [kind for kind in written if kind in {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}]
    return floats.count(onnx.TensorProto.FLOAT), len(floats)


if __name__ == "__main__":
    main()
