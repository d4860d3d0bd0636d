"""An action of any text: a shell text that can be passed, and perhaps a warning; or a TemplateError."""

from __future__ import annotations

from lognot.action import parse_template
from lognot.lint import action_warnings
from lognot.quoting import TemplateError

SEEDS = [
    b"echo $1 \"$2\" '$@' \\$HOME",
    b'ssh host "x $1" <<EOF\n$1\nEOF\n',
    b'eval "$1"; for x in $(cat $1); do echo `echo $2`; done',
    b"case $1 in a) echo ${HOME%/*};; esac # $1",
]


def check(data: bytes) -> None:
    """As a config's action, after it was checked to hold no NUL."""
    text = data.replace(b"\0", b"")
    try:
        template = parse_template(text)
    except TemplateError:
        return
    assert b"\0" not in template.shell_text
    action_warnings(text)
