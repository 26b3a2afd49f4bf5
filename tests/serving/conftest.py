"""Fixtures for the server's tests: the golden models, built once, and a server on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent.parent / "golden" / "tfserving"


@pytest.fixture(scope="session")
def golden_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models that the recordings were made on."""
    sys.path.insert(0, str(GOLDEN))
    try:
        import build_models
    finally:
        sys.path.remove(str(GOLDEN))
    folder = tmp_path_factory.mktemp("golden_models")
    build_models.build_all(str(folder))
    return folder


@pytest.fixture(scope="session")
def main_setup() -> dict[str, Any]:
    """The server with all golden models, as a recorded line names it."""
    from tests.serving import conversation

    return next(line["server"] for line in conversation.load("rest.jsonl") if line["server"]["profile"] == "main")


@pytest.fixture(scope="module")
def golden_server(
    golden_models: Path, main_setup: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A running server with all golden models."""
    from tests.serving import conversation

    with conversation.talk(main_setup, golden_models, tmp_path_factory.mktemp("config")) as talking:
        yield talking
