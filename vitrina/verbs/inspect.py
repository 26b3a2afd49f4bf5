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
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON document: the card, signatures, path and sizes")
    how.add_argument("--openapi", action="store_true", help="an OpenAPI 3.1 document of its REST API, as JSON")
    parser.add_argument(
        "--model-name", default="model", metavar="NAME", help="for --openapi: the name it is served under"
    )
    parser.add_argument(
        "--url", default="http://localhost:8501", help="for --openapi: the server (default %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints what the servable says of itself."""
    from serving.inspection import inspect

    inspection = inspect(arguments.base)
    if arguments.openapi:
        from serving.openapi import document

        print(json.dumps(document(inspection, name=arguments.model_name, url=arguments.url), indent=2))
    elif arguments.json:
        print(json.dumps(inspection.to_json(), indent=2, ensure_ascii=False))
    else:
        from vitrina import show

        show.inspection(inspection)
    return 0
