"""Checkpoints of transformers, in a folder or on the Hub, that have a TensorFlow class.

Weights may be TensorFlow's (`tf_model.h5`) or PyTorch's (`model.safetensors`, sharded or not); the latter load
without PyTorch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from signatures.checkpoint import PROCESSOR, processor_config
from signatures.errors import MissingExtra, UsageError, VitrinaError, did_you_mean
from signatures.model import MEANINGS, Model, Tensors
from signatures.preprocessing import Preprocessing, from_processor_config
from signatures.quiet import quiet_transformers
from signatures.sources import _mended, _safetensors
from signatures.spec import Card, Source, Tensor
from signatures.tasks import TASKS

__all__ = ["load", "preprocessing", "task_of", "wrap"]

CONFIG = "config.json"
GENERATION = "generation_config.json"
SMALL_FILES = (
    CONFIG, PROCESSOR, "processor_config.json", GENERATION, "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip

PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
"""`name` or `owner/name`; whatever else is not there is a folder that is missing."""


def load(
    model: str,
    *,
    task: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    preprocessing: Preprocessing | None = None,
) -> Model:
    """Loads a checkpoint as its TensorFlow class; arguments as in `signatures.sources.load`.

    Raises:
        UsageError: No such folder, no `config.json`, no image processor, or an architecture without a TensorFlow class.
        VitrinaError: The weights do not fit the class, or the Hub cannot be reached.
    """
    files = _small_files(model, revision)
    if CONFIG not in files:
        raise UsageError(
            f"{model}{f' at revision {revision}' if revision else ''} has no {CONFIG}, so it is not a transformers "
            "checkpoint. Give the folder that `save_pretrained` wrote, a Hub id, or a *.keras file."
        )
    config = _json(files[CONFIG], f"{model}/{CONFIG}")
    if preprocessing is None:
        preprocessing = _preprocessing(files, model)
    else:
        # As every vision model of transformers takes its images.
        preprocessing = dataclasses.replace(preprocessing, data_format="channels_first")
        files[PROCESSOR] = json.dumps(processor_config(preprocessing), indent=2)
    architecture = (config.get("architectures") or [""])[0].removeprefix("TF")
    task = task or task_of(architecture, model)
    cls = _tf_class(architecture, task, model)
    with quiet_transformers(), _mended.images_of_any_size():
        native = _from_pretrained(cls, model, revision, dtype)
        _generate_as_saved(native, files)
    return wrap(
        native,
        task=task,
        preprocessing=preprocessing,
        source=Source(model=model, revision=_commit(native, revision), cls=cls.__name__),
        files=files,
        dtype=dtype,
    )


def load_trainable(
    model: str, *, task: str, labels: Sequence[str], preprocessing: Preprocessing | None = None
) -> tuple[Any, Preprocessing, dict[str, str], bool]:
    """A checkpoint's TensorFlow model with a head for these labels, to be trained.

    Its own head is kept where its labels are the same names, in whatever order; else it gets a new, random one.

    Args:
        model: A folder or Hub id.
        task: `image-classification` or `image-segmentation`.
        labels: Class names.
        preprocessing: Settings that replace the checkpoint's own, or stand in where it has none.

    Returns:
        The model, its processor's settings, the checkpoint's small files by name, and whether the head is new.

    Raises:
        UsageError: There is no such checkpoint, or it has no processor or no TensorFlow class for the task.
        VitrinaError: Its weights do not fit the class beyond the head.
    """
    import tensorflow as tf

    files = _small_files(model, None)
    if CONFIG not in files:
        raise UsageError(f"{model} has no {CONFIG}, so it is not a transformers checkpoint. Give the folder of one.")
    document = _json(files[CONFIG], f"{model}/{CONFIG}")
    if preprocessing is None:
        preprocessing = _preprocessing(files, model)
    else:
        preprocessing = dataclasses.replace(preprocessing, data_format="channels_first")
        files[PROCESSOR] = json.dumps(processor_config(preprocessing), indent=2)
    architecture = (document.get("architectures") or [""])[0].removeprefix("TF")
    cls = _tf_class(architecture, task, model)
    config = _for_inference(cls.config_class.from_pretrained(model))
    names = {int(key): str(value) for key, value in config.id2label.items()}
    new_head = sorted(names.values()) != sorted(labels)
    if new_head:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
    try:
        with quiet_transformers():
            native, account = _load_weights(cls, model, None, config=config)
    except (OSError, ValueError, ImportError, AttributeError, TypeError, tf.errors.OpError) as error:
        line = " ".join(str(error).split())[:300]
        raise VitrinaError(f"{model} cannot be loaded as {cls.__name__}: {line}") from error
    # transformers' names begin with the class, or with the body's own name; what is not of the body is the head.
    body = f"{native.base_model_prefix}/", f"{native.base_model_prefix}."
    lacking = [*account["missing_keys"], *(key[0] for key in account["mismatched_keys"])]
    wrong = [name for name in map(str, lacking) if any(part in name for part in body) and "pooler" not in name]
    new_head = new_head or len(lacking) > sum("pooler" in str(name) for name in lacking)
    if wrong:
        raise VitrinaError(
            f"{model} holds no weights that fit {', '.join(wrong[:3])}"
            f"{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}, which {cls.__name__} needs. Give a checkpoint "
            "whose weights fit its config.json."
        )
    return native, preprocessing, files, new_head


def wrap(
    native: Any,
    *,
    task: str,
    preprocessing: Preprocessing,
    source: Source,
    files: Mapping[str, str],
    dtype: str = "float32",
) -> Model:
    """A `Model` around a TensorFlow model of transformers that is already in memory, such as one just trained.

    Args:
        native: The model, built (its variables exist).
        task: A task name.
        preprocessing: The image processor's settings.
        source: Where the weights came from.
        files: The checkpoint's small files by name; `config.json` is taken from the model itself.
        dtype: What the model computes in.

    Returns:
        The model. It shares its variables with `native`.
    """
    import tensorflow as tf

    _mended.windows()
    config = native.config.to_dict()
    module = tf.Module(name="model")
    # The variables alone: tracking the Keras object would retrace every layer when saving.
    module.weights = list(native.weights)
    channels = int(getattr(native.config, "num_channels", 3) or 3)

    return Model(
        source=source,
        task=task,
        # A model of two towers has no classes; its configuration lists placeholders all the same.
        labels=_labels(native.config) if task_has_labels(task) and "text_config" not in config else (),
        preprocessing=preprocessing,
        module=module,
        call=functools.partial(call, native),
        inputs={
            "pixel_values": Tensor(
                dtype="float32", shape=(None, channels, None, None), meaning=MEANINGS["pixel_values"]
            )
        },
        config=config,
        files={**files, CONFIG: native.config.to_json_string(use_diff=False)},
        dtype=dtype,
        native=native,
    )


def preprocessing(model: str, revision: str | None = None) -> Preprocessing:
    """A checkpoint's image processor settings alone, without its weights.

    Raises:
        UsageError: There is no such checkpoint, or it has no image processor.
    """
    return _preprocessing(_small_files(model, revision), model)


def call(native: Any, features: Mapping[str, Any]) -> Tensors:
    """A model's raw outputs under their own names; what is not a tensor (caches, tuples of layers) is left out."""
    import tensorflow as tf

    outputs = native(**features, training=False)
    return {name: value for name, value in outputs.items() if tf.is_tensor(value)}


