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
from robustlab.reporting.gate import Gate, Verdict
from robustlab.reporting.gate_text import TESTED, sentence

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_SHORT = 1000  # characters that a code-scanning page shows


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
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'.encode()


def sarif(gate: Gate, version: str, root: Path) -> bytes:
    """SARIF 2.1.0 with all that GitHub's code scanning requires; a result for each condition that holds.

    version: of robustlab. root: the top of the repository. A result points to the file that the model is built in
    (`FILE.py:function`, a card) where it lies below the root, and else to the new run's run.json.
    """
    rules = list(dict.fromkeys(verdict.condition.metric for verdict in gate.verdicts))
    driver = {
        "name": "robustlab",
        "semanticVersion": version,
        "rules": [_rule(metric) for metric in rules],
    }
    results = [_result(verdict, rules, _place(verdict.model, gate.new, root)) for verdict in gate.failed]
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


def _result(verdict: Verdict, rules: Sequence[str], uri: str) -> dict[str, Any]:
    metric = verdict.condition.metric
    identity = "\n".join([metric, verdict.condition.text, verdict.model])
    fingerprint = hashlib.sha256(identity.encode(errors="backslashreplace")).hexdigest()[:16]
    region = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 2}
    return {
        "ruleId": _rule(metric)["id"],
        "ruleIndex": rules.index(metric),
        "level": "error",
        "message": {"text": visible(sentence(verdict))[:_SHORT]},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}],
        "partialFingerprints": {"primaryLocationLineHash": f"{fingerprint}:1"},
    }


def _place(model: str, run: Path, root: Path) -> str:
    """The path of a file in the repository, relative to its top."""
    top = root.resolve()
    for named in (model.partition(":")[0], model, str(run / "run.json")):
        path = (top / named).resolve()
        if path.is_file() and path.is_relative_to(top):
            return quote(path.relative_to(top).as_posix())
    return quote(f"{run.name}/run.json")


def _xml(text: str) -> str:
    """What XML can hold: control characters as escapes."""
    return visible(text, "\n").replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
