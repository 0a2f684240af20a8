"""`normalize_`: calibrate a PyTorch module, and put the rewritten constants back into its own parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import onnx
from numpy.typing import NDArray

from onnxnorm.api import CalibrationOptions, NormalizeOptions, RewriteOptions, Rewritten, calibrate, rewrite
from onnxnorm.api.common import SAMPLES, Feeds, batches_of
from onnxnorm.calibration.calibrate import Progress
from onnxnorm.data.opening import open_data
from onnxnorm.display import Raw, Shown, html_block
from onnxnorm.errors import DataError, ModelError, OptionError, StatisticsError, VerificationError
from onnxnorm.model.constants import REPLACEABLE
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.options import documented
from onnxnorm.rewriting.reach import Reach
from onnxnorm.scaling import Plan
from onnxnorm.statistics import Statistics
from onnxnorm.torch.comparison import TOLERANCES, difference, run
from onnxnorm.torch.data import Images, argument_names, example_of, input_name
from onnxnorm.torch.epsilons import Epsilons
from onnxnorm.torch.exporting import export_module
from onnxnorm.torch.installed import exporters, load_torch
from onnxnorm.torch.parameters import Change, changes_of, hold_others
from onnxnorm.torch.state import State, evaluating
from onnxnorm.verification import Verification

__all__ = ["Normalized", "normalize_"]


@dataclass(frozen=True, repr=False)
class Normalized(Shown):
    """The outcome of `normalize_`.

    Attributes:
        plan: which filters could be scaled, and which could not.
        reach: how many filters end at the target, and what keeps the others from it.
        verification: the verdict on the exported model, before and after; None if that was not wanted.
        statistics: what was measured on the images.
        changed: names of the parameters and buffers whose values changed.
        epsilons: the new epsilons of normalizations, by the name of the module, at the level `attributes`.
        held: why other constants and attributes had to keep their values, by name.
        difference: the largest difference of the module's own outputs, relative to their largest magnitude.
        exporter: the exporter that was used.
    """

    plan: Plan
    reach: Reach
    verification: Verification | None
    statistics: Statistics
    changed: tuple[str, ...]
    epsilons: Mapping[str, float]
    held: Mapping[str, str]
    difference: float
    exporter: str

    def __str__(self) -> str:
        reach = self.reach
        whole = reach.normalized == reach.live
        first = f"{reach.normalized:,} of {reach.live:,} live filters ({reach.share:.0%}) end at the target"
        first += "" if whole else f"; of the others {reach.obstacle.replace(REPLACEABLE, 'has to keep its value')}"
        first += (
            '; outputs="scale" normalizes outputs too' if not whole and reach.advice.startswith("--outputs") else ""
        )
        count = len(self.epsilons)
        more = f"and {count} epsilon{'s' if count > 1 else ''} " if count else ""
        changed = f"{len(self.changed)} parameters {more}"
        changed += f"changed; the module's outputs differ by {self.difference:.1e} of the largest magnitude"
        lines = [first, changed]
        for reason in dict.fromkeys(self.held.values()):
            names = [name for name, why in self.held.items() if why == reason]
            more = f" and {len(names) - 1:,} others keep their values" if names[1:] else " keeps its value"
            lines.append(f"{names[0]}{more}: {reason}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What was reached, and the table of the plan: which layers, and why some of their filters are pinned."""
        return html_block(*str(self).splitlines(), Raw(self.plan._repr_html_()))


@documented(NormalizeOptions)
def normalize_(
    module: Any,
    images: Any,
    *,
    exporter: str | None = None,
    example: Any = None,
    progress: Callable[[Progress], None] | None = None,
    options: NormalizeOptions | None = None,
    **keywords: Any,
) -> Normalized:
    """Scale a module's own parameters so that every filter's mean activation is 1 and its outputs stay the same.

    The module is exported to ONNX in memory as it runs in evaluation mode, with its batch normalization; its parameters
    are changed in place, and each part's mode (`training`) stays as it is. Constants that are no parameters, such as
    the 6 of a ReLU6, and shared parameters whose places need different scales keep their values, and pin what they
    touch. If anything fails, the module is as it was.

    With `allow="attributes"` the `eps` of normalizations follows too, where it belongs to one module that can be told.
    `allow="nodes"` is refused where nodes would have to be added, since a module has no place for them.

    Args:
        module: a `torch.nn.Module`.
        images: tensors, arrays, PIL images, a DataLoader (of tuples the first item), a data set, or whatever
            `onnxnorm.calibrate` takes; for several arguments of `forward` a dict of tensors by argument.
        exporter: "dynamo" or "torchscript"; None for the first of these that is installed and can export the module.
        example: a tensor, or a tuple of them, to export the module with; None for the first two images.
        progress: called after every batch.
        options: all options as one object, instead of keywords.
        **keywords: options by name, below.

    Returns:
        The plan, what it reached, and the verdict.

    Raises:
        OptionError: without PyTorch or the exporter, or if the value of an option makes no sense.
        ModelError: if the module cannot be exported or run in ONNX Runtime, or `allow="nodes"` needs new nodes.
        DataError: if images are missing, or do not fit the module.
        VerificationError: if outputs differ, or fewer filters than required end at the target. The module is as it was
            then.
    """
    chosen = exporters(exporter)
    options = NormalizeOptions.of(options, keywords)
    module = _checked(module, options)
    with evaluating(module):
        source = Images(images, options)
        state = State(module)
        names = argument_names(module, source)
        tensors = example_of(module, names, source, example)
        source.arguments = {input_name(name, state.tensors): name for name in tensors}
        fed = dict(zip(source.arguments, tensors.values(), strict=True))
        proto, used = export_module(module, fed, state.tensors, chosen)
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in fed.items()}
        work = _Work(module, state, proto, arrays, options, used)
        return work.finish(source, work.measure(source, progress))


