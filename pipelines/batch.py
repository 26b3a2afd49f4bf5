"""Batch inference: many images through a servable on Beam's workers, JSON lines out.

The images are divided into parts by their names. A worker takes a part, asks the servable in batches, and writes the
part's file whole; a run that was stopped and is started again does only the parts that are missing. An image that
cannot be answered has its `error` in the output and stops nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.runners import beam_args
from signatures.errors import MissingExtra, UsageError, VitrinaError

__all__ = ["Done", "batch", "output_names"]

PER_PART = 256
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
RECORD_SUFFIXES = (".tfrecord", ".tfrecord.gz", ".tfrecords", ".tfrecords.gz")
HALF = ".writing"
POLL = 1.0

Listener = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a batch ended.

    Args:
        images: How many are in the output, those of earlier runs included.
        errors: How many of them have an error instead of an answer.
        parts: How many files there are.
        kept: How many of those were there already.
        out: The files, in order.
    """

    images: int
    errors: int
    parts: int
    kept: int
    out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one output file answers: images by path, or a file of TFRecords; `newest` is their last change."""

    out: str
    images: tuple[str, ...] = ()
    records: str = ""
    newest: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a servable is asked."""

    servable: str
    batch_size: int
    signature: str
    inputs: Mapping[str, Any] = field(default_factory=dict)


def batch(
    servable: str | Path,
    *,
    images: str | Sequence[str],
    out: str,
    batch_size: int = 32,
    per_part: int = PER_PART,
    signature: str = "serving_default",
    inputs: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    beam_options: Sequence[str] = (),
    on_progress: Listener | None = None,
) -> Done:
    """Asks a servable about every image that a pattern names.

    Args:
        servable: A base path or a version of it, or any other target of `serving.client.connect`.
        images: A pattern such as `photos/**.jpg`, a folder, or TFRecords with `image/encoded` (`*.tfrecord[.gz]`), or
            several of these; in a bucket too, where Beam has its file system.
        out: The files to write: `answers-*.jsonl`, where `*` becomes `00000-of-00012`; without a `*` it comes before
            the suffix.
        batch_size: Images per call.
        per_part: Images per output file; TFRecords give one file each.
        signature: Which to ask.
        inputs: The task's own inputs, the same for every image.
        overwrite: Begin anew where `out` holds the answers of another model or other settings.
        beam_options: Beam's, such as `--direct_num_workers=4`.
        on_progress: Called with the number of finished parts and of all as it changes.

    Returns:
        How it ended.

    Raises:
        UsageError: Nothing fits the pattern, or `out` holds answers of another model.
        VitrinaError: A worker failed; started again, the batch goes on.
    """
    try:
        import apache_beam as beam
    except ImportError as error:
        raise MissingExtra("apache_beam", "tfx") from error
    if batch_size < 1 or per_part < 1:
        raise UsageError(f"Got batch size {batch_size} and {per_part} images per part, wanted at least 1 each.")
    asking = Asking(servable=str(servable), batch_size=batch_size, signature=signature, inputs=dict(inputs or {}))
    parts = _parts([images] if isinstance(images, str) else images, out, per_part)
    _same_settings(out, asking, overwrite=overwrite)
    _remove_others(out, parts)
    open_parts = [part for part in parts if not _is_done(part)]
    with _progress(parts, on_progress), _failure(), beam.Pipeline(argv=beam_args(beam_options)) as pipeline:
        _ = pipeline | beam.Create(open_parts) | beam.Reshuffle() | beam.ParDo(_do_fn(asking))
    answered = [_counts(part.out) for part in parts]
    return Done(
        images=sum(total for total, _ in answered),
        errors=sum(errors for _, errors in answered),
        parts=len(parts),
        kept=len(parts) - len(open_parts),
        out=tuple(part.out for part in parts),
    )


def output_names(out: str, count: int) -> list[str]:
    """The files that `out` stands for.

    >>> output_names("answers.jsonl", 2)
    ['answers-00000-of-00002.jsonl', 'answers-00001-of-00002.jsonl']
    """
    if "*" not in out:
        stem, dot, suffix = out.rpartition(".")
        out = f"{stem}-*.{suffix}" if dot and "/" not in suffix else f"{out}-*"
    return [out.replace("*", f"{number:05}-of-{count:05}") for number in range(count)]


