"""Decoding: what 8-bit images become never moves; everything else is seen as it is, or refused with a reason."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from vpcore import InputError
from vpcore.data.decoding import decode, opened, pixels


def plain(encoded: bytes, px: int) -> np.ndarray:
    """How published results decoded their images, none of them with transparency, orientation, or more than 8 bits."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    if image.size != (px, px):
        image = image.resize((px, px), Image.Resampling.BILINEAR)
    return np.array(image).transpose(2, 0, 1)


def ours(encoded: bytes, px: int) -> np.ndarray:
    return decode([("the image", lambda: opened(io.BytesIO(encoded)))], count=1, px=px)[0].numpy()


def seen(encoded: bytes) -> np.ndarray:
    """(height, width, 3) at the native size."""
    return np.array(opened(io.BytesIO(encoded)))


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (13, 21, 3), dtype=np.uint8)
    values[:, :, 1] //= 2
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("px", [8, 13, 32])
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *((mode, kind) for mode in ("RGB", "L") for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")),
        *(("CMYK", kind) for kind in ("JPEG", "TIFF")),
        *((mode, kind) for mode in ("P", "1") for kind in ("PNG", "GIF", "TIFF", "BMP")),
    ],
)
def test_eight_bit_images_are_what_they_always_were(mode: str, kind: str, px: int) -> None:
    encoded = saved(photo(mode), kind)
    assert np.array_equal(ours(encoded, px), plain(encoded, px))


def test_real_images_are_what_they_always_were(real_data: Path) -> None:
    for folder in sorted(path.parent for path in real_data.glob("*/dataset.json")):
        for row in pq.read_table(next(folder.glob("test-*")), columns=["image"]).slice(0, 40).to_pylist():
            for px in (32, 64):
                assert np.array_equal(ours(row["image"]["bytes"], px), plain(row["image"]["bytes"], px)), folder


RAMP = np.linspace(0, 1, 256)[None].repeat(4, 0)


def pgm(values: np.ndarray, most: int) -> bytes:
    return f"P5 {values.shape[1]} {values.shape[0]} {most}\n".encode() + values.astype(">u2").tobytes()


def tiff(values: np.ndarray) -> bytes:
    return saved(Image.fromarray(values), "TIFF")


def raw_tiff(data: bytes, *, bits: int, photometric: int = 1, floats: bool = False) -> bytes:
    """A TIFF of the size of `RAMP`, tag by tag: width, height, bits, compression, ..., where the data begin, ..."""
    tags = {256: 256, 257: 4, 258: bits, 259: 1, 262: photometric, 273: 134, 277: 1, 278: 4, 279: len(data)}
    entries = [*tags.items(), (339, 3 if floats else 1)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    encoded = b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)
    assert len(encoded) == tags[273]
    return encoded + data


@pytest.mark.parametrize(
    "encoded",
    [
        saved(Image.fromarray((RAMP * 65535).round().astype(np.uint16))),
        tiff((RAMP * 65535).round().astype(np.uint16)),
        tiff((RAMP * 65535).round().astype(">u2")),
        tiff(RAMP.astype(np.float32)),
        pgm((RAMP * 65535).round(), 65535),
        pgm((RAMP * 1023).round(), 1023),
    ],
    ids=["PNG", "TIFF", "TIFF, other bytes", "float TIFF", "PGM", "PGM, 10 bits"],
)
def test_a_ramp_of_many_greys_is_a_ramp(encoded: bytes) -> None:
    found = seen(encoded)
    assert found.shape == (4, 256, 3)
    assert np.abs(found - 255 * RAMP[..., None]).max() <= 0.6


def test_twelve_bits_are_scaled_by_their_own_white() -> None:
    values = (RAMP * 4095).round().astype(np.uint16)
    high, low = values.reshape(-1, 2).T
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], 1).astype(np.uint8)
    encoded = raw_tiff(packed.tobytes(), bits=12)
    assert np.abs(seen(encoded) - 255 * RAMP[..., None]).max() <= 0.6


def test_sixteen_bit_colours_lose_their_lower_byte_only() -> None:
    values = np.random.default_rng(1).integers(0, 65536, (5, 6, 3), dtype=np.uint16)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0)
    encoded = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    assert np.abs(seen(encoded) - values / 257).max() < 1


