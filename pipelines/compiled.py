"""The pipeline as Vertex AI Pipelines takes it: a KFP v2 job, written offline.

TFX's KubeflowV2DagRunner does the translation. What is particular to this pipeline: paths that start with `gs://` go
in as `/gcs/...`, where Vertex mounts buckets, and each component is run by `pipelines.on_vertex`, which keeps what is
written on the container's own disk until it is whole.
"""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

from pipelines.settings import Schedule, Settings
from signatures.errors import MissingExtra, UsageError

__all__ = ["compile", "mounted", "submit"]

BUCKET = "gs://"
MOUNT = "/gcs/"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
SUFFIXES = (".json", ".yaml", ".yml")

#: Their inputs are not all in Vertex's metadata (files in a bucket), so an earlier run never stands in for them.
NEVER_CACHED = ("ImageGen", "BasePathPusher", "TargetPusher")
ENTRY = ("python", "-m", "pipelines.on_vertex")


def compile(
    *,
    data: str,
    model: str,
    root: str,
    serving_dir: str,
    image: str,
    out: str | Path,
    schedule: Schedule | None = None,
    **settings: Any,
) -> Path:
    """Writes the job that `google.cloud.aiplatform.PipelineJob(template_path=...)` takes; nothing is sent anywhere.

    Args:
        data: As for a local run, in a bucket: `gs://bucket/flowers`.
        model: A Hub id, or a checkpoint folder in a bucket.
        root: Where the job's artifacts go, `gs://bucket/...`.
        serving_dir: The TF Serving base path in a bucket that is pushed to.
        image: A container image with `vitrina[tfx]` installed.
        out: The file: `*.json` for the whole job, `*.yaml` for its pipeline spec.
        schedule: How to train; None is `Schedule()`.
        **settings: The rest of `Settings`, as for a local run.

    Returns:
        The file.

    Raises:
        UsageError: A path is not in a bucket, the name is none that Vertex takes, or a package is missing.
    """
    out = Path(out)
    for option, value in (("--data", data), ("--root", root), ("--serving-dir", serving_dir)):
        if not value.startswith(BUCKET):
            raise UsageError(f"Got {option} {value}, but Vertex AI sees buckets only. Give gs://BUCKET/PATH.")
    if out.suffix not in SUFFIXES:
        raise UsageError(f"Got --out {out}, but a job is written as {', '.join(SUFFIXES)}. Give such a file.")
    if not out.parent.is_dir():
        raise UsageError(f"There is no folder {out.parent} for {out.name}. Make it first.")
    chosen = Settings(
        data=mounted(data),
        model=mounted(model),
        root=Path(mounted(root)),
        serving_dir=Path(mounted(serving_dir)),
        schedule=schedule or Schedule(),
        **{**settings, **({"serving_log": mounted(log)} if (log := settings.get("serving_log")) else {})},
    )
    if not NAME.fullmatch(chosen.name):
        raise UsageError(f"Got --name {chosen.name}, but Vertex AI wants lower-case letters, digits and dashes.")
    job = _translate(chosen, pipeline_root=root, image=image)
    _never_cached(job["pipelineSpec"])
    job["pipelineSpec"]["defaultPipelineRoot"] = root
    out.write_text(_text(job, out.suffix), encoding="utf-8")
    return out


def submit(job: Path, *, project: str, location: str, service_account: str | None = None) -> str:
    """Starts a compiled job on Vertex AI Pipelines and does not wait for it.

    Args:
        job: What `compile` wrote.
        project: The Google Cloud project.
        location: Its region.
        service_account: The account that the components run as; None is the project's default.

    Returns:
        The job's resource name.

    Raises:
        UsageError: There is no such file.
        MissingExtra: The SDK is not installed.
    """
    if not job.is_file():
        raise UsageError(f"There is no file {job}. Write it first: vitrina pipeline compile --for vertex --out {job}")
    try:
        from google.cloud import aiplatform
    except ImportError as error:
        raise MissingExtra("google.cloud.aiplatform", "vertex") from error
    text = job.read_text(encoding="utf-8")
    name = json.loads(text)["displayName"] if job.suffix == ".json" else job.stem
    started = aiplatform.PipelineJob(display_name=name, template_path=str(job), project=project, location=location)
    started.submit(service_account=service_account)
    return str(started.resource_name)


def mounted(path: str) -> str:
    """Where Vertex mounts a bucket's path: `gs://bucket/x` is `/gcs/bucket/x`; other strings stay.

    >>> mounted("gs://flowers/data")
    '/gcs/flowers/data'
    """
    return MOUNT + path[len(BUCKET) :] if path.startswith(BUCKET) else path


def _translate(settings: Settings, *, pipeline_root: str, image: str) -> dict[str, Any]:
    try:
        from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as kubeflow
    except ImportError as error:
        raise UsageError(
            f"Compiling needs a package that is not installed ({error}). Install it with: pip install 'vitrina[tfx]'"
        ) from error

    from pipelines import graph

    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
    pipeline = graph.build(settings, started=started, pipeline_root=pipeline_root)
    config = kubeflow.KubeflowV2DagRunnerConfig(
        default_image=image, default_commands=list(ENTRY), use_pipeline_spec_2_1=True
    )
    job = kubeflow.KubeflowV2DagRunner(config).run(pipeline, write_out=False)
    assert isinstance(job, dict)
    return job


def _never_cached(spec: dict[str, Any]) -> None:
    for name, task in spec["root"]["dag"]["tasks"].items():
        if name.rstrip("0123456789") in NEVER_CACHED:
            task["cachingOptions"] = {}


def _text(job: dict[str, Any], suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(job, indent=2, sort_keys=True) + "\n"
    import yaml

    text = yaml.safe_dump(job["pipelineSpec"], sort_keys=True)
    assert isinstance(text, str)
    return text
