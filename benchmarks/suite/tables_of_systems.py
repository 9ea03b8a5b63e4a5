"""Tables of the parts about whole systems: others beside ours, storms, soaks, capacity."""

from typing import Any

from suite.markdown import table

Result = dict[str, Any]


def compare(result: Result) -> str:
    """Paqett beside others: the rate, the price, and what a kill loses."""
    head = [
        "", "points a message", "messages/s", "readings/s", "RSS, MB", "CPU s a million readings",
        "of it PostgreSQL's",
    ]  # fmt: skip
    rows = [
        [
            figure["name"], str(figure["points"]), f"{figure['messages_per_second']:,}",
            f"{figure['readings_per_second']:,}", f"{figure['rss_mb']:.0f}", *_cpu(figure),
        ]
        for figure in result["figures"]
    ]  # fmt: skip
    lost = ["kill -9 in mid-run", "messages/s", "acknowledged", "stored", "doubled", "missing"]
    return "\n\n".join(
        (
            table(head, rows),
            table(lost, [_killed(figure) for figure in result["figures"]]),
            table(
                ["", "version", "what it promises", "what it needs"],
                [
                    [figure["name"], figure["version"], figure["promise"], figure["needs"]]
                    for figure in result["figures"]
                ],
            ),
        )
    )


def _cpu(figure: Result) -> tuple[str, str]:
    own, postgres = figure["own_cpu_s_per_million"], figure["postgres_cpu_s_per_million"]
    if own is None:
        return "", ""
    return f"{own + postgres:.1f}", f"{postgres:.1f}"


def _killed(figure: Result) -> list[str]:
    one = figure["killed"]
    share = one["missing"] / one["acknowledged"] if one["acknowledged"] else 0.0
    return [
        figure["name"], f"{one['rate']:,}", f"{one['acknowledged']:,}", f"{one['stored']:,}",
        f"{one['doubled']:,}", f"{one['missing']:,} ({share:.1%})",
    ]  # fmt: skip


def storm(result: Result) -> str:
    """How long until everybody is back."""
    head = [
        f"seconds, {result['devices']:,} devices", "all connected", "all acknowledged",
        "a reading of each stored", "failed attempts", "slowest of the rounds",
    ]  # fmt: skip
    rows = [
        [
            f"{figure['name']} (median of {len(figure['rounds'])})", f"{figure['connected_s']:.1f}",
            f"{figure['acknowledged_s']:.1f}", f"{figure['stored_s']:.1f}",
            f"{figure['failed']:,.0f}", f"{max(one['stored_s'] for one in figure['rounds']):.1f}",
        ]
        for figure in result["figures"]
    ]  # fmt: skip
    told = (
        f"The first connection of all took {result['first']['connected_s']:.1f} s. A device costs"
        f" Mosquitto {result['mosquitto_bytes_a_device']:,} bytes, ingest"
        f" {result['ingest_bytes_a_device']:,}."
    )
    if result["devices"] < result["wanted_devices"]:
        told += (
            f" {result['wanted_devices']:,} were wanted: this machine allows a process no more"
            " open files."
        )
    return table(head, rows) + "\n\n" + told


def soak(result: Result) -> str:
    """Each figure's growth over the second half of the run."""
    head = [
        f"over {result['seconds']:,} s", "unit", "first half, median", "second", "most",
        "growth in the second half", "allowed", "flat",
    ]  # fmt: skip
    rows = [
        [
            figure["name"], figure["unit"], f"{figure['first_half']:,}",
            f"{figure['second_half']:,}", f"{figure['most']:,}", f"{figure['growth']:+,}",
            f"{figure['allowed']:,}", "yes" if figure["flat"] else "**no**",
        ]
        for figure in result["figures"]
    ]  # fmt: skip
    balance = result["balance"]
    done = ", ".join(f"{count:,} {name}" for name, count in sorted(result["done"].items()))
    slowest = max((one["acknowledged_s"] for one in result["storms"]), default=0)
    told = (
        f"{result['devices']:,} devices, {result['messages_per_second']:,} messages/s; {done}."
        f" The longest storm took {slowest:.1f} s. {balance['acknowledged']:,} points acknowledged,"
        f" {balance['missing']:,} missing, {balance['doubled']:,} doubled.\n\n"
        "![Soak](results/soak.svg)"
    )
    return table(head, rows) + "\n\n" + told


def capacity(result: Result) -> str:
    """What costs what, how far the model is off, and what each size needs."""
    parts = [_costs(result["costs"]), _checks(result["checks"]), _sizes(result["figures"])]
    return "\n\n".join(parts)


def _costs(costs: Result) -> str:
    rows = [
        [name, f"{one['ms_a_second']}", f"{one['us_a_message']}", f"{one['us_a_reading']}"]
        for name, one in costs["cpu"].items()
    ]
    head = ["CPU", "ms a second", "µs a message", "µs a reading"]
    query = costs["query_cpu"]
    told = (
        f"A `latest` of one device: {query['api_ms']:.2f} ms of the API, {query['postgres_ms']:.2f}"
        f" of PostgreSQL. Bytes: {costs['wire_bytes_a_message']:,} of network a message (all hops,"
        f" at 3,000/s), {costs['wal_bytes_a_reading']:,} of WAL and"
        f" {costs['disk_bytes_a_reading']:,} of table and index a reading."
    )
    return table(head, rows) + "\n\n" + told


def _checks(checks: list[Result]) -> str:
    rows = [
        [
            check["name"], f"{check['predicted_cpu_s']}", f"{check['measured_cpu_s']}",
            f"{check['off']:+.0%}",
        ]
        for check in checks
    ]  # fmt: skip
    return table(["checked by", "predicted CPU, s", "measured", "off"], rows)


def _sizes(figures: list[Result]) -> str:
    names = [need["name"] for need in figures[-1]["needs"]]
    head = ["need / limit", *(f"{figure['devices']:,} devices" for figure in figures)]
    by_name = [{need["name"]: need for need in figure["needs"]} for figure in figures]
    rows = [["messages/s", *(f"{figure['messages_per_second']:,}" for figure in figures)]]
    for name in names:
        cells = [
            f"{one[name]['need']:,g} / {one[name]['limit']:,g} {one[name]['unit']}"
            for one in by_name
        ]
        rows.append([name, *cells])
    for label, key in (("**ends first**", "first"), ("disk aside", "first_besides_disk")):
        firsts = [
            f"{figure[key]} ({one[figure[key]]['share']:.0%})"
            for figure, one in zip(figures, by_name, strict=True)
        ]
        rows.append([label, *firsts])
    return table(head, rows)
