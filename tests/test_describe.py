"""The description generator against a local service that answers, is slow, refuses, breaks off, or sends something else."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from language_server import completion, family, good_answer, serve
from running import ended, started

from rcnn import config, describe
from rcnn.describing import service
from rcnn.describing.answers import beside
from rcnn.text.classes import ClassList
from rcnn.text.corpus import load

ROOT = Path(__file__).parents[1]
NAMES = ["rake", "spade", "hoe", "nikon", "mouse"]
QUESTIONS = 5 * (1 + 3) + 4 * (6 + 1)  # triage and hierarchy of all; two styles of looks, and scenes, of all but the metadata


@pytest.fixture
def server():
    with serve() as pair:
        yield pair


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No key of the user's, and no long pauses between tries."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(service.random, "uniform", lambda *_: 0.01)


@pytest.fixture
def run(tmp_path, server):
    """Describe NAMES with the local service: run(*arguments) -> exit code."""
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")

    def go(*arguments):
        return describe.main([str(tmp_path / "names.txt"), f"output={tmp_path}/c.json", f"base_url={server[0]}", *arguments])

    return go


def small(*more):
    """Settings for one round of everything."""
    return ["attribute_rounds=1", "hierarchy_rounds=1", *more]


def test_five_classes_from_an_empty_folder_become_a_corpus_that_training_reads(run, server, tmp_path):
    assert not run()
    assert len(server[1].seen) == QUESTIONS
    corpus = load(tmp_path / "c.json", ClassList(tuple(NAMES), 0))
    assert "a old rake, which is a rake, which is a artefact." in corpus.sentences
    assert "a hoe, which is a simple implement." in corpus.sentences
    assert "a mouse, which appears together with the Shop - on a shelf under bright lamps" in corpus.sentences
    assert list(json.loads((tmp_path / "c.json").read_text())["0"]) == ["node_name", "candidate_sentences"]


def test_the_about_file_tells_models_senses_facts_and_cost(run, tmp_path):
    run()
    about = json.loads((tmp_path / "c.about.json").read_text())
    assert about["models_served"] == {"stand-in-1": QUESTIONS}
    assert (about["replies"], about["tokens_in"], about["tokens_out"]) == (QUESTIONS, 100 * QUESTIONS, 50 * QUESTIONS)
    assert about["cost_usd"] == round(QUESTIONS * (100 * 0.15 + 50 * 0.60) / 1e6, 4)
    mouse = about["classes"]["4"]
    assert (mouse["name"], mouse["kind"], mouse["gloss"]) == ("mouse", "object", "the everyday mouse seen in photographs")
    assert (mouse["narrower"], mouse["broader"]) == (["small mouse", "old mouse", "garden mouse"], ["tool", "artefact"])
    assert mouse["attributes"][0] == "handle: long and wooden"
    assert mouse["scenes"][1] == "Shop - on a shelf under bright lamps"
    assert (len(mouse["attributes"]), len(mouse["scenes"]), mouse["sentences"]) == (5, 2, 18)
    assert about["left_out_or_noted"]["attributes: duplicate"] == 4 * 2 * 5  # the same in three rounds


def test_a_second_run_asks_nothing_and_writes_the_same_files(run, server, tmp_path):
    run()
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert not run("concurrency=1")
    assert len(server[1].seen) == QUESTIONS
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files


@pytest.mark.parametrize("change", ["model=another", "temperature=0.1", "attributes=8", "context=tools"])
def test_whatever_shapes_an_answer_is_part_of_its_key(run, server, change):
    run(*small())
    asked = len(server[1].seen)
    run(*small(change))
    assert len(server[1].seen) > asked


def test_the_gloss_is_in_every_prompt_after_triage_and_the_context_in_triage(run, server):
    run(*small("context=garden tools"))
    for body in server[1].seen:
        prompt = body["messages"][1]["content"]
        name = prompt.splitlines()[0].removeprefix("Label: ")
        assert ("garden tools" in prompt) == (family(body) == "triage")
        assert (f"Meaning: the everyday {name} seen" in prompt) == (family(body) != "triage")


def test_a_sense_in_the_class_list_goes_before_the_models_choice(run, server, tmp_path):
    (tmp_path / "names.txt").write_text("crane [a wading bird]\ncrane [a lifting machine]\n")
    run(*small())
    prompts = [body["messages"][1]["content"] for body in server[1].seen if family(body) == "hierarchy"]
    assert sorted(p.splitlines()[1] for p in prompts) == ["Meaning: a lifting machine", "Meaning: a wading bird"]
    assert [e["node_name"] for e in json.loads((tmp_path / "c.json").read_text()).values()] == ["crane", "crane"]


def test_metadata_gets_broader_kinds_but_neither_looks_nor_scenes(run, server, tmp_path):
    run()
    asked = [family(b) for b in server[1].seen if "Label: nikon\n" in b["messages"][1]["content"]]
    assert set(asked) == {"triage", "hierarchy"}
    entry = json.loads((tmp_path / "c.json").read_text())["3"]["candidate_sentences"]
    assert entry == ["a nikon, which is a tool.", "a nikon, which is a artefact."]


def test_rounds_differ_by_their_seed_and_schemas_are_strict(run, server):
    run()
    rounds = [b["seed"] for b in server[1].seen if family(b) == "hierarchy" and "rake" in b["messages"][1]["content"]]
    assert sorted(rounds) == [1, 2, 3]
    for body in server[1].seen:
        form = body["response_format"]["json_schema"]
        assert form["strict"] is True
        assert form["schema"]["additionalProperties"] is False
        assert sorted(form["schema"]["required"]) == sorted(form["schema"]["properties"])
        assert body["max_tokens"] == 1000


def test_a_higher_cap_asks_only_for_what_was_cut(run, server):
    server[1].behave = always({"body": completion(GOOD[:30], finish="length")})
    assert run(*small("max_tokens=50")) == 1
    server[1].behave, asked = lambda body, before: None, len(server[1].seen)
    assert not run(*small("max_tokens=400"))
    assert len(server[1].seen) == asked + 1


def test_a_class_that_is_refused_throughout_does_not_stop_the_others(run, server, capsys):
    refusal = {"body": completion(None, refusal="I cannot")}
    server[1].behave = lambda body, before: refusal if "Label: rake\n" in body["messages"][1]["content"] else None
    assert run("concurrency=1") == 1
    assert "1 of 5 classes failed" in capsys.readouterr().err


def test_an_answer_without_token_counts_is_good_but_stops_a_run_with_a_limit(run, server):
    answer = completion(json.dumps(good_answer("triage", "Label: rake\n")), usage=None)
    server[1].behave = lambda body, before: {"body": answer} if family(body) == "triage" else None
    assert not run(*small())
    with pytest.raises(ValueError, match="no token counts"):
        run(*small("model=gpt-4o-mini", "temperature=0.1"), "--max-cost", "1")


def test_side_files_of_two_corpora_are_never_the_same():
    assert beside("a/my-gpt-4.1.json", ".about.json") == Path("a/my-gpt-4.1.about.json")
    assert beside("a/corpus", ".about.json") == Path("a/corpus.about.json")


def test_no_more_requests_are_under_way_than_allowed(run, server):
    server[1].behave = lambda body, before: {"sleep": 0.02}
    run("concurrency=3")
    assert 2 <= server[1].most <= 3


def once(plan):
    """The plan for the first request about rake's scenes, good answers to all others."""

    def behave(body, before):
        return plan if before == 0 and is_target(body) else None

    return behave


