"""The training of a world, kept: saved now and then, stopped when asked to, and gone on with bit for bit.

`checkpoint.safetensors` in the world's folder holds all that the training depends on: every weight, the optimiser's
running averages, both generators, how far it is and, as text, settings, data and versions. It is written beside,
flushed and renamed, and gone when the world is finished.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..modules.genie.files import as_before
from ..modules.genie.video import VideoDataset
from ..modules.genie.world import Genie
from .checkpoint import upgraded
from .errors import OutOfMemoryError
from .faults import StopRequest, is_out_of_memory, locked, stop_requests, write_crash
from .genie_settings import GenieTraining
from .genie_training import GenieTrainer, Report, keep_prompts
from .resume import RememberingReport
from .run import provenance
from .storage import HEADER_LIMIT, Shapes, from_json, parse_json, read_tensors, save_tensors, tensor_shapes, to_json

FORMAT = 2
CHECKPOINT = "checkpoint.safetensors"
_TEXT = "about"  # the tensor that holds settings, data and versions as JSON


def _as_before(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts of format 1 as those of this version."""
    return {**facts, "training": {**facts["training"], "world": as_before(facts["training"]["world"])}}


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], Any]] = {1: _as_before}


def train_world(
    config: GenieTraining,
    data: tuple[VideoDataset, VideoDataset],
    folder: Path,
    report: Report,
    about: dict[str, Any],
    resume: bool = False,
    tokenizer: Path | None = None,
) -> Genie:
    """Train a world and leave it in ``folder``; a training that ended early in whatever way can be resumed.

    Args:
        config: Settings.
        data: Video to learn from, and to take prompts from.
        folder: Of the world, created if needed.
        report: Told of progress; saved with the training if it is a `RememberingReport`.
        about: Where the world comes from, for `world.json`.
        resume: Go on with the training in the folder. Where none was broken off, parts that are there are kept, and
            the prompts in any case.
        tokenizer: Weights of another world's tokenizer, to begin with instead of learning one.

    Raises:
        KeyboardInterrupt: Passed on after everything was saved.
        FloatingPointError: Something is not finite; the last checkpoint is kept.
        OutOfMemoryError: Names the settings to lower.
        OSError: The folder cannot be written, or another process writes to it.
    """
    train, test = data
    with locked(folder), stop_requests() as request:
        trainer = GenieTrainer(config, train, folder, report)
        keeper = GenieKeeper(trainer, folder / CHECKPOINT, request)
        found = resume and keeper.resume()
        if not (resume and (folder / "prompts.npy").is_file()):
            keep_prompts(config, test, folder)
        if tokenizer is not None and not found:
            trainer.take_tokenizer(tokenizer)  # before anything is saved, or a resumed training would learn another
        if not found:
            keeper.save()
        trainer.pause = keeper.pause
        try:
            world = trainer.run(about, keep=resume and not found)
        except Exception as error:
            if (told := keeper.explained(error)) is not error:
                raise told from error
            raise
        keeper.path.unlink()
    return world


class GenieKeeper:
    """Saves a training when it is time or when it is asked to stop.

    Args:
        trainer: Whose training it is.
        path: Of the checkpoint.
        request: That the training may be asked to stop by.
    """

    def __init__(self, trainer: GenieTrainer, path: Path, request: StopRequest) -> None:
        self.trainer, self.path, self.request = trainer, path, request
        self.then = time.monotonic()

    def pause(self) -> None:
        """Between two updates: save if it is time, save and stop if asked to.

        Raises:
            Stopped: It was asked for.
            OSError: It was asked for, and nothing could be saved.
        """
        minutes = self.trainer.config.save_minutes
        if self.request.number is not None:
            self.save()
            self.request.obey()
        elif minutes and time.monotonic() - self.then >= 60 * minutes:
            try:
                self.save()
            except OSError as error:
                self.then = time.monotonic()
                warnings.warn(f"{error}; training goes on and tries again later", stacklevel=2)

    def save(self) -> None:
        """Save everything that the training goes on from.

        Raises:
            OSError: The disk is full or the folder cannot be written; what was saved before is unharmed.
        """
        told: object = self.trainer.report
        report = told.state() if isinstance(told, RememberingReport) else None
        facts = {"format": FORMAT, **provenance(), "training": to_json(self.trainer.config), "report": report}
        facts |= {"data": self.trainer.data.about}
        text = torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)
        save_tensors(self.path, self.trainer.state() | {_TEXT: text})
        self.then = time.monotonic()

    def resume(self) -> bool:
        """Put the checkpoint into the trainer; whether there is one.

        Raises:
            ValueError: It is damaged, or of other settings or data.
        """
        if not self.path.is_file():
            return False
        state = read_tensors(self.path, self._shapes())
        try:
            facts = upgraded(parse_json(bytes(state.pop(_TEXT).tolist())), self.path, FORMAT, _MIGRATIONS)
            saved, mine = from_json(GenieTraining, facts["training"]), self.trainer.config
            same = replace(saved, device=mine.device, save_minutes=mine.save_minutes) == mine
            if not same or facts["data"] != self.trainer.data.about:
                what = "data" if same else "settings"
                raise ValueError(f"it was trained with other {what}; resume with the same, or choose another folder")
            self.trainer.restore(state)
            told: object = self.trainer.report
            if isinstance(told, RememberingReport) and facts["report"] is not None:
                told.restore(facts["report"])
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
            raise ValueError(f"{self.path} cannot be resumed from ({' '.join(str(error).split())})") from error
        made, here = facts.get("versions"), provenance()["versions"]
        if made != here:
            warnings.warn(f"{self.path} was made with {made}, here are {here}; the world may be another", stacklevel=2)
        return True

    def _shapes(self) -> Shapes:
        """Names and shapes that the checkpoint must have: the trainer's, and averages of a part's parameters.

        Raises:
            ValueError: The file has averages that belong to nothing.
        """
        given = tensor_shapes(self.path)
        wanted = {name: tuple(tensor.shape) for name, tensor in self.trainer.state().items()}
        averages = {name: shape for name, shape in given.items() if name.startswith("optimiser.")}
        if len(averages) > 3 * len(wanted) or not set(averages.values()) <= {*wanted.values(), ()}:
            raise ValueError(f"{self.path} is damaged (it has averages of no parameters); remove it and train again")
        text = given.get(_TEXT, ())
        if len(text) != 1 or text[0] > HEADER_LIMIT:
            raise ValueError(f"{self.path} is damaged (it does not say what made it); remove it and train again")
        return wanted | averages | {_TEXT: text}

    def explained(self, error: Exception) -> Exception:
        """An error with where it came, what is kept, and what to do about it; leaves a report in ``crash/``."""
        trainer = self.trainer
        if is_out_of_memory(error):
            return OutOfMemoryError(f"out of memory: lower updates.batch, or make the world smaller ({error})")
        names = list(trainer.parts)
        place = {"part": names[min(trainer.stage, len(names) - 1)], "updates": trainer.done}
        try:
            where = write_crash(self.path.parent, error, {"at": place, **provenance()}, None, trainer.parts)
        except OSError:
            return error
        if isinstance(error, FloatingPointError):
            return FloatingPointError(f"{error}; the last checkpoint is kept, details in {where}")
        return error
