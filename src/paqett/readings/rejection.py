"""One refusal of what a device sent."""

import msgspec


class Rejection(msgspec.Struct, frozen=True):
    """One refusal: a value, an item or a whole message.

    `index` is the item's place in the array, 0 for a single object and for a whole message.
    `metric` is the dotted name of the refused value, made printable and cut to 128 characters,
    or None where the item or the message is refused. `code` is one of the product contract's
    codes, `detail` a sentence for people. `points` is how many values were lost, never less
    than 1, so that a refusal is always counted.
    """

    index: int
    metric: str | None
    code: str
    detail: str
    points: int = 1
