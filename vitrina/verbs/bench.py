"""`vitrina bench`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from signatures.errors import UsageError, VitrinaError
from vitrina.verbs.predict import add_connection, connection, image_files, task_input

HELP = "put a served model under load: latencies, throughput, a plot"
NEEDS = "serving.bench"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    from serving.targets import FORMS

    parser.add_argument("target", metavar="TARGET", help=FORMS)
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="image files, or folders; asked in turn")
    parser.add_argument(
        "--clients", default="1,8", metavar="N,N", help="closed loops, one by one (default %(default)s)"
    )
    parser.add_argument("--rate", type=float, metavar="R", help="instead an open loop of R requests per second")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each load (default 10)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images per request (default 1)")
    parser.add_argument("--signature", default="serving_default", metavar="S", help="(default %(default)s)")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", dest="inputs",
                        help="a task's own input, as for predict")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds per request (default 30)")
    add_connection(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="write the latencies as a picture")
    parser.add_argument("--json", action="store_true", help="one JSON document: a list with the figures of each load")


def run(arguments: argparse.Namespace) -> int:
    """Prints the figures; 1 where a request failed."""
    from serving.bench import bench
    from vitrina import show
    from vitrina.plot import svg

    loads = bench(
        arguments.target,
        image_files(arguments.images),
        clients=_numbers(arguments.clients),
        rate=arguments.rate,
        seconds=arguments.seconds,
        batch_size=arguments.batch_size,
        signature=arguments.signature,
        timeout=arguments.timeout,
        on_load=lambda load: print(f"{load.name}: {load.images_per_second:.1f} images/s", file=sys.stderr, flush=True),
        **connection(arguments),
        **dict(map(task_input, arguments.inputs)),
    )
    if arguments.plot is not None:
        try:
            arguments.plot.write_text(svg(loads, arguments.target), encoding="utf-8")
        except OSError as error:
            raise VitrinaError(
                f"{arguments.plot} cannot be written ({error.strerror}). Choose another --plot."
            ) from error
    if arguments.json:
        print(json.dumps([load.to_json() for load in loads], indent=2))
    else:
        show.loads(loads)
    return int(any(load.errors for load in loads))


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"Got --clients {text!r}, wanted numbers such as 1,8,32.") from error
