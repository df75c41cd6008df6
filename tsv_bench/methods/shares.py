"""Knobs that are a share of entries."""


def check_share(knob: str, share: float | int, meaning: str) -> None:
    """ValueError for a share outside (0, 1]."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(
            f"{knob}={share!r} is not in (0, 1]: it is the share of entries {meaning}."
        )
