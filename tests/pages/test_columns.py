"""Tables' cells as pages write them: with their column's name, and with decimals that align."""

import pytest
from markupsafe import Markup

from paqett.web.pages import columns, formats


def test_a_cell_knows_its_columns_name_unless_it_is_empty_or_spans_several() -> None:
    rows = Markup('<tr><th scope="row">a</th><td class="num">1</td><td> </td><td>x</td></tr>')
    told = columns.labelled(rows, ["Name", "How <many>", "Tags", ""])
    assert told == (
        '<tr role="row"><th role="rowheader" data-label="Name" scope="row">a</th>'
        '<td role="cell" data-label="How &lt;many&gt;" class="num">1</td>'
        '<td role="cell"> </td><td role="cell">x</td></tr>'
    )
    wide = columns.labelled(Markup('<tr><td colspan="2">Nothing yet.</td></tr>'), ["A", "B"])
    assert wide == '<tr role="row"><td role="cell" colspan="2">Nothing yet.</td></tr>'


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([21.0, 20.5, None], 1),
        ([52.52437, 13.4], 5),
        ([40 + 1 / 3, 60.0], 2),
        ([20 + 1 / 3, 25.0], 3),
        ([1 / 3, 1 / 3], 4),
        ([100_000 / 3, 0.0], 0),
        ([1e-9 / 3], 6),
        ([None], 0),
        ([], 0),
    ],
)
def test_a_column_shows_the_decimals_that_tell_its_values_apart(
    values: list[float | None], count: int
) -> None:
    assert columns.decimals(values) == count


@pytest.mark.parametrize(
    ("text", "said"),
    [("1m", "minute"), ("15m", "15\u00a0minutes"), ("1mo", "month"), ("3x", "3x")],
)
def test_a_bucket_is_told_in_words(text: str, said: str) -> None:
    assert formats.bucket(text) == said


def test_lines_broken_for_paper_become_paragraphs_again() -> None:
    long = "We are committed to protecting your privacy and to handling your"
    text = f"1. Introduction\n{long}\ndata in an open manner.\n2. More\n- Email\n- Password\n"
    whole = f"1. Introduction\n{long} data in an open manner.\n2. More\n- Email\n- Password"
    assert formats.unwrapped(text) == whole


def test_what_stands_in_backticks_is_code_and_the_rest_stays_text() -> None:
    assert formats.ticked("plain & simple") == "plain &amp; simple"
    assert formats.ticked("of `a<b`; and `c`") == "of <code>a&lt;b</code>; and <code>c</code>"
