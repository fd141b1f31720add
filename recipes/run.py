"""Runs the stages of a recipe: what is done is skipped, what is independent goes on side by side."""

import json
import platform
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from fasttrain.base.atomic import atomic_open
from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError, FasttrainError
from fasttrain.recipes.command import StageCommand, command_of
from fasttrain.recipes.graph import Stage, after, before
from fasttrain.recipes.hashing import stage_key
from fasttrain.recipes.kind import RESULT
from fasttrain.recipes.launch import Running, command_line, end_leftovers, last_words, start
from fasttrain.recipes.references import StageOutput, outputs_in
from fasttrain.recipes.resources import Machine, gpus_of, processes_of
from fasttrain.recipes.state import LOG, Record, WorkFolder, now
from fasttrain.recipes.toolbox import Toolbox

POLL_S = 0.05
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
DONE, SKIPPED, FAILED, CANCELLED, INTERRUPTED = "done", "skipped", "failed", "cancelled", "interrupted"


class RecipeStopped(FasttrainError):
    """A run was stopped by a signal; what was done so far is kept.

    Attributes:
        exit_code: 128 plus the signal's number.
    """

    def __init__(self, number: signal.Signals) -> None:
        self.exit_code = 128 + number
        super().__init__(f"stopped by {number.name}; run the same line again to go on from here")


class StagesFailed(FasttrainError):
    """Stages failed, or could not be begun because of that."""


@dataclass(frozen=True)
class Selection:
    """Which stages are to be done.

    Attributes:
        wanted: names of all that are looked at.
        again: those that are done though they are done already.
        alone: what the wanted ones need has to be there.
    """

    wanted: frozenset[str]
    again: frozenset[str] = frozenset()
    alone: bool = False


def select(stages: list[Stage], from_: list[str], until: list[str], only: list[str]) -> Selection:
    """The stages that ``--from``, ``--until`` and ``--only`` mean, given by full names (see `expand.chosen`)."""
    wanted = before(stages, until) if until else {stage.name for stage in stages}
    if only:
        wanted &= set(only)
    again = after(stages, from_) & wanted if from_ else set()
    return Selection(frozenset(wanted), frozenset(again), bool(only))


@dataclass
class RunResult:
    """What became of each stage.

    Attributes:
        states: "done", "skipped" (it was done already), "failed", "cancelled" or "interrupted", by stage.
        results: the JSON object that each finished stage's command printed.
    """

    states: dict[str, str] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def in_state(self, *states: str) -> list[str]:
        """Names of the stages in one of `states`."""
        return [name for name, state in self.states.items() if state in states]


