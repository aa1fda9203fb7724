from __future__ import annotations

from hypothesis import settings

# The machines that run this are shared: how long one example took says nothing.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
