"""The words of the log for what the less privileged roles report: messages in, journal records out.

They send numbers and pieces of log text; the sentences are here. Log text goes into fields of its own, and
into a sentence only where it is an action's own output.
"""

from __future__ import annotations

import os

from lognot import messages as m
from lognot.children import how_it_ended
from lognot.journal import DEBUG, ERROR, INFO, NOTICE, WARNING, Event, Journal
from lognot.messages import Notice
from lognot.quota import QuotaJournal
from lognot.settings import Item
from lognot.shown import counted, shown, were

_ABOUT_A_LINE = (Notice.LINE_SKIPPED, Notice.REGEX_LIMITED, Notice.LINES_LEFT_OUT)


def _named(item: Item | None) -> str:
    return f"[{item.name}]" if item else "[item of an earlier config]"


def item_fired(journal: Journal | QuotaJournal, item: Item | None, fired: m.ItemFired) -> None:
    """A bound was passed."""
    frequency = None
    if item:
        frequency = item.upbound if fired.kind is m.Kind.UPBOUND else item.downbound
    if fired.kind is m.Kind.SIZE:
        happened = f"reached {fired.count} times its size"
        if item and item.size:
            happened = (
                f"log '{item.path}' reached {fired.count * item.size} bytes ({fired.count} x {item.size})"
            )
    elif frequency and frequency.seconds:
        bound = "more" if fired.kind is m.Kind.UPBOUND else "fewer"
        happened = (
            f"{fired.count} matches in {frequency.seconds} s, {bound} than {frequency.count} are the bound"
        )
    else:
        happened = "a line matched"
    journal.write(
        Event.ITEM_FIRED,
        NOTICE,
        f"{_named(item)} fired ({fired.kind.label}): {happened}",
        item=item.name if item else None,
        path=item.path if item else None,
        kind=fired.kind.label,
        count=fired.count,
        key=fired.key or None,
        line=fired.line or None,
    )


def action_started(journal: Journal | QuotaJournal, item: Item | None, started: m.ActionStarted) -> None:
    """An action's shell runs."""
    text = f"{_named(item)} action started as pid {started.pid}"
    journal.write(Event.ACTION_STARTED, DEBUG, text, item=item.name if item else None, pid=started.pid)


def action_output(journal: Journal | QuotaJournal, item: Item | None, output: m.ActionOutput) -> None:
    """An action printed a line."""
    text = f"{_named(item)} says: {output.line.decode('utf-8', 'surrogateescape')}"
    journal.write(Event.ACTION_OUTPUT, INFO, text, item=item.name if item else None, pid=output.pid)


def action_finished(journal: Journal | QuotaJournal, item: Item | None, finished: m.ActionFinished) -> None:
    """An action's shell ended: not a word too loud when it went well."""
    seconds = finished.duration_ms / 1000
    fields: dict[str, str | int | None] = {
        "item": item.name if item else None,
        "pid": finished.pid,
        "status": None,
        "duration_ms": finished.duration_ms,
    }
    if finished.wait_status == m.UNKNOWN_STATUS:
        how = "ended, its exit status went to an executor that is gone"
        event, priority = Event.ACTION_ENDED, INFO
    else:
        how = f"ended with {how_it_ended(finished.wait_status)}"
        if finished.wait_status == 0:
            event, priority = Event.ACTION_ENDED, INFO
        else:
            event, priority = Event.ACTION_FAILED, WARNING
        fields["status"] = os.waitstatus_to_exitcode(finished.wait_status)
    if finished.timed_out:
        event, priority, how = Event.ACTION_TIMEOUT, WARNING, f"took too long and was ended ({how})"
    journal.write(event, priority, f"{_named(item)} action {how} after {seconds:.3f} s", **fields)


_ABOUT_LOGS = (
    Notice.LINE_CUT,
    Notice.TRUNCATED,
    Notice.FILE_UNREADABLE,
    Notice.END_LOST,
    Notice.POSITION_LOST,
    Notice.LEFT_UNREAD,
    Notice.EMPTIED_UNSEEN,
)


