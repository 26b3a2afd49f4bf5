"""Flags as TF Serving spells them, and the documentation that lists them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from serving import flags
from serving.flags import Flags, parse
from signatures.errors import UsageError

ROOT = Path(__file__).parent.parent.parent
BASE = "--model_base_path=/models/m"

#: The flags of tensorflow_model_server 2.17 to 2.20.
STOCK = """
allow_version_labels_for_unavailable_models batching_parameters_file enable_batching
enable_grpc_healthcheck_service enable_model_warmup enable_per_model_batching_parameters enable_profiler
enable_serialization_as_tensor_content enable_signature_method_name_check file_system_poll_wait_seconds
flush_filesystem_caches grpc_channel_arguments grpc_max_threads grpc_socket_path load_retry_interval_micros
max_num_load_retries mixed_precision model_base_path model_config_file model_config_file_poll_wait_seconds
model_name monitoring_config_file num_load_threads num_request_iterations_for_warmup
num_tflite_interpreters_per_pool num_tflite_pools num_unload_threads per_process_gpu_memory_fraction
platform_config_file port prefer_tflite_model remove_unused_fields_from_bundle_metagraph
rest_api_enable_cors_support rest_api_num_threads rest_api_port rest_api_timeout_in_ms saved_model_tags
skip_initialize_tpu ssl_config_file tensorflow_inter_op_parallelism tensorflow_intra_op_parallelism
tensorflow_session_config_file tensorflow_session_parallelism thread_pool_factory_config_file
use_alts_credentials version xla_cpu_compilation_enabled xla_gpu_compilation_enabled
""".split()  # noqa: SIM905


def test_defaults_are_those_of_tf_serving() -> None:
    found = parse([BASE])
    assert (found.port, found.rest_api_port, found.model_name) == (8500, 0, "default")
    assert (found.rest_api_timeout_in_ms, found.file_system_poll_wait_seconds) == (30000, 1)
    assert (found.max_num_load_retries, found.load_retry_interval_micros) == (5, 60_000_000)
    assert found.enable_model_warmup
    assert not found.enable_batching
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.port = 1  # type: ignore[misc]


def test_spellings() -> None:
    found = parse([BASE, "--port", "9000", "-rest_api_port=9001", "--enable_batching", "--enable_model_warmup=false",
                   "--port=9002", "--per_process_gpu_memory_fraction=0.5", "--model_name", "a=b"])  # fmt: skip
    assert (found.port, found.rest_api_port, found.enable_batching, found.enable_model_warmup) == (
        9002,
        9001,
        True,
        False,
    )
    assert (found.per_process_gpu_memory_fraction, found.model_name) == (0.5, "a=b")


def test_what_is_no_flag_is_told_and_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse([BASE, "--prot=1", "stray"]).port == 8500
    errors = capsys.readouterr().err
    assert "unknown argument: --prot=1. Did you mean 'port'?" in errors
    assert "unknown argument: stray." in errors


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--port=abc", BASE], "--port got 'abc', but wants a whole number."),
        (["--port=99999999999999999999", BASE], "--port got '99999999999999999999', but wants a whole number."),
        (["--enable_batching=maybe", BASE], "--enable_batching got 'maybe', but wants true or false."),
        ([BASE, "--port"], "--port has no value. Write --port=VALUE."),
        ([], "No model was named. Give --model_base_path=/absolute/path, or --model_config_file=FILE."),
        ([BASE, "--port=70000"], "--port got 70000, but ports are between 0 and 65535."),
        ([BASE, "--grpc_max_threads=-4"], "--grpc_max_threads got -4, but wants 0 or more."),
        ([BASE, "--shutdown_grace_seconds=nan"], "--shutdown_grace_seconds got nan, but wants 0 or more."),
        ([BASE, "--port=0"], "--port=0 leaves gRPC without a door. Give --port or --grpc_socket_path."),
        ([BASE, "--port=1", "--rest_api_port=1"], "--port and --rest_api_port are both 1. Choose two different ports."),
        ([BASE, "--batching_parameters_file=f"], ("--batching_parameters_file is given without "
         "--enable_batching. Add --enable_batching.")),
        ([BASE, "--prefer_tflite_model"], ("--prefer_tflite_model is not supported by this server. Leave it out, "
         "or run TensorFlow Serving for it.")),
        ([BASE, "--log_format=xml"], "--log_format got 'xml', but wants text or json."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_clear_line(words: list[str], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert str(caught.value) == problem


def test_every_flag_is_explained_and_documented() -> None:
    help_text = flags.usage()
    for entry in dataclasses.fields(Flags):
        assert f"--{entry.name}=" in help_text
        assert entry.metadata["help"].endswith(".")
    documentation = (ROOT / "docs" / "serve.md").read_text()
    assert flags.table() in documentation, "docs/serve.md is behind: put the output of serving.flags.table() into it"


def test_every_flag_of_tf_serving_is_known_and_those_beyond_say_so() -> None:
    ours = {entry.name: entry.metadata for entry in dataclasses.fields(Flags)}
    assert set(STOCK) <= set(ours)
    for name in set(ours) - set(STOCK) - {"help"}:
        assert ours[name]["help"].endswith("Beyond TensorFlow Serving."), name


def test_flags_need_no_tensorflow() -> None:
    code = "import sys, serving.flags, serving.server; sys.exit('tensorflow' in sys.modules or 'grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
