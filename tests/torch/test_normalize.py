"""`onnxnorm.torch.normalize_`: same module, same parameters, same output, filters at 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxnorm
from onnxnorm.errors import DataError, ModelError, OptionError, VerificationError

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")

from torch import nn  # noqa: E402

from onnxnorm.torch import Normalized, normalize_  # noqa: E402
from onnxnorm.torch.epsilons import Epsilons  # noqa: E402
from onnxnorm.torch.state import State  # noqa: E402
from tests.torch import networks  # noqa: E402

EXPORTERS = ["torchscript", pytest.param("dynamo", marks=pytest.mark.slow)]


def images(count: int = 12, side: int = 16, seed: int = 0) -> Any:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def built(make: Any, seed: int = 3) -> Any:
    """A module with parameters from a seed; its batch normalization has seen a batch."""
    torch.manual_seed(seed)
    module = make()
    with torch.no_grad():
        module.train()(images(seed=1)) if not isinstance(module, networks.TwoInputs) else None
    return module.eval()


def means(module: Any, batch: Any) -> list[Any]:
    """The mean activation of each channel behind each ReLU."""
    found: list[Any] = []
    hooks = [
        part.register_forward_hook(lambda _, __, out: found.append(out.mean((0, 2, 3))))
        for part in module.modules()
        if isinstance(part, nn.ReLU)
    ]
    with torch.no_grad():
        module.eval()(batch)
    for hook in hooks:
        hook.remove()
    return found


def output(module: Any, *batch: Any) -> Any:
    with torch.no_grad():
        found = module(*batch)
    return found["map"] if isinstance(found, dict) else found[0] if isinstance(found, tuple) else found


def state(module: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same_state(module: Any, before: dict[str, Any]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("make", [networks.plain, networks.normed])
def test_every_filter_ends_at_one_and_the_output_stays(make: Any, exporter: str) -> None:
    module = built(make).train()
    module[-1].eval()  # a part that its owner froze
    objects = {name: id(parameter) for name, parameter in module.named_parameters()}
    modes = [part.training for part in module.modules()]
    module.eval()
    before = output(module, images(seed=5))
    for part, mode in zip(module.modules(), modes, strict=True):
        part.training = mode
    found = normalize_(module, images(), exporter=exporter)
    assert [part.training for part in module.modules()] == modes
    assert {name: id(parameter) for name, parameter in module.named_parameters()} == objects
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert found.exporter == exporter
    assert found.reach.share == 1
    assert found.verification is not None
    assert found.verification.same
    assert found.held == {}
    assert set(found.changed) <= set(module.state_dict())
    for channel in means(module, images()):
        live = channel > 0
        torch.testing.assert_close(channel[live], torch.ones_like(channel[live]), rtol=1e-3, atol=0)
    torch.testing.assert_close(output(module, images(seed=5)), before, rtol=1e-4, atol=1e-5)
    assert "live filters (100%) end at the target" in str(found)


def test_the_result_shows_itself() -> None:
    """In one short line, and in a notebook with the reasons of what is pinned."""
    found = normalize_(built(networks.Shortcut), images(), exporter="torchscript")
    assert repr(found).startswith("<Normalized: ")
    assert "live filters" in repr(found)
    assert "\n" not in repr(found)
    html = found._repr_html_()
    assert str(found).splitlines()[1].split(";")[0] in html
    assert found.plan._repr_html_() in html


def test_outputs_that_keep_their_scale_are_told_with_the_way_out() -> None:
    features = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU()]
    advice = '; outputs="scale" normalizes outputs too'
    assert advice in str(normalize_(nn.Sequential(*features), images(), exporter="torchscript"))
    assert advice not in str(normalize_(nn.Sequential(*features), images(), exporter="torchscript", outputs="scale"))


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_shortcut_is_normalized_as_far_as_constants_go(exporter: str) -> None:
    module = built(networks.Shortcut)
    before = output(module, images(seed=5))
    found = normalize_(module, images(), exporter=exporter)
    assert 8 <= found.reach.normalized < found.reach.live
    torch.testing.assert_close(output(module, images(seed=5)), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_shared_parameter_stays_shared(exporter: str) -> None:
    module = built(networks.Reused)
    before, weight = output(module, images(seed=5)), module.middle.weight
    found = normalize_(module, images(), exporter=exporter)
    assert module.middle.weight is module.again.weight is weight
    assert any("shared by several places" in reason for reason in found.held.values())
    assert any(name.startswith("last") for name in found.changed)
    assert found.reach.normalized
    torch.testing.assert_close(output(module, images(seed=5)), before, rtol=1e-4, atol=1e-5)


def test_parameters_in_the_same_memory_keep_their_values() -> None:
    module = built(networks.SameMemory)
    before, kept = output(module, images(seed=5)), module.first.weight.clone()
    found = normalize_(module, images(), exporter="torchscript")
    assert found.held["first.weight"] == "in the same memory as second.weight"
    assert torch.equal(module.first.weight, kept)
    torch.testing.assert_close(output(module, images(seed=5)), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_constant_that_is_no_parameter_pins_what_it_touches(exporter: str) -> None:
    module = built(networks.relu6)
    before = output(module, images(seed=5))
    found = normalize_(module, images(), exporter=exporter)
    assert set(found.held.values()) <= {"not a parameter or buffer of the module"}
    assert found.reach.normalized == 8
    assert "has to keep its value" in str(found) or not found.held
    torch.testing.assert_close(output(module, images(seed=5)), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_two_inputs_come_as_a_dict(exporter: str) -> None:
    module = built(networks.TwoInputs)
    code = torch.rand(12, 2)
    before = output(module, images(seed=5), code)
    found = normalize_(module, {"image": images(), "code": code}, exporter=exporter)
    assert found.reach.normalized
    torch.testing.assert_close(output(module, images(seed=5), code), before, rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match=r"the images are for 'code', but forward\(\) takes image, code"):
        normalize_(module, {"code": code}, exporter=exporter)


class Pairs(torch.utils.data.Dataset):  # type: ignore[name-defined]
    """A data set of images with labels, without an iterator of its own."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return images()[index], index


