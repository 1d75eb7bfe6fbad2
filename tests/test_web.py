"""The page of rcnn web: what it shows follows from kept scores, it is used in a real browser, and it stays on this machine."""

import contextlib
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from shutil import which
from urllib.parse import urlsplit

import draw_mini
import numpy as np
import pytest
from PIL import Image
from running import rcnn
from tagging import MINI, NAMES, PAIRS, ROOT, folder, names, six  # noqa: F401, fixtures

from rcnn import export, web
from rcnn.collection import Collection, Source
from rcnn.page.review import BESIDE, BINS, PAGE, Review
from rcnn.tagging.cutoffs import FOLDS, Cutoffs, Statistics, fit
from rcnn.tagging.store import Photo, Store

try:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.keys import Keys
except ModuleNotFoundError:
    webdriver = None

MANY = 10_000
TYPED = ["butterfly", "beach", "tree", "kitchen"]
DRAWINGS = 32
# a server whose connections to other hosts, and questions for their addresses, are noted in a file
WATCHED = """
import sys
from pathlib import Path
noted = Path(sys.argv.pop(1))
noted.write_text("")
def note(event, found):
    if event not in ("socket.connect", "socket.getaddrinfo"):
        return
    host = found[0] if event == "socket.getaddrinfo" else found[1][0] if isinstance(found[1], tuple) else None
    if host not in (None, "127.0.0.1", "::1", "localhost"):
        with noted.open("a") as file:
            print(event, host, file=file)
sys.addaudithook(note)
from rcnn import cli, web
cli.run(lambda: web.main(sys.argv[1:]))
"""


def source_of(names):  # noqa: F811
    return Source(None, str(names[1]), [str(pair) for pair in names[2:]])


@pytest.fixture
def many(names, tmp_path):  # noqa: F811
    """Ten thousand photos that have scores and no file, and a function that makes their Review."""
    source = source_of(names)
    paths = [tmp_path / "absent" / f"{i:05}.jpg" for i in range(MANY)]
    scores = np.random.default_rng(0).normal(0.2, 0.05, (MANY, len(NAMES))).astype(np.float32)
    store = Store(source.folder, source.learned.identity, len(NAMES))
    store.put({Photo.at(path): row for path, row in zip(paths, scores, strict=True)})
    store.close()
    return paths, scores, lambda: Review(paths, source)


def judge_all(review, column, photos, threshold):
    *others, last = photos
    review.judged |= {(i, column): bool(review.scores[i, column] > threshold) for i in others}
    review.judge(last, column, bool(review.scores[last, column] > threshold))  # which fits


