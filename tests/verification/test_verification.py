"""A run is recomputed from its stored adversarials, and whatever is tampered with is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from robustlab import evaluate, load_model, verify
from robustlab.base.errors import UserError
from robustlab.base.files import config_hash
from robustlab.cli import main
from robustlab.evaluation.inputs import as_data
from robustlab.evaluation.listener import Listener
from robustlab.runs.aggregates import Line
from robustlab.threat.model import ThreatModel
from robustlab.verification.units import judge_again, tied

MODEL = """
import torch
from torch import nn


def net():
    torch.manual_seed(10)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


def other():
    linear = net()[1]
    hidden = nn.Linear(48, 48)
    hidden.weight.data = torch.eye(48) + 0.03 * torch.randn(48, 48)
    return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), linear)


class Breaks(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x):
        if x.requires_grad:
            raise RuntimeError("no gradients here")
        return self.inner(x)
"""
ATTACK = ["attack", "model.py:net", "--data", "npz:data.npz", "--eps", "6/255", "--chunk-size", "20", "--quiet"]
ATTACK += ["--audit", "0"]


def make_place(folder: Path) -> None:
    """model.py and data.npz: 48 grey images of 8 x 6, labelled by the answers of `net`, every eighth wrongly."""
    (folder / "model.py").write_text(MODEL)
    images = np.random.default_rng(0).integers(0, 256, (48, 8, 6), dtype=np.uint8)
    x = torch.from_numpy(images).float().div(255)[:, None]
    labels = load_model(f"{folder}/model.py:net")(x).argmax(1).numpy()
    labels[::8] = (labels[::8] + 1) % 3
    np.savez(folder / "data.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a finished run of two models, its adversarials stored."""
    folder = tmp_path_factory.mktemp("origin")
    make_place(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        attacks = ["--attack", "fgsm", "--attack", "pgd", "--attack", "pgd:loss=margin,restarts=2"]
        assert main([*ATTACK, "model.py:other", *attacks, "--output", "run", "--save-adversarial"]) == 0
    return folder


@pytest.fixture
def place(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be changed."""
    shutil.copytree(origin, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "run" / "samples.jsonl").read_text().splitlines()]


def test_a_fresh_process_recomputes_all_of_it(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "robustlab", "verify", "run", "--run-code"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = {line.rsplit(maxsplit=3)[0]: line.split()[-3:] for line in done.stdout.splitlines() if line[-1:].isdigit()}
    counts: dict[tuple[str, str, float], int] = {}
    for row in rows(place):
        key = row["model"], row["attack"], row["eps"]
        counts[key] = counts.get(key, 0) + 1
    for (model, attack, eps), n in counts.items():
        what = f"{model}: clean pass" if attack == "clean" else f"{model}: {attack} at {_budget(eps)}"
        assert table[what] == [str(n), str(n), "0"]
    assert table["data: classes, pixels, labels"] == ["49", "49", "0"]
    assert len(counts) == 2 * (1 + 3 + 4) and "what the attacks found" not in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("All ") and "that could be checked agree; taken as stored: ranks, " in last


def _budget(eps: float) -> str:
    k = eps * 255
    return f"{round(k)}/255" if abs(k - round(k)) < 1e-6 else f"{eps:.3g}"


def test_a_zoo_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    suite = ["--attack", "fgsm", "--attack", "pgd:steps=2", "--no-curve", "--limit", "12", "--keep", "0"]
    assert main(["attack", "road-signs/cnn", *suite, "--output", run, "--save-adversarial", "--quiet"]) == 0
    assert main(["verify", run, "--run-code", "--batch-size", "2", "--device", "cpu"]) == 0
    assert "road-signs/cnn: clean pass" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        ["--labels", "predicted"],
        ["--targeted", "--target", "random"],
        ["--targeted", "--target", "least-likely", "--labels", "predicted"],
        ["--targeted", "--target", "1", "--eps", "16/255"],
        ["--norm", "l2", "--eps", "0.3", "--full", "--ids", "30", "7", "9", "12", "41", "1"],
        ["--norm", "l1", "--eps", "2", "--suite", "pgd", "--mean", "0.5", "--std", "0.25"],
        ["--suite", "linf-standard", "--eps", "1/255"],
    ],
    ids=" ".join,
)
def test_every_threat(flags: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = ["--attack", "pgd:steps=3,restarts=2"] if "--suite" not in flags else []
    args = [each for each in ATTACK if "--eps" not in flags or each not in ("--eps", "6/255")]
    assert main([*args, *suite, *flags, "--output", "one", "--save-adversarial", "--curve", "0.05", "--keep", "0"]) == 0
    assert main(["verify", "one", "--run-code"]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    name = "short-tries" if "linf-standard" in flags else "pgd"
    attacked = [line.split() for line in out.splitlines() if line.startswith(f"model.py:net: {name} at ")]
    assert len(attacked) == 2 and all(int(words[-3]) > 0 for words in attacked)


def stored(place: Path, attack: str, broken: bool) -> tuple[Path, dict[str, torch.Tensor], dict[str, Any], int]:
    """The file of net's first line of this attack at 6/255, what it holds, the line, and where in the file it is."""
    line = next(r for r in _of(place, attack) if (r["success"] and r["verified"] is True) == broken)
    for path in (place / "run" / "adversarial").glob(f"model.py_net*--{attack}--{6 / 255!r}--*"):
        tensors = load_file(path)
        if line["id"] in tensors["ids"].tolist():
            return path, tensors, line, tensors["ids"].tolist().index(line["id"])
    raise AssertionError("no such file")


def _of(place: Path, attack: str, eps: float = 6 / 255) -> list[dict[str, Any]]:
    return [r for r in rows(place) if r["model"] == "model.py:net" and r["attack"] == attack and r["eps"] == eps]


def rewrite(place: Path, line: dict[str, Any], **fields: Any) -> None:
    key = [line[name] for name in ("model", "attack", "eps", "id")]
    changed = [
        {**row, **fields} if [row[name] for name in ("model", "attack", "eps", "id")] == key else row
        for row in rows(place)
    ]
    (place / "run" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed if row))


def an_adversarial_made_harmless(place: Path) -> str:
    path, tensors, line, at = stored(place, "fgsm", broken=True)
    images = np.load("data.npz")["test_images"][line["id"]]
    tensors["images"][at] = torch.from_numpy(images).float().div(255)[None]
    save_file(tensors, path)
    return f"id {line['id']}: adv is {line['adv']}, recomputed {line['label']}"


def an_adversarial_out_of_the_budget(place: Path) -> str:
    path, tensors, line, at = stored(place, "fgsm", broken=True)
    image = torch.from_numpy(np.load("data.npz")["test_images"][line["id"]]).float().div(255)[None]
    tensors["images"][at] = (image + 3 * (tensors["images"][at] - image)).clamp(0, 1)
    save_file(tensors, path)
    return "verified is True, recomputed False"


def an_adversarial_with_nan(place: Path) -> str:
    path, tensors, line, at = stored(place, "fgsm", broken=True)
    tensors["images"][at, 0, 0, 0] = torch.nan
    save_file(tensors, path)
    return "verified is True, recomputed False"


def an_adversarial_of_the_curve(place: Path) -> str:
    path = next((place / "run" / "adversarial").glob(f"model.py_net*--pgd-ce--{3 / 255!r}--*"))
    tensors = load_file(path)
    save_file({"ids": tensors["ids"], "images": 1 - tensors["images"]}, path)
    return "model.py:net: pgd-ce at 3/255:\n  id "


def a_file_that_is_gone(place: Path) -> str:
    path, *_ = stored(place, "fgsm", broken=True)
    path.unlink()
    return f"{path.name} is missing"


def a_file_that_is_torn(place: Path) -> str:
    path, *_ = stored(place, "fgsm", broken=True)
    path.write_bytes(path.read_bytes()[:-100])
    return f"{path.name} is damaged"


def a_file_of_another_shape(place: Path) -> str:
    path, tensors, *_ = stored(place, "fgsm", broken=True)
    save_file({"ids": tensors["ids"], "images": tensors["images"][:, :, 1:].contiguous()}, path)
    return f"{path.name} holds torch.float32"


def a_success_denied(place: Path) -> str:
    _, _, line, _ = stored(place, "fgsm", broken=True)
    rewrite(place, line, success=False, verified=None, success_8bit=None)
    return f"id {line['id']}: success is False, recomputed True"


def a_success_invented(place: Path) -> str:
    _, _, line, _ = stored(place, "fgsm", broken=False)
    rewrite(place, line, success=True, verified=True, success_8bit=True)
    return f"id {line['id']}: success_8bit is True, recomputed False; verified is True, recomputed False"


def a_confidence(place: Path) -> str:
    line = _of(place, "pgd-ce")[0]
    rewrite(place, line, confidence=line["confidence"] + 0.001)
    return f"id {line['id']}: confidence is "


def a_distance(place: Path) -> str:
    line = _of(place, "fgsm")[0]
    rewrite(place, line, l2=line["l2"] * 1.0001)
    return f"id {line['id']}: l2 is "


def a_clean_prediction(place: Path) -> str:
    line = next(r for r in _of(place, "clean", 0.0) if r["clean"] != r["label"])
    rewrite(place, line, clean=line["label"], adv=line["label"])
    return f"id {line['id']}: adv is {line['label']}, recomputed {line['clean']}"


def a_label(place: Path) -> str:
    text = (place / "run" / "data.jsonl").read_text().splitlines()
    first = json.loads(text[0])
    text[0] = json.dumps({**first, "label": (first["label"] + 1) % 3})
    (place / "run" / "data.jsonl").write_text("\n".join(text) + "\n")
    return f"id {first['id']}: label is {(first['label'] + 1) % 3}, recomputed {first['label']}"


def a_hard_sample_left_out(place: Path) -> str:
    line = next(r for r in _of(place, "clean", 0.0) if r["clean"] != r["label"])
    kept = [r for r in rows(place) if r != line]
    (place / "run" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    return f"model.py:net, clean, id {line['id']}: the line is missing"


def a_line_left_out(place: Path) -> str:
    line = _of(place, "pgd-ce")[0]
    kept = [r for r in rows(place) if r != line]
    (place / "run" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    return f"id {line['id']}: its adversarial is stored, and its line is missing"


def a_line_twice(place: Path) -> str:
    line = _of(place, "fgsm")[0]
    text = (place / "run" / "samples.jsonl").read_text()
    (place / "run" / "samples.jsonl").write_text(text + json.dumps(line) + "\n")
    return f"id {line['id']}: it is there twice"


def a_line_of_nothing(place: Path) -> str:
    line = {**_of(place, "fgsm")[0], "attack": "square"}
    text = (place / "run" / "samples.jsonl").read_text()
    (place / "run" / "samples.jsonl").write_text(text + json.dumps(line) + "\n")
    return "the run has no such unit"


def a_class_name(place: Path) -> str:
    edit_info(place, lambda info: info["data"].update(classes=["0", "2", "1"]))
    return "classes: names[1] is 2, recomputed 1"


def edit_info(place: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    info = json.loads((place / "run" / "run.json").read_text())
    edit(info)
    (place / "run" / "run.json").write_text(json.dumps(info))


def an_aggregate(place: Path) -> str:
    def edit(info: dict[str, Any]) -> None:
        info["aggregates"]["models"][0]["robust_accuracy"]["value"] += 0.02

    edit_info(place, edit)
    return "aggregates.models[0].robust_accuracy.value is "


def a_point_of_the_curve(place: Path) -> str:
    def edit(info: dict[str, Any]) -> None:
        info["aggregates"]["models"][1]["curve"][-1]["share"]["high"] = 1.0

    edit_info(place, edit)
    return "aggregates.models[1].curve[5].share.high is 1, recomputed "


def a_count(place: Path) -> str:
    edit_info(place, lambda info: info["passes"][1].update(unverified=3))
    return "passes[1].unverified is 3, recomputed 0"


def the_seed(place: Path) -> str:
    edit_info(place, lambda info: info["config"].update(seed=4))
    return "config_hash is "


def a_picture(place: Path) -> str:
    image = json.loads((place / "run" / "run.json").read_text())["images"][0]
    shutil.copy(place / "run" / image["clean"], place / "run" / image["adv"])
    return f"{image['adv']}: it shows something else"


def a_typed_eps(place: Path) -> str:
    edit_info(place, lambda info: info.update(eps_typed="16/255"))
    return "eps_typed is 16/255, recomputed 0.0235294"


def a_typed_eps_that_is_none(place: Path) -> str:
    edit_info(place, lambda info: info.update(eps_typed="a lot"))
    return "eps_typed is a lot, recomputed 0.0235294"


def another_scale_of_perturbations(place: Path) -> str:
    edit_info(place, lambda info: info.update(perturbation_scale=0.1))
    return "perturbation_scale is 0.1, recomputed 0.02352941"


def another_name_of_the_data(place: Path) -> str:
    edit_info(place, lambda info: info["data"].update(name="imagenet", split="train"))
    return "data.name is imagenet, recomputed npz:data.npz\n  data.split is train, recomputed test"


def another_name_of_the_data_in_both_places(place: Path) -> str:
    def edit(info: dict[str, Any]) -> None:
        info["data"]["name"] = info["config"]["data"]["name"] = "imagenet"
        info["config_hash"] = config_hash(info["config"])

    edit_info(place, edit)
    return "config.data.name is imagenet, recomputed npz:data.npz\n  data.name is imagenet"


def another_count_and_shape(place: Path) -> str:
    edit_info(place, lambda info: info["data"].update(n=5000, shape=[1, 80, 60]))
    return "data.n is 5000, recomputed 48\n  data.shape[1] is 80, recomputed 8"


def another_suite_and_seed(place: Path) -> str:
    edit_info(place, lambda info: info.update(suite="autoattack", seed=7))
    return "seed is 7, recomputed 0\n  suite is autoattack, recomputed attacks"


def another_hash_of_a_model(place: Path) -> str:
    edit_info(place, lambda info: info["models"][1].update(hash="0" * 16, parameters=10**9))
    return "models[1].hash is 0000000000000000, recomputed "


def an_example_that_does_not_please(place: Path) -> str:
    shown = json.loads((place / "run" / "run.json").read_text())["images"]
    fallen = next(image for image in shown if image["success"])
    (place / "run" / fallen["adv"]).unlink()
    (place / "run" / fallen["delta"]).unlink()
    edit_info(place, lambda info: info["images"].remove(fallen))
    return f"{fallen['model']}, {fallen['attack']}, id {fallen['id']}: the rule keeps it, and run.json does not list it"


def an_example_that_pleases(place: Path) -> str:
    shown = json.loads((place / "run" / "run.json").read_text())["images"]
    taken = {image["id"] for image in shown}
    other = next(line for line in _of(place, "fgsm") if line["id"] not in taken)["id"]
    edit_info(place, lambda info: info["images"].append({**shown[0], "attack": "fgsm", "id": other}))
    return f"fgsm, id {other}: run.json lists it, and the rule does not keep it"


def examples_in_another_order(place: Path) -> str:
    edit_info(place, lambda info: info["images"].reverse())
    return "order: run.json lists them in another order"


TAMPERED = [
    an_adversarial_made_harmless,
    an_adversarial_out_of_the_budget,
    an_adversarial_with_nan,
    an_adversarial_of_the_curve,
    a_file_that_is_gone,
    a_file_that_is_torn,
    a_file_of_another_shape,
    a_success_denied,
    a_success_invented,
    a_confidence,
    a_distance,
    a_clean_prediction,
    a_label,
    a_class_name,
    a_hard_sample_left_out,
    a_line_left_out,
    a_line_twice,
    a_line_of_nothing,
    an_aggregate,
    a_point_of_the_curve,
    a_count,
    the_seed,
    a_picture,
    a_typed_eps,
    a_typed_eps_that_is_none,
    another_scale_of_perturbations,
    another_name_of_the_data,
    another_name_of_the_data_in_both_places,
    another_count_and_shape,
    another_suite_and_seed,
    another_hash_of_a_model,
    an_example_that_does_not_please,
    an_example_that_pleases,
    examples_in_another_order,
]


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)
def test_tampering_is_found(tamper: Callable[[Path], str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = tamper(place)
    (place / "run" / "report.html").unlink()
    assert main(["verify", "run", "--run-code"]) == 1
    out, err = capsys.readouterr()
    assert expected in out
    assert err.startswith("robustlab: run does not agree") and "Traceback" not in out + err


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("48", "49", 1),
        lambda text: text.replace("</main>", "<p>Certified.</p></main>", 1),
    ],
)
def test_an_edited_page_is_found(edit: Callable[[str], str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = place / "run" / "report.html"
    edited = edit(page.read_text())
    assert edited != page.read_text()
    page.write_text(edited)
    assert main(["verify", "run", "--run-code"]) == 1
    assert "report.html: it is not what `robustlab report run` writes\n" in capsys.readouterr().out


def test_what_nobody_can_recompute_is_listed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(info: dict[str, Any]) -> None:
        columns = [{"key": "share", "label": "Certified"}]
        info["sections"] = [{"name": "Certified accuracy", "columns": columns, "rows": [{"share": 0.99}], "n": 48}]
        info["command"] = "robustlab attack --full"

    edit_info(place, edit)
    assert main(["verify", "run", "--run-code"]) == 1  # the page does not show it yet
    assert "report.html: it is not what" in capsys.readouterr().out
    assert main(["report", "run"]) == 0
    assert main(["verify", "run", "--run-code"]) == 0
    out = capsys.readouterr().out
    said = "sections Certified accuracy", "how it was run: command, device, files, git, name", "versions, warnings"
    assert all(out.count(text) == 2 for text in said)  # in the list, and in the last line


def test_names_of_predicted_classes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("run")
    assert main([*ATTACK, "--labels", "predicted", "--output", "run", "--save-adversarial", "--no-curve"]) == 0
    expected = a_class_name(place)
    assert main(["verify", "run", "--run-code"]) == 1
    assert expected in capsys.readouterr().out


def test_an_answer_that_is_no_number_is_null_as_in_the_file() -> None:
    images, one = torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, dtype=torch.long)
    data = replace(as_data((images, one), None).loaded(), ids=one)
    line = Line(model="net", attack="fgsm", eps=0.1, id=0, label=0, clean=0, adv=0)
    broken = lambda x: torch.full((len(x), 3), torch.nan)  # noqa: E731
    args = {0: images[0].clone()}, data, {0: 0}, None, ThreatModel(eps=0.1), 1, torch.device("cpu")
    again = judge_again(broken, {0: line}, *args).lines[0]
    assert again.confidence is None and again == msgspec.json.decode(msgspec.json.encode(again), type=Line)


def test_other_weights_or_data_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "model.py").write_text(MODEL.replace("0.03", "0.04"))
    assert main(["verify", "run", "--run-code"]) == 2
    assert "model.py:other is not the model that was attacked" in capsys.readouterr().err
    (place / "model.py").write_text(MODEL)
    archive = dict(np.load("data.npz"))
    archive["test_images"][3, 0, 0] ^= 1
    np.savez("data.npz", **archive)
    assert main(["verify", "run", "--run-code"]) == 2
    assert "is not the data that was attacked" in capsys.readouterr().err


def test_files_that_have_moved(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(load_model("model.py:net").module.state_dict(), "w.pth")
    assert main([*ATTACK, "--weights", "w.pth", "--output", "one", "--save-adversarial", "--no-curve"]) == 0
    for name in ("model.py", "w.pth", "data.npz"):
        (place / name).rename(place / f"moved-{name}")
    capsys.readouterr()
    assert main(["verify", "one", "--run-code"]) == 2
    assert "no file 'model.py'" in (err := capsys.readouterr().err) and "--model model.py:net=MODEL" in err
    models = ["--model", "model.py:net=moved-model.py:net", "--weights", "model.py:net=moved-w.pth"]
    assert main(["verify", "one", "--run-code", *models[:2]]) == 2
    assert "no weights file 'w.pth'" in capsys.readouterr().err
    assert main(["verify", "one", "--run-code", *models]) == 2
    assert "data.npz does not exist" in (err := capsys.readouterr().err) and "--data NAME" in err
    assert main(["verify", "one", "--run-code", *models, "--data", "npz:moved-data.npz"]) == 0


def test_without_adversarials_the_rest_is_checked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("run")
    assert main([*ATTACK, "--output", "run"]) == 0
    capsys.readouterr()
    assert main(["verify", "run", "--run-code"]) == 1
    out, err = capsys.readouterr()
    assert (
        "taken as stored: what the attacks found" in out and "model.py:net: clean pass" in out and "fgsm at" not in out
    )
    assert "verified in part" in err and "--save-adversarial" in err
    expected = an_aggregate(place)
    assert main(["verify", "run", "--run-code"]) == 1
    out, err = capsys.readouterr()
    assert expected in out and "does not agree" in err


def test_samples_that_ended_in_an_error_are_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["attack", "model.py:Breaks", *ATTACK[2:], "--output", "one", "--save-adversarial", "--keep", "0"]
    assert main([*args, "--no-curve", "--suite", "fgsm"]) == 1
    assert main(["verify", "one", "--run-code"]) == 0
    assert "42 attacked samples ended in an error of the model" in capsys.readouterr().out


def test_from_python(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images, labels = torch.rand(30, 3, 2, 2), torch.randint(3, (30,))
    quiet = Listener(say=lambda text: None)
    run = evaluate(
        {"net": net}, (images, labels), "fgsm", output=tmp_path / "run", listener=quiet, save_adversarial=True
    )
    found = verify(run.folder, models={"net": net}, data=(images, labels))
    assert found.disagreements == 0 and found.complete and net.training
    with pytest.raises(UserError, match=r"does not say how to load net.*models=\{'net': module\}"):
        verify(run.folder, data=(images, labels))
    with pytest.raises(UserError, match=r"they came from Python.*data="):
        verify(run.folder, models={"net": net})
    with pytest.raises(UserError, match="no model 'nets'. Did you mean 'net'"):
        verify(run.folder, models={"nets": net}, data=(images, labels))
    with pytest.raises(UserError, match="is not the data that was attacked"):
        verify(run.folder, models={"net": net}, data=(images.flip(0), labels))
    with torch.no_grad():
        net[1].bias += 1
    with pytest.raises(UserError, match="net is not the model that was attacked"):
        verify(run.folder, models={"net": net}, data=(images, labels))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere"),
        (["run", "--model", "model.py"], "NAME=PATH"),
        (["run", "--model", "net=model.py:net"], "no model 'net'"),
        (["run", "--batch-size", "0"], "batch-size"),
        (["run", "--device", "cuda:99"], "--device"),
        (["run", "--data", "npz:gone.npz"], "gone.npz"),
    ],
)
def test_bad_input_is_one_message(
    args: list[str], message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *args, "--run-code"]) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("robustlab: ") and "Traceback" not in err


def test_a_damaged_line_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (place / "run" / "samples.jsonl").read_text().splitlines()
    (place / "run" / "samples.jsonl").write_text("\n".join([*text[:2], text[2][:-9], *text[3:]]) + "\n")
    assert main(["verify", "run", "--run-code"]) == 2
    assert "samples.jsonl, line 3, is damaged" in capsys.readouterr().err


def test_a_damaged_header_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_info(place, lambda info: info.pop("passes"))
    assert main(["verify", "run", "--run-code"]) == 2
    assert "it has no passes" in capsys.readouterr().err


def test_a_model_of_another_name_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_info(place, lambda info: info["models"][0].update(name="resnet50"))
    assert main(["verify", "run", "--run-code"]) == 2
    assert "its models are resnet50, model.py:other, and in its configuration model.py:net" in capsys.readouterr().err


def test_predictions_that_rounding_can_swap_are_told_from_others() -> None:
    logits = torch.tensor([[1.0, 1.0, -5.0], [1.0, 1.00001, -5.0], [1.0, 1.01, -5.0], [1e4, 1e4 + 0.1, 0.0]])
    assert tied(logits).tolist() == [True, True, False, True]