def _parts(images: Sequence[str], out: str, per_part: int) -> list[Part]:
    found = _matching(images, out)
    if records := sorted(path for path in found if path.lower().endswith(RECORD_SUFFIXES)):
        names = output_names(out, len(records))
        return [Part(out=name, records=path, newest=found[path]) for name, path in zip(names, records, strict=True)]
    # By the name's hash, so that the same names come into the same parts, wherever they are listed.
    ordered = sorted(found, key=lambda path: (zlib.crc32(path.encode()), path))
    groups = [ordered[start : start + per_part] for start in range(0, len(ordered), per_part)]
    names = output_names(out, len(groups))
    return [
        Part(out=name, images=tuple(group), newest=max(found[path] for path in group))
        for name, group in zip(names, groups, strict=True)
    ]


def _matching(patterns: Sequence[str], out: str) -> dict[str, float]:
    """Every file that is asked about, and when it changed; what is written there itself is none of them."""
    from apache_beam.io.filesystems import FileSystems

    own = {*_written(out), _note(out)}
    found: dict[str, float] = {}
    for pattern in patterns:
        is_folder = "://" not in pattern and Path(pattern).is_dir()
        # A file is meant by its own name, even where that holds a bracket.
        is_file = "://" not in pattern and Path(pattern).is_file()
        wanted = f"{_literal(pattern.rstrip('/'))}/**" if is_folder else _literal(pattern) if is_file else pattern
        items = {item.path: item.last_updated_in_seconds for item in FileSystems.match([wanted])[0].metadata_list}
        if is_folder:
            endings = (*IMAGE_SUFFIXES, *RECORD_SUFFIXES)
            items = {path: time for path, time in items.items() if path.lower().endswith(endings)}
        items = {path: time for path, time in items.items() if path.removesuffix(HALF) not in own}
        if not items:
            raise UsageError(
                f"Nothing fits --in {pattern}. Give a folder with images, or a pattern such as 'photos/**.jpg'."
            )
        found.update(items)
    return found


def _literal(path: str) -> str:
    """A path as a pattern that means it alone."""
    return re.sub(r"([*?[])", r"[\1]", path)


def _every(out: str) -> str:
    return out if "*" in out else output_names(out, 1)[0].replace("00000-of-00001", "*")


def _written(out: str) -> list[str]:
    """The files below `out`'s name that a batch has written, whatever their number was."""
    from apache_beam.io.filesystems import FileSystems

    before, after = _every(out).split("*", 1)
    name = re.compile(re.escape(before) + r"\d{5,}-of-\d{5,}" + re.escape(after).replace(r"\*", ".*"))
    found = (item.path for item in FileSystems.match([_every(out)])[0].metadata_list)
    return [path for path in found if name.fullmatch(path)]


def _note(out: str) -> str:
    return f"{out.replace('*', 'all')}.batch.json"


def _same_settings(out: str, asking: Asking, *, overwrite: bool) -> None:
    """Answers of two models are never mixed: what was asked is written down beside them."""
    from apache_beam.io.filesystems import FileSystems

    note = _note(out)
    told = json.dumps({**vars(asking), "batch_size": None, "state": _state(asking.servable)}, sort_keys=True)
    if not overwrite and FileSystems.exists(note):
        with FileSystems.open(note) as stream:
            if stream.read().decode().strip() == told:
                return
        raise UsageError(
            f"{out} holds answers of another model, signature or input (see {note}). Choose another --out, or give "
            "--overwrite to begin anew."
        )
    if earlier := _written(out):
        FileSystems.delete(earlier)
    _write(note, [told])


def _remove_others(out: str, parts: Sequence[Part]) -> None:
    """Files of an earlier division, as of fewer images, would answer images twice."""
    from apache_beam.io.filesystems import FileSystems

    if others := sorted({*_written(out)} - {part.out for part in parts}):
        FileSystems.delete(others)


