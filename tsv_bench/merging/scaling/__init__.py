"""How much tasks and layers count in a merge: a weight a task, an alpha a layer."""
