"""Numbers and nouns that agree, the same on every surface."""

_ENDINGS = ("s", "x", "ch", "sh")


def counted(count: float, noun: str, plural: str | None = None) -> str:
    """A count with its noun, in the singular or plural.

    >>> counted(1, "item"), counted(1000, "item"), counted(2, "batch")
    ('1 item', '1,000 items', '2 batches')

    Args:
        count: The number; fractions are rounded.
        noun: The noun in the singular.
        plural: Its plural, if that is not formed with -s or -es.
    """
    whole = round(count)
    if whole == 1:
        return f"1 {noun}"
    return f"{whole:,} {plural or noun + ('es' if noun.endswith(_ENDINGS) else 's')}"
