"""The campaign of bad inputs: a short run of it finds nothing, and it notices what there is to find."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAMILIES = [
    "images", "configuration", "texts", "annotations", "own", "weights", "service", "divergence", "kills", "disk",
]  # fmt: skip

# families whose commands misbehave on purpose, in a world without files
BROKEN = """
import os, sys, time
import fault_campaign as campaign
from faults import trial, world
from faults.trial import KEY, Step, Trial

def code(number):
    sys.exit(number)

def leave_the_key():
    with open("x.json", "w") as file:
        file.write(KEY)

world.World.build = lambda self: self.pristine.mkdir()
trial.CPU, trial.WALL = 1, 1.5
world.CALLS = {
    "good": lambda: None, "refusing": lambda: code(2) if print("error: no", file=sys.stderr) is None else None,
    "raising": lambda: {}["x"], "exiting": lambda: code(3), "killed": lambda: os.kill(os.getpid(), 9),
    "silent": lambda: code(2), "endless": lambda: print("x" * 10**5, file=sys.stderr), "raw": lambda: print("\\x1b[31m"),
    "spinning": lambda: [None for _ in iter(int, 1)], "sleeping": lambda: time.sleep(60),
    "printing_the_key": lambda: print("x" + KEY[:8] + "y"), "leaving_the_key": leave_the_key, "other": lambda: print(5),
}
this, needless = lambda setting: "this", lambda setting: "needless"
campaign.FAMILIES = {
    name: lambda rng, world_, name=name: Trial(  # what takes all its time is not tried with fewer harms, too
        [this] if name in ("spinning", "sleeping") else [needless, this], [Step([name])],
        lambda setting, outcome: "another result" if outcome.out == "5\\n" else None,
    )
    for name in world.CALLS
}
sys.exit(campaign.main(["--count", "2", *sys.argv[1:]]))
"""


# a campaign that also writes what was done to each input, to the same once more, and to that of another seed
TELLING = """
import json, sys
from pathlib import Path
import fault_campaign as campaign

told, attempt = {}, campaign.Campaign.attempt

def done(self, seed, family, number):
    trial = campaign.Campaign(self.world, seed, self.keep).trial(family, number)
    setting = self.world.harmed(trial.harms)
    for clean in setting.after:
        clean()
    return [step.command for step in trial.steps], setting.done

def tell(self, family, number):
    told.setdefault(family, []).append([done(self, seed, family, number) for seed in (1, 1, 2)])
    attempt(self, family, number)

campaign.Campaign.attempt = tell
code = campaign.main(["--count", "2", "--seed", "1", "--keep", sys.argv[1]])
Path(sys.argv[2]).write_text(json.dumps(told))
sys.exit(code)
"""


def table(text):
    """{family: {column: count}} of what the campaign prints."""
    head, *rows = (line.split() for line in text.split("\n\n")[0].splitlines())
    return {name: dict(zip(head, map(int, counts), strict=True)) for name, *counts in rows}


def run(*command, cwd=ROOT):
    return subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A campaign of two inputs of each family."""
    folder = tmp_path_factory.mktemp("short")
    return run("-c", TELLING, folder / "keep", folder / "told.json", cwd=ROOT / "scripts"), folder


def test_a_short_campaign_finds_no_traceback_no_hang_and_no_wrong_result(short):
    done, folder = short
    assert done.returncode == 0, done.stdout + done.stderr
    counts = table(done.stdout)
    assert list(counts) == [*FAMILIES, "all"]
    assert all(counts[family]["tried"] == 2 for family in FAMILIES)
    assert not list((folder / "keep").iterdir())


def test_inputs_are_a_function_of_seed_family_and_number(short):
    _, folder = short
    for family, inputs in json.loads((folder / "told.json").read_text()).items():
        for first, again, other_seed in inputs:
            assert first == again, family
            assert first != other_seed, family
        assert inputs[0][0] != inputs[1][0], family


@pytest.fixture(scope="module")
def noticed(tmp_path_factory):
    """What the campaign says of commands that misbehave."""
    keep = tmp_path_factory.mktemp("keep")
    return run("-c", BROKEN, "--keep", keep, cwd=ROOT / "scripts"), keep


@pytest.mark.parametrize(
    ("command", "column"),
    [
        ("good", "accepted"), ("refusing", "refused"), ("raising", "traceback"), ("exiting", "traceback"),
        ("killed", "traceback"), ("silent", "traceback"), ("endless", "traceback"), ("raw", "traceback"), ("spinning", "hang"),
        ("sleeping", "hang"), ("printing_the_key", "wrong"), ("leaving_the_key", "wrong"), ("other", "wrong"),
    ],
)  # fmt: skip
def test_what_a_command_does_is_counted_in_its_column(noticed, command, column):
    done, _ = noticed
    counts = table(done.stdout)[command]
    assert counts[column] == counts["tried"] == 2, done.stdout + done.stderr


def test_a_failure_ends_with_exit_code_1_and_is_kept_with_the_fewest_harms_and_its_command(noticed):
    done, keep = noticed
    assert done.returncode == 1
    (raising,) = [part for part in done.stdout.split("\n\n") if part.startswith("raising 0: traceback: KeyError: 'x' (2 like")]
    assert raising.splitlines()[1:] == [
        "  this", f"  cd {keep}/raising-0-0", "  rcnn raising", "  again: --seed 0 --family raising --number 0",
    ]  # fmt: skip
    assert (keep / "leaving_the_key-0-0" / "x.json").is_file()
