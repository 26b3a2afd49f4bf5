"""`vitrina demo`."""

from __future__ import annotations

from collections.abc import Sequence

HELP = "the whole line on real images: train, evaluate, export, serve, ask"
NEEDS = "vitrina.demo"


def main(words: Sequence[str]) -> int:
    """Runs the demo."""
    from vitrina.demo import main as demo

    return demo([word for word in words if word != "--verbose"])
