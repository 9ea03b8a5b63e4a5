"""The spool: what was acknowledged comes back, in order, whatever the disk or a crash did."""

import asyncio
import errno
import os
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paqett.errors import ConfigurationError
from paqett.ingest.spool import Place, Spool, SpoolFull
from paqett.ingest.spool_folder import SpoolInUse
from paqett.ingest.spool_segment import Record

MIB = 2**20
HEAD_BYTES = 22


@contextmanager
def opened(
    folder: Path, max_bytes: int = 100 * MIB, segment_bytes: int = 16 * MIB
) -> Iterator[Spool]:
    spool = Spool(folder, max_bytes=max_bytes, min_free_bytes=0, segment_bytes=segment_bytes)
    try:
        yield spool
    finally:
        spool.close()


def some(count: int, first: int = 0) -> list[Record]:
    """Records of different lengths, each telling its number."""
    return [
        Record(f"paqett/v1/d{n}/telemetry", b"x" * (n % 7) + str(n).encode(), 1_700_000_000 + n)
        for n in range(first, first + count)
    ]


def frame_bytes(record: Record) -> int:
    return HEAD_BYTES + len(record.topic.encode()) + len(record.payload)


def put(spool: Spool, records: Sequence[Record]) -> tuple[Place, Place]:
    return asyncio.run(spool.append(records))


def drain(spool: Spool, max_records: int = 1000, max_bytes: int = MIB) -> list[Record]:
    records: list[Record] = []
    while not spool.empty:
        more, place = spool.read(max_records, max_bytes)
        assert place > spool.place, "a read of what is not empty goes on"
        records += more
        spool.advance(place)
    return records


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


def refuse(number: int) -> Callable[..., int]:
    def refused(*_args: object) -> int:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.mark.parametrize("segment_bytes", [1, 500, 16 * MIB])
@pytest.mark.parametrize(("max_records", "max_bytes"), [(1, 1), (7, MIB), (1000, 100)])
def test_what_goes_in_comes_out_in_order(
    folder: Path, segment_bytes: int, max_records: int, max_bytes: int
) -> None:
    with opened(folder, segment_bytes=segment_bytes) as spool:
        for first in range(0, 100, 20):
            put(spool, some(20, first))
        assert drain(spool, max_records, max_bytes) == some(100)
        assert spool.corrupt_records == 0


def test_a_read_moves_nothing_and_keeps_within_its_limits(folder: Path) -> None:
    with opened(folder, segment_bytes=1) as spool:
        put(spool, some(10))
        put(spool, some(10, 10))
        assert spool.read(5, MIB) == spool.read(5, MIB)
        assert spool.read(5, MIB)[0] == some(5)
        assert spool.read(100, MIB)[0] == some(20), "a read crosses segments"
        size = sum(map(frame_bytes, some(12)))
        assert spool.read(100, size)[0] == some(12)
        assert spool.read(100, size - 1)[0] == some(11)
        size = sum(map(frame_bytes, some(10)))
        assert spool.read(100, size + 1)[0] == some(10), "the next segment has nothing so small"


def test_places_lie_before_and_behind_an_append(folder: Path) -> None:
    with opened(folder) as spool:
        first, middle = put(spool, some(3))
        again, end = put(spool, some(3, 3))
        assert middle == again
        assert first < middle < end
        spool.advance(middle)
        assert spool.read(10, MIB) == (some(3, 3), end)
        spool.advance(first)
        assert spool.place == middle, "a place never goes back"


def test_no_records_leave_no_trace(folder: Path) -> None:
    with opened(folder) as spool:
        assert put(spool, []) == (spool.place, spool.place)
        assert spool.empty
        assert segments(folder) == []
        assert spool.read(10, MIB) == ([], spool.place)


def test_topics_and_payloads_are_any_text_and_any_bytes(folder: Path) -> None:
    odd = [Record("", b"", 0), Record("gerät/\N{SNOWMAN}", bytes(range(256)), -1)]
    odd.append(Record("t" * 65535, b"\n", 2**62))
    with opened(folder) as spool:
        put(spool, odd)
        assert drain(spool) == odd


