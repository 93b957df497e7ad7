"""What a study is: a question asked in a run, its independent parts, and the section that comes of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from robustlab.base.progress import Piece
from robustlab.evaluation.cascade import Task
from robustlab.evaluation.estimate import Timing
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.plan import Plan
from robustlab.runs import PartsFolder, Run

Json = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A run at work, as its studies see it.

    plan: what was settled before. run: its folder. tasks: the attacked models, and how each is attacked. timings: of
    each model, for guesses of time. finished: is told the key and the name of a piece of work that is done.
    """

    plan: Plan
    run: Run
    tasks: Sequence[Task]
    timings: Mapping[str, Timing]
    listener: Listener
    finished: Callable[[Hashable, str], None]


class AnyJob(Protocol):
    """What the engine asks of a job, whatever its kind."""

    @property
    def run(self) -> PartsFolder: ...
    @property
    def listener(self) -> Listener: ...
    @property
    def finished(self) -> Callable[[Hashable, str], None]: ...


J = TypeVar("J", bound=AnyJob)


class Study(ABC, Generic[J]):
    """A question asked in a run; J is the kind of job, for an attack `Job`.

    `robustlab.evaluation.engine` shares the parts among the processes, skips those that are done, stores each under its
    name when it is finished, shows progress, and goes on to the next study when all are done. What a model raises in
    `work` costs only that part: `failed` then has its name and the reason, and it is tried again on resume. See
    `tests/evaluation/studies/test_toy_study.py` for a study in twenty lines.
    """

    name: ClassVar[str]

    def __init__(self, job: J) -> None:
        self.job = job
        self.failed: dict[str, str] = {}  # when `section` and `fields` are asked: part -> reason

    @abstractmethod
    def parts(self) -> Sequence[str]:
        """The names of the independent pieces of its work, which any process may do in any order; none: nothing to do.

        They follow from the plan alone, so that every process lists the same.
        """

    @abstractmethod
    def work(self, part: str) -> Json | None:
        """One piece; what comes back is stored. None: it has stored what it found itself, as units."""

    def section(self, done: Mapping[str, Json]) -> Json | None:
        """The section of run.json that comes of the parts; the page shows one that it does not know as a table."""
        return None

    def fields(self, done: Mapping[str, Json]) -> Json:
        """Other fields of run.json."""
        return {}

    def seconds(self, part: str) -> float:
        """A guess of how long a part takes."""
        return 1.0

    def pieces(self, part: str) -> list[Piece]:
        """A part as progress shows it."""
        return [Piece((self.name, part), f"{self.name}: {part}", self.name, self.seconds(part))]
