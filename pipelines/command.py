"""`vitrina pipeline ...`: its options, and what is printed. The work is in `local.py` and `lineage.py`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data import TASKS
from pipelines.servers import kinds
from pipelines.settings import DEVICES, PRECISIONS, Schedule, Settings
from signatures import preparing
from signatures.errors import UsageError

if TYPE_CHECKING:
    from pipelines.local import RunResult

__all__ = ["configure", "run"]

#: What `show` says of a component's settings and of an artifact.
SHOWN_SETTINGS = ("data", "source", "bar", "server", "base", "target")
SHOWN_PROPERTIES = ("span", "version", "blessed", "pushed_destination", "live", "told")
DEFAULTS = {field.name: field.default for field in fields(Settings)}
SCHEDULE = Schedule()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the actions with their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    running = actions.add_parser("run", help="ingest, validate, train, evaluate, bless, push", allow_abbrev=False)
    _run_options(running)
    _local_options(running)
    watching = actions.add_parser("watch", help="run on every new span of a folder", allow_abbrev=False)
    _run_options(watching)
    _watch_options(watching)
    compiling = actions.add_parser(
        "compile", help="write the same pipeline for Vertex AI or Airflow", allow_abbrev=False
    )
    _run_options(compiling)
    _compile_options(compiling)
    submitting = actions.add_parser("submit", help="start a compiled job on Vertex AI", allow_abbrev=False)
    _submit_options(submitting)
    showing = actions.add_parser("show", help="what a run did, from its metadata", allow_abbrev=False)
    showing.add_argument("--root", required=True, type=Path, help="the --root that the pipeline ran with")
    showing.add_argument("--name", default=DEFAULTS["name"], help="the pipeline's name (default: %(default)s)")
    showing.add_argument(
        "--version",
        type=int,
        metavar="N",
        help="instead all that the pushed version N came from, whichever runs it was",
    )
    showing.add_argument("--json", action="store_true", help="as one JSON object")
    back = actions.add_parser("rollback", help="serve the version before the latest again", allow_abbrev=False)
    back.add_argument("--serving-dir", required=True, type=Path, help="the TF Serving base path")
    back.add_argument("--to", type=int, metavar="N", help="this version instead of the one before the latest")
    for action in (running, watching, compiling, submitting, showing, back):
        # The flag is known to the command itself; here it may stand after the action as well.
        action.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Does what `configure` declared.

    Args:
        arguments: As parsed.

    Returns:
        The exit code.
    """
    actions: Mapping[str, Callable[[argparse.Namespace], int]] = {
        "run": _run,
        "watch": _watch,
        "compile": _compile,
        "submit": _submit,
        "show": _show,
        "rollback": _rollback,
    }
    return actions[arguments.action](arguments)


