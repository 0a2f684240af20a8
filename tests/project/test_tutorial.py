"""The notebook of the documentation runs from its first cell to its last, and shows what it promises."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

nbformat: Any = pytest.importorskip("nbformat", reason="nbformat is not installed (extra test)")
for _name, _extra in (("nbclient", "test"), ("ipykernel", "test"), ("ipywidgets", "notebook"), ("pandas", "notebook")):
    pytest.importorskip(_name, reason=f"{_name} is not installed (extra {_extra})")
pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def read() -> Any:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any, kind: str = "text/html") -> str:
    return "".join(output.data[kind] for output in cell.outputs if kind in output.get("data", {}))


def test_it_is_stored_without_outputs() -> None:
    for cell in code_cells(read()):
        assert (cell.outputs, cell.execution_count) == ([], None)
    assert str(Path.home()) not in NOTEBOOK.read_text("utf-8")


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The code cells, run in a kernel with the package that is tested and with a home folder of its own."""
    from nbclient import NotebookClient

    home = str(tmp_path_factory.mktemp("home"))
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {"PYTHONPATH": path, "HOME": home, "IPYTHONDIR": home, "JUPYTER_RUNTIME_DIR": home}
    notebook = read()
    with mock.patch.dict(os.environ, own):
        NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": NOTEBOOK.parent}}
        ).execute()
    return code_cells(notebook)


@pytest.mark.filterwarnings("default")  # what the kernel's own packages deprecate is theirs
def test_it_runs_and_shows_tables(executed: list[Any]) -> None:
    html = [shown(cell) for cell in executed]
    assert "240 filters in 8 layers: 240 free" in html[1]
    assert "statistics of 240 channels in 8 values over 48 images" in html[2]
    assert html[3].count("relu") == 8
    assert "the same function" in html[5]
    assert "<svg" in html[6]
    assert "conv4_2" in html[6]
    assert "the same function" in html[8]


@pytest.mark.filterwarnings("default")
def test_it_shows_a_progress_bar(executed: list[Any]) -> None:
    assert importlib.util.find_spec("ipywidgets")
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in executed[2].outputs)
    assert not any(output.get("name") == "stderr" for cell in executed for output in cell.outputs)


@pytest.mark.filterwarnings("default")
def test_means_are_one_afterwards(executed: list[Any]) -> None:
    text = shown(executed[7], "text/plain")
    numbers = {line.split()[0]: float(line.split()[1]) for line in text.splitlines()[:-1]}
    assert numbers["count"] == 239
    assert numbers["min"] == pytest.approx(1, abs=1e-3)
    assert numbers["max"] == pytest.approx(1, abs=1e-3)


@pytest.mark.filterwarnings("default")
def test_nothing_is_left_behind(executed: list[Any]) -> None:
    assert executed
    assert [path.name for path in NOTEBOOK.parent.iterdir() if path.suffix in {".onnx", ".safetensors"}] == []
