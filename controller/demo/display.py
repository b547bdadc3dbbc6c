"""What a person sees: a live table on a terminal, plain lines elsewhere."""

import asyncio
import sys
import textwrap
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.wire import AgentState, SlotState
from controller.cli.show.asking import drop_what_was_typed
from controller.demo.film import Film
from controller.demo.observe import Observer, agent_url
from controller.demo.workload import MAX_PODS, SLOTS
from controller.errors import PodslotsError
from controller.kube.api import Object
from controller.names import STATE_LABEL

FRAMES_PER_SECOND = 8
LINES = 9
SUMMARY_SECONDS = 1.0
"""Without a terminal at most one line of figures in this time."""
WIDE = 130
"""Columns from which on every Pod's row has its agent's address; below, one Pod's stands under the table."""
MOST_ENDS = 3
"""So often Ctrl-D may be hit at a terminal; after that the input has really ended."""
STYLES = {SlotState.IDLE: "dim", SlotState.RUNNING: "green", SlotState.RESERVED: "yellow"}


NARROW = 76
"""Columns up to which a Pod is called by the end of its name, and its state is left out: else slots were cut."""


class NoAnswerError(PodslotsError):
    """The input has ended before a question was answered."""


class Display:
    """Shows a run as it goes. `clock` gives the seconds since its start.

    A terminal that can't move its cursor (TERM=dumb) is shown lines, as a file is.
    """

    def __init__(self, console: Console, clock: Callable[[], float], film: Film | None = None) -> None:
        self._console = console
        self._film = film
        self._clock = clock
        self._moves = console.is_terminal and not console.is_dumb_terminal
        self._said: deque[str] = deque(maxlen=LINES)
        self._live: Live | None = None
        self._observer: Observer | None = None
        self._summary = ""
        self._summary_due = 0.0

    def say(self, text: str) -> None:
        """Tell what happens now, in one sentence."""
        line = f"{self._clock():5.1f} s  {text}"
        self._said.append(line)
        if self._live is None:
            print_text(self._console, line, indent=_AFTER_TIME)

    async def run(self, observer: Observer) -> None:
        """Keep what is shown up to date until cancelled."""
        self._observer = observer
        try:
            while True:
                if self._live is not None:
                    self._live.update(self._picture(observer), refresh=True)
                elif not self._moves and self._film is None:
                    self._say_changes(observer)
                if self._film is not None:
                    self._film.add(self._clock(), _figures(observer), self._picture(observer))
                await asyncio.sleep(1 / FRAMES_PER_SECOND)
        finally:
            if self._live is not None:
                self._live.update(self._picture(observer), refresh=True)

    @contextmanager
    def live(self) -> Iterator[None]:
        """While in it, a terminal shows the live table."""
        if not self._moves:
            yield
            return
        with Live(console=self._console, auto_refresh=False) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While in it, the terminal is free for a question."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        try:
            yield
        finally:
            if live is not None:
                live.start()
            self._live = live

    async def ask(self, shown: str, question: str) -> bool:
        """Show something and wait for a yes or no. Raises NoAnswerError at the end of the input.

        Only a word decides: a key that was hit before the question, Enter or Ctrl-D cancel nothing.
        """
        with self.paused():
            print_text(self._console, f"\n{shown}\n")
            drop_what_was_typed()
            for _ in range(MOST_ENDS):
                self._console.print(f"{question} [y/n] ", markup=False, highlight=False, end="")
                while (line := await _read_line()) != "":
                    answer = line.strip().lower()
                    if answer in {"y", "yes"}:
                        return True
                    if answer in {"n", "no"}:
                        return False
                    self._console.print("y applies it, n cancels the task: ", markup=False, highlight=False, end="")
                self._console.print()
        raise NoAnswerError("there is no more input; the plan still waits for its approval")

    def _say_changes(self, observer: Observer) -> None:
        summary = _summary(observer)
        if summary != self._summary and self._clock() >= self._summary_due:
            self._summary, self._summary_due = summary, self._clock() + SUMMARY_SECONDS
            self.say(summary)

    def _picture(self, observer: Observer) -> Group:
        wide, narrow = self._console.width >= WIDE, self._console.width < NARROW
        # One space between columns: then the longest of them fit 80 columns, and no name is cut.
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2 if wide else 1, 0, 0))
        table.add_column("POD", no_wrap=True)
        if not narrow:
            table.add_column("STATE", no_wrap=True, min_width=8)
        for slot in range(SLOTS):
            table.add_column(f"SLOT {slot}", no_wrap=True, min_width=15 if wide else 13)
        if wide:
            table.add_column("LOOK YOURSELF", no_wrap=True)
        pods = observer.present()
        for pod in pods:
            table.add_row(*_row(pod, observer, narrow=narrow), *([_look(pod, observer)] if wide else []))
        for _ in range(MAX_PODS - len(pods)):
            table.add_row("")
        looks = [] if wide else [next((look for pod in pods if (look := _look(pod, observer))), Text())]
        width = self._console.width
        head = _wrapped(f"{self._clock():5.1f} s  {_summary(observer)}", width, indent=_AFTER_TIME)
        said = [part for line in self._said for part in _wrapped(line, width, indent=_AFTER_TIME)]
        # The rest: empty lines, the table and its head, the address below it, and a line for the cursor.
        room = self._console.height - len(head) - MAX_PODS - len(looks) - 5
        head_text = Text("\n".join(["", *head, ""]), style="bold")
        return Group(head_text, table, *looks, Text(), Text("\n".join(said[-max(1, min(LINES, room)) :])))


