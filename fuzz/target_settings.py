"""The JSON of a config, of any bytes: a config that gives that JSON again, or a ProtocolError."""

from __future__ import annotations

import target_config

from lognot.config import parse_config
from lognot.errors import ProtocolError
from lognot.settings import config_from_json, config_to_json

SEEDS = [
    config_to_json(config)
    for seed in target_config.SEEDS
    for config in (parse_config(seed, "/etc/lognot.conf")[0],)
    if config is not None
]
SEEDS.append(b'{"source":"x","athread_count":1,"items":[]}')


def check(data: bytes) -> None:
    """What is taken is taken with the same meaning again."""
    try:
        config = config_from_json(data)
    except ProtocolError:
        return
    assert config_from_json(config_to_json(config)) == config
