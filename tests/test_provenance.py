"""What a result says of its making: sources, versions, commit."""

import importlib.metadata
import platform
import subprocess

import pytest

from rcnn import provenance
from rcnn.files import file_sha256


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a few files in the place of this one."""
    root = tmp_path / "checkout" / "rcnn"
    for name in ("rows.py", "train.py", "learn/losses.py", "learn/deep/er.py", "learn/notes.txt", "score/mssa.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    monkeypatch.setattr(provenance, "PACKAGE", root)
    return root


@pytest.mark.parametrize("parts", [provenance.LEARNING, provenance.MEASURING])
def test_sources_are_files_of_this_package_in_every_part_with_their_digest(parts):
    found = provenance.sources(parts)
    assert all(any(name == part or name.startswith(f"{part}/") for name in found) for part in parts)
    for name, digest in found.items():
        assert file_sha256(provenance.PACKAGE / name) == digest


def test_the_sources_of_the_method_are_among_those_that_are_told_apart():
    assert {"learn/losses.py", "clip/text_tower.py", "rows.py"} <= provenance.sources(provenance.LEARNING).keys()
    measuring = {"score/mssa.py", "results/metrics.py", "clip/image_tower.py", "rows.py", "evaluation.py"}
    assert measuring <= provenance.sources(provenance.MEASURING).keys()


def test_sources_are_the_python_files_of_the_parts_alone_at_any_depth(package):
    assert list(provenance.sources(("learn", "rows.py"))) == ["learn/deep/er.py", "learn/losses.py", "rows.py"]


def test_a_changed_an_added_and_a_removed_file_are_found(package):
    before = provenance.sources(("learn", "rows.py"))
    assert provenance.changed_sources(before, provenance.sources(("learn", "rows.py"))) == []
    (package / "rows.py").write_text("changed")
    (package / "learn" / "deep" / "er.py").unlink()
    (package / "learn" / "added.py").write_text("")
    (package / "train.py").write_text("not among them")
    now = provenance.sources(("learn", "rows.py"))
    assert provenance.changed_sources(before, now) == ["learn/added.py", "learn/deep/er.py", "rows.py"]


def test_versions_are_those_of_python_and_of_what_is_installed():
    found = provenance.versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == importlib.metadata.version("torch")
    assert all(found.values())


@pytest.fixture
def git(package, monkeypatch):
    """Run Git in the checkout around the package, which becomes one with everything committed."""
    for name, value in (("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")):
        monkeypatch.setenv(name, value)

    def call(*arguments, folder=package.parent):
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    call("init")
    call("add", ".")
    call("commit", "-m", "first")
    return call


def test_the_commit_of_a_checkout_has_a_mark_where_its_files_differ(git, package):
    commit = git("rev-parse", "HEAD")
    assert len(commit) == 40
    assert provenance.git_commit() == commit
    (package / "new.py").write_text("not tracked")
    assert provenance.git_commit() == commit
    (package / "rows.py").write_text("changed")
    assert provenance.git_commit() == f"{commit}+"


def test_a_checkout_behind_a_symbolic_link_has_a_commit(git, package, monkeypatch, tmp_path):
    (tmp_path / "link").symlink_to(package.parent)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "link" / "rcnn")
    assert provenance.git_commit() == git("rev-parse", "HEAD")


def test_outside_a_checkout_there_is_no_commit(package, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(package.parents[1]))
    assert provenance.git_commit() is None


def test_a_package_inside_the_checkout_of_something_else_has_no_commit(git, package, monkeypatch):
    (inside := package / "site-packages" / "rcnn").mkdir(parents=True)
    monkeypatch.setattr(provenance, "PACKAGE", inside)
    assert provenance.git_commit() is None


def test_without_git_there_is_no_commit(git, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_commit() is None
