"""`robustok encode` and `robustok decode` as a user meets them."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from project import record_as_it_is
from robustok_core import Latents
from robustok_core.cli import main
from robustok_core.values.images import from_uint8, to_uint8
from robustok_toolkit.generating import decode_to_uint8

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys, monkeypatch, tmp_path: Path, trained) -> Command:
    """Runs `robustok COMMAND RUN` with the trained run, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str, run: Path | None = None) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([name, str(run or trained.folder), *arguments])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def tokenizer(trained):
    return trained.component("tokenizer")


@pytest.fixture
def pixels(command, registry) -> np.ndarray:
    """Five images (5, 32, 32, 3), which also lie in images/ and images/more/."""
    images = registry.build("dataset", {"use": "fashion_mnist"}).validation.load(range(5)).images
    pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
    Path("images/more").mkdir(parents=True)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(f"images/{'more/' if number > 2 else ''}{number}.png")
    return pixels


def test_encode_writes_the_codes_of_all_images_in_a_folder_with_their_names(command, tokenizer, pixels):
    code, output, _ = command("encode", "images", "--batch-size", "2", "--out", "made/codes.npz")
    assert (code, output) == (0, "5 images written to made/codes.npz\n")
    with torch.no_grad():
        expected = tokenizer.encode(from_uint8(torch.from_numpy(pixels).permute(0, 3, 1, 2))).codes
    with np.load("made/codes.npz") as file:
        assert file["codes"].dtype == np.uint16
        np.testing.assert_array_equal(file["codes"], expected.numpy())
        assert file["names"].tolist() == ["0.png", "1.png", "2.png", "more/3.png", "more/4.png"]


