"""What the tests of the query layer share: one small shop a session."""

import pytest
from small_index import Shop, make_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shop of `small_index`; tests that change it work on a copy."""
    return make_shop(tmp_path_factory.mktemp("shop"))
