"""A bench that keeps whole steps, and may be ended as by a kill when it keeps one."""

from made_up.bench import MadeUpBench


class Ended(Exception):
    """What stands for kill -9."""


class KeepingBench(MadeUpBench):
    """It keeps in memory; ``ends_at`` is the number of the call of `keep` that is not done."""

    def __init__(self, tasks, store=None, ends_at=None):
        super().__init__(tasks)
        self.store = {} if store is None else store
        self.notes, self.images_passed, self._ends_at, self._calls = {}, 0, ends_at, 0

    def features(self, weights, images):
        self.images_passed += len(images)
        return super().features(weights, images)

    def kept(self, name):
        return self.store.get(name)

    def keep(self, name, tensors):
        self._calls += 1
        if self._calls == self._ends_at:
            raise Ended
        self.store[name] = {key: tensor.clone() for key, tensor in tensors.items()}

    def note(self, name, content):
        self.notes[name] = content
