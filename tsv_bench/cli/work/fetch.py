"""The work of tsv-fetch."""

import logging
from collections.abc import Sequence

from omegaconf import DictConfig

from tsv_bench import hub, suggested
from tsv_bench.cli.config.needs import lacking, needs_of, refuse_lacking
from tsv_bench.columns import align
from tsv_bench.files import check_room

log = logging.getLogger(__name__)

HEADER = ("what", "repository", "size", "licence", "state")


def fetch(config: DictConfig) -> None:
    """Fetch what is missing, or with ``check`` compare all that is here; print a table of it."""
    needs = needs_of(config)
    offline = f"HF_HUB_OFFLINE=1 {suggested.command('tsv-bench')}"
    if not needs:
        print(f"Nothing to fetch: all of it lies in the package or in your folders.\n{offline}")
        return
    states, problems = listed(needs, check=config.check)
    print(render(states))
    if config.check:
        refuse_lacking(states)
    else:
        fetch_missing(states, problems)
    print(f"All of it is here. This works without a network now:\n{offline}")


def listed(needs: Sequence[hub.Need], check: bool) -> tuple[list[hub.State], dict[hub.Need, str]]:
    """Return the state of each need, and the error message of each that the hub did not list.

    With ``check`` the files here are hashed, and the hub is not asked. Raises NoNetwork if the hub
    cannot be reached.
    """
    if check:
        return [hub.state(need, check=True) for need in needs], {}
    states, problems = [], {}
    for need in needs:
        try:
            states.append(hub.look_up(need))
        except hub.NoNetwork as error:  # which all others would meet, too
            print(render([hub.state(need) for need in needs]))
            raise without_network(needs, error) from error
        except OSError as error:
            states.append(hub.state(need))
            problems[need] = str(error)
    return states, problems


def fetch_missing(states: Sequence[hub.State], problems: dict[hub.Need, str]) -> None:
    """Fetch all that can be fetched. Raises one OSError with the problems of the rest."""
    possible = [state for state in states if not state.here and state.need not in problems]
    if possible:
        check_room(hub.cache_folder(), sum(s.missing_bytes for s in possible), "HF_HOME=")
    for state in possible:
        try:
            log.info(f"{state.need}: {hub.fetch(state.need)}")
        except hub.NoNetwork as error:  # lost in the meantime
            raise without_network([s.need for s in states], error) from error
        except OSError as error:
            problems[state.need] = str(error)
    if problems:
        raise OSError("\n".join(problems.values()))


def without_network(needs: Sequence[hub.Need], error: hub.NoNetwork) -> hub.NoNetwork:
    """Return the error with a list of all that is still missing."""
    return hub.NoNetwork(f"{lacking([hub.state(need) for need in needs])}\n{error}")


def render(states: Sequence[hub.State]) -> str:
    """Return the states as a table, and below it what is still to be fetched."""
    rows = [HEADER]
    for s in states:
        rows.append((s.need.what, s.need.repo, hub.amount(s.num_bytes), s.licence or "?", str(s)))
    missing = sum(state.missing_bytes for state in states)
    known = "" if all(s.num_bytes is not None for s in states if not s.here) else "at least "
    return f"{align(rows, gap=2, num_left=len(HEADER))}\nto fetch: {known}{hub.amount(missing)}"
