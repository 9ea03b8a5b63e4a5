"""Results as Markdown tables: what is printed, and what stands in README.md."""

from itertools import product
from typing import Any

from suite import tables_of_systems
from suite.markdown import table

Result = dict[str, Any]
_WAYS = ("http", "sql")


def rates(result: Result) -> str:
    """Rates against their ceilings."""
    head = ["", "rows/s", "messages/s", "ceiling before", "after", "of the ceiling", "others"]
    rows = []
    for figure in result["figures"]:
        name = figure["name"]
        if figure["stored"] < figure["rows"] and "QoS 0" in name:
            name += f" ({figure['rows'] - figure['stored']:,} rows lost)"
        rows.append(
            [
                name, f"{figure['rows_per_second']:,}", f"{figure['messages_per_second']:,}",
                f"{figure['ceiling_before']:,}", f"{figure['ceiling_after']:,}",
                f"{figure['of_ceiling']:.2f}", _others(figure),
            ]
        )  # fmt: skip
    return table(head, rows)


def _others(figure: Result) -> str:
    """Cores that processes of somebody else kept busy."""
    return f"{figure['cpu_seconds']['other processes'] / figure['seconds']:.2f}"


def cores(figures: list[Result]) -> str:
    """Which process had how much of a core, and what a message cost it.

    The cost depends far less than the rate on who else uses the machine.
    """
    head = ["cores busy, CPU µs a message", *(figure["name"] for figure in figures)]
    rows = []
    for group in figures[0]["cpu_seconds"]:
        row = [group]
        for figure in figures:
            spent = figure["cpu_seconds"].get(group, 0.0)
            cost = spent / figure["messages"] * 1e6
            row.append(f"{spent / figure['seconds']:.2f} · {cost:5.1f}")
        rows.append(row)
    return table(head, rows)


def ceilings(result: Result) -> str:
    """The ceiling alone."""
    rows = [
        [figure["name"], *(f"{rate:,}" for rate in figure["ceilings"])]
        for figure in result["figures"]
    ]
    return table(["COPY, rows/s", "first", "second", "third"], rows)


def latency(result: Result) -> str:
    """From publish to visible, and ingest's own figures."""
    seen, error = result["visible_ms"], result["error_ms"]
    rows = [
        [f"publish to visible ({result['probes']:,} probes)", str(seen["p50"]), str(seen["p99"])],
        ["of that at most the prober's own", str(error["p50"]), str(error["p99"])],
    ]
    labels = {
        "paqett_ingest_flush_seconds": "ingest: from BEGIN to commit",
        "paqett_ingest_lag_seconds": "ingest: from the reading's time to commit",
    }
    for name, values in result["ingest_ms"].items():
        p50, p99 = (values["p50"], values["p99"]) if values else ("not offered", "not offered")
        rows.append([labels[name], str(p50), str(p99)])
    rate = result["load"]["messages_per_second"]
    return table([f"ms, at {rate:,} messages/s", "p50", "p99"], rows)


def memory(result: Result) -> str:
    """First against last quarter."""
    row = [
        f"{result['load']['rows']:,}", str(result["first_quarter_mb"]),
        str(result["last_quarter_mb"]), f"{result['growth']:+.1%}",
    ]  # fmt: skip
    return table(["rows", "first quarter, MB", "last quarter, MB", "growth"], [row])


def profile(result: Result) -> str:
    """The ten functions with the most time of their own."""
    columns = [figure["top"][:10] for figure in result["figures"]]
    rows = []
    for place in range(max(len(column) for column in columns)):
        row = [str(place + 1)]
        for column in columns:
            top = column[place] if place < len(column) else {"function": "", "own": 0}
            row.append(f"{top['own']:.1%} {top['function']}")
        rows.append(row)
    return table(["", *(figure["name"] for figure in result["figures"])], rows)


