"""`vitrina k8s ...`: its options, and what is printed. The work is in the modules beside this one."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from k8s.locations import FORMS
from k8s.settings import Settings
from serving import stock

__all__ = ["configure", "run"]

DEFAULTS = {field.name: field.default for field in dataclasses.fields(Settings)}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the actions with their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    rendering = actions.add_parser(
        "render", help="print the manifests, for: vitrina k8s render ... | kubectl apply -f -", allow_abbrev=False
    )
    _what_options(rendering)
    for action in (rendering,):
        # The flag is known to the command itself; here it may stand after the action as well.
        action.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Does what `configure` declared.

    Args:
        arguments: As parsed.

    Returns:
        The exit code.
    """
    actions: Mapping[str, Callable[[argparse.Namespace], int]] = {"render": _render}
    return actions[arguments.action](arguments)


def _what_options(parser: argparse.ArgumentParser) -> None:
    """What is served, and how."""
    from k8s.kustomize import components

    parser.add_argument("location", metavar="LOCATION", help=f"the base path: {FORMS}")
    parser.add_argument("--name", required=True, help="what the objects and the model are called")
    parser.add_argument("--namespace", help="the objects' namespace (default: the context's)")
    parser.add_argument("--version", type=int, help="serve this version alone (default: always the highest there)")
    parser.add_argument(
        "--with", action="append", default=[], dest="components", metavar="COMPONENT",
        help=f"add a component; there are: {', '.join(components())}",
    )  # fmt: skip
    parser.add_argument("--gateway", help="the Gateway (Gateway API) that routes to it, for canaries by weight")
    pods = parser.add_argument_group("pods")
    pods.add_argument("--replicas", type=int, help="exactly so many pods, without an autoscaler")
    for which, told in (("min", "the fewest pods of the autoscaler"), ("max", "the most")):
        default = DEFAULTS[f"{which}_replicas"]
        pods.add_argument(f"--{which}-replicas", type=int, default=default, help=f"{told} (default: {default})")
    pods.add_argument("--image", help=f"a TF Serving image (default: {stock.IMAGE})")
    pods.add_argument("--cpu", help="CPU requested per pod (default: as measured, else 1)")
    pods.add_argument("--memory", help="memory requested and allowed per pod (default: as measured, else 2Gi)")
    pods.add_argument("--max-batch", type=int, help="images of several requests that run at once; 0: none (default: 8)")
    pods.add_argument("--service-account", help="an existing ServiceAccount for the pods")
    figures = parser.add_argument_group("figures, for what is not said above")
    figures.add_argument(
        "--servable", type=Path, metavar="BASE", help="the same servable here, for what its card says was measured"
    )
    figures.add_argument("--rate", type=float, help="images per second at the busiest time; sets the replicas' bounds")
    figures.add_argument("--images-per-second", type=float, help="what one replica answers at most, as measured")
    figures.add_argument("--latency-ms", type=float, help="of one request of one image, alone, at the median")
    figures.add_argument("--memory-gib", type=float, help="what a server with this model takes")


def _settings(arguments: argparse.Namespace) -> Settings:
    """The settings that the options ask for; what was filled in is told on stderr."""
    from k8s import sizing
    from k8s.locations import Location

    asked = {name: getattr(arguments, name) for name in DEFAULTS if hasattr(arguments, name)}
    settings = Settings(**{**asked, "components": tuple(arguments.components)})
    where = Location.parse(settings.location)
    here = Path(where.path) if where.scheme == "host" and sizing.has_card(Path(where.path)) else None
    servable = arguments.servable or here
    measured = sizing.Measured() if servable is None else sizing.read(servable)
    figures = ("latency_ms", "images_per_second", "memory_gib")
    given = {name: getattr(arguments, name) for name in figures if getattr(arguments, name) is not None}
    filled, told = sizing.sized(settings, dataclasses.replace(measured, **given), rate=arguments.rate)
    for line in told:
        print(line, file=sys.stderr)
    return filled


def _render(arguments: argparse.Namespace) -> int:
    from k8s.kustomize import to_yaml
    from k8s.render import objects

    print(to_yaml(objects(_settings(arguments))), end="")
    return 0
