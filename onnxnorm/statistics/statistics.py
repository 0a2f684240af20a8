"""The result of a calibration: the moments of every measured value, as plain data, and their provenance.

The moments themselves are in `moments.py`, the file format is in `file.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

from onnxnorm.display import Shown, counted, html_block
from onnxnorm.errors import StatisticsError
from onnxnorm.model.input_records import settings_from_record
from onnxnorm.model.inputs import InputSettings
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.statistics.file import Content, read_content
from onnxnorm.statistics.histograms import Histogram
from onnxnorm.statistics.measures import MEANS, PEAK, RANGE, measured
from onnxnorm.statistics.moments import Moments, Value
from onnxnorm.statistics.provenance import Prints, joined_prints, joined_sources
from onnxnorm.statistics.tables import data_frame, value_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORECAST_ERRORS", "GIVEN", "Histogram", "Moments", "Statistics", "Value", "Weighting"]

Weighting = Literal["position", "image"]
_SHOWN = 5  # skipped images shown in a notebook, and names in messages
GIVEN = "given"  # key in `inputs` of the settings of the model's inputs
FORECAST_ERRORS = "forecast_spreads"  # key in `inputs` of the standard errors of forecasts, which only a run can tell


@dataclass(frozen=True, repr=False)
class Statistics(Shown):
    """Moments of every measured value of one model over one set of images.

    Attributes:
        model: SHA-256 digest of the model.
        version: version of onnxnorm that measured.
        filters: which layers were measured.
        shapes: input shapes of one sample.
        inputs: where the images came from and how they were preprocessed, in plain values.
        skipped: name and reason of each image that could not be used.
        values: the moments of every measured value.
        weighting: the weight of an image in the means: its number of positions, or 1.
        complete: False if the run was interrupted.
        files: fingerprints of the files, shape `(files, 2)`, by the digest of their source.
    """

    model: str
    version: str
    filters: FilterKind
    shapes: Mapping[str, tuple[int, ...]]
    inputs: Mapping[str, Any]
    skipped: tuple[tuple[str, str], ...]
    values: Mapping[Value, Moments] = field(repr=False)
    weighting: Weighting = "position"
    complete: bool = True
    files: Mapping[str, Prints] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        channels = sum(moments.channels for moments in self.means.values())
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        skipped += "" if self.complete else " (incomplete: the run was interrupted)"
        what = f"{counted(channels, 'channel')} in {counted(len(self.means), 'value')}"
        return f"statistics of {what} over {counted(self.images, 'image')}{skipped}"

    def _repr_html_(self) -> str:
        """The measured values as a table, and what was skipped."""
        skipped = [f"skipped {name}: {reason}" for name, reason in self.skipped[:_SHOWN]]
        if len(self.skipped) > _SHOWN:
            skipped.append(f"... and {len(self.skipped) - _SHOWN:,} more")
        return html_block(str(self), value_table(self.values), *skipped)

    def __getitem__(self, name: str) -> Moments:
        """The moments of the mean of a value, by its name. Raises KeyError, with the names that are like it."""
        found = next((moments for value, moments in self.means.items() if value.name == name), None)
        if found is None:
            names = [value.name for value in self.means]
            near = get_close_matches(name, names) or names[:_SHOWN]
            raise KeyError(f"no value {name!r} was measured; there are {', '.join(near)}")
        return found

    def to_dataframe(self) -> pd.DataFrame:
        """Return a pandas DataFrame with a row per channel of every measured value.

        Its columns: value, measure, channel, images; mean, max, and what else was measured; standard_error and
        relative_error of the mean; live (whether the mean is large enough to divide by).

        Raises:
            OptionError: if pandas is not installed.
        """
        return data_frame(self.values)

    @property
    def means(self) -> dict[Value, Moments]:
        """The moments of the means, without other averages."""
        return {value: moments for value, moments in self.values.items() if value.measure in MEANS}

    @property
    def histograms(self) -> dict[Value, Histogram]:
        """The histograms of magnitudes by value: one for each value in `means`, or none at all."""
        pairs = ((value, moments.histogram) for value, moments in self.values.items())
        return {value: histogram for value, histogram in pairs if histogram is not None}

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the statistics that were measured in addition to means."""
        averages = {value.measure for value in self.values}
        means = list(self.means.values())
        names = [
            entry.name
            for entry in measured().values()
            if entry.average in averages or (entry.part and any(map(entry.known, means)))
        ]
        return (*names, *([RANGE] if PEAK in averages else []))

    @property
    def peaks(self) -> dict[str, Moments]:
        """The moments of the largest magnitudes of every value, by its name; empty if they were not measured."""
        return {value.name: moments for value, moments in self.values.items() if value.measure == PEAK}

    @property
    def images(self) -> int:
        """Number of images measured."""
        return max((moments.images for moments in self.values.values()), default=0)

    @property
    def settings(self) -> InputSettings:
        """What was known about the model's inputs beyond it and DATA, such as values that all samples shared."""
        return settings_from_record(self.inputs.get(GIVEN))

    @property
    def log_standard_errors(self) -> dict[float, float]:
        """Standard error of the logarithm of a forecast, by share of filters; empty if it is not known."""
        return {float(share): float(error) for share, error in self.inputs.get(FORECAST_ERRORS, {}).items()}

    def __add__(self, other: Statistics) -> Statistics:
        """Return statistics over the images of both. Raises StatisticsError if they cannot be merged."""
        for name, mine, theirs in (
            ("model", self.model, other.model),
            ("preprocessing", self.inputs.get("preprocessing"), other.inputs.get("preprocessing")),
            ("values or axes of inputs", self.inputs.get(GIVEN), other.inputs.get(GIVEN)),
            ("filters", self.filters, other.filters),
            ("weighting", self.weighting, other.weighting),
            ("range of every value: one lacks calibrate --measure range", bool(self.peaks), bool(other.peaks)),
            ("measured values", set(self.values), set(other.values)),
            ("percentiles", set(self.histograms), set(other.histograms)),
        ):
            if mine != theirs:
                raise StatisticsError(f"these statistics differ in their {name}, so they cannot be merged")
        sources = joined_sources(
            self.inputs.get("sources", []), other.inputs.get("sources", []), self.files, other.files
        )
        return replace(
            self,
            inputs={name: entry for name, entry in self.inputs.items() if name != FORECAST_ERRORS}
            | {"sources": sources},
            skipped=self.skipped + other.skipped,
            complete=self.complete and other.complete,
            files=joined_prints(self.files, other.files),
            values={value: moments + other.values[value] for value, moments in self.values.items()},
        )

    def check_model(self, digest: str) -> None:
        """Raise StatisticsError unless they were measured on the model with this digest."""
        if self.model != digest:
            raise StatisticsError(
                f"the statistics were measured on another model (digest {self.model[:12]}, this one {digest[:12]}); "
                "calibrate this model"
            )

    @classmethod
    def merged(cls, parts: Iterable[Statistics]) -> Statistics:
        """Return the sum of these statistics. Raises StatisticsError if they cannot be merged."""
        return reduce(lambda left, right: left + right, parts)

    def _content(self) -> Content:
        header = {
            "model": self.model,
            "version": self.version,
            "filters": self.filters,
            "weighting": self.weighting,
            "complete": self.complete,
            "images": self.images,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "inputs": self.inputs,
            "skipped": self.skipped,
        }
        return Content(header, self.values, self.files)

    @classmethod
    def _built(cls, content: Content) -> Statistics:
        header = content.header
        return cls(
            model=header["model"],
            version=header["version"],
            filters=header["filters"],
            shapes={name: tuple(shape) for name, shape in header["shapes"].items()},
            inputs=header["inputs"],
            skipped=tuple((name, reason) for name, reason in header["skipped"]),
            values=content.values,
            weighting=header.get("weighting", "position"),
            complete=header.get("complete", True),
            files=content.files,
        )

    def to_bytes(self) -> bytes:
        """Return the bytes of a statistics file (safetensors)."""
        return self._content().to_bytes()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a statistics file atomically. Raises StatisticsError if it cannot be written."""
        self._content().save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read a statistics file. Raises StatisticsError if it does not exist or is not a statistics file."""
        return read_content(path, cls._built)
