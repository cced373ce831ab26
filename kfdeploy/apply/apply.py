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

from kfdeploy.apply import applied_set, divergence
from kfdeploy.apply.divergence import DivergenceFinder
from kfdeploy.apply.steps import (
    ApplyPlan,
    ApplyResult,
    ApplyStep,
    Outcome,
    ReleaseRemoval,
    ReleaseResult,
)
from kfdeploy.apply.transient import is_transient, is_wait_timeout
from kfdeploy.errors import UserError
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.cluster import bulk, helm_history, ownership
from kfdeploy.kubernetes.cluster import delete as removing
from kfdeploy.kubernetes.cluster import wait as waiting
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.helm_history import ReleaseHistory
from kfdeploy.kubernetes.cluster.lease import HeldLease
from kfdeploy.kubernetes.cluster.wait import WaitProgress
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
class SetApplier:
    """How a set is applied.

    Attributes:
        namespace: of Helm's records.
        find_divergences: finds what differs in the cluster from what releases have left there.
        seconds: for which Helm, and the end, wait for workloads.
        jobs: Helm processes at a time.
        on_failure: what becomes of a release that fails.
        say: a step, in a line.
        told: how far a wait is.
    """

    cluster: Cluster
    release_set: SetFolder
    namespace: str
    held: HeldLease
    find_divergences: DivergenceFinder
    seconds: float = 600.0
    jobs: int = 4
    on_failure: OnFailure = "leave"
    say: Say = lambda line: None
    on_progress: Callable[[str, WaitProgress], None] = lambda what, waiting: None

    def run(self, steps: ApplyPlan, outcomes: ApplyResult) -> None:
        """Do what a plan says, and put down what came of it.

        It stops after the wave in which a release fails: what comes later needs it.

        Raises:
            UserError: the cluster, or Helmfile, can't be asked; the lock was lost.
        """
        started = time.monotonic()
        controlled = applied_set.read_controlled_fields(self.cluster, self.namespace)
        self._record_state("applying", controlled)
        try:
            # All at once: a release of an early wave may let go of what one of a late wave gets.
            for step in steps.steps:
                ownership.transfer_ownership(
                    self.cluster, step.transferred, step.release, self.namespace
                )
            if self._apply_waves(steps, outcomes):
                for removal in steps.removals:
                    self._remove_release(removal)
                    outcomes.removed.append(removal.release)
                self.held.ensure_held()
                self._settle_transfers(steps)
                outcomes.not_ready += self._wait_until_ready(steps)
                controlled |= self._find_controlled_fields(steps)
        except BaseException:
            if not self.held.lost.is_set():
                with contextlib.suppress(UserError):  # what has gone wrong matters more
                    self._record_state("failed", controlled)
            raise
        finally:
            outcomes.seconds = time.monotonic() - started
        good: applied_set.ApplyState = (
            "applied" if len(steps.steps) == len(self.release_set.releases) else "partly applied"
        )
        self._record_state(good if outcomes.is_good else "failed", controlled)

    def _record_state(self, state: applied_set.ApplyState, controlled: Iterable[str]) -> None:
        applied_set.write_state(self.cluster, self.namespace, self.release_set, state, controlled)

    def _find_controlled_fields(self, steps: ApplyPlan) -> frozenset[str]:
        """Fields of what was just applied that the cluster has otherwise again.

        An operator had the last word about them, and would have it after each further apply.
        """
        self.cluster.kinds.refresh()  # new definitions have brought new ones
        acted = [self._find_release(step.release) for step in steps.steps if step.has_changes]
        found = [
            one for divergences in self.find_divergences(acted).values() for one in divergences
        ]
        fields = frozenset(field for one in found for field in divergence.list_changed_fields(one))
        for field in sorted(fields):
            self.say(f"note: something in the cluster changes it back: {field}")
        return fields

    # -- waves ------------------------------------------------------------------------------------

    def _apply_waves(self, steps: ApplyPlan, outcomes: ApplyResult) -> bool:
        """Whether all went well."""
        for number, wave in enumerate(steps.waves):
            outcomes.results += self._apply_wave(number, len(steps.waves), wave)
            if not outcomes.is_good:
                later = [step for wave in steps.waves[number + 1 :] for step in wave]
                outcomes.results += [ReleaseResult(step.release, "not reached") for step in later]
                return False
        return True

    def _apply_wave(
        self, number: int, waves: int, wave: Sequence[ApplyStep]
    ) -> Iterator[ReleaseResult]:
        acting = [step for step in wave if step.has_changes]
        yield from (
            ReleaseResult(step.release, "unchanged") for step in wave if not step.has_changes
        )
        if not acting:
            return
        self.held.ensure_held()
        self.say(f"wave {number + 1} of {waves}: {', '.join(step.release for step in acting)}")
        since = time.monotonic()
        histories = helm_history.read_histories(
            self.cluster, self.namespace, [one.release for one in acting]
        )
        for step in acting:
            self._clean_up_interrupted(step, histories.get(step.release))
            self._prepare_release(step)
        after, failed = self._sync_with_retries(acting, histories)
        took = time.monotonic() - since
        explained = dict(self._explain_not_ready(acting)) if failed else {}
        for step in acting:
            history = after.get(step.release)
            revision = history.newest.revision if history else 0
            if step.release not in failed:
                yield ReleaseResult(step.release, "done", step.action, revision, took)
                continue
            outcome = self._roll_back_failed(step, history)
            revision += outcome == "rolled back"  # which is a revision of its own
            why = (*failed[step.release], *explained.get(step.release, ()))
            yield ReleaseResult(step.release, outcome, step.action, revision, took, why)

    def _sync_with_retries(
        self, acting: Sequence[ApplyStep], before: Mapping[str, ReleaseHistory]
    ) -> tuple[Mapping[str, ReleaseHistory], Mapping[str, Sequence[str]]]:
        """Helm's records after its turn, and why it failed of those releases where it did.

        Helm gives up when the API server is away for a moment, or too busy: it gets another turn.
        """
        turn, pauses, left = list(acting), list(_PAUSES), dict[str, Sequence[str]]()
        while True:
            said: list[str] = []
            problem = ""
            try:
                self._run_helmfile(turn, said)
            except ProgramFailed as error:
                problem = error.message
            names = [step.release for step in acting]
            after = helm_history.read_histories(self.cluster, self.namespace, names)
            for step in turn:
                left.pop(step.release, None)
                old = before.get(step.release)
                if not self._is_done(step, old, after.get(step.release), bool(problem)):
                    words = helmfile.extract_failure(step.release, said) or [problem.strip()]
                    left[step.release] = words
            found = (
                (step, self._find_retry_reason(step, left.get(step.release, ()))) for step in turn
            )
            again = {step: why for step, why in found if why}
            turn = list(again)
            if not turn or not pauses:
                return after, left
            pause = pauses.pop(0)
            for step, why in again.items():
                self.say(f"  {step.release}: tried again in {pause:g} s: {why[:_WORD_MAX]}")
            if self.held.lost.wait(pause):
                self.held.ensure_held()
            for step in turn:
                self._clean_up_interrupted(step, after.get(step.release))

    def _find_retry_reason(self, step: ApplyStep, words: Sequence[str]) -> str:
        """Those of Helm's words by which another turn may help; empty where none would."""
        if (word := next(filter(is_transient, words), "")) or not any(map(is_wait_timeout, words)):
            return word
        # Helm 4 looks no more at what does not change any more: where the answer to its last look
        # was lost, it waits in vain.
        keys = self._list_workloads([step])
        ready = bool(keys) and not waiting.wait_until_ready(self.cluster, keys, seconds=0)
        return "Helm has waited in vain for what is ready" if ready else ""

    def _is_done(
        self,
        step: ApplyStep,
        before: ReleaseHistory | None,
        after: ReleaseHistory | None,
        failed: bool,
    ) -> bool:
        """Whether Helm has a release as the set has it; of a failed turn, whether since then."""
        if after is None or after.newest.status != "deployed":
            return False
        newer = before is None or after.newest.revision > before.newest.revision
        return after.newest.digest == self._find_release(step.release).digest and (
            newer or not failed
        )

    def _clean_up_interrupted(self, step: ApplyStep, history: ReleaseHistory | None) -> None:
        """End what stopped runs have begun: Helm refuses to go on after a pending revision, and
        forgets what revisions have made that came to nothing."""
        if history is None:
            return
        for record in history.unsuccessful:
            if record.is_pending:
                helm_history.fail_pending_revision(self.cluster, self.namespace, record)
        known = {item.key for item in history.deployed.objects} if history.deployed else set()
        left = {item.key for record in history.unsuccessful for item in record.objects}
        left -= known | self._set_keys
        there = bulk.read_objects(self.cluster, left, metadata=True)
        for key in removing.sort_for_removal(there):
            notes = there[key]["metadata"].get("annotations") or {}
            mine = (notes.get(OWNER), notes.get(OWNER_NAMESPACE)) == (step.release, self.namespace)
            if mine and not helm_release.is_user_data(key) and not ownership.is_kept(there[key]):
                self.cluster.delete(key)

    @cached_property
    def _set_keys(self) -> frozenset[ObjectKey]:
        """All objects of the set."""
        releases = self.release_set.releases
        return frozenset(item.key for one in releases for item in (*one.crds, *one.objects))

    def _prepare_release(self, step: ApplyStep) -> None:
        """Clear the way: nothing of it is lost when the run ends before Helm has begun."""
        ownership.adopt_objects(self.cluster, step.adopted, step.release, self.namespace)
        for one in step.recreate:
            self.say(f"  {step.release}: deletes {one.key}: {one.why}")
            self.cluster.delete(one.key, cascade="foreground")
        gone = [*(one.key for one in step.recreate), *step.terminating]
        removing.wait_until_gone(self.cluster, gone, self.seconds)
        if helm.require_version() < (4,):
            self._apply_for_helm3(step, gone)

    def _apply_for_helm3(self, step: ApplyStep, without: Sequence[ObjectKey]) -> None:
        """What Helm 3 can't do: it changes only what its own manifests tell apart, so fields stay
        that others have made, and custom resources as others have changed them."""
        wanted = {item.key: item for item in self._find_release(step.release).objects}
        keys = wanted.keys() if step.action == "repair" else step.adopted
        there = bulk.read_objects(self.cluster, set(keys) - set(without), metadata=True)
        for key in there:
            self.cluster.apply(wanted[key], manager="helm", force=True)

    def _run_helmfile(self, steps: Sequence[ApplyStep], said: list[str]) -> None:
        """Helmfile's turn; meanwhile what its releases wait for is looked at."""
        done = threading.Event()
        watcher = threading.Thread(target=self._watch_progress, args=(steps, done), daemon=True)
        watcher.start()
        try:
            helmfile.sync_releases(
                self.release_set.folder,
                [step.release for step in steps],
                said.append,
                seconds=self.seconds,
                jobs=self.jobs,
                flags=helm.server_side_flags(),
                cancelled=self.held.lost,
            )
        except KeyboardInterrupt:
            self.held.ensure_held()
            raise
        finally:
            done.set()
            watcher.join(timeout=1.0)  # it may be asking an API server that is away

    def _watch_progress(self, steps: Sequence[ApplyStep], done: threading.Event) -> None:
        def report_progress(waiting: WaitProgress) -> None:
            if done.is_set():
                raise _StopWatching
            self.on_progress("", waiting)

        try:
            if not done.wait(1.0):
                waiting.wait_until_ready(
                    self.cluster,
                    self._list_workloads(steps),
                    seconds=self.seconds,
                    on_progress=report_progress,
                )
        except (_StopWatching, UserError):  # whoever waits with it says what is wrong
            return

    def _list_workloads(self, steps: Iterable[ApplyStep]) -> list[ObjectKey]:
        return [
            item.key
            for step in steps
            for item in self._find_release(step.release).objects
            if item.key.kind in WORKLOADS and item.key.kind != "CronJob"
        ]

    def _explain_not_ready(self, steps: Sequence[ApplyStep]) -> Iterator[tuple[str, list[str]]]:
        """What is not ready of each release, and why."""
        for step in steps:
            found = waiting.wait_until_ready(self.cluster, self._list_workloads([step]), seconds=0)
            yield step.release, [str(one) for one in found]

    def _roll_back_failed(self, step: ApplyStep, history: ReleaseHistory | None) -> Outcome:
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

    def _remove_release(self, removal: ReleaseRemoval) -> None:
        self.held.ensure_held()
        self.say(f"removes {removal.release}, which the set no longer has")
        removing.delete_objects(self.cluster, removal.deleted, seconds=self.seconds)
        removing.delete_release_records(self.cluster, self.namespace, removal.release)

    def _settle_transfers(self, steps: ApplyPlan) -> None:
        """End what was handed over, but for what a release still has that was not applied."""
        if not (
            keys := {
                *steps.unsettled_transfers,
                *(key for step in steps.steps for key in step.transferred),
            }
        ):
            return
        holders = Counter(
            item.key
            for history in helm_history.read_histories(self.cluster, self.namespace).values()
            for item in history.objects
        )
        ownership.finish_transfer(self.cluster, sorted(key for key in keys if holders[key] < 2))

    def _wait_until_ready(self, steps: ApplyPlan) -> list[str]:
        keys = self._list_workloads(steps.steps)
        if not keys:
            return []
        left = waiting.wait_until_ready(
            self.cluster,
            keys,
            seconds=self.seconds,
            on_progress=lambda w: self.on_progress("the set", w),
        )
        return [str(one) for one in left]

    def _find_release(self, name: str) -> SetRelease:
        return next(one for one in self.release_set.releases if one.name == name)


class _StopWatching(Exception):
    """Nobody waits any longer."""
