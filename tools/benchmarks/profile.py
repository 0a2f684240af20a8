"""Where the time of a measuring network goes, by ONNX Runtime's own profiler, one thread and a run at a time.

*Bare* is the network as it is, and *layers* the same operators within the probe, which lacks what no measurement needs,
such as a classifier. The rest is what measures, by operator. *Reorder* is the change between the kernels' blocked
layout and the usual one, more of it than the bare network has. Times are per image, and *measuring* is the sum of the
rest as a share of bare.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tools.benchmarks.every import networks_at_hand, prepare_network
from tools.benchmarks.runs import Case, Machine, MeasurementError, Results, compare, table
from tools.benchmarks.tasks import Given, Report, task

__all__ = ["measure"]

MEASURING = ("windows and pools", "filters", "reductions", "other operators", "reorder")
HEADER = ("", "samples a run", "bare, ms", "layers", *MEASURING, "measuring, %")
RUNS = 9  # of each session, the first of which is not counted
CASE = "profile"

_KINDS = {"AveragePool": 0, "GlobalAveragePool": 0, "Conv": 1, "FusedConv": 1, "ReduceMean": 2}


def measure(machine: Machine, models: Path, zoo: Path, exported: Path, embedded: Path) -> str:
    """The section's text."""
    rows, notes = list[tuple[str, ...]](), list[str]()
    for path in networks_at_hand(models, zoo, exported, embedded):
        print(f"profile: {path.stem}", flush=True)
        try:
            given = prepare_network(machine, path, fixed=False) | {"folder": str(machine.work), "threads": 1}
            results = compare([Case(CASE, "profiled", given)], machine.rounds)
            rows.append(_row(path.stem, results))
        except (MeasurementError, ValueError, KeyError) as error:
            notes.append(f"*{path.stem}* was not measured: {error}.")
    return "\n\n".join([(__doc__ or "").strip(), table(HEADER, rows), *notes])


def _row(name: str, results: Results) -> tuple[str, ...]:
    bare, parts = results.median(CASE, "bare"), [results.median(CASE, part) for part in MEASURING]
    return (
        name,
        f"{results.median(CASE, 'size'):.0f}",
        *(f"{number:.3f}" for number in (bare, results.median(CASE, "layers"), *parts)),
        f"{100 * sum(parts) / bare:.1f}",
    )


@task
def profiled(given: Given) -> Report:
    """Profile a network and its probe on the same random inputs; milliseconds per image."""
    import numpy as np
    import onnx

    from onnxnorm.calibration.options import CalibrationOptions
    from onnxnorm.calibration.step import prepare
    from onnxnorm.model.files import Model
    from onnxnorm.model.graph import input_specs
    from onnxnorm.runtime import Runtime

    model = Model.open(given["model"])
    (spec,) = input_specs(model)
    shapes = {spec.name: (1, *given["sample"])}
    prepared = prepare(model, shapes, CalibrationOptions(), Runtime("cpu", 1), one_size=True)
    size = min(prepared.most, given["batch"])
    feeds = {spec.name: np.random.default_rng(0).random((size, *given["sample"]), np.float32)}
    probe = Path(given["model"]).with_suffix(".probe.onnx")  # beside the weights that it reads
    onnx.save(prepared.probe.proto, probe)
    own = next(tap.mean for tap in prepared.probe.taps).partition("_")[0]
    bare, reorders = Counter[str](), Counter[str]()
    measuring = dict.fromkeys(MEASURING, 0.0)
    for event in _events(given["model"], feeds, given["folder"]):
        bare["all"] += event["dur"]
        reorders["bare"] += event["dur"] if event["args"]["op_name"].startswith("Reorder") else 0
    for event in _events(str(probe), feeds, given["folder"]):
        operator, name = event["args"]["op_name"], event["name"]
        if operator.startswith("Reorder"):
            reorders["probe"] += event["dur"]
        elif name.startswith(own):
            measuring[MEASURING[_KINDS.get(operator, 3)]] += event["dur"]
        else:
            bare["layers"] += event["dur"]
    measuring["reorder"] = max(0, reorders["probe"] - reorders["bare"])
    images = 1000 * size * (RUNS - 1)  # durations are in microseconds
    layers = bare["layers"] + min(reorders["probe"], reorders["bare"])
    times = measuring | {"bare": bare["all"], "layers": layers}
    return {name: time / images for name, time in times.items()} | {"size": size}


def _events(model: str, feeds: dict[str, Any], folder: str) -> list[dict[str, Any]]:
    """What the profiler says about every operator, of all runs but the first."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for _ in range(RUNS):
        session.run(None, feeds)
    written = Path(session.end_profiling())
    events = json.loads(written.read_text(encoding="utf-8"))
    written.unlink()
    runs = [event["ts"] for event in events if event["name"] == "model_run"]
    ran = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    first_end = sorted(runs)[1]
    return [event for event in ran if event["ts"] >= first_end]
