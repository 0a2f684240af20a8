"""Statistics as tables: a row per channel for pandas, a row per value for a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.display import Raw, html_table, number, percent
from onnxnorm.errors import OptionError
from onnxnorm.statistics.measures import MEANS, measured
from onnxnorm.statistics.moments import Moments, Value

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["data_frame", "value_table"]

Floats = NDArray[np.float64]


def data_frame(values: Mapping[Value, Moments]) -> pd.DataFrame:
    """Return a pandas DataFrame with a row per channel. Raises OptionError if pandas is not installed."""
    try:
        import pandas as pd
    except ImportError as error:
        raise OptionError(
            f"to_dataframe needs pandas ({error}); install it: pip install 'onnxnorm[notebook]', or pip install pandas"
        ) from error
    statistics = {name: name for _, columns in _means(values) for name in columns}
    parts: dict[str, list[Any]] = {name: [] for name in ("value", "measure", "channel", "images", *statistics)}
    parts |= {name: [] for name in ("standard_error", "relative_error", "live")}
    for value, columns in _means(values):
        moments = values[value]
        count = moments.channels
        parts["value"].append(np.full(count, value.name, dtype=object))
        parts["measure"].append(np.full(count, value.measure, dtype=object))
        parts["channel"].append(np.arange(count))
        parts["images"].append(np.full(count, moments.images))
        for name in statistics:
            parts[name].append(columns.get(name, np.full(count, np.nan)))
        parts["standard_error"].append(moments.standard_error)
        parts["relative_error"].append(moments.relative_error)
        parts["live"].append(moments.live)
    return pd.DataFrame({name: np.concatenate(arrays) if arrays else [] for name, arrays in parts.items()})


def _means(values: Mapping[Value, Moments]) -> Iterator[tuple[Value, dict[str, Floats]]]:
    """Each value whose mean was measured, with every statistic of its channels `(channels,)`, by name."""
    for value, moments in values.items():
        if value.measure not in MEANS:
            continue
        columns: dict[str, Floats] = {}
        for entry in measured().values():
            source = moments if entry.average is None else values.get(Value(value.name, entry.average))
            if source is not None and entry.known(source):
                columns[entry.name] = entry.read(source)[0]
        yield value, columns


def value_table(values: Mapping[Value, Moments]) -> Raw:
    """Return an HTML table with a row per value: the spread of its channels' means, and how precise they are."""
    means = [value for value, _ in _means(values)]
    largest = any(values[value].largest is not None for value in means)
    maxima = (">largest magnitude",) if largest else ()
    columns = ("value", ">channels", ">mean: min", ">median", ">max", *maxima, ">median s.e.", ">dead")
    return html_table(columns, [_row(value, values[value], largest=largest) for value in means])


def _row(value: Value, moments: Moments, *, largest: bool) -> list[str]:
    errors = moments.relative_error[np.isfinite(moments.relative_error)]
    dead = int((~moments.live).sum())
    mean = moments.mean if moments.channels else np.full(1, np.nan)
    return [
        f"abs({value.name})" if value.measure == "mean_abs" else value.name,
        f"{moments.channels:,}",
        *(number(float(item), 3) for item in (mean.min(), np.median(mean), mean.max())),
        *([_largest(moments)] if largest else []),
        percent(float(np.median(errors)) if errors.size else None),
        f"{dead:,}" if dead else "",
    ]


def _largest(moments: Moments) -> str:
    return "" if moments.largest is None else number(float(moments.largest.max(initial=0.0)), 3)
