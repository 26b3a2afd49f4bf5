"""Writes the measured tables of docs/images.md: encoded files and image processors, beside Pillow and transformers.

python scripts/image_docs.py              measures everything (minutes) and writes the tables between their marks
python scripts/image_docs.py files memory  only these tables
"""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "images.md"

MEGAPIXELS = 24
"""What memory is measured with; pictures this large give their memory back to the system at once."""

SIZES = ((1, 1), (1, 500), (500, 1), (40, 3000), (3000, 40), (33, 31), (427, 640), (1500, 2000))
"""Heights and widths of the pictures that every processor is tried on."""

SMALL = {"height": 40, "width": 56}
SETTINGS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "ViTImageProcessor": [
        {},
        *({"size": SMALL, "resample": number} for number in range(6)),
        {"do_rescale": False, "do_normalize": False},
        {"do_normalize": False, "rescale_factor": 1 / 127.5},
    ],
    "DeiTImageProcessor": [{}, {"size": SMALL, "crop_size": {"height": 64, "width": 30}}, {"do_resize": False}],
    "BeitImageProcessor": [{}, {"do_center_crop": True, "size": SMALL, "crop_size": 30, "do_reduce_labels": True}],
    "ConvNextImageProcessor": [{}, {"size": {"shortest_edge": 64}, "crop_pct": 0.875, "resample": 3}],
    "MobileViTImageProcessor": [
        {},
        {"do_flip_channel_order": False, "size": {"shortest_edge": 50}, "crop_size": SMALL},
    ],
    "EfficientFormerImageProcessor": [{}, {"size": SMALL, "crop_size": {"height": 50, "width": 32}}],
    "SegformerImageProcessor": [{}, {"size": SMALL, "do_reduce_labels": True, "resample": 0}],
    "CLIPImageProcessor": [{}, {"size": {"shortest_edge": 60}, "crop_size": SMALL, "resample": 1}],
    "BlipImageProcessor": [{}, {"size": SMALL, "image_mean": 0.5, "image_std": 0.25}],
    "SamImageProcessor": [{}, {"size": {"longest_edge": 100}, "pad_size": {"height": 100, "width": 120}}],
    "LayoutLMv3ImageProcessor": [{"apply_ocr": False}, {"apply_ocr": False, "size": SMALL, "resample": 4}],
    "EfficientNetImageProcessor": [
        {},
        {"rescale_offset": True, "rescale_factor": 1 / 127.5, "size": SMALL, "resample": 5, "include_top": False},
    ],
}
"""What each class is tried with besides its own defaults (`{}`)."""

Reader = Callable[[bytes], "tuple[NDArray[np.uint8], str]"]


def main() -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(ROOT))
    # Before TensorFlow, one of whose packages has a folder of this name.
    importlib.import_module("tests.signatures.pictures")
    warnings.simplefilter("ignore")
    text = DOCUMENT.read_text(encoding="utf-8")
    tables = {"files": files_table, "others": others_table, "processors": processors_table, "memory": memory_table}
    for name in sys.argv[1:] or tables:
        print(f"Measuring {name} ...", flush=True)
        text = replaced(text, name, "\n".join(tables[name]()))
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


def replaced(text: str, name: str, table: str) -> str:
    """The document with the table between the marks of `name` exchanged."""
    begin, end = f"<!-- measured: {name} -->\n", f"<!-- end: {name} -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{table}\n{end}{after}"


# Files.


