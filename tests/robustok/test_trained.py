"""What a program does with what was trained: `robustok.load_tokenizer` and `robustok.load_generator`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import robustok
from project import CONTINUOUS, FLOW, NUM_TOKENS, TO_SAMPLES, WIDTH, Project
from robustok_core.cli import main
from robustok_core.values.images import from_uint8, to_uint8


@pytest.fixture(scope="module")
def tokenizer(trained):
    return robustok.load_tokenizer(trained.folder)


@pytest.fixture(scope="module")
def generator(trained):
    return robustok.load_generator(trained.folder)


@pytest.fixture(scope="module")
def images(registry) -> torch.Tensor:
    """(5, 3, 32, 32) in [-1, 1]."""
    return registry.build("dataset", {"use": "fashion_mnist"}).validation.load(range(5)).images


def pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(to_uint8(image).permute(1, 2, 0).numpy())


def pixels(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures])


def assert_refused(action, *words: str) -> None:
    with pytest.raises(robustok.RobustokError) as caught:
        action()
    for word in words:
        assert word in str(caught.value)


def command(*arguments: str | Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert not ended.value.code


# --- the tokenizer --------------------------------------------------------------------------------


def test_files_pil_images_and_tensors_are_encoded_alike_and_may_be_mixed(tokenizer, images, tmp_path):
    pil(images[0]).save(tmp_path / "0.png")
    pil(images[1]).save(tmp_path / "1.png")
    mixed = [tmp_path / "0.png", str(tmp_path / "1.png"), pil(images[2]), images[3], images[4].double()]
    with torch.no_grad():
        expected = tokenizer.tokenizer.encode(images).codes
    assert torch.equal(tokenizer.encode_images(mixed).codes, expected)
    assert torch.equal(tokenizer.encode_images(images, batch_size=2).codes, expected)
    assert torch.equal(tokenizer.encode_images(pil(images[0])).codes, expected[:1]), "one image needs no list"


def test_a_large_image_is_cropped_as_by_robustok_encode(tokenizer, trained, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 150, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "wide.png")
    command("encode", trained.folder, tmp_path / "wide.png", "--out", tmp_path / "codes.npz")
    with np.load(tmp_path / "codes.npz") as file:
        np.testing.assert_array_equal(tokenizer.encode_images([tmp_path / "wide.png"]).codes.numpy(), file["codes"])
    assert tokenizer.reconstruct([tmp_path / "wide.png"])[0].size == (32, 32)


def test_latents_are_decoded_to_the_decoders_images(tokenizer, images):
    with torch.no_grad():
        drawn = to_uint8(tokenizer.tokenizer.decode(tokenizer.tokenizer.encode(images)))
    expected = drawn.permute(0, 2, 3, 1).numpy()
    latents = tokenizer.encode_images(images)
    np.testing.assert_array_equal(pixels(tokenizer.decode_to_images(latents)), expected)
    np.testing.assert_array_equal(pixels(tokenizer.decode_to_images(robustok.Latents(codes=latents.codes))), expected)
    np.testing.assert_array_equal(pixels(tokenizer.reconstruct(images)), expected)


def test_a_perturbation_by_name_changes_all_images_and_depends_on_the_seed(tokenizer, images):
    clean = tokenizer.encode_images(images)
    wrong = tokenizer.perturbed(clean, "top_delta", delta=8)
    assert ((wrong.codes != clean.codes).any(dim=1)).all(), "beta is 1 unless it is given"
    near = tokenizer.tokenizer.quantizer.nearest(tokenizer.tokenizer.quantizer.lookup(clean.codes).flatten(0, 1), 8)
    assert (near == wrong.codes.flatten()[:, None]).any(dim=1).all()
    assert torch.equal(tokenizer.perturbed(clean, "top_delta", delta=8).codes, wrong.codes)
    assert not torch.equal(tokenizer.perturbed(clean, "top_delta", seed=1, delta=8).codes, wrong.codes)
    codes = robustok.Latents(codes=clean.codes)
    assert torch.equal(tokenizer.perturbed(codes, "top_delta", delta=8).codes, wrong.codes), "codes alone will do"
    some = tokenizer.perturbed(clean, "top_delta", delta=8, beta=0.4)
    assert (some.codes != clean.codes).any(dim=1).sum() == 2
    assert len(tokenizer.decode_to_images(wrong)) == 5


def test_it_is_in_eval_mode_and_computes_no_gradients(tokenizer, images):
    assert not tokenizer.tokenizer.training
    assert not tokenizer.encode_images(images).vectors.requires_grad


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "there are no images"),
        ([torch.zeros(3, 16, 16)], "image 0: expected a tensor (3, 32, 32) of floats, found (3, 16, 16)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "found (3, 32, 32) of torch.uint8"),
        ([torch.zeros(3, 32, 32), torch.full((3, 32, 32), 255.0)], "image 1: an image tensor must lie in"),
        (["no such file.png"], "no such file.png: this image cannot be read"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "x / 127.5 - 1 makes floats in [-1, 1] of 8-bit pixels"),
        (torch.zeros(32, 32), "images: expected a tensor (n, 3, 32, 32) of floats, found Tensor (32, 32) of torch.flo"),
        (torch.full((1, 3, 32, 32), float("nan")), "image 0: an image tensor must lie in [-1, 1]"),
        (np.zeros((2, 32, 32, 3), np.uint8), "images: expected images, found ndarray (2, 32, 32, 3) of uint8 (give"),
        ([np.zeros((32, 32, 3), np.uint8)], "image 0: expected an image, found ndarray (32, 32, 3) of uint8"),
        ([torch.zeros(3, 32, 32), 3], "image 1: expected an image, found int (give paths, PIL images"),
        ([[torch.zeros(3, 32, 32)]], "image 0: expected an image, found list"),
        ([b"a.png"], "image 0: expected an image, found bytes"),
        (b"a.png", "images: expected images, found bytes"),
        (None, "images: expected images, found NoneType"),
        ({"a.png"}, "images: expected images, found set"),
        (iter([torch.zeros(3, 32, 32)]), "images: expected images, found list_iterator"),
        (robustok.Latents(), "images: expected images, found Latents"),
        (Path(__file__).parent, "this is a folder, not an image (give the image files in it"),
    ],
)
def test_a_wrong_image_is_named(tokenizer, given, words):
    assert_refused(lambda: tokenizer.encode_images(given), words)
    assert_refused(lambda: tokenizer.reconstruct(given), words)


def test_one_image_needs_no_list_whatever_it_is(tokenizer, images, tmp_path):
    pil(images[0]).save(tmp_path / "0.png")
    expected = tokenizer.encode_images(images[:1]).codes
    for one in (images[0], pil(images[0]), tmp_path / "0.png", str(tmp_path / "0.png")):
        assert torch.equal(tokenizer.encode_images(one).codes, expected)


CODES = torch.arange(32).reshape(2, 16)
VECTORS = torch.zeros(2, 16, 4)
WRONG_LATENTS = [
    (CODES, "expected Latents, found Tensor (2, 16) of torch.int64 (`encode_images` and `sample_latents` return"),
    (CODES.numpy(), "expected Latents, found ndarray (2, 16) of int64"),
    ([robustok.Latents(codes=CODES)], "expected Latents, found list"),
    ("codes.npz", "expected Latents, found str"),
    (None, "expected Latents, found NoneType"),
    (robustok.Latents(), "these latents hold neither vectors nor codes"),
    (robustok.Latents(codes=CODES.numpy()), "codes must be a tensor (n, 16) of integers, found ndarray (2, 16) of"),
    (robustok.Latents(codes=CODES[0]), "codes must be a tensor (n, 16) of integers, found Tensor (16,)"),
    (robustok.Latents(codes=CODES[:, :7]), "codes must be a tensor (n, 16) of integers, found Tensor (2, 7)"),
    (robustok.Latents(codes=CODES.float()), "of integers, found Tensor (2, 16) of torch.float32"),
    (robustok.Latents(codes=CODES > 3), "of integers, found Tensor (2, 16) of torch.bool"),
    (robustok.Latents(codes=CODES + 1), "codes must lie in [0, 32)"),
    (robustok.Latents(codes=CODES - 1), "codes must lie in [0, 32)"),
    (
        robustok.Latents(vectors=VECTORS[..., :3]),
        "vectors must be a tensor (n, 16, 4) of floats, found Tensor (2, 16, 3",
    ),
    (robustok.Latents(vectors=VECTORS.long()), "of floats, found Tensor (2, 16, 4) of torch.int64"),
    (robustok.Latents(vectors=VECTORS / 0), "vectors must be finite"),
    (robustok.Latents(vectors=VECTORS, codes=CODES[:1]), "codes and vectors are of different numbers of images"),
]


@pytest.mark.parametrize(("given", "words"), WRONG_LATENTS)
def test_what_is_no_latents_of_the_tokenizer_is_named(tokenizer, given, words):
    assert_refused(lambda: tokenizer.decode_to_images(given), "latents: ", words)
    assert_refused(lambda: tokenizer.perturbed(given, "top_delta", delta=4), "latents: ", words)


def test_codes_of_any_integers_are_decoded_alike(tokenizer, images):
    codes = tokenizer.encode_images(images).codes
    expected = pixels(tokenizer.decode_to_images(robustok.Latents(codes=codes)))
    for dtype in (torch.uint8, torch.int16, torch.uint16, torch.int32):
        found = tokenizer.decode_to_images(robustok.Latents(codes=codes.to(dtype)))
        np.testing.assert_array_equal(pixels(found), expected)


def test_vectors_alone_and_no_latents_are_not_perturbed(tokenizer):
    for given, words in ((VECTORS, "need codes to be perturbed"), (VECTORS[:0], "there are no latents to perturb")):
        assert_refused(lambda given=given: tokenizer.perturbed(robustok.Latents(vectors=given), "top_delta"), words)


@pytest.mark.parametrize("size", [0, -1, 2.5, "3", None, True])
def test_a_batch_size_that_is_none_is_refused(tokenizer, generator, images, size):
    latents = robustok.Latents(codes=CODES)
    assert_refused(lambda: tokenizer.encode_images(images, batch_size=size), "batch_size: ", "a whole number of at")
    assert_refused(lambda: tokenizer.decode_to_images(latents, batch_size=size), "batch_size: ", "a whole number")
    assert_refused(lambda: generator.sample_latents(n=2, batch_size=size), "batch_size: ", "a whole number")


def test_a_seed_is_a_whole_number_of_any_library(tokenizer, generator):
    latents = robustok.Latents(codes=CODES)
    expected = tokenizer.perturbed(latents, "top_delta", delta=4, seed=3).codes
    assert torch.equal(tokenizer.perturbed(latents, "top_delta", delta=4, seed=np.int64(3)).codes, expected)
    expected = generator.sample_latents(n=2, seed=3, steps=1).codes
    assert torch.equal(generator.sample_latents(n=np.int64(2), seed=np.int64(3), steps=1).codes, expected)
    for seed in ("a", None, 1.5, True):
        assert_refused(lambda seed=seed: tokenizer.perturbed(latents, "top_delta", seed=seed), "seed: expected a whole")
        assert_refused(lambda seed=seed: generator.sample_latents(n=2, seed=seed), "seed: expected a whole number")


def test_a_wrong_perturbation_or_option_gives_the_message_of_a_recipe(tokenizer, images):
    clean = tokenizer.encode_images(images)
    assert_refused(lambda: tokenizer.perturbed(clean, "top_dleta"), "did you mean 'top_delta'?")
    assert_refused(
        lambda: tokenizer.perturbed(clean, "top_delta", detla=3), "perturbation.detla", "did you mean 'delta'?"
    )
    assert_refused(lambda: tokenizer.perturbed(clean, "top_delta", delta=300), "exceeds the codebook size")


def test_a_folder_that_holds_something_else_is_refused_with_what_it_holds(trained, tokenizer):
    """The tokenizer of the same run could be found, but is not what the folder holds."""
    for kind in ("generator", "latents", "samples"):
        folder = trained.artifact(kind)
        words = f"{folder}: this folder holds the artifact {kind!r}, not a tokenizer"
        assert_refused(lambda folder=folder: robustok.load_tokenizer(folder), words, "name the folder of a tokenizer")
    folder = trained.artifact("tokenizer")
    words = "this folder holds the artifact 'tokenizer', not a generator (name the folder of a generator"
    assert_refused(lambda: robustok.load_generator(folder), words)
    folder = trained.artifact("generator")
    words = "this folder holds the artifact 'generator', not a tokenizer"
    assert_refused(lambda: robustok.load_generator(trained.folder, tokenizer=folder), words)


def test_what_is_no_path_is_named(trained, tokenizer, generator):
    for given in (None, 3, b"runs", tokenizer):
        words = f"or a published file, by its path, found {type(given).__name__}"
        assert_refused(lambda given=given: robustok.load_tokenizer(given), "where: expected", words)
        assert_refused(lambda given=given: robustok.load_generator(given), "where: expected", words)
    module = tokenizer.tokenizer
    words = "tokenizer: expected what load_tokenizer returns"
    assert_refused(lambda: robustok.load_generator(trained.folder, tokenizer=module), words, "found ConvVQ")


def test_what_is_no_registry_or_guidance_is_named(trained, generator):
    for load in (robustok.load_tokenizer, robustok.load_generator, robustok.from_pretrained):
        assert_refused(lambda load=load: load(trained.folder, registry=3), "registry: expected a Registry, found int 3")
    assert_refused(lambda: generator.sample_images(n=1, guidance=True), "guidance: True is not a guidance scale")


def test_a_folder_without_a_tokenizer_gives_the_message_of_the_commands(tmp_path):
    assert_refused(lambda: robustok.load_tokenizer(tmp_path / "gone"), "there is no such run or artifact", "runs/NAME")
    assert_refused(lambda: robustok.load_tokenizer(tmp_path), "this is not a run folder")
    (tmp_path / "file.pt").touch()
    assert_refused(lambda: robustok.load_tokenizer(tmp_path / "file.pt"), "this is a file", "name the importer")
    assert_refused(lambda: robustok.load_tokenizer(tmp_path, device="cuda:99"), "there is no device 'cuda:99' here")


# --- published files ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(registry, tmp_path_factory) -> tuple[torch.nn.Module, Path]:
    """A tiny tokenizer, and a file that holds it under the published names."""
    quantizer = {"use": "vq", "codebook_size": 32, "width": 4}
    table = {"use": "vit_vq", "image_size": 32, "patch_size": 8, "width": 64, "depth": 1, "num_heads": 1}
    tokenizer = registry.build("tokenizer", {**table, "num_latent_tokens": 16, "quantizer": quantizer}).eval()
    file = tmp_path_factory.mktemp("published") / "main-train.safetensors"
    weights = registry.build("importer", {"use": "robustok"}).export(tokenizer)
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, file)
    return tokenizer, file


def test_a_published_tokenizer_is_read_with_its_importer(published, images):
    module, file = published
    with torch.no_grad():
        expected = module.encode(images).codes
    loaded = robustok.load_tokenizer(file, importer="robustok")
    assert torch.equal(loaded.encode_images(images).codes, expected)
    assert_refused(lambda: robustok.load_tokenizer(file, importer="robustik"), "did you mean 'robustok'?")
    assert_refused(
        lambda: robustok.load_tokenizer(file, importer="rar"), "the importer 'rar' makes a generator, not a tokenizer"
    )
    assert_refused(lambda: robustok.load_tokenizer(file.parent, importer="robustok"), "this is a folder")
    assert_refused(lambda: robustok.load_tokenizer(file.parent / "no", importer="robustok"), "there is no such file")


def test_a_given_tokenizer_decodes_a_published_generator(published, registry, tmp_path):
    module, file = published
    table = {"use": "rar", "width": 64, "depth": 1, "num_heads": 4}
    generator = registry.build("generator", table, module.space, 10).eval()
    weights = registry.build("importer", {"use": "rar"}).export(generator)
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, tmp_path / "rar.safetensors")
    importer = {"use": "rar", "code_width": 4}
    assert_refused(
        lambda: robustok.load_generator(tmp_path / "rar.safetensors", importer=importer),
        "a published generator has no tokenizer of its own",
        "tokenizer=load_tokenizer",
    )
    tokenizer = robustok.load_tokenizer(file, importer="robustok")
    loaded = robustok.load_generator(tmp_path / "rar.safetensors", importer=importer, tokenizer=tokenizer)
    draws = robustok.Draws.for_rows(robustok.derive_seed(4, "sample"), 3)
    with torch.no_grad():
        expected = generator.sample(torch.tensor([2, 2, 2]), draws, guidance=robustok.Guidance()).codes
    assert torch.equal(loaded.sample_latents(2, n=3, seed=4).codes, expected)
    assert loaded.class_names == [str(number) for number in range(10)]


# --- the generator --------------------------------------------------------------------------------


def test_samples_are_those_of_the_command_for_any_number_and_batch(generator, trained, tmp_path):
    asked = ("--class", "bag", "--guidance", "2", "--seed", "3", "--set", "steps=3", "--out", tmp_path / "made.npz")
    command("sample", trained.folder, *asked, "--count", "6")
    with np.load(tmp_path / "made.npz") as file:
        expected = file["arr_0"]
    made = generator.sample_images("bag", n=6, guidance=2.0, seed=3, steps=3)
    np.testing.assert_array_equal(pixels(made), expected)
    codes = generator.sample_latents("bag", n=6, guidance=2.0, seed=3, steps=3).codes
    few = generator.sample_latents(8, n=3, guidance=robustok.Guidance(scale=2.0), seed=3, batch_size=2, steps=3).codes
    assert torch.equal(few, codes[:3]), "class 8 is the bag"
    decoded = generator.tokenizer.decode_to_images(robustok.Latents(codes=codes))
    np.testing.assert_array_equal(pixels(decoded), expected)


def test_without_a_class_all_take_turns(generator):
    assert generator.class_names[8] == "bag"
    assert generator.labels(None, 12).tolist() == [*range(10), 0, 1]
    assert generator.labels(["bag", 3], 3).tolist() == [8, 3, 8]
    assert generator.labels(np.array([8, 3]), 3).tolist() == generator.labels(torch.tensor([8, 3]), 3).tolist()
    assert generator.labels(np.int64(8), 2).tolist() == generator.labels(torch.tensor(8), 2).tolist() == [8, 8]
    assert generator.sample_latents(n=12).codes.shape == (12, 16)


def test_float32_is_float32_on_a_gpu_too(generator, tokenizer, images):
    seen = set()
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda *_: seen.add(torch.backends.cudnn.conv.fp32_precision)
    )
    try:
        tokenizer.reconstruct(images)
        generator.sample_images(0, n=1)
        generator.sample_keeping(tokenizer.encode_images(images), 0, sigma=0.5)
    finally:
        handle.remove()
    assert seen == {"ieee"}


def test_samples_keep_the_share_sigma_of_real_latents(generator, tokenizer, images):
    real = tokenizer.encode_images(images)
    assert torch.equal(generator.sample_keeping(real, "bag", 1.0, steps=2).codes, real.codes)
    half = generator.sample_keeping(real, "bag", 0.5, seed=1, steps=2).codes
    assert torch.equal(half, generator.sample_keeping(real, "bag", 0.5, seed=1, steps=2, batch_size=1).codes)
    assert 0.3 < (half == real.codes).float().mean() < 1.0
    for sigma in (1.5, -0.1, "half", float("nan")):
        assert_refused(
            lambda sigma=sigma: generator.sample_keeping(real, "bag", sigma), "sigma", "a number from 0 to 1"
        )


def test_mistakes_in_sampling_are_reported(generator):
    assert_refused(lambda: generator.sample_images("bga"), "no class is called 'bga'", "did you mean 'bag'?")
    assert_refused(lambda: generator.sample_images(10), "there is no class 10")
    assert_refused(lambda: generator.sample_images(n=0), "at least 1")
    assert_refused(lambda: generator.sample_images(n=2.5), "n: expected a whole number of at least 1, found float 2.5")
    assert_refused(lambda: generator.sample_images(n=10**12), "n: 1000000000000 is out of range")
    assert_refused(lambda: generator.sample_images(3.0), "no class is called '3.0'")
    assert_refused(lambda: generator.sample_images(True), "no class is called 'True'")
    assert_refused(lambda: generator.sample_images(b"bag"), "did you mean 'bag'?")
    assert_refused(lambda: generator.sample_images([]), "class_: no class is named", "None is all classes in turn")
    assert_refused(lambda: generator.sample_images(torch.tensor([8.0])), "no class is called 'tensor(8.)'")
    assert_refused(lambda: generator.sample_images(guidance=torch.ones(2)), "guidance: tensor([1., 1.]) is not")
    assert_refused(lambda: generator.sample_images(stepz=3), "sampling.stepz", "did you mean 'steps'?")
    assert_refused(lambda: generator.sample_images(guidance=-1), "guidance: -1 is not a guidance scale")


def test_a_tokenizer_that_cannot_decode_its_latents_is_refused(trained, published):
    other = robustok.load_tokenizer(published[1], importer="robustok")
    assert_refused(
        lambda: robustok.load_generator(trained.folder, tokenizer=other), "on the latents of another tokenizer"
    )


def test_a_loaded_tokenizer_or_the_folder_of_one_is_taken(trained, tokenizer, generator):
    codes = generator.sample_latents("bag", n=2).codes
    assert robustok.load_generator(trained.folder, tokenizer=tokenizer).tokenizer is tokenizer
    folder = trained.artifact("tokenizer")
    other = robustok.load_generator(trained.artifact("generator"), tokenizer=folder, device="cpu")
    assert torch.equal(other.sample_latents("bag", n=2).codes, codes)


def test_continuous_latents_go_the_same_way(images, tmp_path):
    project = Project(tmp_path, TO_SAMPLES, sample={"sampling": {}}, generator=FLOW, **CONTINUOUS).run()
    generator = robustok.load_generator(project.folder)
    tokenizer = generator.tokenizer
    clean = tokenizer.encode_images(images)
    assert (clean.codes, clean.vectors.shape) == (None, (5, NUM_TOKENS, WIDTH))
    noisy = tokenizer.perturbed(clean, "gaussian", tau=0.5)
    assert (noisy.vectors != clean.vectors).any(dim=-1).any(dim=-1).all()
    vectors = generator.sample_latents("bag", n=3, steps=2).vectors
    assert vectors.shape == (3, NUM_TOKENS, WIDTH)
    torch.testing.assert_close(generator.sample_latents("bag", n=2, batch_size=1, steps=2).vectors, vectors[:2])
    assert from_uint8(torch.from_numpy(pixels(generator.sample_images("bag", n=3, steps=2)))).isfinite().all()
