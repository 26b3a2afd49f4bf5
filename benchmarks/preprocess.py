"""`python -m benchmarks.preprocess`: decode, exact resize and normalise, as ratios to the checkpoint's own processor.

Photographs as JPEG, of 640x427 and 1920x1080 pixels, one and eight at a time. Beside the graph that a servable embeds
run the processor itself (Pillow and NumPy) and the graph that is usually written (`tf.image.resize`), each in turn
within every round, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.__main__ import OUT

SIZES = ((640, 427), (1920, 1080))
BATCHES = (1, 8)
PROCESSORS = ("ViTImageProcessor", "ConvNextImageProcessor", "CLIPImageProcessor")
SERVABLE, PROCESSOR, USUAL = "servable", "processor", "tf.image.resize"

Contender = Callable[[Sequence[bytes]], NDArray[np.float32]]


@dataclass(frozen=True)
class Row:
    """One contender on one load.

    Args:
        processor: The image-processor class.
        size: Width x height of the photographs.
        batch: How many at a time.
        contender: `servable`, `processor` or `tf.image.resize`.
        milliseconds: Per batch, the median of the rounds.
        to_processor: The median over the rounds of this contender's time by the processor's in the same round.
        grey_levels: Largest difference from the processor's answer, in grey levels of 255.
    """

    processor: str
    size: str
    batch: int
    contender: str
    milliseconds: float
    to_processor: float
    grey_levels: float


def photographs(width: int, height: int, count: int) -> list[bytes]:
    """So many photographs of a size as JPEG files."""
    import sklearn.datasets
    from PIL import Image

    folder = Path(sklearn.datasets.__file__).parent / "images"
    files = []
    for name in itertools.islice(itertools.cycle(("china.jpg", "flower.jpg")), count):
        file = io.BytesIO()
        with Image.open(folder / name) as image:
            image.resize((width, height), Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def own_processor(name: str) -> tuple[Any, Contender]:
    """The class with its defaults, on files as `transformers` loads them."""
    import transformers
    from PIL import Image
    from transformers.image_utils import load_image

    processor = getattr(transformers, name)()

    def run(files: Sequence[bytes]) -> NDArray[np.float32]:
        images = [load_image(Image.open(io.BytesIO(file))) for file in files]
        values: NDArray[np.float32] = processor(images, return_tensors="np")["pixel_values"]
        return values

    return processor, run


def embedded(processor: Any) -> Contender:
    """What a servable of such a checkpoint does to `image_bytes`."""
    from signatures.preprocessing import from_processor_config
    from signatures.processor import compile_processor, decode_batch

    compiled = compile_processor(from_processor_config(processor.to_dict()))

    return _compiled(lambda image_bytes: decode_batch(image_bytes, compiled).features["pixel_values"])


def usual(processor: Any) -> Contender:
    """The graph that is usually written by hand: fast decoding, `tf.image.resize`, every item in turn."""
    import tensorflow as tf

    mean, std = tf.constant(processor.image_mean), tf.constant(processor.image_std)
    side = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    size = [side.get("height", side.get("shortest_edge")), side.get("width", side.get("shortest_edge"))]
    method = {0: "nearest", 1: "lanczos3", 2: "bilinear", 3: "bicubic"}[int(processor.resample)]

    def one(data: Any) -> Any:
        image = tf.image.resize(tf.io.decode_jpeg(data, channels=3), size, method=method)
        return tf.transpose((image / 255.0 - mean) / std, [2, 0, 1])

    return _compiled(lambda image_bytes: tf.map_fn(one, image_bytes, fn_output_signature=tf.float32))


def _compiled(ops: Callable[[Any], Any]) -> Contender:
    """A graph of `image_bytes`, string [b], that is called with files."""
    import tensorflow as tf

    graph = tf.function(ops, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    return lambda files: graph(tf.constant(files)).numpy()


def rounds(contenders: Mapping[str, Contender], files: Sequence[bytes], seconds: float) -> dict[str, list[float]]:
    """The seconds that each took in every round; the order changes from round to round."""
    for run in contenders.values():
        run(files)
        run(files)
    took: dict[str, list[float]] = {name: [] for name in contenders}
    orders = itertools.cycle(itertools.permutations(contenders))
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(took[SERVABLE]) < len(contenders):
        for name in next(orders):
            begun = time.perf_counter()
            contenders[name](files)
            took[name].append(time.perf_counter() - begun)
    return took


def measure(name: str, seconds: float) -> list[Row]:
    """Every load of one processor class, printed as it is measured."""
    processor, own = own_processor(name)
    contenders = {SERVABLE: embedded(processor), PROCESSOR: own, USUAL: usual(processor)}
    level = 1 / (processor.rescale_factor / np.array(processor.image_std))[:, None, None]
    rows = []
    for (width, height), batch in itertools.product(SIZES, BATCHES):
        files = photographs(width, height, batch)
        wanted = own(files)
        took = rounds(contenders, files, seconds)
        for contender, run in contenders.items():
            ratios = [a / b for a, b in zip(took[contender], took[PROCESSOR], strict=True)]
            row = Row(
                processor=name,
                size=f"{width}x{height}",
                batch=batch,
                contender=contender,
                milliseconds=float(np.median(took[contender])) * 1000,
                to_processor=float(np.median(ratios)),
                grey_levels=round(float(np.max(np.abs(run(files) - wanted) * level)), 3),
            )
            rows.append(row)
            print(
                f"{name:24} {row.size:>9} x {batch}  {contender:16} {row.milliseconds:8.2f} ms  "
                f"{row.to_processor:5.2f} of the processor   differs by {row.grey_levels:g} grey levels",
                flush=True,
            )
    return rows


def plot(rows: Sequence[Row], path: Path) -> None:
    """Time over loads, as a ratio to the processor's."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(row.processor for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 4), squeeze=False, sharey=True)
    for axis, name in zip(axes[0], names, strict=True):
        own = [row for row in rows if row.processor == name]
        loads = list(dict.fromkeys(f"{row.size}\nx {row.batch}" for row in own))
        for place, contender in enumerate((SERVABLE, USUAL)):
            ratios = [row.to_processor for row in own if row.contender == contender]
            bars = axis.bar(np.arange(len(loads)) + 0.4 * place - 0.2, ratios, 0.38, label=contender)
            axis.bar_label(bars, fmt="%.2f")
        axis.axhline(1.0, color="grey", linewidth=1)
        axis.set_xticks(np.arange(len(loads)), loads)
        axis.set(title=name, ylabel="time, of the processor's own")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preprocess", description=__doc__)
    parser.add_argument("--processors", nargs="+", choices=PROCESSORS, default=["ViTImageProcessor"])
    parser.add_argument("--seconds", type=float, default=8.0, help="per load (default: 8)")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    rows = list(
        itertools.chain.from_iterable(map(functools.partial(measure, seconds=arguments.seconds), arguments.processors))
    )
    document = {
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "cpus": os.cpu_count(),
        "packages": {name: metadata.version(name) for name in ("tensorflow", "transformers", "pillow", "numpy")},
        "measured": [asdict(row) for row in rows],
    }
    OUT.mkdir(exist_ok=True)
    stem = OUT / f"preprocess-{time.strftime('%Y%m%d-%H%M%S')}"
    stem.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    plot(rows, stem.with_suffix(".png"))
    print(f"Wrote {stem}.json and .png; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
