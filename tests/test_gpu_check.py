"""The check that is prepared for a GPU, tried without one; that two processes find what one finds has a test elsewhere."""

import itertools

import gpu_check
import torch

CPU = torch.device("cpu")


def test_float32_is_near_the_authors_values_and_lower_precision_is_not(capsys):
    assert gpu_check.deviations(CPU)
    worst = [[float(value) for value in line[58:].split()] for line in capsys.readouterr().out.splitlines()]
    assert max(worst[0]) < 1e-5 < min(map(max, worst[1:]))


def test_views_cut_on_the_device_are_compared_with_the_cpu_s(capsys, monkeypatch):
    assert gpu_check.from_files(CPU, quick=True)
    cut, calls = gpu_check.views.cut, itertools.count()
    monkeypatch.setattr(gpu_check.views, "cut", lambda x, grids: cut(x, grids) + next(calls))  # other bytes each time
    assert not gpu_check.from_files(CPU, quick=True)


def test_learning_and_the_tower_are_timed(capsys):
    gpu_check.learning(CPU, quick=True)
    gpu_check.tower_speed(CPU, quick=True)
    said = capsys.readouterr().out
    assert said.count(" s a step, peak ") == 4
    assert said.count(" views/s, ") == 2
