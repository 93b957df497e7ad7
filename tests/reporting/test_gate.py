"""The regression gate: what it reads, what it decides, and what it tells people and machines."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any
from xml.etree import ElementTree

import pytest
from scipy.stats import binomtest

from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.reporting.conditions import METRICS, Condition, parse_condition
from robustlab.reporting.gate import decide, gate
from robustlab.runs.aggregates import Line, ModelLines, by_unit

Json = dict[str, Any]
Write = Callable[..., Path]
NET, OTHER = {"road-signs/cnn": (0.97, 9.0)}, {"road-signs/cnn": (0.97, 4.0)}
DROP = "robust_accuracy < base - 0.01"


@pytest.fixture(scope="module")
def base(write_run: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "base", n=200, models=NET)


@pytest.fixture(scope="module")
def worse(write_run: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "worse", n=200, models=OTHER)


@pytest.fixture(scope="module")
def same(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(base, tmp_path_factory.mktemp("runs") / "same"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("robust_accuracy < base - 0.01", ("robust_accuracy", -0.01, True)),
        ("  clean_accuracy<base+.02 ", ("clean_accuracy", 0.02, True)),
        ("worst_class < 0.2", ("worst_class", 0.2, False)),
        ("clean_accuracy < base", ("clean_accuracy", 0.0, True)),
        ("clean_accuracy < 1", ("clean_accuracy", 1.0, False)),
    ],
)
def test_conditions_are_read(text: str, wanted: tuple[str, float, bool]) -> None:
    found = parse_condition(text)
    assert (found.metric, found.value, found.relative) == wanted
    assert parse_condition(found.text) == found and found.margin == (-wanted[1] if wanted[1] else 0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("robust < base", "Did you mean 'robust_accuracy'?"),
        ("robust_accuracy", "it ends too early"),
        ("robust_accuracy <", "it ends too early"),
        ("robust_accuracy > base", "comes '>', not <"),
        ("robust_accuracy <= base", "after < comes '= base'"),
        ("robust_accuracy < base - 1%", "after < comes 'base - 1 %'"),
        ("robust_accuracy < base * 0.9", "after < comes"),
        ("robust_accuracy < base - 5", "5 is no fraction below 1"),
        ("robust_accuracy < 40", "40 is no fraction above 0"),
        ("robust_accuracy < 0", "0 is no fraction"),
        ("robust_accuracy < __import__('os')", "after < comes"),
        ("robust_accuracy < base - 1e-2", "after < comes"),
        ("robust_accuracy < ٠.١", "after < comes"),
        ("x" * 1000, "longer than 200"),
    ],
)
def test_a_condition_that_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(UserError, match=re.escape(why)) as error:
        parse_condition(text)
    assert "Give one such as" in str(error.value) and "\n" not in str(error.value)


def test_a_worse_model_fails_and_the_same_does_not(base: Path, worse: Path, same: Path) -> None:
    conditions = [parse_condition(text) for text in (DROP, "clean_accuracy < base", "worst_class < base")]
    found = gate(base, worse, conditions)
    assert [one.condition.text for one in found.failed] == [DROP, "worst_class < base"]
    assert not gate(base, same, conditions).failed and not gate(worse, base, conditions).failed
    (name, clean), (_, robust) = found.changes
    assert name == "road-signs/cnn" and robust.difference["value"] == pytest.approx(
        (robust.new["value"] or 0) - (robust.base["value"] or 0)
    )
    assert clean.difference["value"] == 0 and found.notes == []


def test_p_is_that_of_scipy_and_corrected_for_all_conditions(base: Path, worse: Path) -> None:
    (alone,) = gate(base, worse, [parse_condition("robust_accuracy < base")]).verdicts
    difference = alone.change.difference
    b, c = difference["only_first"], difference["only_second"]
    assert alone.p == pytest.approx(binomtest(b, b + c, alternative="greater").pvalue)
    (absolute,) = gate(base, worse, [parse_condition("robust_accuracy < 0.9")]).verdicts
    k = round((absolute.change.new["value"] or 0) * 200)
    assert absolute.p == pytest.approx(binomtest(k, 200, 0.9, alternative="less").pvalue)
    both = gate(base, worse, [parse_condition("robust_accuracy < base"), parse_condition("clean_accuracy < base")])
    assert both.verdicts[0].p == pytest.approx(2 * alone.p)


def test_a_model_behind_a_defense_has_met_the_attack_that_does_not_know_it(write_run: Write, tmp_path: Path) -> None:
    """A run in which the last attack is one on the bare model, which only the model behind the defense was shown."""
    folder = write_run(tmp_path / "behind", n=80, models={"net": (0.97, 4.0), "net+jpeg": (0.97, 9.0)})
    info, last, unaware = json.loads((folder / "run.json").read_text()), "pgd-margin", "pgd (unaware)"
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]

    def renamed(rows: list[Json], model: str) -> list[Json]:
        mine = [row for row in rows if row.get("attack") != last or row["model"] == model]
        return [row | ({"attack": unaware} if row.get("attack") == last else {}) for row in mine]

    lines, info["passes"], info["images"] = (renamed(r, "net+jpeg") for r in (lines, info["passes"], info["images"]))
    info["config"]["attacks"].pop()
    info["config"]["models"][1] |= {"bare": "net", "unaware": [unaware]}
    info["aggregates"]["models"][0]["attacks"].pop()
    info["aggregates"]["models"][1]["attacks"][-1]["name"] = unaware
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    same = shutil.copytree(folder, tmp_path / "same")
    _, (_, robust) = gate(folder, same, [], model="net+jpeg").changes
    assert robust.new == info["aggregates"]["models"][1]["robust_accuracy"] and robust.difference["value"] == 0


def test_the_worst_class_counts_for_all_that_were_looked_at(base: Path, worse: Path) -> None:
    (found,) = gate(base, worse, [parse_condition("worst_class < base")]).verdicts
    difference = found.change.difference
    b, c = difference["only_first"], difference["only_second"]
    assert difference["n"] == 25 and found.class_name
    assert found.p == pytest.approx(min(1, 8 * binomtest(b, b + c, alternative="greater").pvalue))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n": 120}, "samples: n = 120 instead of n = 200"),
        ({"models": {"a": (0.9, 3.0), "b": (0.9, 4.0)}}, "The runs have other models"),
    ],
)
def test_runs_that_cannot_be_compared_exit_with_2(
    base: Path, write_run: Write, tmp_path: Path, change: Json, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_run(tmp_path / "other", **({"n": 200, "models": NET} | change))
    assert main(["compare", str(base), str(other), "--fail-if", DROP]) == 2
    out, err = capsys.readouterr()
    assert reason in err and err.count("\n") == 1 and not out


def test_the_command_says_what_it_found(
    base: Path, worse: Path, same: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(base), str(worse), "--fail-if", DROP, "--fail-if", "clean_accuracy < 0.5"]) == 1
    out = capsys.readouterr().out
    assert "FAILED: 1 of 2 conditions holds." in out and "Newcombe" in out and "n = 200" in out
    assert main(["compare", str(base), str(same), "--fail-if", DROP]) == 0
    assert "Passed: none of 1 condition holds." in capsys.readouterr().out
    assert main(["compare", str(base), str(worse)]) == 0
    assert "nothing can fail" in capsys.readouterr().out
    assert main(["compare", str(base), str(worse), "--fail-if", DROP, "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["conditions"][0]["holds"] is True and found["conditions"][0]["difference"]["n"] == 200


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--fail-if", "nonsense"], "cannot be read"),
        (["--fail-if", DROP, "--fail-if", "robust_accuracy<base-0.01"], "twice"),
        (["--fail-if", DROP, "--level", "1.5"], "between 0 and 1"),
        (["--junit", "a.xml"], "give --fail-if"),
        (["--fail-if", DROP, "--junit", "a", "--sarif", "a"], "two files"),
        (["--fail-if", DROP, "--model", "nobody"], "no model 'nobody'"),
    ],
)
def test_flags_that_cannot_be_meant(
    base: Path, worse: Path, flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(base), str(worse), *flags]) == 2
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1


def changed(folder: Path, copy: Path, change: Callable[[Json], None]) -> str:
    """A copy of a run whose run.json is changed."""
    info = json.loads((shutil.copytree(folder, copy) / "run.json").read_text())
    change(info)
    (copy / "run.json").write_text(json.dumps(info))
    return str(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parameters": {"steps": 1}}, "pgd with steps 1 instead of the default"),
        ({"method": "fgsm"}, "pgd with method fgsm instead of pgd"),
    ],
)
def test_a_weaker_attack_is_no_better_model(
    base: Path, worse: Path, tmp_path: Path, change: Json, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weaker = changed(base, tmp_path / "weaker", lambda info: info["config"]["attacks"][1].update(change))
    assert main(["compare", str(worse), weaker, "--fail-if", DROP]) == 2
    out, err = capsys.readouterr()
    assert said in err and "--allow-other-attacks" in err and not out
    assert main(["compare", str(worse), weaker, "--fail-if", DROP, "--allow-other-attacks"]) == 0
    assert said in capsys.readouterr().out
    assert main(["compare", str(worse), weaker, "--fail-if", "clean_accuracy < base"]) == 0  # no attack is in it
    assert main(["compare", str(worse), weaker]) == 0


def test_another_seed_is_no_weaker_attack(base: Path, worse: Path, tmp_path: Path) -> None:
    other = changed(base, tmp_path / "other", lambda info: info["config"].update(seed=1))
    assert main(["compare", str(worse), other, "--fail-if", DROP]) == 0


def test_an_audit_that_fails_in_the_new_run_is_told(
    base: Path, worse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def audited(**statuses: str) -> Callable[[Json], None]:
        words = dict.fromkeys(("title", "measured", "advice", "source"), "words")
        checks = [{"name": name, "status": status, "numbers": {}, **words} for name, status in statuses.items()]
        record = {"n": 64, "ids": "0", "asked": 64, "tolerated": 0.02, "checks": checks}
        return lambda info: info.update(audit={"road-signs/cnn": record})

    before = changed(worse, tmp_path / "before", audited(converged="fail", noise="pass"))
    after = changed(base, tmp_path / "after", audited(converged="fail", noise="fail"))
    xml, sarif = tmp_path / "gate.xml", tmp_path / "gate.sarif"
    said = "1 check of the attack on road-signs/cnn (noise) failed in the new run"
    flags = ["--fail-if", DROP, "--junit", str(xml), "--sarif", str(sarif)]
    assert main(["compare", before, after, *flags]) == 0
    assert f"Audit: {said}" in " ".join(capsys.readouterr().out.split())
    assert main(["compare", before, after, "--format", "markdown"]) == 0
    assert f"> **Audit**: {said}" in capsys.readouterr().out.replace("\\", "")
    (suite,) = ElementTree.parse(xml).getroot()
    assert said in (suite.findtext("system-err") or "") and suite.attrib["failures"] == "0"
    (run,) = json.loads(sarif.read_text())["runs"]
    (result,) = run["results"]
    assert result["level"] == "warning" and result["message"]["text"].startswith(said)
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "attack-audit"
    assert main(["compare", after, before]) == 0
    assert "Audit:" not in capsys.readouterr().out


def test_markdown_is_two_tables_that_no_name_breaks(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "a|b <script> `x`"
    runs = [str(write_run(tmp_path / at, n=80, models={evil: (0.97, half)})) for at, half in (("1", 9.0), ("2", 3.0))]
    assert main(["compare", *runs, "--fail-if", DROP, "--format", "markdown"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("### robustlab: FAILED: 1 of 1 condition holds.") and "<script>" not in out
    lines = [re.sub(r"\\.", "", line) for line in out.splitlines() if line.startswith("|")]
    assert [line.count("|") for line in lines] == [9] * 3 + [7] * 4


def test_junit_has_a_case_for_each_condition(base: Path, worse: Path, tmp_path: Path) -> None:
    file = tmp_path / "gate.xml"
    flags = ["--fail-if", DROP, "--fail-if", "clean_accuracy < base", "--junit", str(file)]
    assert main(["compare", str(base), str(worse), *flags]) == 1
    suites = ElementTree.parse(file).getroot()
    (suite,) = suites
    assert suites.tag == "testsuites" and suite.tag == "testsuite"
    assert suite.attrib["tests"] == "2" and suite.attrib["failures"] == "1"
    cases = suite.findall("testcase")
    assert [case.attrib["name"] for case in cases] == [DROP, "clean_accuracy < base"]
    (failure,) = suite.iter("failure")
    assert failure in cases[0] and "road-signs/cnn: robust accuracy was" in failure.attrib["message"]
    assert main(["compare", str(base), str(worse), *flags]) == 2  # it replaces nothing
    assert main(["compare", str(base), str(worse), *flags, "--overwrite"]) == 1


def test_sarif_has_what_code_scanning_requires(
    base: Path, worse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fields marked as required in "SARIF support for code scanning" on docs.github.com."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(worse, "new run")
    flags = [word for metric in METRICS for word in ("--fail-if", f"{metric} < base")]
    assert main(["compare", str(base), "new run", *flags, "--sarif", "gate.sarif"]) == 1
    log = json.loads(Path("gate.sarif").read_text())
    assert log["version"] == "2.1.0" and log["$schema"].startswith("https://")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "robustlab" and len(rules) == 3
    for rule in rules:
        assert rule["id"] and len(rule["name"]) <= 255
        assert all(0 < len(rule[key]["text"]) <= 1024 for key in ("shortDescription", "fullDescription", "help"))
        assert rule["defaultConfiguration"]["level"] in ("note", "warning", "error")
    assert [result["ruleId"] for result in run["results"]] == ["robust-accuracy-regression", "worst-class-regression"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] and result["message"]["text"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "new%20run/run.json"
        assert set(place["region"]) == {"startLine", "startColumn", "endLine", "endColumn"}
        assert re.fullmatch(r"[0-9a-f]{16}:1", result["partialFingerprints"]["primaryLocationLineHash"])
    assert len({result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]}) == 2


def lines(robust: Sequence[bool]) -> ModelLines:
    """A model that is right everywhere, and falls where it is not robust."""
    found = []
    for i, stays in enumerate(robust):
        line = {"model": "m", "id": i, "label": i % 4, "clean": i % 4}
        found.append(Line(attack="clean", eps=0.0, **line))  # type: ignore[arg-type]
        found.append(Line(attack="pgd", eps=0.1, success=not stays, verified=not stays, **line))  # type: ignore[arg-type]
    return ModelLines(by_unit(found)["m"], ["pgd"], 0.1)


def outcome(seed: int, drop: float, conditions: Sequence[Condition], n: int = 300) -> bool:
    """Does the gate fail for two models that fall on random images, the second more often by `drop`?"""
    dice = random.Random(seed)
    shared = [dice.gauss(0, 1) for _ in range(n)]  # how hard an image is for both

    def stays(share: float) -> list[bool]:
        threshold = NormalDist(0, 2**0.5).inv_cdf(share)
        return [hard + dice.gauss(0, 1) < threshold for hard in shared]

    _, verdicts = decide({"m": (lines(stays(0.5)), lines(stays(0.5 - drop)))}, conditions)
    return any(verdict.holds for verdict in verdicts)


def test_a_truly_worse_model_fails() -> None:
    conditions = [parse_condition(DROP), parse_condition("clean_accuracy < base")]
    assert all(outcome(seed, 0.25, conditions) for seed in range(5))


@pytest.mark.slow
@pytest.mark.parametrize(
    "texts",
    [["robust_accuracy < base"], [DROP], ["robust_accuracy < base", "clean_accuracy < base", "worst_class < base"]],
)
def test_equal_models_fail_no_more_often_than_the_level(texts: list[str]) -> None:
    """In at most 5 of 100 seeds, however many conditions are given."""
    assert sum(outcome(seed, 0.0, [parse_condition(text) for text in texts]) for seed in range(100)) <= 5


@pytest.mark.slow
def test_a_model_at_the_edge_of_the_margin_fails_no_more_often_than_the_level() -> None:
    """The hardest case that the test promises: the true drop is the margin. 5 of 100 are expected at most."""
    hits = sum(outcome(seed, 0.05, [parse_condition("robust_accuracy < base - 0.05")]) for seed in range(100))
    assert hits <= 10  # 5, and what chance adds in 99 of 100 such tests