def _run_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("what and where")
    where.add_argument(
        "--data",
        required=True,
        help="images: class folders, images with masks, a *.csv or *.jsonl manifest, TFRecords, or datasets:FOLDER",
    )
    where.add_argument(
        "--model", required=True, help="what to start from: a checkpoint's folder or Hub id, a .keras file, ..."
    )
    where.add_argument("--root", required=True, help="where artifacts, metadata.sqlite and logs go")
    where.add_argument("--serving-dir", required=True, help="the TF Serving base path that is pushed to")
    where.add_argument("--name", default=DEFAULTS["name"], help="the pipeline's name (default: %(default)s)")
    data = parser.add_argument_group("data")
    _number(data, "eval-share", float, DEFAULTS, "share held out by content hash, where DATA has no split of its own")
    _number(data, "max-bad-share", float, DEFAULTS, "share of unreadable files that is set aside, not an error")
    _number(data, "max-leak-share", float, DEFAULTS, "share of what is held out that may be trained on, too")
    data.add_argument("--task", choices=TASKS, default=None, help="what is learned (default: what DATA is for)")
    data.add_argument(
        "--labels", type=_labels, metavar="A,B,C", help="classes of masks in id order, or a file with one a line"
    )
    _number(data, "ignore-index", int, DEFAULTS, "the id of a mask's pixels that count for nothing")
    _number(data, "max-drift", float, DEFAULTS, "how far from the data accepted before, 0 to 1")
    data.add_argument(
        "--serving-log",
        metavar="LOG",
        help="what clients sent: PredictionLog TFRecords, *.jsonl of requests, or images",
    )
    _number(data, "max-skew", float, DEFAULTS, "how far from what clients sent, 0 to 1")
    data.add_argument("--accept-anomalies", action="store_true", help="go on all the same")
    training = parser.add_argument_group("training")
    for field, kind, told in (
        ("epochs", int, "passes over the training images"),
        ("head-epochs", int, "passes before them that train the head alone"),
        ("batch-size", int, "images per step"),
        ("learning-rate", float, "the highest, after warming up"),
        ("weight-decay", float, "AdamW's"),
        ("warmup", float, "share of the steps over which the learning rate rises"),
        ("shift", float, "random shifts, as a share of the side"),
        ("rotate", float, "random rotations, as a share of a full turn"),
        ("zoom", float, "random zooms in and out, as a share"),
        ("brightness", float, "random brightness, as a share of the range"),
        ("contrast", float, "random contrast, as a share"),
        ("label-smoothing", float, "share of the target that is spread over all classes"),
        ("early-stopping", int, "epochs without a better loss on the validation share before it stops; 0 never does"),
        ("validation-share", float, "share of the train split that early stopping looks at"),
        ("seed", int, "of weights, shuffle and augmentation"),
    ):
        _number(training, field, kind, vars(SCHEDULE), told)
    training.add_argument(
        "--warm-start", action="store_true", help="train on from the latest blessed model, where there is one"
    )
    _number(training, "tune", int, DEFAULTS, "schedules that KerasTuner tries first; the best one is trained with")
    training.add_argument("--tune-epochs", type=int, default=None, help="passes per trial (default: --epochs)")
    training.add_argument("--flip", action="store_true", help="flip images from left to right by chance")
    training.add_argument(
        "--precision", choices=PRECISIONS, default=SCHEDULE.precision, help="what is computed in (%(default)s)"
    )
    training.add_argument(
        "--devices",
        choices=DEVICES,
        default=SCHEDULE.devices,
        help="auto: all GPUs where there are several; one; all: all GPUs, or else CPUs (%(default)s)",
    )
    training.add_argument("--balance", action="store_true", help="weigh images so that every class counts the same")
    preparing.add_options(parser)
    bar = parser.add_argument_group("blessing and pushing")
    _number(bar, "threshold", float, DEFAULTS, "least accuracy on what is held out")
    _number(bar, "max-loss", float, DEFAULTS, "how far below the latest blessed model is still blessed")
    for name, told in (
        ("top-k-threshold", "least share whose class is among the first five answers"),
        ("class-threshold", "least accuracy of every single class"),
        ("max-class-loss", "how far any class may be below the latest blessed model"),
        ("max-calibration-error", "most that scores may be from the share that is right"),
    ):
        bar.add_argument(f"--{name}", type=float, default=None, help=f"{told} (default: not asked for)")
    bar.add_argument(
        "--slice", action="append", default=None, metavar="FEATURE", dest="slices",
        help="give the figures per value of this feature, too (default: image/format)",
    )  # fmt: skip
    bar.add_argument(
        "--server", default=DEFAULTS["server"], choices=kinds(), help="what validates by serving (%(default)s)"
    )
    bar.add_argument(
        "--server-image", default=DEFAULTS["server_image"], help="for docker and kubernetes (default: %(default)s)"
    )
    bar.add_argument("--server-namespace", default="", help="for kubernetes (default: the current one)")
    bar.add_argument("--max-latency-ms", type=float, default=None, help="most that 95 %% of single requests may take")
    bar.add_argument("--max-size-mb", type=float, default=None, help="most that the servable's files may take")
    bar.add_argument("--keep", type=int, default=None, help="how many versions stay (default: all)")
    bar.add_argument(
        "--push-to", action="append", default=[], metavar="TARGET",
        help="where a pushed version goes live, too: k8s://NAMESPACE/NAME, "
        "vertex://projects/P/locations/L/endpoints/E, or exec://PROGRAM, called with the base path and the version",
    )  # fmt: skip
    how = parser.add_argument_group("running")
    how.add_argument("--no-cache", action="store_true", help="take nothing over from earlier runs")
    how.add_argument(
        "--beam-arg", action="append", default=[], metavar="ARG", help="an option for Beam, such as --runner=..."
    )


