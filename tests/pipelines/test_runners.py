from __future__ import annotations

from pipelines.runners import LOCAL, beam_args


def test_what_names_a_runner_is_left_as_it_is() -> None:
    assert beam_args(["--runner=FlinkRunner", "--parallelism=2"]) == ["--runner=FlinkRunner", "--parallelism=2"]


def test_the_direct_runner_by_its_name_is_the_one_of_this_process() -> None:
    given = ["--runner=DirectRunner", "--direct_running_mode=multi_processing"]
    assert beam_args(given) == [*LOCAL, "--direct_running_mode=multi_processing"]


def test_workers_of_this_installation_need_no_code_sent() -> None:
    given = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    assert beam_args(given) == [*given, "--sdk_container_image=none"]
    assert beam_args([*given, "--setup_file=./setup.py"]) == [*given, "--setup_file=./setup.py"]


def test_all_else_runs_here() -> None:
    assert beam_args() == list(LOCAL)
    assert beam_args(["--direct_num_workers=2"]) == [*LOCAL, "--direct_num_workers=2"]
