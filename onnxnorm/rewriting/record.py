"""The provenance of a rewritten model, in metadata entries whose keys start with `onnxnorm.`.

=====================  ================================================================================================
`version`              version of onnxnorm
`statistic` ...        the options of the scales: also `strength`, `target`, `power_of_two`
`original`             SHA-256 digest of the model before the rewrite
`inputs_as_constants`  `true` if initializers that are graph inputs too were treated as constants
`inlined`              the same with the model's own functions inlined, if they were
`statistics`           digest of the statistics; `images` is the number of images they were measured on
`preprocessing`        what was done to these images, as JSON; not if they were arrays
`scales`               the record: the factor of each constant, and which constants are clones
`scales_digest`        instead of `scales` if the record is long: digest of the sidecar file that holds it
`filters`              which layers were scaled: `conv` or `all`
`keep_outputs`         whether graph outputs kept scale 1
`per`                  `layer` if all filters of a layer share one scale
`level`                how much of the graph was allowed to change: `constants`, `attributes` or `nodes`
`outputs`              scales of graph outputs that were scaled
`previous`             all these entries of the model before the rewrite, if that was a rewritten one too
=====================  ================================================================================================

The record is a safetensors file: the distinct float64 arrays, flat, and a JSON header. In metadata it is compressed and
encoded in base64. It names constants, not slots or groups, so that every version of onnxnorm can undo the rewrite,
without a walk.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.rewriting.attributes import Attribute
from onnxnorm.rewriting.constants import Applied
from onnxnorm.rewriting.factors import Factor
from onnxnorm.rewriting.insertion import NOTHING, Insertion, insertion_from_json, insertion_to_json
from onnxnorm.rewriting.sidecar import read_sidecar

__all__ = [
    "FEATURES",
    "OUTPUTS_RECORDED",
    "PREFIX",
    "RECORDED",
    "Record",
    "check_clones",
    "read_entries",
    "read_record",
    "record_entries",
    "rewrites",
    "write_entries",
]

PREFIX = "onnxnorm."
# Entries that say how `onnxnorm features` made the graph. They are no part of a rewrite, which keeps them, as does a
# restoration.
FEATURES = f"{PREFIX}features."

# Records up to this many bytes go into the metadata.
RECORDED = 1 << 20
# Bytes of a record before compression that are accepted from metadata; a longer one has its own file.
UNPACKED = 1 << 26
# Scales of graph outputs up to this many numbers are recorded in the model's metadata.
OUTPUTS_RECORDED = 1 << 16


_DAMAGES = (SafetensorError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Record:
    """The record of a rewrite.

    Attributes:
        factors: the factor by which each constant, clones included, was multiplied.
        clones: the constant that each clone is a copy of, by the clone's name.
        attributes: the attributes among what was multiplied, by the name of the factor.
        insertion: the nodes and constants that were added.
    """

    factors: Mapping[str, Factor] = field(repr=False)
    clones: Mapping[str, str]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    insertion: Insertion = NOTHING

    @classmethod
    def of(cls, applied: Applied, insertion: Insertion = NOTHING) -> Record:
        """The record of a rewrite."""
        clones = {clone.clone: clone.constant for clone in applied.clones}
        return cls(applied.factors, clones, applied.attributes, insertion)

    def to_bytes(self) -> bytes:
        """The record as the content of a safetensors file."""
        arrays: dict[bytes, int] = {}

        def placed(part: NDArray[np.float64]) -> dict[str, Any]:
            flat = np.ascontiguousarray(part, np.float64).tobytes()
            return {"array": arrays.setdefault(flat, len(arrays)), "shape": list(part.shape)}

        constants = {
            name: {"times": placed(factor.times), "over": placed(factor.over)} for name, factor in self.factors.items()
        }
        header: dict[str, Any] = {"constants": constants, "clones": dict(self.clones)}
        if self.attributes:
            header["attributes"] = {name: vars(attribute) for name, attribute in self.attributes.items()}
        if self.insertion.nodes or self.insertion.constants:
            header["insertion"] = insertion_to_json(self.insertion)
        return save(
            {str(index): np.frombuffer(flat) for flat, index in arrays.items()}, {"onnxnorm": json.dumps(header)}
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Record:
        """Read a record from the content of a safetensors file. Raises ModelError if it is damaged."""
        try:
            arrays = {key: np.asarray(array, np.float64) for key, array in load(content).items()}
            if not all((np.isfinite(scales) & (scales > 0)).all() for scales in arrays.values()):
                raise ValueError("a scale is not positive")
            size = int.from_bytes(content[:8], "little")
            header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["onnxnorm"])

            def placed(part: Mapping[str, Any]) -> NDArray[np.float64]:
                return arrays[str(part["array"])].reshape([int(side) for side in part["shape"]])

            factors = {
                name: Factor(placed(item["times"]), placed(item["over"])) for name, item in header["constants"].items()
            }
            clones = {str(clone): str(name) for clone, name in header["clones"].items()}
            check_clones(clones)
            attributes = {
                str(name): Attribute(str(item["output"]), str(item["name"]), bool(item["absent"]))
                for name, item in header.get("attributes", {}).items()
            }
            return cls(factors, clones, attributes, insertion_from_json(header.get("insertion", {})))
        except _DAMAGES as error:
            raise ModelError(f"the record of the scales is damaged ({error}); rewrite the original again") from error

    @classmethod
    def from_text(cls, text: str) -> Record:
        """Read a record from metadata. Raises ModelError if it is damaged."""
        try:
            unpacking = zlib.decompressobj()
            content = unpacking.decompress(base64.b64decode(text, validate=True), UNPACKED)
            if not unpacking.eof:
                raise ValueError(f"it is cut short, or has more than {UNPACKED:,} bytes")
        except (ValueError, zlib.error) as error:
            raise ModelError(f"the record of the scales is damaged ({error}); rewrite the original again") from error
        return cls.from_bytes(content)


def check_clones(clones: Mapping[str, str]) -> None:
    """Check that every clone is, at the end, a copy of a constant that is no clone.

    Args:
        clones: the constant that each clone is a copy of, by the clone's name.

    Raises:
        ModelError: if clones are copies of each other.
    """
    sound: set[str] = set()
    for name in clones:
        path: dict[str, None] = {}
        while name in clones and name not in sound:
            if name in path:
                raise ModelError(
                    f"the record of the scales says that {name!r} is a copy of itself; it cannot be undone"
                )
            path[name] = None
            name = clones[name]  # noqa: PLW2901 - a clone of a clone
        sound.update(path)


def read_record(entries: Mapping[str, str], model: Path | None, sidecar: Path | None = None) -> Record:
    """The record of a rewrite, from its entries or from the sidecar file.

    Args:
        entries: the provenance of the rewritten model, keys without prefix.
        model: path of that model; None for a ModelProto in memory.
        sidecar: path of the sidecar file; None for the one beside the model.

    Raises:
        ModelError: if there is no record, or if it is damaged or that of another rewrite.
    """
    if "scales" in entries:
        return Record.from_text(entries["scales"])
    if "scales_digest" not in entries:
        raise ModelError(
            f"the model was rewritten by onnxnorm {entries.get('version', '?')}, which recorded no scales; "
            "they cannot be undone"
        )
    return Record.from_bytes(read_sidecar(entries["scales_digest"], model, sidecar))


def read_entries(model: Model) -> dict[str, str]:
    """The provenance of a model, keys without prefix; empty if it was not rewritten."""
    return {
        entry.key.removeprefix(PREFIX): entry.value for entry in model.proto.metadata_props if _is_provenance(entry.key)
    }


def _is_provenance(key: str) -> bool:
    return key.startswith(PREFIX) and not key.startswith(FEATURES)


def write_entries(proto: onnx.ModelProto, entries: Mapping[str, str]) -> None:
    """Write provenance (keys without prefix) into the metadata, replacing the one that is there."""
    kept = [(entry.key, entry.value) for entry in proto.metadata_props if not _is_provenance(entry.key)]
    del proto.metadata_props[:]
    for key, value in [*kept, *((PREFIX + key, value) for key, value in entries.items())]:
        proto.metadata_props.add(key=key, value=value)


def record_entries(
    record: Record, outputs: Mapping[str, NDArray[np.float64]], previous: Mapping[str, str]
) -> tuple[dict[str, str], bytes | None]:
    """Encode scales and history as provenance entries.

    Args:
        record: the record of the rewrite.
        outputs: scales of graph outputs, by name.
        previous: the provenance of the model before the rewrite; empty if it has none.

    Returns:
        The entries, keys without prefix, and the sidecar's content if the record is too long for them.
    """
    entries: dict[str, str] = {}
    content = record.to_bytes()
    text = base64.b64encode(zlib.compress(content, 9)).decode()
    sidecar = None
    if len(text) <= RECORDED and len(content) <= UNPACKED:
        entries["scales"] = text
    else:
        sidecar = content
        entries["scales_digest"] = hashlib.sha256(content).hexdigest()
    if outputs:
        arrays = {name: {"shape": array.shape, "scales": array.reshape(-1).tolist()} for name, array in outputs.items()}
        entries["outputs"] = json.dumps(arrays)
    if previous:
        entries["previous"] = json.dumps(dict(previous))
    return entries, sidecar


def rewrites(entries: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """The entries of each rewrite of a model, the last one first. Raises ModelError if they are damaged."""
    while entries:
        yield entries
        try:
            entries = json.loads(entries.get("previous", "{}"))
            if not isinstance(entries, dict) or not all(isinstance(entry, str) for entry in entries.values()):
                raise ValueError("it is no object of texts")
        except (ValueError, RecursionError) as error:
            message = f"the metadata 'onnxnorm.previous' is damaged ({error}); rewrite the original again"
            raise ModelError(message) from error
