"""Compare tools that promise to rescale a network without changing its function.

Builds the small graphs of peers/graphs.py, lets every tool rescale each of them by its own entry point and with its
own defaults (peers/rescale.py), each in a process and a virtual environment of its own, and runs original and result
in ONNX Runtime on random inputs. What is told is max|a-b| / max|a| over all outputs and inputs, or that the tool
crashes, skips the graph (no weight changed), or leaves a model that does not load or run. onnxnorm is one of the tools.

    python -m tools.peers.compare --create --write docs/peers.md

creates what is missing under build/peers/ (about 6 GB). Tools that need PyTorch take whatever `--torch` says; its
plain package may be the CUDA build, which is several GB larger. `--environment NAME=FOLDER` uses a virtual environment
that exists already. PPQ needs Python 3.11 or older: `--python` says which interpreter creates the environments.
"""

import argparse
import os
import platform
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxnorm
from tools.peers.graphs import GRAPHS, SHAPE, Graph, build

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "peers"
RESCALE = Path(__file__).with_name("rescale.py")
BEGIN, END = "<!-- begin: tools/peers/compare.py -->", "<!-- end: tools/peers/compare.py -->"
CALIBRATION, INPUTS = 64, 8  # samples: as many to calibrate on, as many others to compare outputs on
WRONG = {np.dtype(np.float32): 1e-4, np.dtype(np.float16): 1e-2}  # a relative error above this is no rounding
NORMALIZED = 0.01  # a filter is normalized if its mean is as close as this to 1
TIMEOUT_S = 300
DETAIL = 200  # characters of a message

Array = NDArray[Any]
Runs = Mapping[tuple[str, str], "Outcome"]


@dataclass(frozen=True)
class Environment:
    """A virtual environment: the tool's package, and what else to install with it."""

    package: str
    requirements: tuple[str, ...]
    torch: bool = True


@dataclass(frozen=True)
class Tool:
    """A column of the table; the environment of None is this one."""

    title: str
    environment: str | None


@dataclass(frozen=True)
class Outcome:
    """What became of a graph: the error, or what went wrong instead, and the words to that."""

    error: float = np.nan
    failure: str = ""
    detail: str = ""
    skipped: bool = False
    folded: bool = False

    def cell(self, limit: float) -> str:
        """The table's cell: bold if the result is not the same function."""
        if self.failure or not self.error <= limit:
            return f"**{self.failure or f'{self.error:.2g}'}**"
        text = "same bits" if self.error == 0 else f"{self.error:.0e}"
        return "skips" if self.skipped else f"folds, {text}" if self.folded else text


ENVIRONMENTS = {
    "aimet": Environment("aimet-onnx", ("aimet-onnx==2.42.0",)),
    "quark": Environment("amd-quark", ("amd-quark==0.13", "onnxruntime>=1.22.2,<=1.28.0")),
    "ppq": Environment("ppq", ("ppq==0.6.6", "onnx==1.13.1", "protobuf<3.21", "numpy<1.24", "setuptools")),
    "esp-ppq": Environment("esp-ppq", ("esp-ppq==1.3.12",)),
    "onnxsim": Environment("onnxsim", ("onnxsim==0.8.1",), torch=False),
}
TOOLS = {
    "aimet": Tool("AIMET", "aimet"),
    "quark": Tool("Quark", "quark"),
    "ppq": Tool("PPQ", "ppq"),
    "esp-ppq": Tool("ESP-PPQ", "esp-ppq"),
    "onnxsim": Tool("onnxsim CLE", "onnxsim"),
    "onnxsim-quark": Tool("onnxsim Quark-style", "onnxsim"),
    "onnxnorm": Tool("onnxnorm", None),
    "onnxnorm-power-of-two": Tool("onnxnorm `--power-of-two`", None),
}
VARIANTS = {"ppq-level-1": Tool("PPQ level 1", "ppq"), "ppq-threshold-0": Tool("PPQ threshold 0", "ppq")}
ALL = TOOLS | VARIANTS
NORMALIZED_TITLE = "filters that onnxnorm normalized"


def create(name: str, python: str, torch: str) -> Path:
    """Create a tool's virtual environment."""
    folder, environment = HOME / name, ENVIRONMENTS[name]
    print(f"creating {folder.relative_to(ROOT)}", file=sys.stderr)
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    if environment.torch:  # first, so that the CPU build is not replaced
        subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, *environment.requirements], check=True)
    return folder


def environments(wanted: set[str], options: argparse.Namespace) -> tuple[dict[str, Path], dict[str, str]]:
    """The folder of each environment that there is, and why there are no others."""
    given = dict(entry.split("=", 1) for entry in options.environment)
    found, missing = {}, {}
    for name in (name for name in ENVIRONMENTS if name in wanted):
        folder = Path(given.get(name, HOME / name))
        if (folder / "bin" / "python").exists():
            found[name] = folder
        elif options.create and name not in given:
            try:
                found[name] = create(name, options.python, options.torch)
            except subprocess.CalledProcessError as error:
                missing[name] = f"could not be installed: {error}"
        else:
            missing[name] = "is not installed"
    return found, missing


