"""The connections of our own pool: what their sessions are when they return to it."""

from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from .sql import statements

if TYPE_CHECKING:  # asyncpg's classes are generic in its stubs only
    _Base: TypeAlias = asyncpg.Connection[Any]
else:
    _Base = asyncpg.Connection

_SQL = statements("sessions")
_RESET = _SQL["reset_session"]


class OwnConnection(_Base):
    """A connection whose session needs no reset after our own statements.

    They set nothing in the session, so a reset when a connection returns to its pool would be a
    round trip for nothing. After user code it is thorough: the statements that asyncpg sends by
    default leave roles, temporary tables and prepared statements.

    Attributes:
        defaults: The statement that makes transactions begin as ours need it; empty if they do.
        states_isolation: Whether each transaction has to say it instead: through a pooler.
    """

    __slots__ = ("_untouched", "defaults", "states_isolation")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._untouched = False
        self.defaults = ""
        self.states_isolation = False

    def mark_untouched(self) -> None:
        """Skip the next reset: no code but ours has used the session since the last one."""
        self._untouched = True

    def get_reset_query(self) -> str:
        """What asyncpg sends when the connection returns to its pool; nothing if it may."""
        untouched, self._untouched = self._untouched, False
        return "" if untouched else f"{_RESET};{self.defaults}"

    def transaction(self, **options: Any) -> "asyncpg.transaction.Transaction":
        """asyncpg's `transaction`; in our own, each statement sees what has committed by then."""
        if self.states_isolation and not self.is_in_transaction():
            options.setdefault("isolation", "read_committed")
        return super().transaction(**options)
