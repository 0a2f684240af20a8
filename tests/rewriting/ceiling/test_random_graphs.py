"""Random graphs under random ceilings: at or below, or named with a true reason; the same bits; the original back."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxnorm.model.files import Model
from onnxnorm.rewriting import rewrite_model
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.scaling.levels import LEVELS, Level
from tests.corpus import feeds
from tests.helpers.ceilings import check, ranged
from tests.helpers.random_graphs import networks
from tests.helpers.runtimes import recent

EXAMPLES = int(os.environ.get("ONNXNORM_EXAMPLES", "30"))
RANDOM = settings(
    deadline=None, derandomize=True, database=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("level", LEVELS)
@RANDOM
@given(networks(), st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([1.0, 0.01]))
def test_random_graphs(level: Level, proto: onnx.ModelProto, share: float, factor: float) -> None:
    samples = feeds(proto, 4, seed=1)
    statistics = ranged(proto, samples)
    peaks = [float(np.asarray(moments.largest).max(initial=0.0)) for moments in statistics.peaks.values()]
    ceiling = float(np.quantile(peaks, share)) * factor or 1.0
    done = rewrite_model(Model.open(proto), statistics, ScaleOptions(ceiling=ceiling, allow=level))
    check(done, proto, samples, ceiling)
    assert done.ceiling is not None
    assert len(done.ceiling.above) <= sum(peak > ceiling for peak in peaks) or done.nodes_added


@recent
@RANDOM
@given(networks())
def test_a_higher_level_never_leaves_more(proto: onnx.ModelProto) -> None:
    samples = feeds(proto, 3, seed=2)
    statistics = ranged(proto, samples)
    peaks = [float(np.asarray(moments.largest).max(initial=0.0)) for moments in statistics.peaks.values()]
    ceiling = float(np.median(peaks)) / 4 or 1.0
    left = []
    for level in LEVELS:
        done = rewrite_model(Model.open(proto), statistics, ScaleOptions(ceiling=ceiling, allow=level))
        assert done.ceiling is not None
        left.append(len(done.ceiling.above))
    assert left == sorted(left, reverse=True)