def _state(servable: str) -> str:
    """Changes with the model: its files' names, sizes and times; a served one counts by its address."""
    from signatures import base_path

    if "://" in servable:
        return ""
    version = base_path.resolve(Path(servable))
    stats = [(path, path.stat()) for path in sorted(version.rglob("*")) if path.is_file()]
    lines = [f"{path.relative_to(version)} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats]
    return hashlib.sha256("\n".join([version.name, *lines]).encode()).hexdigest()


def _is_done(part: Part) -> bool:
    """A file is renamed into place when it is whole; it answers the part where it has the same images, none newer."""
    from apache_beam.io.filesystems import FileSystems

    metadata = FileSystems.match([_literal(part.out)])[0].metadata_list
    if not metadata or metadata[0].last_updated_in_seconds < part.newest:
        return False
    return bool(part.records) or tuple(line["image"] for line in _lines(part.out)) == part.images


def _counts(path: str) -> tuple[int, int]:
    errors = [bool(line["error"]) for line in _lines(path)]
    return len(errors), sum(errors)


def _lines(path: str) -> Iterator[Mapping[str, Any]]:
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(path) as stream:
        for line in stream.read().decode().splitlines():
            yield json.loads(line)


def _write(path: str, lines: Sequence[str]) -> None:
    """Whole or not at all."""
    from apache_beam.io.filesystems import FileSystems

    if "://" not in path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    half = f"{path}{HALF}"
    with FileSystems.create(half) as stream:
        stream.write("".join(f"{line}\n" for line in lines).encode())
    FileSystems.rename([half], [path])


def _do_fn(asking: Asking) -> Any:
    import apache_beam as beam
    from apache_beam.utils.shared import Shared

    class Answer(beam.DoFn):  # type: ignore[misc]
        """Writes one part; the model is loaded once per process."""

        def __init__(self) -> None:
            self._shared = Shared()
            self._asker: _Asker | None = None

        def setup(self) -> None:
            self._asker = self._shared.acquire(lambda: _Asker(asking))

        def process(self, element: Part) -> Iterator[str]:
            assert self._asker is not None
            _write(element.out, list(self._asker.lines(element)))
            yield element.out

    return Answer()


class _Asker:
    """A loaded servable, and the JSON line for each image."""

    def __init__(self, asking: Asking) -> None:
        from serving.client import connect

        self._asking = asking
        self._client = connect(asking.servable, timeout=600.0)

    def lines(self, part: Part) -> Iterator[str]:
        images = _records(part.records) if part.records else ((path, _read(path)) for path in part.images)
        while group := list(islice(images, self._asking.batch_size)):
            readable = [content for _, content in group if isinstance(content, bytes)]
            answers = iter(self._ask(readable))
            for name, content in group:
                answer = next(answers) if isinstance(content, bytes) else {"error": content.reason}
                yield json.dumps({"image": name, **answer}, ensure_ascii=False)

    def _ask(self, images: list[bytes]) -> list[dict[str, Any]]:
        if not images:
            return []
        try:
            found = self._client.predict(images, signature=self._asking.signature, **self._asking.inputs)
            return [answer.to_json() for answer in found]
        except UsageError:
            raise
        except VitrinaError as error:
            if len(images) == 1:
                return [{"error": str(error)}]
            # One image may have spoiled the rest, or there were too many at once.
            return [answer for image in images for answer in self._ask([image])]


@dataclass(frozen=True)
class _Unreadable:
    reason: str


def _read(path: str) -> bytes | _Unreadable:
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems

    try:
        with FileSystems.open(path, compression_type="uncompressed") as stream:
            return bytes(stream.read()) or _Unreadable("the file is empty")
    except (OSError, BeamIOError) as error:
        return _Unreadable(" ".join(str(error).split()))


def _records(path: str) -> Iterator[tuple[str, bytes | _Unreadable]]:
    import tensorflow as tf

    from pipelines.examples import ENCODED, FILENAME

    compression = "GZIP" if path.endswith(".gz") else ""
    for number, record in enumerate(tf.data.TFRecordDataset(path, compression_type=compression).as_numpy_iterator()):
        feature = tf.train.Example.FromString(record).features.feature
        name, encoded = (feature[key].bytes_list.value for key in (FILENAME, ENCODED))
        content = bytes(encoded[0]) if encoded else _Unreadable(f"the Example has no `{ENCODED}`")
        yield (name[0].decode() if name else f"{path}#{number}"), content


@contextmanager
def _failure() -> Iterator[None]:
    try:
        yield
    except VitrinaError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise VitrinaError(f"A worker failed: {reason[:300]} Start the batch again: what is done is kept.") from error


@contextmanager
def _progress(parts: Sequence[Part], listener: Listener | None) -> Iterator[None]:
    """Tells how many files are there, whoever writes them."""
    if listener is None:
        yield
        return
    from apache_beam.io.filesystems import FileSystems

    finished = threading.Event()

    def watch() -> None:
        told = -1
        while True:
            last = finished.wait(POLL)
            count = sum(FileSystems.exists(part.out) for part in parts)
            if count != told:
                listener(count, len(parts))
                told = count
            if last:
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