def _checked(module: Any, options: NormalizeOptions) -> Any:
    """The module itself, if it can be normalized in place."""
    torch = load_torch()
    module = getattr(module, "_orig_mod", module)  # what torch.compile returned
    if not isinstance(module, torch.nn.Module):
        raise OptionError(f"normalize_ takes a torch.nn.Module, not a {type(module).__name__}")
    if options.inputs_as_constants:
        raise OptionError("inputs_as_constants is for models in files: a module has no such inputs; leave it out")
    for name, parameter in module.named_parameters():
        if parameter.dtype in {torch.bfloat16, torch.float64}:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise ModelError(
                f"parameter {name!r} is {kind}, in which ONNX Runtime runs no convolutions; normalize module.float(), "
                "and convert it back then"
            )
        if parameter.device.type == "meta":
            raise ModelError(f"parameter {name!r} has no values (it is on the device 'meta'); load them first")
    return module


class _Work:
    """One run of `normalize_`, from the exported model on."""

    def __init__(
        self,
        module: Any,
        state: State,
        proto: onnx.ModelProto,
        example: Mapping[str, NDArray[Any]],
        options: NormalizeOptions,
        used: str,
    ) -> None:
        self.module, self.state, self.proto, self.example = module, state, proto, example
        self.model: Any = Model.open(proto)  # once, since a large one takes seconds; the verbs take it as it is
        self.options, self.exporter = options, used
        self.held: dict[str, str] = {}
        self.epsilons = Epsilons(module, proto)

    def measure(self, source: Images, progress: Callable[[Progress], None] | None) -> Statistics:
        """Calibrate, first on the two samples of the export, which tells what has to be held.

        What is held may change where a filter is measured, so it should be known before all images are read.
        """
        options = self.options
        with suppress(StatisticsError, DataError):  # the images will tell, if they are not better
            measuring = options.part(CalibrationOptions, limit=None, measure=(), transform=None)
            few = calibrate(self.model, self.example, options=measuring)
            trial = options.part(RewriteOptions, statistic="mean", ceiling=None, verify=False, require_share=None)
            self._rewrite(few, trial)
        data = source.data(input_specs(self.model))
        transform = None if source.files is None else options.transform  # of other images it made arrays already
        measuring = options.part(CalibrationOptions, measure=options.to_measure, transform=transform)
        return calibrate(self.model, data, options=measuring, progress=progress)

    def finish(self, source: Images, statistics: Statistics) -> Normalized:
        """Rewrite, put the parameters in place, and compare."""
        outcome, changes, epsilons = self._rewrite(statistics, self.options.part(RewriteOptions))
        feeds = self._feeds(source)
        place = next(self.module.parameters(), None)
        device = "cpu" if place is None else place.device
        before = run(self.module, feeds, device)
        values = {change.parameter: change.values for change in changes}
        with self.state.replaced(values), self.epsilons.replaced(epsilons):
            scales = [outcome.rewriting.outputs.get(value.name) for value in self.proto.graph.output]
            error = difference(before, run(self.module, feeds, device), scales)
            limit = self._tolerance(outcome.verification, before)
            if self.options.verify and not error <= limit:
                raise VerificationError(
                    f"the module's outputs differ by {error:.1e} of the largest magnitude (tolerance {limit:.1e}), "
                    "though those of the exported model do not: it computes something else than what was exported; the "
                    "module is as it was"
                )
        return Normalized(
            plan=outcome.plan,
            reach=outcome.reach,
            verification=outcome.verification,
            statistics=statistics,
            changed=tuple(values),
            epsilons=epsilons,
            held=self.held,
            difference=error,
            exporter=self.exporter,
        )

    def _rewrite(
        self, statistics: Statistics | None, options: RewriteOptions
    ) -> tuple[Rewritten, list[Change], dict[str, float]]:
        """Rewrite, holding constants and attributes until all that change belong to the module."""
        while True:
            outcome = rewrite(self.model, statistics, options=options)
            changes, others = changes_of(self.model, outcome, self.state)
            epsilons, attributes = self.epsilons.changes_of(outcome.rewriting.record)
            if not others and not attributes:
                return outcome, changes, epsilons
            hold_others(self.proto, others, attributes, self.held)
            self.model = Model.open(self.proto)
            if statistics is not None:  # the same network, of which less may change
                statistics = replace(statistics, model=self.model.digest())

    def _feeds(self, source: Images) -> list[Feeds]:
        """The first images, as the module is fed with them."""
        dataset = open_data(source.kept or source.files, input_specs(self.model), self.options)
        with closing(batches_of(self.model, dataset, self.options.batch_size, SAMPLES)) as batches:
            feeds = [dict(batch.feeds) for batch in islice(batches, SAMPLES)]
        if not feeds:
            raise DataError("there are no images to compare the module's outputs on")
        return feeds  # type: ignore[return-value]

    def _tolerance(self, verification: Verification | None, before: list[Any]) -> float:
        if self.options.tolerance_output is not None:
            return self.options.tolerance_output
        kinds = {array.dtype.name for arrays in before for array in arrays} or {"float32"}
        judged = [verdict.tolerance for verdict in verification.outputs.values()] if verification else []
        return max([*judged, *(TOLERANCES.get(kind, TOLERANCES["float32"]) for kind in kinds)])
