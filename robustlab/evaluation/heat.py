"""Where a model looks, as a study of a run: the heat inside a sticker, a patch or a trigger, beside bare images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from robustlab.base.errors import RunError, UserError
from robustlab.base.pictures import enlarged, png, sheet
from robustlab.evaluation.running import rows_of, table
from robustlab.evaluation.studies.base import AnyJob
from robustlab.explain.regions import heat_shares, own_colours

Json = dict[str, Any]


def heat_rows(
    job: AnyJob,
    model: nn.Module,
    versions: Mapping[str, Tensor],
    inside: Tensor,
    *,
    shown: int,
    column: str,
    colours: Callable[[Tensor], Tensor] = own_colours,
    more: Mapping[str, str] | None = None,
) -> Json:
    """`rows`, for each version of the images its name in `column` and the heat inside the region; or the `reason`.

    versions, inside: as `heat_shares` takes them. The run gets heat.png: the first `shown` images of each version above
    their maps. colours: makes images of maps (N, H, W). more: further columns.
    """
    try:
        maps, shares = heat_shares(model, versions, inside)
    except (UserError, RunError) as error:  # a network without a map: the rest of the run goes on
        return {"rows": [], "reason": str(error)}
    pictures = []
    for name, images in versions.items():
        pictures += [enlarged(images[:shown].cpu().expand(-1, 3, -1, -1)), colours(maps[name][:shown])]
    job.run.write_image("heat.png", png(sheet(pictures, 1)))
    return {"rows": [{**(more or {}), column: name, **each} for name, each in shares.items()]}


def heat_section(done: Mapping[str, Json], columns: Sequence[tuple[str, str, str]], note: str) -> Json:
    """The section of such a study: its rows, the sheet, and after the note why there is none."""
    rows = rows_of(done)
    reasons = [f" No heatmaps: {value['reason'].rstrip('.')}." for value in done.values() if "reason" in value]
    return table(columns, rows, note=note + "".join(reasons), images=["images/heat.png"] if rows else [])