def test_encode_crops_as_the_data_sets_do(command, tokenizer, registry, monkeypatch, tmp_path):
    """The images are 70 x 100 pixels; the data set crops them to 32."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 70, 100, 3), dtype=np.uint8)
    for number, image in enumerate(noise):
        Path(f"set/{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(f"set/{number % 2}/{number}.png")
    monkeypatch.setenv("ROBUSTOK_CACHE", str(tmp_path / "cache"))
    data = registry.build("dataset", {"use": "image_folder", "path": "set", "image_size": 32})
    with torch.no_grad():
        expected = {tuple(tokenizer.encode(data.train.load([row]).images).codes[0].tolist()) for row in range(2)}
    assert command("encode", "set/0/0.png", "set/0/2.png", "set/1", "--out", "codes.npz")[0] == 0
    with np.load("codes.npz") as file:
        assert len(file["codes"]) == 4
        assert expected <= {tuple(row) for row in file["codes"].tolist()}


def test_decode_saves_the_reconstructions_under_the_names_of_the_images(command, tokenizer, pixels):
    assert command("encode", "images", "--out", "codes.npz")[0] == 0
    code, output, _ = command("decode", "codes.npz", "--out", "decoded")
    assert (code, output) == (0, "5 images written to decoded\n")
    with np.load("codes.npz") as file:
        expected = decode_to_uint8(tokenizer, Latents(codes=torch.from_numpy(file["codes"].astype(np.int64))))
    for number, image in enumerate(expected.permute(0, 2, 3, 1).numpy()):
        decoded = np.asarray(Image.open(f"decoded/{'more/' if number > 2 else ''}{number}.png"))
        np.testing.assert_array_equal(decoded, image)
    assert command("decode", "codes.npz", "--out", "grid.png")[0] == 0
    grid = np.asarray(Image.open("grid.png"))  # five side by side, enlarged from 32 to 64
    strip = expected.permute(2, 0, 3, 1).reshape(32, 5 * 32, 3).numpy()
    np.testing.assert_array_equal(grid, strip.repeat(2, 0).repeat(2, 1))


def test_images_that_differ_only_in_their_ending_keep_it(command, pixels):
    Path("both").mkdir()
    for name in ("a.png", "a.bmp"):
        Image.fromarray(pixels[0]).save(f"both/{name}")
    assert command("encode", "both", "--out", "codes.npz")[0] == 0
    assert command("decode", "codes.npz", "--out", "decoded")[0] == 0
    assert sorted(file.name for file in Path("decoded").iterdir()) == ["a.bmp.png", "a.png.png"]


def test_a_file_and_a_folder_of_one_name_keep_their_endings(command, pixels):
    Path("both/a.png").mkdir(parents=True)
    for name in ("a.bmp", "a.png/1.bmp"):
        Image.fromarray(pixels[0]).save(f"both/{name}")
    assert command("encode", "both", "--out", "codes.npz")[0] == 0
    assert command("decode", "codes.npz", "--out", "decoded")[0] == 0
    made = sorted(str(file.relative_to("decoded")) for file in Path("decoded").rglob("*.png") if file.is_file())
    assert made == ["a.bmp.png", "a.png/1.bmp.png"]


def test_the_codes_beside_samples_are_decoded_to_those_samples(command, trained):
    folder = trained.artifact("samples")
    assert command("decode", str(folder / "codes.npy"), "--out", "decoded")[0] == 0
    with np.load(folder / "samples.npz") as file:
        samples = file["arr_0"].astype(int)
    decoded = np.stack([np.asarray(Image.open(file)) for file in sorted(Path("decoded").iterdir())]).astype(int)
    assert (abs(decoded - samples) <= 1).all(), "another batch may round the other way"


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (np.full((2, 16), 32), "32 is not a code: this tokenizer's codes are 0 to 31"),
        (np.full((2, 16), -1), "-1 is not a code"),
        (np.zeros((2, 15), np.int64), "expected codes (n, 16), found (2, 15)"),
        (np.zeros((2, 16)), "codes must be integers, found float64"),
        (np.zeros((0, 16), np.int64), "there are no images in this file"),
    ],
)
def test_codes_of_another_codebook_are_refused(command, codes, words):
    np.savez("codes.npz", codes=codes)
    code, _, errors = command("decode", "codes.npz", "--out", "decoded")
    assert code == 2
    assert f"codes.npz: {words}" in errors
    assert not Path("decoded").exists()


def test_codes_of_another_tokenizer_are_refused_even_if_they_would_fit(command, pixels):
    assert command("encode", "images", "--out", "codes.npz")[0] == 0
    with np.load("codes.npz") as file:
        np.savez("other.npz", **{**file, "latents_of": np.array("0123456789abcdef")})
    code, _, errors = command("decode", "other.npz", "--out", "decoded")
    assert code == 2
    assert "these latents are from another tokenizer (0123456789abcdef, not " in errors


@pytest.mark.parametrize("name", ["../a.png", "/tmp/a.png", "b/../../a.png"])
def test_a_name_cannot_lead_out_of_the_folder(command, name):
    np.savez("codes.npz", codes=np.zeros((1, 16), np.int64), names=np.array([name]))
    code, _, errors = command("decode", "codes.npz", "--out", "decoded")
    assert code == 2
    assert f"the name {name!r} leads out of the folder" in errors


def test_an_unreadable_input_gives_one_message(command, pixels):
    Path("images/9.png").write_bytes(b"no picture")
    Path("empty").mkdir()
    for given, words in {
        "images": "9.png: this image cannot be read",
        "empty": "empty: there are no images in this folder",
        "nowhere.png": "nowhere.png: there is no such file or folder",
    }.items():
        code, _, errors = command("encode", given, "--out", "codes.npz")
        assert code == 2
        assert words in errors
        assert "Traceback" not in errors
    code, _, errors = command("encode", "images/1.png", "images/more/../1.png", "--out", "codes.npz")
    assert code == 2
    assert "two images are called '1.png'" in errors
    code, _, errors = command("decode", "images/1.png", "--out", "decoded")
    assert code == 2
    assert "images/1.png: this is not a readable .npz file" in errors
    assert not Path("codes.npz").exists()


def test_encode_reads_every_usual_format_and_names_what_it_passes_over(command, pixels):
    Path("mixed").mkdir()
    for number, ending in enumerate(("gif", "jfif", "bmp", "JPG")):
        Image.fromarray(pixels[number]).save(f"mixed/{number}.{ending}", "JPEG" if ending == "jfif" else None)
    for name in ("a.heic", "b.heic", "c.txt"):
        Path(f"mixed/{name}").write_bytes(b"x")
    Path("mixed/linked").symlink_to("../images/more")
    code, output, notes = command("encode", "mixed", "--out", "codes.npz")
    assert (code, output) == (0, "6 images written to codes.npz\n")
    assert notes == "mixed: 6 of 9 files are read; passed over: 2 .heic, 1 .txt\n"
    with np.load("codes.npz") as file:
        names = ["0.gif", "1.jfif", "2.bmp", "3.JPG", "linked/3.png", "linked/4.png"]
        assert file["names"].tolist() == names


def test_encode_refuses_a_folder_of_which_nothing_is_left(command, pixels):
    Path("phone").mkdir()
    Path("phone/a.heic").write_bytes(b"x")
    code, _, errors = command("encode", "phone", "--out", "codes.npz")
    assert code == 2
    assert "phone: there are no images in this folder (0 of 1 files are read; passed over: 1 .heic)" in errors


def test_encode_turns_images_upright_unless_told_otherwise(command, pixels):
    tags = Image.Exif()
    tags[0x0112] = 6
    Path("photos").mkdir()
    Image.fromarray(pixels[0]).save("photos/0.png", exif=tags)
    Path("turned").mkdir()
    Image.fromarray(np.rot90(pixels[0], 3)).save("turned/0.png")

    def codes(*arguments):
        Path("codes.npz").unlink(missing_ok=True)
        assert command("encode", *arguments, "--out", "codes.npz")[0] == 0
        with np.load("codes.npz") as file:
            return file["codes"]

    np.testing.assert_array_equal(codes("photos"), codes("turned"))
    np.testing.assert_array_equal(codes("photos", "--ignore-exif"), codes("images/0.png"))
    assert not np.array_equal(codes("photos"), codes("images/0.png"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"0 1 2 3\n", "this is not a readable .npz file (whatever its name"),
        (b"", "this is not a readable .npz file (whatever its name"),
        (b"PK\3\4 and no more", "this is not a readable .npz file ("),
        (b"\x93NUMPY\1\0", "this array cannot be read (the header of the array is damaged"),
    ],
)
def test_another_kind_of_file_called_npz_gives_one_message(command, content, words):
    Path("codes.npz").write_bytes(content)
    code, _, errors = command("decode", "codes.npz", "--out", "decoded")
    assert code == 2
    assert f"error: codes.npz: {words}" in errors
    assert "hint: `robustok encode` writes such a file" in errors
    assert "pickle" not in errors


def test_text_in_an_npz_file_is_not_an_array(command):
    with zipfile.ZipFile("codes.npz", "w") as archive:
        archive.writestr("codes", "0 1 2 3")
    code, _, errors = command("decode", "codes.npz", "--out", "decoded")
    assert code == 2
    assert "codes.npz: this file has no array 'codes'" in errors


def test_decode_refuses_image_endings_other_than_png(command):
    np.savez("codes.npz", codes=np.zeros((1, 16), np.int64))
    code, _, errors = command("decode", "codes.npz", "--out", "grid.gif")
    assert code == 2
    assert "--out grid.gif: cannot write .gif files" in errors
    assert "a file ends in .png, and a folder has no such ending" in errors
    assert not Path("grid.gif").exists()


def test_nothing_is_overwritten(command, pixels):
    Path("codes.npz").write_text("mine")
    code, _, errors = command("encode", "images", "--out", "codes.npz")
    assert (code, Path("codes.npz").read_text()) == (2, "mine")
    assert "codes.npz: this already exists" in errors
    np.savez("good.npz", codes=np.zeros((1, 16), np.int64))
    code, _, errors = command("decode", "good.npz", "--out", "images")
    assert code == 2
    assert "images: this already exists" in errors


def test_the_folder_of_an_artifact_is_accepted(command, trained, pixels):
    folder = trained.artifact("tokenizer")
    assert json.loads((folder / "component.json").read_text())["kind"] == "tokenizer"
    assert command("encode", "images", "--out", "codes.npz", run=folder)[0] == 0


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a.png", "a.png"], "two images are called 'a.png'"),
        (["a\0b", "c"], "no file can be called"),
        (["\ud800", "c"], "no file can be called"),
        (np.full(2, 0x7FFFFFFF, np.uint32).view("<U1"), "it holds text with invalid characters"),
        ([3, 4], "expected 2 names, found an array int64 (2,)"),
        ("a.png", "expected 2 names, found an array <U5 ()"),
    ],
)
def test_names_that_no_two_files_can_have_are_refused(command, names, words):
    np.savez("codes.npz", codes=np.zeros((2, 16), np.int64), names=np.array(names))
    code, _, errors = command("decode", "codes.npz", "--out", "decoded")
    assert code == 2
    assert words in errors
    assert not Path("decoded").exists()


def test_images_that_are_not_finite_are_refused_instead_of_saved_as_black_ones(command, trained, tmp_path):
    shutil.copytree(trained.artifact("tokenizer"), damaged := tmp_path / "damaged")
    file = damaged / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.startswith("pixel_decoder") and name.endswith("conv_in.weight"))
    save_file(weights | {name: torch.full_like(weights[name], 3e38)}, file)
    record_as_it_is(damaged)
    np.savez("codes.npz", codes=np.zeros((2, 16), np.int64))
    for out in ("decoded", "grid.png"):
        code, _, errors = command("decode", "codes.npz", "--out", out, run=damaged)
        assert code == 1
        assert "`decode_vectors` returns images that are not finite" in errors
        assert not Path(out).exists()


def test_damaged_images_can_be_left_out_and_are_counted(command, pixels):
    Path("images/0.png").write_bytes(b"no image")
    code, _, errors = command("encode", "images", "--out", "codes.npz")
    assert code == 2
    assert "images/0.png: this image cannot be read" in errors
    code, output, errors = command("encode", "images", "--on-bad-file", "skip", "--out", "codes.npz")
    assert (code, output) == (0, "4 images written to codes.npz\n")
    assert "1 of 5 images cannot be read and are left out: images/0.png (" in errors
    with np.load("codes.npz") as file:
        assert file["names"].tolist() == ["1.png", "2.png", "more/3.png", "more/4.png"]
        assert len(file["codes"]) == 4
    code, _, errors = command("encode", "images/0.png", "--on-bad-file", "skip", "--out", "other.npz")
    assert code == 2
    assert "1 of 1 images cannot be read: images/0.png" in errors


def test_memory_that_runs_out_leaves_out_no_image(command, pixels, monkeypatch):
    def without_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("robustok_toolkit.cropped_images.as_rgb", without_memory)
    code, output, errors = command("encode", "images", "--on-bad-file", "skip", "--out", "codes.npz")
    assert (code, output) == (1, "")
    assert "there is not enough memory to decode this image" in errors
    assert not Path("codes.npz").exists()
