"""The page of rcnn.web: what is shown where, and what a click does."""

import functools
import io
import os
import shlex
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import gradio as gr
from PIL import Image

from rcnn import cli, config, hub
from rcnn.collection import VOCABULARIES, Source
from rcnn.files import digest, replace_file
from rcnn.page.histogram import histogram
from rcnn.page.review import PAGE, Review
from rcnn.photos import find_images
from rcnn.printing import cut, lossless, message
from rcnn.score.reading import read_rgb, reason
from rcnn.tagging.overlay import overlay
from rcnn.tagging.store import Photo

OWN = "the names below"
SMALL, LARGE, COARSE = 192, 800, 1_500_000  # pixels on a side of a thumbnail and of a photo; of what the former is made of
MOST = 30  # unread photos that are listed
MARKS = {True: " ▲", False: " ▽", None: ""}  # of photos that were accepted, rejected, not judged
EMPTY = "Choose classes, drop photos or start with a folder (rcnn web PHOTOS), and press Tag photos."
Shown = Sequence[int | None] | None  # what a tab of the browser shows: the version of the review, and the photo to judge
CSS = """
.gradio-container .main {padding: 12px 20px !important; max-width: none !important}
.grid-container {grid-template-columns: repeat(6, minmax(0, 1fr)) !important; gap: 6px !important}
.grid-wrap {padding-top: 30px !important; min-height: 0 !important}
#above .grid-wrap, #below .grid-wrap {overflow: hidden !important} #files td.download {display: none}
.caption-label {font-size: 11px !important; padding: 1px 4px !important}
#picture img, #judged img {width: 100%; height: 100%; object-fit: contain}
.note {font-size: 13px; overflow-wrap: anywhere} .note ul {max-height: 140px; overflow: auto; padding-left: 16px}
[data-testid=status-tracker] :is(.error, .clear-status) {display: none}
svg text {font: 11px system-ui, sans-serif; fill: var(--body-text-color)}
"""


def told(handler: Callable) -> Callable:
    """A handler whose errors are shown on the page, as one line."""

    @functools.wraps(handler)
    def run(*args, **more):
        try:
            return handler(*args, **more)
        except (ValueError, OSError) as error:
            text = message(str(error))
        except (MemoryError, RuntimeError) as error:
            if not (text := cli.wants_memory(error)):
                raise
        raise gr.Error(escape(text), None, title="", print_exception=False)

    return run


def nearest(slider: gr.Slider, number: float | None) -> float:
    """The number of a slider; one that is missing or out of bounds while it is typed is the nearest one, as is shown then."""
    return slider.minimum if number is None else min(max(number, slider.minimum), slider.maximum)


gr.Slider.preprocess = nearest  # Gradio's own raises errors, whose tracebacks are printed


def served(image: Image.Image) -> str:
    """Where a picture is served from. Gradio would write it once more each time, even while a browser reads it."""
    image.save(data := io.BytesIO(), "webp")
    path = Path(os.environ["GRADIO_TEMP_DIR"]) / f"{digest(data.getvalue())}.webp"
    if not path.exists():
        with replace_file(path) as file:
            file.write(data.getvalue())
    return str(path)


@functools.lru_cache(100 * PAGE)
def thumbnail(path: Path, stamp: str, max_pixels: int) -> str:
    """A small picture of a photo, which has another stamp once it is changed; a grey one if it has gone since."""
    for most in (COARSE, max_pixels):  # only of JPEGs are large ones decoded coarsely
        try:
            image = read_rgb(path, SMALL, True, most)
            image.thumbnail((SMALL, SMALL))
            return served(image)
        except Exception:
            continue
    return served(Image.new("RGB", (SMALL, SMALL), "grey"))


