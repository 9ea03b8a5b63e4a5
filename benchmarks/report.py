"""Write the tables of `results/*.json` into README.md, between its markers, and draw the charts.

python benchmarks/report.py
"""

import json
import re
from pathlib import Path
from typing import Any

from suite import chart, tables

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE / "README.md"
_BLOCK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def folder(form: str) -> Path:
    """Where results of a form are kept."""
    return RESULTS if form == "full" else RESULTS / form


def read(part: str, where: Path = RESULTS) -> dict[str, Any] | None:
    """The last result of a part."""
    path = where / f"{part}.json"
    return dict(json.loads(path.read_text())) if path.exists() else None


def _origin(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return (
        f"{result['at'][:10]}, {result['form']} form; {machine['cores']} cores ({machine['cpu']}),"
        f" {machine['postgresql']}, {machine['mosquitto']}, Python {machine['python']}."
    )


def fill(text: str) -> str:
    """`text` with the block of each part that has a result replaced."""

    def block(match: re.Match[str]) -> str:
        result = read(match[2])
        if result is None:
            return match[0]
        body = tables.of(match[2], result)
        return f"{match[1]}\n{body}\n\n{_origin(result)}\n\n{match[3]}"

    return _BLOCK.sub(block, text)


def draw(where: Path = RESULTS) -> None:
    """The charts of what has been measured."""
    values = [("COPY, one connection", 1.0, "1.00")]
    for part in ("end_to_end", "series", "duplicates", "transport"):
        for figure in (read(part, where) or {}).get("figures", []):
            share = figure["of_ceiling"]
            note = f"{share:.2f} · {figure['rows_per_second']:,} rows/s"
            values.append((figure["name"], share, note))
    if len(values) > 1:
        svg = chart.bars("Of the COPY ceiling of the same run", values)
        (where / "rates.svg").write_text(svg)
    memory = read("memory", where)
    if memory:
        rows = memory["load"]["rows"]
        svg = chart.line(f"RSS of ingest over {rows:,} rows", memory["rss_mb"], "MB")
        (where / "memory.svg").write_text(svg)

    soak = read("soak", where)
    if soak:
        (where / "soak.svg").write_text(_soaked(soak))


def _soaked(soak: dict[str, Any]) -> str:
    """A panel for each figure of the long run."""
    verdicts = {figure["name"]: "flat" if figure["flat"] else "grows" for figure in soak["figures"]}
    units = {figure["name"]: figure["unit"] for figure in soak["figures"]}
    found = [
        chart.Panel(name, units[name], one["s"], one["values"], verdicts[name])
        for name, one in soak["series"].items()
    ]
    return chart.panels(f"{soak['devices']:,} devices over {soak['seconds']:,} s", found)


def main() -> None:
    """Tables and charts."""
    draw()
    README.write_text(fill(README.read_text()))


if __name__ == "__main__":
    main()
