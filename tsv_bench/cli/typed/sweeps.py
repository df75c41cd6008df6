"""Sweeps that name no values, or values that only another sweeper or another key takes."""

from collections.abc import Container

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep


def check_values(override: Override, groups: Container[str]) -> None:
    """Raise ValueError unless a sweep names values that its key may have.

    ``groups``: those whose choices are files, among which glob() and a group's key choose.
    """
    if not override.is_sweep_override():
        return
    line, key, value = override.input_line, override.key_or_group, override.value()
    if isinstance(value, Glob) and key not in groups:
        raise ValueError(
            f"{line}: glob() chooses among the files of a group, as in method=glob(tsv_*). Name "
            f"the values of {key}, as in {key}=choice(a,b)."
        )
    if isinstance(value, IntervalSweep) and key in groups:
        raise ValueError(
            f"{line}: a {key} is chosen by its name, as in {key}=a,b, and interval() has numbers."
        )
    if isinstance(value, IntervalSweep) and value.start > value.end:
        raise ValueError(f"{line} has no values: it is interval(low,high).")
    if isinstance(value, ChoiceSweep) and key in groups and None in value.list:
        raise ValueError(f"{line}: null is no {key}. Name those that are to be run.")
    if isinstance(value, RangeSweep):
        step = value.step or 0
        if not step or (value.stop - value.start) / step <= 0:
            raise ValueError(
                f"{line} has no values: range(start,stop,step) goes from start on in steps, and "
                f"ends before stop. As in: {key}=range(0,3)."
            )


def check_enumerable(override: Override) -> None:
    """Raise ValueError for an interval, from which Hydra's own sweeper can take no values."""
    if override.is_sweep_override() and isinstance(override.value(), IntervalSweep):
        key = override.key_or_group
        raise ValueError(
            f"{override.input_line}: a sweep takes an interval only where Optuna searches it: add "
            f"hydra/sweeper=optuna (docs/sweeps.md). Without, name values, as in {key}=0.1,0.2 or "
            f"{key}=range(0.1,0.5,0.1)."
        )
