"""Lists of keywords in XMP files, changed at their byte positions: whatever else a file holds stays as it is, to the byte."""

import re
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

from rcnn.printing import short

MOST_ELEMENTS = 100_000
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "rcnn": "urn:rcnn:keywords/",
}
LISTS = {"dc:subject": "Bag", "lr:hierarchicalSubject": "Bag", "digiKam:TagsList": "Seq", "rcnn:added": "Bag"}  # their kinds
NAMES = {f"{NAMESPACES[prefix]} {local}": f"{prefix}:{local}" for prefix, local in (name.split(":") for name in LISTS)}
KINDS = {f"{RDF} {kind}" for kind in ("Bag", "Seq", "Alt", "li")}
EMPTY = f"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{RDF}">
 </rdf:RDF>
</x:xmpmeta>
""".encode()
TAG = re.compile(rb"<(?:[^\"'>]++|\"[^\"]*+\"|'[^']*+')*+>")


@dataclass(slots=True)
class Element:
    """An element of XML, with the positions of its first byte, of the end of its first tag, and of its own end."""

    name: str  # namespace, space, local name
    attributes: dict[str, str]
    start: int
    inner: int
    end: int = 0
    texts: list[str] = field(default_factory=list)
    children: list["Element"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts).strip()

    @property
    def items(self) -> list["Element"]:
        return [item for container in self.children for item in container.children]


def parse(data: bytes) -> Element:
    """The rdf:RDF of an XMP file; ValueError says why it is none. Entities, which only a DOCTYPE can define, are refused."""
    document = Element("", {}, 0, 0)
    opened, seen = [document], 0
    parser = expat.ParserCreate("utf-8", " ")
    parser.buffer_text, parser.buffer_size = True, len(data) or 1

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal seen
        seen += 1
        if seen > MOST_ELEMENTS:
            raise ValueError("it has more elements than an XMP file has")
        position = parser.CurrentByteIndex
        opened.append(Element(name, attributes, position, TAG.match(data, position).end()))
        opened[-2].children.append(opened[-1])

    def end(_: str) -> None:
        element = opened.pop()
        closed = data[element.inner - 2 : element.inner] == b"/>"
        element.end = element.inner if closed else TAG.match(data, parser.CurrentByteIndex).end()

    def declaration(_: str, encoding: str | None, __: int) -> None:
        if encoding and encoding.lower() != "utf-8":
            raise ValueError(f"expected UTF-8, but it is declared as {short(encoding)}")

    def doctype(*_: object) -> None:
        raise ValueError("it has a DOCTYPE, which no XMP file has")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda text: opened[-1].texts.append(text)
    parser.XmlDeclHandler, parser.StartDoctypeDeclHandler = declaration, doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is not XML in UTF-8: {error}") from None
    for element in (document.children[0], *document.children[0].children):
        if element.name == f"{RDF} RDF":
            if data.startswith(b"<rdf:RDF", element.start) and element.inner < element.end:
                return element
            raise ValueError("expected <rdf:RDF> and </rdf:RDF>, but RDF has another prefix there, or no end tag")
    raise ValueError("it is XML, but not XMP: it has no rdf:RDF")


def keywords(rdf: Element) -> dict[str, list[str]]:
    """{name of a list: its keywords, sorted}; ValueError for a list in another form than RDF's containers."""
    found: dict[str, list[str]] = {name: [] for name in LISTS}
    odd = [NAMES[key] for node in rdf.children for key in node.attributes if key in NAMES]
    for element in (element for node in rdf.children for element in node.children if element.name in NAMES):
        found[NAMES[element.name]] += [item.text for item in element.items]
        others = {part.name for part in (*element.children, *element.items)} - KINDS
        if others or element.text or element.attributes:
            odd.append(NAMES[element.name])
    if odd:
        raise ValueError(f"{odd[0]} is no rdf:Bag; edit the photo's keywords in a photo program, which repairs it")
    return {name: sorted(values) for name, values in found.items()}


def edit(data: bytes, rdf: Element, old: dict[str, set[str]], new: dict[str, list[str]]) -> bytes:
    """The file without its keywords `old`, and with `new` ones; lists and descriptions that are empty then go, too."""
    edits: list[tuple[int, int, bytes]] = []  # from, to, replacement
    new = {name: values for name, values in new.items() if values}

    def space(element: Element) -> int:
        """Where the white space before it begins."""
        position = element.start
        while data[position - 1 : position].isspace():
            position -= 1
        return position

    for node in rdf.children:
        emptied = []
        for element in node.children:
            if name := NAMES.get(element.name):
                going = [item for item in element.items if item.text in old[name]]
                if len(going) == len(element.items):
                    emptied.append(element)
                    continue
                last = element.items[-1]
                coming = b"".join(data[space(last) : last.start] + _item(value).encode() for value in new.pop(name, []))
                edits += [(last.end, last.end, coming), *((space(item), item.end, b"") for item in going)]
        whole = emptied and len(emptied) == len(node.children) and node.attributes.keys() <= {f"{RDF} about"}
        edits += [(space(element), element.end, b"") for element in ([node] if whole else emptied)]
    if new:
        position = rdf.children[-1].end if rdf.children else rdf.inner
        edits.append((position, position, _description(new)))
    pieces, position = [], 0
    for start, end, replacement in sorted(edits):
        pieces += [data[position:start], replacement]
        position = end
    return b"".join(pieces) + data[position:]


def _description(lists: dict[str, list[str]]) -> bytes:
    """An rdf:Description with these lists."""
    prefixes = dict.fromkeys(name.split(":")[0] for name in lists)
    text = "\n    ".join(['\n  <rdf:Description rdf:about=""', *(f'xmlns:{p}="{NAMESPACES[p]}"' for p in prefixes)]) + ">"
    for name, values in lists.items():
        items = "".join(f"\n     {_item(value)}" for value in values)
        text += f"\n   <{name}>\n    <rdf:{LISTS[name]}>{items}\n    </rdf:{LISTS[name]}>\n   </{name}>"
    return f"{text}\n  </rdf:Description>".encode()


def _item(keyword: str) -> str:
    return f"<rdf:li>{escape(keyword)}</rdf:li>"
