"""An emulated cluster for each test that wants one, and one process that its servers are forked from."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.emulators.kube.cluster import Cluster
from tests.emulators.kube.zygote import Zygote

for _module in ("whole", "pushing", "trouble", "measuring", "configuration"):
    pytest.register_assert_rewrite(f"tests.k8s.stories.{_module}")

_numbers = itertools.count(int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) * 8)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """What starts servers."""
    found = Zygote()
    yield found
    found.stop()


@pytest.fixture
def cluster(tmp_path: Path, zygote: Zygote) -> Iterator[Cluster]:
    """A cluster that runs pods, 40 times faster than the clock."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    found = Cluster(folder, zygote, speed=40.0, number=next(_numbers) % 64)
    yield found
    found.stop()


@pytest.fixture
def objects_only(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that keeps objects and runs nothing."""
    found = Cluster(tmp_path, None, number=next(_numbers) % 64)
    yield found
    found.stop()


@pytest.fixture(scope="session")
def write(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, int, str], None]:
    """Puts a version of a model there at once, see `servables.write`; each is made once and then copied."""
    folder = tmp_path_factory.mktemp("written")

    def write(base: Path, version: int, kind: str = "good") -> None:
        made = folder / kind / str(version)
        if not made.is_dir():
            log = folder / f"log-{kind}-{version}"
            command = ["tests.k8s.servables:write", str(made.parent), str(version), kind]
            done = zygote.start(command, env={}, address="127.0.0.1", log=log, folder=folder)
            assert done.wait(120)
            assert done.returncode == 0, log.read_text()
        base.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, base / f".{version}")
        (base / f".{version}").rename(base / str(version))

    return write
