"""`python -m benchmarks.segmentation`: a segmenter of drawn shapes, from masks to what a running server answers.

The pipeline trains an untrained SegFormer, judges it by mean IoU on its bytes signature, tries it on a server and
pushes it. Then a server on the base path is asked over gRPC and REST about what was held out, and its masks are counted
here, pixel by pixel, apart from the pipeline's own figures. Exits with 1 where that is 0.9 or less.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines import local, shapes
from pipelines.served import served
from pipelines.settings import Schedule

LEAST = 0.9


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segmentation", description=__doc__)
    parser.add_argument("--epochs", type=int, default=16, help="passes over the training images (default: 16)")
    parser.add_argument("--out", help="a folder to keep (default: one that is removed)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vitrina-segmentation-") as scratch:
        folder = Path(arguments.out or scratch)
        found = demonstrate(folder, arguments.epochs)
    holds = all(value > LEAST for value in found.values())
    print("all above 0.9" if holds else "FAILED: not all above 0.9", flush=True)
    return int(not holds)


def demonstrate(folder: Path, epochs: int) -> dict[str, float]:
    """Mean IoU by who measured it."""
    data, base = folder / "data", folder / "served"
    shapes.write_images(data)
    shapes.write_checkpoint(folder / "checkpoint")
    result = local.run(
        data=data, model=folder / "checkpoint", root=folder / "root", serving_dir=base, name="shapes",
        schedule=Schedule(epochs=epochs, batch_size=8, learning_rate=5e-3, flip=True), threshold=LEAST,
    )  # fmt: skip
    found = {"tfma": result.metrics["mean_iou"]}
    print(f"blessed: {result.blessed} {'; '.join(result.failures)} {dict(result.metrics)}", flush=True)
    if result.pushed is None:
        return found
    with served(base, name="shapes", log=folder / "server.log") as server:
        for door, target in (("grpc", server.grpc), ("rest", server.rest)):
            found[door] = mean_iou(target, data / "eval")
    print({name: round(value, 4) for name, value in found.items()}, flush=True)
    return found


def mean_iou(target: str, split: Path) -> float:
    """Of the masks that a server answers with."""
    import vitrina

    right, either = np.zeros(len(shapes.CLASSES)), np.zeros(len(shapes.CLASSES))
    with vitrina.connect(target) as client:
        for path in sorted((split / "images").iterdir()):
            answer = np.asarray(client.predict(path).mask)
            truth = np.asarray(Image.open(split / "masks" / path.name))
            counts = truth < len(shapes.CLASSES)
            for number in range(len(shapes.CLASSES)):
                is_it, was_it = (truth == number) & counts, (answer == number) & counts
                right[number] += (is_it & was_it).sum()
                either[number] += (is_it | was_it).sum()
    return float(np.mean(right / either))


if __name__ == "__main__":
    sys.exit(main())
