"""Which Beam runner does the work, where nothing else is asked for."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LOCAL", "beam_args"]

PACKS_NOTHING = "--sdk_container_image=none"
#: Beam's names for its own runner.
DIRECT = ("DirectRunner", "BundleBasedDirectRunner", "SwitchingDirectRunner", "FnApiRunner", "direct")
#: Workers that are threads of this process, or processes of this machine.
HERE = ("--environment_type=LOOPBACK", "--environment_type=PROCESS")
#: What says which code the workers get.
NAMES_CODE = ("--sdk_container_image", "--setup_file", "--extra_package", "--requirements_file")

#: In this process. Beam's own default would, in newer releases, first fetch a runner written in Go from the network.
LOCAL = (
    "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    # Read by remote runners only; where it is given, TFX does not pack itself into an archive for each component.
    PACKS_NOTHING,
)


def beam_args(given: Sequence[str] = ()) -> list[str]:
    """Beam's options for a run.

    Args:
        given: What was asked for, such as `--direct_num_workers=4` or `--runner=FlinkRunner`.

    Returns:
        Those after `LOCAL` where they name no runner, or the direct one; else those alone. Where the workers run in
        this installation, TFX is told not to pack itself for them.
    """
    runner = next((arg.partition("=")[2] for arg in given if arg.startswith("--runner=")), None)
    if runner in DIRECT or not any(arg.startswith("--runner") for arg in given):
        return [*LOCAL, *(arg for arg in given if not arg.startswith("--runner"))]
    packed = any(arg.startswith(NAMES_CODE) for arg in given)
    here = any(arg in HERE for arg in given)
    return [*given, *([] if packed or not here else [PACKS_NOTHING])]
