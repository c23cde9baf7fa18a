"""The exports that the tests of kd.export made."""

from tests.export.conftest import bilstm, exported  # noqa: F401
