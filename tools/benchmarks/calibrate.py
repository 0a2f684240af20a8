"""Calibration beside bare inference, ONNX Runtime's calibrators and a PyTorch script, on real networks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.benchmarks.claims import Claim, asked_and_held
from tools.benchmarks.networks import ACTIVATIONS, BATCH, Network, networks, prepared
from tools.benchmarks.photographs import photographs
from tools.benchmarks.runs import Case, Machine, MeasurementError, Results, compare, mebibytes, table

__all__ = ["measure"]

HISTOGRAMS = 48  # images for the Percentile calibrator, which keeps every activation of each

OURS, OURS_ARRAYS = "onnxnorm, photographs", "onnxnorm, .npy"
BARE, DECODING = "bare inference, arrays", "decoding alone"
BARE_ONE, DECODING_ONE = "bare inference, one thread", "decoding alone, one thread"
MINMAX, MINMAX_BEST = "ORT MinMax, photographs", "ORT MinMax of activations, arrays"
PERCENTILE = "ORT Percentile of activations, arrays"
LOADER, INLINE, HOOKS = "PyTorch hooks, DataLoader", "PyTorch hooks, photographs", "PyTorch hooks, arrays"
PEERS = {MINMAX: 1.4, MINMAX_BEST: 1.4, LOADER: 1.8, INLINE: 1.8, HOOKS: 1.8}  # times as fast, asked for on VGG-16

INTRODUCTION = f"""\
Ours goes end to end from JPEG files. Bare inference is ONNX Runtime with the same inputs preprocessed in memory. Batch
{BATCH} and the same threads for everyone; all preprocessing gives the same numbers. The other calibrators, in two ways:

- From photographs, as they are used. *{MINMAX}*: all the operators that `quantize_static` calibrates
  by default, and a reader that decodes one batch a call, as ONNX Runtime's examples do. *{LOADER}*:
  a script with forward hooks behind the activations that adds up means per channel, while a DataLoader with one worker
  decodes ahead; *{INLINE}*: it decodes between the batches.
- From arrays in memory, their best case, and the calibrators are asked for the activation functions only. Percentile
  keeps all activations to the end, so it gets {HISTOGRAMS} images at most and one round.

*ms per image*: from the end of the first batch to the end of the last one; Percentile: all of its collecting, which it
does at the end. There are more photographs than are measured, so whoever decodes ahead does so until the end. *CPU*:
over the same images, in all threads of the process, also those that wait actively. *Whole call*: with model, probe and
session set up and all that follows the last batch, without the start of Python and imports. Peak memory is that of the
whole process, or of the larger one where there is a worker. Photographs are repeated where there are not enough.

How many times as fast as the others one can be has a bound: what they take over bare inference, which nothing that
runs the network beats by much. It depends on the processor: the faster its convolutions, the more all else weighs."""


def measure(machine: Machine, models: Path, zoo: Path, embedded: Path) -> str:
    """The section's text."""
    sources = photographs(zoo / "images") or photographs(embedded / "images")
    parts, claims = [INTRODUCTION], list[Claim]()
    if not machine.torch_python:
        parts.append("The PyTorch script was not measured: give `--torch-python` an interpreter that has torch.")
    for network in networks(models, zoo, embedded):
        print(f"calibrate: {network.name}", flush=True)
        parts.append(f"### {network.title}")
        if not network.path.is_file():
            missing = f"there is no {network.path.name}; run tools/models/fetch.py, tools/models/full_vgg.py"
            parts.append(f"Not measured: {missing}.")
            continue
        try:
            results = _measured(machine, network, sources)
        except MeasurementError as error:
            parts.append(f"Not measured: {error}.")
            continue
        parts += [_table(results), *_sentences(machine, network, results), *results.notes()]
        if results.has(OURS) and results.has(BARE):
            claims += _claims(network, results)
    return "\n\n".join([*parts, *asked_and_held(claims)])


def _measured(machine: Machine, network: Network, sources: list[Path]) -> Results:
    given = prepared(machine, network, sources, network.few if machine.quick else network.images)
    results = compare(list(_cases(machine, network, given)), machine.rounds)
    Path(given["arrays"]).unlink()
    return results


