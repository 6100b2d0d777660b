"""Compares ways to read images at ImageNet's size with torchvision's: `python benchmarks/image_files.py`.

Photographs (those of scikit-image and scikit-learn, turned and cut) are written as JPEG files. Each data set loads the
same batches, and so does torchvision's ImageFolder with the same crop (ADM's, as in the released code of DiT and
RAR). All but `fast_resize` give the same pixels, which is checked; how far that is from them is measured. They run with
one thread, and processor time is counted, so that other load hardly matters: images per second are those of a core.
With `--scaled`, also how many grey levels the crops with the option `fast_jpeg` are from ADM's.
"""

from __future__ import annotations

import io
import logging
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from robustok_commands.prepare import prepare
from robustok_core import load_registry
from robustok_core.kinds.dataset import Images
from robustok_toolkit.crops import center_crop
from robustok_toolkit.image_decoding import as_rgb, halve_while_decoding

#: Returns the images (b, 3, S, S) of some indices.
Load = Callable[[Sequence[int]], Tensor]


def photographs() -> list[Image.Image]:
    """Photographs that installed packages bring."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    arrays = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), *load_sample_images().images]
    return [Image.fromarray(array) for array in arrays]


def write_files(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Writes CLASS/NUMBER.jpg, and the same files as the shard images.tar."""
    sources = photographs()
    with tarfile.open(folder / "images.tar", "w") as tar:
        for number in range(count):
            source = sources[number % len(sources)]
            turned = source.rotate(7 * (number // len(sources)), Image.Resampling.BICUBIC)
            encoded = io.BytesIO()
            turned.resize(size, Image.Resampling.LANCZOS).save(encoded, "JPEG", quality=90)
            file = folder / "files" / str(number * 2 // count) / f"{number:05d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded.getvalue())
            for name, content in ((file.name, encoded.getvalue()), (f"{file.stem}.cls", file.parent.name.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def torchvision_loader(folder: Path, size: int) -> Load:
    """ImageFolder with ADM's crop, as in guided-diffusion, and batches as the default collate makes them."""
    from torchvision import datasets, transforms

    steps = [transforms.Lambda(lambda picture: center_crop(picture, size)), transforms.ToTensor()]
    steps.append(transforms.Normalize([0.5] * 3, [0.5] * 3))
    images = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    return lambda rows: torch.stack([images[row][0] for row in rows])


def our_loaders(folder: Path, size: int) -> dict[str, Load]:
    """The data sets; all images but one of each class are for training."""
    tables = {
        "image_folder": {"use": "image_folder", "path": f"{folder}/files", "image_size": size},
        "image_folder, fast_resize": {
            "use": "image_folder",
            "path": f"{folder}/files",
            "image_size": size,
            "fast_resize": True,
        },
        "webdataset": {"use": "webdataset", "train": f"{folder}/images.tar", "image_size": size},
    }
    for image_format in ("npy", "webp"):
        out = folder / image_format
        options = [f"--set=data.image_size={size}", "--set=data.validation_share=0.001", f"--format={image_format}"]
        prepare.main([f"{folder}/files", str(out), *options, "--quiet"], standalone_mode=False)
        tables[f"prepared ({image_format})"] = {"use": "prepared", "path": str(out)}
    registry = load_registry()
    share = {"validation_share": 0.001}
    built = {
        name: registry.build("dataset", table if table["use"] == "prepared" else table | share)
        for name, table in tables.items()
    }
    return {name: partial(images_of, data.train) for name, data in built.items()}


def images_of(split: Images, rows: Sequence[int]) -> Tensor:
    """The images of a split at some indices."""
    return split.load(rows).images


def load_all(load: Load, batches: Sequence[Sequence[int]]) -> None:
    for rows in batches:
        load(rows)


def scaled_decoding() -> dict[str, dict[str, float]]:
    """How far crops with `fast_jpeg` are from ADM's, for photographs and crops of several sizes."""
    errors = {}
    for width, height, size in ((512, 384, 64), (512, 384, 128), (1000, 750, 256), (1024, 768, 256), (2048, 1536, 256)):
        differences, seconds = [], [0.0, 0.0]
        for source in photographs():
            encoded = io.BytesIO()
            source.resize((width, height), Image.Resampling.LANCZOS).save(encoded, "JPEG", quality=90)
            crops = []
            for way in (0, 1):
                began = time.process_time()
                picture = Image.open(encoded)
                if way:
                    halve_while_decoding(picture, size)
                crops.append(np.asarray(center_crop(as_rgb(picture), size)).astype(int))
                seconds[way] += time.process_time() - began
            differences.append(np.abs(crops[0] - crops[1]))
        errors[f"{width} x {height} to {size}"] = {
            "mean": round(float(np.mean(differences)), 2),
            "mean of the worst photograph": round(max(float(one.mean()) for one in differences), 2),
            "largest": int(np.max(differences)),
            "times as fast": round(seconds[0] / seconds[1], 2),
        }
    return errors


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    quick = {"images": 8, "stored": [40, 30], "size": 16, "batch": 4}
    parser = harness.Parser(__doc__, {"images": 256, "size": 256, "batch": 32, "threads": 1}, quick=quick)
    parser.add_argument("--stored", type=int, nargs=2, default=[500, 375], help="width and height of the files")
    parser.add_argument("--scaled", action="store_true", help="measure libjpeg's scaled decoding, too")
    options = parser.options(arguments)
    logging.disable(logging.WARNING)
    report = harness.Report(options)
    report.found["pillow"] = PIL.__version__
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), options.images, tuple(options.stored))
        loaders = our_loaders(Path(folder), options.size)
        count = options.images - 2
        batches = [range(start, min(start + options.batch, count)) for start in range(0, count, options.batch)]
        check_equal(loaders, batches[0])
        report.found["fast_resize_error"] = fast_resize_error(loaders, batches)
        loaders = {"torchvision": torchvision_loader(Path(folder) / "files", options.size), **loaders}
        ways = {name: partial(load_all, load, batches) for name, load in loaders.items()}
        found = harness.compare(ways, rounds=options.rounds)
    report.compared("reading images", found, amount=count, unit="images", clock="processor_seconds")
    if options.scaled:
        report.found["scaled_decoding_error"] = scaled_decoding()
    logging.disable(logging.NOTSET)
    return report.finish()


def check_equal(loaders: dict[str, Load], rows: Sequence[int]) -> None:
    """Checks that all data sets give the same images; webdataset chooses others for validation."""
    exact = loaders["image_folder"](rows)
    for name in ("prepared (npy)", "prepared (webp)"):
        if not torch.equal(loaders[name](rows), exact):
            raise SystemExit(f"{name} gives other images")


def fast_resize_error(loaders: dict[str, Load], batches: Sequence[Sequence[int]]) -> dict[str, float]:
    """How far the crops with `fast_resize` are from ADM's, in grey levels of 255."""
    ways = [loaders["image_folder"], loaders["image_folder, fast_resize"]]
    differences = torch.cat([(ways[0](rows) - ways[1](rows)).abs().flatten() for rows in batches]) * 127.5
    return {"mean": round(float(differences.mean()), 4), "largest": round(float(differences.max()))}


if __name__ == "__main__":
    main()
