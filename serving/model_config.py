"""Which models to serve: what a ModelServerConfig says, checked as TF Serving checks it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.errors import Code, ServingError, invalid_argument

__all__ = ["Model", "Policy", "check_platforms", "from_proto", "single"]

TENSORFLOW = "tensorflow"
_URI = re.compile(r"[a-zA-Z][0-9a-zA-Z.]*://")


@dataclass(frozen=True)
class Policy:
    """Which of a base path's versions to serve.

    Args:
        latest: The number of highest versions, or None for another policy.
        specific: Just these versions, or None. With neither, all versions are served.
    """

    latest: int | None = 1
    specific: frozenset[int] | None = None

    def choose(self, versions: set[int]) -> set[int]:
        """The versions to serve of those that exist."""
        if self.specific is not None:
            return versions & self.specific
        if self.latest is not None:
            return set(sorted(versions, reverse=True)[: self.latest])
        return versions


@dataclass(frozen=True)
class Model:
    """One entry of the model list.

    Args:
        name: The name that requests use.
        base_path: The folder with the version folders, or a URI that `tf.io.gfile` reads.
        platform: What runs it; only `tensorflow` is supported.
        policy: Which versions to serve.
        labels: Version labels, such as `{"stable": 3}`.
    """

    name: str
    base_path: str
    platform: str = TENSORFLOW
    policy: Policy = Policy()
    labels: Mapping[str, int] = field(default_factory=dict)


def single(name: str, base_path: str) -> tuple[Model, ...]:
    """The list that `--model_name` and `--model_base_path` make.

    Raises:
        ServingError: The path is relative.
    """
    model = Model(name, base_path)
    _check_absolute(model)
    return (model,)


def from_proto(config: Any) -> tuple[Model, ...]:
    """The models of a ModelServerConfig's `model_config_list`.

    Raises:
        ServingError: INVALID_ARGUMENT with TF Serving's words.
    """
    entries = list(config.model_config_list.config)
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            raise invalid_argument(f"Illegal to list model {entry.name} multiple times in config list")
        names.add(entry.name)
    models = [_model(entry) for entry in entries]
    for model in models:
        _check_absolute(model)
    return tuple(models)


def _model(entry: Any) -> Model:
    labels = {label: entry.version_labels[label] for label in sorted(entry.version_labels)}
    return Model(entry.name, entry.base_path, _platform(entry), _policy(entry.model_version_policy), labels)


def _platform(entry: Any) -> str:
    """The platform; an ill-set one is kept as an error text behind a NUL until the list is applied."""
    if not entry.model_type:
        return str(entry.model_platform)
    if entry.model_platform:
        return (
            "\0Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform, "
            f"model name is {entry.name}"
        )
    if entry.model_type == 1:
        return TENSORFLOW
    return f"\0ModelServerConfig::model_type choice {entry.model_type} not supported."


def platform(model: Model) -> str:
    """The model's platform.

    Raises:
        ServingError: INVALID_ARGUMENT where the entry names none, or two.
    """
    if model.platform.startswith("\0"):
        raise invalid_argument(model.platform[1:])
    if not model.platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {model.name}"
        )
    return model.platform


def check_platforms(old: tuple[Model, ...], new: tuple[Model, ...]) -> None:
    """A model may not change its platform.

    Raises:
        ServingError: INVALID_ARGUMENT where one does.
    """
    before = {model.name: platform(model) for model in old}
    for model in new:
        if model.name in before and platform(model) != before[model.name]:
            raise invalid_argument(
                f"Illegal to change a model's platform. For model {model.name} platform was {before[model.name]} and "
                f"new platform requested is {model.platform}"
            )


def check_supported(models: tuple[Model, ...]) -> None:
    """Only TensorFlow models are served.

    Raises:
        ServingError: INVALID_ARGUMENT with the first that is not.
    """
    for model in models:
        if platform(model) != TENSORFLOW:
            raise invalid_argument(f"Model {model.name} requests unsupported platform {model.platform}")


def _check_absolute(model: Model) -> None:
    if not model.base_path.startswith("/") and not _URI.match(model.base_path):
        raise invalid_argument(
            f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
        )


def _policy(proto: Any) -> Policy:
    choice = proto.WhichOneof("policy_choice")
    if choice == "all":
        return Policy(latest=None)
    if choice == "specific":
        return Policy(latest=None, specific=frozenset(proto.specific.versions))
    return Policy(latest=proto.latest.num_versions or 1)


def label_error(model: Model, version: int) -> ServingError:
    """A label was to point to a version that does not serve."""
    return ServingError(
        Code.FAILED_PRECONDITION,
        f"Request to assign label to version {version} of model {model.name}, which is not currently available for "
        "inference",
    )
