"""The checked config as values, and those values as JSON. Pure.

`lognot.config` makes them from the config file; whoever holds one need not ask whether a value is sane.
The process that read and checked the file hands them to the others as JSON: data, never pickle.
"""

from __future__ import annotations

import json
from _blake2 import blake2b  # as hashlib has it, without OpenSSL (1 MB)
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from dataclasses import fields as fields_of

from lognot.errors import ProtocolError
from lognot.users import MAX_ID, Account

ENGINES = ("auto", "pcre", "pcre2")

# Limits, each with its reason: nothing in a config may make a process grow without bound.
MAX_ITEMS = 4096  # one file, one inotify watch and one set of counters each; inotify's own default is 8192
MAX_COUNT = 1_000_000  # that many moments are kept for a window, 8 bytes each, per key
MAX_PERIOD_S = 31_622_400  # a leap year; a longer window would hardly outlive the next reboot
MAX_ATHREAD_COUNT = 1000  # processes at a time
MAX_ACTION_TIMEOUT_S = 86_400  # a day: an action is no daemon
MIN_LINE_BYTES, MAX_LINE_BYTES = 1024, 16 * 1024**2  # a line is held in memory whole
MAX_SIZE_BYTES = 2**63 - 1  # what off_t can say
MAX_PATH_BYTES = 4095  # PATH_MAX less its NUL
MAX_COMPONENT_BYTES = 255  # NAME_MAX


@dataclass(frozen=True, slots=True)
class Frequency:
    """COUNT/SECONDS: so many matches within so many seconds."""

    count: int
    seconds: int


EVERY_MATCH = Frequency(0, 0)  # more than 0 matches, whatever the time between them


@dataclass(frozen=True, slots=True)
class Item:
    """One section: a log, what to look for in it and what to run. Equal items mean the same to lognot."""

    name: str
    path: str  # absolute; bytes that are no UTF-8 as surrogates, see os.fsencode()
    regex: bytes  # not compiled: the process that reads configs has no regex engine
    upbound_action: bytes | None
    upbound: Frequency
    downbound_action: bytes | None
    downbound: Frequency | None  # None: off
    usecrc: bool
    size: int | None  # bytes; None: off
    size_action: bytes | None
    run_as: Account
    action_timeout_s: int
    resume: bool = False  # go on after a restart where reading ended
    # Where it stands; an item that moves within its file, or to another one, stays what it is.
    source: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)  # of the section's header
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)  # of the options in the section


@dataclass(frozen=True, slots=True)
class Config:
    """A whole config, checked: a file and its drop-ins."""

    source: str  # the file, for messages; [general] stands in it
    athread_count: int
    regex_engine: str  # one of ENGINES
    max_line_bytes: int
    items: tuple[Item, ...]  # in reading order
    state_dir: str = ""  # absolute; "": where the system has such things
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)  # of the options in [general]
    dropins: tuple[str, ...] = field(default=(), compare=False)  # the files read after `source`

    def place_of(self, item: Item, option: str) -> tuple[str, int]:
        """Return the file and the line to name when an item's `option` is wrong.

        They are those of the option in the item, or in [general], or of the item where it is not set.
        """
        if option in self.lines and option not in item.lines:
            return self.source, self.lines[option]
        return item.source, item.lines.get(option, item.line)


def item_digest(item: Item) -> bytes:
    """Return what stands for everything that an item means: equal for equal items, 16 bytes."""
    values = {field.name: getattr(item, field.name) for field in fields_of(item) if field.compare}
    data = json.dumps({**values, "run_as": asdict(item.run_as)}, default=_as_json, sort_keys=True)
    return blake2b(data.encode("ascii"), digest_size=16).digest()


def config_to_json(config: Config) -> bytes:
    """Return `config` as JSON, in ASCII; read by `config_from_json`, which gives back an equal config.

    Bytes stand in it as Latin-1 text, surrogates of a path as `\\udcXX`.
    """
    return json.dumps(asdict(config), default=_bytes_as_text, separators=(",", ":")).encode("ascii")


def config_from_json(data: bytes) -> Config:
    """Return the config that `config_to_json` wrote.

    Raises ProtocolError for anything else: wrong JSON, a field too many or too few, a wrong type, a value out
    of the bounds that the config file is held to.
    """
    try:
        values: object = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a config that is no JSON: {error}") from error
    fields = _Fields("config", values)
    config = Config(
        source=fields.text("source"),
        athread_count=fields.number("athread_count", 1, MAX_ATHREAD_COUNT),
        regex_engine=fields.text("regex_engine"),
        max_line_bytes=fields.number("max_line_bytes", MIN_LINE_BYTES, MAX_LINE_BYTES),
        state_dir=fields.text("state_dir"),
        items=tuple(_item(value) for value in fields.array("items")),
        lines=fields.lines(),
        dropins=tuple(_text("config.dropins", path) for path in fields.array("dropins")),
    )
    fields.check_all_taken()
    if config.regex_engine not in ENGINES:
        raise ProtocolError(f"config.regex_engine: expected one of {', '.join(ENGINES)}")
    if len(config.items) > MAX_ITEMS or len({item.name for item in config.items}) < len(config.items):
        raise ProtocolError("config.items: too many, or two of one name")
    return config


