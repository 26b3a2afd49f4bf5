"""Puts a server together from its flags. Everything that needs TensorFlow is imported from here down."""

from __future__ import annotations

import os

from serving import model_config
from serving.flags import Flags
from serving.grpc_server import GrpcDoor, GrpcOptions
from serving.metrics import Registry
from serving.model_config import Model
from serving.predict import Core
from serving.repository import Options, Repository
from serving.rest_server import RestDoor, RestOptions
from serving.servable import Loader

__all__ = ["build_core", "open_doors"]


def build_core(flags: Flags) -> tuple[Core, tuple[Model, ...]]:
    """The core with an empty repository, and the models that it is to serve."""
    loader = Loader(tuple(flags.saved_model_tags.split(",")))
    options = Options(
        poll_wait_seconds=flags.file_system_poll_wait_seconds,
        max_load_retries=flags.max_num_load_retries,
        retry_interval_seconds=max(flags.load_retry_interval_micros, 0) / 1e6,
        load_threads=flags.num_load_threads or 4,
        labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
    )
    repository = Repository(loader.load, options)
    core = Core(repository, Registry(), flags.enable_signature_method_name_check)
    return core, model_config.single(flags.model_name, flags.model_base_path)


def open_doors(core: Core, flags: Flags) -> tuple[GrpcDoor, RestDoor | None]:
    """Starts to listen on the ports that the flags name."""
    cpus = len(os.sched_getaffinity(0))
    grpc = GrpcDoor(core, GrpcOptions(flags.port, flags.grpc_max_threads or 4 * cpus))
    rest = None
    if flags.rest_api_port:
        rest = RestDoor(
            core,
            RestOptions(
                flags.rest_api_port,
                flags.rest_api_num_threads or 4 * cpus,
                flags.rest_api_timeout_in_ms,
                flags.rest_api_enable_cors_support,
            ),
        )
    grpc.start()
    if rest is not None:
        rest.start()
    return grpc, rest
