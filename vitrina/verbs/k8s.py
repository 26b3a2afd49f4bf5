"""`vitrina k8s render`."""

from __future__ import annotations

import argparse

HELP = "a servable on Kubernetes: render the manifests of stock TF Serving"
NEEDS = "k8s.render"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    from serving import stock

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    render = actions.add_parser("render", help="print the manifests, for: vitrina k8s render ... | kubectl apply -f -")
    render.add_argument("location", metavar="LOCATION", help="the base path: gs://BUCKET/PATH or pvc://CLAIM/PATH")
    render.add_argument("--name", required=True, help="what the objects and the model are called")
    render.add_argument("--namespace", help="the objects' namespace (default: left to kubectl)")
    render.add_argument("--replicas", type=int, default=2, help="how many pods (default: 2)")
    render.add_argument("--image", default=stock.IMAGE, help=f"a TF Serving image (default: {stock.IMAGE})")
    render.add_argument("--cpu", default="1", help="CPU requested per pod (default: 1)")
    render.add_argument("--memory", default="2Gi", help="memory requested and allowed per pod (default: 2Gi)")
    render.add_argument("--service-account", help="the pods' ServiceAccount, where reading gs:// needs one")


def run(arguments: argparse.Namespace) -> int:
    """Prints the manifests."""
    from k8s.render import render

    manifests = render(
        arguments.location,
        name=arguments.name,
        namespace=arguments.namespace,
        replicas=arguments.replicas,
        image=arguments.image,
        cpu=arguments.cpu,
        memory=arguments.memory,
        service_account=arguments.service_account,
    )
    print(manifests, end="")
    return 0
