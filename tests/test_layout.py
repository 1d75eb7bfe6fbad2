"""Imports go down: no circle, and what a command does it does with modules, not with other commands."""

import import_graph


def package(folder, **files):
    for name, text in files.items():
        path = folder / "rcnn" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [str(folder / "rcnn")]


def test_the_package_has_no_circle_and_nothing_imports_a_command(capsys):
    assert import_graph.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    level = {line.split()[1]: int(line.split()[0]) for line in lines[:-1]}
    assert (
        level["printing"]
        == 0
        < level["files"]
        < level["clip"]
        < level["text"]
        < level["learn"]
        < level["rows"]
        < level["evaluation"]
    )
    assert level["results"] < level["evaluation"]
    assert level["score"] < level["rows"] < level["evaluation"] < level["train"]


def test_a_circle_of_folders_is_named(tmp_path, capsys):
    folder = package(tmp_path, score__mssa="from rcnn.learn import losses", learn__losses="import rcnn.score.mssa")
    assert import_graph.main(folder) == 1
    assert "a circle: " in capsys.readouterr().out


def test_a_module_that_imports_a_command_is_named(tmp_path, capsys):
    folder = package(tmp_path, train="\ndef main():\n    pass\n", learn__names="def f():\n    from rcnn.train import main")
    assert import_graph.main(folder) == 1
    assert "learn imports the command train" in capsys.readouterr().out


def test_an_import_for_type_checkers_is_no_arrow(tmp_path):
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rcnn import b"
    assert import_graph.main(package(tmp_path, a=text, b="import rcnn.a")) == 0
