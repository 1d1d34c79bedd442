"""The page in a browser: it fits, sorts, filters and is readable."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.report.browser import Tab, browser, executable
from tests.scripts.report.pages import Found

PROGRAM = executable()
in_browser = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium here: apt-get install chromium, or name another one in CHROMIUM"
)
WIDER = """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('svg')
    && !e.classList.contains('unseen') && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(PROGRAM or "", tmp_path_factory.mktemp("profile")) as running:
        yield running.tab()


@in_browser
@pytest.mark.parametrize("width", [390, 1440])
def test_it_opens_from_the_disk_without_a_complaint_and_fits(tab: Tab, page: Path, width: int) -> None:
    tab.open(page, width)
    assert tab.run("document.querySelector('.contents').open") == (width > 1000)
    for opened in ("false", "true"):
        tab.run(f"document.querySelectorAll('details').forEach(d => d.open = {opened})")
        assert tab.run("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
        assert tab.run(WIDER) == []
    assert tab.complaints == []
    assert set(tab.requests) == {page.resolve().as_uri()}


@in_browser
def test_plots_are_there_and_large_enough(tab: Tab, page: Path, found: Found) -> None:
    tab.open(page, 390)
    sizes = tab.run("[...document.querySelectorAll('svg.chart')].map(e => [e.clientWidth, e.clientHeight])")
    assert len(sizes) == sum(found.charts.values()) and all(wide > 250 and high > 60 for wide, high in sizes)
    path = "document.querySelector('#reckoning-levels-cpu .chart .series.c1 .line:not(.dashed)')"
    assert tab.run(f"{path}.getTotalLength()") > 50
    assert tab.run(f"getComputedStyle({path}).stroke") == tab.run(
        "getComputedStyle(document.querySelector('#curves-reckoning-levels-cpu .chart .series.c1 .line')).stroke"
    )


def column(article: str, place: int) -> str:
    rows = f"[...document.querySelector('#{article} table').tBodies[0].rows].filter(r => !r.hidden)"
    return f"{rows}.map(r => r.cells[{place}].querySelector('.value')?.firstChild.textContent ?? '')"


def click(article: str, place: int) -> str:
    return f"[...document.querySelectorAll('#{article} table thead tr:last-child button')][{place}].click()"


@in_browser
def test_tables_sort_by_number_and_back(tab: Tab, page: Path) -> None:
    tab.open(page, 1440)
    article = "reckoning-levels-cpu"
    orders = [tab.run(column(article, 2))]
    for _ in range(3):
        tab.run(click(article, 2))
        orders.append(tab.run(column(article, 2)))
    assert orders[1] == sorted(orders[0], key=float) and orders[2] == orders[1][::-1] and orders[3] == orders[0]
    assert orders[0] not in (orders[1], orders[2])
    tab.run(click(article, 4))
    assert tab.run(column(article, 4))[-1] == "–"  # what is missing stays last
    assert tab.run(f"document.querySelectorAll('#{article} th[aria-sort=ascending]').length") == 1
    tab.run(click(article, 0))
    names = tab.run(column(article, 0))
    assert names == sorted(names)
    assert tab.run("valueOf({textContent: '1:02:03', dataset: {}}).number") == 3723


@in_browser
def test_tables_filter_by_words(tab: Tab, page: Path) -> None:
    tab.open(page, 1440)
    details = "document.querySelector('#reckoning-levels-cpu details')"
    tab.run(f"{details}.open = true; window.box = {details}.querySelector('input')")
    shown = f"[...{details}.querySelectorAll('tbody tr')].filter(r => r.checkVisibility()).length"
    assert tab.run(shown) == 8
    for words, rows in {"holds": 1, "new way": 2, "old not run": 1, "nothing": 0, "": 8}.items():
        tab.run(f"box.value = '{words}'; box.dispatchEvent(new Event('input'))")
        assert tab.run(shown) == rows, words


@in_browser
def test_pointing_at_a_point_shows_its_numbers(tab: Tab, page: Path) -> None:
    tab.open(page, 390)
    assert tab.run("document.getElementById('tip').hidden")
    tab.run("""document.querySelector('#reckoning-levels-cpu .hit').dispatchEvent(
        new PointerEvent('pointerover', {bubbles: true, clientX: 380, clientY: 5}))""")
    assert "Old way, 0: published 90.5" in tab.run("document.getElementById('tip').textContent")
    box = tab.run("(r => [r.left, r.right])(document.getElementById('tip').getBoundingClientRect())")
    assert box[0] >= 0 and box[1] <= 390


@in_browser
def test_light_and_dark_are_both_readable(tab: Tab, page: Path) -> None:
    ratio = """(() => { const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(v => v / 255).map(
        v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const paper = light(getComputedStyle(document.body).backgroundColor);
        const ratio = c => { const l = light(c); return (Math.max(l, paper) + .05) / (Math.min(l, paper) + .05); };
        const colour = element => getComputedStyle(element).color;
        const text = ['body', '.note', 'h3 .label', 'nav a'].map(q => colour(document.querySelector(q)));
        const box = document.body.appendChild(document.createElement('i'));
        const lines = [1, 2, 3, 4, 5, 6, 7, 8].map(i => { box.style.color = `var(--c${i})`; return colour(box); });
        return [Math.min(...text.map(ratio)), Math.min(...lines.map(ratio))]; })()"""
    for dark in (False, True):
        tab.open(page, 1440, dark=dark)
        text, lines = tab.run(ratio)
        assert text >= 4.5 and lines >= 3, dark
