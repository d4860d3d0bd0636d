"""Raw sections to a Config: options, defaults and accounts put together, every problem noted. Pure.

Called by `lognot.config` alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from lognot.errors import COMMAND_LINE, Problem
from lognot.ini import GENERAL, RawSection
from lognot.options import (
    OPTIONS,
    OPTIONS_BY_NAME,
    Option,
    Where,
    absolute_path,
    parse_action,
    parse_action_timeout,
    parse_athread_count,
    parse_directory,
    parse_downbound_freq,
    parse_engine,
    parse_max_line,
    parse_regex,
    parse_size,
    parse_switch,
    parse_upbound_freq,
)
from lognot.settings import EVERY_MATCH, MAX_ITEMS, Config, Item
from lognot.shown import shown
from lognot.users import Account, AccountError, UserDatabase, monitor_account, resolve_account

_ACTIONS = ("upbound_action", "downbound_action", "size_action")

# What does nothing alone: (option, what it needs, what to say).
_PAIRS = (
    ("upbound_freq", "upbound_action", "has no effect without upbound_action"),
    ("usecrc", "upbound_action", "has no effect without upbound_action"),
    ("downbound_freq", "downbound_action", "has no effect without downbound_action"),
    ("downbound_action", "downbound_freq", "never runs: downbound_freq is unset or has a COUNT of 0"),
    ("size", "size_action", "has no effect without size_action"),
    ("size_action", "size", "never runs: size is unset"),
)


class _Values:
    """One section after its options were looked at: the good texts, and where every option stands."""

    def __init__(self, name: str, source: str, line: int) -> None:
        self.name = name
        self.source = source
        self.line = line
        self.texts: dict[str, str] = {}
        self.lines: dict[str, int] = {}  # of bad options too

    def problem(self, option: str, text: str, *, warning: bool = False) -> Problem:
        """Say it at the option, or at the section's header where the option is not set."""
        line = self.lines.get(option, self.line)
        return Problem(self.source, line, self.name, option, text, warning)


