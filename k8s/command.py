"""`vitrina k8s ...`: its options, and what is printed. The work is in the modules beside this one."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from k8s.locations import FORMS
from k8s.rule import Rule
from k8s.settings import Settings
from serving import stock

if TYPE_CHECKING:
    from k8s.cluster import Cluster
    from k8s.deploy import Status

__all__ = ["configure", "run"]

DEFAULTS = {field.name: field.default for field in dataclasses.fields(Settings)}
RULE = dataclasses.asdict(Rule())


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the actions with their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    made: list[argparse.ArgumentParser] = []

    def action(name: str, told: str) -> argparse.ArgumentParser:
        made.append(actions.add_parser(name, help=told, allow_abbrev=False))
        return made[-1]

    _what_options(action("render", "print the manifests, for: vitrina k8s render ... | kubectl apply -f -"))
    _apply_options(
        action("apply", "bring a servable to a cluster, or another version or settings there, without a gap")
    )
    asking = _named(action("status", "how it is, pod by pod, and what is in the way"))
    asking.add_argument("--json", action="store_true", help="as one JSON object")
    _cluster_options(asking)
    _canary_options(
        _named(action("canary", "try a version beside the one that serves, watch it, promote or roll back"))
    )
    promoting = _named(action("promote", "give every request to the version on trial"))
    back = _named(action("rollback", "end a trial; without one, go back to the version before"))
    for each in (promoting, back):
        _cluster_options(each)
        _timeout_option(each)
    _cluster_options(_named(action("delete", "delete a servable and its canary from a cluster")))
    measuring = action("measure", "measure a servable here, for what render and apply size pods by; its card keeps it")
    measuring.add_argument("base", metavar="BASE", type=Path, help="the servable's base path on this machine")
    measuring.add_argument("images", metavar="IMAGE", nargs="*", type=Path, help="what to ask about (default: noise)")
    measuring.add_argument("--seconds", type=float, default=8.0, help="of each of two loads (default: 8)")
    for each in made:
        # The flag is known to the command itself; here it may stand after the action as well.
        each.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Does what `configure` declared.

    Args:
        arguments: As parsed.

    Returns:
        The exit code.
    """
    actions: Mapping[str, Callable[[argparse.Namespace], int]] = {
        "render": _render,
        "apply": _apply,
        "status": _status,
        "canary": _canary,
        "promote": _promote,
        "rollback": _rollback,
        "delete": _delete,
        "measure": _measure,
    }
    return actions[arguments.action](arguments)


