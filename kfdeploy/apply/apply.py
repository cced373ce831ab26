"""releases/<set>/ -> the cluster: wave by wave, through Helmfile.

Helmfile and Helm do what they do for any other add-on. What they leave to people is done around
them: a plan of what has to change, so that what is as it should be gets no new revision; records of
runs that were stopped; objects that change hands, or can't be changed; and words for what is not
ready. docs/decisions/015-apply.md
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from kfdeploy.apply import applied_set, drift
from kfdeploy.apply.drift import Drifts
from kfdeploy.apply.steps import Outcome, Outcomes, Removal, Result, Step, Steps
from kfdeploy.apply.transient import is_overdue, may_pass
from kfdeploy.errors import UserError
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.cluster import bulk, helm_history, ownership
from kfdeploy.kubernetes.cluster import delete as removing
from kfdeploy.kubernetes.cluster import wait as waiting
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.helm_history import History
from kfdeploy.kubernetes.cluster.lease import Held
from kfdeploy.kubernetes.cluster.wait import Waiting
from kfdeploy.kubernetes.helm_release import OWNER, OWNER_NAMESPACE
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.kubernetes.workload import WORKLOADS
from kfdeploy.programs import helm, helmfile
from kfdeploy.programs.process import ProgramFailed
from kfdeploy.releaseset.folder import SetFolder, SetRelease

OnFailure = Literal["leave", "rollback"]
Say = Callable[[str], None]
_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 15.0)
"""Seconds before each further turn that Helm gets when the API server was away or busy."""
_WORD_MAX: Final = 200


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
        controlled = applied_set.controlled(self.cluster, self.namespace)
        self._mark("applying", controlled)
        try:
            # All at once: a release of an early wave may let go of what one of a late wave gets.
            for step in steps.steps:
                ownership.hand_over(self.cluster, step.moved, step.release, self.namespace)
            if self._waves(steps, outcomes):
                for removal in steps.removals:
                    self._remove(removal)
                    outcomes.removed.append(removal.release)
                self.held.must_hold()
                self._settle(steps)
                outcomes.not_ready += self._not_ready(steps)
                controlled |= self._controlled(steps)
        except BaseException:
            if not self.held.lost.is_set():
                with contextlib.suppress(UserError):  # what has gone wrong matters more
                    self._mark("failed", controlled)
            raise
        finally:
            outcomes.seconds = time.monotonic() - started
        good: applied_set.Word = (
            "applied" if len(steps.steps) == len(self.release_set.releases) else "partly applied"
        )
        self._mark(good if outcomes.is_good else "failed", controlled)

    def _mark(self, state: applied_set.Word, controlled: Iterable[str]) -> None:
        applied_set.write(self.cluster, self.namespace, self.release_set, state, controlled)

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

    def _waves(self, steps: Steps, outcomes: Outcomes) -> bool:
        """Whether all went well."""
        for number, wave in enumerate(steps.waves):
            outcomes.results += self._wave(number, len(steps.waves), wave)
            if not outcomes.is_good:
                later = [step for wave in steps.waves[number + 1 :] for step in wave]
                outcomes.results += [Result(step.release, "not reached") for step in later]
                return False
        return True

    def _wave(self, number: int, waves: int, wave: Sequence[Step]) -> Iterator[Result]:
        acting = [step for step in wave if step.acts]
        yield from (Result(step.release, "unchanged") for step in wave if not step.acts)
        if not acting:
            return
        self.held.must_hold()
        self.say(f"wave {number + 1} of {waves}: {', '.join(step.release for step in acting)}")
        since = time.monotonic()
        histories = helm_history.read(self.cluster, self.namespace, [one.release for one in acting])
        for step in acting:
            self._clear(step, histories.get(step.release))
            self._prepare(step)
        after, failed = self._synced(acting, histories)
        took = time.monotonic() - since
        explained = dict(self._look(acting)) if failed else {}
        for step in acting:
            history = after.get(step.release)
            revision = history.newest.revision if history else 0
            if step.release not in failed:
                yield Result(step.release, "done", step.action, revision, took)
                continue
            outcome = self._failed(step, history)
            revision += outcome == "rolled back"  # which is a revision of its own
            why = (*failed[step.release], *explained.get(step.release, ()))
            yield Result(step.release, outcome, step.action, revision, took, why)

    def _synced(
        self, acting: Sequence[Step], before: Mapping[str, History]
    ) -> tuple[Mapping[str, History], Mapping[str, Sequence[str]]]:
        """Helm's records after its turn, and why it failed of those releases where it did.

        Helm gives up when the API server is away for a moment, or too busy: it gets another turn.
        """
        turn, pauses, left = list(acting), list(_PAUSES), dict[str, Sequence[str]]()
        while True:
            said: list[str] = []
            problem = ""
            try:
                self._sync(turn, said)
            except ProgramFailed as error:
                problem = error.message
            names = [step.release for step in acting]
            after = helm_history.read(self.cluster, self.namespace, names)
            for step in turn:
                left.pop(step.release, None)
                old = before.get(step.release)
                if not self._is_done(step, old, after.get(step.release), bool(problem)):
                    words = helmfile.words_of(step.release, said) or [problem.strip()]
                    left[step.release] = words
            found = ((step, self._passing(step, left.get(step.release, ()))) for step in turn)
            again = {step: why for step, why in found if why}
            turn = list(again)
            if not turn or not pauses:
                return after, left
            pause = pauses.pop(0)
            for step, why in again.items():
                self.say(f"  {step.release}: tried again in {pause:g} s: {why[:_WORD_MAX]}")
            if self.held.lost.wait(pause):
                self.held.must_hold()
            for step in turn:
                self._clear(step, after.get(step.release))

    def _passing(self, step: Step, words: Sequence[str]) -> str:
        """Those of Helm's words by which another turn may help; empty where none would."""
        if (word := next(filter(may_pass, words), "")) or not any(map(is_overdue, words)):
            return word
        # Helm 4 looks no more at what does not change any more: where the answer to its last look
        # was lost, it waits in vain.
        keys = self._workloads([step])
        ready = bool(keys) and not waiting.wait(self.cluster, keys, seconds=0)
        return "Helm has waited in vain for what is ready" if ready else ""

    def _is_done(
        self, step: Step, before: History | None, after: History | None, failed: bool
    ) -> bool:
        """Whether Helm has a release as the set has it; of a failed turn, whether since then."""
        if after is None or after.newest.status != "deployed":
            return False
        newer = before is None or after.newest.revision > before.newest.revision
        return after.newest.digest == self._release(step.release).digest and (newer or not failed)

    def _clear(self, step: Step, history: History | None) -> None:
        """End what stopped runs have begun: Helm refuses to go on after a pending revision, and
        forgets what revisions have made that came to nothing."""
        if history is None:
            return
        for record in history.between:
            if record.is_pending:
                helm_history.end(self.cluster, self.namespace, record)
        known = {item.key for item in history.deployed.objects} if history.deployed else set()
        left = {item.key for record in history.between for item in record.objects}
        left -= known | self._keys
        there = bulk.read(self.cluster, left, metadata=True)
        for key in removing.order(there):
            notes = there[key]["metadata"].get("annotations") or {}
            mine = (notes.get(OWNER), notes.get(OWNER_NAMESPACE)) == (step.release, self.namespace)
            if mine and not helm_release.is_data(key) and not ownership.is_kept(there[key]):
                self.cluster.delete(key)

    @cached_property
    def _keys(self) -> frozenset[ObjectKey]:
        """All objects of the set."""
        releases = self.release_set.releases
        return frozenset(item.key for one in releases for item in (*one.crds, *one.objects))

    def _prepare(self, step: Step) -> None:
        """Clear the way: nothing of it is lost when the run ends before Helm has begun."""
        ownership.take_over(self.cluster, step.taken, step.release, self.namespace)
        for one in step.recreate:
            self.say(f"  {step.release}: deletes {one.key}: {one.why}")
            self.cluster.delete(one.key, cascade="foreground")
        gone = [*(one.key for one in step.recreate), *step.going]
        removing.wait_gone(self.cluster, gone, self.seconds)
        if helm.version() < (4,):
            self._apply(step, gone)

    def _apply(self, step: Step, without: Sequence[ObjectKey]) -> None:
        """What Helm 3 can't do: it changes only what its own manifests tell apart, so fields stay
        that others have made, and custom resources as others have changed them."""
        wanted = {item.key: item for item in self._release(step.release).objects}
        keys = wanted.keys() if step.action == "repair" else step.taken
        there = bulk.read(self.cluster, set(keys) - set(without), metadata=True)
        for key in there:
            self.cluster.apply(wanted[key], manager="helm", force=True)

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
                flags=helm.server_side(),
                cancelled=self.held.lost,
            )
        except KeyboardInterrupt:
            self.held.must_hold()
            raise
        finally:
            done.set()
            watcher.join(timeout=1.0)  # it may be asking an API server that is away

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

    def _failed(self, step: Step, history: History | None) -> Outcome:
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

    # -- the end ----------------------------------------------------------------------------------

    def _remove(self, removal: Removal) -> None:
        self.held.must_hold()
        self.say(f"removes {removal.release}, which the set no longer has")
        removing.delete(self.cluster, removal.deleted, seconds=self.seconds)
        removing.forget(self.cluster, self.namespace, removal.release)

    def _settle(self, steps: Steps) -> None:
        """End what was handed over, but for what a release still has that was not applied."""
        if not (keys := {*steps.handed, *(key for step in steps.steps for key in step.moved)}):
            return
        holders = Counter(
            item.key
            for history in helm_history.read(self.cluster, self.namespace).values()
            for item in history.objects
        )
        ownership.settle(self.cluster, sorted(key for key in keys if holders[key] < 2))

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
