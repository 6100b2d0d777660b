"""
Tutorial: how a tokenizer takes wrong tokens
============================================

A generator makes mistakes: some of the tokens that it samples are not those that any image has. This tutorial trains
two small tokenizers on Fashion-MNIST, one as usual and one with latent perturbation, gives both of them wrong tokens,
and looks at what they draw. It takes less than a minute of one core, and everything on this page was made by it.

At this size the pictures are blurred: 960 training images instead of 12,000, and four epochs. The
:doc:`real run </first_run>` takes minutes.
"""

import contextlib
import io
import tempfile

import matplotlib.pyplot as plt
import numpy as np

import robustok

folder = tempfile.TemporaryDirectory()  # removed when the program ends
out = folder.name

# %%
# Train two tokenizers
# --------------------
# A recipe says everything about a run. Here it is the bundled one, ``tokenizer``, made smaller: keys are set by their
# path, as ``--set`` does on the command line. The discriminator is left out, because it would have no time to learn.

small = {
    "run.precision": "no",
    "data.train_limit": 960,
    "data.validation_limit": 100,
    "stage.train_tokenizer.epochs": 4,
    "stage.train_tokenizer.batch_size": 16,
    "stage.train_tokenizer.losses": {"l2": {"use": "reconstruction", "norm": "l2"}},
    "stage.evaluate_tokenizer.metrics": {"psnr": {"use": "psnr"}},
}
arms = {
    "usual": {"perturbation.use": "none"},
    "perturbed": {
        "perturbation.beta": 0.5,  # the share of images that are perturbed
        "perturbation.delta": 200,  # codewords that a token may become, of 512
        "perturbation.anneal.ratio": 1.0,  # until the end
    },
}
for name, change in arms.items():
    changes = {**small, **change, "run.name": name}
    recipe = robustok.Recipe.load("tokenizer", overrides=changes)
    with contextlib.redirect_stdout(io.StringIO()):  # the progress bars
        results = robustok.run(recipe, out=out)
    print(f"{name}: PSNR {results['evaluate_tokenizer/psnr'].value:.1f} dB")

# %%
# Both arms have the same seed, so they start from the same weights and read the same batches. One seed tells little
# about which is better: :doc:`/compare_ideas` says how to find out.
#
# Encode and decode
# -----------------
# ``load_tokenizer`` takes the folder of a run. A tokenizer turns an image into 64 tokens, each one of 512 codes.

tokenizers = {name: robustok.load_tokenizer(f"{out}/{name}") for name in arms}
table = {"use": "fashion_mnist", "validation_limit": 100}
held_out = robustok.load_registry().build("dataset", table).validation
images = held_out.load(range(100)).images  # (100, 3, 32, 32) in [-1, 1]

latents = {name: tokenizers[name].encode_images(images) for name in arms}
print(latents["perturbed"].codes.shape)
print(latents["perturbed"].codes[0].view(8, 8))

# %%
# Replace tokens by wrong ones
# ----------------------------
# ``top_delta`` replaces a share α of an image's tokens by one of the δ nearest codewords. These are the first ten
# images, then what each tokenizer makes of them when no token, half of them, and all of them are replaced.


def drawn(name, alpha):
    """Decoded pictures (100, 32, 32, 3) in 0..255, with a share of the tokens replaced."""
    tokenizer = tokenizers[name]
    wrong = tokenizer.perturbed(latents[name], "top_delta", alpha=alpha, delta=200)
    return np.stack([np.asarray(picture) for picture in tokenizer.decode_to_images(wrong)])


real = ((images + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
rows = {"images": real}
for alpha in (0.0, 0.5, 1.0):
    rows |= {f"{name}, α = {alpha}": drawn(name, alpha) for name in arms}

figure, axes = plt.subplots(len(rows), 1, figsize=(7, 7), layout="constrained")
for axis, (title, pictures) in zip(axes, rows.items(), strict=True):
    axis.imshow(np.concatenate(list(pictures[:10]), axis=1).astype(np.uint8))
    axis.set_title(title, fontsize=9, loc="left")
    axis.axis("off")

# %%
# Measure it
# ----------
# The PSNR of the 100 held-out images against the share of wrong tokens. Perturbation costs some quality where no token
# is wrong, and makes the curve flatter.

alphas = (0.0, 0.25, 0.5, 0.75, 1.0)
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for name in arms:
    errors = [((drawn(name, alpha) - real) ** 2).mean(axis=(1, 2, 3)) for alpha in alphas]
    psnr = [float(np.mean(10 * np.log10(255**2 / error))) for error in errors]
    axis.plot(alphas, psnr, marker="o", label=name)
    print(f"{name}: from {psnr[0]:.1f} dB without wrong tokens to {psnr[-1]:.1f} dB")
axis.set(xlabel="share of replaced tokens, α", ylabel="PSNR, dB")
axis.legend()

# %%
# pFID is this idea with a measure of distributions in place of PSNR: the Fréchet distance between real images and
# those from wrong tokens, averaged over a grid of α and δ. See :doc:`/pfid`.
#
# Next: ``robustok run main_train`` trains the real thing and a generator on its codes, and ``robustok run post_train``
# adapts its decoder to that generator.