def always(plan):
    return lambda body, before: plan if is_target(body) else None


def is_target(body):
    return family(body) == "scenes" and "Label: rake\n" in body["messages"][1]["content"]


def asked_for_target(seen):
    return sum(is_target(body) for body in seen)


GOOD = json.dumps(good_answer("scenes", "Label: rake\n"))
# fault -> (how the service behaves, requests about that question, exit code); retries=2 throughout
FAULTS = {
    "slow": (once({"sleep": 0.3}), 1, 0),
    "slower than the timeout, once": (once({"sleep": 1.5}), 2, 0),
    "429 with Retry-After, once": (once({"status": 429, "headers": {"Retry-After": "1"}, "body": {}}), 2, 0),
    "429 always": (always({"status": 429, "body": {"error": {"message": "slow down"}}}), 3, 1),
    "429 with Retry-After of an hour": (always({"status": 429, "headers": {"Retry-After": "3600"}, "body": {}}), 1, 1),
    "500 once": (once({"status": 500, "raw": b"oops"}), 2, 0),
    "503 always": (always({"status": 503, "raw": b"down"}), 3, 1),
    "HTML with status 200, once": (once({"raw": b"<html>login</html>"}), 2, 0),
    "JSON that is no completion, once": (once({"body": {"choices": None}}), 2, 0),
    "body cut off, once": (once({"raw": b'{"id": "c", "choi', "cut": 500}), 2, 0),
    "refusal, once": (once({"body": completion(None, refusal="I cannot")}), 2, 0),
    "refusal, always": (always({"body": completion(None, refusal="I cannot")}), 3, 1),
    "wrong schema, once": (once({"body": completion('{"scenes": ["Yard"]}')}), 2, 0),
    "not JSON, always": (always({"body": completion("Here are some scenes")}), 3, 1),
    "empty answer, once": (once({"body": completion("")}), 2, 0),
    "finish_reason length, once": (once({"body": completion(GOOD[:30], finish="length")}), 2, 0),
    "finish_reason length, always": (always({"body": completion(GOOD[:30], finish="length")}), 2, 1),
    "finish_reason content_filter, once": (once({"body": completion(None, finish="content_filter")}), 2, 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_no_more_requests_than_needed_and_only_its_own_class(run, server, tmp_path, capsys, fault):
    server[1].behave, requests, code = FAULTS[fault]
    timeout = 1 if "timeout" in fault else 20  # a busy machine takes a second for a good answer now and then
    assert (run(*small("retries=2", f"timeout={timeout}")) or 0) == code
    assert asked_for_target(server[1].seen) == requests
    others = [b for b in server[1].seen if not is_target(b)]
    assert len(others) == 5 * 2 + 4 * 3 - 1  # all the rest was asked, once
    assert (tmp_path / "c.json").exists() == (code == 0)
    if code:
        assert "rake: scenes 1: " in capsys.readouterr().err
        assert "rake" in json.loads((tmp_path / "c.about.json").read_text())["failed"]
        server[1].behave = lambda body, before: None
        assert not run(*small())  # a later run asks for what failed, and for nothing else
        assert len(server[1].seen) == len(others) + requests + 1


def test_allow_partial_writes_what_there_is(run, server, tmp_path):
    server[1].behave = always({"status": 503, "raw": b"down"})
    assert run(*small("retries=0"), "--allow-partial") == 1
    sentences = json.loads((tmp_path / "c.json").read_text())["0"]["candidate_sentences"]
    assert sentences
    assert not any("appears together" in s for s in sentences)


def test_a_cut_answer_is_asked_for_with_a_doubled_cap(run, server):
    server[1].behave = once({"body": completion(GOOD[:30], finish="length")})
    run(*small("max_tokens=50"))
    assert [b["max_tokens"] for b in server[1].seen if is_target(b)] == [50, 100]


def test_a_complaint_tells_the_model_what_was_wrong(run, server):
    server[1].behave = once({"body": completion('{"scenes": ["Yard"]}')})
    run(*small())
    first, second = [b["messages"] for b in server[1].seen if is_target(b)]
    assert second[:2] == first
    assert second[2] == {"role": "assistant", "content": '{"scenes": ["Yard"]}'}
    assert "does not fit the JSON schema: scenes.0" in second[3]["content"]


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, {"message": "no such parameter: seed"}, "answered 400: no such parameter: seed"),
        (401, {"message": "Incorrect API key provided: sk-secret-1234"}, "answered 401: Incorrect API key provided: <key>"),
        (403, {"message": "country not supported"}, "answered 403: country not supported"),
        (404, {"message": "model not found"}, "answered 404: model not found"),
        (429, {"message": "You exceeded your quota", "code": "insufficient_quota"}, "answered 429: You exceeded your quota"),
    ],
)
def test_what_no_retry_can_mend_stops_at_once_and_never_shows_the_key(run, server, tmp_path, monkeypatch, status, error, said):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1234")
    server[1].behave = lambda body, before: {"status": status, "body": {"error": error}}
    with pytest.raises(ValueError, match="answered") as caught:
        run("concurrency=1")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(server[1].seen) == 1
    assert server[1].authorisation == {"Bearer sk-secret-1234"}
    assert not any("sk-secret" in path.read_text() for path in tmp_path.iterdir())