class Page:
    """The page and what it shows; one for the server, which has one user."""

    def __init__(self, paths: Sequence[Path], given: tuple[str | None, str | None], pairs: Sequence[str]) -> None:
        """`paths` of the photos, `given` a run or a class list, or neither, and configuration keys."""
        self.paths, self.given, self.pairs = paths, given, pairs
        self.key, self.source, self.review = given, None, None
        if any(given):
            self.source = Source(*given, pairs)
            self.review = Review(paths, self.source) if paths else None
        self.reviews = {self.review.identity: self.review} if self.review else {}  # the last one of each identity
        self.version = 1  # of `review`; what another tab of the browser shows may be of an older one

    def picture(self, photo: int, column: int = -1) -> str:
        """A photo, under the map of a class if one is named."""
        path, source = self.review.paths[photo], self.source
        try:
            image = read_rgb(path, LARGE, True, source.settings.evaluate.max_pixels)
        except Exception as error:
            raise ValueError(f"{lossless(path.name)} cannot be read any more: {reason(error)}") from None
        image.thumbnail((LARGE, LARGE))
        if column < 0:
            return served(image)
        found = source.tagger.maps(path, [source.tagger.full_names[column]])
        return served(overlay(image, found.maps[0].numpy(), found.snippets[0].tolist()))

    def thumbnails(self, photos: Sequence[int], captions: Sequence[str]) -> list[tuple[str, str]]:
        """What a gallery shows of some photos."""
        most = self.source.settings.evaluate.max_pixels
        shown = zip((self.review.paths[i] for i in photos), captions, strict=True)
        return [(thumbnail(path, Photo.at(path).stamp, most), text) for path, text in shown]

    def status(self) -> str:
        """What was tagged, and what could not be."""
        if not (review := self.review):
            return f"<div class=note>{EMPTY}</div>"
        left = f"{review.untagged:,} are not tagged yet. " if review.untagged else ""
        shown = [(path, escape(lossless(str(path))), escape(lossless(path.name))) for path in review.problems]
        unread = [f"<li title='{full}'>{n}: {escape(review.problems[path])}" for path, full, n in shown]
        listed = f"{len(unread)} cannot be read:<ul id=unread>{''.join(unread[:MOST])}</ul>" if unread else ""
        head = f"<b>{len(review.paths):,} photos, {len(review.names):,} classes.</b> {left}"
        return f"<div class=note>{head}Cut-offs: {escape(message(review.origin))}. {self.unsaved} {listed}</div>"

    def photos(self, number: int = 1) -> tuple:
        """A page of thumbnails with their tags, and which page it is."""
        if not (review := self.review):
            return [], gr.update(visible=False)
        pages = max(1, -(-len(review.paths) // PAGE))
        shown = review.page(number := min(int(number), pages))
        captions = [", ".join(review.names[column] for column, _ in review.tags(i)) or "no tag" for i in shown]
        slider = gr.update(maximum=max(pages, 2), value=number, visible=pages > 1, label=f"Page, of {pages}")
        return self.thumbnails(shown, [cut(caption, 60) for caption in captions]), slider

    def one_class(self, column: int | None, photo: int | None = None, with_map: bool = False) -> tuple:
        """All about the cut-off of a class, and a photo to judge: by default the next one."""
        review = self.review
        if not review or not review.paths or column is None:
            return (
                gr.update(interactive=False),
                "",
                "Tag photos first.",
                [],
                [],
                None,
                [self.version, None],
                gr.update(visible=False),
            )
        photo = review.next(column) if photo is None else photo
        scores, at = review.scores[:, column].tolist(), float(review.thresholds[column])

        def mark(i: int) -> str:
            return f"{scores[i]:.3f}{MARKS[review.judged.get((i, column))]}"

        above, below = (self.thumbnails(part, [mark(i) for i in part]) for part in review.around(column))
        limits = {"minimum": round(min(*scores, at) - 0.001, 3), "maximum": round(max(*scores, at) + 0.001, 3)}
        value, label = None, "All photos are judged"
        if photo is not None:
            label = f"{lossless(review.paths[photo].name)}, {mark(photo)}"
            try:
                value = self.picture(photo, column if with_map else -1)
            except ValueError as error:  # it may still be judged, and the next one is shown then
                label = message(str(error))
        picture, photo = gr.update(value=value, label=label), [self.version, photo]
        basis = f"<div class=note>{escape(review.basis(column))}</div>"
        cutoff, is_moved = gr.update(value=round(at, 4), interactive=True, **limits), column in review.by_hand
        return cutoff, histogram(review, column), basis, above, below, picture, photo, gr.update(visible=is_moved)

    def everything(self) -> tuple:
        """All parts of the page, as they are after tagging."""
        names = self.review.names if self.review else []
        classes = gr.update(choices=[(name, i) for i, name in enumerate(names)], value=0 if names else None)
        no_photo = None, gr.update(choices=[], label="Tags: click a photo"), None
        return self.status(), *self.photos(), *no_photo, classes, *self.one_class(0)

    def tag(self, choice: str, names: str, files: list[str] | None, progress: gr.Progress = gr.Progress()) -> tuple:  # noqa: B008
        """Tag what is not tagged yet."""
        key = self.chosen(choice, names)
        source = Source(*key, self.pairs)
        if self.source and source.note == self.source.note:  # of which CLIP may be loaded
            source = self.source
        uploads, unread, _ = find_images(files) if files else ([], {}, 0)
        if not (paths := [*self.paths, *uploads]):
            raise ValueError("there are no photos; drop some, or start with a folder: rcnn web PHOTOS")
        progress(0, "reading the classes")
        review = Review(paths, source, lambda done, total: progress((done, total), "tagging", unit="photos"))
        review.problems |= unread
        if before := self.reviews.get(review.identity):
            review.resume(before)
        self.key, self.source, self.review, self.version = key, source, review, self.version + 1
        self.reviews[review.identity] = review
        return self.everything()

    def chosen(self, choice: str, names: str) -> tuple[str | None, str | None]:
        """Run and class list of a choice; one's own names become a list beside the cache, named after what is in it."""
        if choice != OWN:
            return self.given if choice in self.given else (None, choice)
        folder = Path(config.override({}, self.pairs).cache).parent / "lists"
        with replace_file(path := folder / f"names-{digest(names.encode())[:8]}.txt") as file:
            file.write(names.encode())
        return None, str(path)

    def select(self, number: int, event: gr.SelectData) -> tuple:
        """A photo that was clicked, its tags, and its number."""
        photo, review = self.review.page(int(number))[event.index], self.review
        tags = [(f"{review.names[column]}  {score:.3f}", column) for column, score in review.tags(photo)]
        label = f"Tags of {lossless(review.paths[photo].name)}"
        return self.picture(photo), gr.update(choices=[("the photo alone", -1), *tags], value=-1, label=label), photo

    def photo(self, shown: Shown) -> int | None:
        """The photo to judge that the browser shows; ValueError if its tab is out of date."""
        version, photo = shown or (0, None)
        if version != self.version:
            raise ValueError("photos were tagged meanwhile, in another tab of the browser; reload this one")
        return photo

    def judge(self, present: bool, column: int, shown: Shown, with_map: bool) -> tuple:
        """A photo was accepted or rejected; the next one follows."""
        photo = self.photo(shown)
        if photo is None or column is None:
            raise ValueError("no photo is chosen; click one of those above or below")
        self.review.judge(photo, column, present)
        return self.one_class(column, None, with_map)

    def choose(self, column: int, shown: Shown) -> tuple:
        """A class was chosen."""
        self.photo(shown)
        return self.one_class(column)

    def pick(self, side: int, column: int, shown: Shown, with_map: bool, event: gr.SelectData) -> tuple:
        """A photo was clicked above the cut-off (side 0) or below it (1)."""
        self.photo(shown)
        return self.one_class(column, self.review.around(column)[side][event.index], with_map)

    def show(self, column: int, shown: Shown, with_map: bool) -> tuple:
        """The photo to judge, with or without the map."""
        return self.one_class(column, self.photo(shown), with_map)

    def move(self, column: int, cutoff: float | None, shown: Shown, with_map: bool) -> tuple:
        """A cut-off was set by hand, or None: that was taken back."""
        self.photo(shown)
        self.review.move(column, cutoff)
        return self.one_class(column, None, with_map)

    @property
    def unsaved(self) -> str:
        """Why cut-offs cannot be saved, if so."""
        if str(self.key[0]).startswith(hub.PREFIX):  # a download, which is not to be changed
            return "Cut-offs of a tagger on the hub cannot be saved; download it, and give its folder as --run."
        return ""

    def save(self) -> str:
        """Save the cut-offs of all classes; says where."""
        if not self.review:
            raise ValueError("there are no cut-offs yet; tag photos first")
        if self.unsaved:
            raise ValueError(self.unsaved)
        option = shlex.join([*(["--run", self.key[0]] if self.key[0] else ["--classes", self.key[1]]), *self.pairs])
        text = f"Saved as {self.review.save()}. Now rcnn predict PHOTOS {option} uses it."
        return f"<div class=note id=saved>{escape(message(text))}</div>"

    def blocks(self) -> gr.Blocks:
        """The page, its parts connected."""
        first, plain = next(filter(None, self.given), OWN), {"buttons": [], "interactive": False}
        grid = {"columns": 6, "allow_preview": False, "object_fit": "cover", **plain}
        with gr.Blocks(title="rcnn", analytics_enabled=False, fill_width=True) as blocks, gr.Row():
            with gr.Column(scale=1, min_width=230):
                choice = gr.Dropdown(list(dict.fromkeys([first, *VOCABULARIES, OWN])), value=first, label="Classes")
                names = gr.Textbox(lines=8, max_lines=8, label="Names, one a line", visible=first == OWN, elem_id="names")
                files = gr.File(file_count="multiple", label="More photos", height=150, elem_id="files")
                tag, status = gr.Button("Tag photos", variant="primary", elem_id="tag"), gr.HTML()
            with gr.Column(scale=5), gr.Tabs():
                with gr.Tab("Photos") as photos_tab, gr.Row():
                    with gr.Column(scale=3):
                        gallery = gr.Gallery(label="Photos", height=660, elem_id="gallery", **grid)
                        page = gr.Slider(1, 2, 1, step=1, visible=False, elem_id="page")
                    with gr.Column(scale=2):
                        picture, at = gr.Image(label="Photo", height=440, elem_id="picture", **plain), gr.State()
                        tags = gr.Radio([], label="Tags: click a photo", elem_id="tags")
                with gr.Tab("Cut-offs"), gr.Row():
                    with gr.Column(scale=3):
                        column = gr.Dropdown([], label="Class", elem_id="class")
                        basis, bars = gr.HTML(elem_id="basis"), gr.HTML()
                        cutoff = gr.Slider(-1, 1, step=0.001, label="Cut-off", interactive=False, elem_id="cutoff")
                        above = gr.Gallery(label="Just above: tagged", height=154, elem_id="above", **grid)
                        below = gr.Gallery(label="Just below: not tagged", height=154, elem_id="below", **grid)
                    with gr.Column(scale=2):
                        judged = gr.Image(label="Photo", height=440, elem_id="judged", **plain)
                        judging = gr.JSON(visible=False)  # of the browser: what a click is about, whatever is on its way
                        with gr.Row():
                            yes, no = gr.Button("Accept", elem_id="accept"), gr.Button("Reject", elem_id="reject")
                        with_map = gr.Checkbox(label="Show the map of the class", elem_id="map")
                        undo = gr.Button("Undo the cut-off set by hand", visible=False, elem_id="undo")
                        save, saved = gr.Button("Save all cut-offs", variant="primary", elem_id="save"), gr.HTML()
            of_class = [cutoff, bars, basis, above, below, judged, judging, undo]
            all_parts = [status, gallery, page, picture, tags, at, column, *of_class]

            quietly = {"show_progress": "hidden", "api_visibility": "private", "concurrency_id": "page"}  # one at a time

            def on(event: Callable, handler: Callable, inputs: object, outputs: object, **more: object) -> None:
                event(told(handler), inputs, outputs, **{**quietly, **more})

            on(blocks.load, self.everything, None, all_parts, show_progress="full")
            on(choice.input, lambda value: gr.update(visible=value == OWN), choice, names)
            full = {"show_progress": "full", "show_progress_on": gallery, "concurrency_id": "tag"}
            on(tag.click, self.tag, [choice, names, files], all_parts, **full)
            on(page.input, lambda number: self.photos(number)[0], page, gallery, trigger_mode="always_last")
            on(photos_tab.select, self.photos, page, [gallery, page])
            on(gallery.select, self.select, page, [picture, tags, at])
            on(tags.input, self.picture, [at, tags], picture, show_progress="full")
            on(column.input, self.choose, [column, judging], of_class)
            on(with_map.input, self.show, [column, judging, with_map], of_class)
            moved = [column, cutoff, judging, with_map], of_class[1:]  # without the slider, which is being moved
            on(cutoff.input, lambda *given: self.move(*given)[1:], *moved, trigger_mode="always_last")
            on(undo.click, self.move, [column, gr.State(None), judging, with_map], of_class)
            on(yes.click, self.judge, [gr.State(True), column, judging, with_map], of_class)
            on(no.click, self.judge, [gr.State(False), column, judging, with_map], of_class)
            on(above.select, self.pick, [gr.State(0), column, judging, with_map], of_class)
            on(below.select, self.pick, [gr.State(1), column, judging, with_map], of_class)
            on(save.click, self.save, None, saved)
        return blocks