def test_records_and_the_name_survive_a_restart(folder: Path) -> None:
    with opened(folder) as spool:
        name = spool.id
        put(spool, some(10))
    with opened(folder) as spool:
        assert spool.id == name
        put(spool, some(10, 10))
        assert len(segments(folder)) == 2, "a life never writes to an earlier one's segment"
        assert drain(spool) == some(20)


def test_two_spools_have_two_names(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as one, opened(tmp_path / "b") as other:
        assert one.id != other.id


def test_a_tail_torn_at_any_byte_costs_only_the_torn_record(folder: Path) -> None:
    with opened(folder) as spool:
        put(spool, some(3))
    file = segments(folder)[0]
    whole = file.read_bytes()
    last = frame_bytes(some(3)[2])
    for cut in range(last + 1):
        file.write_bytes(whole[: len(whole) - cut])
        with opened(folder) as spool:
            put(spool, some(2, 50))
            fresh = segments(folder)[-1]
            assert everything(spool) == [*some(2 if cut else 3), *some(2, 50)]
            assert spool.corrupt_records == (1 if 0 < cut < last else 0)
        fresh.unlink()


def everything(spool: Spool) -> list[Record]:
    """What a read gives until the end, without deleting anything."""
    records, place = spool.read(1000, MIB)
    began = spool.place
    while place != spool.place:
        spool.place = place
        more, place = spool.read(1000, MIB)
        records += more
    spool.place = began
    return records


def test_a_torn_tail_alone_is_passed_and_counted_once(folder: Path) -> None:
    with opened(folder) as spool:
        put(spool, some(1))
    file = segments(folder)[0]
    file.write_bytes(file.read_bytes()[:-1])
    with opened(folder) as spool:
        assert not spool.empty
        for _ in range(3):
            records, place = spool.read(10, MIB)
            assert records == []
            assert place > spool.place
        assert spool.corrupt_records == 1
        spool.advance(place)
        assert spool.empty
        assert segments(folder) == []


@settings(deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), room=st.sampled_from([1, 60, MIB]))
def test_a_flipped_bit_anywhere_costs_at_most_its_record(at: int, bit: int, room: int) -> None:
    alike = [Record("t", b"%03d" % n, n) for n in range(30)]
    with tempfile.TemporaryDirectory() as name:
        with opened(Path(name)) as spool:
            put(spool, alike)
        file = segments(Path(name))[0]
        data = bytearray(file.read_bytes())
        at %= len(data)
        data[at] ^= 1 << bit
        file.write_bytes(data)
        with opened(Path(name)) as spool:
            lost = at // (len(data) // len(alike))
            assert drain(spool, max_bytes=room) == alike[:lost] + alike[lost + 1 :]
            assert spool.corrupt_records == 1


def test_a_damaged_length_that_leads_to_a_later_record_hides_none(folder: Path) -> None:
    alike = [Record("t", b"%041d" % n, n) for n in range(4)]
    assert frame_bytes(alike[0]) == 64
    with opened(folder) as spool:
        put(spool, alike)
    file = segments(folder)[0]
    data = bytearray(file.read_bytes())
    data[4] ^= 64
    file.write_bytes(data)
    with opened(folder) as spool:
        assert drain(spool) == alike[1:]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=80)), max_size=4))
