"""The page in a real browser: mouse, keyboard, dark, phone and print. Nothing may be asked of the network."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from robustlab.reporting import report
from robustlab.runs import read_run

pytestmark = pytest.mark.browser
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def address(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report([run_folder], tmp_path_factory.mktemp("page") / "report.html").resolve().as_uri()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """visit(**options) opens the page; afterwards there must be no complaint and no request but for the page itself."""
    pages, complaints, requests = [], [], []

    def opened(address: str = address, **options: Any) -> Any:
        page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **options})
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == len(pages)


def visible(page: Any) -> list[dict[str, str]]:
    """The data attributes of the examples that pass the filter."""
    found = "items => items.map(item => ({...item.dataset}))"
    return list(page.locator(".examples li[data-model]:not([hidden])").evaluate_all(found))


def first_column(page: Any, group: int = 0) -> list[str]:
    rows = page.locator("#attacks tbody").nth(group).locator("tr:not(.group) th")
    return [text.split()[0] for text in rows.all_inner_texts()]


def test_every_picture_is_shown(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("details.more").evaluate_all("all => all.forEach(one => { one.open = true; })")
    drawn = page.locator(".strip svg").evaluate_all("all => all.map(one => [one.clientWidth, one.clientHeight])")
    assert len(drawn) > 100 and all(width == height > 50 for width, height in drawn)
    broken = """async () => {
      const uris = [...document.querySelectorAll("image")].map((one) => one.getAttribute("href"));
      const loaded = await Promise.all(uris.map((uri) => new Promise((done) => {
        const image = new Image();
        image.onload = () => done(image.naturalWidth === 32);
        image.onerror = () => done(false);
        image.src = uri;
      })));
      const uses = [...document.querySelectorAll("use")].map((one) => one.getAttribute("href").slice(1));
      return [loaded.filter((one) => !one).length, uses.filter((id) => !document.getElementById(id)).length];
    }"""
    assert page.evaluate(broken) == [0, 0]
    ids = page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))


def test_the_attack_table_sorts_in_each_group_and_comes_back(visit: Callable[..., Any]) -> None:
    page = visit()
    heading = page.locator("#attacks thead th").nth(2)
    before = first_column(page)
    assert before == ["none", "fgsm", "pgd", "pgd-margin"]
    cells = page.locator("#attacks tbody").nth(1).locator("tr:not([data-fixed]) td:nth-child(3)")

    def broken() -> list[int]:
        return [int(text.split("/")[0]) for text in cells.all_inner_texts()]

    natural = broken()
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending" and broken() == sorted(natural) != natural
    assert first_column(page)[0] == "none"
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending" and broken() == sorted(natural, reverse=True)
    name = page.locator("#attacks thead th").nth(0)
    name.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") is None and name.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").click(click_count=3)
    assert page.locator("[aria-sort]").count() == 0 and first_column(page) == before and broken() == natural


@pytest.mark.parametrize(
    ("field", "chosen", "fits"),
    [
        ("model", "road-signs/cnn-robust", lambda item: item["model"] == "road-signs/cnn-robust"),
        ("attack", "fgsm", lambda item: "0" in item["attack"].split()),
        ("true", "yield", lambda item: item["true"] == "1"),
        ("predicted", "turn right", lambda item: item["predicted"] == "6"),
        ("outcome", "withstood all", lambda item: item["outcome"] == "withstood"),
    ],
)
def test_filters_leave_what_fits(
    visit: Callable[..., Any], field: str, chosen: str, fits: Callable[[dict[str, str]], bool]
) -> None:
    page = visit()
    every = visible(page)
    page.locator(f"select[name={field}]").select_option(label=chosen)
    left = visible(page)
    assert left == [item for item in every if fits(item)] and 0 < len(left) < len(every)
    assert page.locator("output").inner_text() == f"{len(left)} of {len(every)} shown"
    assert page.locator(".examples li[data-model]:not([hidden])").last.is_visible()  # also what was folded away
    page.get_by_role("button", name="Clear filter").click()
    assert visible(page) == every and not page.get_by_role("button", name="Clear filter").is_visible()


def test_a_confusion_cell_filters_the_gallery(visit: Callable[..., Any]) -> None:
    page = visit()
    every = len(visible(page))
    cell = page.locator('#confusion td button[data-model="road-signs/cnn"][data-true="1"][data-predicted="4"]:visible')
    cell.first.click()
    left = visible(page)
    assert left and all((i["model"], i["true"], i["predicted"]) == ("road-signs/cnn", "1", "4") for i in left)
    assert page.locator("output").inner_text() == f"{len(left)} of {every} shown"
    assert page.locator("form.filters").is_visible()
    assert page.evaluate("document.activeElement.textContent") == "Clear filter"
    page.keyboard.press("Enter")
    assert len(visible(page)) == every


def test_a_cell_filters_the_gallery_of_its_own_run(
    visit: Callable[..., Any], run_folder: Path, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    other = write_run(tmp_path / "other", n=60)  # the same models on other samples: not comparable
    page = visit(report([run_folder, other], tmp_path / "report.html").as_uri())
    page.locator('#confusion button[data-run="other"]:visible').first.click()
    first, second = page.locator("output").all_inner_texts()
    whole, part = (text.split() for text in (first, second))
    assert whole[0] == whole[2] and int(part[0]) < int(part[2])


def test_a_cell_without_an_example_says_so(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("select[name=true]").select_option(label="yield")
    page.locator("select[name=predicted]").select_option(label="roundabout")
    assert visible(page) == [] and page.get_by_text("No example that is kept fits this filter").is_visible()


def test_zoom_blink_and_arrows_by_keyboard_alone(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("select[name=model]").select_option(label="road-signs/cnn")
    shown = visible(page)
    opener = page.locator(".enlarge").first
    opener.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#zoom")
    place, told = dialog.locator("[data-part=place]"), dialog.locator("[data-part=told]")
    assert dialog.is_visible() and place.inner_text() == f"1 of {len(shown)}"
    picture = dialog.locator("[data-part=picture] svg")
    assert picture.get_attribute("data-view") == "adv" and picture.bounding_box()["width"] > 400
    assert dialog.locator("[data-part=views] button").count() == 6
    page.keyboard.press("ArrowRight")
    assert place.inner_text().startswith("2 of") and f"sample {shown[1]['id']}" in told.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert place.inner_text() == f"{len(shown)} of {len(shown)}"
    assert f"sample {shown[-1]['id']}" in told.inner_text()

    page.keyboard.press("b")
    assert dialog.locator("[data-part=blink]").get_attribute("aria-pressed") == "true"
    for view in ("clean", "adv", "clean"):  # as long as it takes: the clock of the browser decides
        dialog.locator(f'[data-part=picture] svg[data-view="{view}"]').wait_for()
    page.keyboard.press("b")
    stopped = picture.get_attribute("data-view")
    page.wait_for_timeout(700)
    assert picture.get_attribute("data-view") == stopped

    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert opener.evaluate("one => one === document.activeElement")


def test_the_zoom_shows_each_picture_and_its_caption(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator(".enlarge").first.click()
    views = page.locator("#zoom [data-part=views] button")
    captions = []
    for at in range(views.count()):
        views.nth(at).click()
        assert views.nth(at).get_attribute("aria-pressed") == "true"
        captions.append(page.locator("#zoom [data-part=caption]").inner_text())
    assert captions[:3] == ["clean image", "perturbation", "attacked image"]
    assert [caption.split(" for ")[0] for caption in captions[3:]] == [
        *("Grad-CAM of the clean image", "Grad-CAM of the attacked image", "Grad-CAM of the attacked image")
    ]
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#zoom").is_visible()


def test_the_keyboard_reaches_every_control(visit: Callable[..., Any]) -> None:
    page = visit()
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        kind = page.evaluate("(document.activeElement.className || document.activeElement.localName).split(' ')[0]")
        reached.add(kind)
        if page.evaluate("document.activeElement.dataset.as") == "columns":
            break
    assert reached >= {"a", "sort", "select", "enlarge", "summary", "wide", "button"}


def test_downloads_are_what_the_run_says(visit: Callable[..., Any], run_folder: Path) -> None:
    page = visit()

    def saved(name: str) -> tuple[str, str]:
        with page.expect_download() as waiting:
            page.get_by_role("button", name=name).click()
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_text(encoding="utf-8")

    run = read_run(run_folder)
    name, text = saved("The run, JSON")
    assert name == "road-signs-demo.json" and msgspec.json.decode(text) == run.info
    name, text = saved("Attack table, CSV")
    assert name == "road-signs-demo-attacks.csv" and len(list(csv.reader(io.StringIO(text)))) == 1 + 6
    name, text = saved("Each sample, CSV")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert name == "road-signs-demo-samples.csv" and len(rows) == 300
    lines = {(line.model, line.attack, line.id): line for line in run.lines if line.eps in (0, 8 / 255)}
    for row in rows:
        for model in ("road-signs/cnn", "road-signs/cnn-robust"):
            assert int(row[f"{model} clean_prediction"]) == lines[model, "clean", int(row["id"])].clean
            line = lines.get((model, "pgd", int(row["id"])))
            assert (row[f"{model} pgd outcome"] == "not tried") == (line is None)
            assert row[f"{model} pgd prediction"] == ("" if line is None else str(line.adv))
            if line is not None:
                assert row[f"{model} pgd outcome"].startswith("fooled") == line.succeeded


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (768, "dark"), (1200, "dark")])
def test_it_fits_the_screen_and_follows_the_system(visit: Callable[..., Any], width: int, scheme: str) -> None:
    page = visit(viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    bright = {name: sum(map(int, colour[4:-1].split(","))) for name, colour in (("paper", paper), ("ink", ink))}
    assert (bright["paper"] > bright["ink"]) == (scheme == "light")
    page.locator(".enlarge").first.click()
    box = page.locator("#zoom").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.locator("#verdict .stack td").nth(1).is_visible()


def test_it_is_whole_without_scripts(visit: Callable[..., Any]) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator(".examples li[data-model]").first.is_visible()
    assert not page.locator("form.filters").is_visible() and not page.get_by_text("The run, JSON").is_visible()
    page.locator("details.more summary").first.click()
    assert page.locator("details.more li").first.is_visible()
    term = page.locator("#verdict a.term").first
    term.click()  # without a script it is a link
    assert page.locator(f"{term.get_attribute('href')} dd").is_visible() and page.locator("#tip").count() == 0


def test_it_prints_without_controls(visit: Callable[..., Any]) -> None:
    page = visit()
    page.emulate_media(media="print")
    for gone in ("nav", "form.filters", "#data", ".enlarge"):
        assert not page.locator(gone).first.is_visible(), gone
    assert page.locator("#attacks thead").get_by_text("Success rate").is_visible()
    assert page.locator("#glossary dd").last.is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_names_stay_names_when_scripts_run(
    visit: Callable[..., Any], write_run: Callable[..., Path], tmp_path: Path
) -> None:
    classes = [EVIL, "</script>", '"><img src=x onerror=alert(1)>', "a,b"]
    folder = write_run(tmp_path / "run", n=60, classes=classes, models={f"m{EVIL}": (0.9, 2.0)})
    page = visit(report([folder], tmp_path / "report.html").as_uri())
    page.locator("#confusion td button:visible").first.click()
    page.get_by_role("button", name="Clear filter").click()
    page.locator(".enlarge").first.click()
    page.keyboard.press("ArrowRight")
    assert page.locator("img:not([src^='data:image/png']), #zoom script").count() == 0
    assert any(name in page.locator("#zoom [data-part=title]").inner_text() for name in classes)


def hash_of(page: Any) -> str:
    return str(page.evaluate("decodeURIComponent(location.hash)"))


def test_what_is_shown_can_be_shared_by_its_address(visit: Callable[..., Any]) -> None:
    page = visit()
    every = visible(page)
    page.locator("select[name=model]").select_option(label="road-signs/cnn")
    page.locator("select[name=outcome]").select_option(label="fooled")
    page.locator("#attacks thead th").nth(2).get_by_role("button").click(click_count=2)
    page.locator(".enlarge:visible").nth(1).click()
    page.keyboard.press("ArrowRight")
    left, rows = visible(page), first_column(page, 1)
    title = page.locator("#zoom [data-part=told]").inner_text()
    assert 0 < len(left) < len(every) and page.evaluate("history.length") == 2  # no new entries

    other = visit(page.url)
    assert visible(other) == left and first_column(other, 1) == rows
    assert other.locator("#attacks thead th").nth(2).get_attribute("aria-sort") == "descending"
    assert other.locator("#zoom").is_visible()
    assert other.locator("#zoom [data-part=told]").inner_text() == title
    other.keyboard.press("Escape")
    assert other.evaluate("document.activeElement.className") == "enlarge" and "zoom" not in hash_of(other)

    for one in (page, other):
        one.keyboard.press("Escape")
        one.get_by_role("button", name="Clear filter").click()
        one.locator("#attacks thead th").nth(2).get_by_role("button").click()
        assert one.evaluate("location.hash") == ""


def test_the_address_is_followed_when_it_changes(visit: Callable[..., Any]) -> None:
    page = visit()
    every = visible(page)
    page.evaluate("location.hash = '#view?true=1&zoom=0&sort=1.ascending'")
    page.wait_for_function("document.querySelector('[aria-sort]')")
    assert {item["true"] for item in visible(page)} == {"1"}
    page.evaluate("location.hash = '#view?outcome=withstood'")
    page.wait_for_function("!document.querySelector('[aria-sort]')")
    assert {item["outcome"] for item in visible(page)} == {"withstood"} and not page.locator("#zoom").is_visible()
    page.get_by_role("link", name="Attacks").click()  # an ordinary anchor: it takes the place of the address, no more
    assert page.evaluate("location.hash") == "#attacks" and len(visible(page)) < len(every)
    page.locator("select[name=outcome]").select_option(label="all")
    assert page.evaluate("location.hash") == "#attacks" and visible(page) == every


@pytest.mark.parametrize(
    "hostile",
    [
        "#view?model=nobody&true=999&outcome=%3Cscript%3E&attack=__proto__&zoom=99999&sort=99.ascending",
        "#view?zoom=-1&sort=0.sideways&sort=constructor&model[]=1",
        "#view?%E0%A4%A&zoom=1e1&=&&&",
        "#view?zoom=toString&true=" + "9" * 5000,
        "#view?",
        "#nowhere",
        "#<img src=x onerror=alert(1)>",
        "#%",
    ],
)
def test_an_address_that_means_nothing_is_ignored(visit: Callable[..., Any], address: str, hostile: str) -> None:
    page = visit(address + hostile)
    shown = page.locator("output").inner_text().split()
    assert shown[0] == shown[2] and page.locator("[aria-sort]").count() == 0
    assert not page.locator("#zoom").is_visible() and page.locator("img[src='x']").count() == 0
    page.locator("select[name=outcome]").select_option(label="fooled")
    assert "outcome=fooled" in hash_of(page)


def test_a_term_is_explained_by_pointer_keyboard_and_touch(visit: Callable[..., Any]) -> None:
    page = visit()
    term, tip = page.locator("#verdict a.term").first, page.locator("#tip")
    meaning = page.locator(f"{term.get_attribute('href')} dd").inner_text()
    assert not tip.is_visible()
    term.hover()
    assert tip.inner_text() == meaning and term.get_attribute("aria-describedby") == "tip"
    tip.hover()
    page.wait_for_timeout(400)
    assert tip.is_visible()  # it can be pointed at, too
    page.keyboard.press("Escape")
    assert not tip.is_visible() and term.get_attribute("aria-describedby") is None
    page.mouse.move(2, 2)

    page.locator("nav a").last.focus()
    page.keyboard.press("Tab")
    assert tip.inner_text() == meaning
    page.keyboard.press("Tab")
    assert not tip.is_visible() or tip.inner_text() != meaning
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == term.get_attribute("href")

    phone = visit(viewport={"width": 390, "height": 844}, has_touch=True)
    term, tip = phone.locator("#verdict a.term").first, phone.locator("#tip")
    term.tap()
    box = tip.bounding_box()
    assert tip.inner_text() == meaning and phone.evaluate("location.hash") == ""
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    phone.locator("h1").tap()
    assert not tip.is_visible()
    term.tap()
    term.tap()
    assert phone.evaluate("location.hash") == term.get_attribute("href")


def test_who_wants_no_motion_swaps_the_images_by_hand(visit: Callable[..., Any]) -> None:
    page = visit(reduced_motion="reduce")
    page.locator(".enlarge").first.click()
    view = page.locator("#zoom [data-part=picture] svg")
    for expected in ("clean", "adv"):
        page.keyboard.press("b")
        page.wait_for_timeout(800)
        assert view.get_attribute("data-view") == expected
        assert page.locator("#zoom [data-part=blink]").get_attribute("aria-pressed") == "false"
