"""What teachers and their stand-ins have in common."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


class WithoutCaches:
    """A dataclass that is pickled without what its ``cached_property`` hold: another process makes it anew."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