def photographs() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    return [Image.fromarray(array) for array in pixels]


@pytest.mark.parametrize(
    "given",
    [
        images,
        lambda: images().numpy(),
        lambda: list(images()),
        lambda: list(images().split(5)),
        lambda: (batch for batch in images().split(5)),
        lambda: torch.utils.data.DataLoader(Pairs(), batch_size=5),
        Pairs,
        lambda: {"input": images()},
    ],
    ids=["tensor", "array", "samples", "batches", "generator", "loader", "dataset", "dict"],
)
def test_images_come_in_every_form(given: Any) -> None:
    expected, module = built(networks.plain), built(networks.plain)
    normalize_(expected, images(), exporter="torchscript")
    found = normalize_(module, given(), exporter="torchscript")
    assert found.statistics.images == 12
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name], rtol=1e-5, atol=1e-7)


def test_photographs_as_files_as_images_and_through_a_transform(tmp_path: Path) -> None:
    for index, photograph in enumerate(photographs()):
        photograph.save(tmp_path / f"{index:02}.png")

    def transform(image: Image.Image) -> Any:
        return torch.from_numpy(np.asarray(image).transpose(2, 0, 1) / np.float32(255))

    modules = [built(networks.plain) for _ in range(4)]
    options: dict[str, Any] = {"exporter": "torchscript"}
    normalize_(modules[0], tmp_path, preset="unit", size=16, **options)
    normalize_(modules[1], photographs(), preset="unit", size=16, **options)
    normalize_(modules[2], photographs(), transform=transform, **options)
    normalize_(modules[3], tmp_path, transform=transform, example=torch.zeros(2, 3, 16, 16), **options)
    for module in modules[1:]:
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(tensor, modules[0].state_dict()[name], rtol=1e-5, atol=1e-7)


def test_a_module_that_computes_something_else_is_left_as_it_was() -> None:
    module = built(networks.WorksOtherwise)
    before = state(module)
    with pytest.raises(VerificationError, match="computes something else than what was exported"):
        normalize_(module, images(), exporter="torchscript")
    assert same_state(module, before)


def test_too_small_a_share_leaves_the_module_as_it_was() -> None:
    module = built(networks.Shortcut)
    before = state(module)
    with pytest.raises(VerificationError, match="--require-share asks for 100%"):
        normalize_(module, images(), exporter="torchscript", require_share=1.0)
    assert same_state(module, before)


