"""Plain SVG charts, written by hand: bars for ratios, a line for memory."""

from dataclasses import dataclass
from html import escape

_WIDTH = 820
_STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#222}"
    ".t{font-weight:600;font-size:15px}.g{stroke:#ddd}.b{fill:#2a6f97}"
    ".l{fill:none;stroke:#2a6f97;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.g{stroke:#444}.b{fill:#61a5c2}"
    ".l{stroke:#61a5c2}}</style>"
)


def _svg(height: int, title: str, body: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
            f' role="img" aria-label="{escape(title)}">',
            _STYLE,
            f'<text class="t" x="10" y="22">{escape(title)}</text>',
            *body,
            "</svg>\n",
        ]
    )


def bars(title: str, values: list[tuple[str, float, str]]) -> str:
    """One bar for each (name, share of 1, what is written behind it)."""
    left, full = 250, 430
    height = 60 + 28 * len(values)
    body = []
    for tenth in range(0, 11, 2):
        x = left + full * tenth / 10
        body.append(f'<line class="g" x1="{x}" y1="36" x2="{x}" y2="{height - 22}"/>')
        body.append(f'<text x="{x - 9}" y="{height - 6}">{tenth / 10:.1f}</text>')
    for number, (name, share, note) in enumerate(values):
        y, wide = 42 + 28 * number, full * min(share, 1.0)
        body.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        body.append(f'<rect class="b" x="{left}" y="{y}" width="{wide:.1f}" height="20"/>')
        body.append(f'<text x="{left + wide + 6:.1f}" y="{y + 15}">{escape(note)}</text>')
    return _svg(height, title, body)


@dataclass(frozen=True)
class Panel:
    """A small chart of its own scale: values over seconds, and what is said of it."""

    title: str
    unit: str
    seconds: list[float]
    values: list[float]
    note: str = ""


def panels(title: str, found: list[Panel]) -> str:
    """Two columns of small charts."""
    body: list[str] = []
    for number, one in enumerate(found):
        body += _panel(one, 10 + 405 * (number % 2), 50 + 130 * (number // 2))
    return _svg(70 + 130 * ((len(found) + 1) // 2), title, body)


def _panel(one: Panel, left: float, top: float) -> list[str]:
    wide, high = 380, 80
    most, end = max(one.values) * 1.15 or 1.0, one.seconds[-1] or 1.0
    points = " ".join(
        f"{left + wide * at / end:.1f},{top + high * (1 - value / most):.1f}"
        for at, value in zip(one.seconds, one.values, strict=True)
    )
    scale = f"0 to {most:,.0f} {one.unit}".rstrip()
    told = f"{one.title}: {scale}{', ' + one.note if one.note else ''}"
    return [
        f'<text x="{left}" y="{top - 6}">{escape(told)}</text>',
        f'<line class="g" x1="{left}" y1="{top + high}" x2="{left + wide}" y2="{top + high}"/>',
        f'<polyline class="l" points="{points}"/>',
        f'<text x="{left + wide}" y="{top + high + 14}" text-anchor="end">{end:.0f} s</text>',
    ]


def line(title: str, values: list[float], unit: str) -> str:
    """One line from zero up, a value a second."""
    left, top, wide, high = 70, 40, 720, 200
    most = max(values) * 1.15
    body = []
    for quarter in range(5):
        y = top + high * (1 - quarter / 4)
        body.append(f'<line class="g" x1="{left}" y1="{y}" x2="{left + wide}" y2="{y}"/>')
        label = f"{most * quarter / 4:.0f} {unit}"
        body.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{label}</text>')
    last = max(1, len(values) - 1)
    points = " ".join(
        f"{left + wide * n / last:.1f},{top + high * (1 - value / most):.1f}"
        for n, value in enumerate(values)
    )
    body.append(f'<polyline class="l" points="{points}"/>')
    end = f"{len(values)} s"
    body.append(f'<text x="{left + wide}" y="{top + high + 20}" text-anchor="end">{end}</text>')
    return _svg(top + high + 30, title, body)
