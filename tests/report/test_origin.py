"""The commands that made the runs."""

from kd.run.directory import RunDirectory
from kd.storage.files import write_json
from tests.report.written import page


def test_the_command_of_a_job_is_told_as_a_single_run(runs):
    """Copied out of its sweep, or trained by kd reproduce."""
    job, again = runs.write("job", "supervised"), runs.write("again", "supervised", seed=1)
    said = ["kd", "train", "--config-name", "config", "--config-path", "/somewhere/conf", "--config-dir", "/my"]
    said += ["hydra.launcher.slots=2", "student=dan", "seed=0", "hydra.mode=RUN", "hydra.run.dir='/x'"]
    write_json(job / "environment.json", RunDirectory(job).environment() | {"command": said})
    reproduced = {"command": ["/somewhere/bin/kd", "reproduce", "one"]}
    write_json(again / "environment.json", RunDirectory(again).environment() | reproduced)
    for _ in range(2):
        page(runs.folder)
        commands = (runs.folder / "report" / "report.md").read_text().split("```")[1]
        assert commands == "\nkd reproduce one\nkd train --config-dir /my student=dan seed=0\n"
        (job / ".hydra").mkdir(exist_ok=True)
        (job / ".hydra" / "overrides.yaml").write_text("[student=dan, seed=0]")
