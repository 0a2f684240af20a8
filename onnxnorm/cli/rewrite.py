"""`onnxnorm rewrite MODEL --stats STATS -o OUT`."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxnorm import api
from onnxnorm.cli import options as o
from onnxnorm.cli.terminal import Terminal
from onnxnorm.report import layer_table

__all__ = ["NAME", "rewrite", "summary", "tell_rewritten"]

NAME = "rewrite"
_CLONES_SHOWN = 5


def rewrite(
    model: o.ModelPath,
    stats: o.StatsPath,
    output: o.OutPath,
    statistic: o.StatisticChoice = "mean",
    target: o.Target = 1.0,
    power_of_two: o.PowerOfTwo = False,
    outputs: o.OutputChoice = "keep",
    filters: o.FilterChoice | None = None,
    verify: o.Verify = True,
    tolerance_output: o.ToleranceOutput = None,
    provider: o.Provider = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Scale constants so that every filter's mean activation is the target; verify, then write."""
    del statistic
    terminal = Terminal(quiet, verbose, json)
    with terminal.status("rewriting and verifying"):
        done = api.rewrite(
            model,
            stats,
            output,
            target=target,
            power_of_two=power_of_two,
            outputs=outputs,
            filters=filters,
            verify=verify,
            tolerance_output=tolerance_output,
            provider=provider,
            threads=threads,
        )
    tell_rewritten(terminal, done, target)
    terminal.say(f"next: onnxnorm verify {model} {output} OTHER-PHOTOS")
    terminal.show_json(summary(done))


def tell_rewritten(terminal: Terminal, done: api.Rewritten, target: float) -> None:
    """The table of layers, what is special, and the verdict."""
    if not terminal.quiet:
        terminal.show(layer_table(done.rewriting.scales, target), "")
    terminal.show(str(done.plan))
    negative = sum(int((layer.after[~layer.dead & ~layer.pinned] < 0).sum()) for layer in done.rewriting.scales.layers)
    if negative:
        terminal.say(f"{negative:,} filters have a negative mean: scales are positive, so it is minus the target now")
    clones = done.rewriting.clones
    for clone in clones[:_CLONES_SHOWN]:
        terminal.say(f"constant {clone.constant!r} is shared; {clone.node!r} now reads its own copy, {clone.clone!r}")
    if len(clones) > _CLONES_SHOWN:
        terminal.say(f"... and {len(clones) - _CLONES_SHOWN} more such copies")
    for name in done.rewriting.unrecorded:
        terminal.say(f"the scales of output {name!r} are too many to be recorded in the model")
    terminal.show(f"verdict: {done.verification}" if done.verification else "verdict: not verified")
    terminal.show(f"written to {done.path}")


def summary(done: api.Rewritten) -> dict[str, Any]:
    """What `--json` prints about a rewrite."""
    return {
        "output": str(done.path),
        "filters": done.plan.filters,
        "free": done.plan.free,
        "tied": done.plan.tied,
        "pinned": done.plan.pinned,
        "dead": done.plan.dead,
        "changed": list(done.rewriting.changed),
        "clones": [vars(clone) for clone in done.rewriting.clones],
        "outputs": {name: array.reshape(-1).tolist() for name, array in done.rewriting.outputs.items()},
        "layers": [
            {
                "node": layer.layer.node,
                "value": layer.layer.site.value,
                "measure": layer.layer.site.measure,
                "filters": layer.layer.channels,
                "before": _quantiles(layer.statistic),
                "after": _quantiles(layer.after),
                "dead": np.flatnonzero(layer.dead).tolist(),
                "pinned": int(layer.pinned.sum()),
            }
            for layer in done.rewriting.scales.layers
        ],
        "verification": done.verification.to_json() if done.verification else None,
    }


def _quantiles(values: Any) -> dict[str, float]:
    return {"min": float(np.min(values)), "median": float(np.median(values)), "max": float(np.max(values))}
