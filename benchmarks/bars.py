"""A measured value beside its bar of docs/results.md, in words. Imported by the benchmarks beside it."""


def verdict(value: float, bar: float, form: str = "g", *, least: bool = False) -> str:
    """Whether a value reaches its bar.

    Args:
        form: of the bar in print; least: the bar is the least value, and not the largest.
    """
    missed = value < bar if least else value > bar
    word = "within" if not missed else "below" if least else "above"
    return f"{word} the bar of {bar:{form}}"
