"""Serves a candidate for real and asks it: the same answers, broken images answered one by one, fast enough.

Its answers are held to two others: to the exported servable's in this process, for every output, and to the trained
model's own, which the trainer wrote down before anything was exported.

This stands where TFX has its InfraValidator, which needs docker or Kubernetes, sends only serialized Examples and never
looks at an answer.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import servers
from pipelines.files import link_tree
from pipelines.own_answers import OwnAnswer, difference, mask_difference
from pipelines.served import served
from serving import stock
from signatures import warmup
from signatures.errors import UsageError, VitrinaError
from signatures.spec import WARMUP_PATH, Card

__all__ = ["BROKEN", "REPORT_FILE", "WARMUP_FILE", "Finding", "Report", "Serving", "check_served", "differences"]

REPORT_FILE = "serving.json"
LOG_FILE = "server.log"
#: As it is called in `assets.extra`, where the push puts it.
WARMUP_FILE = WARMUP_PATH.rpartition("/")[2]
NAME = "candidate"
SIGNATURE = "serving_default"
IMAGE = "image_bytes"
TOLERANCE = 1e-4
#: How many single requests the latency is measured over, after the first that are not counted.
LATENCY_REQUESTS = 40
UNCOUNTED = 5
#: What clients send by mistake.
BROKEN: Mapping[str, bytes] = {
    "empty": b"",
    "text": b"this is no image",
    "cut PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "cut JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
}

Arrays = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Args:
        check: What, such as `answers over REST`.
        ok: Whether it holds.
        told: In words, with figures.
    """

    check: str
    ok: bool
    told: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What serving a candidate showed.

    Args:
        server: Which server it was.
        findings: In the order they were looked at.
        latency_ms: Per door (`grpc`, `rest`) the `p50` and `p95` of single requests, one at a time.
        start_seconds: From the server's start to the first answer it can give.
        size_mb: Of the servable's files, in millions of bytes.
    """

    server: str
    findings: tuple[Finding, ...]
    latency_ms: Mapping[str, Mapping[str, float]]
    start_seconds: float
    size_mb: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return all(finding.ok for finding in self.findings)

    @property
    def failures(self) -> tuple[str, ...]:
        """What does not hold, a line each."""
        return tuple(f"{finding.check}: {finding.told}" for finding in self.findings if not finding.ok)

    def to_json(self) -> dict[str, Any]:
        """As `serving.json` holds it."""
        return {**asdict(self), "ok": self.ok}

    def write(self, folder: Path) -> None:
        """Writes `serving.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_FILE).write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Serving:
    """By what a candidate is served, and what it has to hold.

    Args:
        kind: One of `pipelines.servers.kinds()`.
        image: The container image, for the kinds that run one.
        namespace: The Kubernetes namespace; "" is the current one.
        max_latency_ms: The most that the 95th percentile of single requests may take over either door; None is no
            limit.
        max_size_mb: The most that the servable's files may take, in millions of bytes; None is no limit.
    """

    kind: str = servers.AUTO
    image: str = stock.IMAGE
    namespace: str = ""
    max_latency_ms: float | None = None
    max_size_mb: float | None = None


def check_served(
    model: Path,
    images: Sequence[bytes],
    *,
    folder: Path,
    own: Mapping[str, OwnAnswer] | None = None,
    serving: Serving | None = None,
) -> Report:
    """Starts a server on a servable and holds its answers to the servable's in this process and to the trainer's.

    The server loads the candidate with warmup requests made of `images`, as `folder / WARMUP_FILE` keeps them for the
    push: what clients will send is what has been warmed up, and it has been seen to load.

    Args:
        model: One version's folder.
        images: Encoded images to ask about, besides the servable's own warmup requests; at least one.
        folder: For what the server says (`server.log`) and the warmup requests.
        own: The trained model's answers by digest of the image; None where there are none to compare with.
        serving: By what it is served, and its limits.

    Returns:
        What was found. A server that does not start is a finding, too.

    Raises:
        UsageError: There is no such server here.
        VitrinaError: There are no images.
    """
    chosen = serving or Serving()
    if not images:
        raise VitrinaError("There are no images to ask the candidate about. Give it an eval split that is not empty.")
    with tempfile.TemporaryDirectory(prefix=".candidate-", dir=folder) as scratch:
        base = Path(scratch) / NAME
        # Plain files, not links into another folder: a container sees the base path alone.
        link_tree(model, base / "1", apart_from=[WARMUP_PATH])
        _write_warmup(model, base / "1", images)
        shutil.copyfile(base / "1" / WARMUP_PATH, folder / WARMUP_FILE)
        report = _check(base, model, images, own or {}, log=folder / LOG_FILE, serving=chosen)
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file()) / 1e6
    findings = (*_small_enough(size, chosen.max_size_mb), *report.findings)
    return replace(report, size_mb=round(size, 3), findings=findings)


def differences(got: Arrays, wanted: Arrays, *, tolerance: float = TOLERANCE) -> str:
    """How two answers differ, in words; "" where they do not.

    Args:
        got: Outputs by name.
        wanted: The same, as they should be.
        tolerance: The most that numbers may differ by; strings and shapes may not.

    Returns:
        The first difference found.
    """
    if set(got) != set(wanted):
        return f"outputs {sorted(got)} instead of {sorted(wanted)}"
    for name, value in wanted.items():
        one, other = np.asarray(got[name]), np.asarray(value)
        if one.shape != other.shape:
            return f"{name} has shape {list(one.shape)} instead of {list(other.shape)}"
        if other.dtype.kind in "fiu":
            largest = float(np.max(np.abs(one.astype(np.float64) - other.astype(np.float64)), initial=0.0))
            if not largest <= tolerance:
                return f"{name} differs by {largest:.2g}, more than {tolerance:g}"
        elif [_text(item) for item in one.ravel()] != [_text(item) for item in other.ravel()]:
            return f"{name} differs"
    return ""


def _check(
    base: Path,
    model: Path,
    images: Sequence[bytes],
    own: Mapping[str, OwnAnswer],
    *,
    log: Path,
    serving: Serving,
) -> Report:
    from serving.client import connect

    requests = [{IMAGE: np.array(list(images), object)}, *_warmup(model)]
    mixed = {IMAGE: np.array([images[0], *BROKEN.values(), images[-1]], object)}
    with connect(str(model)) as here:
        wanted = [here.call(request) for request in requests]
        wanted_mixed = here.call(mixed)
    findings = [_certificate(Card.read(model))]
    latencies: dict[str, Mapping[str, float]] = {}
    try:
        with served(
            base, name=NAME, log=log, kind=serving.kind, image=serving.image, namespace=serving.namespace
        ) as server:
            for door, target in (("grpc", server.grpc), ("rest", server.rest)):
                with connect(target) as client:
                    findings.append(_answers(door, client, requests, wanted))
                    findings += _as_trained(door, client, images, own)
                    findings.append(_broken(door, client, mixed, wanted_mixed))
                    latencies[door] = _latency(client, images)
                    findings += _fast_enough(door, latencies[door], serving.max_latency_ms)
            return Report(
                server=server.kind, findings=tuple(findings), latency_ms=latencies, start_seconds=server.seconds
            )
    except UsageError:
        raise
    except VitrinaError as error:
        findings.append(Finding(check="serving", ok=False, told=str(error)))
        return Report(server=serving.kind, findings=tuple(findings), latency_ms=latencies, start_seconds=0.0)


def _certificate(card: Card) -> Finding:
    holds = bool(card.parity.get("holds", False))
    told = "it answers as its checkpoint does" if holds else "the servable has none that holds; see: vitrina verify"
    return Finding(check="parity certificate", ok=holds, told=told)


def _answers(door: str, client: Any, requests: Sequence[Arrays], wanted: Sequence[Arrays]) -> Finding:
    for number, (request, answer) in enumerate(zip(requests, wanted, strict=True)):
        difference = differences(client.call(request), answer)
        if difference:
            return Finding(check=f"answers over {door}", ok=False, told=f"request {number}: {difference}")
    count = sum(len(request[IMAGE]) if IMAGE in request else 1 for request in requests)
    return Finding(check=f"answers over {door}", ok=True, told=f"{count} images as in process, to {TOLERANCE:g}")


def _as_trained(door: str, client: Any, images: Sequence[bytes], own: Mapping[str, OwnAnswer]) -> list[Finding]:
    """What is served beside what the trained model answered in the trainer."""
    known = [(image, own[digest]) for image in images if (digest := hashlib.sha256(image).hexdigest()) in own]
    if not known:
        return []
    check = f"the trainer's own answers over {door}"
    answer = client.call({IMAGE: np.array([image for image, _ in known], object)})
    for number, (_, trained) in enumerate(known):
        if error := _text(np.ravel(answer["error"])[number]):
            return [Finding(check=check, ok=False, told=f"image {number} was refused: {error}")]
        if trained.mask:
            told = mask_difference(trained, answer["mask_bytes"][number])
        else:
            told = difference(trained, answer["labels"][number], answer["scores"][number])
        if told:
            return [Finding(check=check, ok=False, told=f"image {number}: {told}")]
    return [Finding(check=check, ok=True, told=f"{len(known)} images as the trained model answered them")]


def _broken(door: str, client: Any, mixed: Arrays, wanted: Arrays) -> Finding:
    """Good images beside broken ones: these get an error each, those their answers."""
    check = f"broken images over {door}"
    answer = client.call(mixed)
    errors = [_text(error) for error in np.ravel(answer["error"])]
    unsaid = [name for name, error in zip(BROKEN, errors[1:-1], strict=True) if not error]
    if unsaid:
        return Finding(check=check, ok=False, told=f"no error for: {', '.join(unsaid)}")
    if errors[0] or errors[-1]:
        return Finding(check=check, ok=False, told=f"a good image beside them was refused: {errors[0] or errors[-1]}")
    difference = differences(answer, wanted)
    return Finding(check=check, ok=not difference, told=difference or f"{len(BROKEN)} kinds, an error each")


def _latency(client: Any, images: Sequence[bytes]) -> dict[str, float]:
    """Of single requests, one after the other, in milliseconds."""
    taken = []
    for number in range(UNCOUNTED + LATENCY_REQUESTS):
        one = np.array([images[number % len(images)]], object)
        started = time.perf_counter()
        client.call({IMAGE: one})
        taken.append((time.perf_counter() - started) * 1000)
    p50, p95 = np.percentile(taken[UNCOUNTED:], [50, 95])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def _fast_enough(door: str, latency: Mapping[str, float], limit: float | None) -> list[Finding]:
    if limit is None:
        return []
    told = f"p95 {latency['p95']:.1f} ms, the limit is {limit:g} ms"
    return [Finding(check=f"latency over {door}", ok=latency["p95"] <= limit, told=told)]


def _small_enough(size: float, limit: float | None) -> list[Finding]:
    if limit is None:
        return []
    return [Finding(check="size", ok=size <= limit, told=f"{size:.1f} MB, the limit is {limit:g} MB")]


def _write_warmup(model: Path, candidate: Path, images: Sequence[bytes]) -> None:
    """Warmup requests like the servable's own, with images that clients would send."""
    requests = []
    for request in _warmup(model):
        count = len(request[IMAGE]) if IMAGE in request else 0
        chosen = [images[number % len(images)] for number in range(count)]
        requests.append({**request, **({IMAGE: np.array(chosen, object)} if chosen else {})})
    warmup.write(candidate, requests or [{IMAGE: np.array([images[0]], object)}])


def _warmup(model: Path) -> Iterator[Arrays]:
    """The servable's own warmup requests, as arrays."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path = model / WARMUP_PATH
    if not path.is_file():
        return
    for record in tf.data.TFRecordDataset(str(path)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        if request.model_spec.signature_name == SIGNATURE:
            yield {name: tf.make_ndarray(value) for name, value in request.inputs.items()}


def _text(item: Any) -> str:
    # Masks and pictures are bytes that are no text.
    return item.decode(errors="backslashreplace") if isinstance(item, bytes) else str(item)
