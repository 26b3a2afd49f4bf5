"""Writes docs/tasks.md from the tasks' own specifications: `make fix` calls it, a test compares.

python scripts/task_docs.py
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from signatures.spec import Tensor
    from signatures.tasks import Task

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "tasks.md"

HEAD = """# Tasks

What a servable answers, task by task. This file is written by `make fix` from the specifications in
`signatures/tasks/`, and a test holds it against them. To add a task, see [add-a-task.md](add-a-task.md).

Every servable has the signatures below. `b` is the batch; `?` is an axis that the model or the request decides.

| signature | inputs | outputs |
|---|---|---|
| `serving_default` | `image_bytes` string [b]: encoded JPEG, PNG, BMP or GIF, any size per item; \
the task's further inputs | the task's outputs, and `error` string [b]: "" or why this item could not be read |
| `preprocess` | `image_bytes` string [b] | what the checkpoint's own image processor returns, `pixel_values` first |
| `pixels` | `pixels` uint8 [b, h, w, 3], RGB; the task's further inputs | the task's outputs |
| `model` | `pixel_values` and the model's other inputs | the model's raw outputs under their own names |
| `from_examples` | `examples` string [b]: serialized tf.Example with `image/encoded`, \
and a feature per further input | as `serving_default` |
| `classify` | `inputs` string [b]: serialized tf.Example with `image/encoded` | `classes`, `scores`; for tasks that \
classify, under the method name `tensorflow/serving/classify` |

An item that could not be read has zeros and "" in its outputs, and its neighbours are answered as if it were not there.
"""


def main() -> int:
    DOCUMENT.write_text(document(), encoding="utf-8")
    return 0


def document() -> str:
    """The whole text."""
    from signatures.tasks import TASKS

    return "\n".join([HEAD, *(chapter(TASKS[name]) for name in TASKS)])


def chapter(task: Task) -> str:
    """One task: what it is for, its tensors, its options."""
    heads = ", ".join(f"`TF...{head}`" for head in (*task.heads, *task.also))
    lines = [f"## `{task.name}`", "", task.summary, "", f"Models: {heads}."]
    lines += ["It carries the `classify` signature."] if task.classifies else []
    if task.inputs:
        lines += ["", "Further inputs:", "", *tensors(task.inputs)]
    lines += ["", "Outputs:", "", *tensors(task.outputs)]
    if task.options:
        lines += ["", "Options of `vitrina export`:", "", "| option | default | meaning |", "|---|---|---|"]
        for name, option in task.options.items():
            flag = f"`--{name.replace('_', '-')}`" + ("" if option.kind is bool else f" {option.kind.__name__}")
            default = "" if option.default is None or option.kind is bool else f"`{option.default}`"
            lines.append(f"| {flag} | {default} | {cell(option.meaning)} |")
    return "\n".join(lines) + "\n"


def tensors(named: Mapping[str, Tensor]) -> list[str]:
    """A table of tensors."""
    rows = ["| name | dtype | shape | meaning |", "|---|---|---|---|"]
    for name, tensor in named.items():
        axes = ["b", *("?" if size is None else str(size) for size in tensor.shape[1:])]
        rows.append(f"| `{name}` | {tensor.dtype} | [{', '.join(axes)}] | {cell(tensor.meaning)} |")
    return rows


def cell(text: str) -> str:
    """Text that may stand in a table."""
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
