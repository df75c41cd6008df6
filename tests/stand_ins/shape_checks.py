"""The run-time check of the shapes that jaxtyping annotates."""

import beartype
import jaxtyping

jaxtyped = jaxtyping.jaxtyped


def install(modules):
    """Check what functions of these modules, which are not imported yet, are given and return.

    What is returned ends it, as a context.
    """
    jaxtyping.jaxtyped = all_but_local
    return jaxtyping.install_import_hook(modules, f"{beartype.__name__}.beartype")


def all_but_local(*, typechecker):
    """jaxtyping's decorator, but for functions that are made anew at each call of another.

    It would compile a check for each of them, which took longer than all calls together.
    """

    def decorate(defined):
        local = "<locals>" in getattr(defined, "__qualname__", "")
        return defined if local else jaxtyped(defined, typechecker=typechecker)

    return decorate
