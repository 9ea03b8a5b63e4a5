"""Tables in Markdown."""


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell; numbers, behind the first column, to the right."""
    head, *rows = [[text.replace("|", r"\|") for text in row] for row in [head, *rows]]
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(_cell(text, width, n) for n, (text, width) in enumerate(cells)) + " |"
        for cells in (list(zip(line, widths, strict=True)) for line in lines)
    )


def _cell(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column else text.ljust(width)
