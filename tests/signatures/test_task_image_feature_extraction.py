"""The vision towers of whole models; those that have a class of their own are in `test_architectures.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.signatures import checkpoints

WHOLE: dict[str, tuple[Callable[[Path], Path], Callable[[Any], Any]]] = {
    "TFBlipForQuestionAnswering": (
        lambda folder: checkpoints.save_blip(folder, "TFBlipForQuestionAnswering"),
        lambda model: model.vision_model,
    ),
    "TFBlipModel": (checkpoints.save_zero_shot_blip, lambda model: model.blip.vision_model),
    "TFVisionEncoderDecoderModel": (
        lambda folder: checkpoints.save_captioner(folder, "gpt2"),
        lambda model: model.encoder,
    ),
    "TFVisionTextDualEncoderModel": (checkpoints.save_dual_encoder, lambda model: model.vision_model),
}


@pytest.mark.parametrize("cls", WHOLE)
def test_the_tower_of_a_whole_model(cls: str, tmp_path: Path) -> None:
    import transformers

    from signatures.checkpoint import Checkpoint
    from signatures.tasks.image_feature_extraction import TASK

    save, tower = WHOLE[cls]
    folder = save(tmp_path / "checkpoint")
    _, images = checkpoints.pictures(2)
    native = getattr(transformers, cls).from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)
    pixels = np.concatenate([processor(image, return_tensors="np")["pixel_values"] for image in images])
    want = tower(native)(pixel_values=pixels)
    checkpoint: Any = Checkpoint(
        folder=folder,
        native=native,
        image_processor=processor,
        card=SimpleNamespace(options={"pool": False}),  # type: ignore[arg-type]
    )
    assert TASK.reference is not None
    for pool, values in ((False, want.last_hidden_state.numpy().mean(1)), (True, want.pooler_output.numpy())):
        got = checkpoints.bound(folder, "image-feature-extraction", pool=pool)(images)["embedding"]
        np.testing.assert_allclose(got, values, atol=1e-4)
        assert np.ptp(got, axis=0).max() > 1e-3, "the model does not tell images apart"
        checkpoint.card.options["pool"] = pool
        np.testing.assert_allclose(TASK.reference(checkpoint, images[0], {})["embedding"], values[0], atol=1e-4)
