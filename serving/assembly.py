"""Puts a server together from its flags. Everything that needs TensorFlow is imported from here down."""

from __future__ import annotations

import os
from collections.abc import Callable

from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving import model_config, protos, warmup
from serving.batching import Batcher, Parameters
from serving.errors import Code, ServingError, invalid_argument
from serving.flags import Flags
from serving.grpc_server import GrpcDoor, GrpcOptions
from serving.metrics import Registry
from serving.model_config import Model
from serving.predict import Core, run_directly
from serving.repository import Options, Repository
from serving.rest_server import RestDoor, RestOptions
from serving.servable import Loader, Servable
from serving.tls import Tls

__all__ = ["build_core", "models", "open_doors"]

_METRICS_PATH = "/monitoring/prometheus/metrics"
_PER_MODEL = "batching_params.pbtxt"


def models(flags: Flags, again: bool = False) -> tuple[Model, ...]:
    """The models that the flags, or the file that they name, list.

    Args:
        flags: The flags.
        again: Whether the file was read before; then it may not be empty any more, as in TF Serving.

    Raises:
        ServingError: The file cannot be read, or says what cannot be.
    """
    if not flags.model_config_file:
        return model_config.single(flags.model_name, flags.model_base_path)
    config = protos.read_text(flags.model_config_file, model_server_config_pb2.ModelServerConfig())
    if again and config.WhichOneof("config") != "model_config_list":
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to "
            "another.",
        )
    if config.WhichOneof("config") == "custom_model_config":
        raise ServingError(Code.UNIMPLEMENTED, "ModelServer does not yet support custom model config.")
    return model_config.from_proto(config)


def build_core(flags: Flags) -> Core:
    """The core, with nothing loaded yet.

    Raises:
        ServingError: A file that the flags name cannot be read.
    """
    metrics = Registry()
    batcher, parameters = _batcher(flags, metrics)
    loader = Loader(tuple(flags.saved_model_tags.split(",")), _session_config(flags))
    options = Options(
        poll_wait_seconds=flags.file_system_poll_wait_seconds,
        max_load_retries=max(flags.max_num_load_retries, 0),
        retry_interval_seconds=max(flags.load_retry_interval_micros, 0) / 1e6,
        load_threads=flags.num_load_threads or 4,
        labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
    )

    def load(name: str, version: int, path: str) -> Servable:
        servable = loader.load(name, version, path)
        try:
            if batcher is not None:
                batcher.add(servable, parameters(path))
            if flags.enable_model_warmup:
                warmup.replay(core, servable, max(flags.num_request_iterations_for_warmup, 1))
        except BaseException:
            unloaded(servable)
            servable.unload()
            raise
        return servable

    def unloaded(servable: Servable) -> None:
        if batcher is not None:
            batcher.remove(servable)

    repository = Repository(load, options, unloaded, metrics)
    core = Core(repository, metrics, flags.enable_signature_method_name_check, batcher or run_directly)
    return core


def _batcher(flags: Flags, metrics: Registry) -> tuple[Batcher | None, Callable[[str], Parameters | None]]:
    """The batcher, and what gives a version's parameters by its folder."""
    if not flags.enable_batching:
        return None, lambda _: None
    proto = protos.BatchingParameters()
    if flags.batching_parameters_file:
        proto = protos.read_text(flags.batching_parameters_file, proto)
    threads = proto.num_batch_threads.value if proto.HasField("num_batch_threads") else _cpus()
    if threads <= 0:
        raise invalid_argument(f"num_batch_threads must be positive; was {threads}")
    common = Parameters.from_proto(proto)

    def parameters(path: str) -> Parameters | None:
        if not flags.enable_per_model_batching_parameters:
            return common
        file = os.path.join(path, _PER_MODEL)
        if not protos.exists(file):
            return None
        return Parameters.from_proto(protos.read_text(file, protos.BatchingParameters()))

    return Batcher(threads, metrics), parameters


def _session_config(flags: Flags) -> bytes:
    config = config_pb2.ConfigProto()
    if flags.tensorflow_session_config_file:
        config = protos.read_text(flags.tensorflow_session_config_file, config)
    config.gpu_options.per_process_gpu_memory_fraction = flags.per_process_gpu_memory_fraction
    intra, inter = flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism
    both = flags.tensorflow_session_parallelism
    config.intra_op_parallelism_threads = intra if intra > 0 or inter > 0 else both
    config.inter_op_parallelism_threads = inter if intra > 0 or inter > 0 else both
    return bytes(config.SerializeToString())


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _tls(flags: Flags) -> Tls | None:
    if not flags.ssl_config_file:
        return None
    proto = protos.read_text(flags.ssl_config_file, protos.SSLConfig())
    if not proto.server_key or not proto.server_cert:
        raise invalid_argument(f"'{flags.ssl_config_file}' wants both server_key and server_cert, in PEM. Add them.")
    return Tls(proto.server_key.encode(), proto.server_cert.encode(), proto.custom_ca.encode(), proto.client_verify)


def _metrics_path(flags: Flags) -> str:
    if not flags.monitoring_config_file:
        return ""
    proto = protos.read_text(flags.monitoring_config_file, protos.MonitoringConfig()).prometheus_config
    return (proto.path or _METRICS_PATH) if proto.enable else ""


def open_doors(core: Core, flags: Flags) -> tuple[GrpcDoor, RestDoor | None]:
    """Starts to listen on the ports that the flags name.

    Raises:
        ServingError: A file that the flags name cannot be read.
        VitrinaError: A port is taken.
    """
    tls = _tls(flags)
    grpc = GrpcDoor(
        core,
        GrpcOptions(
            port=flags.port,
            socket_path=flags.grpc_socket_path,
            max_threads=flags.grpc_max_threads or 4 * _cpus(),
            tls=tls,
            arguments=flags.grpc_channel_arguments,
            health=flags.enable_grpc_healthcheck_service,
            as_content=flags.enable_serialization_as_tensor_content,
        ),
    )
    rest = None
    if flags.rest_api_port:
        options = RestOptions(
            port=flags.rest_api_port,
            threads=flags.rest_api_num_threads or 4 * _cpus(),
            timeout_ms=flags.rest_api_timeout_in_ms,
            cors=flags.rest_api_enable_cors_support,
            metrics_path=_metrics_path(flags),
            tls=tls if flags.rest_api_ssl else None,
        )
        rest = RestDoor(core, options)
    grpc.start()
    if rest is not None:
        rest.start()
    return grpc, rest
