"""Registers the components with robustok."""

from robustok_core import hookimpl
from robustok_example.average_pool import AveragePool
from robustok_example.by_place import ByPlace
from robustok_example.train_probe import TrainProbe
from robustok_example.drop import Drop
from robustok_example.edges import Edges
from robustok_example.last_part import LastPart
from robustok_example.mae import MAE
from robustok_example.mean_distance import MeanDistance
from robustok_example.nearest import Nearest
from robustok_example.patches import Patches
from robustok_example.patches_file import PatchesFile
from robustok_example.stripes import Stripes

ROBUSTOK_HOOKS = 1  # optional: a robustok with other hooks then refuses this plugin with a clear message


@hookimpl
def robustok_register(register):
    register("dataset", "stripes", Stripes)
    register("tokenizer", "patches", Patches)
    register("quantizer", "nearest", Nearest)
    register("perturbation", "drop", Drop)
    register("loss", "edges", Edges)
    register("features", "average_pool", AveragePool)
    register("metric", "mae", MAE)
    register("sample_metric", "mean_distance", MeanDistance)
    register("generator", "by_place", ByPlace)
    register("post_trainer", "last_part", LastPart)
    register("stage", "train_probe", TrainProbe)
    register("importer", "patches_file", PatchesFile)
