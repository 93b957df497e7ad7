"""`robustlab table RUN summary`: what leaderboards and model cards want to know of each model of a run.

As JSON one object for each model:

- `robustbench`: the fields of RobustBench's model_info/DATASET/THREAT/MODEL.json. Its accuracies are percentages as
  text. What a run cannot know (paper, authors, extra data ...) is null, and `missing` names it: fill it in. `reported`
  is the robust accuracy of the run, and `autoattack_acc`, too, where the suite is autoattack-standard: another suite is
  not AutoAttack. `unreliable` is true where a check of the attack's audit failed, null where none was made.
- `model-index`: an entry of the `model-index` of a Hugging Face model card (hub-docs, modelcard.md), with fractions.
- `robustlab`: the same numbers as {value, low, high, n}, with 95 % Wilson intervals, threat, suite, seed, audit, and
  how the model was trained where its card says it.

As Markdown a README for the Hub: the same model-index as YAML at its top, then a table and what was measured. A card on
the Hub is of one model (huggingface_hub takes all results for those of the last one): give a run of that model alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from robustlab.base.errors import UserError
from robustlab.base.words import visible, visible_json
from robustlab.reporting.source import Json, PageRun
from robustlab.reporting.table_formats import escaped, markdown
from robustlab.reporting.tables import verdict
from robustlab.runs.audits import audit_of, in_one_line, tally

NAME = "summary"
FORMATS = ("markdown", "json")
_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1", "l0": "L0"}  # as RobustBench's folders
AUTOATTACK = "autoattack-standard"  # the card of its four attacks in the published order and budget
_OF_THE_AUTHORS = ("link", "name", "authors", "additional_data", "venue", "architecture", "autoattack_acc")


def summary(run: PageRun, format: str) -> str:
    """The summary of an attack run, "json" or "markdown". UserError where the run has no attack."""
    if not run.models or not all(model["attacks"] for model in run.models):
        raise UserError(f"{run.name} has nothing for the table {NAME}: no attack was run.")
    models = [_model(run, model) for model in run.models]
    if format == "json":
        return visible_json(json.dumps({"models": models}, indent=2, ensure_ascii=False)) + "\n"
    return _readme(run, models)


def _model(run: PageRun, model: Json) -> Json:
    entry = _robustbench(run, model)
    return {
        "name": model["name"],
        "robustbench": entry,
        "missing": [key for key in _OF_THE_AUTHORS if entry[key] is None],
        "model-index": _model_index(run, model),
        "robustlab": _measured(run, model),
    }


def _robustbench(run: PageRun, model: Json) -> Json:
    record = audit_of(run.info, model["name"])
    suite = run.info.get("suite") or "attacks of its own"
    images = f"{model['n']:,} images of the {run.data['split']} split"
    unknown: Json = dict.fromkeys(_OF_THE_AUTHORS)
    return {
        **unknown,
        "number_forward_passes": _config(run, model["name"]).get("evaluations", 1),
        "dataset": run.data["name"],
        "eps": run.eps,
        "clean_acc": _percent(model["clean_accuracy"]),
        "reported": _percent(model["robust_accuracy"]),
        "autoattack_acc": _percent(model["robust_accuracy"]) if suite == AUTOATTACK else None,
        "footnote": f"{_NORMS[run.numbers['norm']]}, robustlab suite {suite}, {images}.",
        "unreliable": tally(record)["fail"] > 0 if record else None,
    }


def _model_index(run: PageRun, model: Json) -> Json:
    args = {"norm": run.numbers["norm"], "eps": run.eps, "suite": run.info.get("suite"), "n": model["n"]}
    shares = {
        "Accuracy": (model["clean_accuracy"], {"n": model["n"]}),
        f"Robust accuracy ({_NORMS[run.numbers['norm']]}, eps {run.eps})": (model["robust_accuracy"], args),
    }
    return {
        "name": model["name"],
        "results": [
            {
                "task": {"type": "image-classification", "name": "Image Classification"},
                "dataset": {"type": run.data["name"], "name": run.data["name"], "split": run.data["split"]},
                "metrics": [
                    {"type": "accuracy", "value": share["value"], "name": name, "args": more}
                    for name, (share, more) in shares.items()
                ],
            }
        ],
    }


def _measured(run: PageRun, model: Json) -> Json:
    described: Mapping[str, Any] = next((m for m in run.info.get("models", []) if m["name"] == model["name"]), {})
    kept = ("clean_accuracy", "robust_accuracy", "robust_accuracy_8bit", "worst_class")
    return {
        **{key: model[key] for key in kept},
        "threat": run.info["config"]["threat"],
        "suite": run.info.get("suite"),
        "attacks": [attack["name"] for attack in model["attacks"]],
        "crafted_on": run.surrogates.get(model["name"]),
        "seed": run.info["config"]["seed"],
        "data": {key: run.data.get(key) for key in ("name", "split", "hash", "shape")}
        | {"classes": len(run.data["classes"])},
        "labels": run.info["config"].get("labels", "given"),
        "hash": _config(run, model["name"]).get("hash"),
        "parameters": described.get("parameters"),
        "trained": described.get("trained"),
        "audit": in_one_line(audit_of(run.info, model["name"])),
        "versions": run.info.get("versions"),
        "finished": run.info.get("times", {}).get("finished"),
    }


def _config(run: PageRun, name: str) -> Json:
    return next((model for model in run.info["config"]["models"] if model["name"] == name), {})


def _percent(share: Json) -> str | None:
    return None if share["value"] is None else f"{100 * share['value']:.2f}"


def _readme(run: PageRun, models: list[Json]) -> str:
    """A model card: YAML between two rules, then the table of the verdict."""
    index = {"model-index": [model["model-index"] for model in models]}
    head = "\n".join(["---", "tags:", '- "image-classification"', '- "adversarial-robustness"', *_yaml(index), "---"])
    seed, suite = run.info["config"]["seed"], run.info.get("suite") or "attacks of its own"
    said = [
        f"Measured with robustlab, suite {suite}, seed {seed}, on {run.data['name']}, {run.data['split']} split;"
        f" {run.threat}.",
        *(f"Audit of the attack on {one['name']}: {one['robustlab']['audit']}." for one in models),
    ]
    return f"{head}\n\n## Robustness\n\n{markdown(verdict(run))}\n" + "\n\n".join(map(escaped, said)) + "\n"


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Block style; every text in double quotes, as JSON writes it, which YAML 1.2 and 1.1 both read."""
    rows = [(f"{key}:", item) for key, item in value.items()] if isinstance(value, dict) else []
    for key, item in rows:
        if isinstance(item, dict | list) and item:
            yield f"{indent}{key}"
            yield from _yaml(item, f"{indent}  ")
        else:
            yield f"{indent}{key} {_scalar(item)}"
    for item in value if isinstance(value, list) else []:
        first, *rest = (
            list(_yaml(item, f"{indent}  ")) if isinstance(item, dict | list) else [f"{indent}  {_scalar(item)}"]
        )
        yield f"{indent}- {first[len(indent) + 2 :]}"
        yield from rest


def _scalar(value: Any) -> str:
    return json.dumps(visible(value) if isinstance(value, str) else value)