class Runner:
    """One run of a recipe in a work folder.

    Args:
        jobs: stages at the same time; None for one a GPU, or one without.
    """

    def __init__(
        self,
        stages: list[Stage],
        selection: Selection,
        folder: WorkFolder,
        toolbox: Toolbox,
        machine: Machine,
        jobs: int | None = None,
    ) -> None:
        self.stages = [stage for stage in stages if stage.name in selection.wanted]
        self.all = {stage.name: stage for stage in stages}
        self.selection, self.folder, self.toolbox, self.machine = selection, folder, toolbox, machine
        self.jobs = jobs or max(1, len(machine.gpus))
        self.records: dict[str, Record] = {}
        self.running: dict[str, Running] = {}
        self.result = RunResult()
        self._locks: dict[str, ExitStack] = {}
        self._keys: dict[str, str] = {}  # of stages whose inputs are there
        self._signal: signal.Signals | None = None

    def run(self) -> RunResult:
        """Do what is left to do.

        Raises:
            RecipeStopped: a signal came; the stages' processes have ended.
            ConfigError: a stage that is needed and not selected is not done.
        """
        if self.selection.alone:
            self.take_what_is_there()
        waiting = {stage.name: stage for stage in self.stages}
        with self._listening():
            try:
                while (waiting and self._signal is None) or self.running:
                    if self._signal is None:
                        self._begin_what_can(waiting)
                    else:
                        for running in self.running.values():
                            running.ask_to_end()
                    time.sleep(POLL_S if self.running else 0)
                    self._look_at_running()
            finally:
                self._abandon()
                self.folder.hashes.save()
        if self._signal is not None:
            raise RecipeStopped(self._signal)
        return self.result

    # --- beginning --------------------------------------------------------------------------------------------------

    def take_what_is_there(self) -> None:
        """The records of what the selected stages need."""
        for stage in self.stages:
            for name in stage.needs:
                if name in self.selection.wanted:
                    continue
                record = self.folder.record(self.all[name])
                if record is None:
                    raise ConfigError(f"stage {stage.name} needs {name}, which is not done; leave out --only, or do it")
                self.records[name] = record

    def _begin_what_can(self, waiting: dict[str, Stage]) -> None:
        for stage in list(waiting.values()):
            lost = [name for name in stage.needs if self.result.states.get(name) in (FAILED, CANCELLED)]
            if lost:
                self.result.states[stage.name] = CANCELLED
                say(f"{stage.name}: not done, because {lost[0]} is not")
                del waiting[stage.name]
            elif all(name in self.records for name in stage.needs) and self._begin(stage):
                del waiting[stage.name]

    def _begin(self, stage: Stage) -> bool:
        """Skip or start a stage whose inputs are there; False if it has to wait for a place."""
        again = stage.name in self.selection.again
        record = self.folder.record(stage)
        key = self.key(stage)
        if record is not None and record.key == key and not again:
            self._note_done(stage, record, SKIPPED)
            say(f"{stage.name}: done already")
            return True
        gpus = self._free_gpus(gpus_of(stage, self.machine))
        if gpus is None or len(self.running) >= self.jobs:
            return False
        self._start(stage, key, again, gpus)
        return True

    def key(self, stage: Stage) -> str:
        """Hash of what a stage depends on, whose inputs are there."""
        if stage.name not in self._keys:
            processes = processes_of(stage, self.machine) * stage.head.nodes
            self._keys[stage.name] = stage_key(stage, processes, self._hash_of, self.folder.hashes)
        return self._keys[stage.name]

    def _hash_of(self, output: StageOutput) -> str:
        return self.folder.hash_of(self.records[output.stage], output)

    def _free_gpus(self, count: int) -> tuple[str, ...] | None:
        taken = {gpu for running in self.running.values() for gpu in running.gpus}
        free = tuple(gpu for gpu in self.machine.gpus if gpu not in taken)
        return free[:count] if len(free) >= count else None

    def _start(self, stage: Stage, key: str, again: bool, gpus: tuple[str, ...]) -> None:
        self._locks[stage.name] = stack = ExitStack()
        if not stack.enter_context(self.folder.locked(stage)):
            stack.close()
            raise ConfigError(
                f"stage {stage.name} is being done by another run in {self.folder.path}; wait for its end"
            )
        end_leftovers(self.folder.part(stage))
        self.folder.recover(stage)
        record = self.folder.record(stage)
        if record is not None and record.key == key and not again:
            stack.close()
            self._note_done(stage, record, SKIPPED)
            return
        attempt = self.folder.begin(stage, key, again)
        part = self.folder.part(stage)
        command = self.command(stage, part)
        goes_on = " (going on)" if attempt.attempts > 1 else ""
        say(f"{stage.name}: started{goes_on}" + (f" on GPU {', '.join(gpus)}" if gpus else ""))
        processes = processes_of(stage, self.machine)
        self.running[stage.name] = start(stage, key, attempt, part, command, processes, gpus)

    def command(self, stage: Stage, folder: Path) -> StageCommand:
        """The command of a stage that writes into `folder`."""

        def locate(output: StageOutput) -> str:
            return str(self.folder.output(self.all[output.stage], output.output))

        return command_of(stage, self.toolbox, folder, locate)

    # --- ending -----------------------------------------------------------------------------------------------------

    def _look_at_running(self) -> None:
        for name, running in list(self.running.items()):
            code = running.process.poll()
            running.show_new_lines()
            if code is None:
                continue
            del self.running[name]
            running.attempt.seconds = round(running.attempt.seconds + running.seconds, 3)
            try:
                self._ended(running, code)
            finally:
                self._locks.pop(name).close()

    def _ended(self, running: Running, code: int) -> None:
        stage = running.stage
        if code == 0:
            try:
                self._publish(running)
                return
            except (ConfigError, OSError) as error:
                reason = str(error)
        else:
            reason = last_words(running.folder / LOG)
        if self._signal is not None:
            self.result.states[stage.name] = INTERRUPTED
            running.attempt.interrupted = True
            self.folder.note(stage, running.attempt)
            return
        self.folder.note(stage, running.attempt)
        self.result.states[stage.name] = FAILED
        how = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        say(f"{stage.name}: failed ({how}): {reason}\n  its log: {running.folder / LOG}")

    def _publish(self, running: Running) -> None:
        stage, part = running.stage, running.folder
        result = _moved(running.result(), str(part), str(self.folder.final(stage)))
        with atomic_open(part / RESULT) as file:
            file.write(json.dumps(result, indent=2) + "\n")
        record = Record(
            stage=stage.name,
            kind=stage.kind.name,
            key=running.key,
            outputs=self.folder.measured(stage, result),
            inputs={str(output): self._hash_of(output) for output in outputs_in(stage.body)},
            settings=json.loads(json.dumps(stage.body, default=str)),
            command=_moved(running.command, str(part), str(self.folder.final(stage))),
            result=result,
            seconds=running.attempt.seconds,
            attempts=running.attempt.attempts,
            finished=now(),
            host=platform.node(),
        )
        self.folder.finish(stage, record)
        self._note_done(stage, record, DONE)
        say(f"{stage.name}: done in {record.seconds:.1f} s{_figures(result)}")

    def _note_done(self, stage: Stage, record: Record, state: str) -> None:
        self.records[stage.name] = record
        self.result.states[stage.name] = state
        self.result.results[stage.name] = record.result

    # --- signals ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Catch the signals that ask for an end while the block runs; a second one kills."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._remember) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            for running in self.running.values():
                running.kill()
            return
        self._signal = signal.Signals(number)
        say(f"{self._signal.name}: ending {len(self.running)} stages; once more kills them")

    def _abandon(self) -> None:
        """After an error of the runner itself, leave no process behind."""
        for running in self.running.values():
            running.kill()
            running.process.wait()
        for stack in self._locks.values():
            stack.close()