class Checker:
    """Collects the problems of one config while it makes the items."""

    def __init__(
        self,
        source: str,
        dropins: tuple[str, ...],
        overrides: dict[str, str],
        base_dir: str,
        started_by: Account,
        users: UserDatabase,
    ) -> None:
        self.problems: dict[Problem, None] = {}  # ordered, and what is wrong in [general] is said once only
        self._source = source
        self._dropins = dropins
        self._overrides = overrides
        self._base_dir = base_dir
        self._started_by = started_by
        self._users = users
        self._general = _Values(GENERAL, source, 0)
        self._accounts: dict[tuple[str | None, str | None], Account | tuple[AccountError, ...]] = {}
        try:
            self._monitor_uid: int | None = monitor_account(users).uid
        except AccountError:
            self._monitor_uid = None  # the supervisor cannot start then, and says so

    def check(self, sections: Iterable[RawSection]) -> Config:
        """Return the config; with errors among the problems it is good for finding further ones only."""
        item_sections: list[RawSection] = []
        for section in sections:  # [general] first, since it may stand last
            if section.name == GENERAL:
                self._read_options(section, self._general)
            else:
                item_sections.append(section)
        if not item_sections:
            text = "names no log: there is nothing to watch"
            self._add(Problem(self._source, 0, "", "", text, warning=True))
        if len(item_sections) > MAX_ITEMS:
            extra = item_sections[MAX_ITEMS]
            text = f"one item too many; expected at most {MAX_ITEMS}"
            self._add(Problem(extra.source, extra.line, extra.name, "", text))
        general = self._general
        self._run_as(general, items_may_set_gid=True)  # an unknown name is an error even when no item uses it
        items = [self._item(section) for section in item_sections[:MAX_ITEMS]]
        return Config(
            source=self._source,
            athread_count=parse_athread_count(self._text("athread_count", general)),
            regex_engine=parse_engine(self._text("regex_engine", general)),
            max_line_bytes=parse_max_line(self._text("max_line", general)),
            state_dir=parse_directory(self._text("state_dir", general)),
            items=tuple(items),
            lines=general.lines,
            dropins=self._dropins,
        )

    def _add(self, problem: Problem) -> None:
        self.problems[problem] = None

    def _read_options(self, section: RawSection, values: _Values) -> None:
        """Check each option of `section` on its own and put the good ones into `values`."""
        for raw in section.options:
            values.lines[raw.name] = raw.line
            option = OPTIONS_BY_NAME.get(raw.name)
            try:
                if option is None:
                    raise ValueError(_unknown(raw.name))
                _check_place(option, section.name)
                option.parse(raw.value)
            except ValueError as error:
                self._add(values.problem(raw.name, str(error)))
            else:
                values.texts[raw.name] = raw.value

    def _item(self, section: RawSection) -> Item:
        own = _Values(section.name, section.source, section.line)
        self._read_options(section, own)
        self._warn_useless(own)
        return Item(
            name=section.name,
            path=self._path(own) or "",
            regex=parse_regex(self._text("regex", own)),
            upbound_action=parse_action(self._text("upbound_action", own)),
            upbound=parse_upbound_freq(self._text("upbound_freq", own)),
            downbound_action=parse_action(self._text("downbound_action", own)),
            downbound=parse_downbound_freq(self._text("downbound_freq", own)),
            usecrc=parse_switch(self._text("usecrc", own)),
            size=parse_size(self._text("size", own)),
            size_action=parse_action(self._text("size_action", own)),
            run_as=self._run_as(own) or self._started_by,
            action_timeout_s=parse_action_timeout(self._text("action_timeout", own)),
            resume=parse_switch(self._text("resume", own)),
            source=section.source,
            line=section.line,
            lines=own.lines,
        )

    def _text(self, name: str, own: _Values) -> str:
        """Return the text that counts for an option: the item's, else that in [general], else the default."""
        default = OPTIONS_BY_NAME[name].default
        return own.texts.get(name, self._general.texts.get(name, default or ""))

    def _path(self, own: _Values) -> str | None:
        if "path" not in own.lines:
            self._add(own.problem("path", "is missing; expected path = FILE in every item"))
        if "path" not in own.texts:
            return None
        try:
            return absolute_path(own.texts["path"], self._base_dir)
        except ValueError as error:  # too long once it is absolute
            self._add(own.problem("path", str(error)))
            return None

    def _run_as(self, own: _Values, *, items_may_set_gid: bool = False) -> Account | None:
        uid, uid_section = self._id_text("uid", own)
        gid, gid_section = self._id_text("gid", own)
        found = self._resolved(uid, "0" if gid is None and items_may_set_gid else gid)
        if isinstance(found, Account):
            if uid is None or found.uid != self._monitor_uid:
                return found
            text = f"{shown(found.name)} is who lognot's own monitor runs as; expected another user"
            found = (AccountError("uid", text),)
        for error in found:
            section = uid_section if error.option == "uid" else gid_section
            if section is None:
                self._add(Problem(COMMAND_LINE, 0, "", f"--{error.option}", str(error)))
            else:
                self._add(section.problem(error.option, str(error)))
        return None

    def _id_text(self, name: str, own: _Values) -> tuple[str | None, _Values | None]:
        """Return the text of uid or gid (None: not set) and the section that it stands in (None: -u, -g)."""
        if name in self._overrides:
            return self._overrides[name], None
        for section in (own, self._general):
            if name in section.texts:
                return section.texts[name], section
        return None, None

    def _resolved(self, uid: str | None, gid: str | None) -> Account | tuple[AccountError, ...]:
        """Return the account or what is wrong with uid and gid. Asked once: LDAP may be who answers."""
        key = (uid, gid)
        if key not in self._accounts:
            self._accounts[key] = self._look_up(uid, gid)
        return self._accounts[key]

    def _look_up(self, uid: str | None, gid: str | None) -> Account | tuple[AccountError, ...]:
        errors: dict[str, AccountError] = {}
        # One at a time as well, to name both when both are wrong; "0" because a user may need a group.
        for wanted in ((uid, gid), (uid, "0"), (None, gid)):
            try:
                account = resolve_account(*wanted, default=self._started_by, users=self._users)
            except AccountError as error:
                errors.setdefault(error.option, error)
            else:
                if wanted == (uid, gid):
                    return account
        return tuple(errors[option] for option in ("uid", "gid") if option in errors)

    def _warn_useless(self, own: _Values) -> None:
        """Warn of options in this section that do nothing; one in [general] may be meant for other items."""
        if not any(self._is_on(action, own) for action in _ACTIONS):
            text = "nothing would ever run; expected upbound_action, downbound_action or size_action"
            self._add(own.problem("", text, warning=True))
        for name, needed, text in _PAIRS:
            if name in own.texts and self._is_on(name, own) and not self._is_on(needed, own):
                self._add(own.problem(name, text, warning=True))

    def _is_on(self, name: str, own: _Values) -> bool:
        """Return whether an option has an effect; one with an error would, once that is mended."""
        for section in (own, self._general):
            if name in section.lines and name not in section.texts:
                return True
            if name in section.lines:
                break
        return OPTIONS_BY_NAME[name].parse(self._text(name, own)) not in (None, False, EVERY_MATCH)


def _check_place(option: Option, section: str) -> None:
    if option.where is Where.GENERAL and section != GENERAL:
        raise ValueError("is for the whole of lognot; expected it in [general]")
    if option.where is Where.ITEM and section == GENERAL:
        raise ValueError("belongs to one item; expected it in an item's section")


def _unknown(name: str) -> str:
    import difflib  # only errors need it, and every process would carry it

    nearest = difflib.get_close_matches(name[:40], [option.name for option in OPTIONS], n=1)
    return f"unknown option; did you mean {nearest[0]}?" if nearest else "unknown option; see lognot.conf(5)"