def test_scribbles_and_holes_never_make_up_a_record(scribbles: list[tuple[int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        with opened(Path(name)) as spool:
            put(spool, some(40))
        file = segments(Path(name))[0]
        data = bytearray(file.read_bytes())
        for at, junk in scribbles:
            data[at : at + len(junk)] = junk
        file.write_bytes(data)
        with opened(Path(name)) as spool:
            read = drain(spool, max_records=3)
        assert read == [record for record in some(40) if record in read]


def test_a_payload_that_holds_a_whole_spool_does_not_pose_as_records(tmp_path: Path) -> None:
    with opened(tmp_path / "other") as other:
        put(other, [Record("paqett/v1/victim/telemetry", b"1", 1)])
    forged = segments(tmp_path / "other")[0].read_bytes()
    with opened(tmp_path / "spool") as spool:
        put(spool, [Record("t", forged * 20, 1), *some(1)])
    file = segments(tmp_path / "spool")[0]
    file.write_bytes(b"\0" + file.read_bytes()[1:])
    with opened(tmp_path / "spool") as spool:
        assert drain(spool) == some(1)
        assert spool.corrupt_records == 1


def test_a_missing_segment_is_counted_and_passed(folder: Path) -> None:
    with opened(folder, segment_bytes=1) as spool:
        for first in (0, 3, 6):
            put(spool, some(3, first))
        segments(folder)[1].unlink()
        assert drain(spool, max_records=2) == [*some(3), *some(3, 6)]
        assert spool.corrupt_records == 1


def test_a_disk_that_gives_nothing_back_is_passed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as spool:
        put(spool, some(3))
        monkeypatch.setattr(os, "pread", refuse(errno.EIO))
        assert drain(spool) == []
        assert spool.corrupt_records == 1


def test_too_many_open_files_lose_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder) as spool:
        put(spool, some(3))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", refuse(errno.EMFILE))
            with pytest.raises(OSError, match="Too many open files"):
                spool.read(10, MIB)
        assert drain(spool) == some(3)
        assert spool.corrupt_records == 0


def test_the_cap_holds_to_the_byte_and_gives_way_after_replay(folder: Path) -> None:
    size = sum(map(frame_bytes, some(10)))
    with opened(folder, max_bytes=size) as spool:
        put(spool, some(9))
        with pytest.raises(SpoolFull):
            put(spool, [Record("t", bytes(100), 1)])
        put(spool, some(1, 9))
        assert spool.bytes == size == sum(file.stat().st_size for file in segments(folder))
        with pytest.raises(SpoolFull):
            put(spool, [Record("", b"", 1)])
        assert drain(spool) == some(10)
        put(spool, some(10))
        assert drain(spool) == some(10)


def test_the_disk_keeps_its_free_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimpleNamespace(f_bavail=10, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _path: disk)
    record = Record("t", bytes(4096 - HEAD_BYTES - 1), 1)
    spool = Spool(folder, max_bytes=MIB, min_free_bytes=9 * 4096)
    put(spool, [record])
    disk.f_bavail = 9
    with pytest.raises(SpoolFull):
        put(spool, [record])
    disk.f_bavail = 10
    put(spool, [record])
    assert drain(spool) == [record, record]
    spool.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_refused_append_leaves_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str, before: int
) -> None:
    with opened(folder) as spool:
        put(spool, some(1))
        drain(spool)
        put(spool, some(before))
        was = spool.bytes
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse(number))
            with pytest.raises(SpoolFull):
                put(spool, some(5, 90))
        assert spool.bytes == was == sum(file.stat().st_size for file in segments(folder))
        assert len(segments(folder)) == (1 if before else 0)
        put(spool, some(4, before))
    with opened(folder) as spool:
        assert drain(spool) == some(before + 4)
        assert spool.corrupt_records == 0


@pytest.mark.parametrize("before", [0, 3])
def test_a_disk_that_fills_in_the_middle_of_a_write_leaves_a_valid_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    write = os.write
    with opened(folder) as spool:
        put(spool, some(1))
        drain(spool)
        put(spool, some(before))
        was = spool.bytes
        with monkeypatch.context() as patch:
            left = [100]

            def filling(fd: int, data: memoryview) -> int:
                if not left[0]:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                done = write(fd, data[: left[0]])
                left[0] -= done
                return done

            patch.setattr(os, "write", filling)
            with pytest.raises(SpoolFull, match="No space left"):
                put(spool, some(50, 90))
        assert sum(file.stat().st_size for file in segments(folder)) == was
        put(spool, some(4, before))
        assert drain(spool) == some(before + 4)


def test_short_writes_are_carried_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:13]))
    with opened(folder) as spool:
        put(spool, some(10))
        assert drain(spool) == some(10)


def test_what_could_not_be_cut_off_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as spool:
        put(spool, some(3))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse(errno.EIO))
            patch.setattr(os, "ftruncate", refuse(errno.EIO))
            with pytest.raises(SpoolFull):
                put(spool, some(5, 90))
        put(spool, some(3, 3))
        assert drain(spool) == some(6)


