"""`onnxnorm rewrite MODEL [--stats STATS] [-o OUT]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm import api
from onnxnorm.api.options import RewriteOptions
from onnxnorm.cli.arguments import DefaultStats, ModelOut, ModelPath
from onnxnorm.cli.defaults import find_stats, model_target, naming, stats_name
from onnxnorm.cli.hints import preprocessing_words, shell_line, suggested, tell_ending
from onnxnorm.cli.misuse import Missing
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.display import counted, min_median_max
from onnxnorm.model.files import Model
from onnxnorm.report.terminal.ceiling import ceiling_lines
from onnxnorm.report.terminal.tables import added_table, dead_lines, layer_table
from onnxnorm.rewriting import Rewriting, needs_images, sidecar_path
from onnxnorm.rewriting.reach import reach_of
from onnxnorm.statistics.measures import PEAK
from onnxnorm.statistics.precision import error_text

__all__ = ["EXAMPLES", "NAME", "rewrite", "summary", "tell_next", "tell_rewritten"]

NAME = "rewrite"
EXAMPLES = (
    "onnxnorm rewrite model.onnx",
    "onnxnorm rewrite model.onnx --power-of-two -o exact.onnx",
    "onnxnorm rewrite model.onnx --statistic weights --strength 0.5",
)
_SHOWN = 5  # clones, and layers with limited scales
_FEW = 0.1  # share of live filters at the target below which that is a warning, and said last
_HALF = 0.5  # share of live filters at the target below which the obstacle is named, whatever it is


def rewrite(
    model: ModelPath,
    options: RewriteOptions,
    output_options: OutputOptions,
    output: ModelOut = None,
    stats: DefaultStats = None,
) -> None:
    """Scale constants so that every filter's statistic, by default its mean, is the target; verify, then write."""
    terminal = Terminal(output_options)
    images = needs_images(options.statistic)
    chosen = find_stats(stats, model) if images else stats
    if chosen is None and images:
        Model.open(model)  # a model that is not there is told first
        raise Missing(
            f"{_asked(options)} is measured on images, and there is no {stats_name(model)} here or beside MODEL: make "
            f"it with {shell_line('calibrate', model, 'PHOTOS', *_measures(options))}, or give --stats"
        )
    if chosen is not None and stats is None:
        terminal.say(f"statistics: {chosen}")
    output = model_target(output, model, options.in_place)
    with terminal.status("rewriting and verifying"), naming(chosen, stats):
        done = api.rewrite(model, chosen, output, options=options)
    tell_rewritten(terminal, done)
    tell_next(terminal, done, model, output)
    terminal.show_json(summary(done))


def _asked(options: RewriteOptions) -> str:
    return f"--statistic {options.statistic}" if options.ceiling is None else "--ceiling"


def _measures(options: RewriteOptions) -> list[str]:
    return [word for name in options.to_measure for word in ("--measure", name)]


def tell_rewritten(terminal: Terminal, done: api.Rewritten) -> None:
    """Show the table of layers, notes on what is unusual, and the verdict."""
    if not terminal.options.quiet:
        terminal.show(layer_table(done.rewriting.scales, done.rewriting.statistic), "")
    terminal.show(str(done.plan))
    ceiling = done.rewriting.ceiling
    if ceiling is None:
        terminal.show(*dead_lines(done.rewriting.scales.layers))
    for line in ceiling_lines(ceiling) if ceiling else _notes(done.rewriting):
        terminal.show(line)
    clones = done.rewriting.clones
    for clone in clones[:_SHOWN]:
        terminal.say(f"constant {clone.constant!r} is shared; {clone.node!r} now reads its own copy, {clone.clone!r}")
    if len(clones) > _SHOWN:
        terminal.say(f"... and {len(clones) - _SHOWN} more such copies")
    _tell_changes(terminal, done)
    if done.rewriting.bounds:
        terminal.say(
            f"bounds of {done.rewriting.bounds} Clips changed: TensorRT keeps those as layer settings, so build a new "
            "engine instead of refitting one (see the page on TensorRT in the documentation)"
        )
    if ceiling is None and done.rewriting.statistic != "weights":
        terminal.say(
            "before INT8 quantization, quantize the original, or a rewrite with --statistic weights --strength 0.5: "
            "normalized activations cost accuracy there (see the page on INT8 in the documentation)"
        )
    if ceiling is None and (done.reach.bound or done.reach.share < _HALF) and not _reaches_few(done):
        terminal.say(str(reach_of(done.rewriting, levels=True)))
    for name in done.rewriting.unrecorded:
        terminal.say(f"the scales of output {name!r} are too many to be recorded in the model")
    terminal.show(f"verdict: {done.verification}" if done.verification else "verdict: not verified")
    terminal.show(f"written to {done.path}")
    if done.rewriting.sidecar is not None and done.path is not None:
        terminal.show(f"the scales, too many for the model's metadata, to {sidecar_path(done.path)}")


def tell_next(terminal: Terminal, done: api.Rewritten, model: Path, output: Path) -> None:
    """Say how to go on; and at the very end, where it is not overlooked, that hardly any filter is normalized."""
    tell_ending(terminal, output, ".onnx")
    terminal.say(suggested("verify", model, output, "OTHER-PHOTOS", *preprocessing_words(done.statistics, output)))
    if _reaches_few(done):
        terminal.say(f"warning: {reach_of(done.rewriting, levels=True)}")


def _reaches_few(done: api.Rewritten) -> bool:
    return done.rewriting.ceiling is None and done.reach.share < _FEW