def broker(result: Result) -> str:
    """What the broker does with a reader that only acknowledges."""
    head = ["", "messages/s", "rows/s", "of the ceiling", "CPU µs a message"]
    rows = [
        [
            figure["name"], f"{figure['messages_per_second']:,}", f"{figure['rows_per_second']:,}",
            f"{figure['of_ceiling']:.2f}",
            ", ".join(f"{name} {us}" for name, us in figure["cpu_us_a_message"].items()),
        ]
        for figure in result["figures"]
    ]  # fmt: skip
    return table(head, rows)


def sign_in(result: Result) -> str:
    """How long answers take for addresses with an account and without."""
    head = [
        "ms", "known p5", "p50", "p95", "unknown p5", "p50", "p95", "apart", "by chance up to",
    ]  # fmt: skip
    rows = [
        [
            f"{figure['name']} ({figure['samples']} of each)",
            *(str(figure[kind][q]) for kind in ("known", "unknown") for q in ("p5", "p50", "p95")),
            f"{figure['apart']:.2f}", f"{figure['apart_by_chance']:.2f}",
        ]
        for figure in result["figures"]
    ]  # fmt: skip
    return table(head, rows)


def pages(result: Result) -> str:
    """A chart of a long history beside its query, and when pages are first painted."""
    head = ["ms", "drawn after", "its query", "the page's own", "points", "kept"]
    rows = [
        [
            f"{figure['name']} {result['readings']:,} readings ({figure['times']} times)",
            str(figure["ms"]), str(figure["query_ms"]), str(figure["own_ms"]),
            f"{figure['points']:,}", "yes" if figure["kept"] else "no",
        ]
        for figure in result["figures"]
    ]  # fmt: skip
    slowest = f"Slowest frame while hovering: {result['slowest_frame_ms']} ms."
    paints = [[one["page"], str(one["ms"])] for one in result.get("paints", [])]
    shown = [table(["page", "first contentful paint, ms"], paints)] if paints else []
    return "\n\n".join([table(head, rows), slowest, *shown])


def alerts(result: Result) -> str:
    """The same load without and with rules, and what they cost."""
    rows = [
        [
            figure["name"], f"{figure['rules']:,}", f"{figure['rows_per_second']:,}",
            f"{figure['messages_per_second']:,}", str(figure["cpu_us_a_message"]),
        ]
        for figure in result["figures"]
    ]  # fmt: skip
    rows.append(
        ["the rules' cost", "", f"{result['rate_cost']:.1%}", "", f"{result['cpu_cost']:.1%}"]
    )
    return table(["", "rules", "rows/s", "messages/s", "ingest's CPU µs a message"], rows)


def reading(result: Result) -> str:
    """HTTP against SQL, alone and beside ingest; the export; one series among few and many."""
    parts = [_against_sql(result["figures"]), _exported(result["export"])]
    parts += [_grown(result), _slowed(result)]
    return "\n\n".join(parts)


def _verdict(figure: Result) -> str:
    return "yes" if figure["kept"] else "**no**"


def _against_sql(figures: list[Result]) -> str:
    head = ["ms", "HTTP p50", "p95", "SQL p50", "p95", "HTTP / SQL", "allowed", "kept"]
    rows = [
        [
            f"{figure['name']} ({figure['times']:,} of each)",
            *(f"{figure[way][q]:.2f}" for way, q in product(_WAYS, ("p50", "p95"))),
            f"{figure['ratio']:.2f}", f"{figure['allowed']:.2f}", _verdict(figure),
        ]
        for figure in figures
    ]  # fmt: skip
    return table(head, rows)


def _exported(figure: Result) -> str:
    row = [
        f"{figure['name']} ({figure['times']} of each)", f"{figure['http']:,}",
        f"{figure['copy']:,}", f"{figure['share']:.2f}", _verdict(figure),
    ]  # fmt: skip
    return table(["rows/s", "HTTP", "COPY", "HTTP / COPY", "at least 0.8"], [row])


