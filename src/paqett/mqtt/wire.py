"""The bytes of MQTT 5 that are read and written without gmqtt."""

import struct

PUBACK = 0x4002_0000  # MQTT 5 §3.4.2.1: without a reason code it is success


def pubacks(packets: list[int]) -> bytes:
    """PUBACK packets in a row; each is `PUBACK` with the packet id in its low 16 bits."""
    return struct.pack(f"!{len(packets)}I", *packets)


def variable_integer(data: bytes, position: int) -> tuple[int, int]:
    """The integer at `position` and its end; (-1, …) where it is not whole (MQTT 5 §1.5.5).

    Raises `ConnectionResetError` where it never ends.
    """
    value = 0
    for shift in (0, 7, 14, 21):
        if position >= len(data):
            return -1, position
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value, position
    raise ConnectionResetError("the broker sent a packet of no known length")
