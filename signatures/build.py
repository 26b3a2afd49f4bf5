"""Model + preprocessing + task = a `tf.Module` with every signature of a servable.

All signatures share one pair of functions: `_decode` gives features per image and a reason per bad one, `_answer`
gives the task's outputs. What a bad image would answer is replaced by zeros and "", so it never reaches a client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from signatures.errors import VitrinaError
from signatures.model import MEANINGS, Model, Tensors
from signatures.processor import Decoded, Processor, compile_processor, decode_batch, pixels_batch
from signatures.spec import CLASSIFY_METHOD, Signature, Tensor
from signatures.tasks import Head, Request, Task, settle

__all__ = ["DEFAULT_MAX_PIXELS", "Built", "build"]

DEFAULT_MAX_PIXELS = 64_000_000

IMAGE_BYTES = Tensor(
    dtype="string", shape=(None,), meaning="encoded images (JPEG, PNG, BMP, GIF), any size and format per item"
)
PIXELS = Tensor(dtype="uint8", shape=(None, None, None, 3), meaning="decoded images, RGB, upright, of one size")
EXAMPLES = Tensor(dtype="string", shape=(None,), meaning="serialized tf.Example with `image/encoded`")
ERROR = Tensor(dtype="string", shape=(None,), meaning='"" or why this item could not be read')


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `export` saves.

    Args:
        module: Owns every variable and table that the functions use.
        functions: A concrete function per signature.
        signatures: What each of them takes and gives.
        head: The task as it was bound to the model.
        processor: The image processor as TensorFlow ops.
    """

    module: Any
    functions: Mapping[str, Any]
    signatures: Mapping[str, Signature]
    head: Head
    processor: Processor


def build(model: Model, task: Task, options: Mapping[str, Any] | None = None) -> Built:
    """Traces every signature of a servable.

    Args:
        model: From `sources.load`.
        task: From `TASKS`.
        options: The task's options that were given, and `max_pixels` (a header that claims more is refused).

    Returns:
        The module, its concrete functions and their description.

    Raises:
        UsageError: An option does not fit the task or the model, or a processor setting is not known.
        VitrinaError: TensorFlow cannot trace the model; the message names the op or layer that fails.
    """
    given = dict(options or {})
    max_pixels = int(given.pop("max_pixels", None) or DEFAULT_MAX_PIXELS)
    settled = settle(task, given)
    processor = compile_processor(model.preprocessing)
    try:
        builder = _Builder(model, task, task.fit(model, settled), processor, max_pixels)
        try:
            return builder.build()
        except tf.errors.OperatorNotAllowedInGraphError:
            # Converting Python to graph code takes ten times as long as tracing, and few models branch on tensors.
            builder.forward = tf.function(builder._forward)
            return builder.build()
    except (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        raise _untraceable(error, model, processor) from error
    except tf.errors.OpError as error:
        raise _untraceable(error, model, processor) from error


def _untraceable(error: Exception, model: Model, processor: Processor) -> VitrinaError:
    """Why a model cannot be put into a graph: the op, where TensorFlow names it, and what it says."""
    text = str(error)
    layer = re.search(r"calling layer '([^']*)' \(type (\w+)\)", text)
    op = re.search(r"= (\w+)\[", text) or re.search(r"\[Op:(\w+)\]", text)
    # Keras puts a first and a last paragraph around what happened.
    told = re.sub(r"\s*Call arguments received by.*", "", text.partition("\n\n")[2] if layer else text, flags=re.DOTALL)
    where = [f"op {op[1]}"] if op else []
    where += [f"layer {layer[1]} ({layer[2]})"] if layer else []
    made, wanted = processor.output_size, _wanted_size(model)
    cure = "Its calls have to work in a tf.function, for batches of any size; --verbose shows the trace."
    if model.dtype != "float32":
        cure = f"Its class may not be made for {model.dtype}: export it in float32, without --dtype."
    if wanted is not None and None not in made and made != wanted:
        cure = (
            f"It is made for images of {wanted[0]}x{wanted[1]}, but they are prepared as {made[0]}x{made[1]} (height x "
            f"width): correct the image processor's settings, or give --size {wanted[0]}x{wanted[1]}."
        )
    return VitrinaError(
        f"{model.source.model} cannot be exported: {' of '.join(where) or type(error).__name__} in {model.source.cls} "
        f"says: {' '.join(told.split())[:300]} {cure}"
    )


def _wanted_size(model: Model) -> tuple[int, int] | None:
    """The height and width of `image_size` in a configuration, where it has one."""
    size = (model.config.get("vision_config") or model.config).get("image_size")
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, (list, tuple)) and len(size) == 2 else None


