"""What the gate writes for machines, as other programs read it: JUnit XML by junitparser, SARIF by its JSON schema."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jsonschema import validators
from junitparser import JUnitXml

from robustlab.cli import main
from robustlab.reporting.conditions import METRICS

# what the elements may have in the schema junit-10.xsd of Jenkins' xUnit plugin, of what the gate writes
JENKINS = {
    "testsuites": ({"name", "tests", "failures", "errors", "time"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "time", "skipped"}, {"testcase", "system-out", "system-err"}),
    "testcase": ({"name", "classname", "time"}, {"failure", "system-out"}),
    "failure": ({"message", "type"}, set()),
    "system-out": (set(), set()),
    "system-err": (set(), set()),
}


@pytest.fixture(scope="module")
def written(write_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with gate.xml and gate.sarif of a model that got worse; the names are hard to write."""
    folder = tmp_path_factory.mktemp("gate")
    name = 'a <b> & "c" \x1b ü'
    runs = [str(write_run(folder / at, n=80, models={name: (0.97, half)})) for at, half in (("1", 9.0), ("2", 2.0))]
    flags = [word for metric in METRICS for word in ("--fail-if", f"{metric} < base")]
    files = ["--junit", str(folder / "gate.xml"), "--sarif", str(folder / "gate.sarif")]
    assert main(["compare", *runs, *flags, *files]) == 1
    return folder


def test_a_reader_of_junit_counts_the_conditions(written: Path) -> None:
    (suite,) = JUnitXml.fromfile(str(written / "gate.xml"))
    cases = list(suite)
    assert suite.tests == len(cases) == len(METRICS) and suite.errors == suite.skipped == 0
    assert [case.name for case in cases] == [f"{metric} < base" for metric in METRICS]
    failed = [case for case in cases if case.is_failure]
    assert len(failed) == suite.failures > 0 and all("points on the same" in case.result[0].message for case in failed)


def test_junit_has_only_what_the_schema_of_jenkins_allows(written: Path) -> None:
    for element in ElementTree.parse(written / "gate.xml").getroot().iter():
        attributes, children = JENKINS[element.tag]
        assert set(element.attrib) <= attributes and {child.tag for child in element} <= children


def test_a_result_points_to_a_file_that_is_there(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs lie outside of the repository, and no file of it is the model's: the README, and the message says so."""
    (tmp_path / "README.md").write_text("A repository.")
    monkeypatch.chdir(tmp_path)
    runs = [str(written / at) for at in ("1", "2")]
    assert main(["compare", *runs, "--fail-if", "robust_accuracy < base", "--sarif", "gate.sarif"]) == 1
    (result,) = json.loads(Path("gate.sarif").read_text())["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "README.md"
    assert "the place beside this message means nothing" in result["message"]["text"]


@pytest.mark.slow
def test_sarif_fits_its_schema(written: Path, tmp_path: Path) -> None:
    """The schema of SARIF 2.1.0 as the npm package @microsoft/jest-sarif has it; needs npm and a registry."""
    if not (npm := shutil.which("npm")):
        pytest.skip("npm is not installed")
    packed = subprocess.run([npm, "pack", "@microsoft/jest-sarif@1.0.0-beta.0"], cwd=tmp_path, capture_output=True)
    if packed.returncode:
        pytest.skip("no npm registry")
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as packages:
        file = packages.extractfile("package/lib/schemas/sarif-2.1.0-rtm.5.json")
        assert file
        schema = json.load(file)
    check = validators.validator_for(schema)(schema)
    log = json.loads((written / "gate.sarif").read_text())
    assert log["runs"][0]["results"] and not list(check.iter_errors(log))
    del log["runs"][0]["results"][0]["message"]
    assert list(check.iter_errors(log))  # it does notice
