"""`vitrina predict`."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from signatures.errors import UsageError

HELP = "ask a served model, or a servable on disk, about images"
NEEDS = "serving.client"

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    from serving.targets import FORMS

    parser.add_argument("target", metavar="TARGET", help=FORMS)
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument(
        "--json",
        action="store_true",
        help="JSON lines: one object per image: `image`, the outputs, `error`",
    )
    parser.add_argument("--signature", default="serving_default", metavar="S", help="(default %(default)s)")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=VALUE", dest="inputs",
        help="a task's own input, the same for all images; text or JSON: 'candidate_labels=[\"cat\",\"dog\"]'",
    )  # fmt: skip
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds per request (default 60)")
    add_connection(parser)
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="images per request (default 8)")
    parser.add_argument("--concurrency", type=int, default=2, metavar="N", help="requests at a time (default 2)")
    parser.add_argument("--max-side", type=int, metavar="PIXELS", help="shrink larger images before they are sent")


def run(arguments: argparse.Namespace) -> int:
    """Prints the answers; 1 where an image could not be answered."""
    from serving.client import connect

    files = image_files(arguments.images)
    inputs = dict(map(task_input, arguments.inputs))
    with connect(arguments.target, timeout=arguments.timeout, **connection(arguments)) as client:
        answers = client.stream(
            files,
            batch_size=1 if arguments.signature == "pixels" else arguments.batch_size,
            concurrency=arguments.concurrency,
            signature=arguments.signature,
            max_side=arguments.max_side,
            **inputs,
        )
        pairs = zip(files, answers, strict=True)
        return _print_lines(pairs) if arguments.json else _print_table(pairs)


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Declares the options of an encrypted or authorized connection."""
    parser.add_argument("--ca", metavar="FILE", help="PEM of the authority that signed the server's certificate")
    parser.add_argument("--cert", metavar="FILE", help="PEM of this client's certificate, where the server asks for it")
    parser.add_argument("--key", metavar="FILE", help="PEM of the key of --cert")
    parser.add_argument(
        "--header", action="append", default=[], metavar="NAME=VALUE", dest="headers",
        help="a further HTTP header or gRPC metadata, such as authorization='Bearer ...'",
    )  # fmt: skip


def connection(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_connection` declared, as `serving.client.connect` takes it.

    Raises:
        UsageError: A header is not NAME=VALUE, or a certificate has no key.
    """
    from serving.client import Tls

    if (arguments.cert is None) != (arguments.key is None):
        raise UsageError("--cert and --key belong together. Give both, or neither.")
    pairs = [text.partition("=") for text in arguments.headers]
    for (name, separator, _), text in zip(pairs, arguments.headers, strict=True):
        if not separator or not name:
            raise UsageError(f"Got --header {text!r}, wanted NAME=VALUE, such as authorization='Bearer ...'")
    tls = Tls(ca=arguments.ca, cert=arguments.cert, key=arguments.key) if arguments.ca or arguments.cert else None
    return {"tls": tls, "headers": {name: value for name, _, value in pairs}}


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, folders as the image files below them in the order of their names.

    Raises:
        UsageError: A path does not exist, or a folder holds no images.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in SUFFIXES and entry.is_file())
            if not below:
                raise UsageError(
                    f"The folder {path} holds no images ({', '.join(sorted(SUFFIXES))}). Give image files."
                )
            files += below
        elif not path.exists():
            raise UsageError(f"There is no file {path}. Give the path of an image.")
        else:
            files.append(path)
    return files


def task_input(text: str) -> tuple[str, Any]:
    """`NAME=VALUE` of `--input`; the value is JSON where it can be, else text."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(f"Got --input {text!r}, wanted NAME=VALUE, such as --input question='How many?'")
    with contextlib.suppress(json.JSONDecodeError):
        return name, json.loads(value)
    return name, value


def _print_lines(pairs: Iterable[tuple[Path, Any]]) -> int:
    failed = False
    for path, answer in pairs:
        print(json.dumps({"image": str(path), **answer.to_json()}, ensure_ascii=False), flush=True)
        failed |= bool(answer.error)
    return int(failed)


def _print_table(pairs: Iterable[tuple[Path, Any]]) -> int:
    from vitrina import show

    answers = list(pairs)
    show.answers(answers)
    return int(any(answer.error for _, answer in answers))
