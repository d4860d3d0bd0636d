"""A config file of any bytes: a config that survives its own JSON, or problems. Never an exception."""

from __future__ import annotations

from lognot.config import Source, parse_config
from lognot.settings import config_from_json, config_to_json
from lognot.users import current_account

SEEDS = [
    b"[general]\nathread_count = 2\nuid = root\nregex_engine = auto\nmax_line = 1M\n"
    b"[SSH]\npath = /var/log/auth.log\nregex = from (\\S+)\nupbound_action = echo $1\nupbound_freq = 5/30\n"
    b"usecrc = yes\nsize = 10M\nsize_action = true\naction_timeout = 30\n",
    b"[A]\r\npath = log\r\ndownbound_freq = 1/60\r\ndownbound_action = echo '$1' \"$@\"\r\n",
    b"; comment\n# comment\n[A]\npath = /x\nupbound_action = `echo $0` $(echo \\$1)\n[A]\n",
]
_ACCOUNT = current_account()


def check(data: bytes) -> None:
    """A zero byte, where there is one, begins a drop-in."""
    main, _, dropin = data.partition(b"\0")
    dropins = (Source("/etc/lognot.d/x.conf", dropin),) if dropin else ()
    config, problems = parse_config(main, "/etc/lognot.conf", dropins=dropins, started_by=_ACCOUNT)
    for problem in problems:
        str(problem)
    assert (config is None) == any(not problem.warning for problem in problems)
    if config is not None:
        assert config_from_json(config_to_json(config)) == config
