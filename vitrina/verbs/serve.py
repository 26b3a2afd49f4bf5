"""`vitrina serve`."""

from __future__ import annotations

from collections.abc import Sequence

HELP = "serve models over gRPC and REST with TF Serving's own flags"
NEEDS = "serving.server"


def main(words: Sequence[str]) -> int:
    """Hands every word to the server."""
    from serving.server import main as serve

    return serve([word for word in words if word != "--verbose"], leave=True)
