"""Look at tags and set cut-offs in the browser: `python -m rcnn.web photos/ --classes names.txt`.

The page shows photos with their tags, and where on a photo a tag comes from. For each class it shows the scores of all photos,
and the photos around the cut-off to accept or reject: cut-offs are fitted again at once, as rcnn.calibrate does, and saved
where rcnn.predict reads them. Photos and class names may also be given on the page; names become a class list in outputs/lists.
Scores are kept as by rcnn.predict: what one has tagged, the other shows. Judgements last until Ctrl-C ends the page.

Only this machine can open the page, and no other host is asked for anything but, at first use, for CLIP's weights.
Needs gradio: pip install gradio.
"""

import contextlib
import os
import sys
import tempfile
import threading

from rcnn import cli
from rcnn.collection import source_arguments
from rcnn.photos import find_images
from rcnn.printing import lossless, message


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser("web", __doc__, but=("learning", "rows"))
    parser.add_argument("images", nargs="*", metavar="PHOTOS", help="image files, folders, and key=value pairs")
    source_arguments(parser, required=False)
    args = parser.parse_intermixed_args(argv)
    places, pairs = cli.without_pairs(args.images)
    paths, problems, _ = find_images(places) if places else ([], {}, 0)
    for path, problem in sorted(problems.items()):
        print(message(f"skipped {lossless(str(path))}: {problem}"), file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="rcnn-web-") as folder:
        for name in [name for name in os.environ if name.startswith("GRADIO_")]:
            del os.environ[name]  # they could open the page, or other folders, to others
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_EXAMPLES_CACHE": folder}
        try:
            from rcnn.page import app, serve  # here, since they import gradio
        except ModuleNotFoundError as error:
            raise ValueError(f"the page needs gradio: pip install gradio ({error})") from None
        page = app.Page(paths, (args.run, args.classes), pairs).blocks()
        print(f"the page is at {serve.serve(page, app.CSS)} (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    sys.stdout.flush()
    os._exit(0)  # a thread may be tagging, and torch aborts a process that ends meanwhile


if __name__ == "__main__":
    cli.run(main)
