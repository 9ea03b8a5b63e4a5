"""Where ingest spends its time: py-spy during both forms of message, top functions by own time."""

import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paqett.children import die_with_parent
from suite.form import Form
from suite.load import drive
from suite.measured import SINGLE, TENS, sized
from suite.stand import Stand, stand

SHOWN = 25
_HZ = 100
_WAITS = ("epoll_", "poll ", "select ")
_ADDRESS = re.compile(r"^0x[0-9a-f]+ ")


@contextmanager
def _recorded(stand: Stand, py_spy: str, target: Path) -> Iterator[None]:
    """Sample ingest's stacks, the interpreter's own and those of C extensions, while inside."""
    command = [
        py_spy, "record", "--pid", str(stand.pid("ingest")), "--rate", str(_HZ), "--native",
        "--nolineno", "--format", "raw", "--output", str(target),
    ]  # fmt: skip
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )  # fmt: skip
    time.sleep(2)  # it reads the symbols first
    try:
        yield
        child.send_signal(signal.SIGINT)
        child.wait(60)
    finally:
        child.kill()
        child.wait()


def summarise(stacks: str) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Samples by innermost frame, by any frame, and by `busy` and `waiting`.

    The thread that serves the metrics is left out, and so is waiting for a socket.
    """
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    states: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_ADDRESS.sub("", frame) for frame in stack.split(";")]
        if any(frame.startswith("BaseServer.serve_forever") for frame in frames):
            continue
        state = "waiting" if frames[-1].startswith(_WAITS) else "busy"
        states[state] += int(count)
        if state == "busy":
            own[frames[-1]] += int(count)
            for frame in set(frames):
                within[frame] += int(count)
    return own, within, states


def _table(name: str, stacks: str) -> tuple[str, list[dict[str, Any]]]:
    own, within, states = summarise(stacks)
    busy = max(1, states["busy"])
    lines = [
        f"{name}: {busy} samples, and {states['waiting']} waiting for a socket",
        f"{'own':>7}{'within':>8}  function",
    ]
    top = []
    for function, count in own.most_common(SHOWN):
        top.append({"function": function, "own": round(count / busy, 4)})
        lines.append(f"{count / busy:7.1%}{within[function] / busy:8.1%}  {function}")
    lines += ["", f"{'within':>15}  function of Python's"]
    python = [(name, count) for name, count in within.most_common() if ".py)" in name]
    lines += [f"{count / busy:15.1%}  {function}" for function, count in python[: 2 * SHOWN]]
    return "\n".join(lines) + "\n", top


def run(form: Form) -> dict[str, Any]:
    """`text` becomes `profile.txt`; skipped where there is no py-spy."""
    if form.py_spy is None:
        return {"skipped": "py-spy is not installed: pip install py-spy, or --py-spy PATH"}
    texts, figures = [], []
    with stand(form.devices) as made:
        made.start()
        for name, shape in (("messages of 3 points", SINGLE), ("messages of 30 points", TENS)):
            load = sized(made, shape, form.seconds)
            target = made.folder / "stacks"
            with _recorded(made, form.py_spy, target):
                run = drive(made, load)
            text, top = _table(name, target.read_text())
            texts.append(text)
            figures.append({"name": name, **run.report(), "top": top})
    return {"figures": figures, "text": "\n".join(texts)}
