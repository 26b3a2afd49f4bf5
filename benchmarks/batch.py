"""`python -m benchmarks.batch`: `vitrina batch` against a plain loop over the same images, by images and workers.

The loop loads the same servable in this process and asks in batches of the same size, so the difference is what Beam,
the checks and the output cost. Each figure is of a whole command or loop, loading included; the rates without it are
taken from the difference between the two sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from benchmarks.__main__ import OUT, SIZES, export

BATCH = 32


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the ViT (default: tiny)")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000], help="how many (default: 1000 10000)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes (default: 1 2)")
    arguments = parser.parse_args()
    measured = []
    with tempfile.TemporaryDirectory(prefix="vitrina-bench-") as scratch:
        base = export(Path(scratch), arguments.size)
        for count in arguments.images:
            folder = pictures(Path(scratch) / f"images-{count}", count)
            runs = {"loop": lambda folder=folder: loop(base, folder)}
            for workers in arguments.workers:
                runs[f"batch, {workers} workers"] = lambda folder=folder, workers=workers: batch(base, folder, workers)
            for name, run in runs.items():
                begun = time.perf_counter()
                run()
                seconds = time.perf_counter() - begun
                measured.append(
                    {"way": name, "images": count, "seconds": seconds, "images_per_second": count / seconds}
                )
                print(f"{name:18} {count:6} images  {seconds:7.1f} s  {count / seconds:7.1f} images/s", flush=True)
    for name in dict.fromkeys(each["way"] for each in measured):
        few, *_, many = [each for each in measured if each["way"] == name] * 2
        if many["images"] > few["images"]:
            rate = (many["images"] - few["images"]) / (many["seconds"] - few["seconds"])
            print(f"{name:18} {rate:7.1f} images/s once it runs", flush=True)
    OUT.mkdir(exist_ok=True)
    path = OUT / f"batch-{arguments.size}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(
        json.dumps({"model": arguments.size, "cpus": os.cpu_count(), "measured": measured}, indent=2) + "\n"
    )
    print(f"Wrote {path}")
    return 0


def pictures(folder: Path, count: int) -> Path:
    """So many JPEG photographs, the same two in turn."""
    import sklearn.datasets

    source = Path(sklearn.datasets.__file__).parent / "images"
    folder.mkdir()
    for number in range(count):
        shutil.copyfile(source / ("china.jpg", "flower.jpg")[number % 2], folder / f"{number:06}.jpg")
    return folder


def loop(base: Path, folder: Path) -> None:
    """What one would write by hand."""
    import vitrina

    files = iter(sorted(folder.iterdir()))
    with vitrina.connect(str(base)) as model, (folder.parent / "loop.jsonl").open("w") as out:
        while group := list(islice(files, BATCH)):
            for path, answer in zip(group, model.predict([path.read_bytes() for path in group]), strict=True):
                out.write(json.dumps({"image": str(path), **answer.to_json()}) + "\n")


def batch(base: Path, folder: Path, workers: int) -> None:
    """The same by Beam; several workers are processes of their own."""
    from pipelines.batch import batch as run

    options = [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"] if workers > 1 else []
    out = folder.parent / f"out-{folder.name}-{workers}" / "answers-*.jsonl"
    done = run(base, images=str(folder), out=str(out), batch_size=BATCH, beam_options=options)
    assert done.errors == 0, done


if __name__ == "__main__":
    sys.exit(main())
