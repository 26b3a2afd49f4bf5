"""`python -m benchmarks.retraining`: four spans of digits through `vitrina pipeline watch`, clients asking meanwhile.

1. a tenth of the digits: the first model goes live;
2. all of them, training on from the first: the run is killed in the Trainer, started again and goes on where it was;
   its model is better on the same held-out images, blessed against the first, and goes live;
3. shuffled labels: refused, the second keeps serving;
4. a third of the files spoiled: stops with their list, the second keeps serving.

Each line that is printed was measured: the accuracy is asked of the running server, and two clients, over gRPC and over
REST, ask it without a pause from the first model to the end and count what fails.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines import digits
from pipelines.served import Served, served
from pipelines.settings import Schedule
from pipelines.watch import Seen, watch

LATE = 30.0
LEAST = 0.95
THRESHOLD = 0.15
KILLED_AFTER = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retraining", description=__doc__)
    parser.add_argument("--limit", type=int, default=None, help="images per digit (default: all)")
    parser.add_argument("--epochs", type=int, default=40, help="per span (default: 40)")
    parser.add_argument("--least", type=float, default=LEAST, help="accuracy of the second model (default: 0.95)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vitrina-retraining-") as scratch:
        failed = demonstrate(Path(scratch), arguments.limit, arguments.epochs, arguments.least)
    print("FAILED: " + "; ".join(failed) if failed else "all went as it should", flush=True)
    return int(bool(failed))


def demonstrate(folder: Path, limit: int | None, epochs: int, least: float) -> list[str]:
    """Runs the four; what did not go as it should."""
    data, base = folder / "data", folder / "served"
    schedule = Schedule(epochs=epochs, batch_size=32, learning_rate=3e-3, shift=0.06)
    digits.write_checkpoint(folder / "checkpoint", hidden_size=64, layers=2)
    failed: list[str] = []
    told: list[str] = []

    def expect(what: str, holds: bool) -> None:
        print(f"  {'yes' if holds else 'NO '}  {what}", flush=True)
        if not holds:
            failed.append(what)

    def run(number: int) -> Seen:
        print(f"span {number}", flush=True)
        told.clear()
        (seen,) = watch(
            data=data, root=folder / "root", once=True, model=folder / "checkpoint", serving_dir=base, warm_start=True,
            schedule=schedule, threshold=THRESHOLD, on_event=lambda event: told.append(event.text),
        )  # fmt: skip
        assert seen.span == number
        return seen

    first_limit = max(10, (limit or 180) // 10)
    digits.write_images(data / "span-1", limit=first_limit)
    first = run(1)
    expect(f"blessed: {first.result.metrics}", first.result.blessed)
    with served(base, name="digits", log=folder / "server.log") as server, asking(server, data / "span-1") as clients:
        digits.write_images(data / "span-2", limit=limit)
        epoch = killed_in_trainer(folder, schedule)
        expect(f"killed in the Trainer, after epoch {epoch}", epoch == KILLED_AFTER)
        still = accuracy(server.grpc, data / "span-1")
        expect(
            f"the first model is served meanwhile, accuracy {still:.4f} on its own images",
            still == round(first.result.metrics["accuracy"], 4),
        )
        second = run(2)
        metrics = second.result.metrics
        went_on = [text for text in told if "interrupted" in text]
        epochs_run = [int(text.split("/")[0].split()[1]) for text in told if text.startswith("epoch ")]
        expect(f"resumed: {went_on}, epochs {epochs_run[:1]} to {epochs_run[-1:]}", bool(went_on) and epochs_run[0] > 1)
        expect(f"blessed: {metrics}", second.result.blessed)
        expect("better than the first", metrics["accuracy"] > metrics.get("baseline_accuracy", 1.0))
        good = live(server.grpc, data / "span-2", second.result.metrics["accuracy"])
        expect(f"the running server answers as the second, accuracy {good:.4f}", good == round(metrics["accuracy"], 4))
        rest = accuracy(server.rest, data / "span-2")
        expect(f"and so over REST, accuracy {rest:.4f}, at least {least}", rest == good >= least)

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
    for door, client in clients.items():
        expect(
            f"{client.asked} requests over {door} in all that time, {len(client.failed)} failed {client.failed[:2]}; "
            f"the longest took {client.longest:.2f} s",
            client.asked > 0 and not client.failed,
        )
    return failed


def killed_in_trainer(folder: Path, schedule: Schedule) -> int:
    """Starts the run of the second span as a command of its own and kills it; the last epoch it told of."""
    command = [
        sys.executable, "-m", "vitrina", "pipeline", "watch", "--once", f"--data={folder / 'data'}",
        f"--root={folder / 'root'}", f"--model={folder / 'checkpoint'}", f"--serving-dir={folder / 'served'}",
        "--warm-start", f"--threshold={THRESHOLD}", f"--epochs={schedule.epochs}",
        f"--batch-size={schedule.batch_size}", f"--learning-rate={schedule.learning_rate}", f"--shift={schedule.shift}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip().startswith(f"epoch {KILLED_AFTER}/"):
                process.send_signal(signal.SIGKILL)
                process.wait()
                return KILLED_AFTER
    return 0


@dataclass
class Client:
    """What a client that asks without a pause has seen."""

    asked: int = 0
    longest: float = 0.0
    failed: list[str] = field(default_factory=list)


@contextlib.contextmanager
def asking(server: Served, data: Path) -> Iterator[dict[str, Client]]:
    """Two clients, one a door, for as long as the block lasts."""
    import vitrina

    image = next(iter(sorted((data / "eval").rglob("*.png")))).read_bytes()
    over = threading.Event()
    clients = {"grpc": Client(), "rest": Client()}

    def ask(client: Client, target: str) -> None:
        with vitrina.connect(target) as model:
            while not over.wait(0.1):
                begun = time.perf_counter()
                try:
                    model.predict(image)
                except Exception as error:  # whatever it is, it is counted
                    client.failed.append(str(error))
                client.asked += 1
                client.longest = max(client.longest, time.perf_counter() - begun)

    targets = {"grpc": server.grpc, "rest": server.rest}
    threads = [threading.Thread(target=ask, args=(client, targets[door])) for door, client in clients.items()]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        over.set()
        for thread in threads:
            thread.join()


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
