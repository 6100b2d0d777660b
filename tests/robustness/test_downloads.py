"""What a recipe needs from the network or from other files is found before anything is trained."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attrs import field, frozen
from huggingface_hub import HfApi
from huggingface_hub.errors import RevisionNotFoundError

from file_server import FileServer
from project import Project, registry_with
from robustok_core import Download, Loss, Registry, RobustokError, component, local_file
from robustok_core.runs.downloads import _is_unreachable as is_unreachable
from robustok_core.runs.downloads import needs_of
from robustok_core.runs.named_files import paths_in
from robustok_toolkit import downloads
from robustok_toolkit.downloads import hub_dataset, hub_file, torch_file

CONTENT = b"weights" * 1000
FRECHET = {"use": "frechet", "features": {"use": "inception"}}


@pytest.fixture
def server() -> Iterator[FileServer]:
    """Serves two files."""
    server = FileServer(**{"one.pth": CONTENT, "two.pth": CONTENT})
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing was downloaded before."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path


@frozen(kw_only=True)
class GoodConfig:
    """A loss that reads a downloaded file, and may hold another."""

    weight: float = 1.0
    url: str
    within: Any = component("loss", doc="another", optional=True)
    file: str | None = field(default=None)


class Good(Loss):
    """Uses its file when it is built, as frozen networks do."""

    Config = GoodConfig

    def __init__(self, config: GoodConfig) -> None:
        super().__init__()
        self.config = config
        for download in self.downloads(config):
            if not torch.empty(0).is_meta:
                assert download.present(), "it should have been fetched before the training"

    @classmethod
    def downloads(cls, config: GoodConfig) -> list[Download]:
        if config.file is not None:
            local_file(config.file, hint="name another")
        begins = hashlib.sha256(CONTENT).hexdigest()[:8]
        name = config.url.rsplit("/", 1)[-1]
        return [torch_file(config.url, what=f"the file {name}", instead='set file = "FILE"', hash_begins=begins)]

    def forward(self, step):
        return (step.images - step.batch.images).square().mean()


def training(out: Path, **losses: Any) -> Project:
    table = {name: {"use": "good", **options} for name, options in losses.items()}
    return Project(out, ["train_tokenizer"], train_tokenizer={"losses": table})


def registry() -> Registry:
    return registry_with(loss={"good": Good})


def test_check_announces_each_download_once_with_its_size(server, tmp_path) -> None:
    project, lines = training(tmp_path, a={"url": f"{server.url}/one.pth"}, b={"url": f"{server.url}/one.pth"}), []
    project.check(registry(), announce=lines.append)
    assert lines == [f"will download: the file one.pth (0.0 MB) to {tmp_path}/torch/hub/checkpoints/one.pth"]
    assert server.asked == ["HEAD /one.pth"]


def test_a_file_that_cannot_be_had_is_one_message_at_its_key_and_nothing_is_left(server, tmp_path) -> None:
    inner = {"use": "good", "url": f"{server.url}/gone.pth"}
    project = training(tmp_path / "runs", a={"url": f"{server.url}/one.pth", "within": inner})
    for act in (project.run, project.check):
        with pytest.raises(RobustokError) as caught:
            act(registry=registry())
        assert str(caught.value).startswith("recipe: stage.train_tokenizer.losses.a.within: cannot get the file gone")
        assert "it answers 404" in caught.value.what
        assert 'set file = "FILE"' in str(caught.value.hint)
    assert not (tmp_path / "runs").exists()


def test_a_host_that_does_not_answer_is_asked_once_and_each_file_is_named(server, tmp_path) -> None:
    server.stop()
    project = training(tmp_path, a={"url": f"{server.url}/one.pth"}, b={"url": f"{server.url}/two.pth"})
    with pytest.raises(RobustokError) as caught:
        project.check(registry())
    assert [problem.what.split(" from ")[0] for problem in caught.value.problems] == [
        "stage.train_tokenizer.losses.a: cannot get the file one.pth",
        "stage.train_tokenizer.losses.b: cannot get the file two.pth",
    ]


def test_a_host_that_refuses_one_file_is_asked_for_the_others(server, tmp_path, monkeypatch) -> None:
    def probe(url: str) -> int | None:
        if url.endswith("one.pth"):
            raise PermissionError("it answers 403 for one.pth")
        return size_at(url)

    size_at = downloads._size_at
    monkeypatch.setattr(downloads, "_size_at", probe)
    project = training(tmp_path, a={"url": f"{server.url}/one.pth"}, b={"url": f"{server.url}/two.pth"})
    lines: list[str] = []
    with pytest.raises(RobustokError, match=r"losses.a: cannot get the file one.pth .* 403"):
        project.check(registry(), announce=lines.append)
    assert [line.split(" (")[0] for line in lines] == ["will download: the file two.pth"]


NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "ask",
    [
        lambda: urllib.request.urlopen(NOBODY, timeout=1),
        lambda: HfApi(endpoint=NOBODY).dataset_info("owner/cats", timeout=1),
    ],
)
def test_every_client_library_says_that_a_host_does_not_answer(ask: Callable[[], Any], monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(Exception, match=".") as caught:
        ask()
    assert is_unreachable(caught.value)
    assert not is_unreachable(TypeError("a bug"))


def test_a_revision_that_the_hub_does_not_have_is_named(monkeypatch, tmp_path) -> None:
    def answer(*_: Any, **__: Any) -> None:
        response: Any = SimpleNamespace(status_code=404, headers={}, request=None, text="")
        raise RevisionNotFoundError("404 Client Error. Revision Not Found", response=response)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", answer)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(FileNotFoundError, match="the data set owner/cats has no revision 'v9'"):
        hub_dataset("owner/cats", None, "v9").probe()


def test_a_run_gets_its_files_before_it_trains_and_asks_no_more_when_it_is_done(server, tmp_path) -> None:
    project = training(tmp_path / "runs", a={"url": f"{server.url}/one.pth"})
    project.run(registry=registry())
    assert "downloading 1 of 1: the file one.pth" in project.printed
    server.stop()
    asked = list(server.asked)
    (tmp_path / "torch/hub/checkpoints/one.pth").unlink()
    project.run(registry=registry())  # done before, unchanged
    assert server.asked == asked
    project.table["run"]["seed"] = 4
    with pytest.raises(RobustokError, match="cannot get the file one.pth"):
        project.run(registry=registry())


def test_a_file_that_is_there_is_not_asked_for(server, tmp_path) -> None:
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    (tmp_path / "torch/hub/checkpoints/one.pth").write_bytes(CONTENT)
    training(tmp_path, a={"url": f"{server.url}/one.pth"}).check(registry())
    assert server.asked == []


def test_a_local_file_that_does_not_exist_is_found_by_check(server, tmp_path) -> None:
    project = training(tmp_path, a={"url": f"{server.url}/one.pth", "file": "nowhere.pth"})
    with pytest.raises(RobustokError, match=r"losses.a: there is no file 'nowhere.pth' \(name another\)"):
        project.check(registry())


def test_a_component_that_returns_no_downloads_is_named(tmp_path) -> None:
    class Odd(Good):
        @classmethod
        def downloads(cls, config):
            return ["one.pth"]

    project = Project(tmp_path, train_tokenizer={"losses": {"a": {"use": "odd", "url": "x"}}})
    with pytest.raises(RobustokError, match="`downloads` of loss 'odd' must return Downloads, found 'one.pth'"):
        project.check(registry_with(loss={"odd": Odd}))


def test_a_file_of_the_hub_is_found_fetched_and_then_there(server, tmp_path, monkeypatch) -> None:
    for module in ("huggingface_hub.constants", "huggingface_hub.file_download.constants"):
        monkeypatch.setattr(f"{module}.ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{module}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", False)
    server.files["/owner/net/resolve/main/second.bin"] = CONTENT
    wanted = hub_file("owner/net", ["first.bin", "second.bin"], what="the net", instead="do without")
    assert not wanted.present()
    assert wanted.probe() == len(CONTENT)
    wanted.fetch()
    assert wanted.present()
    with pytest.raises(FileNotFoundError, match=r"owner/net has no file third.bin"):
        hub_file("owner/net", ["third.bin"], what="the net", instead="do without").probe()


RAE = {"use": "rae", "image_size": 32}
DIFFUSERS = {"use": "diffusers_vae", "source": "owner/vae", "image_size": 32}
#: The six networks of arXiv 2604.28190.
FDR = [
    "the weights of Inception",
    "the weights of timm/convnextv2_base.fcmae_ft_in22k_in1k",
    "the weights of timm/vit_large_patch14_dinov2.lvd142m",
    "the weights of timm/vit_large_patch16_224.mae",
    "the weights of timm/vit_so400m_patch16_siglip_256.v2_webli",
    "the weights of timm/vit_large_patch14_clip_224.openai",
]
NEEDED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("features", {"use": "inception"}, ["the weights of Inception"]),
    ("sample_metric", {"use": "cmmd"}, ["the weights of timm/vit_large_patch14_clip_336.openai"]),
    ("sample_metric", {"use": "fdr"}, FDR),
    ("sample_metric", {"use": "sfid"}, ["the weights of Inception"]),
    ("features", {"use": "dino"}, ["the weights of timm/vit_small_patch16_224.dino"]),
    ("features", {"use": "dinov2"}, ["the weights of timm/vit_base_patch14_dinov2.lvd142m"]),
    ("features", {"use": "clip"}, ["the weights of timm/vit_large_patch14_clip_336.openai"]),
    ("features", {"use": "mae"}, ["the weights of timm/vit_large_patch16_224.mae"]),
    ("features", {"use": "timm", "network": "resnet18.a1_in1k"}, ["the weights of timm/resnet18.a1_in1k"]),
    ("features", {"use": "efficientnet_lite0"}, []),
    ("features", {"use": "dino", "weights": "random"}, []),
    ("metric", {"use": "lpips"}, ["the weights of LPIPS's vgg"]),
    ("metric", {"use": "lpips", "network": "alex"}, ["the weights of LPIPS's alex"]),
    ("metric", FRECHET, ["the weights of Inception"]),
    ("sample_metric", FRECHET, ["the weights of Inception"]),
    ("loss", {"use": "perceptual"}, ["the weights of LPIPS's vgg"]),
    ("loss", {"use": "perceptual", "network": "features"}, []),
    ("loss", {"use": "semantic"}, ["the weights of timm/vit_base_patch14_dinov2.lvd142m"]),
    ("loss", {"use": "adversarial", "heads": {}}, ["the weights of timm/vit_small_patch16_224.dino"]),
    ("tokenizer", RAE, ["the weights of timm/vit_base_patch14_reg4_dinov2.lvd142m"]),
    ("tokenizer", {"use": "vit_vq", "init": "dinov2"}, ["the weights of timm/vit_small_patch14_dinov2.lvd142m"]),
    ("tokenizer", {"use": "mae_tok", "dino": {}}, ["the weights of timm/vit_base_patch14_dinov2.lvd142m"]),
    ("tokenizer", DIFFUSERS, ["the configuration of owner/vae", "the weights of owner/vae"]),
    ("dataset", {"use": "huggingface", "path": "owner/cats", "image_size": 32}, ["the data set owner/cats"]),
]


@pytest.mark.parametrize(("kind", "table", "wanted"), NEEDED)
def test_our_components_say_what_they_need(registry: Registry, kind: str, table: dict[str, Any], wanted) -> None:
    width = {"width": 384, "num_heads": 6} if table.get("init") == "dinov2" else {}
    needs = needs_of([((), registry.spec(kind, {**table, **width}))], lambda problem: RobustokError(problem.what))
    assert [need.download.what for need in needs.downloads] == wanted
    assert needs.problems == []


NAMING: list[tuple[str, dict[str, Any]]] = [
    ("features", {"use": "inception", "weights": "nowhere"}),
    ("features", {"use": "dino", "weights": "nowhere"}),
    ("features", {"use": "dinov2", "weights": "nowhere"}),
    ("features", {"use": "clip", "weights": "nowhere"}),
    ("features", {"use": "mae", "weights": "nowhere"}),
    ("features", {"use": "timm", "network": "resnet18.a1_in1k", "weights": "nowhere"}),
    ("metric", {"use": "lpips", "weights": "nowhere"}),
    ("loss", {"use": "perceptual", "weights": "nowhere"}),
    ("tokenizer", {**RAE, "weights": "nowhere"}),
    ("tokenizer", {**RAE, "weights": "random", "statistics": "nowhere"}),
    ("tokenizer", {"use": "vit_vq", "init": "nowhere"}),
    ("tokenizer", {"use": "mae_tok", "init": "nowhere"}),
    ("tokenizer", {**DIFFUSERS, "source": "nowhere"}),
]


@pytest.mark.parametrize(("kind", "table"), NAMING)
def test_a_local_file_of_our_components_must_exist(registry: Registry, kind: str, table: dict[str, Any]) -> None:
    needs = needs_of([((), registry.spec(kind, table))], lambda problem: RobustokError(problem.what))
    assert [str(problem) for problem in needs.problems] in (
        ["there is no file 'nowhere'"],
        ["no such folder: 'nowhere'"],
    )


@pytest.mark.parametrize(("kind", "table"), [pair for pair in NAMING if "source" not in pair[1]])
def test_the_files_that_our_components_name_are_known_without_reading_them(registry: Registry, kind, table) -> None:
    assert paths_in([registry.spec(kind, table)]) == [Path("nowhere")]


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def inception_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets Inception's weights come from another address."""

    def move(url: str) -> None:
        monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.URL_INCEPTION_V3", url)

    return move


