"""The flags of `vitrina serve`: TF Serving's own, spelled and defaulted as there.

The dataclass is the table: its fields carry what `--help` and the documentation say. No TensorFlow is needed here.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from signatures.errors import UsageError, did_you_mean

__all__ = ["Flags", "Support", "parse", "usage", "version_text"]

Support = Literal["supported", "ignored", "refused"]

_MODELS = "Models"
_DOORS = "Doors"
_LIFE = "Loading and versions"
_BATCHING = "Batching"
_WATCHING = "Watching"
_TENSORFLOW = "TensorFlow"
_OTHER = "Other"
_GROUPS = (_MODELS, _DOORS, _LIFE, _BATCHING, _WATCHING, _TENSORFLOW, _OTHER)


def _flag(default: Any, group: str, text: str, support: Support = "supported") -> Any:
    return field(default=default, metadata={"group": group, "help": text, "support": support})


@dataclass(frozen=True)
class Flags:
    """What a command line asked for. Every field is a flag of the same name."""

    model_name: str = _flag("default", _MODELS, "The model's name in requests.")
    model_base_path: str = _flag("", _MODELS, "The folder with the version folders; absolute, or a URI such as gs://.")
    model_config_file: str = _flag(
        "", _MODELS, "A ModelServerConfig textproto with several models; then the two flags above are not looked at."
    )
    model_config_file_poll_wait_seconds: int = _flag(
        0, _MODELS, "Read the model list again every so many seconds; 0 reads it once."
    )
    saved_model_tags: str = _flag("serve", _MODELS, "The tags, comma-separated, of the meta graph to load.")

    port: int = _flag(8500, _DOORS, "The TCP port for gRPC; 0 for none, with --grpc_socket_path.")
    grpc_socket_path: str = _flag("", _DOORS, "A UNIX socket for gRPC, beside or in place of the port.")
    rest_api_port: int = _flag(0, _DOORS, "The TCP port for REST; 0 for none.")
    rest_api_num_threads: int = _flag(0, _DOORS, "How many REST requests run at once; 0 is four per CPU.")
    rest_api_timeout_in_ms: int = _flag(30000, _DOORS, "After how many milliseconds a REST request is given up.")
    rest_api_enable_cors_support: bool = _flag(False, _DOORS, "Send CORS headers with every REST answer.")
    ssl_config_file: str = _flag("", _DOORS, "An SSLConfig textproto; gRPC then speaks TLS.")
    rest_api_ssl: bool = _flag(
        False, _DOORS, "REST speaks TLS as well, with the same SSLConfig. Beyond TensorFlow Serving."
    )
    grpc_channel_arguments: str = _flag("", _DOORS, "Arguments for the gRPC server: key=value, comma-separated.")
    grpc_max_threads: int = _flag(0, _DOORS, "How many gRPC calls run at once; more are refused. 0 is four per CPU.")
    enable_grpc_healthcheck_service: bool = _flag(False, _DOORS, "Answer grpc.health.v1.Health.")
    use_alts_credentials: bool = _flag(False, _DOORS, "Google's ALTS in place of TLS.", "refused")

    file_system_poll_wait_seconds: int = _flag(1, _LIFE, "Look for new versions every so many seconds; 0 looks once.")
    max_num_load_retries: int = _flag(5, _LIFE, "How often a version that cannot be loaded is tried again.")
    load_retry_interval_micros: int = _flag(60_000_000, _LIFE, "Microseconds between these tries.")
    num_load_threads: int = _flag(0, _LIFE, "How many versions are loaded at once; 0 decides by itself.")
    num_unload_threads: int = _flag(0, _LIFE, "How many versions are unloaded at once.", "ignored")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, _LIFE, "Let new labels point to versions that are not AVAILABLE yet, as at start."
    )
    enable_model_warmup: bool = _flag(True, _LIFE, "Replay a version's warmup requests before it is AVAILABLE.")
    num_request_iterations_for_warmup: int = _flag(0, _LIFE, "How often each warmup request is replayed, if above 0.")
    flush_filesystem_caches: bool = _flag(True, _LIFE, "Flush the file system's caches after loading.", "ignored")

    enable_batching: bool = _flag(False, _BATCHING, "Run requests together in batches.")
    batching_parameters_file: str = _flag("", _BATCHING, "A BatchingParameters textproto.")
    enable_per_model_batching_parameters: bool = _flag(
        False, _BATCHING, "Read batching_params.pbtxt from each version's folder, for everything but the threads."
    )

    monitoring_config_file: str = _flag("", _WATCHING, "A MonitoringConfig textproto; enables the Prometheus page.")
    enable_profiler: bool = _flag(True, _WATCHING, "TensorFlow's profiler service.", "ignored")

    tensorflow_session_parallelism: int = _flag(0, _TENSORFLOW, "Threads of a session, between and within ops.")
    tensorflow_intra_op_parallelism: int = _flag(0, _TENSORFLOW, "Threads within an op.")
    tensorflow_inter_op_parallelism: int = _flag(0, _TENSORFLOW, "Threads between ops.")
    tensorflow_session_config_file: str = _flag("", _TENSORFLOW, "A ConfigProto textproto for the sessions.")
    per_process_gpu_memory_fraction: float = _flag(0.0, _TENSORFLOW, "The part of a GPU's memory to take; 0 decides.")
    enable_signature_method_name_check: bool = _flag(
        False, _TENSORFLOW, "Refuse Classify and Regress where the signature's method name is another."
    )
    enable_serialization_as_tensor_content: bool = _flag(
        False, _TENSORFLOW, "Answer gRPC with tensor_content in place of *_val fields."
    )
    remove_unused_fields_from_bundle_metagraph: bool = _flag(True, _TENSORFLOW, "Save some memory.", "ignored")
    xla_cpu_compilation_enabled: bool = _flag(False, _TENSORFLOW, "XLA's just-in-time compilation on CPUs.", "ignored")
    xla_gpu_compilation_enabled: bool = _flag(False, _TENSORFLOW, "XLA's just-in-time compilation on GPUs.", "ignored")
    mixed_precision: str = _flag("", _TENSORFLOW, "Rewrite models to a mixed precision, such as bfloat16.", "refused")
    platform_config_file: str = _flag("", _TENSORFLOW, "A PlatformConfigMap textproto.", "refused")
    thread_pool_factory_config_file: str = _flag("", _TENSORFLOW, "A ThreadPoolFactoryConfig textproto.", "refused")
    prefer_tflite_model: bool = _flag(False, _TENSORFLOW, "Run model.tflite in place of saved_model.pb.", "refused")
    num_tflite_pools: int = _flag(0, _TENSORFLOW, "Pools of TensorFlow Lite interpreters.", "ignored")
    num_tflite_interpreters_per_pool: int = _flag(1, _TENSORFLOW, "Interpreters in each pool.", "ignored")
    skip_initialize_tpu: bool = _flag(False, _TENSORFLOW, "TPUs are not supported anyway.", "ignored")

    shutdown_grace_seconds: float = _flag(
        30.0, _OTHER, "How long SIGTERM waits for what is in flight. Beyond TensorFlow Serving."
    )
    log_format: str = _flag("text", _OTHER, "text, or json for one object a line. Beyond TensorFlow Serving.")
    version: bool = _flag(False, _OTHER, "Print the version and exit.")
    help: bool = _flag(False, _OTHER, "Print this and exit.")


_FIELDS = {entry.name: entry for entry in dataclasses.fields(Flags)}
_TYPES = {"int": int, "float": float, "str": str, "bool": bool}
_BOOLS = {"": True, "true": True, "1": True, "false": False, "0": False}


def parse(argv: Sequence[str]) -> Flags:
    """Reads a command line as TF Serving does.

    `--flag=value` and `--flag value` both work, bare `--flag` sets a bool, and the last one counts. What is not a
    flag is told on stderr and otherwise left alone, so that a command line for a newer TF Serving still starts.

    Args:
        argv: The words after the program's name.

    Raises:
        UsageError: A value does not fit its flag, flags contradict each other, or one is refused.
    """
    values: dict[str, Any] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = re.sub("^-{1,2}", "", word).partition("=")
        name = {"h": "help"}.get(name, name)
        if not word.startswith("-") or name not in _FIELDS:
            print(
                f"vitrina serve: unknown argument: {word}.{did_you_mean(name, _FIELDS)} Going on without it; the "
                "flags are in --help.",
                file=sys.stderr,
            )
            continue
        kind = _TYPES[str(_FIELDS[name].type)]
        if not equals and kind is not bool:
            if not words:
                raise UsageError(f"--{name} has no value. Write --{name}=VALUE.")
            value = words.pop(0)
        values[name] = _convert(name, kind, value)
    flags = Flags(**values)
    if not flags.help and not flags.version:
        _check(flags)
    return flags


def _convert(name: str, kind: type, value: str) -> Any:
    try:
        if kind is bool:
            return _BOOLS[value.lower()]
        converted = kind(value)
        if kind is int and not -(1 << 63) <= converted < 1 << 63:
            raise ValueError
        return converted
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise UsageError(f"--{name} got {value!r}, but wants {wanted}.") from None


def _check(flags: Flags) -> None:
    for name, entry in _FIELDS.items():
        if entry.metadata["support"] == "refused" and getattr(flags, name) != entry.default:
            raise UsageError(
                f"--{name} is not supported by this server. Leave it out, or run TensorFlow Serving for it."
            )
    if not flags.model_base_path and not flags.model_config_file:
        raise UsageError("No model was named. Give --model_base_path=/absolute/path, or --model_config_file=FILE.")
    if not flags.port and not flags.grpc_socket_path:
        raise UsageError("--port=0 leaves gRPC without a door. Give --port or --grpc_socket_path.")
    for name in ("port", "rest_api_port"):
        if not 0 <= getattr(flags, name) <= 65535:
            raise UsageError(f"--{name} got {getattr(flags, name)}, but ports are between 0 and 65535.")
    for name in ("grpc_max_threads", "rest_api_num_threads", "num_load_threads", "shutdown_grace_seconds"):
        if not 0 <= getattr(flags, name) < float("inf"):
            raise UsageError(f"--{name} got {getattr(flags, name)}, but wants 0 or more.")
    if flags.port and flags.port == flags.rest_api_port:
        raise UsageError(f"--port and --rest_api_port are both {flags.port}. Choose two different ports.")
    if flags.batching_parameters_file and not flags.enable_batching:
        raise UsageError("--batching_parameters_file is given without --enable_batching. Add --enable_batching.")
    if flags.rest_api_ssl and not flags.ssl_config_file:
        raise UsageError("--rest_api_ssl is given without --ssl_config_file. Add --ssl_config_file=FILE.")
    if flags.log_format not in ("text", "json"):
        raise UsageError(f"--log_format got {flags.log_format!r}, but wants text or json.")
    if flags.tensorflow_session_parallelism > 0 and (
        flags.tensorflow_intra_op_parallelism > 0 and flags.tensorflow_inter_op_parallelism > 0
    ):
        raise UsageError(
            "--tensorflow_session_parallelism is given beside --tensorflow_intra_op_parallelism and "
            "--tensorflow_inter_op_parallelism. Give the first or the other two."
        )


def usage() -> str:
    """The text of `--help`: the flags by group."""
    lines = ["usage: vitrina serve --model_base_path=PATH [--port=8500] [--rest_api_port=8501] [--FLAG=VALUE ...]", ""]
    lines += ["Serves TensorFlow models over TensorFlow Serving's gRPC and REST, with its flags.", ""]
    for group in _GROUPS:
        lines.append(f"{group}:")
        for entry in (entry for entry in _FIELDS.values() if entry.metadata["group"] == group):
            note = {"ignored": " (accepted, has no effect)", "refused": " (not supported)"}
            lines.append(f"  --{entry.name}={_shown(entry.default)}")
            lines.append(f"      {entry.metadata['help']}{note.get(entry.metadata['support'], '')}")
        lines.append("")
    return "\n".join(lines).rstrip()


def table() -> str:
    """The flags as a Markdown table, for the documentation."""
    lines = ["| flag | default | here | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `--{entry.name}` | `{_shown(entry.default)}` | {entry.metadata['support']} | {entry.metadata['help']} |"
        for group in _GROUPS
        for entry in _FIELDS.values()
        if entry.metadata["group"] == group
    ]
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default) or '""'


def version_text() -> str:
    """The text of `--version`."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"vitrina {version('vitrina')}"
    except PackageNotFoundError:
        return "vitrina (not installed)"
