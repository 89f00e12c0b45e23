"""Makes the deployed forms of a run's variants, or takes them from the harness's home, and keeps them while the run lasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from harness.comparison import keys, recipes
from harness.comparison.state import Session, State
from harness.data.gguf import is_gguf, plain_copy
from harness.deploy.kept import KeptEntry, deployed_folder, limit_bytes, read_deployed, remove_oldest
from harness.deploy.tools import CALIBRATED, reader_version, why_untimed
from harness.errors import UserError
from harness.jobs import Base, DeployJob, Example, UnpackJob
from harness.prepare.trainings import Training
from harness.report.progress import Progress
from harness.storage import DiskFull
from harness.worker.server import JobFailed, Server


class Deployments:
    """The deployed forms and unpacked GGUF files that a run uses; nobody removes them until it is closed.

    Args:
        session: The run.
        server: Runs the jobs.
        progress: Receives progress events.
    """

    def __init__(self, session: Session, server: Server, progress: Progress) -> None:
        self._session, self._server, self._progress = session, server, progress
        self._held = ExitStack()

    def close(self) -> None:
        """Lets others remove what this run has used."""
        self._held.close()

    def make(self, state: State) -> None:
        """Makes the deployed form of a variant, unless it has none or an earlier run made an equal one.

        Raises:
            JobFailed: It cannot be made.
            UserError: The disk is full.
        """
        form, session = state.variant.spec.form, self._session
        if form is None:
            return
        made = recipes.trained_recipe(session, state)
        training = _calibration(session, state) if form.tool in CALIBRATED else None
        key = keys.deployed_key(session, made, form, training.data.digest if training else None)
        folder = deployed_folder(key)
        rows: Sequence[Example] = training.data.examples if training else ()
        job = DeployJob(made, form, folder, rows, session.config.seed)
        self._hold(folder, lambda: self._convert(state, job))
        deployed = read_deployed(folder)
        session.deployed[deployed.weights] = key
        state.deployed, state.model_bytes = deployed, deployed.bytes
        state.notes += [
            f"`@{form.text}`: read by {reader_version(form)}",
            *(f"`@{form.text}`: {note}" for note in deployed.notes),
        ]
        if reason := why_untimed(form):
            state.notes.append(f"`@{form.text}` is not timed: {reason}")
        if is_gguf(deployed.weights) and form.reader == "transformers":
            self.unpack(deployed.weights, state.name)

    def unpack(self, file: Path, name: str) -> None:
        """Unpacks a GGUF file in a child process of its own, so that no measurement of memory includes it.

        Args:
            file: The file.
            name: Its model or variant, for messages.
        """
        dtype = self._session.environment["dtype"]

        def job() -> None:
            self._progress.start("Unpack", name)
            self._server.run(UnpackJob(Base(file, "cpu", dtype)))
            self._progress.finish()

        self._hold(plain_copy(file, dtype), job)

    def _hold(self, folder: Path, make: Callable[[], None]) -> None:
        limit_bytes()  # a wrong limit is an error before anything is made
        entry = KeptEntry(folder)
        self._held.callback(entry.close)
        entry.hold(make)
        with suppress(OSError):
            remove_oldest()

    def _convert(self, state: State, job: DeployJob) -> None:
        self._progress.start("Convert", f"{state.name} to {job.form.made}")
        try:
            self._server.run(job)
        except DiskFull as error:
            raise DiskFull(error.message, "free some space, or choose another folder with `HARNESS_HOME`") from error
        except UserError as error:
            raise JobFailed(error.sentence) from error
        self._progress.finish()


def _calibration(session: Session, state: State) -> Training:
    """The training run on whose rows weights are rounded: the variant's own, else the first of the run."""
    return state.variant.training or session.prepared.trainings[0]
