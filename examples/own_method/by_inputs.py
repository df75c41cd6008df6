from tsv_bench.methods.observed.observations import merge_observed

def by_inputs(task_vectors, *, inputs):
    """The tasks' mean, each input of a layer weighted by its mean square in the task's images."""
    return dict.fromkeys(task_vectors, merge_observed(task_vectors, inputs, weighted_mean))

def weighted_mean(layer, tasks):  # of each task: delta, outputs x inputs; gram, inputs x inputs
    total = weights = 0
    for task in tasks:
        weight = task.gram.diagonal() / task.count
        total, weights = total + weight * task.delta, weights + weight
    return total / weights.clamp(min=1e-12)
