"""Which test shows that a key acts."""

from collections.abc import Callable, Set
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., None])


class Registry:
    """The keys of one schema, each with the tests that fail where it is ignored.

    Used as a decorator: `@acts("lr", "beta1")`.
    """

    def __init__(self) -> None:
        self.tests: dict[str, list[str]] = {}

    def __call__(self, *keys: str) -> Callable[[Test], Test]:
        def mark(test: Test) -> Test:
            for key in keys:
                self.tests.setdefault(key, []).append(test.__name__)
            return test

        return mark

    def check(self, keys: Set[str]) -> None:
        """Fail unless every key has a test, and every test a key."""
        missing, unknown = keys - self.tests.keys(), self.tests.keys() - keys
        assert not missing, f"no test shows that these keys act: {sorted(missing)}"
        assert not unknown, f"tests of keys that are gone: {sorted(unknown)}"
