"""All commands as one: `rcnn train …` is the same as `python -m rcnn.train …`."""

import difflib
import importlib
import sys

from rcnn import interrupt

COMMANDS = {
    "describe": "describe classes by a language model",
    "train": "learn class names from their descriptions, and measure them",
    "evaluate": "measure a run, or continue a measurement",
    "report": "the paper's tables with ours beside",
    "figure": "the paper's figures 3 to 5, and of epochs and classes",
    "sweep": "learn and measure many runs that differ in some keys",
    "predict": "tag images with the classes of a run, or with a list of names",
    "web": "look at tags and set their cut-offs in the browser",
    "calibrate": "fit the cut-offs of tags to some checked photos",
    "export": "a run as files to publish, or as ONNX",
    "data": "what a configuration needs, and what of it is there",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command that the first argument names."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name not in (*COMMANDS, "-h", "--help"):
        nearest = difflib.get_close_matches(name, COMMANDS, 1, 0)[0]
        print(f"error: there is no command {name}; the nearest is {nearest}, and rcnn --help lists all", file=sys.stderr)
        return 2
    interrupt.one_line()
    from rcnn import cli  # here, so that Ctrl-C while it is imported is one line, too

    if name not in COMMANDS:
        commands = "\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items())
        cli.run(lambda: print(f"usage: rcnn COMMAND …\n\n{commands}\n\nrcnn COMMAND --help explains one."))
    command = importlib.import_module(f"rcnn.{name}")
    cli.run(lambda: command.main(rest))


if __name__ == "__main__":
    sys.exit(main())
