"""`vitrina verify`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "measure a servable against its checkpoint's own processor and pipeline"
NEEDS = "signatures.verify"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("base", metavar="BASE", type=Path, help="a base path or a version of it")
    parser.add_argument(
        "--images", nargs="+", type=Path, metavar="PATH", help="images to compare on (files or folders)"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="save the worst case: reference, servable and difference side by side"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document with every figure")


def run(arguments: argparse.Namespace) -> int:
    """Prints the figures; 1 where parity does not hold."""
    from signatures.verify import verify

    report = verify(arguments.base, images=arguments.images, plot=arguments.plot)
    if arguments.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        from vitrina import show

        show.anything(report.table())
    return 0 if report.holds else 1
