"""A comparison of two runs for machines: JUnit XML for test reports, SARIF for code-scanning pages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import msgspec

from robustlab.base.words import visible
from robustlab.reporting.conditions import METRICS
from robustlab.reporting.gate import Gate
from robustlab.reporting.gate_text import TESTED, sentence

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_SHORT = 1000  # characters that a code-scanning page shows

_SOME_FILE = ("README.md", "README.rst", "pyproject.toml")  # a result needs some file of the repository
_ELSEWHERE = " Neither the model's file nor the run is in this repository: the place beside this message means nothing."


def junit(gate: Gate) -> bytes:
    """JUnit XML: one test case for each condition and model, a failure where it holds."""
    failed = str(len(gate.failed))
    counts = {"tests": str(len(gate.verdicts)), "failures": failed, "errors": "0", "time": "0"}
    suites = ElementTree.Element("testsuites", {"name": "robustlab compare", **counts})
    about = {"name": _xml(f"{gate.base} -> {gate.new}"), **counts, "skipped": "0"}
    suite = ElementTree.SubElement(suites, "testsuite", about)
    for verdict in gate.verdicts:
        about = {"classname": _xml(f"robustlab.{verdict.model}"), "name": _xml(verdict.condition.text), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", about)
        said = _xml(sentence(verdict))
        if verdict.holds:
            failure = ElementTree.SubElement(case, "failure", {"message": said, "type": "regression"})
            failure.text = _xml(f"{sentence(verdict)}\n{TESTED}")
        else:
            ElementTree.SubElement(case, "system-out").text = said
    if gate.notes:
        ElementTree.SubElement(suite, "system-out").text = _xml("\n".join(gate.notes))
    if gate.doubts:
        ElementTree.SubElement(suite, "system-err").text = _xml("\n".join(text for _, text in gate.doubts))
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'.encode()


def sarif(gate: Gate, version: str, root: Path) -> bytes:
    """SARIF 2.1.0 with all that GitHub's code scanning requires; a result for each condition that holds.

    Checks of the attack that failed only in the new run are warnings.

    version: of robustlab. root: the top of the repository. A result points to the file that the model is built in
    (`FILE.py:function`, a card) where it lies below the root, and else to the new run's run.json or the
    README there; where nothing of it is there, to a run.json that the repository does not have. The message says so.
    """
    rules = list(dict.fromkeys(verdict.condition.metric for verdict in gate.verdicts))
    driver = {
        "name": "robustlab",
        "semanticVersion": version,
        "rules": [*(_rule(metric) for metric in rules), *([_AUDIT] if gate.doubts else [])],
    }
    results = []
    for verdict in gate.failed:
        metric = verdict.condition.metric
        about = {"ruleId": _rule(metric)["id"], "ruleIndex": rules.index(metric), "level": "error"}
        identity = [metric, verdict.condition.text, verdict.model]
        results.append(about | _result(sentence(verdict), identity, _place(verdict.model, gate.new, root)))
    for model, doubt in gate.doubts:
        about = {"ruleId": _AUDIT["id"], "ruleIndex": len(rules), "level": "warning"}
        results.append(about | _result(doubt, [_AUDIT["id"], model], _place(model, gate.new, root)))
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return msgspec.json.format(msgspec.json.encode(log), indent=2) + b"\n"


def _rule(metric: str) -> dict[str, Any]:
    what = METRICS[metric]
    return {
        "id": f"{metric.replace('_', '-')}-regression",
        "name": f"{metric.title().replace('_', '')}Regression",
        "shortDescription": {"text": f"The {what} of a model fell."},
        "fullDescription": {"text": f"A condition of robustlab compare on the {what} holds: the model got worse."},
        "help": {"text": f"{TESTED} Which images fail is on the page of the new run: robustlab report."},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["robustness"], "precision": "high", "problem.severity": "error"},
    }


_AUDIT: dict[str, Any] = {
    "id": "attack-audit",
    "name": "AttackAudit",
    "shortDescription": {"text": "Checks of the attack on a model failed that passed before."},
    "fullDescription": {"text": "The audit says that the attack may be too weak: robust accuracy may be too high."},
    "help": {"text": "What to do is in the section Audit on the page of the new run: robustlab report."},
    "defaultConfiguration": {"level": "warning"},
    "properties": {"tags": ["robustness"], "precision": "high", "problem.severity": "warning"},
}


def _result(text: str, identity: Sequence[str], place: tuple[str, str]) -> dict[str, Any]:
    uri, remark = place
    fingerprint = hashlib.sha256("\n".join(identity).encode(errors="backslashreplace")).hexdigest()[:16]
    region = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 2}
    return {
        "message": {"text": visible(text)[: _SHORT - len(remark)] + remark},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}],
        "partialFingerprints": {"primaryLocationLineHash": f"{fingerprint}:1"},
    }


def _place(model: str, run: Path, root: Path) -> tuple[str, str]:
    """The path of a file below the root, and what to say where it has nothing to do with the model."""
    top = root.resolve()
    for named in (model.partition(":")[0], model, str(run / "run.json"), *_SOME_FILE):
        path = (top / named).resolve()
        if path.is_file() and path.is_relative_to(top):
            return quote(path.relative_to(top).as_posix()), _ELSEWHERE if named in _SOME_FILE else ""
    return quote(f"{run.name}/run.json"), _ELSEWHERE


def _xml(text: str) -> str:
    """What XML can hold: control characters as escapes."""
    return visible(text, "\n").replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