def test_a_service_that_is_not_there_ends_the_run_in_one_line(run, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(f"tool {i}" for i in range(500)))
    with pytest.raises(ValueError, match=r"10 classes in a row failed; the last: http://127.0.0.1:1/v1: .*refused"):
        run("base_url=http://127.0.0.1:1/v1", "retries=1")


def test_openai_without_a_key_is_an_error_that_says_what_to_set(run):
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        run("base_url=null")


def test_a_hint_of_the_service_holds_back_every_thread(run, server):
    began, times = time.monotonic(), []

    def behave(body, before):
        times.append(time.monotonic() - began)
        return {"status": 429, "headers": {"Retry-After": "1"}, "body": {}} if len(times) == 1 else {"sleep": 0.1}

    server[1].behave = behave
    assert not run(*small("concurrency=2"))
    assert sum(t < times[0] + 0.9 for t in times) <= 3  # the first, and what was under way or just starting beside it


def test_max_cost_stops_before_the_next_request_and_more_money_goes_on(run, server, tmp_path):
    with pytest.raises(ValueError, match=r"--max-cost is 0\.0004"):
        run("--max-cost", "0.0004", "concurrency=1")
    assert len(server[1].seen) == 9  # of 0.000045 USD each
    assert not run("--max-cost", "1")
    assert len(server[1].seen) == QUESTIONS


