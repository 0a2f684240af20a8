"""Calibration beside bare inference on every network at hand, each with the batch free and fixed at 1.

Start-up is left out: what remains is what measuring costs. *From arrays*, nothing is decoded; *bare* is ONNX Runtime on
the same file and the same arrays, all threads, at the best of batch 1 and 8 that the file allows, and ours is without
options. *From photographs*, the *floor* is the work alone: decoding and preprocessing, by itself in one thread, spread
over all threads without any waste, and then bare inference.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from tools.benchmarks.claims import Claim, asked_and_held
from tools.benchmarks.networks import BATCH
from tools.benchmarks.photographs import photographs, repeated
from tools.benchmarks.runs import Case, Machine, MeasurementError, Results, compare, mebibytes, perform, table

__all__ = ["FIGURE", "measure", "networks_at_hand", "prepare_network"]

OURS, PHOTOS, DECODING = "onnxnorm", "onnxnorm, photographs", "decoding, one thread"
BARE_ONE, BARE_EIGHT = "bare, batch 1", f"bare, batch {BATCH}"
LIMIT = 1.05  # times bare inference, and times the floor, asked for on every network
MEMORY = 100 << 20  # bytes more than bare inference, asked for on every network
SECONDS = 4.0  # of bare inference in one measurement
START = 1.0  # seconds, asked for from the start of Python to the end, with one photograph and the embedded network
COMMAND = "onnxnorm calibrate"
STARTS = 7
FEWEST, MOST = 4 * BATCH, 4096  # images
OPEN_SIDE = 224
EXPORTED = ("resnet50", "mobilenet_v2", "mobilenet_v3", "efficientnet_b0", "yolov8n", "inception_v3")
HEADER = (
    *("", "images", "bare, ms per image", "ours", "to bare", "best to best", "CPU to bare", "memory, MiB", "bare, MiB"),
    *("floor from photographs, ms per image", "ours", "to floor"),
)
FIGURE = "images/benchmarks-every.svg"

INTRODUCTION = f"""\
{(__doc__ or "").partition(chr(10) * 2)[2].strip()} Open sizes are {OPEN_SIDE}. *ms per image* is from the end of the
first batch to the end of the last one, *CPU* the same in all threads of the process, *memory* the peak of the whole
process. *Best* is the smallest number of all rounds, which other work of the machine disturbs least.

![Times bare inference and times the floor, one dot a network]({FIGURE})"""


def measure(machine: Machine, models: Path, zoo: Path, exported: Path, embedded: Path, docs: Path) -> str:
    """The section's text; the figure is drawn into the folder of the page."""
    rows, notes, claims, best = list[tuple[str, ...]](), list[str](), list[Claim](), list[float]()
    pictures = photographs(zoo / "images") or photographs(embedded / "images")
    shown = dict[str, tuple[float, float | None]]()
    for path in networks_at_hand(models, zoo, exported, embedded):
        for fixed in (False, True):
            name = f"{path.stem}{', batch fixed at 1' if fixed else ''}"
            print(f"every: {name}", flush=True)
            try:
                measured = _Measured(machine, path, pictures, fixed=fixed)
            except (MeasurementError, ValueError, KeyError) as error:
                notes.append(f"*{name}* was not measured: {error}.")
                continue
            rows.append(measured.row(name))
            claims += measured.claims(name)
            best.append(measured.best_to_best())
            shown[name] = (measured.results.ratio(OURS, measured.bare, "ms"), measured.to_floor())
    start = _started(machine, embedded)
    claims.append(Claim("one photograph, from nothing: seconds", START, start.median(COMMAND, "wall")))
    if shown:
        perform(Case("the figure", "draw_ratios", {"shown": shown, "limit": LIMIT, "path": str(docs / FIGURE)}))
    told = _best(best) if best else []
    return "\n\n".join([INTRODUCTION, table(HEADER, rows), *notes, *told, *_summary(claims), *asked_and_held(claims)])


def networks_at_hand(models: Path, zoo: Path, exported: Path, embedded: Path) -> Iterator[Path]:
    """The networks that are there."""
    yield from (path for path in (models / "vgg16_features.onnx", embedded / "demo_vgg.onnx") if path.is_file())
    yield from sorted((zoo / "models").glob("*.onnx"))
    yield from (path for name in EXPORTED if (path := exported / f"{name}.onnx").is_file())


def _started(machine: Machine, embedded: Path) -> Results:
    """The command line on one photograph of the embedded network, each time as a new process, once it was compiled."""
    photograph = photographs(embedded / "images")[0]
    written = machine.work / "one.safetensors"
    command = (sys.executable, "-m", "onnxnorm", "calibrate", str(embedded / "demo_vgg.onnx"), str(photograph))
    case = Case(COMMAND, command=(*command, "--preset", "unit", "-o", str(written)), reports=False)
    perform(case)
    return compare([case], STARTS)