def restore(folder: Path, card: Card, weights: Sequence[Any]) -> Any:
    """The native model of a servable, with the weights that the servable holds.

    Args:
        folder: Where its `config.json` lies.
        card: The servable's card.
        weights: Its variables.

    Raises:
        UsageError: The installed transformers does not have its class.
        VitrinaError: The class has variables that the servable does not.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hub") from error

    cls = getattr(transformers, card.source.cls, None)
    if cls is None:
        raise UsageError(
            f"transformers {transformers.__version__} has no class {card.source.cls}. "
            f"Install the version that exported it: {card.packages.get('transformers', 'unknown')}."
        )
    # Keras numbers the models of one class, so the first part of a variable's name may differ.
    stored = {variable.name.partition("/")[2]: variable for variable in weights}
    arguments = {}
    if _may_lack_pooler(cls) and not any("pooler" in name for name in stored):
        arguments["add_pooling_layer"] = False
    with quiet_transformers(), _mended.images_of_any_size():
        native = cls(cls.config_class.from_json_file(folder / CONFIG), **arguments)
        native.build_in_name_scope()
        if (folder / GENERATION).is_file():
            native.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    for variable in native.weights:
        name = variable.name.partition("/")[2]
        if name not in stored:
            raise VitrinaError(f"The servable holds no variable {name}, which {card.source.cls} has. Export it again.")
        variable.assign(stored[name])
    return native


def task_of(architecture: str, model: str) -> str:
    """The task that an architecture is made for, by the ending of its name.

    Raises:
        UsageError: No task's `heads` fit.
    """
    fitting = {head: name for name, task in TASKS.items() for head in task.heads if architecture.endswith(head)}
    if not fitting:
        raise UsageError(
            f"{model} is a {architecture or 'checkpoint without architectures'}, for which there is no task. "
            f"Name one with --task; known tasks: {', '.join(TASKS)}."
        )
    return fitting[max(fitting, key=len)]


def task_has_labels(task: str) -> bool:
    """Whether the labels in a checkpoint's configuration mean something for a task."""
    outputs = TASKS[task].outputs
    return "labels" in outputs or "segment_labels" in outputs


