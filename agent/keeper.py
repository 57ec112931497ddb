"""Who keeps a run: decides when a checkpoint is due, stops when asked to, and remembers the best agent."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

from .checkpoint import save_agent
from .faults import LOWER, StopRequest, is_out_of_memory, write_crash
from .resume import FOLDER, Saved, load_checkpoint, newest, prune, remove, save_checkpoint
from .storage import read_json, write_atomically
from .training import Trainer


class Keeper:
    """Keeps a trainer's run in a folder; the trainer's `pause`.

    Args:
        trainer: Whose run it is.
        folder: Run folder, locked.
        request: That the run may be asked to stop by.
        facts: What made the run, for the manifests.
    """

    def __init__(self, trainer: Trainer, folder: Path, request: StopRequest, facts: dict[str, Any]) -> None:
        self.trainer, self.folder, self.request, self.facts = trainer, folder, request, facts
        self.checkpoints = folder / FOLDER
        self.last: Saved | None = None
        self.then, self.units = time.monotonic(), trainer.units
        self.best: float | None = None

    def begin(self) -> None:
        """Save a fresh run, so that there is something to go on with whatever happens.

        Raises:
            OSError: The folder cannot be written.
        """
        self.save()

    def resume(self) -> None:
        """Put the newest checkpoint into the trainer.

        Raises:
            FileNotFoundError: Nothing to resume.
            ValueError: The run is finished or was made with other settings, or the checkpoint is damaged.
        """
        path = self.folder / "progress.json"
        latest = newest(self.checkpoints)
        if path.is_file():
            progress = read_json(path)
            if not isinstance(progress, dict):
                raise ValueError(f"{path} is damaged (no object); start a new run")
            if progress.get("finished"):
                raise ValueError(f"the run in {self.folder} is finished; there is nothing to resume")
        if latest is None:
            older = " that this version can go on with" if path.is_file() else ""
            raise FileNotFoundError(
                f"{self.folder} holds no interrupted run{older} (no {FOLDER}); start one without --resume"
            )
        try:
            self.last = load_checkpoint(self.trainer, latest)
        except (ValueError, FileNotFoundError) as error:
            before = sorted(self.checkpoints.glob("[0-9]*"))[:-1]
            hint = f"; remove {latest} to go on from {before[-1].name}" if before else ""
            raise type(error)(f"{error}{hint}") from error
        made, here = self.last.versions, self.facts.get("versions")
        if made != here:
            warnings.warn(f"{latest} was made with {made}, here are {here}; the run may become another", stacklevel=2)
        prune(self.checkpoints, self.trainer.agent.config.saving.keep)
        self.units = self.trainer.units
        score = self.folder / "best" / "score.json"
        try:
            self.best = float(read_json(score)["return"]) if score.is_file() else None
        except (KeyError, TypeError) as error:
            raise ValueError(f"{score} is damaged (it says no return); remove {score.parent}") from error

    def pause(self) -> None:
        """Between two units of work: keep the best agent, stop if asked to, save if it is time.

        Raises:
            Stopped: It was asked for.
        """
        trainer, saving = self.trainer, self.trainer.agent.config.saving
        try:
            if trainer.score is not None and trainer.phase == "collect":
                self._keep_best(trainer.score)
            self.request.obey()
            by_time = saving.minutes > 0 and time.monotonic() - self.then >= 60 * saving.minutes
            if by_time or (saving.units and trainer.units - self.units >= saving.units):
                self.save()
        except OSError as error:
            self.then, self.units = time.monotonic(), trainer.units
            warnings.warn(f"{error}; training goes on and tries again later", stacklevel=2)

    def save(self) -> None:
        """Save everything that the run goes on from, and the agent for whoever wants to look at it.

        Raises:
            OSError: The disk is full or the folder cannot be written; what was saved before is unharmed.
        """
        trainer = self.trainer
        if self.last is None or self.last.path.name != f"{trainer.units:09d}":
            self.last = save_checkpoint(trainer, self.checkpoints, self.facts, self.last)
        self.then, self.units = time.monotonic(), trainer.units
        save_agent(trainer.agent, self.folder)
        self._tell(finished=False)
        prune(self.checkpoints, trainer.agent.config.saving.keep)

    def finish(self) -> None:
        """Leave the agent alone; the checkpoints have done their work."""
        save_agent(self.trainer.agent, self.folder)
        self._tell(finished=True)
        prune(self.checkpoints, 1)
        if (latest := newest(self.checkpoints)) is not None:
            remove(latest)
        self.checkpoints.rmdir()

    def report_failure(self, error: BaseException) -> str:
        """Leave a report of what went wrong; returns where it is, and where the run can go on, in words."""
        trainer = self.trainer
        place = {"phase": trainer.phase, "updates": trainer.learner.done, **trainer.progress()}
        try:
            networks = trainer.agent.networks()
            where_to = write_crash(self.folder, error, {"at": place, **self.facts}, trainer.window, networks)
            details = f"details in {where_to}"
        except OSError as trouble:
            details = f"no details could be written ({trouble})"
        kept = f"the checkpoint of unit {int(self.last.path.name)} is kept" if self.last else "there is no checkpoint"
        where = f"in unit {trainer.units + 1} ({trainer.phase}; {trainer.learner.done} world-model updates done)"
        return f"{where}; {kept}; {details}"

    def lower(self, error: BaseException) -> str | None:
        """What to lower when memory gave out; None for any other error."""
        if not is_out_of_memory(error):
            return None
        return f"out of memory in phase {self.trainer.phase!r}: lower {LOWER[self.trainer.phase]}"

    def _keep_best(self, score: float) -> None:
        """Keep the agent that collected the highest mean return in a round, as it was then."""
        self.trainer.score = None
        if self.best is not None and score <= self.best:
            return
        save_agent(self.trainer.agent, self.folder / "best")
        facts = {"return": score, "round": self.trainer.rounds + 1, "decisions": self.trainer.decisions}
        write_atomically(self.folder / "best" / "score.json", json.dumps(facts, indent=2).encode())
        self.best = score

    def _tell(self, finished: bool) -> None:
        progress = {"finished": finished, "updates": self.trainer.learner.done} | self.trainer.progress()
        write_atomically(self.folder / "progress.json", json.dumps(progress, indent=2).encode())