_AFTER_TIME = 9
"""Where the words begin after the seconds: what goes on in the next line begins there, too."""


def print_text(console: Console, text: str, *, indent: int = 0) -> None:
    """Print lines that a terminal breaks between words; elsewhere they stay whole."""
    if console.is_terminal:
        text = "\n".join(part for line in text.split("\n") for part in _wrapped(line, console.width, indent=indent))
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _wrapped(line: str, width: int, *, indent: int) -> list[str]:
    """A line in lines of this width at most, but for words that are longer, as addresses."""
    return textwrap.wrap(
        line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ) or [""]


def _row(pod: Object, observer: Observer, *, narrow: bool) -> list[Text]:
    if narrow:
        return [
            Text(pod["metadata"]["name"].rpartition("-")[2]),
            *_slots(observer.last(pod["metadata"]["uid"]), observer),
        ]
    state = observer.last(pod["metadata"]["uid"])
    label = (pod["metadata"].get("labels") or {}).get(STATE_LABEL, "")
    return [Text(pod["metadata"]["name"]), Text(label), *_slots(state, observer)]


def _look(pod: Object, observer: Observer) -> Text:
    """How to ask the Pod's agent oneself, once it answers."""
    answers = observer.last(pod["metadata"]["uid"]) is not None
    return Text(f"curl {agent_url(pod)}/slots" if answers else "", style="dim")


def _slots(state: AgentState | None, observer: Observer) -> Iterator[Text]:
    if state is None:
        yield from (Text("-", style="dim") for _ in range(SLOTS))
        return
    names = {f"{task['metadata']['uid']}.": task["metadata"]["name"] for task in observer.tasks.items()}
    for slot in state.slots:
        uid, dot, _ = (slot.task_id or "").rpartition(".")
        task = names.get(uid + dot, "")
        step = f"{slot.step} " if slot.state is SlotState.RUNNING and slot.step else ""
        word = "reserved " if slot.state is SlotState.RESERVED else step
        yield Text(f"{word}{task}" if task else slot.state.value, style=STYLES[slot.state])


def _figures(observer: Observer) -> tuple[int, int, int]:
    """Pods, slots that run, slots that are reserved."""
    pods = observer.present()
    states = [state for pod in pods if (state := observer.last(pod["metadata"]["uid"]))]
    slots = [slot.state for state in states for slot in state.slots]
    return len(pods), slots.count(SlotState.RUNNING), slots.count(SlotState.RESERVED)


def _summary(observer: Observer) -> str:
    """One line: Pods by what they are, slots by what their agents say, tasks by phase."""
    pods, running, reserved = _figures(observer)
    phases = ", ".join(f"{count} {phase}" for phase, count in sorted(observer.phases().items()))
    count = f"{pods} Pod{'s' * (pods != 1)}"
    return f"{count}, slots: {running} running, {reserved} reserved; tasks: {phases or 'none'}"


async def _read_line() -> str:
    """A line of standard input, without a thread that would outlive a Ctrl-C."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline()