def _labels(config: Any) -> tuple[str, ...]:
    """Labels in id order, whatever the order of the configuration's keys."""
    id2label = {int(key): str(label) for key, label in (config.id2label or {}).items()}
    return tuple(id2label[key] for key in sorted(id2label))


def _tf_class(architecture: str, task: str, model: str) -> Any:
    """The TensorFlow class of an architecture, or of its family's head for another task."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hub") from error

    heads = (*TASKS[task].heads, *TASKS[task].also)
    stem = re.sub(r"(For[A-Z]\w*|VisionModel|Model)$", "", architecture)
    # A head may be an ending (`ForImageClassification`) or a whole name (`CLIPModel`).
    candidates = [f"TF{head}" for head in heads if stem and head.startswith(stem)]
    candidates += [f"TF{stem}{head}" for head in heads if re.match("For|VisionModel$|Model$", head)]
    # A task without heads of its own takes the class that the checkpoint names, and so does one that knows it.
    known_whole = architecture in TASKS[task].also
    if not heads or known_whole or (architecture.endswith(heads) and task_of(architecture, model) == task):
        candidates = [f"TF{architecture}"]
    for name in candidates:
        # transformers answers with a placeholder that raises where its back end is missing, and not at all for
        # classes that it moved to its deprecated models.
        found = getattr(transformers, name, None)
        if found is not None and hasattr(found, "from_pretrained"):
            return found
    known = [name for name in dir(transformers) if name.startswith("TF") and name.endswith(heads)]
    named = f" {' or '.join(candidates)}" if candidates else ""
    meant = did_you_mean(candidates[0], known) if candidates else ""
    raise UsageError(
        f"{model} is a {architecture}, and transformers has no TensorFlow class{named} for {task}."
        f"{meant} Export a model of one of these: {', '.join(sorted(known))}."
    )


def _from_pretrained(cls: Any, model: str, revision: str | None, dtype: str) -> Any:
    import tensorflow as tf

    try:
        with _policy(dtype):
            native, account = _load_weights(cls, model, revision)
            if _lacks_only_a_pooler(account) and _may_lack_pooler(cls):
                # Checkpoints of classifiers have none; without it the body's other outputs are whole.
                native, account = _load_weights(cls, model, revision, add_pooling_layer=False)
    except (OSError, ValueError, ImportError, AttributeError, TypeError, LookupError, tf.errors.OpError) as error:
        pickled = [name for name in PICKLED if _locate(model, name, revision) is not None]
        if pickled:
            raise UsageError(
                f"{model} has its weights in {pickled[0]} alone, a pickle, which may run code when it is read, so it "
                "is refused. Give model.safetensors, as save_pretrained writes it with PyTorch, or tf_model.h5."
            ) from error
        line = " ".join(str(error).split())[:300]
        raise VitrinaError(
            f"{model} cannot be loaded as {cls.__name__}: {line} Give a checkpoint with tf_model.h5 or "
            "model.safetensors that fits its config.json."
        ) from error
    wrong = [*account["missing_keys"], *(key[0] for key in account["mismatched_keys"])]
    if wrong:
        raise VitrinaError(
            f"{model} holds no weights that fit {', '.join(map(str, wrong[:3]))}"
            f"{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}, which {cls.__name__} needs; they would be "
            "random. Export it for the task that it was trained for."
        )
    return native


def _generate_as_saved(native: Any, files: Mapping[str, str]) -> None:
    """Gives a model the generation settings of its checkpoint; filling in weights alone leaves the usual ones."""
    if GENERATION in files:
        from transformers import GenerationConfig

        native.generation_config = GenerationConfig.from_dict(_json(files[GENERATION], GENERATION))


def _lacks_only_a_pooler(account: Mapping[str, Any]) -> bool:
    missing = account["missing_keys"]
    return bool(missing) and all("pooler" in str(key) for key in missing)


def _may_lack_pooler(cls: Any) -> bool:
    return "add_pooling_layer" in inspect.signature(cls.__init__).parameters


def _load_weights(
    cls: Any, model: str, revision: str | None, *, config: Any = None, **arguments: Any
) -> tuple[Any, dict[str, Any]]:
    """The model and transformers' account of what was missing."""
    where: dict[str, Any] = {"revision": revision} if revision else {}
    if config is None:
        config = _for_inference(cls.config_class.from_pretrained(model, **where))
    paths = _safetensors.find(lambda name: _locate(model, name, revision))
    if not paths:
        native, account = cls.from_pretrained(
            model, config=config, **where, **arguments, output_loading_info=True, ignore_mismatched_sizes=True
        )
        return native, account
    native = cls(config, **arguments)
    native.build_in_name_scope()
    return native, _safetensors.fill(native, paths)


