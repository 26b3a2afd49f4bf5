"""Putting a blessed model on a TF Serving base path: the next version, whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from signatures import base_path
from signatures.errors import UsageError

__all__ = ["Pushed", "push", "rollback", "same_servable"]

GRAPH = "saved_model.pb"
EXTRA = "assets.extra"
BUCKETS = "/gcs"
"""Where Vertex AI mounts buckets."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """Where a model went.

    Args:
        path: The version's folder.
        version: Its number.
        new: False where the latest version there already was this very model, file by file.
        removed: Older versions that `keep` made room of.
    """

    path: Path
    version: int
    new: bool
    removed: tuple[int, ...] = ()


def push(model: Path, base: Path, *, keep: int | None = None, extra: Sequence[Path] = ()) -> Pushed:
    """Copies a SavedModel to `base/<next version>`.

    The copy is made beside, `saved_model.pb` last, and renamed in one step: a server that polls the base path sees
    the whole version or none. A model that the latest version already holds is not copied again.

    Args:
        model: The folder with `saved_model.pb`.
        base: The TF Serving `model_base_path`; created where it is missing.
        keep: How many versions stay there; the lowest go. None keeps all.
        extra: Files to put into its `assets.extra`, in place of the model's own of that name, such as a card for
            people. They do not make it another model.

    Returns:
        Where it is now.

    Raises:
        UsageError: `keep` is less than 1, or `model` holds no SavedModel.
        VitrinaError: The disk is full or read-only.
    """
    if keep is not None and keep < 1:
        raise UsageError(f"Got keep {keep}, but at least 1 version stays. Leave --keep out to keep all.")
    if not (model / GRAPH).is_file():
        raise UsageError(f"{model} holds no {GRAPH}. Give the folder of one SavedModel.")
    present = base_path.versions(base)
    if present and same_servable(present[max(present)], model, apart_from={path.name for path in extra}):
        return Pushed(path=present[max(present)], version=max(present), new=False, removed=_trim(base, keep))
    final = _write(base, model, extra)
    return Pushed(path=final, version=int(final.name), new=True, removed=_trim(base, keep))


def rollback(base: Path, version: int | None = None) -> Pushed:
    """Makes an earlier version the latest again, by pushing it anew under the next number.

    A number is never used twice, so that servers and caches that know the withdrawn version are not misled.

    Args:
        base: The base path with at least two versions.
        version: The version to go back to; None is the one before the latest.

    Returns:
        The new version, which holds that model.

    Raises:
        UsageError: There are fewer than two versions, or no such earlier one.
    """
    present = base_path.versions(base)
    if len(present) < 2:
        raise UsageError(f"{base} holds {len(present)} version(s), but a rollback needs an earlier one to go back to.")
    earlier = sorted(present)[:-1]
    if version is not None and version not in earlier:
        raise UsageError(
            f"Got --to {version}, but {base} has the earlier versions {', '.join(map(str, earlier))}. Give one of them."
        )
    final = _write(base, present[version or earlier[-1]], ())
    return Pushed(path=final, version=int(final.name), new=True)


def same_servable(one: Path, other: Path, *, apart_from: Container[str] = ()) -> bool:
    """Whether two folders hold the same files with the same content.

    Args:
        one: A version's folder.
        other: Another.
        apart_from: Names in `assets.extra` that do not count.
    """
    return _digest(one, apart_from) == _digest(other, apart_from)


def _write(base: Path, model: Path, extra: Sequence[Path]) -> Path:
    """The next version's folder. In a mounted bucket folders are not renamed: there, `saved_model.pb` comes last."""
    if not base.is_relative_to(BUCKETS):
        with base_path.new_version(base) as (staging, final):
            _copy(model, staging, extra)
        return final
    final = base / str(max(base_path.versions(base), default=0) + 1)
    final.mkdir(parents=True)
    _copy(model, final, extra)
    return final


def _copy(model: Path, staging: Path, extra: Sequence[Path] = ()) -> None:
    for path in extra:
        (staging / EXTRA).mkdir(exist_ok=True)
        shutil.copyfile(path, staging / EXTRA / path.name)
    given = {Path(EXTRA) / path.name for path in extra}
    for path in sorted(model.rglob("*"), key=lambda path: (path == model / GRAPH, path)):
        target = staging / path.relative_to(model)
        if path.relative_to(model) in given:
            continue
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _trim(base: Path, keep: int | None) -> tuple[int, ...]:
    if keep is None:
        return ()
    present = base_path.versions(base)
    doomed = sorted(present)[:-keep]
    for version in doomed:
        _remove(present[version])
    return tuple(doomed)


def _remove(version: Path) -> None:
    """Out of the poller's sight first, so that no half-removed version is ever seen."""
    if version.is_relative_to(BUCKETS):
        (version / GRAPH).unlink(missing_ok=True)
    else:
        version = version.rename(version.with_name(f".removing-{version.name}"))
    shutil.rmtree(version, ignore_errors=True)


def _digest(folder: Path, apart_from: Container[str]) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not (path.parent == folder / EXTRA and path.name in apart_from):
            total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