def test_max_cost_wants_a_price(run):
    with pytest.raises(ValueError, match="the price of llama is not known"):
        run("--max-cost", "1", "model=llama")


def test_dry_run_asks_nothing_and_counts_what_is_missing(run, server, tmp_path, capsys):
    assert not run("--dry-run")
    assert server[1].seen == []
    assert "55 requests" in capsys.readouterr().out  # before triage nobody knows that one class is metadata
    run()
    capsys.readouterr()
    run("--dry-run")
    assert "0 requests" in capsys.readouterr().out


DESCRIBE = """
import sys
from rcnn import cli, describe
sys.stderr = open(sys.argv.pop(), "w", buffering=1)
cli.run(lambda: describe.main(sys.argv[1:]))
"""


def start(tmp_path, url, *arguments):
    """A run in a process of its own, whose stderr is a file."""
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    places = [f"{tmp_path}/names.txt", f"output={tmp_path}/c.json", f"base_url={url}"]
    return started(DESCRIBE, *places, *arguments, tmp_path / "stderr.txt")


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.is_alive()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_killed_run_pays_again_only_for_what_was_under_way(run, server, tmp_path):
    server[1].behave = lambda body, before: {"sleep": 0.1}
    process = start(tmp_path, server[0], "concurrency=4")
    wait_for(lambda: len(server[1].seen) >= 20, process)
    process.kill()
    assert ended(process) == [-signal.SIGKILL]
    time.sleep(0.3)
    stored = (tmp_path / "c.answers.jsonl").read_bytes().splitlines()
    seen = len(server[1].seen)
    assert seen - 4 <= len(stored) <= seen < QUESTIONS
    (tmp_path / "c.answers.jsonl").write_bytes(b"\n".join(stored) + b'\n{"key": "torn')  # a kill may come within a line
    assert not run()
    assert len(server[1].seen) == seen + QUESTIONS - len(stored)
    again = run()
    assert not again
    assert len(server[1].seen) == seen + QUESTIONS - len(stored)


