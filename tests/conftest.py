"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine is no failure: properties are held by their assertions, not by how long an example takes.
settings.register_profile("lognot", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lognot")
