"""The page that people look at: one HTML file with everything in it, and nothing that runs or is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from onnxnorm.report.data import ReportData
from onnxnorm.report.page import tables
from onnxnorm.report.page.curves import forecast_plot, headroom_plot
from onnxnorm.report.page.layer_plots import Panel, Row, row_plots
from onnxnorm.report.page.plots import Drawing
from onnxnorm.report.page.text import clean, counted, number
from onnxnorm.report.page.verdict import next_steps, notes, verdict_of
from onnxnorm.report.terminal.fp16 import SIDES, summary_rows
from onnxnorm.statistics.precision import RelativeErrors, forecast
from onnxnorm.verification import Fp16
from onnxnorm.version import VERSION

__all__ = ["page_of"]

Floats = NDArray[np.float64]
_NEAREST = 12
_TOLERANCES = ((1.0, "1%"), (5.0, "5%"))


def page_of(subject: ReportData) -> str:
    """The whole page. The same subject gives the same bytes."""
    errors = RelativeErrors.of(subject.statistics.values)
    fp16 = subject.verification.fp16 if subject.verification else None
    folder = files("onnxnorm.report.page")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    with Drawing.settings():
        plots = {
            "means": _mean_plots(subject),
            "scales": _scale_plots(subject),
            "forecast": _forecast(errors),
            "headroom": _headroom(fp16),
        }
    return template.render(
        css=Markup((folder / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - a file of ours
        version=VERSION,
        model=clean(subject.name),
        rewritten=None if subject.rewritten_name is None else clean(subject.rewritten_name),
        digest=subject.digest,
        preprocessing=clean(tables.preprocessing_text(subject.statistics.inputs.get("preprocessing"))),
        settings=clean(tables.settings_text(subject.settings)),
        statistic=subject.statistic,
        planned=subject.rewrite is None,
        measured=clean(str(subject.statistics)),
        images=counted(subject.statistics.images, "image"),
        errors=errors,
        forecasts=forecast(errors, log_standard_errors=subject.statistics.log_standard_errors),
        verdict=verdict_of(subject),
        notes=notes(subject, errors),
        steps=next_steps(subject, errors),
        tiles=tables.tiles(subject, errors),
        plan=subject.plan,
        layers=tables.layer_rows(subject),
        states=[state for state in ("tied", "pinned", "dead") if getattr(subject.plan, state)],
        certain=tables.least_certain(subject, errors),
        dead=tables.dead_rows(subject),
        barriers=tables.barrier_rows(subject.plan.barriers),
        groups=tables.group_rows(subject),
        skipped=[(clean(name), clean(reason)) for name, reason in subject.statistics.skipped],
        provenance=tables.provenance(subject),
        fp16=_fp16(fp16),
        plots={name: [Markup(svg) for svg in found] for name, found in plots.items()},  # noqa: S704 - drawn here
    )


def _mean_plots(subject: ReportData) -> list[str]:
    target = float(subject.settings["target"])
    same = float(subject.settings["strength"]) == 1 and subject.settings["statistic"] == subject.statistic
    lines = ((target, f"target {target:g}"),) if same else ()
    rows = [
        Row(layer.layer.node, _note(layer.dead, layer.pinned), (np.abs(layer.statistic[layer.live]), _after(layer)))
        for layer in subject.layers
    ]
    after = "after, as planned" if subject.rewrite is None else "after"
    panels = (
        Panel(f"{subject.statistic} before", "before", (), group="mean"),
        Panel(f"{subject.statistic} {after}", "after", lines, group="mean"),
    )
    return row_plots("means", f"The {subject.statistic} activation of every filter, before and after", rows, panels)


def _after(layer: Any) -> Floats:
    return np.asarray(np.abs(layer.after[layer.live]), np.float64)


def _note(dead: NDArray[np.bool_], pinned: NDArray[np.bool_]) -> str:
    parts = [f"{int(flags.sum()):,} {word}" for flags, word in ((dead, "dead"), (pinned, "pinned")) if flags.any()]
    return ", ".join(parts)


def _scale_plots(subject: ReportData) -> list[str]:
    found = zip(subject.layers, tables.layer_errors(subject), strict=True)
    rows = [Row(layer.layer.node, "", (layer.moved, 100 * errors)) for layer, errors in found]
    panels = (
        Panel("scale", "after", ((1.0, "as it was"),)),
        Panel("relative standard error of the mean", "before", _TOLERANCES, share=True, spread=True),
    )
    return row_plots("scales", "The scales of every layer, and how exact its means are", rows, panels)


def _forecast(errors: RelativeErrors) -> list[str]:
    found = forecast(errors)
    return [forecast_plot(errors, found)] if found and errors.quantile(0.5) > 0 else []


def _headroom(fp16: Fp16 | None) -> list[str]:
    if fp16 is None:
        return []
    names = dict.fromkeys([*fp16.original.values, *fp16.rewritten.values])
    sides = {
        side: np.asarray([getattr(fp16, side).values.get(name, np.nan) for name in names], np.float64) for side in SIDES
    }
    found = fp16.to_json()
    return [headroom_plot(sides, found["largest"], found["smallest_normal"])]


def _fp16(fp16: Fp16 | None) -> Mapping[str, Any] | None:
    """The summary, and the values nearest to overflow."""
    if fp16 is None:
        return None
    found = fp16.to_json()
    rows = sorted(found["values"], key=lambda row: -max(row.get(side, 0.0) for side in SIDES))
    return {
        "summary": summary_rows(found),
        "nearest": [(clean(row["name"]), *(number(row.get(side)) for side in SIDES)) for row in rows[:_NEAREST]],
        "over": [tuple(row.get(side, 0.0) > found["largest"] for side in SIDES) for row in rows[:_NEAREST]],
        "reasons": [clean(text) for text in dict.fromkeys(found[side]["not_run"] for side in SIDES) if text],
    }