def test_options_pass_through() -> None:
    module = built(networks.plain)[:4]  # ends in a ReLU
    before = output(module, images())
    found = normalize_(module, images(), exporter="torchscript", outputs="scale", power_of_two=True, limit=6)
    assert isinstance(found, Normalized)
    assert found.statistics.images == 6
    ratio = output(module, images()) / before
    scales = ratio.nan_to_num(0).amax((0, 2, 3))
    assert torch.equal(torch.log2(scales), torch.log2(scales).round())
    assert not torch.equal(scales, torch.ones_like(scales))
    assert found.difference == 0


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_argument_may_be_called_as_a_parameter_is(exporter: str) -> None:
    module = built(networks.Namesakes)
    before, literal = output(module, images(seed=5)), module.literal.clone()
    found = normalize_(module, images(), exporter=exporter)
    assert found.reach.normalized
    assert torch.equal(module.literal, literal)
    torch.testing.assert_close(output(module, images(seed=5)), before, rtol=1e-4, atol=1e-5)
    given = {"image": images()}
    assert normalize_(built(networks.Namesakes), given, exporter=exporter).reach == found.reach


def test_scales_of_outputs_are_told_apart_by_their_position() -> None:
    module = built(networks.Labels)
    with torch.no_grad():
        labels, before = module(images())
        found = normalize_(module, images(), exporter="torchscript", outputs="scale", power_of_two=True)
        again, after = module(images())
    assert found.difference == 0
    assert torch.equal(labels, again)
    assert not torch.equal(before, after)


