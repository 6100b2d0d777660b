"""Entry point of the metrics plugin."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_metrics.clip import CLIP
from robustok_metrics.cmmd import CMMD
from robustok_metrics.codebook_usage import CodebookUsage
from robustok_metrics.colour_error import ColourError
from robustok_metrics.density_coverage import DensityCoverage
from robustok_metrics.dino import DINO
from robustok_metrics.dinov2 import DINOv2
from robustok_metrics.efficientnet_lite0 import EfficientNetLite0
from robustok_metrics.fashion_classifier import FashionClassifier
from robustok_metrics.fdr import FDr
from robustok_metrics.frechet import Frechet
from robustok_metrics.ifid import IFID
from robustok_metrics.inception import Inception, InceptionSpatial
from robustok_metrics.inception_score import InceptionScore
from robustok_metrics.kid import KID
from robustok_metrics.lpips import LPIPS
from robustok_metrics.mae import MAE
from robustok_metrics.mind import MIND
from robustok_metrics.noise_pfd import NoisePFD
from robustok_metrics.pfid import PFID
from robustok_metrics.precision_recall import PrecisionRecall
from robustok_metrics.psnr import PSNR
from robustok_metrics.rank_pfd import RankPFD
from robustok_metrics.sample_frechet import SFID, SampleFrechet
from robustok_metrics.ssim import SSIM
from robustok_metrics.timm_features import TimmFeatures


@hookimpl
def robustok_register(register: Register) -> None:
    register("features", "efficientnet_lite0", EfficientNetLite0)
    register("features", "fashion_classifier", FashionClassifier)
    register("features", "inception", Inception)
    register("features", "inception_spatial", InceptionSpatial)
    register("features", "dinov2", DINOv2)
    register("features", "dino", DINO)
    register("features", "clip", CLIP)
    register("features", "mae", MAE)
    register("features", "timm", TimmFeatures)
    register("metric", "frechet", Frechet)
    register("metric", "pfid", PFID)
    register("metric", "noise_pfd", NoisePFD)
    register("metric", "rank_pfd", RankPFD)
    register("metric", "ifid", IFID)
    register("metric", "psnr", PSNR)
    register("metric", "ssim", SSIM)
    register("metric", "lpips", LPIPS)
    register("metric", "colour_error", ColourError)
    register("metric", "codebook_usage", CodebookUsage)
    register("sample_metric", "frechet", SampleFrechet)
    register("sample_metric", "sfid", SFID)
    register("sample_metric", "fdr", FDr)
    register("sample_metric", "inception_score", InceptionScore)
    register("sample_metric", "precision_recall", PrecisionRecall)
    register("sample_metric", "kid", KID)
    register("sample_metric", "mind", MIND)
    register("sample_metric", "cmmd", CMMD)
    register("sample_metric", "density_coverage", DensityCoverage)
