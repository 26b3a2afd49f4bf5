from __future__ import annotations

from pipelines.runners import LOCAL, beam_args


def test_what_names_a_runner_is_left_as_it_is() -> None:
    assert beam_args(["--runner=FlinkRunner", "--parallelism=2"]) == ["--runner=FlinkRunner", "--parallelism=2"]


def test_all_else_runs_here() -> None:
    assert beam_args() == list(LOCAL)
    assert beam_args(["--direct_num_workers=2"]) == [*LOCAL, "--direct_num_workers=2"]
