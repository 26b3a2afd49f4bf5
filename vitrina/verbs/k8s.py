"""`vitrina k8s`."""

from __future__ import annotations

import argparse

HELP = "a servable on Kubernetes: stock TF Serving, with canaries and rollback"
NEEDS = "k8s.command"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the actions."""
    from k8s import command

    command.configure(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs one."""
    from k8s import command

    return command.run(arguments)
