"""A TF Serving `model_base_path`: numbered version folders, each whole or absent.

Directory names that parse as an integer are versions, as TF Serving reads them (`00000123` is 123); all
others are ignored, which is what makes writing beside and renaming safe.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from signatures.errors import UsageError, VitrinaError

__all__ = ["Draft", "latest", "new_version", "resolve", "versions"]

STAGING = ".writing-"
ABANDONED_AFTER = 600.0
"""Seconds without a new file, after which a folder that nobody holds is taken for left behind."""


def versions(base: Path) -> dict[int, Path]:
    """The versions below a base path, lowest first; empty where the base does not exist."""
    found = {}
    if base.is_dir():
        for entry in base.iterdir():
            if entry.name.isascii() and entry.name.isdigit() and entry.is_dir():
                found[int(entry.name)] = entry
    return dict(sorted(found.items()))


def latest(base: Path) -> Path:
    """The folder of the highest version.

    Raises:
        UsageError: There is no version below `base`.
    """
    found = versions(base)
    if not found:
        raise UsageError(
            f"{base} holds no version folders (1, 2, ...). Write a servable with: vitrina export MODEL --to {base}"
        )
    return found[max(found)]


def resolve(base_or_version: Path) -> Path:
    """The version folder meant by a path: itself where it holds a SavedModel, else the latest below it.

    Raises:
        UsageError: The path is missing or holds neither.
    """
    if (base_or_version / "saved_model.pb").is_file():
        return base_or_version
    if not base_or_version.is_dir():
        raise UsageError(
            f"There is no folder {base_or_version}. Give a servable's base path (the folder with 1, 2, ... in it) "
            "or one of its versions."
        )
    return latest(base_or_version)


@dataclass
class Draft:
    """A version being written; unpacks as `staging, final`.

    Args:
        staging: The folder to fill, inside the base (same file system, a name that TF Serving ignores).
        final: The version's folder. Expected until the draft is published, true afterwards: where the number was left
            open and another writer took it meanwhile, it is the next free one.
    """

    staging: Path
    final: Path

    def __iter__(self) -> Iterator[Path]:
        return iter((self.staging, self.final))


@contextlib.contextmanager
def new_version(base: Path, version: int | None = None) -> Iterator[Draft]:
    """Writes a version whole or not at all.

    The body fills the draft's staging folder; on leaving it without an error the folder is renamed to its number, which
    a poller sees in one step. On any error the staging folder is removed, and so are parents that this call created.
    What a writer left that was killed is removed by the next one.

    Args:
        base: The base path; created where it is missing.
        version: A positive integer, or None for one more than the highest there.

    Yields:
        The draft.

    Raises:
        UsageError: The version exists, or is not positive.
        VitrinaError: The disk is full or read-only, or the path is not a folder.

    Example:
        >>> with new_version(Path("models/vit")) as draft:  # doctest: +SKIP
        ...     (draft.staging / "saved_model.pb").write_bytes(graph)
        >>> draft.final  # doctest: +SKIP
        PosixPath('models/vit/1')
    """
    if version is not None and version < 1:
        raise UsageError(
            f"Got version {version}, but a version is a positive integer. Leave --version out for the next."
        )
    if version is not None and version in versions(base):
        raise UsageError(f"{base} already has version {version}. Leave --version out for the next one.")
    created = _missing_parents(base)
    staging: Path | None = None
    held: int | None = None
    try:
        try:
            base.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(base)
            staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=base))
            held = _hold(staging)
            draft = Draft(staging, base / str(_next(base) if version is None else version))
            yield draft
            staging.chmod(0o755)
            _publish(draft, base, version)
        except OSError as error:
            raise _explain(error, base) from error
    except BaseException:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for parent in reversed(created):
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
    finally:
        if held is not None:
            os.close(held)


def _hold(folder: Path) -> int | None:
    """A lock on a folder for as long as this process lives, by its descriptor; None where another holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # also of file systems without locks
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(base: Path) -> None:
    """Removes the staging folders whose writers are no more."""
    for staging in base.glob(f"{STAGING}*"):
        with contextlib.suppress(OSError):
            # A younger one may be about to be locked.
            if time.time() - staging.stat().st_mtime > ABANDONED_AFTER:
                held = _hold(staging)
                if held is not None:
                    shutil.rmtree(staging, ignore_errors=True)
                    os.close(held)


def _next(base: Path) -> int:
    return max(versions(base), default=0) + 1


def _publish(draft: Draft, base: Path, version: int | None) -> None:
    while True:
        # A rename replaces an empty folder and fails on a full one, so a version is never mixed or lost.
        try:
            if draft.final.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(draft.final))
            os.rename(draft.staging, draft.final)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            if version is not None:
                raise UsageError(
                    f"{draft.final} was written by somebody else meanwhile. Leave --version out."
                ) from error
            draft.final = base / str(_next(base))


def _missing_parents(base: Path) -> list[Path]:
    """The folders that `base.mkdir(parents=True)` is going to make, outermost first."""
    missing = []
    for path in [base, *base.parents]:
        if path.exists():
            break
        missing.append(path)
    return missing[::-1]


def _explain(error: OSError, base: Path) -> VitrinaError:
    reasons = {
        errno.ENOSPC: f"The disk that holds {base} is full. Free some space",
        errno.EDQUOT: f"The disk quota for {base} is used up. Free some space",
        errno.EROFS: f"{base} is on a read-only file system. Choose another --to",
        errno.EACCES: f"{base} may not be written by this user. Choose another --to",
        errno.EPERM: f"{base} may not be written by this user. Choose another --to",
        errno.ENOTDIR: f"{base} is not a folder. Choose another --to",
        errno.EEXIST: f"{base} is not a folder. Choose another --to",
    }
    reason = reasons.get(error.errno or 0)
    if reason is None:
        return VitrinaError(f"Writing below {base} failed: {error}. Nothing was left behind.")
    return VitrinaError(f"{reason} and run it again. Nothing was left behind. ({error.strerror})")
