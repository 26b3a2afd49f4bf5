"""`vitrina batch`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict

from signatures.errors import UsageError

HELP = "answer many images on Beam's workers, into JSON lines"
NEEDS = "pipelines.batch"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("servable", metavar="SERVABLE", help="a servable's base path or version, or a served target")
    parser.add_argument(
        "--in", required=True, nargs="+", dest="images", metavar="PATTERN",
        help="folders, patterns such as 'photos/**.jpg', or TFRecords with image/encoded (*.tfrecord[.gz])",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, nargs="+", metavar="PATTERN",
        help="files to write: 'answers-*.jsonl', in quotes, * is 00000-of-00012",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images per call (default 32)")
    parser.add_argument("--per-part", type=int, default=256, metavar="N", help="images per file (default 256)")
    parser.add_argument("--signature", default="serving_default", metavar="S", help="(default %(default)s)")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=VALUE", dest="inputs",
        help="a task's own input, the same for all images",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="begin anew where OUT holds another model's answers")
    parser.add_argument(
        "--beam-arg", action="append", default=[], metavar="ARG", help="an option for Beam, such as --runner=..."
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Prints how it ended; 1 where not one image was answered."""
    from pipelines.batch import batch
    from vitrina.verbs.predict import task_input

    if len(arguments.out) > 1:
        raise UsageError(
            f"Got {len(arguments.out)} files for --out, but it is one pattern: the shell has filled in its *. "
            "Put it in quotes: --out 'answers-*.jsonl'"
        )
    started = time.monotonic()
    done = batch(
        arguments.servable,
        images=arguments.images,
        out=arguments.out[0],
        batch_size=arguments.batch_size,
        per_part=arguments.per_part,
        signature=arguments.signature,
        inputs=dict(map(task_input, arguments.inputs)),
        overwrite=arguments.overwrite,
        beam_options=arguments.beam_arg,
        on_progress=_show,
    )
    seconds = time.monotonic() - started
    if arguments.json:
        print(json.dumps({**asdict(done), "seconds": round(seconds, 1)}))
    else:
        kept = f", {done.kept} of them from an earlier run" if done.kept else ""
        print(f"{done.images} images in {done.parts} files{kept}, {done.errors} with an error, in {seconds:.1f} s")
        print(done.out[0] if done.parts == 1 else f"{done.out[0]} ... {done.out[-1]}")
    return int(done.errors == done.images)


def _show(finished: int, parts: int) -> None:
    print(f"{finished} of {parts} parts done", file=sys.stderr, flush=True)