def interpreter(tool: Tool, found: Mapping[str, Path]) -> Path:
    return found[tool.environment] / "bin" / "python" if tool.environment else Path(sys.executable)


def version(name: str, python: Path) -> str:
    code = f"import importlib.metadata; print(importlib.metadata.version({name!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def rescale(tool: str, python: Path, source: Path, target: Path, samples: Path) -> str:
    """Run one tool on one graph; what it says if it fails."""
    command = [*map(str, (python, RESCALE)), tool, *map(str, (source, target, samples))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=target.parent
        )
    except subprocess.TimeoutExpired:
        return f"no result after {TIMEOUT_S} s"
    if done.returncode == 0:
        return "" if target.exists() else "no model was written"
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return first_line(lines[-1]) if lines else f"exit status {done.returncode}"


def load(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def outputs(session: onnxruntime.InferenceSession, samples: Array) -> dict[str, Array]:
    """Every output by name, for all samples, which go in one by one."""
    name = session.get_inputs()[0].name
    runs = [session.run(None, {name: sample[np.newaxis]}) for sample in samples]
    names = [output.name for output in session.get_outputs()]
    return {name: np.concatenate(arrays).astype(np.float64) for name, *arrays in zip(names, *runs, strict=True)}


def relative_error(before: Mapping[str, Array], after: Mapping[str, Array]) -> float:
    """The largest over all outputs; NaN if there is one in the result."""
    errors = [float(np.abs(array - after[name]).max() / np.abs(array).max()) for name, array in before.items()]
    return float(np.max(errors))


def constants(model: onnx.ModelProto) -> Iterator[tuple[Any, ...]]:
    """Every constant that a node reads, by value and not by name, for some tools rename them."""
    read = {name for node in model.graph.node for name in node.input}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in (node for node in model.graph.node if node.op_type == "Constant"):
        for attribute in (attribute for attribute in node.attribute if attribute.name == "value"):
            tensors[node.output[0]] = attribute.t
    for name, tensor in tensors.items():
        if name in read:
            array = numpy_helper.to_array(tensor)
            yield array.dtype, array.shape, array.tobytes()


def norms(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)


def judge(source: Path, target: Path, samples: Array) -> Outcome:
    """Compare a result with the original."""
    before, after = onnx.load(source), onnx.load(target)
    failure = "does not load"
    try:
        session = load(target)
        failure = "does not run"
        found = outputs(session, samples)
    except Exception as error:  # noqa: BLE001  (the exceptions of ONNX Runtime have no base of their own)
        return Outcome(failure=failure, detail=first_line(str(error).replace(f"{target.parent}{os.sep}", "")))
    expected = outputs(load(source), samples)
    shapes, found_shapes = ({name: array.shape for name, array in values.items()} for values in (expected, found))
    if shapes != found_shapes:
        return Outcome(failure="other outputs", detail=f"{found_shapes} instead of {shapes}")
    unchanged = not Counter(constants(before)) - Counter(constants(after))
    return Outcome(relative_error(expected, found), skipped=unchanged, folded=norms(after) < norms(before))


def first_line(text: str) -> str:
    return textwrap.shorten(text.strip().splitlines()[0], DETAIL, placeholder=" ...")


def samples_for(graph: Graph, seed: int, count: int) -> Array:
    values = np.random.default_rng(seed).random((count, *SHAPE[1:]))
    return values.astype(np.float16 if graph.half else np.float32)


def run_one(tool: str, python: Path, graph: Graph, work: Path) -> Outcome:
    """Let a tool rescale a graph, and judge the result."""
    source, samples = work / f"{graph.name}.onnx", work / f"{graph.name}.npy"
    folder = work / tool
    folder.mkdir(exist_ok=True)
    target = folder / f"{graph.name}.onnx"
    target.unlink(missing_ok=True)
    complaint = rescale(tool, python, source, target, samples)
    print(f"{tool}, {graph.name}: {complaint or 'done'}", file=sys.stderr)
    if complaint:
        return Outcome(failure="crash", detail=complaint)
    return judge(source, target, samples_for(graph, 2, INPUTS))


def run_all(
    tools: Mapping[str, Path], graphs: Sequence[Graph], work: Path, jobs: int
) -> dict[tuple[str, str], Outcome]:
    """Every tool on every graph."""
    work.mkdir(parents=True, exist_ok=True)
    for graph in graphs:
        onnx.save(build(graph), work / f"{graph.name}.onnx")
        np.save(work / f"{graph.name}.npy", samples_for(graph, 1, CALIBRATION))
    pairs = [(tool, graph) for tool in tools for graph in graphs]
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = pool.map(lambda pair: run_one(pair[0], tools[pair[0]], pair[1], work), pairs)
        return {(tool, graph.name): outcome for (tool, graph), outcome in zip(pairs, outcomes, strict=True)}


def means(statistics: onnxnorm.Statistics) -> Array:
    """The mean activation of every filter, layer after layer."""
    measured = [moments.mean for value, moments in statistics.values.items() if value.measure in ("mean", "mean_abs")]
    return np.concatenate(measured)


def normalized(graph: Graph, work: Path) -> str:
    """How many filters onnxnorm brought to a mean of 1, measured again on the samples of the calibration."""
    source, target = work / f"{graph.name}.onnx", work / "onnxnorm" / f"{graph.name}.onnx"
    if not target.exists():
        return "-"
    samples = np.load(work / f"{graph.name}.npy")
    before, after = (onnxnorm.calibrate(path, samples, provider="cpu", threads=1) for path in (source, target))
    plan = onnxnorm.plan(source, before)
    old, new = (means(statistics) for statistics in (before, after))
    count = int(((np.abs(new - 1) < NORMALIZED) & (new != old)).sum())
    notes = [f"{number} {what}" for number, what in ((plan.tied, "tied"), (plan.dead, "dead")) if number]
    return f"{count} of {len(new)}" + (f" ({', '.join(notes)})" if notes else "")


def table(tools: Sequence[str], graphs: Sequence[Graph], runs: Runs, work: Path) -> list[str]:
    """One row per graph, one column per tool, and one for how much onnxnorm did."""
    titles = [ALL[tool].title for tool in tools] + ([NORMALIZED_TITLE] if "onnxnorm" in tools else [])
    lines = ["| graph | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for graph in graphs:
        limit = WRONG[np.dtype(np.float16 if graph.half else np.float32)]
        cells = [runs[tool, graph.name].cell(limit) for tool in tools]
        cells += [normalized(graph, work)] if "onnxnorm" in tools else []
        lines.append(f"| {graph.title} | " + " | ".join(cells) + " |")
    return lines


def complaints(tools: Sequence[str], graphs: Sequence[Graph], runs: Runs) -> list[str]:
    """What the tools, or ONNX Runtime, said where there is no error to tell."""
    rows = [(tool, graph, runs[tool, graph.name]) for tool in tools for graph in graphs]
    return [
        f"- {ALL[tool].title}, {graph.title}: {outcome.failure}, `{outcome.detail}`"
        for tool, graph, outcome in rows
        if outcome.failure
    ]


def report(
    tools: Mapping[str, Path], graphs: Sequence[Graph], runs: Runs, missing: Mapping[str, str], work: Path
) -> str:
    """Where and with what this was measured, the table, and what went wrong."""
    packages = {ENVIRONMENTS[name].package: tools[tool] for tool in tools if (name := ALL[tool].environment)}
    versions = [f"{package} {version(package, python)}" for package, python in packages.items()]
    where = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    head = (
        f"Measured on {date.today().isoformat()} on {where}. {', '.join(versions)}; onnxnorm {onnxnorm.__version__}; "
        f"outputs computed by ONNX Runtime {onnxruntime.__version__} on the CPU."
    )
    lines = [head, "", *table(list(tools), graphs, runs, work)]
    said = complaints(list(tools), graphs, runs) + [
        f"- {ENVIRONMENTS[name].package} {why}" for name, why in missing.items()
    ]
    return "\n".join([*lines, *(["", "What was said:", "", *said] if said else [])])


def write(text: str, path: Path) -> None:
    """Put the report between its two marks in a document."""
    document = path.read_text(encoding="utf-8")
    before, rest = document.split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", nargs="+", choices=ALL, default=list(TOOLS), help="default: all but the variants")
    names = [graph.name for graph in GRAPHS]
    parser.add_argument("--graphs", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--environment", action="append", default=[], metavar="NAME=FOLDER", help="of a tool")
    parser.add_argument("--create", action="store_true", help="create environments that are missing in build/peers/")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to create them with")
    parser.add_argument("--torch", default="torch", help="the requirement for PyTorch (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=HOME / "work", help="where models go (default: build/peers/work)")
    parser.add_argument("--jobs", type=int, default=2, help="tools that run at the same time (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="the document to put the report into")
    return parser.parse_args()


def main() -> None:
    options = parse()
    wanted = {name for tool in options.tools if (name := ALL[tool].environment)}
    found, missing = environments(wanted, options)
    tools = {name: interpreter(ALL[name], found) for name in options.tools if ALL[name].environment not in missing}
    graphs = [graph for graph in GRAPHS if graph.name in options.graphs]
    work = options.work.resolve()
    runs = run_all(tools, graphs, work, options.jobs)
    text = report(tools, graphs, runs, missing, work)
    print(text)
    if options.write:
        write(text, options.write)


if __name__ == "__main__":
    main()