def test_a_constant_that_only_images_move_is_held_after_them() -> None:
    module = built(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU6()))
    before = output(module, images(seed=5))
    found = normalize_(module, images(), exporter="torchscript", outputs="scale")
    assert found.held
    assert found.reach.normalized == 4
    torch.testing.assert_close(output(module, images(seed=5)), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_epsilons_of_modules_follow(exporter: str) -> None:
    """Filters in front of a normalization share one scale: their means end at 1 on the geometric average."""
    module = built(networks.Norms)
    norms = {name: part.eps for name, part in module.named_modules() if hasattr(part, "eps")}
    before = output(module, images(seed=5))
    found = normalize_(module, images(), exporter=exporter, allow="attributes")
    assert set(found.epsilons) == set(norms) == {"first.2", "second.2", "third.2"}
    for name, epsilon in norms.items():
        assert module.get_submodule(name).eps == found.epsilons[name] != epsilon
    for channel in means(module, images())[:3]:
        assert channel[channel > 0].log().mean().exp() == pytest.approx(1, rel=1e-3)
    assert list(found.held.values()) == ["not the eps of a module"]  # of the one that is a function
    assert f"{len(found.changed)} parameters and 3 epsilons changed" in str(found)
    torch.testing.assert_close(output(module, images(seed=5)), before, rtol=1e-4, atol=1e-5)
    again = built(networks.Norms)
    assert normalize_(again, images(), exporter=exporter).epsilons == {}
    assert {name: again.get_submodule(name).eps for name in norms} == norms


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_powers_of_two_in_epsilons_are_exact(exporter: str) -> None:
    module = built(networks.Norms)
    norms = {name: part.eps for name, part in module.named_modules() if hasattr(part, "eps")}
    found = normalize_(module, images(), exporter=exporter, allow="attributes", power_of_two=True)
    assert {float(np.frexp(found.epsilons[name] / norms[name])[0]) for name in norms} == {0.5}
    assert found.difference == 0


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_epsilon_that_is_wanted_at_two_values_is_held(exporter: str) -> None:
    module = built(networks.NormTwice)
    found = normalize_(module, images(), exporter=exporter, allow="attributes")
    assert found.epsilons == {}
    assert module.norm.eps == 1e-5
    assert set(found.held.values()) == {"the eps of module 'norm', which runs several times, at different scales"}
    assert "1 others keep their values: the eps of module 'norm'" in str(found)


def test_epsilons_are_set_back_if_anything_fails() -> None:
    module = networks.Norms()
    epsilons = Epsilons(module, onnx.ModelProto())
    with pytest.raises(AssertionError), epsilons.replaced({"first.2": 2.0, "third.2": 3.0}):
        assert (module.first[2].eps, module.third[2].eps) != (2, 3)
    assert (module.first[2].eps, module.third[2].eps) == (1e-3, 1e-5)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_nodes_are_added_to_files_only(exporter: str) -> None:
    module = built(networks.Shortcut)
    before = state(module)
    with pytest.raises(ModelError, match=r"has no room, between node '.*' and .* and \d+ more; use allow='attributes'"):
        normalize_(module, images(), exporter=exporter, allow="nodes")
    assert same_state(module, before)
    assert normalize_(built(networks.plain), images(), exporter=exporter, allow="nodes").reach.share == 1  # needs none


def test_a_renamed_constant_is_found_by_its_values_if_they_say_which_it_is() -> None:
    module = networks.plain()
    names = State(module)
    weight, bias = (getattr(module[0], name).detach().numpy() for name in ("weight", "bias"))
    assert names.name_of("0.weight", weight, frozenset()) == "0.weight"
    assert names.name_of("0.weight", weight + 1, frozenset()) is None
    assert names.name_of("val_3", bias, frozenset()) == "0.bias"
    assert names.name_of("val_3", bias, frozenset({"0.bias"})) is None
    module[2].bias.data = module[2].bias.data.new_ones(6)
    assert State(module).name_of("val_3", np.ones(6, np.float32), frozenset()) is None
    module.register_buffer("twin", module[0].bias.detach().clone())
    assert State(module).name_of("val_3", bias, frozenset()) is None


def test_what_cannot_be_taken_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    module = built(networks.plain)
    with pytest.raises(OptionError, match=r"takes a torch\.nn\.Module, not a str"):
        normalize_("model.onnx", images())
    with pytest.raises(DataError, match="there are no images"):
        normalize_(module, [])
    with pytest.raises(DataError, match="an item of the images is a str"):
        normalize_(module, [images(), "photograph.png"], exporter="torchscript")
    with pytest.raises(DataError, match="the images are a int"):
        normalize_(module, 3)
    with pytest.raises(TypeError, match="there is no option 'tolerence'"):
        normalize_(module, images(), tolerence=1)
    with pytest.raises(DataError, match="its dtype is float64, but input 'input' takes float32"):
        normalize_(module, images().double(), exporter="torchscript")
    with pytest.raises(ModelError, match="PyTorch cannot export Sequential to ONNX"):
        normalize_(module, torch.zeros(2, 7, 16, 16), exporter="torchscript")
    uneven = nn.Sequential(module[0], nn.AdaptiveAvgPool2d(7))
    with pytest.raises(
        ModelError, match="SymbolicValueError: Unsupported: ONNX export of operator adaptive_avg_pool2d"
    ):
        normalize_(uneven, images(), exporter="torchscript")
    assert capfd.readouterr() == ("", "")
    for dtype in (torch.bfloat16, torch.float64):
        with pytest.raises(ModelError, match=r"'0\.weight' is (bfloat16|float64), .* normalize module\.float\(\)"):
            normalize_(built(networks.plain).to(dtype), images())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("vgg11_bn", 1.0), ("resnet18", 0.35)])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_networks_of_torchvision(name: str, share: float, exporter: str) -> None:
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    torch.manual_seed(0)
    module = torchvision.models.get_model(name, weights=None, num_classes=10)
    side = 224 if name.startswith("vgg") else 64  # at other sizes the old exporter has no adaptive pooling for it
    batch = images(8, side)
    with torch.no_grad():
        module.train()(batch)
    module.eval()
    before = output(module, images(4, side, seed=2))
    found = onnxnorm.torch.normalize_(module, batch, exporter=exporter)
    assert found.reach.share >= share
    torch.testing.assert_close(output(module, images(4, side, seed=2)), before, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_the_bridges_of_a_resnet_are_refused_by_name(exporter: str) -> None:
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    module = built(lambda: torchvision.models.resnet50(weights=None, num_classes=10))
    before = state(module)
    with pytest.raises(ModelError, match=r"between node '.*(?i:relu|add).*' and node .*onnxnorm\.normalize\("):
        normalize_(module, images(4, 64), exporter=exporter, allow="nodes")
    assert same_state(module, before)