class _Builder:
    def __init__(self, model: Model, task: Task, head: Head, processor: Processor, max_pixels: int) -> None:
        self.model, self.task, self.head, self.processor = model, task, head, processor

        def decode(image_bytes: Any) -> tuple[Any, ...]:
            return tuple(decode_batch(image_bytes, processor, max_pixels=max_pixels))

        # Functions of their own, so that the signatures share one trace and one body in the saved graph.
        self.decode = tf.function(decode, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        self.answer = tf.function(self._answer_all, autograph=False)
        self.forward = tf.function(self._forward, autograph=False)

    def build(self) -> Built:
        module = tf.Module(name="servable")
        module.model = self.model.module
        if self.head.state is not None:
            module.head = self.head.state
        features, raw = self._model_specs()
        answers = {**self.head.outputs, "error": ERROR}
        plans: dict[str, tuple[Callable[..., Tensors], Signature]] = {
            "serving_default": (
                self._serving_default,
                Signature(inputs={"image_bytes": IMAGE_BYTES, **self.head.inputs}, outputs=answers),
            ),
            "preprocess": (
                self._preprocess,
                Signature(inputs={"image_bytes": IMAGE_BYTES}, outputs=self.processor.spec()),
            ),
            "pixels": (
                self._pixels,
                Signature(inputs={"pixels": PIXELS, **self.head.inputs}, outputs=self.head.outputs),
            ),
            "model": (self._model, Signature(inputs=features, outputs=raw)),
            "from_examples": (self._from_examples, Signature(inputs={"examples": EXAMPLES}, outputs=answers)),
        }
        if self.task.classifies and not self.head.inputs:
            plans["classify"] = (self._classify, self._classify_signature())
        functions = {name: _concrete(name, function, signature) for name, (function, signature) in plans.items()}
        return Built(
            module=module,
            functions=functions,
            signatures={name: signature for name, (_, signature) in plans.items()},
            head=self.head,
            processor=self.processor,
        )

    def _serving_default(self, image_bytes: Any, **inputs: Any) -> Tensors:
        decoded = self._decode(image_bytes)
        return self._answer(decoded, inputs)

    def _preprocess(self, image_bytes: Any) -> Tensors:
        return dict(self._decode(image_bytes).features)

    def _pixels(self, pixels: Any, **inputs: Any) -> Tensors:
        answer = self._answer(pixels_batch(pixels, self.processor), inputs)
        return {name: answer[name] for name in self.head.outputs}

    def _model(self, **features: Any) -> Tensors:
        return dict(self.forward(features))

    def _from_examples(self, examples: Any) -> Tensors:
        image_bytes, inputs = self._parse(examples)
        return self._serving_default(image_bytes, **inputs)

    def _classify(self, inputs: Any) -> Tensors:
        image_bytes, _ = self._parse(inputs)
        answer = self._answer(self._decode(image_bytes), {})
        return {"classes": answer["labels"], "scores": answer["scores"]}

    def _decode(self, image_bytes: Any) -> Decoded:
        return Decoded(*self.decode(image_bytes))

    def _answer(self, decoded: Decoded, inputs: Mapping[str, Any]) -> Tensors:
        """The task's outputs and `error`, with zeros and "" for items that could not be read or answered."""
        features = {name: _shaped(decoded.features[name], spec) for name, spec in self.processor.spec().items()}
        inputs = {name: _shaped(inputs[name], spec) for name, spec in self.head.inputs.items()}
        return dict(self.answer(features, _shaped(decoded.error, ERROR), decoded.sizes, inputs))

    def _answer_all(self, features: Tensors, error: Any, sizes: Any, inputs: Tensors) -> Tensors:
        count = tf.size(error)
        features, error, sizes, inputs = _at_least_one((features, error, sizes, inputs))
        request = Request(inputs=inputs, sizes=sizes)
        features = self.head.features(features, request)
        error = _first_error(error, features.pop("error", None))
        raw = self.forward(features)
        outputs = self.head.postprocess(raw, request)
        good = tf.equal(error, "")
        answer = {name: _where(good, outputs[name]) for name in self.head.outputs}
        return {name: value[:count] for name, value in {**answer, "error": error}.items()}

    def _forward(self, features: Tensors) -> Tensors:
        raw = (self.head.forward or self.model.call)(features)
        # A model that computes in bfloat16 still answers in float32.
        return {name: tf.cast(x, tf.float32) if x.dtype.is_floating else x for name, x in raw.items()}

    def _parse(self, examples: Any) -> tuple[Any, Tensors]:
        """`image/encoded` and the task's further inputs out of serialized tf.Examples."""
        features = {"image/encoded": tf.io.FixedLenFeature([], tf.string, default_value="")}
        for name, tensor in self.head.inputs.items():
            features[name] = _feature(tensor)
        parsed = tf.io.parse_example(examples, features)
        inputs = {name: _fit_shape(parsed[name], tensor) for name, tensor in self.head.inputs.items()}
        return parsed["image/encoded"], inputs

    def _model_specs(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The inputs and outputs of the `model` signature; the outputs are read off a trace."""
        wanted = self.model.inputs if self.head.model_inputs is None else self.head.model_inputs
        inputs = {name: self.processor.spec().get(name, tensor) for name, tensor in wanted.items()}
        traced = _trace(self._model, inputs).structured_outputs
        outputs = {
            name: Tensor(
                dtype=spec.dtype.name,
                shape=(None, *spec.shape.as_list()[1:]) if spec.shape.rank else (),
                meaning=MEANINGS.get(name, "a raw output of the model"),
            )
            for name, spec in traced.items()
        }
        return inputs, outputs

    def _classify_signature(self) -> Signature:
        outputs = self.head.outputs
        return Signature(
            inputs={"inputs": EXAMPLES},
            outputs={"classes": outputs["labels"], "scores": outputs["scores"]},
            method_name=CLASSIFY_METHOD,
        )


def _trace(function: Callable[..., Tensors], inputs: Mapping[str, Tensor]) -> Any:
    specs = {name: tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in inputs.items()}
    return tf.function(function, autograph=False).get_concrete_function(**specs)


def _concrete(name: str, function: Callable[..., Tensors], signature: Signature) -> Any:
    """Traces a signature and holds its outputs to their description."""

    def described(**inputs: Any) -> Tensors:
        outputs = function(**inputs)
        if set(outputs) != set(signature.outputs):
            raise AssertionError(f"{name} answers {sorted(outputs)} but says {sorted(signature.outputs)}")
        return {key: _describe(outputs[key], tensor, key) for key, tensor in signature.outputs.items()}

    return _trace(described, signature.inputs)


def _describe(value: Any, tensor: Tensor, name: str) -> Any:
    if value.dtype.name != tensor.dtype:
        raise AssertionError(f"{name} is {value.dtype.name} but says {tensor.dtype}")
    value.set_shape(tensor.shape)
    return tf.identity(value, name=name)


def _at_least_one(batch: Any) -> Any:
    """A nest of tensors [b, ...] without empty axes: a blank item or so stands there, for models reshape by -1."""

    def padded(value: Any) -> Any:
        some = tf.cond(
            tf.shape(value)[0] > 0, lambda: value, lambda: tf.zeros(tf.maximum(tf.shape(value), 1), value.dtype)
        )
        some.set_shape(value.shape)
        return some

    return tf.nest.map_structure(padded, batch)


def _shaped(value: Any, spec: Tensor) -> Any:
    """A tensor that knows the shape it is said to have, so that every signature finds the same trace."""
    value = tf.identity(value)
    value.set_shape(spec.shape)
    return value


def _first_error(error: Any, later: Any) -> Any:
    """`error` string [b] where there is one, else `later`, which may be None."""
    return error if later is None else tf.where(tf.equal(error, ""), later, error)


def _where(good: Any, value: Any) -> Any:
    """`value` [b, ...] where `good` [b], else zeros or ""."""
    mask = tf.reshape(good, tf.concat([tf.shape(good), tf.ones([tf.rank(value) - 1], tf.int32)], axis=0))
    return tf.where(mask, value, tf.zeros([], value.dtype))


def _feature(tensor: Tensor) -> Any:
    """How a further input lies in a tf.Example: flat, as TF Serving's clients write lists."""
    stored = {"string": tf.string, "float32": tf.float32}.get(tensor.dtype, tf.int64)
    if len(tensor.shape) == 1:
        return tf.io.FixedLenFeature([], stored)
    return tf.io.FixedLenSequenceFeature([], stored, allow_missing=True)


def _fit_shape(flat: Any, tensor: Tensor) -> Any:
    """A parsed feature [b, n] in the shape of its input: [b, n / 2, 2] for points, say."""
    shape = [tf.shape(flat)[0], *(-1 if size is None else size for size in tensor.shape[1:])]
    return tf.cast(tf.reshape(flat, shape), tensor.dtype)
