"""Records of rewrites: rewritten models whose record, provenance or constants were damaged, for `restore`."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnx

import onnxnorm
from onnxnorm.rewriting.record import PREFIX
from tools.fuzz.models import damage_model
from tools.fuzz.mutations import ODD_TEXTS, damage_bytes, damage_json, pick
from tools.fuzz.networks import networks
from tools.fuzz.safetensors import damage_safetensors
from tools.fuzz.target import Files, Target

__all__ = ["TARGET"]

MODEL, SIDECAR = "model.onnx", "model.onnx.scales.safetensors"
_BOMB = 1200 * 2**20


@cache
def _seeds() -> Mapping[str, Files]:
    once = {
        f"{name}{'-power' if power else ''}": _rewritten(networks()[name], power)
        for name in ("chain", "movement", "half", "shared")
        for power in (False, True)
    }
    twice = _rewritten(_rewritten(networks()["chain"], True), False, outputs="scale")
    made = once | {"twice": twice}
    return {name: {MODEL: proto.SerializeToString()} for name, proto in made.items()}


def _rewritten(proto: onnx.ModelProto, power: bool, outputs: str = "keep") -> onnx.ModelProto:
    return onnxnorm.rewrite(proto, statistic="weights", power_of_two=power, outputs=outputs, verify=False).model


def _damage(random: np.random.Generator) -> Files:
    seeds = _seeds()
    proto = onnx.ModelProto.FromString(seeds[pick(random, sorted(seeds))][MODEL])
    entries = {entry.key.removeprefix(PREFIX): entry.value for entry in proto.metadata_props}
    files: dict[str, bytes] = {}
    kind = int(random.integers(8))
    if kind == 0:
        damage_model(random, proto)
    elif kind == 1:
        entries = _provenance(random, entries)
    elif kind == 2:
        files[SIDECAR] = _in_sidecar(random, entries)
    elif kind == 3 and random.integers(60) == 0:
        entries["scales"] = _bomb()
    else:
        entries["scales"] = _record(random, entries["scales"])
    del proto.metadata_props[:]
    for key, value in entries.items():
        proto.metadata_props.add(key=PREFIX + key, value=value)
    return files | {MODEL: proto.SerializeToString()}


def _record(random: np.random.Generator, text: str) -> str:
    """Damage a record: the safetensors file in it, its compression, or its text."""
    content = zlib.decompress(base64.b64decode(text))
    kind = int(random.integers(8))
    if kind == 0:
        return damage_bytes(random, text.encode()).decode("latin-1")
    if kind == 1:
        return base64.b64encode(damage_bytes(random, zlib.compress(content))).decode()
    return base64.b64encode(zlib.compress(damage_safetensors(random, content))).decode()


def _provenance(random: np.random.Generator, entries: Mapping[str, str]) -> dict[str, str]:
    """Damage the entries beside the record, the earlier rewrites among them."""
    changed = dict(entries)
    name = pick(random, sorted(changed))
    kind = int(random.integers(4))
    if kind == 0:
        del changed[name]
    elif kind == 1:
        changed[name] = pick(random, ODD_TEXTS)
    elif kind == 2:
        changed[name] = json.dumps(damage_json(random, json.loads(changed.get("previous", "{}"))))
    else:
        earlier = damage_json(random, dict(entries) | {"previous": changed.get("previous", "{}")})
        changed["previous"] = pick(random, ("[" * 3000, json.dumps(earlier), json.dumps(json.dumps(earlier))))
    return changed


def _in_sidecar(random: np.random.Generator, entries: dict[str, str]) -> bytes:
    """Move the record into a file of its own, which is damaged."""
    content = damage_safetensors(random, zlib.decompress(base64.b64decode(entries.pop("scales"))))
    entries["scales_digest"] = hashlib.sha256(content).hexdigest()
    return content if random.integers(5) else damage_bytes(random, content)


@cache
def _bomb() -> str:
    """Return a record of a megabyte that is 1.2 GB when it is unpacked."""
    packer = zlib.compressobj(9)
    piece = bytes(2**20)
    packed = b"".join(packer.compress(piece) for _ in range(_BOMB // len(piece)))
    return base64.b64encode(packed + packer.flush()).decode()


def _read(folder: Path, random: np.random.Generator) -> object:
    verify = bool(random.integers(2))
    output = folder / "restored.onnx" if random.integers(2) else None
    before = sorted(folder.iterdir())
    try:
        return str(onnxnorm.restore(folder / MODEL, output, verify=verify))
    except onnxnorm.OnnxnormError:
        assert sorted(folder.iterdir()) == before, "a refusal leaves a file behind"
        raise


TARGET = Target("records", _seeds, _damage, _read)