def groups() -> dict[str, dict[str, bytes]]:
    """Encoded files that are read exactly, by the row of the table that they belong to."""
    from PIL import Image

    from tests.signatures import pictures as made

    rng = np.random.default_rng(0)
    photo, noise = made.photo(60, 83), made.noise(64, 64)
    square = made.photo(64, 64)
    inks = Image.fromarray(rng.integers(0, 256, (37, 53, 4), dtype=np.uint8), mode="CMYK")
    cmyk = made.encode(inks, "JPEG")
    adobe = cmyk.index(b"Adobe")

    def sampled(image: Any, subsampling: int, factors: int, **options: Any) -> bytes:
        """Chroma at factors that Pillow does not write: such a file with its frame header changed."""
        data = bytearray(made.encode(image, "JPEG", subsampling=subsampling, **options))
        data[data.index(b"\xff\xc2" if options else b"\xff\xc0") + 11] = factors
        return bytes(data)

    qualities = {
        f"{q} {s}": made.encode(photo, "JPEG", quality=q, subsampling=s) for q in (5, 50, 95) for s in (0, 1, 2)
    }
    odd = {
        f"{subsampling} {factors} {image is noise} {progressive}": sampled(image, subsampling, factors, **progressive)
        for subsampling, factors in ((1, 0x12), (2, 0x41), (2, 0x14))
        for image in (square, noise)
        for progressive in ({}, {"progressive": True})
    }
    gray = {
        f"{bits} {laced}": made.png(rng.integers(0, 1 << bits, (33, 41)), bits, 0, interlaced=laced)
        for bits in (1, 2, 4, 8, 16)
        for laced in (False, True)
    }
    palette = {
        f"{bits} {len(clear)}": made.png(
            rng.integers(0, 1 << bits, (33, 41)),
            bits,
            3,
            palette=rng.integers(0, 256, (1 << bits, 3)),
            transparency=clear,
        )
        for bits in (1, 2, 4, 8)
        for clear in (b"", bytes([0, 128]))
    }
    color = {
        f"{kind} {bits} {laced}": made.png(rng.integers(0, 1 << bits, (33, 41, n)), bits, kind, interlaced=laced)
        for n, kind in ((2, 4), (3, 2), (4, 6))
        for bits in (8, 16)
        for laced in (False, True)
    }
    gamma = made.chunk(b"gAMA", (45_455).to_bytes(4, "big"))
    indices, colors = rng.integers(0, 256, (30, 41)).astype(np.uint8), rng.integers(0, 256, (256, 3))
    local = {"own": colors[::-1][:16], "transparent": 9, "interlaced": True}
    return {
        "JPEG, qualities 5 to 95, 4:4:4, 4:2:2, 4:2:0": qualities,
        "JPEG 4:4:0, 4:1:1 and 1x4, baseline and progressive": odd,
        "JPEG progressive, optimised, with restart markers, in RGB": {
            "progressive": made.encode(photo, "JPEG", progressive=True),
            "restarts": made.encode(photo, "JPEG", optimize=True, restart_marker_blocks=3),
            "rgb": made.encode(photo, "JPEG", keep_rgb=True),
        },
        "JPEG gray": {str(p): made.encode(photo.convert("L"), "JPEG", progressive=p) for p in (False, True)},
        "JPEG CMYK and YCCK, with and without Adobe's segment": {
            "cmyk": cmyk,
            "ycck": cmyk[: adobe + 11] + b"\2" + cmyk[adobe + 12 :],
            "plain": cmyk[:adobe] + b"Other" + cmyk[adobe + 5 :],
            "photo": made.encode(photo.convert("CMYK"), "JPEG", progressive=True),
        },
        "JPEG with EXIF orientation 1 to 8": {
            str(n): made.encode(photo, "JPEG", exif=made.with_orientation(n)) for n in range(1, 9)
        },
        "PNG gray of 1, 2, 4, 8 and 16 bits, interlaced too": gray,
        "PNG palette of 1 to 8 bits, with transparency": palette,
        "PNG gray and alpha, RGB, RGBA of 8 and 16 bits, interlaced too": color,
        "PNG with gAMA, with eXIf orientation, animated (first picture)": {
            "gamma": made.png(np.asarray(photo), 8, 2, extra=gamma),
            **{str(n): made.in_png(made.encode(photo, "PNG"), made.chunk(b"eXIf", made.tiff(n))) for n in (3, 6)},
            "animated": made.encode(photo, "PNG", save_all=True, append_images=[made.photo(60, 83).rotate(90)]),
        },
        "BMP of 1, 4, 8, 16, 24 and 32 bits, OS/2, top-down, with masks": {
            **{mode: made.encode(photo.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")},
            "4": made.bmp(rng.integers(0, 16, (9, 13)), 4, palette=rng.integers(0, 256, (16, 3)), top_down=True),
            "OS/2": made.bmp(indices, 8, palette=colors, old=True),
            "16": made.bmp(rng.integers(0, 65536, (9, 13)), 16),
            "565": made.bmp(rng.integers(0, 65536, (9, 13)), 16, masks=(0xF800, 0x7E0, 0x1F, 0)),
        },
        "GIF (first frame), own palettes, transparency, interlaced, frames off the corner": {
            "plain": made.gif(indices, screen=(30, 41), palette=colors),
            "own": made.gif(indices, screen=(30, 41), palette=colors, **local),  # type: ignore[arg-type]
            "corner": made.gif(indices, screen=(50, 60), corner=(4, 2), palette=colors, transparent=3),
            "animated": made.encode(photo, "GIF", save_all=True, append_images=[made.photo(60, 83).rotate(90)]),
        },
    }


def others() -> dict[str, bytes]:
    """Files on which a servable and Pillow do not agree."""
    from PIL import Image

    from tests.signatures import pictures as made

    photo, noise = made.photo(60, 83), made.noise(60, 83)
    spoilt = bytearray(made.encode(noise, "PNG"))
    spoilt[spoilt.index(b"IEND") - 5] ^= 1
    comment = bytearray(made.in_png(made.encode(noise, "PNG"), made.chunk(b"tEXt", b"a\0b")))
    comment[comment.index(b"tEXt") + 8] ^= 1
    return {
        "PNG whose pixels have a wrong checksum": bytes(spoilt),
        "PNG whose comment has a wrong checksum": bytes(comment),
        "PNG without its end chunk": made.encode(noise, "PNG")[:-12],
        "PNG more than a million pixels wide": made.encode(Image.new("1", (1_000_001, 1)), "PNG"),
        "PNG with an unknown critical chunk": made.in_png(made.encode(noise, "PNG"), made.chunk(b"ABCD", b"12")),
        "PNG of more than 10,000 chunks": made.in_png(made.encode(noise, "PNG"), made.chunk(b"tEXt", b"a\0b") * 10_000),
        "JPEG without its end marker": made.encode(photo, "JPEG")[:-2],
        "BMP with run-length coding": made.rle_bmp(20, 10),
        "BMP of 32 bits whose masks are those of RGBA, without alpha's": made.bmp(
            np.zeros((9, 16), np.uint8), 32, masks=(0xFF, 0xFF00, 0xFF0000, 0)
        ),
        "WebP, animated": made.encode(photo, "WEBP", save_all=True, append_images=[noise]),
        "TIFF": made.encode(photo, "TIFF"),
    }


def reader() -> Reader:
    """A servable's decoding as a function of one file: the picture, and why there is none."""
    import tensorflow as tf

    from signatures.preprocessing import Preprocessing
    from signatures.processor import compile_processor, decode_batch

    plain = compile_processor(Preprocessing(processor="none", data_format="channels_last"))

    def ops(image_bytes: Any) -> Any:
        decoded = decode_batch(image_bytes, plain)
        return decoded.features["pixel_values"], decoded.error

    graph = tf.function(ops, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)

    def read(data: bytes) -> tuple[NDArray[np.uint8], str]:
        values, error = graph(tf.constant([data]))
        return values.numpy()[0].astype(np.uint8), error.numpy()[0].decode()

    return read


def by_pillow(data: bytes) -> NDArray[np.uint8] | None:
    """What transformers' loader makes of a file; None where it raises."""
    from PIL import Image
    from transformers.image_utils import load_image

    try:
        return np.asarray(load_image(Image.open(io.BytesIO(data))))
    except (OSError, SyntaxError, ValueError):
        return None


def files_table() -> Iterator[str]:
    yield "| files | how many | largest difference, grey levels |\n|---|---|---|"
    read = reader()
    for name, files in groups().items():
        worst = max(_distance(*read(data), by_pillow(data)) for data in files.values())
        yield f"| {name} | {len(files)} | {worst:g} |"
    yield _webp_row(read)


def _webp_row(read: Reader) -> str:
    from tests.signatures import pictures as made

    photo = made.photo(60, 83)
    alpha = photo.copy()
    alpha.putalpha(photo.convert("L"))
    files = {
        "lossy": made.encode(photo, "WEBP"),
        "lossless": made.encode(photo, "WEBP", lossless=True),
        "alpha": made.encode(alpha, "WEBP"),
        "turned": made.encode(photo, "WEBP", exif=made.with_orientation(6)),
    }
    answers = [(*read(data), by_pillow(data)) for data in files.values()]
    read_here = not any(error for _, error, _ in answers)
    told = f"{max(_distance(*answer) for answer in answers):g}" if read_here else "not read by this TensorFlow"
    return f"| WebP, lossy, lossless, with alpha, turned (TensorFlow 2.19 and newer) | {len(files)} | {told} |"


def _distance(got: NDArray[np.uint8], error: str, want: NDArray[np.uint8] | None) -> float:
    if error or want is None or got.shape != want.shape:
        return float("inf")
    return float(np.abs(got.astype(np.int32) - want).max())


def others_table() -> Iterator[str]:
    yield "| file | Pillow | a servable |\n|---|---|---|"
    read = reader()
    for name, data in others().items():
        pillow = "refuses it" if by_pillow(data) is None else "reads it"
        error = read(data)[1]
        yield f"| {name} | {pillow} | {f'`error`: {error}' if error else 'reads it'} |"


# Processors.


def processors_table() -> Iterator[str]:
    yield "| class | settings | pictures | grey levels before rescaling | after normalising |\n|---|---|---|---|---|"
    for name, tried in SETTINGS.items():
        found = [figures for settings in tried for figures in compared(name, settings)]
        grey, after = (max(figures[i] for figures in found) for i in (0, 1))
        yield f"| {name} | {len(tried)} | {len(found)} | {grey:g} | {after:.1g} |"


def compared(name: str, settings: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    """Largest difference in grey levels and in features, picture by picture."""
    import tensorflow as tf
    import transformers

    from signatures.preprocessing import from_processor_config
    from signatures.processor import compile_processor
    from tests.signatures.pictures import noise

    processor = getattr(transformers, name)(**settings)
    compiled = compile_processor(from_processor_config(processor.to_dict()))
    graph = tf.function(compiled, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)], autograph=False)
    for height, width in SIZES:
        try:
            want = processor(noise(height, width), return_tensors="np", input_data_format="channels_last")
        except ValueError:
            # SAM's own processor refuses pictures whose shorter edge rounds to nothing, and so does a servable.
            continue
        got = graph(np.asarray(noise(height, width)))["pixel_values"].numpy()
        pair = [_grey(values, processor) for values in (got, want["pixel_values"][0])]
        yield float(np.abs(pair[0] - pair[1]).max()), float(np.abs(got - want["pixel_values"][0]).max())


def _grey(features: NDArray[Any], processor: Any) -> NDArray[np.float64]:
    """Features back to whole grey levels."""
    levels = features.astype(np.float64)
    if getattr(processor, "do_normalize", False):
        std, mean = (np.broadcast_to(getattr(processor, name), 3) for name in ("image_std", "image_mean"))
        levels = levels * std[:, None, None] + mean[:, None, None]
    if processor.do_rescale:
        factor = getattr(processor, "rescale_factor", None) or processor.rescale_value
        levels = (levels + bool(getattr(processor, "rescale_offset", False))) / factor
    return np.rint(levels)


# Memory.


def memory_table() -> Iterator[str]:
    yield "| one image as | bytes a pixel at the peak | at 64 million pixels |\n|---|---|---|"
    for name, make in large().items():
        with tempfile.TemporaryDirectory() as folder:
            for size, mega in (("small", 1), ("large", MEGAPIXELS)):
                (Path(folder) / size).write_bytes(make(mega))
            # Each in a process of its own, for memory that was used once is kept.
            code = f"from scripts.image_docs import peak; peak({folder!r})"
            ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        each = float(ran.stdout) / (MEGAPIXELS * 1e6)
        yield f"| {name} | {each:.0f} | {each * 0.064:.1f} GB |"


def peak(folder: str) -> None:
    """Prints the bytes that the large image in a folder takes over what the small one took."""
    import tensorflow as tf

    from signatures.preprocessing import from_processor_config
    from signatures.processor import compile_processor, decode_batch

    compiled = compile_processor(from_processor_config({"image_processor_type": "ViTImageProcessor"}))
    graph = tf.function(
        lambda image_bytes: decode_batch(image_bytes, compiled).error,
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    small, data = (tf.constant([(Path(folder) / size).read_bytes()]) for size in ("small", "large"))
    graph(small)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    error = graph(data).numpy()[0]
    if error:
        raise SystemExit(error.decode())
    print(status("VmHWM") - before)


def status(field: str) -> int:
    """A line of this process' status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def large() -> dict[str, Callable[[int], bytes]]:
    """Files of so many megapixels."""
    from PIL import Image

    from tests.signatures import pictures as made

    def picture(mega: int, mode: str = "RGB") -> Any:
        return made.photo(300, 400).resize((2000, mega * 500)).convert(mode)

    def encoded(kind: str, mode: str = "RGB", **options: Any) -> Callable[[int], bytes]:
        return lambda mega: made.encode(picture(mega, mode), kind, **options)

    return {
        "JPEG": encoded("JPEG"),
        "JPEG progressive, 4:4:4": encoded("JPEG", progressive=True, subsampling=0),
        "JPEG, turned by EXIF": encoded("JPEG", exif=made.with_orientation(6)),
        "JPEG CMYK": encoded("JPEG", "CMYK"),
        "PNG": encoded("PNG", compress_level=1),
        "PNG, a million pixels wide": lambda mega: made.encode(Image.new("RGB", (10**6, mega)), "PNG"),
        "BMP, one pixel high": lambda mega: made.encode(Image.new("RGB", (mega * 10**6, 1)), "BMP"),
        "BMP": encoded("BMP"),
        "GIF": encoded("GIF", "L"),
    }


if __name__ == "__main__":
    sys.exit(main())
