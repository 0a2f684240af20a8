"""What measurements need beforehand: arrays, statistics, synthetic networks. Nothing here is timed."""

from __future__ import annotations

from pathlib import Path

from tools.benchmarks.tasks import Given, Report, task


@task
def preprocess(given: Given) -> Report:
    """Write the preprocessed inputs of a folder of photographs as one array, and say how they were made.

    What scripts make of the first batch by that recipe must be the same numbers.
    """
    import numpy as np

    from onnxnorm.data.images.options import ImageOptions
    from onnxnorm.data.opening import open_data
    from onnxnorm.model.files import Model
    from onnxnorm.model.graph import input_specs
    from tools.benchmarks.recipe import listed, stacked

    options = ImageOptions(preset=given["preset"], size=given["size"])
    dataset = open_data(given["photos"], input_specs(Model.open(given["model"])), options)
    rows = np.concatenate([next(iter(batch.feeds.values())) for batch in dataset.batches(given["batch"])])
    np.save(given["arrays"], rows)
    assert dataset.preprocessing is not None
    recipe = dataset.preprocessing.to_json()
    scripted = stacked(listed(given["photos"])[: given["batch"]], recipe)
    assert np.array_equal(scripted, rows[: given["batch"]]), "scripts preprocess differently from onnxnorm"
    return {"images": len(rows), "recipe": recipe}


@task
def batch_of(given: Given) -> Report:
    """Copy a network, with its batch fixed at 1 if that is asked; say the shape of a sample, and if it is."""
    import onnx

    proto = onnx.load(given["source"])
    constants = {tensor.name for tensor in proto.graph.initializer}
    (taken,) = [value for value in proto.graph.input if value.name not in constants]
    batch, *dims = taken.type.tensor_type.shape.dim
    was_fixed = batch.dim_value > 0
    if given["fixed"]:
        batch.dim_value = 1
    onnx.save(proto, given["model"])
    return {"sample": [dim.dim_value or given["side"] for dim in dims], "fixed": was_fixed or given["fixed"]}


@task
def random_rows(given: Given) -> Report:
    """Write an array of random inputs between 0 and 1, `(images, *sample)`."""
    import numpy as np

    random = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(given["arrays"], "w+", np.float32, (given["images"], *given["sample"]))
    for row in rows:
        row[...] = random.random(given["sample"], np.float32)
    rows.flush()
    return {}


@task
def random_statistics(given: Given) -> Report:
    """Calibrate once on random arrays, to have statistics."""
    import numpy as np

    import onnxnorm

    rows = np.random.default_rng(16).standard_normal((2, 3, 224, 224)).astype(np.float32) * 50
    onnxnorm.calibrate(given["model"], [rows], provider="cpu").save(given["statistics"])
    return {}


@task
def synthetic(given: Given) -> Report:
    """Write a synthetic network, with invented statistics for it."""
    import numpy as np
    import onnx

    from onnxnorm.calibration.build import sites_of
    from onnxnorm.model.files import Model
    from onnxnorm.model.graph import input_specs
    from onnxnorm.model.shapes import read_graph, sample_shapes
    from onnxnorm.scaling import find_layers, trace
    from onnxnorm.statistics import Moments, Statistics, Value
    from tools.benchmarks.graphs import network

    proto = network(given["family"], given["nodes"])
    onnx.save(proto, given["model"])
    model = Model.open(given["model"])
    shapes = sample_shapes(input_specs(model))
    graph = read_graph(model, shapes)
    rng = np.random.default_rng(0)
    values = {}
    for site in sites_of(find_layers(trace(graph))):
        means = rng.uniform(0.1, 5, (4, graph.shapes[site.value][site.axis]))
        values[Value(site.value, site.measure)] = Moments.of(means, means + 5, np.full(4, 256))
    Statistics(model.digest(), "invented", "conv", shapes, {}, (), values).save(given["statistics"])
    return {"nodes": len(proto.graph.node)}


@task
def sparse(given: Given) -> Report:
    """Write a sparse .npy file of zeros, `(rows, 3, 512, 512)`, and a network of one convolution for it."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    shape = (given["rows"], 3, 512, 512)
    with Path(given["arrays"]).open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + 4 * int(np.prod(shape, dtype=np.int64)))
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "weight", "bias"], ["conv"], "conv", strides=[8, 8]),
            helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        ],
        "one convolution",
        [helper.make_tensor_value_info("input", 1, ["N", *shape[1:]])],
        [helper.make_tensor_value_info("relu", 1, None)],
        [
            numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "weight"),
            numpy_helper.from_array(np.ones(4, np.float32), "bias"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), given["model"])
    return {}