def test_an_interrupt_drains_the_requests_under_way(server, tmp_path):
    server[1].behave = lambda body, before: {"sleep": 0.5}
    process = start(tmp_path, server[0], "concurrency=4")
    wait_for(lambda: len(server[1].seen) >= 6, process)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == [130]
    error = (tmp_path / "stderr.txt").read_text()
    assert "finishing the requests under way" in error
    assert "Traceback" not in error
    assert len((tmp_path / "c.answers.jsonl").read_bytes().splitlines()) == len(server[1].seen)
    assert server[1].now == 0


def test_two_runs_may_not_write_the_same_answers(run, server, tmp_path):
    server[1].behave = lambda body, before: {"sleep": 0.3}
    process = start(tmp_path, server[0], "concurrency=1")
    wait_for(lambda: (tmp_path / "c.answers.jsonl").exists(), process)
    with pytest.raises(ValueError, match="another run is writing"):
        run()
    process.kill()
    ended(process)


def test_batches_make_the_same_corpus_at_half_the_price(run, server, tmp_path):
    run()
    live = (tmp_path / "c.json").read_bytes()
    cost = json.loads((tmp_path / "c.about.json").read_text())["cost_usd"]
    for path in tmp_path.glob("c.*"):
        path.unlink()
    asked = len(server[1].seen)
    assert not run("--batch", "poll=0.01")
    assert (tmp_path / "c.json").read_bytes() == live
    assert json.loads((tmp_path / "c.about.json").read_text())["cost_usd"] == pytest.approx(cost / 2, abs=1e-4)
    assert len(server[1].seen) == asked
    assert len(server[1].batches) == 2  # triage, then all the rest
    assert not (tmp_path / "c.batch.json").exists()


def test_what_a_batch_leaves_out_goes_into_the_next_and_what_it_refuses_fails(run, server, tmp_path, capsys):
    told = []

    def line(number, request):
        body = request["body"]
        if is_target(body):
            return {"response": {"status_code": 400, "body": {"error": {"message": "bad request"}}}}
        if family(body) == "phrases" and "rake" in body["messages"][1]["content"] and not told:
            told.append(1)
            return {"response": None, "error": {"code": "batch_expired", "message": "not in time"}}
        absent = family(body) == "parts" and len(server[1].batches) == 2 and "hoe" in body["messages"][1]["content"]
        return "absent" if absent else None

    server[1].batch_line, server[1].batch_status = line, ["expired"]
    assert run(*small("poll=0.01"), "--batch") == 1
    assert "rake: scenes 1: 400: bad request" in capsys.readouterr().err
    last = max(server[1].batches)
    assert len(server[1].files[server[1].batches[last]["input"]].splitlines()) == 2  # rake's phrases and hoe's parts
    assert len(json.loads((tmp_path / "c.about.json").read_text())["failed"]) == 1


def test_a_batch_under_way_is_collected_by_the_next_run(run, server, tmp_path):
    server[1].batch_status = ["in_progress"]
    process = start(tmp_path, server[0], "--batch", "poll=0.05")
    wait_for(lambda: "batch-0" in server[1].batches and server[1].batches["batch-0"]["looks"] > 1, process)
    process.kill()
    ended(process)
    server[1].batch_status = ["completed"]
    assert not run("--batch", "poll=0.01")
    assert len(server[1].batches) == 2  # the killed run's triage, and the rest


def test_a_failed_batch_stops_with_its_reason(run, server):
    server[1].batch_status = ["validating", "failed"]
    with pytest.raises(ValueError, match="batch-0 failed: the file is not valid"):
        run("--batch", "poll=0.01")
    server[1].batch_status = ["completed"]
    assert not run("--batch", "poll=0.01")  # the failed one is forgotten


def test_while_a_batch_is_under_way_nothing_is_asked_live(run, server, tmp_path):
    (tmp_path / "c.batch.json").write_text('{"batches": ["batch-7"]}')
    with pytest.raises(ValueError, match="a batch is under way"):
        run()
    assert server[1].seen == []


def test_statistics_are_shown_side_by_side(run, tmp_path, capsys):
    run()
    capsys.readouterr()
    shipped = str(ROOT / "data/nuswide/corpus.json")
    describe.main(["stats", f"{tmp_path}/c.json", shipped])
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == [f"{tmp_path}/c.json", shipped]
    assert out.splitlines()[1].split() == ["classes", "5", "1,006"]
    assert "green: colour (broader)" in out
    with pytest.raises(ValueError, match=r"facts\.jsonl is not JSON"):
        describe.main(["stats", str(ROOT / "data/mini/facts.jsonl")])


