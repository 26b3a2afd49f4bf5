from __future__ import annotations

import ast
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.settings import Schedule, Settings
from vitrina.cli import main

COMMAND = (
    "pipeline compile --for airflow --model google/vit-base-patch16-224 --name flowers --epochs 3 --slice image/width"
)


def compiled(folder: Path, more: str = "") -> int:
    paths = f"--data {folder}/data --root {folder}/root --serving-dir {folder}/served --out {folder}/flowers.py"
    return main(shlex.split(f"{COMMAND} {paths} {more}"))


def test_the_file_names_the_settings_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert compiled(Path(), "--schedule @daily") == 0
    tree = ast.parse((tmp_path / "flowers.py").read_text())
    (values,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    settings = Settings.from_json(values)
    assert settings.data == str(tmp_path / "data"), "a worker may stand in another folder"
    assert settings.root == tmp_path / "root"
    assert settings.schedule.epochs == 3
    assert settings.slices == ("image/width",)
    assert "schedule='@daily'" in (tmp_path / "flowers.py").read_text()


def test_settings_survive_json() -> None:
    from signatures.preprocessing import Preprocessing

    settings = Settings(
        data="d", model="m", root=Path("r"), serving_dir=Path("s"), schedule=Schedule(epochs=2), beam_args=("--a=1",)
    )
    for given in (settings, replace(settings, preprocessing=Preprocessing(processor="options", crop=(8, 8)))):
        assert Settings.from_json(json.loads(json.dumps(given.to_json()))) == given


@pytest.mark.parametrize(
    ("more", "told"),
    [("--out dag.txt", "Airflow reads *.py"), ("--image x", "Leave it out"), ("--out no/x.py", "Make")],
)
def test_what_airflow_would_not_take_is_refused(more: str, told: str, tmp_path: Path, capsys: Any) -> None:
    assert compiled(tmp_path, more) == 2
    assert told in capsys.readouterr().err


def test_airflow_takes_the_file(tmp_path: Path) -> None:
    pytest.importorskip("airflow", reason="Apache Airflow is not installed")
    pytest.importorskip("tfx", reason="the tfx extra is not installed in this lane")
    import runpy

    from pipelines import digits

    digits.write_images(tmp_path / "data", limit=5)
    assert compiled(tmp_path) == 0
    dag = runpy.run_path(str(tmp_path / "flowers.py"))["pipeline"]
    assert dag.dag_id == "flowers"
    assert dag.get_task("BasePathPusher").upstream_task_ids >= {"Evaluator", "ServingCheck", "SkewCheck"}