def test_a_failed_append_leaves_no_replayed_segment_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as spool:
        _, end = put(spool, some(3))

        def failing(_fd: int) -> None:
            spool.advance(end)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(SpoolFull):
            put(spool, some(3, 3))
        assert spool.empty
        assert segments(folder) == []


def test_replay_goes_on_from_the_databases_place(folder: Path) -> None:
    with opened(folder, segment_bytes=300) as spool:
        for first in range(0, 30, 5):
            put(spool, some(5, first))
        place = spool.read(12, MIB)[1]
    with opened(folder) as spool:
        before = len(segments(folder))
        spool.resume(place)
        assert len(segments(folder)) < before
        assert drain(spool) == some(18, 12)


def test_a_place_at_the_very_end_leaves_nothing(folder: Path) -> None:
    with opened(folder) as spool:
        _, end = put(spool, some(5))
    with opened(folder) as spool:
        spool.resume(end)
        assert spool.empty
        assert segments(folder) == []


def test_a_place_before_what_is_there_is_ignored(folder: Path) -> None:
    with opened(folder, segment_bytes=1) as spool:
        old, _ = put(spool, some(5))
        _, place = put(spool, some(5, 5))
        put(spool, some(5, 10))
        spool.advance(place)
    with opened(folder) as spool:
        spool.resume(old)
        assert drain(spool) == some(5, 10)


@pytest.mark.parametrize("late", [False, True])
def test_an_old_place_of_an_emptied_spool_skips_no_new_record(folder: Path, late: bool) -> None:
    with opened(folder, segment_bytes=1) as spool:
        for _ in range(5):
            put(spool, some(5))
        drain(spool)
        place = spool.place
    for _ in range(3):
        with opened(folder) as spool:
            if not late:
                spool.resume(place)
            put(spool, some(2))
            if late:
                spool.resume(place)
            assert drain(spool) == some(2)
            place = spool.place


def test_numbers_go_on_in_a_life_that_uses_more_than_were_reserved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paqett.ingest.spool_folder._RESERVED", 2)
    seen = []
    for _ in range(2):
        with opened(folder) as spool:
            for _ in range(5):
                put(spool, some(1))
                drain(spool)
                seen.append(spool.place.segment)
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("before", [0, 3])
def test_a_place_from_the_future_of_a_folder_set_back_skips_nothing(
    folder: Path, before: int
) -> None:
    with opened(folder) as spool:
        put(spool, some(before))
        spool.resume(Place(5000, 10))
        put(spool, some(3, before))
        assert drain(spool) == some(before + 3)
        assert spool.place.segment == (1 if before else 5001)
        put(spool, some(1))
        assert drain(spool) == some(1)
        assert spool.place.segment == (5001 if before else 5002)


@pytest.mark.parametrize("text", [None, "", "nonsense\n"])
def test_a_lost_name_becomes_a_new_one_and_no_record_is_lost(
    folder: Path, text: str | None
) -> None:
    with opened(folder) as spool:
        name = spool.id
        put(spool, some(3))
    if text is None:
        (folder / "id").unlink()
    else:
        (folder / "id").write_text(text)
    with opened(folder) as spool:
        assert spool.id != name
        put(spool, some(3, 3))
        assert drain(spool) == some(6)


