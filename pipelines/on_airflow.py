"""The pipeline as a DAG of Apache Airflow 2, by TFX's own AirflowDagRunner: a task per component.

Airflow reads Python files, so that is what is written: one that names the settings and calls `dag`. The tasks run on
Airflow's workers, which have to see the data, the root and the serving base as the same paths.
"""

from __future__ import annotations

import datetime
import json
import pprint
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.settings import Settings
from signatures.errors import UsageError

__all__ = ["dag", "write"]

FILE = '''"""A DAG of Apache Airflow, for its dags folder. Written by `vitrina pipeline compile --for airflow`.

The folder is read again and again and TFX takes its time: let AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT be 120.
"""

from airflow import DAG

from pipelines.on_airflow import dag

SETTINGS = {settings}

pipeline: DAG = dag(SETTINGS, schedule={schedule!r})
'''


def write(settings: Settings, out: Path, *, schedule: str | None = None) -> Path:
    """Writes the file that Airflow takes.

    Args:
        settings: What to run on what, with absolute paths.
        out: The file, `*.py`.
        schedule: Cron or `@daily` and the like; None is by hand or by trigger alone.

    Returns:
        The file.

    Raises:
        UsageError: It is no `*.py`, or its folder is not there.
    """
    if out.suffix != ".py":
        raise UsageError(f"Got --out {out}, but Airflow reads *.py. Give such a file in its dags folder.")
    if not out.parent.is_dir():
        raise UsageError(f"There is no folder {out.parent} for {out.name}. Make it first.")
    values = pprint.pformat(json.loads(json.dumps(settings.to_json())), width=110, sort_dicts=False)
    out.write_text(FILE.format(settings=values, schedule=schedule), encoding="utf-8")
    return out


def dag(settings: Mapping[str, Any], *, schedule: str | None = None) -> Any:
    """The DAG: on the latest span of the data, one run and one task at a time, as SQLite wants it.

    Args:
        settings: As `Settings.to_json` gives them.
        schedule: When Airflow starts it by itself.

    Returns:
        An `airflow.DAG`.

    Raises:
        UsageError: Airflow is not installed beside TFX.
    """
    from dataclasses import replace

    from pipelines import graph
    from pipelines.data.spans import choose

    try:
        from tfx.orchestration.airflow import airflow_dag_runner as airflow
    except ImportError as error:
        raise UsageError(
            f"Airflow's DAG needs a package that is not installed ({error}). Install it with: "
            "pip install 'vitrina[tfx]' 'apache-airflow<3'"
        ) from error
    given = Settings.from_json(settings)
    chosen = replace(given, data=choose(given.data, None))
    now = datetime.datetime.now(datetime.timezone.utc)
    config = airflow.AirflowPipelineConfig(
        {
            "schedule": schedule,
            "start_date": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
            "catchup": False,
            "max_active_runs": 1,
            "max_active_tasks": 1,
            "doc_md": f"`vitrina` retrains on {given.data} and pushes to {given.serving_dir}.",
        }
    )
    return airflow.AirflowDagRunner(config).run(graph.build(chosen, started=now.isoformat(timespec="microseconds")))
