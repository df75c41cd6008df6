"""Which entries of a fine-tuned checkpoint are which of the pretrained one, and which are odd."""

from dataclasses import dataclass, field

from tsv_bench.state_dicts.entries.choices import Choices
from tsv_bench.state_dicts.entries.kinds import is_count, is_rebuilt, is_vocabulary
from tsv_bench.state_dicts.entries.matching import match
from tsv_bench.state_dicts.entries.quantized import named
from tsv_bench.state_dicts.entries.ties import tied_to
from tsv_bench.state_dicts.state_dict import StateDict


@dataclass
class Pairing:
    """How the entries of one task are those of the pretrained checkpoint."""

    pairs: dict[str, str]  # pretrained name -> its own
    doubles: dict[str, str] = field(
        default_factory=dict
    )  # own name -> pretrained one it is tied to
    lacking: list[str] = field(default_factory=list)  # pretrained names without its own
    extra: list[str] = field(default_factory=list)  # own names without a pretrained one
    sizes: list[str] = field(default_factory=list)  # pretrained names of other shapes
    tokens: list[str] = field(default_factory=list)  # of other numbers of rows, one for each token
    rivals: tuple[str, ...] = ()
    said: list[str] = field(default_factory=list)


def pairing(base: StateDict, state: StateDict) -> Pairing:
    """Pair the entries of a checkpoint with the pretrained ones."""
    found = match(base.names, state.names)
    own = Pairing(dict(found.pairs), rivals=found.rivals)
    if found.how:
        own.said.append(f"names are read {found.how}")
    taken = set(own.pairs.values())
    rebuilt = []
    for name in [name for name in state if name not in taken]:
        if is_rebuilt(name, state.shape(name)):
            rebuilt.append(name)
        elif double := tied_to(state, name, found.pairs):
            own.doubles[name] = double
        else:
            own.extra.append(name)
    for name in [name for name in base if name not in own.pairs]:
        if is_rebuilt(name, base.shape(name)):
            rebuilt.append(name)
        elif double := tied_to(base, name, {ours: ours for ours in found.pairs}):
            own.pairs[name] = found.pairs[double]
            own.said.append(f"{name!r} is tied to {double!r}, and is so in the output")
        else:
            own.lacking.append(name)
    if own.doubles:
        own.said.append(f"{named(own.doubles)}: tied to {named(set(own.doubles.values()))}")
    if rebuilt:
        own.said.append(f"{named(rebuilt)}: buffers that not all files hold, left as pretrained")
    for name, theirs in list(own.pairs.items()):
        one, other = base.shape(name), state.shape(theirs)
        if one == other:
            continue
        if is_count(name, base.dtype(name), one) or is_rebuilt(name, one):
            del own.pairs[name]
            own.said.append(f"{name!r} has another length, left as pretrained")
        elif is_vocabulary(name) and one and other and one[1:] == other[1:]:
            own.tokens.append(name)
        else:
            own.sizes.append(name)
    return own


def check_pairing(own: Pairing, base: StateDict, state: StateDict, choices: Choices) -> None:
    """Raise ValueError for entries that do not agree, unless a choice says what becomes of them."""
    if odd := [*own.lacking, *own.extra]:
        if not choices.shared_only:
            raise ValueError(_different(own, odd, choices))
    if own.sizes and not choices.shared_only:
        name = own.sizes[0]
        head = ""
        if not is_vocabulary(name):
            head = f" If it is a head, of other classes: shared_only=true {choices.verb} all others"
            head += (
                "."
                if choices.measured
                else ", and keeps the pretrained one; rest_from=TASK takes that of a task."
            )
        raise ValueError(
            f"cannot subtract checkpoints of different shapes: {name!r} is "
            f"{tuple(base.shape(name))} in the pretrained and "
            f"{tuple(state.shape(own.pairs[name]))} in the fine-tuned one. "
            f"Were both written by the same backbone?{head}"
        )
    if own.tokens and choices.embeddings is None:
        name = own.tokens[0]
        rows = base.num_rows(name), state.num_rows(own.pairs[name])
        raise ValueError(
            f"cannot subtract checkpoints of different shapes: {name!r} has {rows[0]} rows in the "
            f"pretrained and {rows[1]} in the fine-tuned one, one for each token of the "
            f"vocabulary. embeddings=truncate {choices.verb} the rows that all have and drops the "
            f"others, embeddings=pad keeps all, embeddings=pretrained "
            + ("leaves them out." if choices.measured else "keeps the pretrained ones unmerged.")
        )


def _different(own: Pairing, odd: list[str], choices: Choices) -> str:
    sides = []
    if own.lacking:
        sides.append(f"the pretrained one alone has {named(own.lacking)}")
    if own.extra:
        sides.append(f"the fine-tuned one alone has {named(own.extra)}")
    if own.rivals:
        reason = f"Several parts of it fit as well: {', '.join(map(repr, own.rivals))}. "
    elif not own.pairs:
        reason = "No name is in both. "
    elif all(is_vocabulary(name) for name in odd):
        reason = "A head that is tied to the embedding would hold the same numbers; this does not. "
    elif own.lacking and own.extra:
        reason = ""
    else:
        reason = "Is it a head, or a part of the model that one of them has not? "
    rest = "; the rest is the pretrained one's, or with rest_from=TASK that of a task"
    return (
        f"cannot subtract checkpoints with different parameters: {len(odd)} appear in only one of "
        f"them, first {min(odd)!r}: {'; '.join(sides)}. {reason}Were both written by the same "
        f"backbone? Then shared_only=true {choices.verb} what all have"
        f"{'' if choices.measured else rest}."
    )
