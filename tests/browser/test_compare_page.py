"""The comparison as a person sees it, at a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from playwright.sync_api import Locator, Page, expect

from client.local import LocalStack
from store import models
from store.database import Database
from tests import comparisons, rows
from tests.comparisons import MET, environment
from tests.measured import child, evaluated, measured

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>\u202e' + "wide" * 30
NOT_MET = MET.model_copy(update={"outcome": "not_met", "explanation": "It lost too much."})


@pytest.fixture(scope="module")
def address(stack: LocalStack) -> Iterator[str]:
    """Where four models are compared, the last of them measured on another host too."""
    database = Database(f"sqlite:///{stack.home / 'accel.sqlite3'}")
    with database.write() as session:
        base, _ = models.register(session, name=HOSTILE, sha256="0" * 64, size_bytes=90, summary=rows.SUMMARY)
    made = [child(database, base.id, step)[0] for step in ("quantize_static", "convert_float16", "quantize_weights")]
    _measure(database, base.id, made)
    database.dispose()
    return f"{stack.url}/v1/compare?" + "&".join(f"model={one}" for one in [*made, base.id]) + "&format=html"


def _measure(database: Database, base: UUID, made: list[UUID]) -> None:
    verdicts = (MET, MET, NOT_MET)
    evaluated(
        database,
        {
            base: comparisons.evaluation(0.9).result,
            **{
                one: comparisons.evaluation(
                    0.895 - 0.02 * place, drop=0.005 + 0.02 * place, verdict=verdicts[place]
                ).result
                for place, one in enumerate(made)
            },
        },
        environment(),
    )
    timed = {
        base: comparisons.measurement(2.0).result,
        **{
            one: comparisons.measurement(ms, speedup=2 / ms).result
            for one, ms in zip(made, (0.5, 1.9, 0.2), strict=True)
        },
    }
    profile = {"runs": 9, "run_ms": 2.0, "layers": [], "operators": [_operator("Conv", 0.8), _operator("Relu", 0.2)]}
    why = [{"kind": "float_island", "share": 0.3, "text": "3 float islands take 30 % of its time."}]
    slow = comparisons.measurement(1.9, speedup=2 / 1.9, profile=profile, why=why).result
    measured(database, timed | {made[1]: slow}, environment())
    other = {base: comparisons.measurement(9.0, environment="there").result}
    measured(database, other, environment(cpu="EPYC", cores=64, fingerprint="there"), ("The host was busy.",))


def _operator(name: str, share: float) -> dict[str, object]:
    return {"name": name, "operator": name, "calls": 1, "milliseconds": 2 * share, "share": share}


def first_view(page: Page) -> Locator:
    return page.locator("section.view").first


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["desk", "phone"])
def opened(page: Page, address: str, request: pytest.FixtureRequest) -> Page:
    width, scheme = request.param
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.goto(address)
    return page


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_the_first_screen_says_which_one_to_take(opened: Page) -> None:
    said = opened.locator(".headline")
    expect(said).to_contain_text("Take <img")
    expect(said).to_contain_text("+ quantize_static: 4.00×")  # noqa: RUF001
    box = said.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 800
    expect(opened.locator("tr.taken")).to_have_count(1)


def test_the_page_is_as_wide_as_the_screen_even_with_everything_open(opened: Page) -> None:
    assert overflow(opened) == 0
    opened.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert overflow(opened) == 0


def test_both_plots_have_a_point_and_error_bars_for_each_model(opened: Page) -> None:
    for kind in ("speed", "size"):
        plot = first_view(opened).locator(f'svg[data-plot="{kind}"]')
        expect(plot).to_be_visible()
        expect(plot.locator("a.mark")).to_have_count(4)
        expect(plot.locator(".bars path")).to_have_count(8 if kind == "speed" else 4)
        expect(plot.locator("path.front")).to_have_count(1)
        frame = plot.bounding_box()
        assert frame is not None
        for mark in plot.locator(".point").all():
            box = mark.bounding_box()
            assert box is not None
            assert frame["x"] <= box["x"] <= frame["x"] + frame["width"]
            assert frame["y"] <= box["y"] <= frame["y"] + frame["height"]


def test_numbers_in_the_plots_hide_neither_each_other_nor_points(opened: Page) -> None:
    for plot in first_view(opened).locator("svg.plot").all():
        boxes = [box for number in plot.locator(".number").all() if (box := number.bounding_box())]
        points = [box for point in plot.locator(".point").all() if (box := point.bounding_box())]
        assert len(boxes) == 4
        for place, box in enumerate(boxes):
            middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            for other in (*boxes[:place], *points):
                inside = (
                    other["x"] < middle[0] < other["x"] + other["width"]
                    and other["y"] < middle[1] < other["y"] + other["height"]
                )
                assert not inside


def test_details_open_by_the_keyboard_and_by_a_point(opened: Page) -> None:
    summary = opened.locator("details.model > summary").nth(2)
    summary.focus()
    opened.keyboard.press("Enter")
    expect(opened.get_by_text("3 float islands take 30 % of its time.")).to_be_visible()
    inner = opened.locator("details.model").nth(2).locator("details.inner > summary")
    inner.first.focus()
    opened.keyboard.press("Space")
    expect(opened.locator("details.model").nth(2).locator("table.classes")).to_be_visible()
    mark = first_view(opened).locator("a.mark").nth(3)
    mark.focus()
    opened.keyboard.press("Enter")
    expect(opened.locator("#model-4")).to_be_visible()


def test_names_and_hosts_are_only_text(opened: Page) -> None:
    expect(opened.locator("img, script, iframe, object")).to_have_count(0)
    expect(first_view(opened).locator("td.model").first).to_contain_text(HOSTILE)


def test_another_environment_is_warned_of_and_shown_apart(opened: Page) -> None:
    expect(opened.locator(".warnings")).to_contain_text("Speed was measured in 2 environments")
    expect(opened.locator(".warnings")).to_contain_text("The host was busy.")
    expect(opened.locator("section.view")).to_have_count(2)
    expect(opened.get_by_text("EPYC").last).to_be_visible()


def test_other_forms_are_a_click_away(opened: Page) -> None:
    with opened.expect_download() as download:
        opened.get_by_role("link", name="CSV").click()
    text = download.value.path().read_text()
    assert text.startswith("model_id,name")
    assert text.count("\n") >= 5
