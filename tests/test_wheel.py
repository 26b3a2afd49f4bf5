"""The wheel holds what is tracked, and says of itself what pyproject.toml says."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PACKAGES = ("signatures", "serving", "pipelines", "k8s", "vertex", "vitrina")
EXTRAS = {"tfx", "k8s", "vertex", "hub", "demo", "all"}


def read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(path.read_text(encoding="utf-8"))


def tracked(*folders: str) -> set[str]:
    """What git tracks and what it would track, below some folders."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so there is no list of tracked files")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built by the installed hatchling; no network is needed."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_it_holds_the_tracked_files_of_the_packages(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == tracked(*PACKAGES)


def test_every_package_is_typed(wheel: zipfile.ZipFile) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel.namelist())


def test_it_brings_the_kustomize_base(wheel: zipfile.ZipFile) -> None:
    assert "k8s/base/kustomization.yaml" in wheel.namelist()


def test_it_installs_the_command(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "vitrina = vitrina.cli:main" in wheel.read(name).decode()


def test_its_metadata(wheel: zipfile.ZipFile) -> None:
    import vitrina

    told = metadata(wheel)
    assert (told["Name"], told["Version"]) == ("vitrina", vitrina.__version__)
    assert told["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    assert set(told.get_all("Provides-Extra", [])) == EXTRAS


def brought(wheel: zipfile.ZipFile, extra: str) -> set[str]:
    """The names of the distributions that an extra adds, on any Python."""
    names = set()
    for text in metadata(wheel).get_all("Requires-Dist", []):
        requirement = Requirement(text)
        lanes = ({"extra": extra, "python_version": version} for version in ("3.10", "3.13"))
        if "extra" in str(requirement.marker) and any(requirement.marker.evaluate(lane) for lane in lanes):
            names.add(requirement.name)
    return names


def test_all_is_every_extra_and_brings_no_torch(wheel: zipfile.ZipFile) -> None:
    everything = brought(wheel, "all")
    assert everything == set().union(*(brought(wheel, extra) for extra in EXTRAS - {"all"}))
    assert {"tfx", "transformers", "kubernetes", "google-cloud-aiplatform", "scikit-learn"} <= everything
    assert not {name for name in everything if "torch" in name}


def test_the_lock_has_both_lanes_and_no_torch() -> None:
    versions: dict[str, set[str]] = {}
    for package in read_toml(ROOT / "uv.lock")["package"]:
        versions.setdefault(package["name"], set()).add(".".join(package.get("version", "").split(".")[:2]))
    assert versions["tensorflow"] == {"2.16", "2.21"}
    assert versions["tfx"] == {"1.16", "1.21"}
    assert "torch" not in versions
