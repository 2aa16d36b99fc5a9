"""The connections of our own pool: a session that only we have used is returned as it is."""

from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

if TYPE_CHECKING:  # asyncpg's classes are generic in its stubs only
    _Base: TypeAlias = asyncpg.Connection[Any]
else:
    _Base = asyncpg.Connection


class OwnConnection(_Base):
    """A connection whose session needs no reset after our own statements.

    They set nothing in the session, so the four statements that asyncpg sends by default when a
    connection returns to its pool would be a round trip for nothing.
    """

    __slots__ = ("_untouched",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._untouched = False

    def mark_untouched(self) -> None:
        """Skip the next reset: no code but ours has used the session since the last one."""
        self._untouched = True

    def get_reset_query(self) -> str:
        """What asyncpg sends when the connection returns to its pool; nothing if it may."""
        untouched, self._untouched = self._untouched, False
        return "" if untouched else super().get_reset_query()