def _named(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("name", metavar="NAME", help="the --name that it was applied with")
    parser.add_argument("--namespace", help="its namespace (default: the context's)")
    return parser


def _cluster_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("cluster")
    where.add_argument("--kubeconfig", help="the kubeconfig (default: as kubectl: KUBECONFIG, or ~/.kube/config)")
    where.add_argument("--context", help="one of its contexts (default: the current one)")


def _timeout_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for a roll-out (default: 900)")


def _apply_options(parser: argparse.ArgumentParser) -> None:
    _what_options(parser)
    how = parser.add_argument_group("applying")
    how.add_argument(
        "--dry-run", action="store_true", help="print what would change, as the cluster sees it, and leave"
    )
    how.add_argument("--force", action="store_true", help="take fields over that others manage")
    how.add_argument("--no-wait", action="store_true", help="do not wait for the roll-out")
    _timeout_option(parser)
    _cluster_options(parser)


def _canary_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", type=int, required=True, help="the version to try, in the same place")
    parser.add_argument(
        "--by", choices=("labels", "weights"), default="labels",
        help="labels: clients choose :stable or :canary on the same pods; weights: a Gateway shares requests with pods "
        "of its own (default: labels)",
    )  # fmt: skip
    parser.add_argument("--weight", type=int, default=10, help="by weights: of 100 requests, how many (default: 10)")
    parser.add_argument("--pods", type=int, default=1, help="by weights: how many pods of its own (default: 1)")
    parser.add_argument("--by-hand", action="store_true", help="start it, and decide with promote or rollback")
    ruling = parser.add_argument_group("the rule")
    for flag, field, told in (
        ("--watch", "seconds", "seconds that it is watched"),
        ("--least", "least", "requests that it has to answer before it may be promoted"),
        ("--error-margin", "error_margin", "how much more of its requests may fail, as a share"),
        ("--latency-ratio", "latency_ratio", "how many times the old version's 95th percentile its own may be"),
        ("--interval", "interval", "seconds between two looks"),
    ):
        default = RULE[field]
        ruling.add_argument(
            flag, type=type(default), default=default, dest=field, help=f"{told} (default: {default:g})"
        )
    _timeout_option(parser)
    _cluster_options(parser)


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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _cluster(arguments: argparse.Namespace) -> Cluster:
    from k8s.cluster import Cluster

    return Cluster(kubeconfig=arguments.kubeconfig, context=arguments.context, namespace=arguments.namespace)


def _apply(arguments: argparse.Namespace) -> int:
    from k8s import deploy

    settings = _settings(arguments)
    changes = deploy.apply(
        **{field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)},
        cluster=_cluster(arguments),
        dry_run=arguments.dry_run,
        force=arguments.force,
        wait=not arguments.no_wait,
        timeout=arguments.timeout,
        tell=_say,
    )
    if arguments.dry_run:
        print("".join(change.diff for change in changes), end="")
    changed = sum(change.action != "keep" for change in changes)
    would = "would change" if arguments.dry_run else "changed"
    print(f"{changed} of {len(changes)} objects {would}" if changed else "nothing to change", file=sys.stderr)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from k8s.deploy import status

    found = status(arguments.name, cluster=_cluster(arguments))
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        _print_status(found)
    return 0 if found.ready and not found.problems else 1


def _print_status(found: Status) -> None:
    pinned = f"version {found.version}" if found.version is not None else "always the highest version"
    print(f"{found.name} in {found.namespace}: {found.progress}")
    print(f"serves {pinned} of {found.location}")
    if found.previous is not None:
        print(f"rollback goes to version {found.previous}")
    if found.canary is not None:
        share = f", {found.canary['weight']} of 100 requests" if found.canary["by"] == "weights" else ""
        print(f"on trial: version {found.canary['version']} by {found.canary['by']}{share}")
    for pod, states in {**found.pods, **found.canary_pods}.items():
        told = ", ".join(f"{version} {state}" for version, state in sorted(states.items())) or "does not answer"
        print(f"  {pod}: {told}")
    for problem in found.problems:
        print(f"beware: {problem}")


def _canary(arguments: argparse.Namespace) -> int:
    from k8s.canary import canary

    outcome = canary(
        arguments.name,
        arguments.version,
        by=arguments.by,
        weight=arguments.weight,
        pods=arguments.pods,
        rule=Rule(**{field: getattr(arguments, field) for field in RULE}),
        by_hand=arguments.by_hand,
        cluster=_cluster(arguments),
        timeout=arguments.timeout,
        tell=_say,
    )
    print(f"version {arguments.version} of {arguments.name}: {outcome}")
    return 0


def _promote(arguments: argparse.Namespace) -> int:
    from k8s.canary import promote

    version = promote(arguments.name, cluster=_cluster(arguments), timeout=arguments.timeout, tell=_say)
    print(f"version {version} of {arguments.name} serves every request")
    return 0


def _rollback(arguments: argparse.Namespace) -> int:
    from k8s.canary import rollback

    version = rollback(arguments.name, cluster=_cluster(arguments), timeout=arguments.timeout, tell=_say)
    which = "the highest version" if version is None else f"version {version}"
    print(f"{which} of {arguments.name} serves every request")
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    from k8s.deploy import delete

    changes = delete(arguments.name, cluster=_cluster(arguments), tell=_say)
    print(f"{len(changes)} objects deleted")
    return 0


def _measure(arguments: argparse.Namespace) -> int:
    from k8s.measure import measure

    print(json.dumps(measure(arguments.base, arguments.images, seconds=arguments.seconds)))
    return 0
