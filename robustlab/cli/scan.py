"""`robustlab scan`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.base.words import visible, visible_json
from robustlab.cli.app import app
from robustlab.cli.flags import DATA_HELP, DATA_PANEL, DataFlags, Flag, ModelFlags
from robustlab.cli.streams import print_json
from robustlab.defenses.filters import FILTERS, filter_class


@app.command
def scan(
    *,
    data: Annotated[str, Parameter(group=DATA_PANEL, help=f"The training set: {DATA_HELP}.")],
    model: str | None = None,
    filter: Annotated[
        str, Parameter(help=f"Of {', '.join(FILTERS)}, one that looks at representations; the default needs no eps.")
    ] = "robust-z",
    limit: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    json: Flag = False,
    files: DataFlags = DataFlags(),
    weights: ModelFlags = ModelFlags(),
    output: Path | None = None,
) -> int:
    """Is a training set poisoned? Rank its images by suspicion, with a contact sheet and the power of the search.

    Parameters
    ----------
    model
        One that was trained on these images, as robustlab attack takes it (default: a small cnn is trained first).
    limit
        Look at the first N training images.
    epochs
        Of the small cnn (default 5, more where there are few images).
    seed
        Of the training and of the planted poisons.
    json
        Print what was found as JSON.
    output
        A folder for suspicious.csv, kept.csv, sheet.png and scan.html (default reports/scan-NAME-DATE-TIME).
    """
    files.check(data, models=[model] if model else [])
    filter_class(filter)
    check_whole("--limit", limit, 1)
    check_whole("--epochs", epochs, 1)
    check_whole("--seed", seed, 0)
    if model is None and any((weights.weights, weights.mean, weights.std)):
        raise UserError("--weights, --mean and --std belong to --model: give it, or leave them out.")
    if model is not None and epochs is not None:
        raise UserError("--epochs is of the cnn that is trained where no --model is given: leave one of them out.")
    if model is not None:
        weights.check([model])

    import msgspec

    from robustlab.backdoors.scan import check_classes, scanner, told
    from robustlab.backdoors.scan import scan as scanned
    from robustlab.backdoors.scan_files import csv_of, page_of, said, sheet_of
    from robustlab.base.files import default_folder, give_back, new_folder
    from robustlab.data import load_data
    from robustlab.data.streamed import LazyImages
    from robustlab.models.loading import load_model
    from robustlab.models.suitable import suitable

    def say(text: str) -> None:
        print(visible(text), file=sys.stderr)

    scanner(filter)
    given = None
    if model is not None:
        given = load_model(model, weights=weights.weights, mean=weights.mean, std=weights.std, download=files.download)
    reading = files.arguments | ({"size": files.pixels or suitable(data, [given])["size"]} if given else {})
    if given and given.shape is not None:
        reading["channels"] = given.shape[0]
    train = load_data(data, "train", limit, **reading)
    check_classes(train)
    for note in train.notes:
        say(f"Warning: {note}")
    val = None
    if given is None:
        shape = train.images.shape
        like = {"size": tuple(shape[2:]), "channels": shape[1]} if isinstance(train.images, LazyImages) else {}
        val = load_data(data, "val", 1000, **reading | like)
    paths = [str(file) for file in train.images.files] if isinstance(train.images, LazyImages) else None
    folder = output or default_folder("scan", data)
    try:
        with new_folder(folder) as place:
            result = scanned(
                train,
                val,
                model=given,
                filter=filter,
                epochs=epochs,
                seed=seed,
                keep=lambda name, content: place.write(f"model/{name}", content),
                say=say,
            )
            found = {**told(result, filter), "seed": seed, "model": model}
            ranked, kept = csv_of(result, paths)
            picture = sheet_of(result)
            place.write("suspicious.csv", ranked)
            place.write("kept.csv", kept)
            place.write("sheet.png", picture)
            place.write("scan.html", page_of(result, picture, found))
            place.write("scan.json", visible_json(msgspec.json.encode(found).decode()).encode())
    finally:
        give_back(folder)
    if json:
        print_json(found)
    lines = [*said(result), f"Page: {folder / 'scan.html'}"]
    print(*map(visible, lines), sep="\n", file=sys.stderr if json else sys.stdout)
    return 0