def _grown(result: Result) -> str:
    few, many = f"of {result['few']:,}", f"of {result['readings']:,}"
    head = ["ms, p50", f"HTTP, {few}", many, f"SQL, {few}", many, "HTTP grows by", "at most 1.2"]
    rows = [
        [
            figure["name"],
            *(f"{figure[f'{way}, {size}']:.2f}" for way, size in product(_WAYS, ("few", "many"))),
            f"{figure['growth']:.2f}", _verdict(figure),
        ]
        for figure in result["growth"]
    ]  # fmt: skip
    return table(head, rows)


def _slowed(result: Result) -> str:
    rate, highest = result["load"]["messages_per_second"], result["highest_messages_per_second"]
    head = [
        f"ms, HTTP, at {rate:,} of {highest:,} messages/s", "alone p50", "p95", "beside ingest p50",
        "p95", "slower", "SQL slower", "at most 2",
    ]  # fmt: skip
    rows = [
        [
            figure["name"],
            *(f"{figure[when][q]:.2f}" for when in ("quiet", "busy") for q in ("p50", "p95")),
            f"{figure['slower']:.2f}", f"{figure['sql_slower']:.2f}", _verdict(figure),
        ]
        for figure in result["busy"]
    ]  # fmt: skip
    return table(head, rows)


def export_all(result: Result) -> str:
    """The archive against COPY of the same rows, and the worker's memory."""
    rows = [
        [
            "COPY … TO STDOUT",
            f"{result['copy_rows_per_second']:,}",
            f"{result['copy_seconds']:.1f}",
        ],
        ["the archive", f"{result['rows_per_second']:,}", f"{result['seconds']:.1f}"],
    ]
    before, after = (f"{result[name]:.0f} MB" for name in ("idle_mb", "peak_mb"))
    told = (
        f"{result['share']:.2f} of COPY's rate (aim {result['aim']}: {_verdict(result)});"
        f" {result['readings']:,} readings, an archive of {result['bytes'] / 1e6:,.1f} MB. The"
        f" worker's greatest RSS: {before} before, {after} after."
    )
    return table(["", "readings/s", "seconds"], rows) + "\n\n" + told


def moves(result: Result) -> str:
    """How fast readings move, and what others feel of it."""
    ways = {"Alone": "alone", "While ingest runs at half of its maximum": "during"}
    lines = [
        f"{name}: {figure['readings_per_second']:,} readings/s ({figure['readings']:,} in"
        f" {figure['slices']} slices of {figure['slice_ms']['p50']} ms,"
        f" {figure['slice_ms']['max']} ms at most)."
        for name, figure in ((name, result[key]) for name, key in ways.items())
    ]  # fmt: skip
    head = ["ms, p50 · p99 · max", "without a move", "with one"]
    both = [result["without"], result["with"]]
    rows = [["published → visible", *(_three(one["visible_ms"]) for one in both)]]
    rows += [
        [f"request: {name}", *(_three(one["request_ms"][name]) for one in both)]
        for name in result["without"]["request_ms"]
    ]
    rows.append(["flush, p99", *(f"{one['flush_p99_ms']}" for one in both)])
    return "\n".join(lines) + "\n\n" + table(head, rows)


def _three(figures: Result) -> str:
    return f"{figures['p50']} · {figures['p99']} · {figures['max']}"


def of(part: str, result: Result) -> str:
    """The tables of a part's result."""
    if "skipped" in result:
        return f"Skipped: {result['skipped']}."
    if part in ("end_to_end", "newer_broker"):
        return rates(result) + "\n\n" + cores(result["figures"])
    tables = {
        "alerts": alerts,
        "broker": broker,
        "ceiling": ceilings,
        "capacity": tables_of_systems.capacity,
        "compare": tables_of_systems.compare,
        "soak": tables_of_systems.soak,
        "storm": tables_of_systems.storm,
        "export_all": export_all,
        "latency": latency,
        "memory": memory,
        "moves": moves,
        "profile": profile,
        "reading": reading,
        "sign_in": sign_in,
        "pages": pages,
    }
    return tables.get(part, rates)(result)
