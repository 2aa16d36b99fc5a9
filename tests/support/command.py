"""The command, called in this process: `bare` of the conftest."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Awaitable[Result]]


def unpadded(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())