def test_a_second_process_is_refused_until_the_first_is_gone(folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from paqett.ingest.spool import Spool\n"
        "from paqett.ingest.spool_folder import SpoolInUse\n"
        "try: Spool(Path(sys.argv[1]), max_bytes=1, min_free_bytes=0)\n"
        "except SpoolInUse: sys.exit(7)\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    with opened(folder) as spool:
        assert subprocess.run(command, check=False).returncode == 7
        with pytest.raises(SpoolInUse):
            Spool(folder, max_bytes=1, min_free_bytes=0)
        put(spool, some(1))
    assert subprocess.run(command, check=False).returncode == 0


def test_a_folder_that_cannot_be_one_is_a_matter_of_configuration(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Spool(folder, max_bytes=1, min_free_bytes=0)


def test_replayed_segments_are_deleted_one_by_one_and_the_current_one_too(folder: Path) -> None:
    with opened(folder, segment_bytes=1) as spool:
        ends = [put(spool, some(2, first))[1] for first in (0, 2, 4)]
        for left, end in zip((2, 1, 0), ends, strict=True):
            spool.advance(Place(end.segment, end.position - 1))
            assert len(segments(folder)) == left + 1
            spool.advance(end)
            assert len(segments(folder)) == left
        assert spool.empty
        assert spool.bytes == 0
        _, end = put(spool, some(1))
        assert end > ends[-1]
        assert drain(spool) == some(1)


def test_an_empty_segment_of_a_crashed_life_is_cleared_away(folder: Path) -> None:
    with opened(folder) as spool:
        put(spool, some(1))
    segments(folder)[0].write_bytes(b"")
    with opened(folder) as spool:
        assert spool.empty
        assert segments(folder) == []


@pytest.mark.parametrize("before", [0, 3])
def test_a_read_sees_nothing_that_is_not_synced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(fd: int) -> None:
        fsync(fd)
        reached.set()
        assert go_on.wait(10)

    async def look(spool: Spool) -> None:
        appending = asyncio.create_task(spool.append(some(5, before)))
        await asyncio.to_thread(reached.wait, 10)
        assert spool.read(100, MIB)[0] == some(before)
        spool.advance(spool.read(100, MIB)[1])
        assert spool.empty
        go_on.set()
        await appending
        assert drain(spool) == some(5, before)
        assert segments(folder) == []

    with opened(folder) as spool:
        put(spool, some(1))
        drain(spool)
        put(spool, some(before))
        monkeypatch.setattr(os, "fsync", slow)
        asyncio.run(look(spool))


def test_an_append_returns_only_after_file_and_folder_are_synced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        size = f" {path.stat().st_size}" if path.suffix == ".spool" else ""
        synced.append(path.suffix + size)
        fsync(fd)

    with opened(folder) as spool:
        put(spool, some(1))
        drain(spool)
        monkeypatch.setattr(os, "fsync", noting)
        put(spool, some(1))
        size = frame_bytes(some(1)[0])
        assert synced == [f".spool {size}", ""]
        put(spool, some(1))
        assert synced == [f".spool {size}", "", f".spool {2 * size}"]


def test_an_append_given_up_on_does_no_harm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(fd: int) -> None:
        reached.set()
        assert go_on.wait(10)
        fsync(fd)

    async def give_up(spool: Spool) -> None:
        appending = asyncio.create_task(spool.append(some(5)))
        await asyncio.to_thread(reached.wait, 10)
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending
        after = asyncio.create_task(spool.append(some(5, 5)))
        await asyncio.sleep(0.01)
        go_on.set()
        await after
        assert drain(spool) == some(10)

    with opened(folder) as spool:
        monkeypatch.setattr(os, "fsync", slow)
        asyncio.run(give_up(spool))


def test_nobody_else_may_look(folder: Path) -> None:
    with opened(folder) as spool:
        put(spool, some(1))
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {file.name.split(".")[-1] for file in folder.iterdir()} == {"id", "lock", "spool"}
        for file in folder.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600


def test_a_large_record_comes_whole_through_a_small_read(folder: Path) -> None:
    large = Record("t", os.urandom(5 * MIB), 1)
    with opened(folder, segment_bytes=MIB) as spool:
        put(spool, [*some(2), large, *some(2, 2)])
        put(spool, some(2, 4))
        assert drain(spool, max_bytes=1000) == [*some(2), large, *some(4, 2)]


def test_a_hundred_thousand_records_are_replayed_in_little_memory(folder: Path) -> None:
    with opened(folder) as spool:
        for first in range(0, 100_000, 2000):
            put(spool, [Record("t", b"%0130d" % n, n) for n in range(first, first + 2000)])
        tracemalloc.start()
        try:
            following = 0
            while not spool.empty:
                records, place = spool.read(2000, MIB)
                assert [record.received_us for record in records] == list(
                    range(following, following + len(records))
                )
                following += len(records)
                spool.advance(place)
            assert tracemalloc.get_traced_memory()[1] < 5 * MIB
        finally:
            tracemalloc.stop()
        assert following == 100_000
        assert segments(folder) == []