def test_colours_of_other_spaces_stay_what_they_are() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 120, 60], [0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    for mode, most in (("LAB", 25), ("YCbCr", 4), ("CMYK", 0)):
        found = seen(saved(Image.fromarray(colours).convert(mode), "TIFF"))
        assert np.abs(found.astype(int) - colours).max() <= most, mode


def test_white_may_be_zero() -> None:
    sixteen = raw_tiff((RAMP * 65535).round().astype("<u2").tobytes(), bits=16, photometric=0)
    floats = raw_tiff(RAMP.astype("<f4").tobytes(), bits=32, photometric=0, floats=True)
    for encoded in (sixteen, floats):
        assert np.abs(seen(encoded) - 255 * (1 - RAMP[..., None])).max() <= 0.6


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (tiff((RAMP * 255).astype(np.float32)), r"its greys must lie in 0\.\.1, got 0\.\.255; scale it so"),
        (tiff((RAMP - 0.5).astype(np.float32)), r"its greys must lie in 0\.\.1, got -0.5\.\.0.5"),
        (tiff(np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32)), r"must lie in 0\.\.1, got nan\.\.nan"),
        (tiff((RAMP * 255).astype(np.int32)), "no number in its 32-bit or signed integers is known to be white"),
        (b"no image", r"cannot be decoded \(no image that Pillow knows\); copy it again"),
        (saved(photo())[:-60], "cannot be decoded .*truncated"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_a_reason(encoded: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ours(encoded, 8)


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_as_their_camera_says(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = saved(photo(), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(encoded)) as image:
        stored = np.array(image.convert("RGB"))
    if kind == "TIFF":  # which Pillow turns itself
        stored = np.array(photo())
    assert np.array_equal(seen(encoded), TURNS[orientation](stored))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0MM", b"Exif\0\0MX\0*\0\0\0\x08\0\1", b"Exif\0\0MM\0*\0\0\0\x07\0\0\1"])
def test_damaged_exif_data_ask_for_nothing(kind: str, exif: bytes) -> None:
    encoded = saved(photo(), kind, exif=exif, lossless=True)
    with pytest.warns(UserWarning, match="EXIF|Truncated") if exif[6:10] == b"MM\0*" else contextlib.nullcontext():
        assert np.array_equal(seen(encoded), np.array(photo()))


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return share * colours + (1 - share) * 255


def test_transparency_is_blended_over_white() -> None:
    alpha = np.random.default_rng(2).integers(0, 256, (13, 21), dtype=np.uint8)
    for mode, kind in (("RGB", "PNG"), ("RGB", "TIFF"), ("L", "PNG")):
        image = photo(mode)
        image.putalpha(Image.fromarray(alpha))
        assert np.abs(seen(saved(image, kind)) - over_white(np.array(photo(mode).convert("RGB")), alpha)).max() <= 1
    opaque = photo()
    opaque.putalpha(255)
    assert np.array_equal(seen(saved(opaque)), np.array(photo()))


def test_transparent_colours_of_palettes_and_of_the_whole_are_white() -> None:
    palette = photo().quantize(8)
    colours, index = np.array(palette.convert("RGB")), np.array(palette)
    for kind in ("PNG", "GIF"):
        found = seen(saved(palette, kind, transparency=3))
        assert np.array_equal(found[index == 3], np.full_like(found[index == 3], 255))
        assert np.array_equal(found[index != 3], colours[index != 3])
    red = photo()
    red.putpixel((4, 5), (255, 0, 0))
    found = seen(saved(red, "PNG", transparency=(255, 0, 0)))
    assert found[5, 4].tolist() == [255, 255, 255]
    assert np.array_equal(np.delete(found.reshape(-1, 3), 5 * 21 + 4, 0), np.delete(np.array(red).reshape(-1, 3), 109, 0))


def test_images_come_in_the_order_of_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpcore.data.decoding.BLOCK", 4)
    files = [(str(n), lambda n=n: Image.new("RGB", (3, 3), (n, 0, 0))) for n in range(11)]
    assert decode(files, count=11, px=2)[:, 0, 0, 0].tolist() == list(range(11))
    assert pixels(Image.new("RGB", (2, 5)), 4).shape == (3, 4, 4)
    assert decode([], count=0, px=2).dtype == torch.uint8
