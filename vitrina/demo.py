"""`vitrina demo`: the whole line on real images, from scanned digits to answers over gRPC and REST.

Nothing is shortened when it is run again: whatever TFX takes over from the earlier run is named, and the model is
served and asked anew each time.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from signatures.errors import CheckFailed, VitrinaError

if TYPE_CHECKING:
    from pipelines.local import Event, RunResult
    from pipelines.settings import Schedule

__all__ = ["DemoResult", "check", "main", "run"]

OUT = "demo-out"
MODEL = "digits"
LEAST_ACCURACY = 0.95
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo showed.

    Args:
        servable: The version's folder that was served.
        images: How many held-out images were asked about.
        tfma: TFMA's accuracy on them, 0 to 1.
        grpc: Accuracy of the answers over gRPC.
        rest: Accuracy of the answers over REST.
        seconds: For all of it.
    """

    servable: Path
    images: int
    tfma: float
    grpc: float
    rest: float
    seconds: float


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="vitrina demo", description="The whole line on real images.")
    parser.add_argument("--out", default=OUT, help="where everything goes (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=None, help="passes over the training images")
    parser.add_argument("--limit", type=int, default=None, help="at most this many images per digit (proves less)")
    parser.add_argument("--fresh", action="store_true", help="train anew even where nothing has changed")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object instead")
    given = parser.parse_args(list(argv))
    result = run(out=given.out, epochs=given.epochs, fresh=given.fresh, limit=given.limit)
    if given.json:
        print(json.dumps({**vars(result), "servable": str(result.servable)}))
    else:
        _print_summary(result, Path(given.out))
    return 0


def run(
    *, out: str | Path = OUT, epochs: int | None = None, fresh: bool = False, limit: int | None = None
) -> DemoResult:
    """Writes the images and an untrained model, runs the pipeline, serves what it pushed and asks it.

    Args:
        out: The folder for everything; used again where it exists.
        epochs: Passes over the training images; None is what reaches the accuracy wanted.
        fresh: Take nothing over from an earlier run.
        limit: Images per digit; None is all. With fewer, less accuracy is asked for.

    Returns:
        The figures.

    Raises:
        CheckFailed: The model was not good enough, or the doors and TFMA do not agree.
        VitrinaError: A step failed.
    """
    from pipelines import digits, local

    started = time.monotonic()
    root = Path(out).resolve()
    least = LEAST_ACCURACY if limit is None else 0.0
    try:
        counts = digits.write_images(root / "images", limit=limit)
    except OSError as error:
        raise VitrinaError(f"{root} cannot be written ({error.strerror}). Choose another --out.") from error
    _say(f"1/4 images: {counts['train']} to train on, {counts['eval']} held out, in {root / 'images'}")
    digits.write_checkpoint(root / "checkpoint")
    _say(f"    model: an untrained ViT in {root / 'checkpoint'}")
    _say("2/4 pipeline: TFX on this machine (its own messages go to a log)")
    result = local.run(
        data=root / "images",
        model=root / "checkpoint",
        root=root / "pipeline",
        serving_dir=root / "served" / MODEL,
        schedule=_schedule(epochs),
        threshold=least,
        # The demo trains from scratch each time, so the earlier model is no bar that this one has to clear.
        max_loss=1.0,
        cache=not fresh,
        name="demo",
        on_event=_Events(),
    )
    if result.pushed is None:
        raise CheckFailed(
            f"The model was not blessed ({'; '.join(result.failures)}; accuracy {result.metrics['accuracy']:.4f}). "
            f"What led to it is in {result.log}. Run it again with more --epochs."
        )
    _report_push(result)
    held_out = _held_out(root / "images")
    grpc, rest = _serve_and_ask(result.pushed.parent, result.pushed.name, held_out, root)
    figures = DemoResult(
        servable=result.pushed,
        images=len(held_out),
        tfma=result.metrics["accuracy"],
        grpc=grpc,
        rest=rest,
        seconds=time.monotonic() - started,
    )
    check(figures, least)
    return figures


def _schedule(epochs: int | None) -> Schedule:
    from pipelines.settings import Schedule

    return Schedule(
        epochs=epochs or 40, batch_size=32, learning_rate=2e-3, shift=0.06, rotate=0.015, label_smoothing=0.05
    )


class _Events:
    """The pipeline's progress, a line each."""

    def __init__(self) -> None:
        self._reused = False

    def __call__(self, event: Event) -> None:
        if event.text == "started":
            self._reused = False
        elif event.text.startswith("reused"):
            self._reused = True
        elif event.text == "finished":
            how = "taken over from an earlier run: nothing it depends on has changed" if self._reused else ""
            _say(f"    {event.component:<18} {event.seconds:6.1f} s  {how}".rstrip())
        elif not event.text.startswith("epoch") or _every(event.text, 5):
            _say(f"      {event.text}")


def _every(text: str, step: int) -> bool:
    match = re.match(r"epoch (\d+)/(\d+)", text)
    return match is None or int(match[1]) % step == 0 or match[1] == match[2]


def _report_push(result: RunResult) -> None:
    accuracy, images = result.metrics["accuracy"], int(result.metrics["images"])
    _say(f"    TFMA on the signature that clients call: accuracy {accuracy:.4f} on {images} held-out images: blessed")
    how = "pushed" if result.new else "already there, the very same model"
    _say(f"    {how}: {result.pushed}")


def _held_out(images: Path) -> list[tuple[Path, str]]:
    """Every held-out file with its class."""
    return [(path, path.parent.name) for path in sorted((images / "eval").glob("*/*.png"))]


def _serve_and_ask(base: Path, version: str, held_out: list[tuple[Path, str]], root: Path) -> tuple[float, float]:
    from pipelines.served import served

    with served(base, name=MODEL, version=int(version), log=root / "server.log") as server:
        _say(
            f"3/4 served by a process of its own: gRPC on port {server.grpc_port}, REST on port {server.rest_port} "
            f"(ready in {server.seconds:.0f} s)"
        )
        _say(f"4/4 asking about {len(held_out)} held-out PNG files through both doors")
        return _ask(server.grpc, held_out), _ask(server.rest, held_out)


def _ask(target: str, held_out: list[tuple[Path, str]]) -> float:
    """The share of images whose best label is their class."""
    from serving.client import connect

    started = time.monotonic()
    right = 0
    with connect(target) as client:
        for start in range(0, len(held_out), BATCH):
            batch = held_out[start : start + BATCH]
            answers = client.predict([path for path, _ in batch])
            right += sum(answer.label == wanted for answer, (_, wanted) in zip(answers, batch, strict=True))
    accuracy = right / len(held_out)
    seconds = time.monotonic() - started
    _say(f"    {target}: {right} of {len(held_out)} right, accuracy {accuracy:.4f}, in {seconds:.1f} s")
    return accuracy


def check(figures: DemoResult, least: float) -> None:
    """Holds the figures to what the demo promises.

    Args:
        figures: What was measured.
        least: The least accuracy, 0 to 1.

    Raises:
        CheckFailed: The doors and TFMA do not have the same number right, or it is too low.
    """
    rights = {round(value * figures.images) for value in (figures.tfma, figures.grpc, figures.rest)}
    if len(rights) != 1:
        raise CheckFailed(
            f"The accuracies differ: TFMA {figures.tfma:.4f}, gRPC {figures.grpc:.4f}, REST {figures.rest:.4f}, "
            "although all three asked the same signature about the same files. Please report it."
        )
    if figures.grpc < least:
        raise CheckFailed(f"The accuracy {figures.grpc:.4f} is below {least}. Run it again with more --epochs.")


def _print_summary(figures: DemoResult, out: Path) -> None:
    base = figures.servable.parent
    image = next(path for path, _ in _held_out(out / "images"))
    print(
        f"""
accuracy on {figures.images} held-out images
  through gRPC          {figures.grpc:.4f}
  through REST          {figures.rest:.4f}
  TFMA, in the pipeline {figures.tfma:.4f}
done in {figures.seconds:.0f} s

made
  images      {out / "images"}
  checkpoint  {out / "checkpoint"} (untrained)
  pipeline    {out / "pipeline"} (artifacts, metadata.sqlite, logs)
  servable    {figures.servable}

go on with
  vitrina inspect {base}
  vitrina serve --port=8500 --rest_api_port=8501 --model_name={MODEL} --model_base_path={base}
  vitrina predict grpc://localhost:8500/{MODEL} {image}"""
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
