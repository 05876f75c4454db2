"""The names of the package: each is what it says, however often and in whatever order it is asked for."""

import subprocess
import sys

import rodiu_jax


def test_every_public_name_is_a_function_or_class_every_time():
    for name in rodiu_jax.__all__:
        for _ in range(2):
            assert callable(getattr(rodiu_jax, name)), name


def test_device_mathematics_is_no_public_name():
    assert "worst_case" not in dir(rodiu_jax)
    assert not hasattr(rodiu_jax, "worst_case")


def test_importing_is_quiet_light_and_changes_no_setting():
    code = (
        "import sys, rodiu_jax; assert not {'jax', 'numpy', 'pandas'} & set(sys.modules); "
        "import jax; before = dict(jax.config.values); "
        "import rodiu_jax.model.evaluation, rodiu_jax.catalog.sampling, solvers.pool; "
        "assert dict(jax.config.values) == before"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