def note(journal: Journal | QuotaJournal, role: str, said: m.Note, item: Item | None, path: str) -> None:
    """A less privileged role has something for the log; `item` and `path` are what its number may mean."""
    name = _named(item)
    text = said.text.decode("utf-8", "surrogateescape")
    line = shown(text)
    was_or_were = were(said.number)

    def number(what: str) -> str:
        return counted(said.number, what)

    match said.notice:
        case Notice.LINE_CUT:
            event, priority = Event.LINE_CUT, WARNING
            lines = f"{number('line')} of log '{path}'"
            sentence = f"{lines} {was_or_were} longer than max_line and {was_or_were} cut there"
        case Notice.TRUNCATED:
            event, priority = Event.LOG_TRUNCATED, INFO
            sentence = f"log '{path}' was truncated, reading it from its beginning"
        case Notice.EMPTIED_UNSEEN:
            event, priority = Event.LOG_TRUNCATED, WARNING
            sentence = (
                f"log '{path}' was truncated while nobody looked, reading it from its beginning; "
                "what was written just before may be missing"
            )
        case Notice.MATCH_FAILED:
            event, priority = Event.MATCH_FAILED, WARNING
            sentence = (
                f"{name} regex gave up on {number('line')}, taken as not matching; "
                f"expected a regex that needs fewer steps: {text}"
            )
        case Notice.KEYS_EVICTED:
            event, priority = Event.KEYS_EVICTED, WARNING
            sentence = (
                f"{name} has too many different keys: the {said.number} least recent {was_or_were} forgotten"
            )
        case Notice.ACTIONS_DROPPED:
            event, priority = Event.ACTIONS_DROPPED, ERROR
            actions = number("action")
            sentence = f"{name} {actions} {was_or_were} dropped, since {text or 'too many wait'}"
        case Notice.QUEUE_OVERFLOW:
            event, priority = Event.QUEUE_OVERFLOW, WARNING
            sentence = (
                "the kernel's event queue overflowed, looking at every log; nothing is lost "
                "(the sysctl fs.inotify.max_queued_events makes it longer)"
            )
        case Notice.LINE_SKIPPED:
            event, priority = Event.LINE_SKIPPED, ERROR
            sentence = (
                f"{name} regex was left out on one line, on which it took too long or crashed, "
                f"and is left out for a while on other long ones: {line}"
            )
        case Notice.REGEX_LIMITED:
            event, priority = Event.REGEX_LIMITED, WARNING
            sentence = (
                f"{name} regex has used up its time ({number('time')}); until it has some again it gets few "
                f"steps and no long line, or no line at all where that does not help, and a match that "
                f"needs more is missed; expected a regex that needs less on a line such as {line}"
            )
        case Notice.LINES_LEFT_OUT:
            event, priority = Event.REGEX_LIMITED, WARNING
            sentence = (
                f"{name} regex was left out on {number('line')}, since it was too slow before on lines "
                f"as long; one of them: {line}"
            )
        case Notice.ROLE_FAILED:
            event, priority = Event.ROLE_ENDED, ERROR
            sentence = f"{role} failed: {text}"
        case Notice.FORK_FAILED:
            event, priority = Event.ACTION_DELAYED, WARNING
            sentence = f"{role} cannot start an action now, will try again: {text}"
        case Notice.ACTION_OUTPUT_CUT:
            event, priority = Event.ACTION_OUTPUT, WARNING
            left_out = number("byte")
            sentence = f"{name} action printed too much, {left_out} {was_or_were} left out"
        case Notice.FILE_UNREADABLE:
            event, priority = Event.LOG_UNREADABLE, ERROR
            sentence = f"log '{path}' cannot be read: {text}"
        case Notice.END_LOST:
            event, priority = Event.RESUMED, WARNING
            sentence = (
                f"log '{path}' has lost its end, or has another one, as after a loss of power: what was read "
                "in about the last two minutes before is read again"
            )
        case Notice.POSITION_LOST:
            event, priority = Event.LOG_UNREADABLE, ERROR
            sentence = f"how far log '{path}' was read is not known any more, going on at its end"
        case Notice.LEFT_UNREAD:
            event, priority = Event.LOG_LEFT, ERROR
            sentence = (
                f"{number('byte')} of log '{path}' {was_or_were} not read when lognot had to stop; "
                "only items with resume = yes go on there"
            )
        case Notice.CONFIG_DIFFERS:
            event, priority = Event.CONFIG_REFUSED, WARNING  # the actions wait
            sentence = (
                f"{role} holds back its actions: the config that it reads is not the one that lognot uses; "
                "expected a reload after the file was changed, and the same options in both units"
            )
        case Notice.NO_SANDBOX:
            event, priority = Event.PRIVILEGES, WARNING
            sentence = f"the {role} runs without a filter of system calls: {text}"
    about_log = said.notice in _ABOUT_LOGS
    journal.write(
        event,
        priority,
        sentence,
        item=item.name if item and not about_log else None,
        path=path or None if about_log else (item.path if item else None),
        count=said.number or None,
        line=said.text if said.notice in _ABOUT_A_LINE else None,
        role=role,
    )