class _Measured:
    """One network: what was measured, and what it is compared with."""

    def __init__(self, machine: Machine, path: Path, pictures: list[Path], *, fixed: bool) -> None:
        given = _prepared(machine, path, pictures, fixed=fixed)
        sizes = [1] if given["fixed"] else [1, BATCH]
        cases = [Case(BARE_ONE if size == 1 else BARE_EIGHT, "bare", given | {"batch": size}) for size in sizes]
        ours = given | {"batch": None}
        cases += [Case(OURS, "arrays", ours), Case(PHOTOS, "photos", ours)]
        cases += [Case(DECODING, "decoding", given | {"threads": 1})]
        self.results = compare(cases, machine.rounds)
        self.threads = machine.threads
        Path(given["arrays"]).unlink()
        if not self.results.has(OURS) or not self.results.has(BARE_ONE):
            raise MeasurementError("; ".join(self.results.failed.values()))
        bare = [name for name in (BARE_ONE, BARE_EIGHT) if self.results.has(name)]
        self.bare = min(bare, key=lambda name: self.results.median(name, "ms"))

    def floors(self) -> list[float]:
        """Milliseconds per image of decoding, spread over all threads, and bare inference, in each round."""
        pairs = zip(self.results.numbers(DECODING, "cpu"), self.results.numbers(self.bare, "ms"), strict=False)
        return [decoding / self.threads + inference for decoding, inference in pairs]

    def best_to_best(self) -> float:
        """Times the smallest time of bare inference that the smallest of ours is."""
        mine, bare = (
            min(number for name in names for number in self.results.numbers(name, "ms"))
            for names in ([OURS], [BARE_ONE, BARE_EIGHT])
        )
        return mine / bare

    def to_floor(self) -> float | None:
        """Times the floor that it takes from photographs; None where they could not be read."""
        if not self.results.has(PHOTOS) or not self.results.has(DECODING):
            return None
        pairs = zip(self.results.numbers(PHOTOS, "ms"), self.floors(), strict=False)
        return median(mine / floor for mine, floor in pairs)

    def row(self, name: str) -> tuple[str, ...]:
        """The network's line in the table."""
        found, ratio = self.results, self.to_floor()
        return (
            name,
            f"{found.median(OURS, 'images'):.0f}",
            f"{found.median(self.bare, 'ms'):.2f}",
            f"{found.median(OURS, 'ms'):.2f}",
            f"{found.ratio(OURS, self.bare, 'ms'):.2f}",
            f"{self.best_to_best():.2f}",
            f"{found.ratio(OURS, self.bare, 'cpu'):.2f}",
            mebibytes(found.median(OURS, "memory")),
            mebibytes(found.median(self.bare, "memory")),
            "" if ratio is None else f"{median(self.floors()):.2f}",
            "" if ratio is None else f"{found.median(PHOTOS, 'ms'):.2f}",
            "" if ratio is None else f"{ratio:.2f}",
        )

    def claims(self, name: str) -> Iterator[Claim]:
        """What was asked for this network."""
        found, ratio = self.results, self.to_floor()
        once, whole = (found.ratio(OURS, self.bare, key) for key in ("ms", "seconds"))
        yield Claim(f"{name}: time to *bare*", LIMIT, once, whole)
        if ratio is not None:
            yield Claim(f"{name}: time from photographs to the floor", LIMIT, ratio)
        same = BARE_EIGHT if found.has(BARE_EIGHT) else BARE_ONE
        limit = 1 + MEMORY / found.median(same, "memory")
        yield Claim(f"{name}: memory to *bare* at the same batch", limit, found.ratio(OURS, same, "memory"))


def _best(ratios: list[float]) -> list[str]:
    """One line about the best of all rounds, for which nothing was asked."""
    few = sum(ratio <= LIMIT for ratio in ratios)
    return [
        f"*Best to best*: at most {LIMIT} for {few} of {len(ratios)}; median {median(ratios):.2f}, "
        f"worst {max(ratios):.2f}."
    ]


def _summary(claims: list[Claim]) -> Iterator[str]:
    """One line for each kind of claim: in how many it holds, the median and the worst."""
    kinds = dict.fromkeys(claim.text.rpartition(": ")[2] for claim in claims)
    for kind in kinds:
        found = [claim for claim in claims if claim.text.endswith(f": {kind}")]
        ratios, held = [claim.measured for claim in found], sum(claim.measured <= claim.limit for claim in found)
        yield (
            f"*{kind.replace('*', '').capitalize()}*: as asked for {held} of {len(found)}; "
            f"median {median(ratios):.2f}, worst {max(ratios):.2f}."
        )


def _prepared(machine: Machine, path: Path, pictures: list[Path], *, fixed: bool) -> dict[str, Any]:
    """The arguments of a measurement: the model with a free batch, or one of 1, its arrays, and photographs."""
    given = prepare_network(machine, path, fixed=fixed)
    few = given | {"batch": 1, "images": FEWEST}
    perform(Case("the arrays", "random_rows", few))
    trial = perform(Case(BARE_ONE, "bare", few))
    wanted = SECONDS * 1000 / trial.report["ms"] / (4 if machine.quick else 1)
    given["images"] = min(max(int(wanted), FEWEST), MOST) // BATCH * BATCH
    perform(Case("the arrays", "random_rows", given))
    return given | {"photos": str(repeated(pictures, given["images"] + FEWEST, machine.work / "photographs"))}


def prepare_network(machine: Machine, path: Path, *, fixed: bool) -> dict[str, Any]:
    """Copy a network, with its batch free or fixed at 1, and return the arguments about it.

    Raises ValueError if its batch should be free and is not.
    """
    given: dict[str, Any] = {
        "source": str(path),
        "model": str(machine.work / path.name),
        "arrays": str(machine.work / f"{path.stem}.npy"),
        "threads": machine.threads,
        "batch": 1 if fixed else BATCH,
        "fixed": fixed,
        "side": OPEN_SIDE,
        "preset": "unit",
    }
    found = dict(perform(Case("the network", "batch_of", given)).report)
    if found["fixed"] and not fixed:
        raise ValueError("its batch is fixed in the file")
    sample = found["sample"]
    return given | found | {"sample": sample, "size": sample[:2] if sample[-1] in (1, 3) else sample[1:]}