@pytest.fixture
def measured(recipe_file) -> Path:
    metrics = {"fid": FRECHET, "lpips": {"use": "lpips"}}
    return recipe_file(stages=["train_tokenizer", {"use": "evaluate_tokenizer", "metrics": metrics}])


def test_fetch_gets_what_it_can_names_what_failed_and_leaves_alone_what_is_there(
    command, measured, server, inception_from, monkeypatch, tmp_path
) -> None:
    inception_from(f"{server.url}/one.pth")
    monkeypatch.setattr("robustok_metrics.inception.SHA256_BEGINS", hashlib.sha256(CONTENT).hexdigest()[:8])
    vgg = tmp_path / "torch/hub/checkpoints/vgg16-397923af.pth"
    for asked in (["HEAD /one.pth", "GET /one.pth"], []):  # the second time it is there
        server.asked.clear()
        code, output, errors = command("fetch", measured)
        assert (code, server.asked) == (1, asked)
        assert errors.count("error: ") == 1
        assert "stage.evaluate_tokenizer.metrics.lpips: cannot get the weights of LPIPS's vgg from " in errors
        assert str(vgg) in errors
        assert "Traceback" not in output + errors
    code, _, errors = command("fetch", measured, "missing.toml")  # its mistake does not hide what failed before
    assert code == 1
    assert all(words in errors for words in ("cannot get the weights of LPIPS's vgg", "'missing.toml'"))
    vgg.write_bytes(CONTENT)
    assert command("fetch", "missing.toml", measured)[:2] == (2, f"{measured}: everything is here\n")
    code, output, _ = command("fetch", measured)
    assert (code, output) == (0, f"{measured}: everything is here\n")


def test_fetch_refuses_a_file_with_other_content(command, measured, server, inception_from, tmp_path) -> None:
    inception_from(f"{server.url}/one.pth")
    code, _, errors = command("fetch", measured)
    assert code == 1
    assert "cannot get the weights of Inception from 127.0.0.1: invalid hash value" in errors
    assert not (tmp_path / "torch/hub/checkpoints/one.pth").exists()
