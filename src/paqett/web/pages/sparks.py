"""Sparklines: a series' last day as a small drawing, made here, so that it needs no script."""

from markupsafe import Markup

from paqett.charts import Line

_WIDTH, _HEIGHT, _EDGE = 120, 32, 2


def spark(line: Line, from_: int, to: int) -> Markup:
    """An SVG of the line between two moments in ms; what it says stands beside it as text."""
    present = [value for value in line.values if value is not None]
    if not present or to <= from_:
        return Markup("")
    low, high = min(present), max(present)
    paths = " ".join(_piece(piece, (from_, to), (low, high)) for piece in _pieces(line))
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" width="{}" height="{}" aria-hidden="true"'
        ' preserveAspectRatio="none"><path d="{}"/></svg>'
    ).format(_WIDTH, _HEIGHT, _WIDTH, _HEIGHT, paths)


def _pieces(line: Line) -> list[list[tuple[int, float]]]:
    pieces: list[list[tuple[int, float]]] = [[]]
    for time, value in zip(line.times, line.values, strict=True):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append((time, value))
    return [piece for piece in pieces if piece]


def _piece(
    piece: list[tuple[int, float]], span: tuple[int, int], values: tuple[float, float]
) -> str:
    width, height = _WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE
    across = (values[1] - values[0]) or 1.0
    flat = values[1] == values[0]
    places = []
    for time, value in piece:
        x = _EDGE + width * (time - span[0]) / (span[1] - span[0])
        share = 0.5 if flat else (value - values[0]) / across
        places.append(f"{x:.1f} {_EDGE + height * (1 - share):.1f}")
    return "M" + "L".join(places) + ("h.01" if len(places) == 1 else "")
