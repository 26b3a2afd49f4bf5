"""`vitrina pipeline`."""

from __future__ import annotations

import argparse

from pipelines import command

HELP = "retrain with TFX: evaluate what clients call, bless, push"
NEEDS = "pipelines.command"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the actions."""
    command.configure(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs one."""
    return command.run(arguments)
