"""`robustlab scan-model`."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.base.words import cell, counted, visible
from robustlab.cli.app import app
from robustlab.cli.fitted import class_of
from robustlab.cli.flags import DATA_HELP, DATA_PANEL, OWN, SEVERAL, DataFlags, Flag, ModelFlags, check_once
from robustlab.cli.streams import print_json

CLEAN = "road-signs/cnn"  # of the zoo, trained on clean images


@app.command(name="scan-model")
def scan_model(
    model: str,
    /,
    *,
    data: Annotated[str, Parameter(group=DATA_PANEL, help=f"Clean images: {DATA_HELP}.")],
    classes: Annotated[list[str] | None, SEVERAL] = None,
    clean: Annotated[list[str] | None, SEVERAL] = None,
    limit: int = 200,
    steps: int = 300,
    seed: int = 0,
    json: Flag = False,
    files: DataFlags = DataFlags(),
    weights: ModelFlags = ModelFlags(),
    output: Path | None = None,
) -> int:
    """Has a model a backdoor? The smallest trigger for each class (Neural Cleanse), and whether one is far smaller.

    Parameters
    ----------
    model
        As robustlab attack takes it.
    classes
        Only these, 3 or more, by name or number (default: all).
    clean
        Clean models of the same data and classes, searched alike: how large is their largest index? The more, the
        better (default: the zoo's road-signs/cnn for road-signs, else none).
    limit
        How many test images.
    steps
        Of the search, for each class.
    seed
        Of the search.
    json
        Print what was found as JSON.
    output
        A folder for triggers.csv and the pictures (default reports/scan-model-NAME-DATE-TIME).
    """
    files.check(data, models=[model, *(clean or ())])
    check_once("--clean", clean)
    if model in (clean or ()):
        raise UserError(f"{model} is the model that is asked about; --clean takes other ones, known to be clean.")
    weights.check([model])
    for flag, value, least in (("--limit", limit, 1), ("--steps", steps, 1), ("--seed", seed, 0)):
        check_whole(flag, value, least)

    import torch

    from robustlab.base.files import default_folder, give_back, new_folder
    from robustlab.base.given import class_number
    from robustlab.base.pictures import png, sheet
    from robustlab.data import load_data
    from robustlab.defenses.inversion import invert_triggers, stamped
    from robustlab.models.classifier import check
    from robustlab.models.loading import load_model
    from robustlab.models.suitable import suitable

    given = load_model(model, weights=weights.weights, mean=weights.mean, std=weights.std, download=files.download)
    fitting = suitable(data, [given])
    fitting |= {name: value for name, value in files.arguments.items() if value is not None}
    images = load_data(data, "test", limit, **fitting).loaded().images
    check(given, images[:2], None)
    names = given.classes
    wanted = None if classes is None else [class_number(class_of(each, names or ()), names or ()) for each in classes]
    numbers = None if wanted is None else [number for number in wanted if number is not None]
    if clean is None:
        clean = [CLEAN] if data == OWN and model != CLEAN and load_model(CLEAN).shape == tuple(images.shape[1:]) else []
    others = [(name, load_model(name, download=files.download)) for name in clean]
    for name, other in others:
        check(other, images[:2], None)
        if tuple(other.classes or ()) != tuple(names or ()):
            raise UserError(f"{name} has other classes than {model}, and so its indices say nothing. Leave it out.")
    folder = output or default_folder("scan-model", model)
    try:
        with new_folder(folder) as place:
            found = invert_triggers(given, images, numbers, steps=steps, seed=seed)
            null = {
                name: float(invert_triggers(other, images, numbers, steps=steps, seed=seed).index.max())
                for name, other in others
            }
            rows = [
                {
                    "label": label,
                    "class": names[label] if names else str(label),
                    "norm": float(found.norms[i]),
                    "success": float(found.success[i]),
                    "index": float(found.index[i]),
                    "flagged": label in found.flagged,
                }
                for i, label in enumerate(found.classes)
            ]
            text = io.StringIO(newline="")
            table = csv.writer(text)
            table.writerow(rows[0])
            table.writerows([cell(v) if isinstance(v, str) else v for v in row.values()] for row in rows)
            place.write("triggers.csv", text.getvalue().encode())
            for i, label in enumerate(found.classes):
                mask, pattern = found.masks[i], found.patterns[i]
                row = torch.cat([images[:1], stamped(images[:1], mask, pattern), (mask * pattern)[None]])
                place.write(f"triggers/{label}.png", png(sheet([row])))
    finally:
        give_back(folder)

    if json:
        about = {"model": model, "data": data, "n": len(images), "steps": steps, "seed": seed}
        told = {**about, "classes": rows, "largest_index_of_clean_models": null}
        print_json(told)
    lines = [f"{'class':24} {'mask':>8} {'success':>8} {'index':>7}"]
    lines += [f"{r['class']:24} {r['norm']:8.2f} {r['success']:8.3f} {r['index']:7.2f}" for r in rows]
    flagged = [str(row["class"]) for row in rows if row["flagged"]]
    lines.append(f"Anomaly index above 2: {', '.join(flagged) or 'none'} ({len(images)} test images, {steps} steps).")
    if null:
        largest = float(found.index.max())
        reach = sum(value >= largest for value in null.values())
        each = ", ".join(f"{name} {value:.2f}" for name, value in null.items())
        lines.append(f"The largest index here is {largest:.2f}; of clean models, searched alike: {each}.")
        lines.append(
            f"{reach} of {counted(len(null), 'clean model')} reach it. Few models say little: give more, --clean."
        )
    else:
        lines.append("No clean model was searched beside it: train a few on clean images and give them, --clean.")
    lines.append("Clean models exceed 2 often. A trigger whose success is low was not found: try more --steps.")
    lines.append(f"Pictures (image, with trigger, trigger): {folder / 'triggers'}")
    print(*map(visible, lines), sep="\n", file=sys.stderr if json else sys.stdout)
    return 0