def test_of_10_000_photos_with_kept_scores_a_page_is_shown_and_none_is_opened(many):
    paths, scores, review = many[0], many[1], many[2]()
    assert review.paths == paths
    assert (review.scores == scores).all()
    assert list(review.page(1)) == list(range(PAGE))
    assert list(review.page(-(-MANY // PAGE)))[-1] == MANY - 1
    counts, edges = review.histogram(2)
    assert (counts.sum(), len(counts), len(edges)) == (MANY, BINS, BINS + 1)
    assert (edges[0], edges[-1]) == pytest.approx((scores[:, 2].min(), scores[:, 2].max()))


def test_the_photos_just_above_and_below_a_cut_off_are_those_with_the_nearest_scores(many):
    review, own = many[2](), many[1][:, 1]
    above, below = review.around(1)
    at = review.thresholds[1]
    assert own[above].tolist() == sorted(own[own >= at])[:BESIDE][::-1]
    assert own[below].tolist() == sorted(own[own < at])[::-1][:BESIDE]
    assert abs(own[review.next(1)] - at) == abs(own - at).min()
    review.judge(first := review.next(1), 1, True)
    assert review.next(1) != first


def test_fewer_judgements_than_a_fit_takes_leave_the_cut_offs_and_it_is_said(many):
    review = many[2]()
    before = review.thresholds.copy()
    judge_all(review, 0, range(FOLDS - 1), -1)
    assert (review.thresholds == before).all()
    assert "a fit needs 10 photos, 1 more" in review.basis(0)
    judge_all(review, 0, range(FOLDS), 1)
    assert "a fit needs one that is accepted" in review.basis(0)
    assert "Not judged yet; by each class's scores on these 10000 photos" in review.basis(1)


def test_judgements_move_the_cut_offs_of_their_classes_alone(many):
    review, scores = many[2](), many[1]
    before = review.thresholds.copy()
    judge_all(review, 0, range(60), 0.18)
    assert review.thresholds[0] == pytest.approx(0.18, abs=0.02)
    assert (review.thresholds[1:] == before[1:]).all()
    assert "Fitted to 60 judged photos of this class" in review.basis(0)
    assert review.tags(100) == [(c, scores[100, c]) for c in (-scores[100]).argsort() if scores[100, c] >= review.thresholds[c]]


def test_judgements_of_all_classes_give_the_cut_offs_that_calibrate_fits(many):
    review, scores = many[2](), many[1]
    present = scores[:30] > 0.22
    review.judged = {at: bool(value) for at, value in np.ndenumerate(present)}
    review.judge(0, 0, bool(present[0, 0]))
    statistics = Statistics(len(NAMES))
    statistics.add(scores)
    np.testing.assert_allclose(review.thresholds, fit(scores[:30], present, statistics)[0], atol=1e-6)


def test_labels_that_are_not_known_are_not_read():
    rng = np.random.default_rng(1)
    scores, statistics = rng.normal(size=(50, 4)), Statistics(4)
    statistics.add(scores)
    present, known = scores + rng.normal(size=(50, 4)) > 1, rng.random((50, 4)) < 0.5
    one, other = (fit(scores, np.where(known, present, fill), statistics, known=known) for fill in (False, True))
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert not one[1][~known].any()
    whole = fit(scores, present, statistics, known=np.ones_like(known))
    assert all((a == b).all() for a, b in zip(whole, fit(scores, present, statistics), strict=True))


def test_a_cut_off_set_by_hand_stays_when_others_are_fitted_until_it_is_undone(many):
    review = many[2]()
    before = review.thresholds[3]
    review.move(3, 0.3)
    judge_all(review, 3, range(40), 0.18)
    assert review.thresholds[3] == 0.3
    assert review.basis(3).startswith("Set by hand.")
    review.move(3, None)
    assert review.thresholds[3] not in (0.3, before)


def test_what_is_saved_is_what_predict_and_the_next_page_use(many):
    paths, _, make = many
    review = make()
    review.move(0, 0.25)
    judge_all(review, 1, range(20), 0.2)
    path = review.save()
    again = make()
    assert again.origin == f"set by rcnn web, {path}"
    assert (again.thresholds == review.thresholds).all()
    with contextlib.closing(Collection(paths[:1], review.source)) as collection:
        assert (collection.cutoffs()[0].thresholds == review.thresholds).all()


def test_the_model_card_of_an_export_says_where_such_cut_offs_come_from(many):
    review = many[2]()
    review.move(0, 0.25)
    tagger = review.source.tagger
    tagger.cutoffs = Cutoffs.load(review.save(), tagger.identity, tagger.class_names)
    assert "| thresholds | set on the page of rcnn web |" in export.card(tagger, "corpus", None)


def test_with_few_photos_tags_are_the_best_until_a_cut_off_is_set(many, names):  # noqa: F811
    review = Review(many[0][:12], source_of(names))
    assert len(review.tags(0)) == 5
    review.move(0, -1.0)
    expected = [column for column in range(len(NAMES)) if review.scores[0, column] >= review.thresholds[column]]
    assert sorted(column for column, _ in review.tags(0)) == expected
    assert len(Review(many[0][:12], source_of(names)).tags(0)) == 5


def test_photos_without_scores_are_counted_and_scored_on_demand(many, names, tmp_path):  # noqa: F811
    Image.new("RGB", (40, 30), "green").save(tmp_path / "new.png")
    (tmp_path / "bad.png").write_text("no image")
    paths = [*many[0][:3], tmp_path / "new.png", tmp_path / "bad.png"]
    assert Review(paths, source_of(names)).untagged == 2
    ticks = []
    review = Review(paths, source_of(names), lambda *tick: ticks.append(tick))
    assert ticks == [(1, 2), (2, 2)]
    assert (review.paths, list(review.problems), review.untagged) == (paths[:4], paths[4:], 0)


def test_without_gradio_it_is_said_how_to_install_it(monkeypatch):
    for name in ("gradio", "rcnn.page.app", "rcnn.page.serve"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(web.os, "environ", dict(os.environ))
    assert "the page needs gradio: pip install gradio" in rcnn("web", code=2)[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with drawings, a file beside it, and what another program uploaded."""
    place = tmp_path_factory.mktemp("web")
    draw_mini.draw_benchmark(place / "mini", DRAWINGS)
    (place / "mini" / "images" / "bad.jpg").write_text("no image")
    (place / "secret.txt").write_text("secret")
    return place


@pytest.fixture(scope="module")
def server(place):
    """The address of the page, in a process of its own."""
    pytest.importorskip("gradio", reason="the page needs gradio")
    command = [sys.executable, "-c", WATCHED, place / "noted", "mini/images", *PAIRS]
    # what would open the page to others, or other folders, is not listened to
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GRADIO_SHARE": "true", "GRADIO_ALLOWED_PATHS": str(place)}
    with (
        (place / "stderr").open("w") as errors,
        subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        found = re.search(r"http://(127\.0\.0\.1:\d+)/", process.stdout.readline())
        assert found, (place / "stderr").read_text()
        yield found[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert (place / "noted").read_text() == ""  # nothing was asked of other hosts
    assert "Traceback" not in (place / "stderr").read_text()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (webdriver and which("chromium") and which("chromedriver")):
        pytest.skip("the page is tested with selenium, chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = which("chromium")
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update"
    for flag in [
        *flags.split(),
        "disable-sync",
        "window-size=1280,1039",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(which("chromedriver")))
    yield driver
    driver.quit()


def get(server, path, **headers):
    """(status, text) of a request whose path is sent as it stands."""
    connection = http.client.HTTPConnection(server, timeout=20)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    with contextlib.closing(connection):
        return answer.status, answer.read().decode(errors="replace")


def test_no_file_outside_of_the_page_is_served_and_no_other_host_is_asked(server, place):
    outside = ["/etc/passwd", "../../etc/passwd", f"{place}/mini/images/../../secret.txt", place / "secret.txt", "secret.txt"]
    for name in [*outside, place / "mini" / "images" / "00000.jpg"]:
        for prefix in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/assets/"):
            assert get(server, f"{prefix}{name}")[0] in (403, 404), (prefix, name)
    assert get(server, "/gradio_api/file=/etc/passwd")[0] == 403
    assert get(server, f"/gradio_api/file={place}/secret.txt")[0] == 403
    assert get(server, "/gradio_api/file=http://example.org/a.png")[0] == 403
    assert get(server, "/", Host="elsewhere.example")[0] == 400
    assert get(server, "/")[0] == 200


class User:
    """Somebody who uses the page in a browser, and waits for what is to appear."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(f"http://{address}/")

    def wait(self, what, seconds=60):
        """What a function returns, once that is true of it."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(WebDriverException):  # an element was replaced meanwhile
                if found := what():
                    return found
            assert time.monotonic() < end, self.browser.find_element("tag name", "body").text
            time.sleep(0.05)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        return self.wait(lambda: [element for element in self.all(selector) if element.is_displayed()])[0]

    def click(self, selector):
        self.wait(lambda: (self.one(selector).click(), True))

    def text(self, selector):
        return self.one(selector).text

    def source(self, selector):
        return self.one(f"{selector} img").get_attribute("src")

    def changed(self, what, click):
        """Click, and wait until what a function returns has changed; returns it."""
        before = what()
        self.click(click)
        return self.wait(lambda: (now := what()) != before and now)


def test_in_a_browser_photos_are_tagged_maps_shown_cut_offs_moved_and_saved(server, browser, place):
    user = User(browser, server)
    truth = labels_of(place / "mini" / "instances.json")

    # names are typed, one more photo and one that is none are dropped, all are tagged
    user.one("#names textarea").send_keys("\n".join(TYPED))
    Image.open(place / "mini" / "images" / "00003.jpg").rotate(90).save(place / "more.png")
    (place / "note.jpg").write_text("no image")
    user.all("#files input[type=file]")[0].send_keys(f"{place}/more.png\n{place}/note.jpg")
    user.wait(lambda: "more" in user.text("#files") and "note" in user.text("#files"))
    user.click("#tag")
    user.wait(lambda: len(user.all("#gallery img")) == DRAWINGS + 1)
    assert [line.split(":")[0] for line in user.text("#unread").splitlines()] == ["bad.jpg", "note.jpg"]
    user.wait(lambda: browser.execute_script("return document.querySelector('#gallery img').naturalWidth > 0"))

    # a photo is chosen, and a tag of it: its map is laid over the photo
    tagged = next(i for i, item in enumerate(user.all("#gallery .caption-label")) if item.text != "no tag")
    user.click(f"#gallery .gallery-item:nth-child({tagged + 1}) button")
    photo = user.source("#picture")
    assert re.fullmatch(r"[a-z]+ +-?\d\.\d{3}", user.text("#tags label:nth-of-type(2)"))
    assert user.changed(lambda: user.source("#picture"), "#tags label:nth-of-type(2)") != photo

    # the cut-off of the first class: moved by hand, undone, and fitted to what is accepted and rejected
    user.click("button[role=tab]:nth-of-type(2)")
    bars = user.one("#histogram").get_attribute("innerHTML")
    user.one("#cutoff input[type=range]").send_keys(Keys.ARROW_RIGHT * 3)
    user.wait(lambda: "Set by hand" in user.text("#basis"))
    assert user.one("#histogram").get_attribute("innerHTML") != bars
    user.changed(lambda: user.text("#basis"), "#undo")
    user.changed(lambda: user.text("#judged label"), "#below .gallery-item:nth-child(2) button")
    for count in range(1, FOLDS + 3):
        name = user.text("#judged label").split(",")[0]
        user.click("#accept" if TYPED[0] in truth.get(name, ()) else "#reject")
        user.wait(lambda count=count: f"{count} judged photo" in user.text("#basis"))
    assert user.text("#basis").startswith(f"Fitted to {FOLDS + 2} judged photos of this class")
    cutoff = float(user.one("#cutoff input[type=number]").get_attribute("value"))
    if "PAGE_PICTURE" in os.environ:  # the README's: PAGE_PICTURE=data/mini/web.png python -m pytest tests/test_web.py
        user.changed(lambda: user.text("#judged label"), "#above .gallery-item:nth-child(3) button")
        user.changed(lambda: user.source("#judged"), "#map input")
        shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB").crop((0, 0, 1280, 830))
        shot.quantize(128, kmeans=2, dither=Image.Dither.NONE).save(os.environ["PAGE_PICTURE"], optimize=True)

    # what is saved is what rcnn predict uses: the tags that it gives are those of the page
    user.click("#save")
    listed, option = re.fullmatch(
        r"Saved as (.*)\. Now rcnn predict PHOTOS (--classes .*) uses it\.", user.text("#saved")
    ).groups()
    assert json.loads((place / listed).read_text())["thresholds"][0] == pytest.approx(cutoff, abs=1e-4)
    with contextlib.chdir(place):
        out, err = rcnn("predict", "mini/images", *option.split(), *PAIRS, "--format", "jsonl", code=1)
    assert f"cut-offs: set by rcnn web, {listed}\n" in err
    found = [", ".join(tag["class"] for tag in json.loads(line)["tags"]) or "no tag" for line in out.splitlines()]
    user.click("button[role=tab]:nth-of-type(1)")
    user.wait(lambda: [item.text for item in user.all("#gallery .caption-label")][:DRAWINGS] == found)

    # an error is one line; no other host was asked for anything, and the browser complains of nothing
    user.one("#names textarea").send_keys("\ntree")
    user.click("#tag")
    assert "these classes are listed twice: tree" in user.text(".toast-body")
    requests = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [urlsplit(event["params"]["request"]["url"]) for event in requests if event["method"] == "Network.requestWillBeSent"]
    hosts = [url.netloc for url in urls if url.scheme in ("http", "https", "ws", "wss")]
    assert len(hosts) > DRAWINGS
    assert set(hosts) == {server}
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def labels_of(path):
    """{file name: names of the classes that are on the drawing}."""
    told = json.loads(path.read_text())
    files, classes = (
        {entry["id"]: entry[key] for entry in told[of]} for of, key in (("images", "file_name"), ("categories", "name"))
    )
    found = {name: set() for name in files.values()}
    for entry in told["annotations"]:
        found[files[entry["image_id"]]].add(classes[entry["category_id"]])
    return found
