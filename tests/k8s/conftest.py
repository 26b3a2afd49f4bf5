"""An emulated cluster for each test that wants one, and one process that its servers are forked from."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.emulators.kube.cluster import Cluster
from tests.emulators.kube.zygote import Zygote

_numbers = itertools.count(int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) * 8)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """What starts servers."""
    found = Zygote()
    yield found
    found.stop()


@pytest.fixture
def cluster(tmp_path: Path, zygote: Zygote) -> Iterator[Cluster]:
    """A cluster that runs pods, 20 times faster than the clock."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    found = Cluster(folder, zygote, speed=20.0, number=next(_numbers) % 64)
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
    """Writes a version of a model, see `servables.write`."""
    folder = tmp_path_factory.mktemp("written")

    def write(base: Path, version: int, kind: str = "good") -> None:
        log = folder / f"log-{next(_numbers)}"
        command = ["tests.k8s.servables:write", str(base), str(version), kind]
        done = zygote.start(command, env={}, address="127.0.0.1", log=log, folder=folder)
        assert done.wait(120)
        assert done.returncode == 0, log.read_text()

    return write
