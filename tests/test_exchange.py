"""One exchange with the language model: what is sent after which reply, and under which keys."""

import json
from pathlib import Path

import pytest

from rcnn import config
from rcnn.describing import questions
from rcnn.describing.answers import Answers, Reply
from rcnn.describing.exchange import Exchange, Failure, expected_tokens

ROOT = Path(__file__).parents[1]
GOOD = Reply("m", "stop", '{"narrower": ["pug"], "broader": ["pet"], "bearers": []}')
CUT = Reply("m", "length", '{"narrower": ["pu')
INVALID = Reply("m", "stop", '{"narrower": "pug"}')
REFUSED = Reply("m", "stop", None, refusal="I cannot")


def exchange(**changes):
    settings = config.override({"max_tokens": 50, "base_url": "http://localhost/v1", **changes}, [], config.DescribeConfig)
    return Exchange(questions.descriptions("dog", "a barking pet", False, settings)[0], settings)


def test_a_valid_answer_is_the_outcome():
    talk = exchange()
    assert talk.outcome is None
    talk.take(GOOD)
    assert talk.outcome == questions.Hierarchy(narrower=["pug"], broader=["pet"], bearers=[])
    assert list(talk.replies.values()) == [GOOD]


def test_the_cap_of_a_cut_answer_is_doubled_once():
    talk = exchange()
    caps = []
    while talk.outcome is None:
        caps.append(talk.next_request()["max_tokens"])
        talk.take(CUT)
    assert caps == [50, 100]
    assert talk.outcome == Failure("the answer was cut at 100 tokens; raise max_tokens")


@pytest.mark.parametrize("reply", [INVALID, REFUSED])
def test_an_answer_is_sent_back_with_a_complaint_twice(reply):
    talk = exchange()
    lengths = []
    while talk.outcome is None:
        lengths.append(len(talk.next_request()["messages"]))
        talk.take(reply)
    assert lengths == [2, 4, 6]
    assert isinstance(talk.outcome, Failure)


def test_a_cut_answer_and_complaints_count_apart():
    talk = exchange()
    for reply in (INVALID, CUT, REFUSED, GOOD):
        assert talk.outcome is None
        talk.take(reply)
    assert talk.next_request()["max_tokens"] == 100
    assert isinstance(talk.outcome, questions.Hierarchy)


def test_a_request_in_hand_is_not_changed_by_the_reply():
    talk = exchange()
    request = talk.next_request()
    before = json.dumps(request)
    talk.take(INVALID)
    assert json.dumps(request) == before


def test_every_request_has_a_key_of_its_own_that_the_cap_in_the_settings_does_not_change():
    talk, other = exchange(), exchange(max_tokens=400)
    for reply in (CUT, INVALID, GOOD):
        talk.take(reply)
        other.take(reply)
    assert len(talk.replies) == 3
    assert list(other.replies) == list(talk.replies)


def test_stored_replies_are_followed_as_far_as_they_go(tmp_path):
    with Answers(tmp_path / "a.jsonl", writing=True) as store:
        first = exchange()
        for reply in (INVALID, CUT):
            store.put(first.key, reply, first.question.metadata)
            first.take(reply)
        second = exchange()
        second.follow(store)
    assert second.outcome is None
    assert (second.key, second.next_request()) == (first.key, first.next_request())
    record = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert (record["class"], record["question"], record["round"]) == ("dog", "hierarchy", 1)


@pytest.mark.parametrize("name", ["coco", "nuswide"])
def test_keys_are_those_of_the_shipped_answers(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = config.load(f"configs/describe/{name}.yaml", cls=config.DescribeConfig)
    path = ROOT / "data" / name / "corpus.answers.jsonl"
    record = json.loads(path.read_text().splitlines()[0])
    first = Exchange(questions.triage(record["class"], None, None, settings), settings)
    assert first.key == record["key"]
    first.follow(Answers(path))
    further = questions.descriptions(record["class"], first.outcome.gloss, first.outcome.describable, settings)
    keys = {json.loads(line)["key"] for line in path.read_text().splitlines()}
    assert {Exchange(question, settings).key for question in further} <= keys


def test_the_tokens_of_exchanges_add_up():
    one, two = expected_tokens([exchange()]), expected_tokens([exchange(), exchange()])
    assert one[0] > 100
    assert two == (2 * one[0], 2 * one[1])
    assert expected_tokens([]) == (0, 0)
