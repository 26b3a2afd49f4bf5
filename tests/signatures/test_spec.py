from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from signatures.errors import MissingExtra, UsageError, did_you_mean
from signatures.spec import CARD_PATH, CLASSIFY_METHOD, SCHEMA_VERSION, Card, Signature, Source, Tensor


def card() -> Card:
    image = Tensor(dtype="string", shape=(None,), meaning="encoded images")
    scores = Tensor(dtype="float32", shape=(None, 3), meaning="softmax")
    return Card(
        task="image-classification",
        labels=("katze", "châtaigne", "犬"),
        source=Source(model="org/name", revision="abc", cls="TFViTForImageClassification"),
        preprocessing={"mean": [0.5, 0.5, 0.5]},
        signatures={
            "serving_default": Signature(inputs={"image_bytes": image}, outputs={"scores": scores}),
            "classify": Signature(inputs={"inputs": image}, outputs={"scores": scores}, method_name=CLASSIFY_METHOD),
        },
        packages={"tensorflow": "2.16.2"},
        options={"top_k": 3},
        parity={"holds": True},
        extra={"description": "three things"},
    )


def test_a_card_survives_its_file(tmp_path: Path) -> None:
    card().write(tmp_path)
    assert Card.read(tmp_path) == card()
    document = json.loads((tmp_path / CARD_PATH).read_text(encoding="utf-8"))
    assert document["labels"] == ["katze", "châtaigne", "犬"]
    assert document["schema_version"] == SCHEMA_VERSION
    assert document["source"]["class"] == "TFViTForImageClassification"
    assert document["signatures"]["serving_default"]["outputs"]["scores"]["shape"] == [None, 3]
    assert document["description"] == "three things"


def test_a_card_of_a_later_schema_is_refused() -> None:
    with pytest.raises(UsageError, match="schema_version 99"):
        Card.from_json({**card().to_json(), "schema_version": 99})


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 1}', '{"schema_version": 1, "task": 3}'])
def test_a_broken_card_is_said(tmp_path: Path, content: str) -> None:
    path = tmp_path / CARD_PATH
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(UsageError, match="Export the model again"):
        Card.read(tmp_path)


def test_a_folder_without_a_card_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a servable"):
        Card.read(tmp_path)


def test_errors_name_the_cure() -> None:
    assert did_you_mean("image_clasification", ["image-classification", "x"]) == " Did you mean 'image-classification'?"
    assert did_you_mean("zzz", ["image-classification"]) == ""
    assert "pip install 'vitrina[hub]'" in str(MissingExtra("transformers", "hub"))


def test_the_plain_data_modules_load_no_framework() -> None:
    code = (
        "import sys, signatures.spec, signatures.base_path, signatures.tasks, signatures.sources, signatures.export\n"
        "from signatures.tasks import TASKS\n"
        "[TASKS[name].options for name in TASKS]\n"
        "print(*({'tensorflow', 'transformers', 'tfx', 'tf_keras', 'keras', 'torch', 'PIL'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""
