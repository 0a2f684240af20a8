"""The texts of the page: the verdict, the notes, and the next steps."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.text import clean, counted
from onnxnorm.statistics.precision import RelativeErrors, forecast
from onnxnorm.verification import Verification

__all__ = ["Verdict", "next_steps", "notes", "verdict_of"]

_SHOWN = 5
_LOOSE = 0.05


@dataclass(frozen=True)
class Verdict:
    """The verdict: its `kind` is good, bad or open; its `title` is a few words, its `detail` one line."""

    kind: str
    title: str
    detail: str


def verdict_of(report: ReportData) -> Verdict:
    """Return whether both models compute the same function, as far as is known."""
    verification = report.verification
    if report.rewrite is None:
        detail = "What follows as “after” is what onnxnorm rewrite would do by itself: every mean brought to 1."
        return Verdict("open", "Measured, not rewritten yet", detail)
    if verification is None:
        return Verdict("open", "Rewritten, not verified here", "Leave out --no-verify to have both models run.")
    graph = _graph(verification, len(report.rewrite.clones))
    detail = f"{clean(str(verification)).partition(': ')[2]}{report.verified_on}. {graph}"
    if not verification.same:
        return Verdict("bad", "Not the same function", detail)
    title = "The same function, bit for bit" if verification.bit_identical else "The same function"
    return Verdict("good", title, detail[:1].upper() + detail[1:])


def _graph(verification: Verification, clones: int) -> str:
    if verification.graph_identical:
        return "The graph is the same but for constants’ values."
    if verification.nodes_added or verification.attributes_changed:
        return "Beside constants’ values the graph differs as the rewrite was allowed to change it; see below."
    if clones:
        return f"Beside constants’ values the graph differs, at least by {counted(clones, 'copied constant')}."
    return "The graph is not the same: more than constants’ values was changed."


def notes(report: ReportData, errors: RelativeErrors) -> list[str]:
    """Return what a reader should know before looking at the numbers."""
    return [clean(note) for note in (*_about_statistics(report, errors), *_about_rewrite(report), *_about_fp16(report))]


def _about_statistics(report: ReportData, errors: RelativeErrors) -> Iterator[str]:
    if not report.statistics.complete:
        yield "The statistics are incomplete: the calibration was interrupted."
    if not errors.relative.size:
        yield "How precise the means are is not known: that takes two images at least."
    elif errors.quantile(0.95) > _LOOSE:
        (needed,) = forecast(errors, (_LOOSE,), (0.95,), report.statistics.log_standard_errors)
        rough = ", roughly" if needed.rough else ""
        reached, images = f"{errors.quantile(0.95):.0%}", counted(report.statistics.images, "image")
        takes = f"{_LOOSE:.0%} takes about {needed.images:,}{rough}"
        yield f"{images}: the means of 95% of the filters are known to {reached}; {takes}."
    negative = sum(int((layer.statistic[layer.live] < 0).sum()) for layer in report.layers)
    if negative:
        yield f"{counted(negative, 'filter')} with a negative mean: plots show its magnitude, for scales are positive."


def _about_rewrite(report: ReportData) -> Iterator[str]:
    rewrite = report.rewrite
    if rewrite is None:
        return
    entries = rewrite.entries
    used = entries.get("statistics")
    if used and used != hashlib.sha256(report.statistics.to_bytes()).hexdigest():
        yield "The rewrite used other statistics: “after” says where its scales bring what was measured here."
    if entries["statistic"] != report.statistic:
        yield f"The rewrite brought “{entries['statistic']}” to its target; what is shown is the mean."
    if report.settings["power_of_two"] == "true":
        yield "Scales are powers of two: a free filter comes within 0.71 to 1.41 of the target."
    if "outputs" in entries:
        yield "Graph outputs are scaled too; their scales are recorded in the model."
    if rewrite.clones:
        named = ", ".join(f"{clone} (of {name})" for clone, name in list(rewrite.clones.items())[:_SHOWN])
        more = f" and {len(rewrite.clones) - _SHOWN:,} more" if len(rewrite.clones) > _SHOWN else ""
        yield f"{counted(len(rewrite.clones), 'constant')} copied, for readers that need other values: {named}{more}."
    if rewrite.bounds:
        bounds = counted(rewrite.bounds, "Clip")
        yield f"Bounds of {bounds} changed: TensorRT needs a new engine, refitting does not reach them."
    if "previous" in entries:
        yield "The original was a rewritten model itself."


def _about_fp16(report: ReportData) -> Iterator[str]:
    fp16 = report.verification.fp16 if report.verification else None
    for side in ("original", "rewritten") if fp16 else ():
        over = getattr(fp16, side).overflowing
        if over:
            named = ", ".join(over[:_SHOWN]) + (", ..." if len(over) > _SHOWN else "")
            yield f"In float16, the {side} model overflows in {counted(len(over), 'value')}: {named}."


def next_steps(report: ReportData, errors: RelativeErrors) -> list[tuple[str, str]]:
    """Return what to do next, and the command for it; files are named without their folders."""
    model, stats = clean(report.name), clean(report.statistics_name)
    given = [] if stats == f"{Path(model).stem}.stats.safetensors" else ["--stats", stats]
    rewrite = _command("rewrite", model, *given)
    if report.rewrite is None:
        return [("Rewrite the model", rewrite)]
    other, verification = clean(report.rewritten_name or ""), report.verification
    if verification is not None and not verification.same:
        return [("Rewrite again", rewrite)]
    verify = _command("verify", model, other, "OTHER-PHOTOS", *report.image_words)
    steps = [("Verify on photographs that were not measured", verify)]
    if verification is None or verification.fp16 is None:
        command = _command("report", model, other, "PHOTOS", *given, "--fp16", "-o", "report.html")
        steps.append(("See the headroom in float16 here", command))
    if errors.relative.size and np.quantile(errors.relative, 0.95) > _LOOSE:
        command = _command("calibrate", model, "MORE-PHOTOS", *report.image_words, "--tolerance", "0.05")
        steps.append(("Measure more images", command))
    return steps


def _command(*words: str) -> str:
    return "onnxnorm " + shlex.join(words)
