"""Search genotypes by evolution: pymoo's genetic algorithm, NSGA-II and CMA-ES."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ALGORITHMS = ("ga", "nsga2", "cma_es")
OBJECTIVES = {"ga": (1,), "nsga2": (2, 3), "cma_es": (1,)}  # how many each is for
WORST = -1.0  # the objectives of a candidate that could not be asked: below all accuracies
STEP = 0.25  # with which CMA-ES starts in the middle, as a share of the range


@dataclass(frozen=True)
class Generation:
    """Candidates that were asked together, and their objectives; larger is better."""

    genotypes: Float[Tensor, "candidates genes"]
    objectives: Float[Tensor, "candidates objectives"]


@dataclass(frozen=True, kw_only=True)
class Search:
    """How genotypes are searched: every gene from 0 to ``highest``.

    "ga": pymoo's genetic algorithm with its defaults, tournaments of two, simulated binary
    crossover, polynomial mutation, no duplicates. "nsga2": the same with NSGA-II's ranking.
    "cma_es": from the middle of the range, which is asked first.
    """

    algorithm: str
    population: int
    generations: int
    highest: float
    seed: int

    def run(
        self,
        num_genes: int,
        num_objectives: int,
        evaluate: Callable[[int, Tensor], Tensor],
    ) -> list[Generation]:
        """Return all generations, as many as are wanted; fewer if no new candidate is found.

        ``evaluate`` takes the generation's number, from 0 on, and genotypes [candidates, genes],
        and returns their objectives [candidates, objectives]. The same objectives lead to the same
        genotypes, on which a search that was ended can go on.
        """
        from pymoo.core.evaluator import Evaluator
        from pymoo.core.problem import Problem
        from pymoo.core.termination import NoTermination
        from pymoo.problems.static import StaticProblem

        problem = Problem(n_var=num_genes, n_obj=num_objectives, xl=0.0, xu=float(self.highest))
        algorithm = self._algorithm(num_genes)
        # CMA-ES takes 0 as no seed at all.
        algorithm.setup(problem, seed=self.seed + 1, termination=NoTermination())
        found = []
        first = self.algorithm == "cma_es"  # its start is a generation of its own
        while len(found) < self.generations + first:
            asked = algorithm.ask()
            if asked is None or len(asked) == 0:
                break
            genotypes = torch.from_numpy(asked.get("X").astype(float))
            objectives = evaluate(len(found), genotypes)
            found.append(Generation(genotypes, objectives))
            Evaluator().eval(StaticProblem(problem, F=(-objectives).numpy()), asked)
            algorithm.tell(infills=asked)
        return found

    def _algorithm(self, num_genes: int) -> Any:
        if self.algorithm == "ga":
            from pymoo.algorithms.soo.nonconvex.ga import GA

            return GA(pop_size=self.population)
        if self.algorithm == "nsga2":
            from pymoo.algorithms.moo.nsga2 import NSGA2

            return NSGA2(pop_size=self.population)
        from pymoo.algorithms.soo.nonconvex.cmaes import CMAES

        middle = torch.full((num_genes,), self.highest / 2, dtype=torch.float64).numpy()
        return CMAES(x0=middle, sigma=STEP, pop_size=self.population)


def check_pymoo() -> None:
    """Raise ValueError that names the extra if pymoo is not installed."""
    try:
        found = importlib.util.find_spec("pymoo") is not None
    except ValueError:  # a module of this name that says nothing of where it is from
        found = False
    if not found:
        raise ValueError(
            "merge3 searches with pymoo, which is not installed. It comes with the extra evolve: "
            "pip install 'tsv_bench[evolve]'"
        )


def front(objectives: Float[Tensor, "candidates objectives"]) -> Bool[Tensor, " candidates"]:
    """Return which candidates no other one dominates: at least equal in all, better in one."""
    equal = (objectives[:, None] >= objectives).all(dim=2)
    better = (objectives[:, None] > objectives).any(dim=2)
    return ~(equal & better).any(dim=0)


def check_objectives(algorithm: str, count: int) -> None:
    """Raise ValueError unless the algorithm is for so many objectives."""
    wanted = OBJECTIVES[algorithm]
    if count not in wanted:
        numbers = " or ".join(map(str, wanted))
        other = "algorithm=nsga2 takes 2 or 3" if wanted == (1,) else "algorithm=ga takes one"
        raise ValueError(
            f"algorithm={algorithm} is for {numbers} objectives, and there are {count}. Set "
            f"objectives as lists of tasks, such as [[a, b], [c]], or null for one, the mean of "
            f"all; {other}."
        )
