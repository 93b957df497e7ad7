"""Several fits of one sticker: what the seed of the fit changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import stdev

from robustlab.base.intervals import mean_share
from robustlab.evaluation.running import table
from robustlab.evaluation.studies.base import Study
from robustlab.physical.fit_in_run import fit_in_run
from robustlab.physical.measure import answers, judged
from robustlab.physical.sticker import Sticker
from robustlab.physical.studies import NEAR, STICKER, Fit, Json, StickerJob

KEYS = ("success", "misread", "near_success")


class Seeds(Study[StickerJob]):
    """The same attack fitted with each of `job.seeds` seeds, judged in the same scenes: each, their mean and spread."""

    name = "seeds"

    def parts(self) -> Sequence[str]:
        first, count = self.job.seed, self.job.seeds
        return [str(seed) for seed in range(first, first + count)] if count > 1 else []

    def seconds(self, part: str) -> float:
        return Fit(self.job).seconds(STICKER) if int(part) != self.job.seed else 1.0

    def work(self, part: str) -> Json:
        job, seed = self.job, int(part)
        sticker = job.sticker(STICKER) if seed == job.seed else self._fitted(seed)
        rows = []
        for model in job.models:
            row: Json = {"seed": seed, "model": model.name}
            for where, ranges in (("", None), ("near_", NEAR)):
                found = answers(model, sticker, judged(sticker, job.n, job.seed, ranges), job.size).summary()
                row |= {f"{where}{key}": value for key, value in found.items()}
            rows.append(row)
        return {"rows": rows}

    def _fitted(self, seed: int) -> Sticker:
        job, name = self.job, f"{STICKER}-seed-{seed}"
        return fit_in_run(job.run, job.attack, job.models[0], job.size, seed, name, job.listener)[0]

    def section(self, done: Mapping[str, Json]) -> Json:
        columns = [
            ("model", "Model", ""),
            ("seed", "Seed of the fit", ""),
            ("success", self.job.aim.capitalize(), ""),
            ("misread", "Read wrong", ""),
            ("near_success", f"{self.job.aim.capitalize()}, near", ""),
            ("spread", "Standard deviation, near", "points"),
        ]
        rows = [row for value in done.values() for row in value["rows"]]
        shown = []
        for name in dict.fromkeys(row["model"] for row in rows):
            own = [row for row in rows if row["model"] == name]
            shown += [*own, {"model": name, "seed": "mean", **over_seeds(own)}]
        note = (
            "The same scenes for every seed. In the rows of the mean, n is the number of fits, and the interval is a"
            " 95 % t interval of the mean over them. The sticker of the other sections is that of seed"
            f" {self.job.seed}."
        )
        return table(columns, shown, n=self.job.n, note=note)


def over_seeds(rows: Sequence[Json]) -> Json:
    """The mean over several fits of each share, and the standard deviation of `near_success` in percentage points.

    A fit without a scene in which the bare sign is read right does not count.
    """
    values = {key: [row[key]["value"] for row in rows if row[key]["value"] is not None] for key in KEYS}
    near = values["near_success"]
    return {
        **{key: mean_share(each) for key, each in values.items()},
        "spread": round(100 * stdev(near), 1) if len(near) > 1 else None,
    }