def _as_json(value: object) -> object:
    return astuple(value) if isinstance(value, Frequency) else _bytes_as_text(value)


def _bytes_as_text(value: object) -> str:
    """What json.dumps() does not know; undone by `_Fields.optional_bytes`."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    raise TypeError(f"{type(value).__name__} in a config")


def _item(value: object) -> Item:
    fields = _Fields("item", value)
    item = Item(
        name=fields.text("name"),
        path=fields.text("path"),
        regex=fields.optional_bytes("regex") or b"",
        upbound_action=fields.optional_bytes("upbound_action"),
        upbound=_frequency(fields.take("upbound")),
        downbound_action=fields.optional_bytes("downbound_action"),
        downbound=fields.optional_frequency("downbound"),
        usecrc=fields.boolean("usecrc"),
        size=fields.optional_number("size", 1, MAX_SIZE_BYTES),
        size_action=fields.optional_bytes("size_action"),
        run_as=_account(fields.take("run_as")),
        action_timeout_s=fields.number("action_timeout_s", 1, MAX_ACTION_TIMEOUT_S),
        resume=fields.boolean("resume"),
        source=fields.text("source"),
        line=fields.number("line", 0),
        lines=fields.lines(),
    )
    fields.check_all_taken()
    if not item.name or not item.regex:
        raise ProtocolError("item.name, item.regex: expected text")
    if not item.path.startswith("/"):
        raise ProtocolError("item.path: expected an absolute path")
    return item


def _frequency(value: object) -> Frequency:
    fields = _Fields("frequency", value)
    frequency = Frequency(fields.number("count", 0, MAX_COUNT), fields.number("seconds", 0, MAX_PERIOD_S))
    fields.check_all_taken()
    if frequency.count and not frequency.seconds:
        raise ProtocolError("frequency.seconds: expected more than 0")
    return frequency


def _account(value: object) -> Account:
    fields = _Fields("account", value)
    account = Account(
        uid=fields.number("uid", 0, MAX_ID),
        gid=fields.number("gid", 0, MAX_ID),
        groups=tuple(_number("account.groups", gid, 0, MAX_ID) for gid in fields.array("groups")),
        name=fields.text("name"),
        home=fields.text("home"),
    )
    fields.check_all_taken()
    return account


class _Fields:
    """A JSON object whose fields are taken out by name and type; each method raises ProtocolError."""

    def __init__(self, what: str, value: object) -> None:
        if not isinstance(value, dict):
            raise ProtocolError(f"{what}: expected an object")
        self._what = what
        self._left: dict[str, object] = dict(value)

    def check_all_taken(self) -> None:
        if self._left:
            raise ProtocolError(f"{self._what}: unknown fields {sorted(self._left)!r:.200}")

    def take(self, name: str) -> object:
        try:
            return self._left.pop(name)
        except KeyError:
            raise ProtocolError(f"{self._what}.{name}: missing") from None

    def text(self, name: str) -> str:
        return _text(f"{self._what}.{name}", self.take(name))

    def boolean(self, name: str) -> bool:
        value = self.take(name)
        if not isinstance(value, bool):
            raise ProtocolError(f"{self._what}.{name}: expected true or false")
        return value

    def number(self, name: str, low: int, high: int = 2**63 - 1) -> int:
        return _number(f"{self._what}.{name}", self.take(name), low, high)

    def optional_number(self, name: str, low: int, high: int) -> int | None:
        value = self.take(name)
        return None if value is None else _number(f"{self._what}.{name}", value, low, high)

    def optional_bytes(self, name: str) -> bytes | None:
        value = self.take(name)
        if value is None:
            return None
        try:
            if isinstance(value, str) and "\0" not in value:
                return value.encode("latin-1")
        except UnicodeEncodeError:
            pass
        raise ProtocolError(f"{self._what}.{name}: expected bytes without NUL")

    def optional_frequency(self, name: str) -> Frequency | None:
        value = self.take(name)
        return None if value is None else _frequency(value)

    def array(self, name: str) -> list[object]:
        value = self.take(name)
        if not isinstance(value, list):
            raise ProtocolError(f"{self._what}.{name}: expected an array")
        return value

    def lines(self) -> dict[str, int]:
        value = self.take("lines")
        if not isinstance(value, dict):
            raise ProtocolError(f"{self._what}.lines: expected an object")
        return {name: _number(f"{self._what}.lines", line, 0) for name, line in value.items()}


def _text(what: str, value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ProtocolError(f"{what}: expected text without NUL")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte; os.fsencode() would raise later
        raise ProtocolError(f"{what}: expected UTF-8 or escaped bytes") from None
    return value


def _number(what: str, value: object, low: int, high: int = 2**63 - 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ProtocolError(f"{what}: expected a number from {low} to {high}")
    return value