def _local_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--span", type=int, help="which of DATA's span-N folders (default: the latest)")
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON object")


def _watch_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="run on the new spans that are there, and leave")
    parser.add_argument("--interval", type=float, default=30.0, help="seconds between two looks (%(default)s)")


def _compile_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--for", required=True, choices=["vertex", "airflow"], dest="target", help="where it is to run")
    parser.add_argument(
        "--out", required=True, type=Path, help="for vertex *.json, or *.yaml for the spec alone; for airflow *.py"
    )
    parser.add_argument("--image", help="for vertex: a container image with vitrina[tfx]")
    parser.add_argument("--schedule", help="for airflow: when, as cron or @daily (default: by trigger alone)")


def _submit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="FILE", type=Path, help="what `vitrina pipeline compile` wrote")
    parser.add_argument("--project", required=True, help="the Google Cloud project")
    parser.add_argument("--location", required=True, help="the region, such as europe-west4")
    parser.add_argument("--service-account", help="the account that the components run as")


def _labels(text: str) -> tuple[str, ...]:
    from signatures.export import read_labels

    try:
        return read_labels(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _number(group: Any, name: str, kind: type, defaults: Mapping[str, Any], told: str) -> None:
    group.add_argument(f"--{name}", type=kind, default=defaults[name.replace("-", "_")], help=f"{told} (%(default)s)")


def _run(arguments: argparse.Namespace) -> int:
    from pipelines import local

    started = time.monotonic()
    verbose = getattr(arguments, "verbose", False)
    result = local.run(span=arguments.span, verbose=verbose, **_settings(arguments))
    if arguments.json:
        print(json.dumps(_as_json(result), indent=2))
    else:
        _print_result(result, time.monotonic() - started)
    return int(_not_live(result))


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options as `local.run` and `compiled.compile` take them."""
    names = [field.name for field in fields(Settings) if hasattr(arguments, field.name)]
    schedule = Schedule(**{field.name: getattr(arguments, field.name) for field in fields(Schedule)})
    return {
        **{name: getattr(arguments, name) for name in names},
        "schedule": schedule,
        "preprocessing": preparing.settings(arguments),
        "cache": not arguments.no_cache,
        "slices": tuple(arguments.slices) if arguments.slices else DEFAULTS["slices"],
        "push_to": tuple(arguments.push_to),
        "beam_args": tuple(arguments.beam_arg),
    }


def _watch(arguments: argparse.Namespace) -> int:
    from pipelines.watch import watch

    failed = False
    started = time.monotonic()
    for seen in watch(
        once=arguments.once,
        interval=arguments.interval,
        verbose=getattr(arguments, "verbose", False),
        **_settings(arguments),
    ):
        print(f"span {seen.span}" + (f", version {seen.version}" if seen.version else ""), flush=True)
        if seen.error:
            print(f"stopped: {seen.error}", flush=True)
        else:
            _print_result(seen.result, time.monotonic() - started)
            failed |= _not_live(seen.result)
        failed |= bool(seen.error)
        started = time.monotonic()
    return int(failed)


def _compile(arguments: argparse.Namespace) -> int:
    print(_COMPILERS[arguments.target](arguments))
    return 0


def _for_vertex(arguments: argparse.Namespace) -> Path:
    from pipelines.compiled import compile

    if arguments.image is None:
        raise UsageError("Vertex AI runs containers. Give --image, a container image with vitrina[tfx].")
    if arguments.schedule is not None:
        raise UsageError("Got --schedule, which is for airflow. Leave it out.")
    return compile(image=arguments.image, out=arguments.out, **_settings(arguments))


def _for_airflow(arguments: argparse.Namespace) -> Path:
    from pipelines import local, on_airflow

    if arguments.image is not None:
        raise UsageError("Got --image, but Airflow runs the components on its workers. Leave it out.")
    settings = local.resolved(**_settings(arguments))
    return on_airflow.write(settings, arguments.out, schedule=arguments.schedule)


_COMPILERS: Mapping[str, Callable[[argparse.Namespace], Path]] = {"vertex": _for_vertex, "airflow": _for_airflow}


def _submit(arguments: argparse.Namespace) -> int:
    from pipelines.compiled import submit

    name = submit(
        arguments.job,
        project=arguments.project,
        location=arguments.location,
        service_account=arguments.service_account,
    )
    print(name)
    return 0


def _as_json(result: RunResult) -> dict[str, Any]:
    paths = {name: str(value) for name, value in vars(result).items() if isinstance(value, Path)}
    components = [vars(component) for component in result.components]
    deployments = [vars(deployed) for deployed in result.deployments]
    return {**vars(result), **paths, "components": components, "deployments": deployments}


def _not_live(result: RunResult) -> bool:
    """Whether a target refused what was pushed; what served there serves on."""
    return not all(deployed.live for deployed in result.deployments)


def _print_result(result: RunResult, seconds: float) -> None:
    from pipelines import verdict

    counts = result.ingest["counts"]
    print("component            seconds")
    for component in result.components:
        note = "  taken over, nothing changed" if component.state == "CACHED" else ""
        print(f"{component.name:<18} {component.seconds:9.1f}{note}")
    print(f"{'in all':<18} {seconds:9.1f}")
    bad = len(result.ingest["bad"])
    print(f"images: {counts['train']} to train on, {counts['eval']} held out, {bad} set aside as unreadable")
    leaks = result.ingest["leaks"]
    if leaks:
        print(f"beware: {len(leaks)} images are both trained on and held out, such as {' = '.join(leaks[0])}")
    name = verdict.headline(result.metrics)
    before = result.metrics.get(f"baseline_{name}")
    compared = "" if before is None else f"; the latest blessed model before it: {before:.4f}"
    told = "mean IoU" if name == "mean_iou" else name
    print(f"{told} on what is held out, bytes in: {result.metrics[name]:.4f}{compared}")
    top, error = result.metrics["top_k_accuracy"], result.metrics["calibration_error"]
    print(f"among the first five answers: {top:.4f}; scores are {error:.4f} from the share that is right, on average")
    for door, latency in result.serving["latency_ms"].items():
        print(f"served by {result.serving['server']} over {door}: p50 {latency['p50']} ms, p95 {latency['p95']} ms")
    print(f"log: {result.log}")
    if result.pushed is None:
        print(f"not blessed, so nothing was pushed: {'; '.join(result.failures)}")
    elif result.new:
        print(f"blessed and pushed: {result.pushed}")
    else:
        print(f"blessed; the latest version already is this very model: {result.pushed}")
    for deployed in result.deployments:
        print(f"{'live on' if deployed.live else 'NOT live on'} {deployed.target}: {deployed.told}")


def _show(arguments: argparse.Namespace) -> int:
    from pipelines import lineage

    metadata = arguments.root.resolve() / "metadata.sqlite"
    if arguments.version is None:
        executions = lineage.last_run(metadata, arguments.name)
    else:
        executions = lineage.origins(metadata, arguments.version)
    if arguments.json:
        print(json.dumps([_execution_json(item) for item in executions], indent=2))
        return 0
    makers = {artifact.id: item.component for item in executions for artifact in item.outputs.values()}
    for item in executions:
        sources = sorted({makers.get(number, "an earlier run") for number in item.inputs})
        came = f" <- {', '.join(sources)}" if sources else ""
        print(f"{item.component:<18} {item.state:<9} {item.seconds:8.1f} s{came}")
        for name in SHOWN_SETTINGS:
            if item.settings.get(name):
                print(f"    {name} = {item.settings[name]}")
        for name, artifact in item.outputs.items():
            print(f"    {name}: {artifact.uri}{_told(artifact.properties)}")
    return 0


def _told(properties: Mapping[str, Any]) -> str:
    """Where a model was pushed to, whether it was blessed, and the like."""
    shown = [f"{name} {properties[name]}" for name in SHOWN_PROPERTIES if properties.get(name) not in (None, "")]
    return f" ({', '.join(shown)})" if shown else ""


def _execution_json(item: Any) -> dict[str, Any]:
    return {**vars(item), "outputs": {name: vars(artifact) for name, artifact in item.outputs.items()}}


def _rollback(arguments: argparse.Namespace) -> int:
    from pipelines.push import rollback

    done = rollback(arguments.serving_dir, arguments.to)
    what = "the model before the latest" if arguments.to is None else f"the model of version {arguments.to}"
    print(f"{done.path} holds {what} again; servers take it up as they poll")
    return 0
