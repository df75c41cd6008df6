"""Which entries of two checkpoints have one name, but for prefixes that programs put before it."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

# Parts of names that come from wrapping a module for training, wherever they stand.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
OLD_NAMES = {"gamma": "weight", "beta": "bias"}  # of normalizations, in files of before 2020


@dataclass(frozen=True)
class Match:
    """Pretrained name -> fine-tuned one, how the latter differ, and prefixes that fit as well."""

    pairs: dict[str, str]
    how: str = ""
    rivals: tuple[str, ...] = ()


def match(pretrained: Collection[str], finetuned: Collection[str]) -> Match:
    """Return which names mean one entry: equal ones, or those that differ by a prefix.

    Wrappers are taken off anywhere in a name. Then one side may have a prefix before all or most
    of its names. Another reading than equal names is taken only if it pairs more of them, and at
    least half of either side.
    """
    same = {name: name for name in pretrained if name in finetuned}
    fewest = min(len(pretrained), len(finetuned))
    if len(same) == fewest:
        return Match(same)
    best, rivals = Match(same), ()
    for simple in (False, True):
        ours, theirs = _keys(pretrained, simple), _keys(finetuned, simple)
        if ours is None or theirs is None:
            continue
        what = "'module', '_orig_mod', gamma and beta read as usual" if simple else ""
        for how, one, other, rival in _readings(ours, theirs):
            pairs = {one[key]: other[key] for key in one if key in other}
            if rival and 2 * len(pairs) >= fewest:
                rivals = rival
            elif len(pairs) > len(best.pairs) and 2 * len(pairs) >= fewest:
                best = Match(pairs, "; ".join(filter(None, (how, what))))
    return best if best.how else Match(same, rivals=rivals)


def without_wrappers(name: str) -> str:
    """Return a name without what wrapping a module for training has put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS) or name


def _keys(names: Iterable[str], simple: bool) -> dict[str, str] | None:
    """Return what is compared of each name -> the name; None if two would be one."""
    names = list(names)
    found = {_simplified(name, names) if simple else name: name for name in names}
    return found if len(found) == len(names) else None


def _simplified(name: str, names: Collection[str]) -> str:
    parts = without_wrappers(name).split(".")
    normalizes = len(parts) > 1 and ("norm" in parts[-2].lower() or parts[-2].startswith("ln"))
    if normalizes:
        parts[-1] = OLD_NAMES.get(parts[-1], parts[-1])
    return ".".join(parts)


def _readings(
    ours: Mapping[str, str], theirs: Mapping[str, str]
) -> Iterable[tuple[str, Mapping[str, str], Mapping[str, str], tuple[str, ...]]]:
    """Yield how names differ, the keys of both sides as they then are, and rivals of a prefix."""
    yield "", ours, theirs, ()
    prefix, rivals = _prefix(theirs, ours)
    if prefix:
        yield f"without their prefix {prefix!r}", ours, _without(prefix, theirs), rivals
    prefix, rivals = _prefix(ours, theirs)
    if prefix:
        how = f"with the prefix {prefix!r} of the pretrained"
        yield how, _without(prefix, ours), theirs, rivals
    roots = _root(ours), _root(theirs)
    if all(roots):
        how = f"with {roots[0]!r} in place of their prefix {roots[1]!r}"
        yield how, _without(roots[0], ours), _without(roots[1], theirs), ()


def _prefix(longer: Iterable[str], shorter: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """Return the prefix that most names have before one of ``shorter``, and those of equal rank."""
    counts: Counter[str] = Counter()
    for name in longer:
        place = name.find(".")
        while place >= 0:
            if name[place + 1 :] in shorter:
                counts[name[: place + 1]] += 1
            place = name.find(".", place + 1)
    if not counts:
        return "", ()
    most = max(counts.values())
    first, *others = sorted((p for p, count in counts.items() if count == most), key=len)
    return first, (first, *others) if others else ()


def _without(prefix: str, keys: Mapping[str, str]) -> dict[str, str]:
    """Return the keys without the prefix; of two that then are one, the one that had it."""
    others = {key: name for key, name in keys.items() if not key.startswith(prefix)}
    return others | {
        key.removeprefix(prefix): name for key, name in keys.items() if key.startswith(prefix)
    }


def _root(names: Collection[str]) -> str:
    """Return the whole parts that all names begin with."""
    common = os.path.commonprefix([name.rpartition(".")[0] + "." for name in names])
    return common[: common.rfind(".") + 1]
