"""Nothing happens at import, every public name exists, and the façade's verbs come lazily."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("signatures", "serving", "pipelines", "k8s", "vertex", "vitrina")
HEAVY = ("tensorflow", "tfx", "transformers", "keras", "tf_keras", "torch", "apache_beam", "google.cloud.aiplatform")

#: What a person or a program imports without meaning to use a model yet.
LIGHT = (
    "vitrina",
    "vitrina.cli",
    "vitrina.verbs",
    "signatures.spec",
    "signatures.errors",
    "signatures.base_path",
    "serving.client",
    "k8s.render",
    "vertex.containers",
)


def modules() -> list[str]:
    """Every module of ours by its dotted name."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in found if not name.endswith("__main__")]


def declared(name: str) -> list[str] | None:
    """`__all__` as it stands in the source, where it is written out; a module is not imported for it."""
    path = ROOT.joinpath(*name.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            return [getattr(element, "value", "*") for element in getattr(node.value, "elts", [])]
    return None


def loaded_after(statement: str) -> list[str]:
    """The heavy packages that a fresh Python has loaded after a statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [heavy for heavy in HEAVY if heavy in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.parametrize("name", LIGHT)
def test_importing_it_loads_nothing_heavy(name: str) -> None:
    assert loaded_after(f"import {name}") == []


def test_the_command_s_overview_loads_nothing_heavy() -> None:
    assert loaded_after("from vitrina.cli import main; main(['--help']); main(['--version'])") == []


def test_the_check_sees_what_is_heavy() -> None:
    assert loaded_after("import transformers") == ["transformers"]


def test_the_facade_has_every_name_that_it_declares() -> None:
    import vitrina

    assert set(vitrina.__all__) <= set(dir(vitrina))
    for name in vitrina.__all__:
        assert getattr(vitrina, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'exprot'"):
        _ = vitrina.exprot


@pytest.mark.parametrize("name", [name for name in modules() if declared(name)])
def test_all_is_sorted_and_true(name: str) -> None:
    if name.startswith("pipelines"):
        pytest.importorskip("tfx", reason="the extra `tfx` is not installed")
    module = importlib.import_module(name)
    exported = list(module.__all__)
    assert len(exported) == len(set(exported))
    missing = [each for each in exported if not hasattr(module, each)]
    assert missing == []
    assert not [each for each in exported if each.startswith("_") and each != "__version__"]


@pytest.mark.parametrize("name", modules())
def test_a_module_says_what_is_public(name: str) -> None:
    source = ROOT.joinpath(*name.split("."))
    if source.is_dir():
        return  # a package's own file may hold nothing but a docstring
    if name.startswith("vitrina.verbs."):
        return  # a verb's names are fixed by vitrina/verbs/__init__.py
    assert declared(name) is not None, f"{name} has no __all__"
