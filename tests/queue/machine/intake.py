"""Admitting a message, and what the model says of it: outcome, position, and whom it takes in."""

from shared import keys
from shared.ids import uuid7
from shared.scripts import Admission, Idempotency
from shared.wire import Policy, TurnPayload
from tests.queue.machine.lab import lasting_s
from tests.queue.machine.model import BATCH, Job, Repeat
from tests.queue.machine.steps import Steps


class Intake(Steps):
    def accept_crowd(self, queue: str, many: int, tenant: str = "acme", lifetime: int = 2) -> None:
        """Conversations of their own: with one message, with a follower, and with two that are merged, in turn."""
        crowd = f"crowd-{len(self.model.jobs)}"
        for n in range(many):
            policy: Policy = "merge" if n % 3 == 2 else "queue"
            for _ in range(1 if n % 3 == 0 else 2):
                message = payload(tenant, f"{crowd}-{n}", "", queue)
                self.admit(message, lifetime, Idempotency(), policy, window=n // 3 % 2)
                self.every_promise_is_kept()

    def admit(
        self,
        payload: TurnPayload,
        lifetime: int,
        repeat: Idempotency,
        policy: Policy = "queue",
        window: int = 0,
    ) -> None:
        """One admission, under any policy; `window` in ticks."""
        outcome, known = self.expected(payload, repeat, policy)
        admission = self.call_admit(payload, lifetime, repeat, policy, window)
        assert (admission.outcome, admission.job_id) == (outcome, known or payload.job_id), (admission, policy)
        if outcome != "accepted":
            self.nothing_changed()
            return
        line = payload.tenant, payload.conversation_id
        job = Job(
            payload.job_id,
            payload.queue,
            payload,
            user=payload.user_id or self.model.owners.get(line, ""),
            created_us=admission.created_us,
            expires=self.model.now + lifetime,
            due=self.model.now,
            policy=policy,
        )
        head = next(iter(self.model.lines.get(line, [])), None)
        stood = head is not None and head.id in self._places(head.queue)
        assert admission.position == self.model.accept(job, window=window, stood=stood)
        if repeat.mode != "none":
            self.model.repeats[payload.tenant, repeat.digest] = Repeat(job.id, repeat.fingerprint)

    def expected(self, payload: TurnPayload, repeat: Idempotency, policy: Policy) -> tuple[str, str | None]:
        """Outcome, and the job it is about when that is another one."""
        seen = self.model.repeats.get((payload.tenant, repeat.digest))
        if repeat.mode in ("key", "sdk-retry") and seen is not None:
            return ("replayed" if seen.fingerprint == repeat.fingerprint else "mismatch"), seen.job_id
        if len(self.model.never_started(payload.queue)) >= self.model.max_depth:
            return "full", None
        owner = self.model.owners.get((payload.tenant, payload.conversation_id), "")
        if payload.user_id and owner and payload.user_id != owner:
            return "owner", None
        waiting = len(self.model.lines.get((payload.tenant, payload.conversation_id), []))
        if policy == "interrupt" and waiting > BATCH:
            return "full", None  # more than one call may stop
        return ("busy" if policy == "reject" and waiting else "accepted"), None

    def call_admit(
        self, payload: TurnPayload, lifetime: int, repeat: Idempotency, policy: Policy = "queue", window: int = 0
    ) -> Admission:
        window_s = lasting_s(window) if window else 0
        admit = self.lab.intake.admit(
            payload,
            ttl_s=lasting_s(lifetime),
            enqueued_ms=0,
            idempotency=repeat,
            policy=policy,
            merge_window_s=window_s,
        )
        return self.lab.do(admit)

    def _places(self, queue: str) -> set[str]:
        """Who stands in the queue or in a tenant's line."""
        key = keys.queue(queue)
        parked = (entry.value for entry in self.before.under(f"{key}:parked:").values())
        return set(self.before.times(key)).union(*parked)


def payload(tenant: str, conversation: str, user: str, queue: str) -> TurnPayload:
    return TurnPayload(
        job_id=uuid7(),
        tenant=tenant,
        agent="support",
        conversation_id=conversation,
        message="hello",
        user_id=user or None,
        queue=queue,
    )
