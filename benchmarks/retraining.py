"""`python -m benchmarks.retraining`: four spans of digits through `vitrina pipeline watch`, a server looking on.

1. a tenth of the digits: the first model goes live;
2. all of them, training on from the first: better on the same held-out images, blessed against it, goes live;
3. shuffled labels: refused, the second keeps serving;
4. a third of the files spoiled: stops with their list, the second keeps serving.

Each line that is printed was measured: the accuracy is asked of the running server over gRPC.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from pipelines import digits
from pipelines.served import served
from pipelines.settings import Schedule
from pipelines.watch import Seen, watch

LATE = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retraining", description=__doc__)
    parser.add_argument("--limit", type=int, default=None, help="images per digit (default: all)")
    parser.add_argument("--epochs", type=int, default=20, help="per span (default: 20)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vitrina-retraining-") as scratch:
        failed = demonstrate(Path(scratch), arguments.limit, arguments.epochs)
    print("FAILED: " + "; ".join(failed) if failed else "all four went as they should", flush=True)
    return int(bool(failed))


def demonstrate(folder: Path, limit: int | None, epochs: int) -> list[str]:
    """Runs the four; what did not go as it should."""
    data, base = folder / "data", folder / "served"
    digits.write_checkpoint(folder / "checkpoint", hidden_size=48, layers=2)
    failed: list[str] = []

    def expect(what: str, holds: bool) -> None:
        print(f"  {'yes' if holds else 'NO '}  {what}", flush=True)
        if not holds:
            failed.append(what)

    def run(number: int) -> Seen:
        print(f"span {number}", flush=True)
        (seen,) = watch(
            data=data, root=folder / "root", once=True, model=folder / "checkpoint", serving_dir=base, warm_start=True,
            schedule=Schedule(epochs=epochs, batch_size=32, learning_rate=3e-3), threshold=0.15,
            on_event=lambda _: None,
        )  # fmt: skip
        assert seen.span == number
        return seen

    first_limit = max(10, (limit or 180) // 10)
    digits.write_images(data / "span-1", limit=first_limit)
    first = run(1)
    expect(f"blessed: {first.result.metrics}", first.result.blessed)
    with served(base, name="digits", log=folder / "server.log") as server:
        digits.write_images(data / "span-2", limit=limit)
        second = run(2)
        metrics = second.result.metrics
        expect(f"blessed: {metrics}", second.result.blessed)
        expect("better than the first", metrics["accuracy"] > metrics.get("baseline_accuracy", 1.0))
        good = live(server.grpc, data / "span-2", second.result.metrics["accuracy"])
        expect(f"the running server answers as the second, accuracy {good:.4f}", good == round(metrics["accuracy"], 4))

        digits.write_images(data / "span-3", limit=limit)
        shuffle_labels(data / "span-3" / "train")
        third = run(3)
        expect(f"refused: {'; '.join(third.result.failures)}", not third.result.blessed)

        digits.write_images(data / "span-4", limit=limit)
        for path in sorted((data / "span-4").rglob("*.png"))[::3]:
            path.write_bytes(b"spoiled")
        fourth = run(4)
        expect(f"stopped: {fourth.error}", "cannot be read" in fourth.error and "eval/0/" in fourth.error)
        still = accuracy(server.grpc, data / "span-2")
        expect(f"the second model is still served, accuracy {still:.4f}", still == good)
    return failed


def shuffle_labels(split: Path) -> None:
    """Every image of a split under a class drawn by chance."""
    files = sorted(split.rglob("*.png"))
    classes = [path.parent.name for path in files]
    random.Random(0).shuffle(classes)
    for path, name in zip(files, classes, strict=True):
        path.rename(split / name / f"moved-{path.name}")


def live(target: str, data: Path, wanted: float) -> float:
    """The served accuracy, as soon as it is the one wanted."""
    until = time.monotonic() + LATE
    while (found := accuracy(target, data)) != round(wanted, 4) and time.monotonic() < until:
        time.sleep(1)
    return found


def accuracy(target: str, data: Path) -> float:
    """What the server gets right of the held-out images."""
    import vitrina

    files = sorted((data / "eval").rglob("*.png"))
    with vitrina.connect(target) as client:
        answers = list(client.stream(files, batch_size=32))
    right = sum(answer.label == path.parent.name for path, answer in zip(files, answers, strict=True))
    return round(right / len(files), 4)


if __name__ == "__main__":
    sys.exit(main())
