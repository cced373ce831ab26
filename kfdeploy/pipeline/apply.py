"""releases/<set>/ -> the cluster: wave by wave, through Helmfile.

Helmfile and Helm do what they do for any other add-on. What they leave to people is done around
them: a plan of what has to change, so that what is as it should be gets no new revision; records of
runs that were stopped; objects that change hands, or can't be changed; and words for what is not
ready. docs/decisions/015-apply.md
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from kfdeploy.errors import UserError
from kfdeploy.model import helmrecord
from kfdeploy.model.applying import Outcome, Outcomes, Removal, Result, Step, Steps
from kfdeploy.model.helmrecord import OWNER, OWNER_NAMESPACE, POLICY, Record
from kfdeploy.model.objects import ObjectKey
from kfdeploy.model.workload import WORKLOADS
from kfdeploy.tools import drift, helm, helmfile, live, ownership, records, setstate, waiting
from kfdeploy.tools import removal as removing
from kfdeploy.tools.cluster import Cluster
from kfdeploy.tools.drift import Drifts
from kfdeploy.tools.lease import Held
from kfdeploy.tools.process import ProgramFailed
from kfdeploy.tools.setfolder import SetFolder, SetRelease
from kfdeploy.tools.waiting import Waiting

OnFailure = Literal["leave", "rollback"]
Say = Callable[[str], None]
_QUIET_SECONDS: Final = 10.0
"""A record that somebody was at is left alone for so long: Helm may be ending just now."""


@dataclass(frozen=True)
class Applying:
    """How a set is applied.

    Attributes:
        namespace: of Helm's records.
        drifts: what differs in the cluster from what releases have left there.
        seconds: for which Helm, and the end, wait for workloads.
        jobs: Helm processes at a time.
        on_failure: what becomes of a release that fails.
        say: a step, in a line.
        told: how far a wait is.
    """

    cluster: Cluster
    release_set: SetFolder
    namespace: str
    held: Held
    drifts: Drifts
    seconds: float = 600.0
    jobs: int = 4
    on_failure: OnFailure = "leave"
    say: Say = lambda line: None
    told: Callable[[str, Waiting], None] = lambda what, waiting: None

    def run(self, steps: Steps, outcomes: Outcomes) -> None:
        """Do what a plan says, and put down what came of it.

        It stops after the wave in which a release fails: what comes later needs it.

        Raises:
            UserError: the cluster, or Helmfile, can't be asked; the lock was lost.
        """
        started = time.monotonic()
        controlled = setstate.controlled(self.cluster, self.namespace)
        self._mark("applying", controlled)
        try:
            # All at once: a release may let go of an object waves before another one has it.
            for step in steps.steps:
                ownership.hand_over(self.cluster, step.moved, step.release, self.namespace)
            for number, wave in enumerate(steps.waves):
                outcomes.results += self._wave(number, len(steps.waves), wave)
                if any(result.outcome in ("failed", "rolled back") for result in outcomes.results):
                    later = [step for wave in steps.waves[number + 1 :] for step in wave]
                    outcomes.results += [Result(step.release, "not reached") for step in later]
                    return
            for removal in steps.removals:
                self._remove(removal)
                outcomes.removed.append(removal.release)
            ownership.settle(self.cluster, steps.handed)
            outcomes.not_ready += self._not_ready(steps)
            controlled |= self._controlled(steps)
        finally:
            outcomes.seconds = time.monotonic() - started
            self._mark("applied" if outcomes.is_good and outcomes.results else "failed", controlled)

    def _mark(self, state: setstate.Word, controlled: Iterable[str]) -> None:
        setstate.write(self.cluster, self.namespace, self.release_set, state, controlled)

    def _controlled(self, steps: Steps) -> frozenset[str]:
        """Fields of what was just applied that the cluster has otherwise again.

        An operator had the last word about them, and would have it after each further apply.
        """
        self.cluster.kinds.refresh()  # new definitions have brought new ones
        acted = [self._release(step.release) for step in steps.steps if step.acts]
        found = [one for drifts in self.drifts(acted).values() for one in drifts]
        fields = frozenset(field for one in found for field in drift.fields_of(one))
        for field in sorted(fields):
            self.say(f"note: something in the cluster changes it back: {field}")
        return fields

    # -- waves ------------------------------------------------------------------------------------

    def _wave(self, number: int, waves: int, wave: Sequence[Step]) -> Iterator[Result]:
        acting = [step for step in wave if step.acts]
        yield from (Result(step.release, "unchanged") for step in wave if not step.acts)
        if not acting:
            return
        self.held.must_hold()
        self.say(f"wave {number + 1} of {waves}: {', '.join(step.release for step in acting)}")
        histories = records.read(self.cluster, self.namespace, [one.release for one in acting])
        for step in acting:
            history = histories.get(step.release)
            self._prepare(step, history.between if history else ())
        since = time.monotonic()
        said: list[str] = []
        failed = ""
        try:
            self._sync(acting, said)
        except ProgramFailed as error:
            failed = error.message
        took = time.monotonic() - since
        after = records.read(self.cluster, self.namespace, [one.release for one in acting])
        explained = dict(self._look(acting)) if failed else {}
        for step in acting:
            wanted = self._release(step.release).digest
            history = after.get(step.release)
            newest = history.newest if history else None
            if newest and newest.status == "deployed" and newest.digest == wanted:
                before = histories.get(step.release)
                self._clean_up(step, before.between if before else (), newest)
                yield Result(step.release, "done", step.action, newest.revision, took)
                continue
            why = tuple(helmfile.words_of(step.release, said)) or (failed.strip(),)
            outcome = self._failed(step, after.get(step.release))
            revision = newest.revision if newest else 0
            revision += outcome == "rolled back"  # which is a revision of its own
            yield Result(
                step.release,
                outcome,
                step.action,
                revision,
                took,
                (*why, *explained.get(step.release, ())),
            )

    def _prepare(self, step: Step, between: Iterable[Record]) -> None:
        """Clear the way: nothing of it is lost when the run ends before Helm has begun."""
        for record in between:
            if record.is_pending:
                self._let_end(record)
                records.forget(self.cluster, self.namespace, record)
        ownership.take_over(self.cluster, step.taken, step.release, self.namespace)
        for one in step.recreate:
            self.say(f"  {step.release}: deletes {one.key}: {one.why}")
            self.cluster.delete(one.key, cascade="foreground")
        self._wait_gone([one.key for one in step.recreate])

    def _let_end(self, record: Record) -> None:
        if record.at is not None:
            age = (datetime.now(UTC) - record.at).total_seconds()
            if 0 <= age < _QUIET_SECONDS:
                time.sleep(_QUIET_SECONDS - age)

    def _wait_gone(self, keys: Sequence[ObjectKey]) -> None:
        until = time.monotonic() + self.seconds
        while keys and (keys := list(live.read(self.cluster, keys, metadata=True))):
            if time.monotonic() > until:
                names = ", ".join(map(str, keys))
                raise UserError(
                    f"{names}: deleted, and still there after {self.seconds:g} s",
                    hint="`kubectl get ... -o yaml` shows the finalizers that hold it",
                )
            time.sleep(0.2)

    def _sync(self, steps: Sequence[Step], said: list[str]) -> None:
        """Helmfile's turn; meanwhile what its releases wait for is looked at."""
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(steps, done), daemon=True)
        watcher.start()
        try:
            helmfile.sync(
                self.release_set.folder,
                [step.release for step in steps],
                said.append,
                seconds=self.seconds,
                jobs=self.jobs,
                force_conflicts=helm.version() >= (4,),
            )
        finally:
            done.set()
            watcher.join()

    def _watch(self, steps: Sequence[Step], done: threading.Event) -> None:
        def told(waiting: Waiting) -> None:
            if done.is_set():
                raise _Enough
            self.told("", waiting)

        try:
            if not done.wait(1.0):
                waiting.wait(self.cluster, self._workloads(steps), seconds=self.seconds, told=told)
        except (_Enough, UserError):  # whoever waits with it says what is wrong
            return

    def _workloads(self, steps: Iterable[Step]) -> list[ObjectKey]:
        return [
            item.key
            for step in steps
            for item in self._release(step.release).objects
            if item.key.kind in WORKLOADS and item.key.kind != "CronJob"
        ]

    def _look(self, steps: Sequence[Step]) -> Iterator[tuple[str, list[str]]]:
        """What is not ready of each release, and why."""
        for step in steps:
            found = waiting.wait(self.cluster, self._workloads([step]), seconds=0)
            yield step.release, [str(one) for one in found]

    def _failed(self, step: Step, history: records.History | None) -> Outcome:
        if self.on_failure == "leave" or history is None or history.deployed is None:
            return "failed"
        if history.deployed is history.newest:  # Helm did not get as far as a new revision
            return "failed"
        try:
            helm.rollback(
                step.release,
                history.deployed.revision,
                self.namespace,
                self.cluster.context,
                seconds=self.seconds,
            )
        except ProgramFailed as error:
            self.say(f"  {step.release}: not rolled back: {error.message}")
            return "failed"
        return "rolled back"

    def _clean_up(self, step: Step, between: Sequence[Record], newest: Record) -> None:
        """Objects of a revision that came to nothing, which Helm forgets: it compares with the last
        one that was deployed."""
        now = {item.key for item in newest.objects}
        left = {item.key for record in between for item in record.objects} - now
        if not left:
            return
        mine = (step.release, self.namespace)
        for key, body in live.read(self.cluster, left, metadata=True).items():
            notes = body["metadata"].get("annotations") or {}
            kept = helmrecord.is_data(key) or notes.get(POLICY) == "keep"
            if (notes.get(OWNER), notes.get(OWNER_NAMESPACE)) == mine and not kept:
                self.cluster.delete(key, uid=body["metadata"]["uid"])

    # -- the end ----------------------------------------------------------------------------------

    def _remove(self, removal: Removal) -> None:
        self.held.must_hold()
        self.say(f"removes {removal.release}, which the set no longer has")
        removing.delete(self.cluster, removal.deleted)
        removing.forget(self.cluster, self.namespace, removal.release)

    def _not_ready(self, steps: Steps) -> list[str]:
        keys = self._workloads(steps.steps)
        if not keys:
            return []
        left = waiting.wait(
            self.cluster, keys, seconds=self.seconds, told=lambda w: self.told("the set", w)
        )
        return [str(one) for one in left]

    def _release(self, name: str) -> SetRelease:
        return next(one for one in self.release_set.releases if one.name == name)


class _Enough(Exception):
    """Nobody waits any longer."""
