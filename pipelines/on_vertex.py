"""What a container on Vertex AI runs for one component: `python -m pipelines.on_vertex`, with TFX's own arguments.

TFX hands executors `gs://` URIs. Vertex mounts buckets below `/gcs`, so inputs are read there as plain files. Outputs
are written to the container's own disk, because a mounted bucket has neither renames of folders nor writes in the
middle of a file, and are copied to their bucket when the component has done its work. What is told to Vertex are
`gs://` URIs again.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Moved", "main", "moved"]

BUCKET = "gs://"
MOUNT = "/gcs/"
#: Where executors keep what is theirs alone.
TEMPORARY = ".temp"
INVOCATION = "--json_serialized_invocation_args"


class Moved:
    """One invocation with its paths on disk.

    Args:
        invocation: KFP's ExecutorInput as JSON, with `gs://` URIs.
        scratch: An empty folder on the container's disk.
        mount: Where buckets are mounted.
    """

    def __init__(self, invocation: dict[str, Any], scratch: Path, mount: str = MOUNT) -> None:
        self._scratch, self._mount = str(scratch) + "/", mount
        outputs = invocation.get("outputs", {})
        self.invocation = {
            **invocation,
            "inputs": _replaced(invocation.get("inputs", {}), BUCKET, mount),
            "outputs": _replaced(outputs, BUCKET, self._scratch),
        }
        self._told = outputs.get("outputFile", "")

    def finish(self) -> None:
        """Copies what was written to the mounted bucket, the file that tells Vertex of it last and with its URIs."""
        scratch = Path(self._scratch)
        told = scratch / self._told.removeprefix(BUCKET)
        for path in sorted(scratch.rglob("*")):
            target = Path(self._mount) / path.relative_to(scratch)
            if TEMPORARY in path.parts:
                continue
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif path != told:
                shutil.copyfile(path, target)
        if self._told and told.is_file():
            text = _replaced(json.loads(told.read_text(encoding="utf-8")), self._scratch, BUCKET)
            text = _replaced(text, self._mount, BUCKET)
            (Path(self._mount) / told.relative_to(scratch)).write_text(json.dumps(text), encoding="utf-8")


def moved(invocation: str, scratch: Path, mount: str = MOUNT) -> Moved:
    """`Moved` from the text that the container was given."""
    return Moved(json.loads(invocation), scratch, mount)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one component.

    Args:
        argv: `--executor_class_path`, `--json_serialized_invocation_args` and what else TFX's own entry point takes.

    Returns:
        0; a failure is an exception, which Vertex shows in the job's log.
    """
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor as executor

    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index(INVOCATION) + 1
    with tempfile.TemporaryDirectory(prefix="vitrina-") as scratch:
        here = moved(words[at], Path(scratch), MOUNT)
        words[at] = json.dumps(here.invocation)
        executor.main(executor._parse_flags(words))
        here.finish()
    return 0


def _replaced(value: Any, old: str, new: str) -> Any:
    """Every string in it that holds a path, with `old` as `new`; a path may be inside a string, as in JSON."""
    return json.loads(json.dumps(value).replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1]))


if __name__ == "__main__":
    sys.exit(main())
