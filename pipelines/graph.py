"""The pipeline's graph: which component takes what from which. Runners are elsewhere (`local.py`).

```
ImageGen -> IngestGate -> StatisticsGen -> SchemaGen -> ExampleValidator -> DataCheck -> DataGate
   |                                              (accepted before) ------------^           |
   +--------------------------------------------------------------> (Tuner) -> Trainer <----+
                                                                                  |
           +---------------+--------------------------------+---------------------+
           v               v                                v
       SkewCheck       ServingCheck       Evaluator <- (latest blessed)
           |               |                   |
           |               +---> ModelReport <-+
           |               |         |         |
           +---------------+---------+---------+---> BasePathPusher -> (TargetPusher)
```
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pipelines.data import CLASSIFICATION, EVAL, TRAIN, Data, find
from pipelines.pushers import find as find_pusher
from pipelines.runners import beam_args
from pipelines.served import choose
from pipelines.settings import Settings
from signatures.errors import UsageError

__all__ = ["build"]

RUN_FN = "pipelines.trainer.run_fn"
TUNER_FN = "pipelines.tuning.tuner_fn"


def build(settings: Settings, *, started: str, pipeline_root: str | None = None) -> Any:
    """The pipeline as TFX takes it.

    Args:
        settings: What to run on what.
        started: A string that no other run has; keeps the push out of the cache.
        pipeline_root: Where artifacts go in a cluster, which keeps its own metadata and whose data is not looked at
            from here; None is a run on this machine.

    Returns:
        A `tfx.v1.dsl.Pipeline`, on this machine with SQLite metadata below `settings.root`.

    Raises:
        UsageError: The data folder is missing or holds no classes, or there is no such server or target to push to.
    """
    from tfx import v1 as tfx

    here = pipeline_root is None
    if here:
        # Rather now than after the training.
        choose(settings.server)
    for target in settings.push_to:
        kind = find_pusher(target)
        if here:
            kind.check(target)
    data = find(settings.data, settings.labels) if here else None
    sqlite = tfx.orchestration.metadata.sqlite_metadata_connection_config
    return tfx.dsl.Pipeline(
        pipeline_name=settings.name,
        pipeline_root=pipeline_root or str(settings.root / "artifacts"),
        metadata_connection_config=sqlite(str(settings.metadata)) if here else None,
        components=_components(settings, started, data),
        enable_cache=settings.cache,
        beam_pipeline_args=beam_args(settings.beam_args),
    )


def _task(settings: Settings, data: Data | None) -> str:
    """What is learned: what the data is for, or what was asked for where the data is not looked at from here."""
    known = settings.task or CLASSIFICATION if data is None else data.task
    if settings.task not in (None, known):
        raise UsageError(
            f"Got --task {settings.task}, but {settings.data} is data for {known}. Leave --task out, or give "
            f"{'images with masks' if known == CLASSIFICATION else 'images with labels'}."
        )
    return known


def _components(settings: Settings, started: str, data: Data | None) -> list[Any]:
    import tensorflow_data_validation as tfdv
    from tfx import v1 as tfx

    from pipelines.components.base_path_pusher import BasePathPusher
    from pipelines.components.data_check import DataCheck
    from pipelines.components.data_gate import DataGate
    from pipelines.components.image_gen import ImageGen
    from pipelines.components.ingest_gate import IngestGate
    from pipelines.components.model_report import ModelReport
    from pipelines.components.serving_check import ServingCheck
    from pipelines.components.skew_check import SkewCheck
    from pipelines.components.target_pusher import TargetPusher
    from pipelines.evaluation import eval_config
    from pipelines.examples import measured
    from pipelines.serving_check import Serving

    task = _task(settings, data)
    if unknown := sorted({*settings.slices} - {*measured(task)}):
        raise UsageError(f"Got --slice {unknown[0]}, but the Examples have: {', '.join(measured(task))}.")
    images = ImageGen(
        data=settings.data,
        fingerprint=data.fingerprint if data else "",
        eval_share=settings.eval_share,
        labels=settings.labels,
        ignore_index=settings.ignore_index,
    )
    usable = IngestGate(
        report=images.outputs["report"],
        data=settings.data,
        max_bad_share=settings.max_bad_share,
        max_leak_share=settings.max_leak_share,
    )
    examples = images.outputs["examples"]
    statistics = tfx.components.StatisticsGen(
        examples=examples, stats_options=tfdv.StatsOptions(feature_allowlist=list(measured(task)))
    )
    statistics.add_upstream_node(usable)
    # The schema comes from what is trained on; what is held out is then checked against it.
    schema = tfx.components.SchemaGen(statistics=statistics.outputs["statistics"], exclude_splits=[EVAL])
    validator = tfx.components.ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"]
    )
    accepted = _accepted(tfx, settings, here=data is not None)
    findings = DataCheck(
        data=settings.data,
        log=settings.serving_log or "",
        max_drift=settings.max_drift,
        max_skew=settings.max_skew,
        here=data is not None,
        statistics=statistics.outputs["statistics"],
        anomalies=validator.outputs["anomalies"],
        ingest=images.outputs["report"],
        accepted=accepted.outputs["accepted"],
    )
    gate = DataGate(
        findings=findings.outputs["findings"],
        statistics=statistics.outputs["statistics"],
        accept=settings.accept_anomalies,
    )
    blessed = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        model_blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    ).with_id("LatestBlessed")
    config = {
        "model": settings.model,
        "task": task,
        "preprocessing": settings.preprocessing and settings.preprocessing.to_json(),
        "model_fingerprint": _fingerprint(settings.model),
        "schedule": settings.schedule.to_json(),
    }
    splits = {
        "train_args": tfx.proto.TrainArgs(splits=[TRAIN]),
        "eval_args": tfx.proto.EvalArgs(splits=[EVAL]),
    }
    tuners = []
    if settings.tune:
        tuner = tfx.components.Tuner(
            tuner_fn=TUNER_FN,
            examples=examples,
            schema=schema.outputs["schema"],
            custom_config={**config, "trials": settings.tune, "epochs": settings.tune_epochs},
            **splits,
        )
        tuner.add_upstream_node(gate)
        tuners.append(tuner)
    trainer = tfx.components.Trainer(
        run_fn=RUN_FN,
        examples=examples,
        schema=schema.outputs["schema"],
        base_model=blessed.outputs["model"] if settings.warm_start else None,
        hyperparameters=tuners[0].outputs["best_hyperparameters"] if tuners else None,
        custom_config={**config, "resume": str(settings.root / "interrupted")},
        **splits,
    )
    trainer.add_upstream_node(gate)
    skew = SkewCheck(model=trainer.outputs["model"], model_run=trainer.outputs["model_run"], examples=examples)
    evaluator = tfx.components.Evaluator(
        examples=examples,
        model=trainer.outputs["model"],
        baseline_model=blessed.outputs["model"],
        example_splits=[EVAL],
        eval_config=eval_config(settings.bar, slices=settings.slices, task=task),
        module_path="pipelines.evaluation",
    )
    serving = ServingCheck(
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        examples=examples,
        serving=Serving(
            kind=settings.server,
            image=settings.server_image,
            namespace=settings.server_namespace,
            max_latency_ms=settings.max_latency_ms,
            max_size_mb=settings.max_size_mb,
        ),
    )
    card = ModelReport(
        title=settings.name,
        source=settings.model,
        schedule=settings.schedule.to_json(),
        data=settings.data,
        bar=settings.bar,
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        examples=examples,
        ingest=images.outputs["report"],
        evaluation=evaluator.outputs["evaluation"],
        serving=serving.outputs["blessing"],
    )
    pusher = BasePathPusher(
        model=trainer.outputs["model"],
        blessing=evaluator.outputs["blessing"],
        serving_blessing=serving.outputs["blessing"],
        card=card.outputs["card"],
        base=settings.serving_dir,
        keep=settings.keep,
        started=started,
    )
    pusher.add_upstream_node(skew)
    targets = [
        TargetPusher(
            pushed_model=pusher.outputs["pushed_model"], target=target, title=settings.name, started=started
        ).with_id(f"TargetPusher{number}")
        for number, target in enumerate(settings.push_to, start=1)
    ]
    return [
        images,
        usable,
        statistics,
        schema,
        validator,
        accepted,
        findings,
        gate,
        blessed,
        *tuners,
        trainer,
        skew,
        evaluator,
        serving,
        card,
        pusher,
        *targets,
    ]


def _accepted(tfx: Any, settings: Settings, *, here: bool) -> Any:
    """The verdict on the data that was accepted before; in a cluster, which knows no strategies of ours, the latest."""
    from pipelines.components.accepted import AcceptedBefore
    from pipelines.components.data_gate import DataVerdict
    from pipelines.data.spans import named

    channel = tfx.dsl.Channel(type=DataVerdict)
    if not here:
        latest = tfx.dsl.experimental.LatestArtifactStrategy
        return tfx.dsl.Resolver(strategy_class=latest, accepted=channel).with_id("AcceptedBefore")
    config = {"span": named(settings.data)[0]}
    return tfx.dsl.Resolver(strategy_class=AcceptedBefore, config=config, accepted=channel).with_id("AcceptedBefore")


def _fingerprint(model: str) -> str:
    """Changes with a checkpoint's files, so that the cache sees new weights; "" for what is no file, as a Hub id."""
    folder = Path(model.partition(":")[2]) if model.startswith("keras_hub:") else Path(model)
    files = [folder] if folder.is_file() else sorted(folder.iterdir()) if folder.is_dir() else []
    if not files:
        return ""
    total = hashlib.sha256()
    for path in files:
        if path.is_file():
            total.update(f"{path.name}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
