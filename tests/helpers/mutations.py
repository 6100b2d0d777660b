"""Random damage to files: bits, lengths and values, as disks, editors, downloads and other programs leave them."""

from __future__ import annotations

import copy
import json
import math
from random import Random
from typing import Any

import torch

#: Values of every JSON type, at and beyond their usual bounds.
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    3,
    2**70,
    0.5,
    -1e300,
    float("nan"),
    float("inf"),
    "",
    "0",
    "../../x",
    "a\0b",
    "\ud800",
    "é" * 300,
    [],
    [0],
    ["a", None],
    [[[]]],
    {},
    {"use": "vq"},
    {"a": {"b": 0}},
)

#: Other contents: nothing, zeros, not UTF-8, nested deeply, of another shape, a number of 5,000 digits.
OTHERS = (b"", b"\0" * 100, b"\xff\xfe{}", b"[" * 100_000, b"{}", b"[]", b'{"a": ' + b"9" * 5000 + b"}")


def damaged_bytes(content: bytes, random: Random) -> bytes:
    """Bytes with a bit turned, cut off, with a block of zeros or another block, or wholly others."""
    changed = bytearray(content)
    place = random.randrange(len(content)) if content else 0
    match random.randrange(7):
        case 0 | 1 if content:
            changed[place] ^= 1 << random.randrange(8)
        case 2 if content:
            changed[random.randrange(min(len(content), 200))] ^= 1 << random.randrange(8)  # headers
        case 3:
            del changed[place:]
        case 4:
            changed[place : place + random.randrange(1, 64)] = bytes(random.randrange(1, 64))
        case 5:
            changed[place:place] = random.randbytes(random.randrange(1, 64))
        case _:
            return random.choice(
                [b"", b"\0" * 100, b"\xff\xfe{}", b"[" * 100_000, b"{}", b'"' + b"9" * 5000, b"9" * 5000]
            )
    return bytes(changed)


def damaged_json(content: bytes, random: Random) -> bytes:
    """A JSON file with a value of another type, a key that is missing or has another name, or an item more or less."""
    value = json.loads(content)
    held, key = random.choice(list(_places(changed := copy.deepcopy(value))) or [(None, None)])
    if held is None or random.random() < 0.05:
        return json.dumps(random.choice(VALUES)).encode()
    match random.randrange(6):
        case 0:
            del held[key]
        case 1 if isinstance(held, dict):
            held[f"{key}_"] = held.pop(key)
        case 2 if isinstance(held, list):
            held.append(copy.deepcopy(held[key]))
        case _:
            held[key] = random.choice(VALUES)
    return json.dumps(changed).encode()


def damaged_weights(weights: dict[str, torch.Tensor], random: Random) -> dict[str, torch.Tensor]:
    """Weights with one that is missing, or has another name, shape, type or values."""
    changed = dict(weights)
    name = random.choice(sorted(weights))
    value = changed.pop(name)
    kinds = (torch.float16, torch.float64, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
    match random.randrange(9):
        case 0:
            return changed
        case 1:
            number = random.choice(["7", "1" * 30, "9" * 5000, "-1", "x"])
            new = ".".join(number if part.isdecimal() else part for part in name.split("."))
            return changed | {new if new != name else f"module.{name}.more": value}
        case 2:
            changed[name] = value.flatten()[0]
        case 3:
            changed[name] = value.flatten()
        case 4:
            changed[name] = value[..., :0]
        case 5:
            changed[name] = value[None]
        case 6:
            changed[name] = torch.cat([value, value], random.randrange(value.ndim)) if value.ndim else value[None]
        case 7:
            changed[name] = value.to(random.choice(kinds))
        case _:
            changed[name] = torch.full_like(value.double(), random.choice([math.nan, math.inf, 1e300]))
    return {key: held.contiguous().clone() for key, held in changed.items()}


def _places(value: Any) -> Any:
    """All (container, key) in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)
