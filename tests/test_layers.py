"""Imports point down: signatures knows nobody, serving the card, and so on. Read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: What every room may know of a servable without knowing how one is made.
CARD = ("signatures.spec", "signatures.errors", "signatures.base_path")

#: package -> the modules of ours, itself left out, that it may import.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "signatures": (),
    "serving": CARD,
    "k8s": (*CARD, "serving"),
    "vertex": (*CARD, "serving"),
    "pipelines": ("signatures", "serving", "k8s", "vertex"),
    "vitrina": ("signatures", "serving", "k8s", "vertex", "pipelines"),
}


def imported(source: str, package: str) -> Iterator[str]:
    """Dotted names that a module imports, anywhere in it; a name taken from a package counts as its module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield package  # relative imports stay inside
            elif node.module in MAY_IMPORT:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module


def forbidden(source: str, package: str) -> list[str]:
    """What a module of `package` imports of ours and may not."""
    allowed = (package, *MAY_IMPORT[package])
    ours = [name for name in imported(source, package) if name.split(".")[0] in MAY_IMPORT]
    return [name for name in ours if not any(name == each or name.startswith(f"{each}.") for each in allowed)]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_down(package: str) -> None:
    wrong = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        if found := forbidden(path.read_text(encoding="utf-8"), package):
            wrong[str(path.relative_to(ROOT))] = found
    assert wrong == {}


def test_every_package_of_ours_has_its_layer() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/py.typed")}
    assert packages == set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("package", "source", "wrong"),
    [
        ("signatures", "from serving import client", ["serving.client"]),
        ("signatures", "def f():\n    import vitrina.cli", ["vitrina.cli"]),
        ("serving", "from signatures import spec, build", ["signatures.build"]),
        ("serving", "from signatures.spec import Card", []),
        ("k8s", "from signatures.export import export", ["signatures.export"]),
        ("pipelines", "from signatures.export import export", []),
        ("vitrina", "import pipelines.local, tests.conftest", []),
    ],
)
def test_the_check_sees_wrong_imports(package: str, source: str, wrong: list[str]) -> None:
    assert forbidden(source, package) == wrong