def _tell_changes(terminal: Terminal, done: api.Rewritten) -> None:
    """Show what was changed beside the values of constants."""
    if done.rewriting.attributes_changed:
        terminal.show(f"{done.rewriting.attributes_changed} numbers in attributes changed")
    if done.rewriting.nodes_added:
        if not terminal.options.quiet:
            terminal.show(*added_table(done.rewriting.additions))
        ratio = done.verification.time_ratio if done.verification else None
        time = f"; the verification took {ratio:.2f} times as long on it" if ratio is not None else ""
        nodes, touched = counted(done.rewriting.nodes_added, "node"), f"{done.rewriting.touched:.1%} of all elements"
        terminal.show(f"{nodes} added, on {touched}{time}")


def _notes(rewriting: Rewriting) -> list[str]:
    """Notes on what is unusual about the scales."""
    scales, notes = rewriting.scales, []
    low, high = scales.span
    if rewriting.previous:
        before = f"{rewriting.previous.get('statistic', '?')} to {rewriting.previous.get('target', '?')}"
        notes.append(
            f"already normalized on {before}; scales now between {low:.4g} and {high:.4g}{_uncertainty(rewriting)}"
        )
    if scales.unknown:
        notes.append(f"{scales.unknown:,} filters keep scale 1: their {rewriting.statistic} is not known")
    negative = sum(int((layer.after[layer.live & ~layer.pinned] < 0).sum()) for layer in scales.layers)
    if negative:
        notes.append(
            f"{negative:,} filters have a negative mean: scales are positive, so it comes to {-rewriting.target:g} "
            f"instead of {rewriting.target:g}"
        )
    if rewriting.power_of_two:
        notes.append(
            "every scale is a power of two: a free filter comes within 0.71 to 1.41 of what it would exactly be"
        )
    if scales.limited:
        where = [layer.layer.node or layer.layer.output for layer in scales.layers if layer.limited.any()]
        more = f" and {len(where) - _SHOWN} more layers" if len(where) > _SHOWN else ""
        lost = "normal range of its type, and lost bits" if rewriting.power_of_two else "range of its type"
        notes.append(
            f"{scales.limited:,} filters have a scale nearer to 1 than their own "
            f"(in {', '.join(where[:_SHOWN])}{more}): a constant would have left the {lost}"
        )
    worst = rewriting.rounding.worst
    if worst is not None and worst[1] > 0:
        notes.append(f"rounding changed no weight or bias by more than {worst[1]:.1e} of it ({worst[0]})")
    return notes


def _uncertainty(rewriting: Rewriting) -> str:
    """By how much scales may differ from 1 by chance alone: the relative standard errors of the statistics."""
    errors = np.concatenate([np.empty(0), *(layer.relative_errors for layer in rewriting.scales.layers)])
    if not errors.size:
        return ""
    median, worst = (error_text(float(error), 1) for error in (np.median(errors), errors.max()))
    return f" (standard error of the statistics {median} at the median, {worst} at worst)"


def summary(done: api.Rewritten) -> dict[str, Any]:
    """What `--json` prints about a rewrite, as plain data."""
    rewriting = done.rewriting
    worst = rewriting.rounding.worst
    sidecar = sidecar_path(done.path) if rewriting.sidecar is not None and done.path is not None else None
    return {
        "output": str(done.path),
        "statistic": rewriting.statistic,
        "strength": rewriting.strength,
        "per": rewriting.entries.get("per", "channel"),
        "target": rewriting.target,
        "power_of_two": rewriting.power_of_two,
        "filters": done.plan.filters,
        "free": done.plan.free,
        "tied": done.plan.tied,
        "pinned": done.plan.pinned,
        "dead": done.plan.dead,
        "at_target": done.reach.normalized,
        "at_target_share": done.reach.share,
        "level": rewriting.level,
        "attributes_changed": rewriting.attributes_changed,
        "nodes_added": rewriting.nodes_added,
        "elements_touched": rewriting.touched,
        **({"ceiling": rewriting.ceiling.to_json()} if rewriting.ceiling else {}),
        "unknown": rewriting.scales.unknown,
        "limited": rewriting.scales.limited,
        "scales": dict(zip(("min", "max"), rewriting.scales.span, strict=True)),
        "scales_file": None if sidecar is None else str(sidecar),
        "changed": list(rewriting.changed),
        "clones": [vars(clone) for clone in rewriting.clones],
        "outputs": {name: array.reshape(-1).tolist() for name, array in rewriting.outputs.items()},
        "rounding": None if worst is None else {"constant": worst[0], "max_relative_error": worst[1]},
        "previous": dict(rewriting.previous) or None,
        "layers": [
            {
                "node": layer.layer.node,
                "value": layer.layer.site.value,
                "measure": PEAK if rewriting.ceiling else layer.layer.site.measure,
                "filters": layer.layer.channels,
                "before": _spread(layer.statistic),
                "after": _spread(layer.after),
                "scale": _spread(layer.scale),
                "dead": np.flatnonzero(layer.dead).tolist(),
                "limited": np.flatnonzero(layer.limited).tolist(),
                "pinned": int(layer.pinned.sum()),
            }
            for layer in rewriting.scales.layers
        ],
        "verification": done.verification.to_json() if done.verification else None,
    }


def _spread(values: NDArray[np.float64]) -> dict[str, float | None]:
    return dict(zip(("min", "median", "max"), min_median_max(values) or (None, None, None), strict=True))
