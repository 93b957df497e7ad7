"""What run.json and data.jsonl may hold: types, ranges and sizes. `checking` checks it, once, when a folder is read.

A run folder may come from a stranger, and everything that reads one (page, tables, figures, verification, resuming)
relies on this. Keys that are not named here may be there: a later version may have written them, and nobody reads them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Json = dict[str, Any]

Count = Annotated[int, Meta(ge=0, le=2**53)]
Some = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Draws = Annotated[int, Meta(ge=1, le=10_000)]
Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Label = Annotated[int, Meta(ge=-1, le=2**31 - 1)]  # -1: of an image without a label
Real = Annotated[float, Meta(ge=-1e15, le=1e15)]
Size = Annotated[float, Meta(ge=0, le=1e300)]  # a sum of millions of them is still a number
Eps = Annotated[float, Meta(ge=0, le=1e9)]
Fraction = Annotated[float, Meta(ge=-1e-6, le=1 + 1e-6)]  # float32 may round a little beyond the ends
Difference = Annotated[float, Meta(ge=-1 - 1e-6, le=1 + 1e-6)]
Name = Annotated[str, Meta(min_length=1, max_length=4096)]  # a model's may be a path
Text = Annotated[str, Meta(max_length=100_000)]
Picture = Annotated[str, Meta(pattern=r"^images/[^/\x00]{1,255}$")]
Scalar = Real | Text | bool | None


class Share(Struct):
    value: Fraction | None
    low: Fraction
    high: Fraction
    n: Count


class Paired(Struct):
    value: Difference
    low: Difference
    high: Difference
    n: Count
    only_first: Count
    only_second: Count
    p: Fraction


class Surrogate(Struct):
    name: Name
    hash: Text = ""


class Attacked(Struct):
    """A model in the configuration."""

    name: Name
    hash: Text = ""
    surrogates: Annotated[list[Surrogate], Meta(max_length=1000)] = []
    evaluations: Draws = 1
    eot: Draws = 1
    outputs: Text = ""
    defense: Json = {}
    bare: Text = ""
    unaware: Annotated[list[Name], Meta(max_length=1000)] = []


class Attack(Struct):
    name: Name
    method: Text = ""
    parameters: dict[str, Any] = {}


class Threat(Struct, forbid_unknown_fields=True):
    norm: Literal["linf", "l2", "l1", "l0"]
    eps: Eps
    targeted: bool = False
    target: Text = ""


class Curve(Struct):
    attack: Text = ""
    eps: Annotated[list[Eps], Meta(max_length=1000)] = []
    source: Text = msgspec.field(default="", name="from")


class Chosen(Struct):
    """The data in the configuration."""

    name: Text = ""
    split: Text = ""
    hash: Text = ""
    ids: Text = ""
    n: Count = 0


class Config(Struct):
    models: Annotated[list[Attacked], Meta(max_length=1000)] = []
    attacks: Annotated[list[Attack], Meta(max_length=1000)] = []
    threat: Threat | None = None
    seed: Whole = 0
    data: Chosen = msgspec.field(default_factory=Chosen)
    suite: Text | None = None
    curve: Curve = msgspec.field(default_factory=Curve)
    chunk_size: Some = 1
    keep: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 1
    full: bool = False
    labels: Text = ""
    precision: Literal["float32", "bfloat16"] = "float32"
    audit: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    save_adversarial: bool = False


class Copy(Struct):
    used: bool
    reason: Text | None = None
    folded: bool = False
    compiled: bool = False
    precision: Text | None = None


class Model(Struct):
    name: Name
    hash: Text = ""
    parameters: Count = 0
    search_copy: Copy | msgspec.UnsetType = msgspec.UNSET
    source: Json | None = None


class Factor(Struct):
    """What the values of a factor mean; 0, 1, 2 ... are the categories."""

    label: Text
    unit: Text = ""
    kind: Literal["number", "angle", "category"] = "number"
    categories: Annotated[list[Text], Meta(max_length=1000)] = []


class Data(Struct):
    name: Text = ""
    split: Text = ""
    hash: Text = ""
    n: Count = 0
    shape: tuple[Some, Some, Some] = (1, 1, 1)
    classes: Annotated[list[Text], Meta(max_length=100_000)] = []
    factors: Annotated[dict[str, Factor], Meta(max_length=1000)] = {}
    source: Json | None = None


class Allocation(Struct):
    """Of an attack that did not try all samples in full; missed: share of the controls that fell."""

    aside: Count
    controls: Count
    again: Count
    succeeded: Count
    missed: Share


class AttackNumbers(Struct):
    """An attack of the suite, in the aggregates of a model."""

    name: Name
    left: Share
    broken: Count
    attempted: Count
    success_rate: Share
    success_8bit: Count | None
    leaves_8bit: Count
    unverified: Count
    errors: Count
    missing: Count
    median_distance: Size | None
    forwards: Size | None
    backwards: Size | None
    seconds: Size | None
    median_of_all: Size | None = None
    found: Count = 0
    allocation: Allocation | None = None
    unsearched: Count = 0  # samples on which another library's search could not start
    unkeyed: bool = False  # its random numbers are not keyed by sample: see `robustlab.attacks.wrap`


class Worst(Struct):
    label: Label
    name: Text
    robust_accuracy: Share
    clean_accuracy: Share
    ties: Count = 0


class Point(Struct):
    eps: Eps
    source: Text
    share: Share


class Defended(Struct):
    """What attacks left of a model behind a defense that do not know of it, and what those left that do."""

    unaware: Share
    aware: Share
    gap: Paired


class ModelNumbers(Struct):
    """The aggregates of a model."""

    name: Name
    n: Count
    clean_accuracy: Share
    robust_accuracy: Share | None
    robust_accuracy_8bit: Share | None
    attacks: list[AttackNumbers]
    worst_class: Worst | None
    curve: list[Point]
    clean_errors: Count = 0
    fallen_at_smaller_eps: Count = 0
    defense: Defended | None = None


class Pair(Struct):
    first: Name
    second: Name
    clean: Paired
    robust: Paired | None


class Aggregates(Struct):
    norm: Literal["linf", "l2", "l1", "l0"]
    eps: Eps
    models: list[ModelNumbers]
    pairs: list[Pair]


class Pass(Struct):
    model: Name
    attack: Name
    eps: Eps
    units: Count = 0
    lines: Count = 0


class Kept(Struct):
    """A kept example."""

    model: Name
    attack: Name
    id: Whole
    label: Label
    success: bool
    robust: bool
    clean_prediction: Label | None
    clean_confidence: Fraction | None
    prediction: Label | None
    confidence: Fraction | None
    clean: Picture
    adv: Picture
    delta: Picture | None = None
    heat_clean: Picture | None = None
    heat_adv: Picture | None = None
    heat_same: Picture | None = None
    heat_scale: Size | None = None
    heat_zero: list[Text] | None = None


class Moved(Struct):
    """A mean rank correlation with its interval."""

    mean: float | None
    low: float | None
    high: float | None
    n: Count


class Heat(Struct):
    reason: Text | None
    layer: Text | None
    maps: Count
    zero: Count
    shift: dict[str, Moved] = {}


class AuditCheck(Struct):
    """A check of an audit."""

    name: Text
    title: Name
    status: Text
    measured: Text
    advice: Text
    source: Text
    numbers: Json = {}


class Audit(Struct):
    n: Count
    tolerated: Fraction
    checks: Annotated[list[AuditCheck], Meta(max_length=1000)]


class Column(Struct):
    key: Text
    label: Text = ""
    unit: Text = ""


class Section(Struct):
    name: Text
    columns: Annotated[list[Column], Meta(max_length=1000)] = []
    rows: list[dict[str, Share | Scalar | list[Scalar]]] = []
    note: Text | None = None
    n: Count | Text | None = None
    interval: Text | None = None
    images: Annotated[list[Picture], Meta(max_length=1000)] = []


class Transferred(Struct):
    source: Name
    target: Name
    white_box: bool
    turned: Share | None
    errors: Count
    reason: Text | None


class Board(Struct):
    """The section of the transfer matrix."""

    attack: Text
    rows: Annotated[list[Transferred], Meta(max_length=1_000_000)]


class Detected(Struct):
    model: Name
    detector: Text
    attacker: Text
    auroc: Share
    tpr: Share
    fpr: Share
    wrong: Share
    unnoticed: Share


class Detections(Struct):
    """The section of the detectors."""

    attack: Text
    steps: Some
    rows: Annotated[list[Detected], Meta(max_length=1_000_000)]
    n: Count
    interval: Text
    note: Text | None = None


class Times(Struct):
    started: Text = ""
    finished: Text = ""
    seconds: Size = 0
    audit: Size = 0


class Operational(Struct):
    batch_size: Some | None = None


class Run(Struct):
    """run.json."""

    schema_version: Count
    finished: bool
    name: Text
    config: Config
    config_hash: Text
    seed: Whole
    warnings: list[Text]
    times: Times
    kind: Text = "attack"
    command: Text | None = None
    suite: Text | None = None
    eps_typed: Annotated[str, Meta(max_length=100)] | Real | None = None
    perturbation_scale: Size = 0
    versions: Json = {}
    git: Json | None = None
    operational: Operational = msgspec.field(default_factory=Operational)
    data: Data = msgspec.field(default_factory=Data)
    models: Annotated[list[Model], Meta(max_length=1000)] = []
    surrogates: Annotated[list[Model], Meta(max_length=1000)] = []
    aggregates: Aggregates | None = None
    passes: list[Pass] = []
    files: Annotated[list[Text], Meta(max_length=1_000_000)] = []
    images: Annotated[list[Kept], Meta(max_length=1_000_000)] = []
    heatmaps: dict[str, Heat] = {}
    audit: dict[str, Audit] = {}
    sections: Annotated[list[Json], Meta(max_length=1000)] = []


class Sample(Struct):
    """A line of data.jsonl."""

    id: Whole
    label: Label
    hash: Text = ""
    factors: dict[str, Scalar] | None = None
