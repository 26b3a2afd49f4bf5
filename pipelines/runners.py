"""Which Beam runner does the work, where nothing else is asked for."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LOCAL", "beam_args"]

#: In this process. Beam's own default would, in newer releases, first fetch a runner written in Go from the network.
LOCAL = (
    "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    # Read by remote runners only; where it is given, TFX does not pack itself into an archive for each component.
    "--sdk_container_image=none",
)


def beam_args(given: Sequence[str] = ()) -> list[str]:
    """Beam's options for a run.

    Args:
        given: What was asked for, such as `--direct_num_workers=4` or `--runner=FlinkRunner`.

    Returns:
        Those alone where they name a runner, else those after `LOCAL`.
    """
    if any(arg.startswith("--runner") for arg in given):
        return list(given)
    return [*LOCAL, *given]
