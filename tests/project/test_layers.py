"""The house keeps its order: imports point one way, the surface is what it says, and importing it is cheap."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

import pytest

import onnxnorm

PACKAGE = Path(onnxnorm.__file__).parent
TESTS = Path(__file__).resolve().parents[1]
FILES = {
    ".".join(("onnxnorm", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# From the roof down. A room imports from rooms below its own, never from its neighbours on the same level.
LEVELS = (
    {"__main__"},
    {"cli"},
    {"torch"},
    {"api"},
    {"report"},
    {"verification", "extraction", "exporting"},
    {"calibration", "rewriting"},
    {"data", "statistics"},
    {"scaling", "runtime", "vgg"},
    {"model"},
    {"cuda", "threads"},
    {"atomic", "display", "options"},
    {"errors", "version"},
)
HEAVY = {"PIL", "google", "ml_dtypes", "numpy", "onnx", "onnx_graphsurgeon", "onnxruntime", "rich", "safetensors"}
HEAVY |= {"scipy", "typer"}


def level(room: str) -> int:
    """How far below the roof."""
    found = [index for index, rooms in enumerate(LEVELS) if room in rooms]
    assert found, f"say in LEVELS where onnxnorm.{room} belongs"
    return found[0]


def imported(module: str, source: str, is_package: bool) -> Iterator[str]:
    """Every module of the house that a source imports, anywhere in it."""
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            target = ".".join(filter(None, [base, node.module or ""]))
            yield from (f"{target}.{alias.name}" for alias in node.names)


def violations(sources: Mapping[str, str], packages: frozenset[str] = frozenset()) -> list[str]:
    """Imports that point sideways or up, as `importer -> imported`."""
    found = []
    for module, source in sources.items():
        room = module.split(".")[1] if "." in module else None
        for target in imported(module, source, module in packages):
            parts = target.split(".")
            if parts[0] != "onnxnorm" or room is None:
                continue
            other = parts[1] if len(parts) > 1 else ""
            if other != room and (not other or level(other) <= level(room)):
                found.append(f"{module} -> {target}")
    return found


def test_imports_point_one_way() -> None:
    packages = frozenset(name for name, path in FILES.items() if path.name == "__init__.py")
    sources = {name: path.read_text("utf-8") for name, path in FILES.items()}
    assert len(sources) > 40
    assert violations(sources, packages) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("onnxnorm.rewriting.scales", "from onnxnorm.calibration.job import Job"),
        ("onnxnorm.calibration.calibrate", "def late():\n    import onnxnorm.rewriting.rewrite"),
        ("onnxnorm.scaling.walk", "from onnxnorm.statistics import Statistics"),
        ("onnxnorm.model.files", "from onnxnorm import scaling"),
        ("onnxnorm.model.files", "from ..errors import ModelError\nfrom ..scaling.slots import Slots"),
        ("onnxnorm.verification.verify", "from onnxnorm.report.terminal.tables import layer_table"),
        ("onnxnorm.api", "if TYPE_CHECKING:\n    from onnxnorm.cli import main"),
        ("onnxnorm.errors", "import onnxnorm"),
    ],
)
def test_the_check_can_fail(module: str, source: str) -> None:
    assert len(violations({module: source})) == 1


def test_the_check_lets_pass_what_is_right() -> None:
    right = (
        "import numpy\nfrom onnxnorm.model.files import Model\nfrom . import slots\nfrom onnxnorm.scaling import walk"
    )
    assert violations({"onnxnorm.scaling.groups": right}) == []


def test_no_test_module_imports_another() -> None:
    """What several test modules need lies in tests/helpers or tests/corpus."""
    importers = [
        f"{path.name}: {target}"
        for path in sorted(TESTS.rglob("*.py"))
        for target in imported(path.stem, path.read_text("utf-8"), path.name == "__init__.py")
        if target.startswith("tests.") and any(part.startswith("test_") for part in target.split("."))
    ]
    assert importers == []


def test_a_new_room_must_be_given_its_place() -> None:
    with pytest.raises(AssertionError, match=r"say in LEVELS where onnxnorm.cellar belongs"):
        violations({"onnxnorm.cellar": "from onnxnorm import errors"})


def modules(statement: str) -> set[str]:
    """The modules that are loaded after a statement in a fresh interpreter."""
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def loaded(statement: str) -> set[str]:
    """The top-level packages that are loaded after a statement in a fresh interpreter."""
    return {name.partition(".")[0] for name in modules(statement)}


def test_importing_loads_nothing_heavy() -> None:
    assert loaded("import onnxnorm") & HEAVY == set()
    assert {"onnx", "onnxruntime", "numpy"} <= loaded("import onnxnorm; onnxnorm.calibrate")


def test_measuring_loads_no_solver() -> None:
    """Loading SciPy's matrices takes longer than measuring an image."""
    models = Path(onnxnorm.__file__).parents[1] / "models"
    model, images = models / "demo_vgg.onnx", models / "images"
    measured = modules(f"import onnxnorm; s = onnxnorm.calibrate({str(model)!r}, {str(images)!r}, limit=1)")
    assert not {name for name in measured if name.startswith(("scipy.sparse", "scipy.linalg", "onnx.reference"))}
    assert "scipy.sparse" in modules(f"import onnxnorm; onnxnorm.rewrite({str(model)!r}, statistic='weights')")


def test_the_surface_is_sorted_and_resolves() -> None:
    assert onnxnorm.__all__ == sorted(onnxnorm.__all__)
    assert set(dir(onnxnorm)) == set(onnxnorm.__all__)
    for name in onnxnorm.__all__:
        thing = getattr(onnxnorm, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name
            assert not (thing.__doc__ or "").startswith(f"{name}("), f"{name} has only the docstring of its fields"
    with pytest.raises(AttributeError, match="no attribute 'normalise'"):
        onnxnorm.normalise  # noqa: B018


def test_errors_form_one_tree() -> None:
    errors = [getattr(onnxnorm, name) for name in onnxnorm.__all__ if name.endswith("Error")]
    assert all(issubclass(error, onnxnorm.OnnxnormError) for error in errors)
    assert {error.__name__: error.exit_code for error in errors if error.exit_code != 1} == {"VerificationError": 3}


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("onnxnorm.calibration.engines.ray")])
def test_every_module_says_what_it_is_and_what_it_offers(name: str) -> None:
    module = import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for item in getattr(module, "__all__", []):
        assert hasattr(module, item), f"{name} offers {item}, which it does not have"
