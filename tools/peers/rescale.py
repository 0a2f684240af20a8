"""Let one tool rescale one model: `python rescale.py TOOL SOURCE TARGET SAMPLES`.

It runs with the interpreter of the tool's own virtual environment, where nothing but the tool and what it requires is
installed, and calls the tool's own entry point with the tool's own defaults. SAMPLES is an .npy file of calibration
samples, for the tools that measure; the others look at weights alone.
"""

import argparse
import importlib
from collections.abc import Callable
from functools import partial
from typing import Any


def attribute(module: str, name: str) -> Any:
    """Import late and by name: each environment has one of the tools only."""
    return getattr(importlib.import_module(module), name)


def aimet(source: str, target: str, _: str) -> None:
    import onnx

    model = onnx.load(source)
    attribute("aimet_onnx.cross_layer_equalization", "equalize_model")(model)
    onnx.save(model, target)


def quark(source: str, target: str, _: str) -> None:
    """What its quantizer does first if `include_cle` is set, for the operators that it can equalize."""
    import onnx

    equalize = attribute("quark.onnx.preprocess.preproc", "apply_pre_quantization_algorithms")
    onnx.save(equalize(onnx.load(source), None, op_types_to_quantize=["Conv", "Gemm"], include_cle=True), target)


def ppq(package: str, source: str, target: str, samples: str, *, level: int = 2, threshold: float = 0.5) -> None:
    """The pass alone, with the iterations that the tool's settings have by default, exported without quantization."""
    import numpy as np

    api, core = importlib.import_module(f"{package}.api"), importlib.import_module(f"{package}.core")
    graph = api.load_onnx_graph(source)
    executor = attribute(f"{package}.executor", "TorchExecutor")(graph, device="cpu")
    executor.tracing_operation_meta(attribute("torch", "from_numpy")(np.load(samples)[:1]))
    equalize = attribute(f"{package}.quantization.optim", "LayerwiseEqualizationPass")
    equalize(10, threshold, optimize_level=level).optimize(graph, dataloader=[], executor=executor, collate_fn=None)
    api.export_ppq_graph(graph, platform=core.TargetPlatform.ONNX, graph_save_to=target)


def onnxsim(source: str, target: str, _: str) -> None:
    import onnx

    onnx.save(attribute("onnxsim", "cross_layer_equalize")(onnx.load(source)), target)


def onnxsim_quark(source: str, target: str, _: str) -> None:
    import onnx

    onnx.save(attribute("onnxsim.quark_equalization", "apply_cle_config")(onnx.load(source), {}, {}), target)


def onnxnorm(source: str, target: str, samples: str, *, power_of_two: bool = False) -> None:
    import numpy as np

    normalize = attribute("onnxnorm", "normalize")
    normalize(source, np.load(samples), target, power_of_two=power_of_two, provider="cpu", threads=1)


TOOLS: dict[str, Callable[[str, str, str], None]] = {
    "aimet": aimet,
    "quark": quark,
    "ppq": partial(ppq, "ppq"),
    "ppq-level-1": partial(ppq, "ppq", level=1),
    "ppq-threshold-0": partial(ppq, "ppq", threshold=0.0),
    "esp-ppq": partial(ppq, "esp_ppq"),
    "onnxsim": onnxsim,
    "onnxsim-quark": onnxsim_quark,
    "onnxnorm": onnxnorm,
    "onnxnorm-power-of-two": partial(onnxnorm, power_of_two=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("samples")
    options = parser.parse_args()
    TOOLS[options.tool](options.source, options.target, options.samples)


if __name__ == "__main__":
    main()
