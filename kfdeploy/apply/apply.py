"""Apply a release set to a cluster, wave by wave, through Helmfile.

Helmfile and Helm install the releases as they install any others. What they leave to people is done
around them: only releases that need a change are installed, so that the others get no new revision;
records of interrupted runs are mended; objects change hands between releases, or are recreated if
they cannot be changed; and what is not ready is explained. docs/decisions/015-apply.md
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Final, Literal

from kfdeploy.apply import applied_set
from kfdeploy.apply.divergence import DivergenceFinder, list_changed_fields
from kfdeploy.apply.steps import (
    ApplyPlan,
    ApplyResult,
    ApplyStep,
    Outcome,
    ReleaseResult,
)
from kfdeploy.apply.transient import is_transient, is_wait_timeout
from kfdeploy.errors import UserError
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.cluster import bulk, delete, helm_history, ownership
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.helm_history import ReleaseHistory
from kfdeploy.kubernetes.cluster.lease import HeldLease
from kfdeploy.kubernetes.cluster.wait import WaitProgress, wait_until_ready
from kfdeploy.kubernetes.helm_release import get_release_owner
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.kubernetes.workload import WORKLOADS
from kfdeploy.programs import helm, helmfile
from kfdeploy.programs.process import ProgramFailed
from kfdeploy.releaseset.folder import SetFolder, SetRelease

OnFailure = Literal["leave", "rollback"]
_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 15.0)
"""Seconds before each further run of Helm when the API server did not answer or was busy."""
_REASON_MAX: Final = 200
"""Characters of Helm's words that are shown before a further run."""
_WATCH_AFTER: Final = 1.0
"""Seconds after which Helm's progress is watched: short runs need no report."""