def test_statistics_without_an_about_file_are_those_of_the_sentences(run, tmp_path, capsys):
    run()
    capsys.readouterr()
    (tmp_path / "bare.json").write_bytes((tmp_path / "c.json").read_bytes())
    describe.main(["stats", f"{tmp_path}/bare.json", f"{tmp_path}/c.json"])
    out = capsys.readouterr().out
    lines = {line[:30].strip(): line.split()[-2:] for line in out.splitlines()[1:]}
    assert lines["sentences"][0] == lines["sentences"][1] != "-"
    assert lines["labels as their own kind"] == ["-", "0"]
    assert f"{tmp_path}/bare.json: {tmp_path}/bare.about.json is absent" in out


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (
            {"classes": {"0": {"name": "rake", "narrower": 3, "broader": 2, "bearers": 1, "attributes": 5, "scenes": 2}}},
            "has no facts",
        ),
        (
            {"classes": {"0": {"name": "spade", "narrower": [], "broader": [], "bearers": [], "attributes": [], "scenes": []}}},
            "other classes",
        ),
        ([], "has no facts"),
    ],
)
def test_statistics_refuse_an_about_file_of_counts_or_of_other_classes(tmp_path, about, said):
    (tmp_path / "c.json").write_text('{"0": {"node_name": "rake", "candidate_sentences": ["a rake, which has tines."]}}')
    (tmp_path / "c.about.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=said):
        describe.main(["stats", f"{tmp_path}/c.json"])


def test_a_class_list_alone_gets_its_corpus_beside_it_and_the_next_command(server, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("rake\nhoe\n")
    assert not describe.main([f"{tmp_path}/names.txt", f"base_url={server[0]}"])
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"names.txt", "names.corpus.json", "names.corpus.answers.jsonl", "names.corpus.about.json"}
    assert capsys.readouterr().out.splitlines()[-1] == f"next: python -m rcnn.train --classes {tmp_path}/names.txt"


def test_the_next_command_names_a_corpus_that_is_elsewhere(run, tmp_path, capsys):
    assert not run()
    expected = f"next: python -m rcnn.train --classes {tmp_path}/names.txt corpus.path={tmp_path}/c.json"
    assert capsys.readouterr().out.splitlines()[-1] == expected


def test_no_next_command_where_no_corpus_was_written(run, server, capsys):
    assert not run("--dry-run")
    server[1].behave = always({"status": 503, "raw": b"down"})
    assert run("retries=0") == 1
    assert "next:" not in capsys.readouterr().out


def test_a_configuration_that_is_not_installed_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(describe, "PRESETS", tmp_path / "site-packages" / "configs" / "describe")
    with pytest.raises(ValueError, match=r"^coco is part of a checkout of the project, not of the installed package$"):
        describe.main(["coco"])


def test_an_unknown_key_of_the_configuration_is_refused_with_the_nearest(run):
    with pytest.raises(ValueError, match="unknown configuration key sceens; the nearest is scenes"):
        run("sceens=5")


def test_an_answer_that_was_damaged_is_asked_for_again_and_one_that_was_edited_is_taken(run, server, tmp_path):
    assert not run(*small())
    path, asked = tmp_path / "c.answers.jsonl", len(server[1].seen)
    first, *rest = path.read_text().splitlines(keepends=True)
    record = json.loads(first)
    path.write_text(first.replace("seen in", "sold in") + "".join(rest))
    assert not run(*small())
    assert len(server[1].seen) == asked + 1
    del record["sha256"]
    path.write_text(json.dumps(record) + "\n" + "".join(rest))
    assert not run(*small())
    assert len(server[1].seen) == asked + 1


def test_english_articles_are_refused_in_the_authors_form():
    with pytest.raises(ValueError, match="mode=compat: expected articles=paper"):
        config.override({}, ["mode=compat", "articles=english"], config.DescribeConfig)
