"""`vitrina inspect`."""

from __future__ import annotations

import argparse
import json

HELP = "show a servable's signatures, card and sizes"
NEEDS = "serving.inspection"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "base", metavar="BASE_OR_VERSION", help="a base path (its highest version is shown) or a version"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document: the card, signatures, path and sizes")


def run(arguments: argparse.Namespace) -> int:
    """Prints what the servable says of itself."""
    from serving.inspection import inspect

    inspection = inspect(arguments.base)
    if arguments.json:
        print(json.dumps(inspection.to_json(), indent=2, ensure_ascii=False))
    else:
        from vitrina import show

        show.inspection(inspection)
    return 0