def _for_inference(config: Any) -> Any:
    """A configuration without what only training uses."""
    # A second head whose output nobody reads; transformers would also build it too late to load its weights.
    if hasattr(config, "use_auxiliary_head"):
        config.use_auxiliary_head = False
    # A masked autoencoder hides most of the image, another part each time; its features are of the whole.
    if config.model_type == "vit_mae":
        config.mask_ratio = 0.0
    # BLIP's towers see three channels without saying so, and transformers then cannot build them.
    tower = getattr(config, "vision_config", config)
    if tower.model_type == "blip_vision_model" and not hasattr(tower, "num_channels"):
        tower.num_channels = 3
    return config


@contextlib.contextmanager
def _policy(dtype: str) -> Iterator[None]:
    """Builds layers that compute in `dtype` over float32 variables."""
    import tf_keras

    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32" if dtype == "float32" else f"mixed_{dtype}")
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def _small_files(model: str, revision: str | None) -> dict[str, str]:
    """The checkpoint's configuration and vocabulary files, by name."""
    folder = Path(model)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{model} is a file, but a checkpoint is a folder with {CONFIG}. Give its folder.")
    if not folder.exists():
        if not HUB_ID.fullmatch(model):
            raise UsageError(f"There is no folder {model}. Give a checkpoint's folder with {CONFIG}, or a Hub id.")
        folder = _downloaded(model, revision)
    located = {name: folder / name for name in SMALL_FILES}
    return {name: path.read_text(encoding="utf-8") for name, path in located.items() if path.is_file()}


def _downloaded(model: str, revision: str | None) -> Path:
    """The folder, in the Hub's cache, of a checkpoint's small files. One request tells which ones there are."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtra("transformers", "hub") from error
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(SMALL_FILES)))
    except (OSError, ValueError) as error:
        sentence = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise UsageError(
            f"There is no folder {model}, and the Hub did not give it{f' at revision {revision}' if revision else ''} "
            f"either ({sentence}). Check the spelling and the network, or give a checkpoint's folder."
        ) from error


def _locate(model: str, name: str, revision: str | None) -> Path | None:
    """A checkpoint's file, downloaded where the checkpoint is on the Hub; None where it has no such file."""
    if Path(model).is_dir():
        path = Path(model) / name
        return path if path.is_file() else None
    try:
        from transformers.utils import cached_file
    except ImportError as error:
        raise MissingExtra("transformers", "hub") from error

    found = cached_file(model, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def _preprocessing(files: Mapping[str, str], model: str) -> Preprocessing:
    if PROCESSOR not in files:
        raise UsageError(
            f"{model} has no {PROCESSOR}, so how its images are prepared is unknown. Copy the one it was trained with "
            "into the folder, or give the settings by options: --size 224 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5."
        )
    return from_processor_config(_json(files[PROCESSOR], f"{model}/{PROCESSOR}"))


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{name} is not JSON ({error}). Save the checkpoint again.") from error
    if not isinstance(data, dict):
        raise UsageError(f"{name} holds {type(data).__name__}, but wants a JSON object. Save the checkpoint again.")
    return data


def _commit(native: Any, revision: str | None) -> str | None:
    """The Hub commit that was loaded; None for a folder."""
    commit = getattr(native.config, "_commit_hash", None)
    return str(commit) if commit else revision
