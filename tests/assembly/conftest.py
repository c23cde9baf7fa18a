"""Assemblies of tiny runs whose teacher is a random BERT that is not fine-tuned."""

import pytest

from kd.assembly import assemble
from kd.config import build
from kd.config.compose import composed


@pytest.fixture
def assembled(common_options, teacher_folder, tmp_path):
    """Overrides -> the assembly of that run, before its teacher is ready."""

    def make(*overrides: str):
        options = [option for option in common_options if not option.startswith(("teacher", "hydra."))]
        if "teacher=none" not in overrides:
            options += [f"teacher.name_or_path={teacher_folder}", "teacher.fine_tune=false"]
        sizes = ["student.hidden_size=12"]
        if "student=truncated" in overrides:  # which has the teacher's sizes
            options, sizes = [option for option in options if not option.startswith("student.")], []
        config = composed([*options, f"outputs={tmp_path}", *sizes, *overrides])
        return assemble(config, build.splits(config), build.teacher(config))

    return make