@dataclass(frozen=True)
class SetApplier:
    """Applies a set.

    Attributes:
        namespace: the namespace of Helm's records.
        find_divergences: finds what a cluster has otherwise than releases.
        seconds: time-out of each wait: Helm's for a release, for deletions, and the last one.
        jobs: Helm processes at a time.
        on_failure: what is done with a release that fails.
        say: called with a line for each step.
        on_progress: called with what is waited for (empty: a wave) and the state of the wait.
    """

    cluster: Cluster
    release_set: SetFolder
    namespace: str
    held: HeldLease
    find_divergences: DivergenceFinder
    seconds: float = 600.0
    jobs: int = 4
    on_failure: OnFailure = "leave"
    say: Callable[[str], None] = lambda line: None
    on_progress: Callable[[str, WaitProgress], None] = lambda what, progress: None

    def run(self, plan: ApplyPlan, outcomes: ApplyResult) -> None:
        """Do what a plan says, and write the results into ``outcomes``.

        It stops after the wave in which a release fails, as later waves need that release.

        Raises:
            UserError: the cluster does not answer, Helmfile cannot run, or the lock was lost.
        """
        started = time.monotonic()
        controlled = applied_set.read_controlled_fields(self.cluster, self.namespace)
        self._record_state("applying", controlled)
        try:
            # All at once: a release of an early wave would delete what one of a late wave gets.
            for step in plan.steps:
                ownership.transfer_ownership(
                    self.cluster, step.transferred, step.release, self.namespace
                )
            if self._apply_waves(plan, outcomes):
                self._remove_releases(plan, outcomes)
                self.held.ensure_held()
                self._settle_transfers(plan)
                outcomes.not_ready += self._wait_for_all(plan)
                controlled |= self._find_controlled_fields(plan)
        except BaseException:
            if not self.held.lost.is_set():
                with contextlib.suppress(UserError):  # the first error matters more
                    self._record_state("failed", controlled)
            raise
        finally:
            outcomes.seconds = time.monotonic() - started
        is_whole_set = len(plan.steps) == len(self.release_set.releases)
        success: applied_set.ApplyState = "applied" if is_whole_set else "partly applied"
        self._record_state(success if outcomes.is_good else "failed", controlled)

    def _record_state(self, state: applied_set.ApplyState, controlled: Iterable[str]) -> None:
        applied_set.write_state(self.cluster, self.namespace, self.release_set, state, controlled)

    # -- waves ------------------------------------------------------------------------------------

    def _apply_waves(self, plan: ApplyPlan, outcomes: ApplyResult) -> bool:
        """Apply the waves until one fails, and return whether none did."""
        waves = plan.waves
        for number, wave in enumerate(waves, 1):
            changed = [step for step in wave if step.has_changes]
            outcomes.results += (
                ReleaseResult(step.release, "unchanged") for step in wave if step not in changed
            )
            if changed:
                self.held.ensure_held()
                names = ", ".join(step.release for step in changed)
                self.say(f"wave {number} of {len(waves)}: {names}")
                outcomes.results += self._apply_wave(changed)
            if not outcomes.is_good:
                later = chain(*waves[number:])
                outcomes.results += (ReleaseResult(step.release, "not reached") for step in later)
                return False
        return True

    def _apply_wave(self, steps: Sequence[ApplyStep]) -> Iterator[ReleaseResult]:
        started = time.monotonic()
        before = self._read_histories(steps)
        for step in steps:
            self._clean_up_interrupted(step, before.get(step.release))
            self._prepare_release(step)
        after, failures = self._sync_with_retries(steps, before)
        seconds = time.monotonic() - started
        unready = dict(self._explain_unready(steps)) if failures else {}
        for step in steps:
            history = after.get(step.release)
            revision = history.newest.revision if history else 0
            if step.release not in failures:
                yield ReleaseResult(step.release, "done", step.action, revision, seconds)
                continue
            outcome = self._roll_back_failed(step, history)
            revision += outcome == "rolled back"  # a rollback is a revision of its own
            why = (*failures[step.release], *unready.get(step.release, ()))
            yield ReleaseResult(step.release, outcome, step.action, revision, seconds, why)

    def _read_histories(self, steps: Iterable[ApplyStep]) -> Mapping[str, ReleaseHistory]:
        names = [step.release for step in steps]
        return helm_history.read_histories(self.cluster, self.namespace, names)

    def _roll_back_failed(self, step: ApplyStep, history: ReleaseHistory | None) -> Outcome:
        if self.on_failure == "leave" or history is None or history.deployed is None:
            return "failed"
        if history.deployed is history.newest:  # Helm failed before it made a new revision
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

    def _explain_unready(self, steps: Sequence[ApplyStep]) -> Iterator[tuple[str, list[str]]]:
        """Yield each release with its workloads that are not ready, and their causes."""
        for step in steps:
            found = wait_until_ready(self.cluster, self._list_workloads([step]), seconds=0)
            yield step.release, [str(item) for item in found]

    # -- before Helm's run ------------------------------------------------------------------------

    def _clean_up_interrupted(self, step: ApplyStep, history: ReleaseHistory | None) -> None:
        """Clean up what interrupted runs have left of a release.

        Helm refuses to go on after a pending revision, and forgets the objects that unsuccessful
        revisions have created.
        """
        if history is None:
            return
        for revision in history.unsuccessful:
            if revision.is_pending:
                helm_history.fail_pending_revision(self.cluster, self.namespace, revision)
        created = {item.key for revision in history.unsuccessful for item in revision.objects}
        deployed = {item.key for item in history.deployed.objects} if history.deployed else set()
        live = bulk.read_objects(self.cluster, created - deployed - self._set_keys, metadata=True)
        for key in delete.sort_for_removal(live):
            body = live[key]
            is_own = get_release_owner(body) == (step.release, self.namespace)
            is_data = helm_release.is_user_data(key) or ownership.is_kept(body)
            if is_own and not is_data:
                self.cluster.delete(key)

    @cached_property
    def _set_keys(self) -> frozenset[ObjectKey]:
        releases = self.release_set.releases
        items = (item for release in releases for item in (*release.crds, *release.objects))
        return frozenset(item.key for item in items)

    def _prepare_release(self, step: ApplyStep) -> None:
        """Adopt and delete what is in Helm's way. A run that is stopped here loses nothing."""
        ownership.adopt_objects(self.cluster, step.adopted, step.release, self.namespace)
        for recreation in step.recreate:
            self.say(f"  {step.release}: deletes {recreation.key}: {recreation.why}")
            self.cluster.delete(recreation.key, cascade="foreground")
        gone = [*(recreation.key for recreation in step.recreate), *step.terminating]
        delete.wait_until_gone(self.cluster, gone, self.seconds)
        if helm.require_version() < (4,):
            self._apply_for_helm3(step, gone)

    def _apply_for_helm3(self, step: ApplyStep, without: Sequence[ObjectKey]) -> None:
        """Apply what Helm 3 cannot repair.

        Helm 3 changes only what differs between its own manifests. Fields that others have added
        stay, and so do custom resources as others have changed them.
        """
        wanted = {item.key: item for item in self._find_release(step.release).objects}
        keys = wanted.keys() if step.action == "repair" else step.adopted
        for key in bulk.read_objects(self.cluster, set(keys) - set(without), metadata=True):
            self.cluster.apply(wanted[key], manager="helm", force=True)

    # -- Helm's run -------------------------------------------------------------------------------

    def _sync_with_retries(
        self, steps: Sequence[ApplyStep], before: Mapping[str, ReleaseHistory]
    ) -> tuple[Mapping[str, ReleaseHistory], Mapping[str, Sequence[str]]]:
        """Run Helm for some releases, and again for those that may succeed a moment later.

        Helm itself gives up at once when the API server does not answer or is too busy.

        Returns:
            Helm's records afterwards, and Helm's words for each release that failed.
        """
        pauses = iter(_PAUSES)
        failures: dict[str, Sequence[str]] = {}
        remaining = list(steps)
        while True:
            lines: list[str] = []
            error = self._run_helmfile(remaining, lines)
            after = self._read_histories(steps)
            for step in remaining:
                failures.pop(step.release, None)
                if not self._is_done(step, before, after, has_failed=bool(error)):
                    words = helmfile.extract_failure(step.release, lines)
                    failures[step.release] = words or [error.strip()]
            reasons = {step: self._find_retry_reason(step, failures) for step in remaining}
            remaining = [step for step in remaining if reasons[step]]
            pause = next(pauses, None)
            if not remaining or pause is None:
                return after, failures
            for step in remaining:
                reason = reasons[step][:_REASON_MAX]
                self.say(f"  {step.release}: tried again in {pause:g} s: {reason}")
            if self.held.lost.wait(pause):
                self.held.ensure_held()
            for step in remaining:
                self._clean_up_interrupted(step, after.get(step.release))

    def _is_done(
        self,
        step: ApplyStep,
        before: Mapping[str, ReleaseHistory],
        after: Mapping[str, ReleaseHistory],
        *,
        has_failed: bool,
    ) -> bool:
        """Return whether Helm has a release as the set does.

        After a failed run, only a new revision counts.
        """
        old, new = before.get(step.release), after.get(step.release)
        if new is None or new.newest.status != "deployed":
            return False
        if new.newest.digest != self._find_release(step.release).digest:
            return False
        return not has_failed or old is None or new.newest.revision > old.newest.revision

    def _find_retry_reason(self, step: ApplyStep, failures: Mapping[str, Sequence[str]]) -> str:
        """Return why a further run of Helm may succeed; empty if it would not."""
        words = failures.get(step.release, ())
        if transient := next(filter(is_transient, words), ""):
            return transient
        if not any(map(is_wait_timeout, words)):
            return ""
        # Helm 4 watches objects. If it has lost the last event of an object that no longer changes,
        # it waits in vain.
        keys = self._list_workloads([step])
        is_ready = bool(keys) and not wait_until_ready(self.cluster, keys, seconds=0)
        return "Helm has waited in vain for what is ready" if is_ready else ""

    def _run_helmfile(self, steps: Sequence[ApplyStep], lines: list[str]) -> str:
        """Run Helmfile for some releases, and report meanwhile what they wait for.

        Args:
            lines: gets what Helmfile, Helm and kubectl print.

        Returns:
            The error of a run that failed; empty for one that did not.
        """
        done = threading.Event()
        watcher = threading.Thread(target=self._watch_progress, args=(steps, done), daemon=True)
        watcher.start()
        try:
            helmfile.sync_releases(
                self.release_set.folder,
                [step.release for step in steps],
                lines.append,
                seconds=self.seconds,
                jobs=self.jobs,
                flags=helm.server_side_flags(),
                cancelled=self.held.lost,
            )
        except ProgramFailed as error:
            return error.message
        except KeyboardInterrupt:
            self.held.ensure_held()
            raise
        finally:
            done.set()
            watcher.join(timeout=1.0)  # it may be waiting for an API server that does not answer
        return ""

    def _watch_progress(self, steps: Sequence[ApplyStep], done: threading.Event) -> None:
        def report_progress(progress: WaitProgress) -> None:
            if done.is_set():
                raise _StopWatching
            self.on_progress("", progress)

        if done.wait(_WATCH_AFTER):
            return
        # Helm reports what is wrong. This thread only shows how far it is.
        with contextlib.suppress(_StopWatching, UserError):
            wait_until_ready(
                self.cluster,
                self._list_workloads(steps),
                seconds=self.seconds,
                on_progress=report_progress,
            )

    def _list_workloads(self, steps: Iterable[ApplyStep]) -> list[ObjectKey]:
        """Return the workloads of some releases that a wait is for; a CronJob runs later."""
        return [
            item.key
            for step in steps
            for item in self._find_release(step.release).objects
            if item.key.kind in WORKLOADS and item.key.kind != "CronJob"
        ]

    def _find_release(self, name: str) -> SetRelease:
        return next(release for release in self.release_set.releases if release.name == name)

    # -- after the waves --------------------------------------------------------------------------

    def _remove_releases(self, plan: ApplyPlan, outcomes: ApplyResult) -> None:
        for removal in plan.removals:
            self.held.ensure_held()
            self.say(f"removes {removal.release}, which the set no longer has")
            delete.delete_objects(self.cluster, removal.deleted, seconds=self.seconds)
            delete.delete_release_records(self.cluster, self.namespace, removal.release)
            outcomes.removed.append(removal.release)

    def _settle_transfers(self, plan: ApplyPlan) -> None:
        """End the transfers of objects, except those that a release not applied still records."""
        transferred = (key for step in plan.steps for key in step.transferred)
        keys = {*plan.unsettled_transfers, *transferred}
        if not keys:
            return
        histories = helm_history.read_histories(self.cluster, self.namespace)
        holders = Counter(item.key for one in histories.values() for item in one.objects)
        ownership.finish_transfer(self.cluster, sorted(key for key in keys if holders[key] < 2))

    def _wait_for_all(self, plan: ApplyPlan) -> list[str]:
        """Wait for all workloads, and return those that do not become ready."""
        keys = self._list_workloads(plan.steps)
        if not keys:
            return []
        unready = wait_until_ready(
            self.cluster,
            keys,
            seconds=self.seconds,
            on_progress=lambda progress: self.on_progress("the set", progress),
        )
        return [str(item) for item in unready]

    def _find_controlled_fields(self, plan: ApplyPlan) -> frozenset[str]:
        """Return the fields that were just applied and already differ again.

        An operator writes them, and would do so after each further apply.
        """
        self.cluster.kinds.refresh()  # the set's definitions have brought new kinds
        applied = [self._find_release(step.release) for step in plan.steps if step.has_changes]
        divergences = chain(*self.find_divergences(applied).values())
        fields = frozenset(chain.from_iterable(map(list_changed_fields, divergences)))
        for field in sorted(fields):
            self.say(f"note: something in the cluster changes it back: {field}")
        return fields


class _StopWatching(Exception):
    """Nobody waits any longer."""
