"""`__all__` lists what other modules import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _modules(folder: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text())


def _listed(tree: ast.Module) -> set[str] | None:
    found: set[str] | None = None
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign | ast.AugAssign)
            if isinstance(node.value, ast.List | ast.Tuple):
                found = (found or set()) | {ast.literal_eval(item) for item in node.value.elts}
    return found


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("onnxnorm"):
            yield from ((node.module, alias.name) for alias in node.names)


def test_names_that_are_shared_are_listed() -> None:
    own = dict(_modules("onnxnorm"))
    listed = {name: _listed(tree) for name, tree in own.items()}
    used = {pair for tree in own.values() for pair in _imports(tree)}
    missing = {
        f"{module}.{name}"
        for module, name in used
        if (names := listed.get(module)) is not None and name not in names and f"{module}.{name}" not in own
    }
    assert not missing
    assert ("onnxnorm.model.graph", "Graph") in used
