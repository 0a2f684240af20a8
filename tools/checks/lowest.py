"""Print the lowest version of every dependency that pyproject.toml allows, as pip's constraints.

    python3.10 -m venv build/lowest
    build/lowest/bin/python -m tools.checks.lowest > build/lowest.txt
    build/lowest/bin/python -m pip install -c build/lowest.txt -e '.[test]'
    build/lowest/bin/python -m pytest -q

Run it with the interpreter that is to be tested: what is meant for another system or another Python is left out. Take
one of the oldest Pythons that are supported, since old versions have no wheels for new ones. Extras for work on the
project itself (LEFT_OUT) are left out too: what linters say depends on their version. A bound must be a version that
exists, such as 4.25.1 and not 4.25 where there is no 4.25.0.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

try:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
except ModuleNotFoundError:  # a new environment has pip only
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]
    from pip._vendor.packaging.utils import canonicalize_name  # type: ignore[assignment]
if sys.version_info >= (3, 11):
    import tomllib
else:
    try:
        import tomli as tomllib
    except ModuleNotFoundError:
        from pip._vendor import tomli as tomllib

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
LEFT_OUT = {"check", "dist", "docs"}


def requirements(text: str) -> Iterator[str]:
    """What a pyproject.toml asks for, extras included; not the project itself, which extras name to build on others."""
    project = tomllib.loads(text)["project"]
    extras = project.get("optional-dependencies", {})
    for line in [*project["dependencies"], *(line for name in extras if name not in LEFT_OUT for line in extras[name])]:
        if canonicalize_name(Requirement(line).name) != canonicalize_name(project["name"]):
            yield line


def pins(lines: Iterable[str], environment: dict[str, str] | None = None) -> list[str]:
    """`name==lowest` for each requirement that holds in an environment, by default in this one.

    Raises ValueError where there is no one lower bound.
    """
    lowest: dict[str, str] = {}
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        name = canonicalize_name(requirement.name)
        if len(bounds) != 1 or lowest.setdefault(name, bounds[0]) != bounds[0]:
            raise ValueError(f"{line!r}: there must be one lower bound, and the same wherever {name} is asked for")
    return [f"{name}=={version}" for name, version in sorted(lowest.items())]


def main() -> None:
    print("\n".join(pins(requirements(PROJECT.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
