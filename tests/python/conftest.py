# SPDX-License-Identifier: MIT
"""Tests of the Python package. TRIT_LIBRARY names libtrit_torch_stable.so, TRIT_TORCH_LIBRARY the C++ library
libtrit_torch.so, TRIT_COMMAND the `trit` command; the last two may be missing. TRIT_TEST_SEED repeats a run."""

import os
import random

import pytest
import torch

SEED = int(os.environ.get("TRIT_TEST_SEED", random.randrange(2**31)))


def pytest_report_header() -> str:
    return f"TRIT_TEST_SEED={SEED}"


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(SEED)
    random.seed(SEED)


@pytest.fixture(scope="session")
def cpp_ops():
    """torch.ops.trit of the C++ library, whose bits ours must have."""
    library = os.environ.get("TRIT_TORCH_LIBRARY")
    if not library:
        pytest.skip("TRIT_TORCH_LIBRARY is not set: there is no C++ library to compare with")
    torch.ops.load_library(library)
    return torch.ops.trit


@pytest.fixture(scope="session")
def trit_command() -> str:
    command = os.environ.get("TRIT_COMMAND")
    if not command:
        pytest.skip("TRIT_COMMAND is not set: there is no `trit` command to ask")
    return command


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no GPU here"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a GPU and a build with the GPU half")
