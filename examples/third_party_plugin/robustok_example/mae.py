"""A metric of a tokenizer, averaged over images."""

from attrs import frozen
from robustok_toolkit.mean_of_images import MeanOfImages


@frozen(kw_only=True)
class MAEConfig:
    """No options."""


class MAE(MeanOfImages):
    """Mean absolute error of pixel values, in 8-bit levels."""

    Config = MAEConfig
    name = "mae"
    higher_is_better = False

    def per_image(self, step):
        return 127.5 * (step.images - step.batch.images).abs().mean(dim=(1, 2, 3))  # [-1, 1] holds 255 levels
