# SPDX-License-Identifier: Apache-2.0
"""For the tests of the engine."""

import pytest

import fedcpsc.distillation.ending

LOOK_AT_PICTURES = {
    "test_hostile_words.py",
    "test_large_images.py",
    "test_refit.py",
    "test_run.py",
    "test_run_pictures.py",
}


@pytest.fixture(autouse=True, scope="module")
def _no_pictures(request):
    """Runs draw none but where a test looks at them: they take as long as all the rest of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.name not in LOOK_AT_PICTURES:
            patch.setattr(fedcpsc.distillation.ending, "save_pictures", lambda *args: None)
        yield
