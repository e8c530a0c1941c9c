"""Compare the libraries that could draw the report's timeline: 100,000 bars in a page that opens from a disk.

Prints for each how large the page is, how long it takes to open and to zoom in headless Chromium (as the page itself
sees it, until it answers again). It installs nothing: ``pip install playwright plotly bokeh altair
vl-convert-python`` gives all; what is missing is left out.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
ROWS = 8
COLOURS = ("#2e8b57", "#d9a400", "#c0392b")
VENDOR = Path(__file__).parents[1] / "runner" / "page" / "vendor"
Bars = list[tuple[int, float, float, int]]
"""Row, start and end in seconds, the number of a colour."""

SETTLED = """async () => {
  let quick = 0;
  let last = performance.now();
  let settled = last;
  while (quick < 4) {
    const now = await new Promise(requestAnimationFrame).then(() => performance.now());
    if (now - last > 50) [quick, settled] = [0, now];
    else quick += 1;
    last = now;
  }
  return settled / 1000;
}"""
"""When (seconds since the page was asked for) the page had drawn all it had to."""


def echarts(bars: Bars) -> str:
    """Apache ECharts, one custom shape a row and colour; data and library packed as in the report."""
    rows: list[list[list[tuple[float, float]]]] = [[[] for _ in COLOURS] for _ in range(ROWS)]
    for row, start, end, colour in bars:
        rows[row][colour].append((start, end))
    numbers = json.dumps({"rows": rows, "colours": COLOURS, "most": bars[-1][2]}).encode()
    packed = ((VENDOR / "charts.js.gz").read_bytes(), gzip.compress(numbers))
    charts, data = (base64.b64encode(part).decode() for part in packed)
    page = Path(__file__).with_suffix(".html").read_text()
    return page.replace("@charts@", charts).replace("@data@", data)


def plotly(bars: Bars) -> str:
    """Plotly.js, horizontal bars with a base, one trace a colour."""
    import plotly.graph_objects as go

    figure = go.Figure(layout={"barmode": "overlay", "width": 1200, "height": 400})
    for number, colour in enumerate(COLOURS):
        row, start, end, _ = zip(*[bar for bar in bars if bar[3] == number], strict=True)
        length = [one - other for one, other in zip(end, start, strict=True)]
        figure.add_bar(y=row, base=start, x=length, orientation="h", marker={"color": colour, "line": {"width": 0}})
    middle = bars[len(bars) // 2][1]
    zoom = (
        f"Plotly.relayout(document.querySelector('.js-plotly-plot'), {{'xaxis.range': [{middle}, {middle * 1.04}]}})"
    )
    return figure.to_html(include_plotlyjs=True, post_script=f"window.zoom = () => {zoom}; window.drawn = true")


def bokeh(bars: Bars) -> str:
    """Bokeh, quads on a canvas, INLINE."""
    from bokeh.embed import file_html
    from bokeh.plotting import figure
    from bokeh.resources import INLINE

    row, start, end, colour = zip(*bars, strict=True)
    plot = figure(width=1200, height=400, tools="xwheel_zoom,xpan")
    low, high = [one - 0.4 for one in row], [one + 0.4 for one in row]
    fill = [COLOURS[one] for one in colour]
    plot.quad(left=start, right=end, bottom=low, top=high, fill_color=fill, line_color=None)
    middle = bars[len(bars) // 2][1]
    ends = f"{{start: {middle}, end: {middle * 1.04}}}"
    script = f"""<script>
      window.zoom = () => Bokeh.documents[0].roots()[0].x_range.setv({ends});
      const look = () => (window.drawn = window.Bokeh?.documents[0]?.is_idle) || requestAnimationFrame(look);
      look();
    </script>"""
    return file_html(plot, INLINE).replace("</body>", script + "</body>")


def altair(bars: Bars) -> str:
    """Vega-Lite by Altair, rectangles on a canvas, inline."""
    import altair as alt

    alt.data_transformers.disable_max_rows()
    values = [{"r": row, "a": start, "b": end, "c": COLOURS[colour]} for row, start, end, colour in bars]
    low, high = alt.param(name="low", value=0), alt.param(name="high", value=bars[-1][2])
    x = alt.X("a:Q", scale=alt.Scale(domainMin=low, domainMax=high, nice=False))
    chart = alt.Chart(alt.Data(values=values), width=1100, height=400).mark_bar(clip=True)
    chart = chart.encode(x=x, x2="b:Q", y="r:N", color=alt.Color("c:N", scale=None)).add_params(low, high)
    middle = bars[len(bars) // 2][1]
    then = f""".then(({{ view }}) => {{ window.drawn = true;
      window.zoom = () => view.signal("low", {middle}).signal("high", {middle * 1.04}).runAsync(); }})"""
    page = chart.to_html(inline=True)
    end = page.index(")", page.index("embedOpt", page.rindex("vegaEmbed("))) + 1
    return page[:end] + then + page[end:]


def main() -> None:
    """Draw the same bars with each library and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bars", type=int, default=100_000)
    bars = some_bars(parser.parse_args().bars)
    print(f"{'library':<10} {'bytes':>12} {'drawn (s)':>10} {'zoomed (s)':>11}")
    libraries: tuple[Callable[[Bars], str], ...] = (echarts, plotly, bokeh, altair)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        for library in libraries:
            page = Path(folder, f"{library.__name__}.html")
            try:
                page.write_text(library(bars))
            except ImportError as error:
                print(f"{library.__name__:<10} left out: {error}")
                continue
            drawn, zoomed = measured(browser, page)
            print(f"{library.__name__:<10} {page.stat().st_size:>12,} {drawn:>10.2f} {zoomed:>11.2f}", flush=True)
        browser.close()


def measured(browser: Any, file: Path) -> tuple[float, float]:
    """Return how many seconds a page took to be drawn, and to zoom to a fiftieth of it."""
    tab = browser.new_page(viewport={"width": 1280, "height": 720})
    tab.set_default_timeout(180_000)
    tab.on("pageerror", lambda error: print(error, file=sys.stderr))
    tab.goto(file.as_uri(), wait_until="commit")
    tab.wait_for_function("window.drawn")
    drawn = tab.evaluate(SETTLED)
    start = tab.evaluate("async () => { const now = performance.now() / 1000; await window.zoom(); return now; }")
    zoomed = tab.evaluate(SETTLED) - start
    tab.close()
    return drawn, zoomed


def some_bars(count: int) -> Bars:
    """Return so many bars in the order of their starts: generations of 2 to 6 s on each of the rows."""
    chance = random.Random(1)
    free = [0.0] * ROWS
    bars = []
    for number in range(count):
        row = number % ROWS
        start = free[row] + chance.uniform(0, 0.3)
        free[row] = start + chance.uniform(2, 6)
        bars.append((row, round(start, 2), round(free[row], 2), chance.choices((0, 1, 2), (90, 7, 3))[0]))
    return bars


if __name__ == "__main__":
    main()