def describe_plan(runner: Runner) -> list[dict[str, Any]]:
    """What `Runner.run` would do with each selected stage, without doing it: {stage, state, command}.

    The state is "done", "again" (asked for), "changed", "new", or "waits" where its inputs are not there yet.
    """
    plan: list[dict[str, Any]] = []
    if runner.selection.alone:
        runner.take_what_is_there()
    for stage in runner.stages:
        record = runner.folder.record(stage)
        if all(name in runner.records for name in stage.needs):
            fresh = record is not None and record.key == runner.key(stage)
            if stage.name in runner.selection.again:
                state = "again"
            else:
                state = "done" if fresh else "changed" if record is not None else "new"
            if record is not None and state == "done":
                runner.records[stage.name] = record
        else:
            state = "waits"
        command = runner.command(stage, runner.folder.final(stage))
        words = command_line(command.arguments, processes_of(stage, runner.machine), stage.head.nodes)
        plan.append({"stage": stage.name, "state": state, "command": shlex.join(words)})
    return plan


def _moved(value: Any, before: str, behind: str) -> Any:
    """`value` with paths in the unfinished folder as those in the finished one."""
    if isinstance(value, str):
        return value.replace(before, behind)
    if isinstance(value, dict):
        return {key: _moved(entry, before, behind) for key, entry in value.items()}
    if isinstance(value, list):
        return [_moved(entry, before, behind) for entry in value]
    return value


def _figures(result: dict[str, Any]) -> str:
    """The few figures that people look for."""
    shown = (
        "samples",
        "kept",
        "changed",
        "top1",
        "best_top1",
        "top1_assigned",
        "top1_before",
        "top1_after",
        "macro_f1",
    )
    found = [f"{key} {result[key]:.4g}" for key in shown if isinstance(result.get(key), int | float)]
    return f" ({', '.join(found)})" if found else ""
