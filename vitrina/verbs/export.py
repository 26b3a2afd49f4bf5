"""`vitrina export`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HELP = "write a model as a servable: a SavedModel with its preprocessing and postprocessing"
NEEDS = "signatures.export"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("model", metavar="MODEL", help="a checkpoint folder or Hub id")
    parser.add_argument(
        "--to", required=True, type=Path, metavar="BASE", help="the model_base_path to write a version in"
    )
    parser.add_argument("--task", help="such as image-classification; by default as the checkpoint's config tells")
    parser.add_argument("--version", type=int, metavar="N", help="the version's number; by default the next one")
    parser.add_argument("--top-k", type=int, metavar="K", help="labels per image (default 5, at most all)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the model's weights")
    parser.add_argument("--revision", help="the Hub commit, tag or branch")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="skip the parity certificate")


def run(arguments: argparse.Namespace) -> int:
    """Exports; stdout is the path alone, progress goes to stderr."""
    from signatures.export import export

    path = export(
        arguments.model,
        to=arguments.to,
        task=arguments.task,
        version=arguments.version,
        top_k=arguments.top_k,
        dtype=arguments.dtype,
        revision=arguments.revision,
        verify=arguments.verify,
        on_progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(path)
    return 0
