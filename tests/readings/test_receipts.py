"""Times of receipt: strictly increasing for each device, with room for every item."""

import json

from hypothesis import given
from hypothesis import strategies as st

from paqett.readings.decode import MAX_ITEMS, decode
from paqett.readings.incoming import Receipts

NOW = 1_750_000_000_000_000

payloads = st.sampled_from(
    [
        b'{"t":1}',
        b'[{"t":1},{"t":2}]',
        b'[1,2,3,{"t":1}]',
        json.dumps([{"t": 1}] * MAX_ITEMS).encode(),
        b' [{"t":1},{"t":2},{"t":3}]',
        b'\xef\xbb\xbf[{"t":1},{"t":2}]',
        b' {"t":1}',
        b"",
        b"broken",
    ]
)


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), payloads, st.sampled_from([0, 0, 1, 3, 700, -5])),
        max_size=40,
    )
)
def test_no_two_items_of_a_device_are_received_at_one_time(sent) -> None:
    receipts, now = Receipts(), NOW
    taken: dict[str, int] = {}
    for device, payload, passed in sent:
        now += passed  # the machine's clock may be set back
        received_us = receipts.stamp(device, payload, now)
        assert received_us >= now
        assert received_us > taken.get(device, 0)
        decoded = decode(payload, received_us=received_us, oldest_us=0, newest_us=NOW * 2)
        taken[device] = max([received_us, *(time_us for time_us, *_ in decoded.points)])


def test_a_message_is_stamped_with_the_moment_it_came() -> None:
    receipts = Receipts()
    assert receipts.stamp("a", b"{}", NOW) == NOW
    assert receipts.stamp("b", b"{}", NOW) == NOW  # devices do not wait for one another
    assert receipts.stamp("a", b"{}", NOW) == NOW + 1
    assert receipts.stamp("a", b"{}", NOW + 50) == NOW + 50


def test_an_array_leaves_room_for_its_items_and_lines_for_theirs() -> None:
    receipts = Receipts()
    receipts.stamp("a", b" [{},{},{}]", NOW)
    assert receipts.stamp("a", b"{}", NOW) == NOW + 3
    receipts.stamp("d", b"[" + b"{}," * 2000, NOW)
    assert receipts.stamp("d", b"{}", NOW) == NOW + MAX_ITEMS
    for payload, bare in ((b"[", True), (b"5", True), (b"[{},{}]", False)):
        receipts.stamp("e", payload, NOW, bare=bare)
    assert receipts.stamp("e", b"{}", NOW) == NOW + 3
    receipts.stamp("b", b"{}\n" * 2000, NOW, "ndjson")
    assert receipts.stamp("b", b"{}", NOW) >= NOW + 2000
    receipts.stamp("c", b",t,1\n" * 2000, NOW, "csv")
    assert receipts.stamp("c", b"{}", NOW) >= NOW + 2000


def test_what_is_forgotten_was_over_and_the_promise_holds() -> None:
    receipts = Receipts()
    for number in range(100_000):
        receipts.stamp(f"once {number}", b"{}", NOW)
    ahead = receipts.stamp("ahead", b"[{}]" * 9, NOW + 2_000_000)
    # the sweep at this stamp forgets those that had their turn, not the one that is ahead
    receipts.stamp("another", b"{}", NOW + 2_000_100)
    receipts.stamp("another", b"{}", NOW + 3_500_000)
    assert len(receipts._next) < 10
    assert receipts.stamp("once 7", b"{}", NOW + 3_500_000) == NOW + 3_500_000
    assert receipts.stamp("ahead", b"{}", NOW + 2_000_200) > ahead


def test_a_sweep_keeps_every_device_that_is_ahead_of_the_clock() -> None:
    receipts = Receipts()
    ahead = {f"device {n}": 0 for n in range(100_001)}
    for device in ahead:
        ahead[device] = receipts.stamp(device, b"[{},{},{}]", NOW + 2_000_000) + 3
    receipts.stamp("another", b"{}", NOW + 2_000_001)
    assert receipts.stamp("device 0", b"{}", NOW + 2_000_001) == ahead["device 0"]
    assert receipts.stamp("device 99999", b"{}", NOW + 2_000_001) == ahead["device 99999"]