def _cases(machine: Machine, network: Network, given: dict[str, Any]) -> Iterator[Case]:
    yield Case(BARE, "bare", given)
    yield Case(OURS, "photos", given)
    yield Case(OURS_ARRAYS, "arrays", given)
    yield Case(DECODING, "decoding", given)
    if network.small:
        yield Case(BARE_ONE, "bare", given | {"threads": 1})
        yield Case(DECODING_ONE, "decoding", given | {"threads": 1})
    if not network.peers:
        return
    yield Case(MINMAX, "minmax", given | {"operators": None, "feed": "photos"})
    yield from _hooks(machine.torch_python, given)
    best = given | {"operators": ACTIVATIONS, "feed": "arrays"}
    yield Case(MINMAX_BEST, "minmax", best)
    yield Case(PERCENTILE, "percentile", best | {"images": min(HISTOGRAMS, given["images"])}, rounds=1)


def _hooks(python: str | None, given: dict[str, Any]) -> Iterator[Case]:
    for name, feed in ((LOADER, "loader"), (INLINE, "inline"), (HOOKS, "arrays")) if python else ():
        yield Case(
            name, command=(str(python), "-m", "tools.benchmarks.torch_hooks", json.dumps(given | {"feed": feed}))
        )


def _table(results: Results) -> str:
    rows = [
        (
            name,
            f"{results.median(name, 'images'):.0f}",
            f"{results.median(name, 'ms'):.2f}",
            f"{results.ratio(name, BARE, 'ms'):.2f}" if results.has(BARE) else "",
            f"{results.median(name, 'cpu'):.2f}" if results.reports(name, "cpu") else "",
            f"{results.median(name, 'seconds'):.2f}",
            mebibytes(results.median(name, "memory")),
        )
        for name in results.rounds
    ]
    header = ("", "images", "ms per image", "to bare inference", "CPU, ms per image", "whole call, s")
    return table((*header, "peak memory, MiB"), rows)


def _sentences(machine: Machine, network: Network, results: Results) -> Iterator[str]:
    """The same in words: how close to what must be done anyway, and how much faster than others."""
    if results.has(LOADER):
        yield f"PyTorch {results.rounds[LOADER][0].report['torch']}."
    if not results.has(OURS):
        return
    words = [f"{results.ratio(OURS, name, 'ms'):.2f} times *{name}*" for name in (BARE, DECODING) if results.has(name)]
    others = [name for name in (*PEERS, PERCENTILE) if results.has(name)]
    words += [f"{results.ratio(name, OURS, 'ms'):.2f} times as fast as *{name}*" for name in others]
    yield f"*{OURS}*, per image: {'; '.join(words)}."
    if network.small and results.has(BARE_ONE) and results.has(DECODING_ONE):
        decoding, inference = results.median(DECODING_ONE, "cpu"), results.median(BARE_ONE, "cpu")
        floor = (decoding + inference) / machine.threads
        yield (
            f"The work alone is {decoding:.2f} ms of CPU an image for decoding and {inference:.2f} ms for inference, "
            f"each by itself in one thread. Spread over {machine.threads} threads without any waste that is "
            f"{floor:.2f} ms; *{OURS}* takes {results.median(OURS, 'ms') / floor:.2f} times as long."
        )


def _claims(network: Network, results: Results) -> Iterator[Claim]:
    """What is asked for about this network."""
    if network.small:
        both = [name for name in (BARE, DECODING) if results.has(name)]
        slower = max(both, key=lambda name: results.median(name, "ms"))
        text = f"{network.name}: time to *{slower}*, the slower of decoding and inference"
        yield Claim(text, 1.15, *_ratios(results, OURS, slower))
    if network.limit is None:
        return
    yield Claim(f"{network.name}: time to *{BARE}*", network.limit, *_ratios(results, OURS, BARE))
    if not network.peers:
        return
    for name, limit in PEERS.items():
        if results.has(name):
            text = f"{network.name}: times as fast as *{name}*"
            yield Claim(text, limit, *_ratios(results, name, OURS), at_least=True)
    if results.has(PERCENTILE):
        text = f"{network.name}: memory to *{PERCENTILE}*, {results.median(PERCENTILE, 'images'):.0f} images"
        yield Claim(text, 0.2, results.ratio(OURS, PERCENTILE, "memory"))


def _ratios(results: Results, name: str, other: str) -> tuple[float, float]:
    return results.ratio(name, other, "ms"), results.ratio(name, other, "seconds")
