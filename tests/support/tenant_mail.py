"""Mail of a tenant's configuration in a running API service, with what became of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from outgate.model.flow import Attempt, Job, Status
from outgate.model.tenancy import Verification
from outgate.store.keys import new_dkim_key
from support.api_service import Service
from support.queue_mail import accepted, attempt


@dataclass(frozen=True)
class TenantMail:
    """A configuration that sends through the service's queue."""

    service: Service
    config_id: str


def tenant_mail(service: Service, domain: str) -> TenantMail:
    """Make a configuration for `domain`."""
    made = service.store.tenancy.create_configuration(
        service.instance.id,
        name=domain,
        domain=domain,
        description="",
        key=new_dkim_key(),
        authorization=Verification.SUCCESSFUL,
    )
    return TenantMail(service, made.id)


def submit(mail: TenantMail, mailbox: str, *, subject: str, at: float) -> Job:
    """Have a message accepted; return its job, leased."""
    message = replace(
        accepted(mailbox, subject=subject, at=at, instance=mail.service.instance.id), smtp_config_id=mail.config_id
    )
    done: list[tuple[Exception | None, tuple[Job, ...]]] = []
    queue = mail.service.queue
    queue.submit(message, lambda error, jobs: done.append((error, jobs)))
    queue.flush()
    ((error, (job,)),) = done
    assert error is None
    return job


def record(mail: TenantMail, made: Attempt) -> None:
    """Store an attempt."""
    mail.service.queue.record(made)
    mail.service.queue.flush()


def deliver(mail: TenantMail, mailbox: str, *, subject: str = "hello", at: float) -> None:
    """A message that is delivered a second after it was accepted."""
    record(mail, attempt(submit(mail, mailbox, subject=subject, at=at), Status.DELIVERED, at=at + 1))


def bounce(mail: TenantMail, mailbox: str, *, subject: str = "hello", at: float) -> None:
    """A message that is refused for good a second after it was accepted."""
    record(mail, attempt(submit(mail, mailbox, subject=subject, at=at), Status.BOUNCED, at=at + 1))


def defer_and_deliver(mail: TenantMail, mailbox: str, *, subject: str = "hello", at: float, times: int = 1) -> None:
    """A message that is deferred `times` times, a minute apart, and then delivered."""
    job = submit(mail, mailbox, subject=subject, at=at)
    for number in range(times):
        now = at + 1 + number * 60
        record(mail, attempt(job, Status.DEFERRED, at=now, next_at=now + 60))
        (job,) = [found for found in mail.service.queue.claim(now + 60, 100) if found.queue_id == job.queue_id]
    record(mail, attempt(job, Status.DELIVERED, at=at + 1 + times * 60))
