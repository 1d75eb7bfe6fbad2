"""Machine tags in XMP sidecars: merged, renewed and removed, while the keywords and bytes of others stay."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile import at_once, irregular
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from rcnn.tagging.sidecars import hierarchy, plan

ROOT = Path(__file__).parents[1]
DOG, CAR, CAT = ("animal", "dog"), ("vehicle", "car"), ("animal", "cat")
NAMESPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
}
KEYWORDS = """
   <dc:subject>
    <rdf:Bag>
     <rdf:li>beach</rdf:li>
     <rdf:li>dog</rdf:li>
    </rdf:Bag>
   </dc:subject>"""
# a packet with all that a serialiser would change: a byte order mark, attributes on lines of their own and in single quotes,
# references, comments, CDATA, white space in tags, and padding at the end
PACKET = """\ufeff<?xpacket begin="\ufeff" id='W5M0MpCehiHzreSzNTczkc9d'?>
<!-- a person's -->
<x:xmpmeta xmlns:x='adobe:ns:meta/'   x:xmptk="Adobe XMP Core 7.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about='' xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
   xmp:Rating="5"
   xmp:Label='a &gt; "b" > c&#xA;d' >KEYWORDS
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default"><![CDATA[<Rex> & co]]></rdf:li></rdf:Alt></dc:title >
   <!-- <dc:subject> -->
  </rdf:Description>
  <rdf:Description rdf:about="" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" crs:Exposure="+0.5"/>
 </rdf:RDF>
</x:xmpmeta>
                                        \r
<?xpacket end="w"?>"""


@pytest.fixture
def photo(tmp_path):
    return tmp_path / "photo.jpg"


def sidecar(photo):
    return photo.with_name("photo.jpg.xmp")


def put(photo, text):
    sidecar(photo).write_bytes(text.encode() if isinstance(text, str) else text)
    return sidecar(photo).read_bytes()


def tag(photo, *tags, prefix="rcnn"):
    """Write the tags, and check what holds of every change: what is planned is written, and once more changes nothing."""
    change = plan(photo, tags, prefix)
    change.write()
    assert (sidecar(photo).read_bytes() if sidecar(photo).exists() else None) == change.after
    again = plan(photo, tags, prefix)
    assert (again.before, again.lines(), again.added, again.removed) == (again.after, [], (), ())
    return change


def read(photo, name):
    """The keywords of a property, as another parser reads them; sorted."""
    tree = etree.parse(sidecar(photo), etree.XMLParser(resolve_entities=False, no_network=True))
    return sorted(tree.xpath(f"//{name}/*/rdf:li/text()", namespaces=NAMESPACES))


def test_tags_become_plain_and_hierarchical_keywords_of_a_new_sidecar_which_disappears_with_them(photo):
    change = tag(photo, DOG, CAR)
    assert change.path == sidecar(photo)
    assert read(photo, "dc:subject") == ["car", "dog"]
    assert read(photo, "lr:hierarchicalSubject") == ["rcnn|animal|dog", "rcnn|vehicle|car"]
    assert read(photo, "digiKam:TagsList") == ["rcnn/animal/dog", "rcnn/vehicle/car"]
    tag(photo)
    assert list(photo.parent.iterdir()) == []


def test_a_tag_without_a_broader_kind_is_right_under_the_prefix(photo):
    tag(photo, ("dog",))
    assert (read(photo, "dc:subject"), read(photo, "lr:hierarchicalSubject")) == (["dog"], ["rcnn|dog"])


def test_the_suffix_is_replaced_on_request(photo):
    assert plan(photo, [DOG], "rcnn", replace_suffix=True).path == photo.with_name("photo.xmp")


def test_a_photo_without_tags_and_without_a_sidecar_gets_none(photo):
    tag(photo)
    assert list(photo.parent.iterdir()) == []


@pytest.mark.parametrize("keywords", ["", KEYWORDS, KEYWORDS.replace("\n", "").replace("Bag", "Seq")])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_others_wrote_stays_to_the_byte_and_removing_restores_the_file(photo, keywords, newline):
    before = put(photo, PACKET.replace("KEYWORDS", keywords).replace("\n", newline))
    tag(photo, DOG, CAR, CAT)
    after = sidecar(photo).read_bytes()
    assert read(photo, "dc:subject") == sorted({"dog", "car", "cat"} | ({"beach"} if keywords else set()))
    lines = iter(after.splitlines())
    assert all(line in lines for line in before.splitlines() if b"subject" not in line)  # in this order, others between them
    tag(photo, CAR)
    tag(photo)
    assert sidecar(photo).read_bytes() == before


def test_the_same_tags_again_do_not_touch_the_file(photo):
    tag(photo, DOG, CAR)
    os.utime(sidecar(photo), ns=(0, 0))
    inode = sidecar(photo).stat().st_ino
    change = plan(photo, [CAR, DOG], "rcnn")
    change.write()
    assert change.lines() == []
    assert (sidecar(photo).stat().st_mtime_ns, sidecar(photo).stat().st_ino) == (0, inode)


def test_a_keyword_that_a_person_had_before_stays_when_the_machine_says_the_same_and_when_its_tags_go(photo):
    before = put(photo, PACKET.replace("KEYWORDS", KEYWORDS))
    change = tag(photo, DOG)
    assert change.added == ("rcnn|animal|dog",)
    assert read(photo, "dc:subject") == ["beach", "dog"]
    tag(photo, CAR)
    assert read(photo, "dc:subject") == ["beach", "car", "dog"]
    tag(photo)
    assert sidecar(photo).read_bytes() == before


def test_a_hierarchical_keyword_of_a_person_is_kept_even_under_the_prefix(photo):
    tag(photo, DOG, CAR)
    begin = "<lr:hierarchicalSubject>\n    <rdf:Bag>"
    text = sidecar(photo).read_text()
    put(photo, text.replace(begin, begin + "<rdf:li>Pets|dog|Rex</rdf:li><rdf:li>rcnn|mine</rdf:li>"))
    tag(photo)
    assert read(photo, "lr:hierarchicalSubject") == ["Pets|dog|Rex", "rcnn|mine"]
    assert read(photo, "dc:subject") == []
    assert read(photo, "digiKam:TagsList") == []


@pytest.mark.parametrize("own", ["lr:hierarchicalSubject", "digiKam:TagsList"])
def test_a_tag_that_a_person_wrote_under_the_prefix_is_theirs_and_not_there_twice(photo, own):
    tag(photo, DOG)
    written = "rcnn|animal|cat" if own == "lr:hierarchicalSubject" else "rcnn/animal/cat"
    text = sidecar(photo).read_text()
    start, end = text.split(f"<{own}>")
    put(photo, f"{start}<{own}>{end.replace('<rdf:li>', f'<rdf:li>{written}</rdf:li><rdf:li>', 1)}")
    tag(photo, DOG, CAT)
    assert read(photo, own).count(written) == 1
    tag(photo)
    assert read(photo, own) == [written]


def test_renewing_with_fewer_and_other_tags_takes_only_the_machine_s_away(photo):
    put(photo, PACKET.replace("KEYWORDS", KEYWORDS))
    tag(photo, DOG, CAR)
    change = tag(photo, CAT)
    assert (change.added, change.removed) == (("cat", "rcnn|animal|cat"), ("car", "rcnn|animal|dog", "rcnn|vehicle|car"))
    assert read(photo, "digiKam:TagsList") == ["rcnn/animal/cat"]


def test_another_broader_kind_moves_the_tag(photo):
    tag(photo, DOG)
    tag(photo, ("mammal", "dog"))
    assert read(photo, "lr:hierarchicalSubject") == ["rcnn|mammal|dog"]
    assert read(photo, "dc:subject") == ["dog"]


@pytest.mark.parametrize(
    "gone", ["<rdf:li>dog</rdf:li>", "<rdf:li>rcnn|animal|dog</rdf:li>", "<rdf:li>rcnn/animal/dog</rdf:li>"]
)
def test_a_tag_that_a_person_deleted_in_any_program_does_not_come_back_until_the_tags_were_removed(photo, gone):
    tag(photo, DOG, CAR)
    text = sidecar(photo).read_text()
    sidecar(photo).write_text(text.replace(gone, "", 1))
    for tags in ([DOG, CAR], [CAR], [DOG, CAR], [("mammal", "dog"), CAR]):
        tag(photo, *tags)
        assert read(photo, "lr:hierarchicalSubject") == ["rcnn|vehicle|car"]
        assert read(photo, "digiKam:TagsList") == ["rcnn/vehicle/car"]
        assert read(photo, "dc:subject") == ["car"]
    tag(photo)
    tag(photo, DOG)
    assert read(photo, "lr:hierarchicalSubject") == ["rcnn|animal|dog"]


def test_keywords_count_as_a_person_s_where_another_program_dropped_the_list_of_what_was_added(photo):
    tag(photo, DOG)
    text = sidecar(photo).read_text()
    start, end = text.index("<rcnn:added>"), text.index("</rcnn:added>") + len("</rcnn:added>")
    before = put(photo, text[:start] + text[end:])
    tag(photo, DOG)
    tag(photo)
    assert sidecar(photo).read_bytes() == before


def test_two_prefixes_do_not_disturb_each_other(photo):
    tag(photo, DOG, CAR, prefix="pets")
    only = sidecar(photo).read_bytes()
    tag(photo, DOG, CAT, prefix="all")
    assert read(photo, "dc:subject") == ["car", "cat", "dog"]
    tag(photo, prefix="all")
    assert sidecar(photo).read_bytes() == only
    tag(photo, DOG, CAT, prefix="all")
    put(photo, sidecar(photo).read_text().replace("<rdf:li>car</rdf:li>", "", 1))
    tag(photo, DOG, CAT, prefix="all")
    assert read(photo, "dc:subject") == ["cat", "dog"]
    tag(photo, prefix="pets")
    assert (read(photo, "dc:subject"), read(photo, "digiKam:TagsList")) == (
        ["cat", "dog"],
        ["all/animal/cat", "all/animal/dog"],
    )
    tag(photo, prefix="all")
    assert not sidecar(photo).exists()


def test_a_description_that_holds_only_the_lists_and_a_file_without_descriptions_are_merged(photo):
    text = PACKET.replace("KEYWORDS", "")
    before = put(photo, text[: text.index("  <rdf:Description")] + text[text.index(" </rdf:RDF>") :])
    tag(photo, DOG)
    tag(photo)
    assert sidecar(photo).read_bytes() == before


@pytest.mark.parametrize(
    "empty", ["<dc:subject/>", "<dc:subject><rdf:Bag/></dc:subject>", "<dc:subject>\n<rdf:Bag>\n</rdf:Bag></dc:subject>"]
)
def test_an_empty_list_is_replaced_and_never_there_twice(photo, empty):
    put(photo, PACKET.replace("KEYWORDS", empty))
    tag(photo, DOG)
    assert sidecar(photo).read_bytes().count(b"<dc:subject>\n    <rdf:Bag>\n     <rdf:li>dog") == 1
    assert read(photo, "dc:subject") == ["dog"]
    tag(photo)
    assert sidecar(photo).read_bytes() == PACKET.replace("KEYWORDS", "").encode()


def test_a_description_that_gets_empty_stays_if_it_has_properties_as_attributes(photo):
    description = '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="film">'
    others = PACKET.replace("KEYWORDS", "").split("  <rdf:Description")
    put(photo, f"{others[0]}{description}<dc:subject/></rdf:Description>  <rdf:Description{others[2]}")
    tag(photo, DOG)
    tag(photo)
    assert f"{description}</rdf:Description>" in sidecar(photo).read_text()


def test_elements_as_deep_as_they_may_be_are_read(photo):
    put(photo, PACKET.replace("KEYWORDS", "<dc:a>" * 99_000 + "</dc:a>" * 99_000))
    assert plan(photo, [], "rcnn").lines() == []


def test_thousands_of_keywords_are_merged_at_once(photo):
    items = "".join(f"<rdf:li>rcnn|{i}</rdf:li><rdf:li>{i}</rdf:li>" for i in range(8_000))
    listed = f'<a:added xmlns:a="urn:rcnn:keywords/"><rdf:Bag>{items}</rdf:Bag></a:added>'
    put(photo, PACKET.replace("KEYWORDS", f"{listed}<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>"))
    with at_once():
        tag(photo, DOG)
        tag(photo)
    assert (len(read(photo, "dc:subject")), b"urn:rcnn" in sidecar(photo).read_bytes()) == (8_000, False)


def test_characters_that_xml_or_the_hierarchy_reserve_are_escaped_or_replaced(photo):
    tag(photo, ("a|b/c", "x & <y> \"z'"), ("Tiere", "Hündin\x00\n\ud800犬"), prefix="by|machine")
    assert read(photo, "dc:subject") == ["Hündin 犬", "x & <y> \"z'"]
    assert read(photo, "lr:hierarchicalSubject") == ["by-machine|Tiere|Hündin 犬", "by-machine|a-b-c|x & <y> \"z'"]
    assert read(photo, "digiKam:TagsList") == ["by-machine/Tiere/Hündin 犬", "by-machine/a-b-c/x & <y> \"z'"]
    tag(photo, prefix="by|machine")
    assert not sidecar(photo).exists()
    for tags, prefix in (([(" \x01",)], "rcnn"), ([DOG], "\n")):
        with pytest.raises(ValueError, match="a keyword needs characters that can be seen"):
            plan(photo, tags, prefix)


def test_a_dry_run_shows_the_keywords_that_come_and_go_and_writes_nothing(photo):
    put(photo, PACKET.replace("KEYWORDS", KEYWORDS))
    tag(photo, CAR)
    before = sidecar(photo).read_bytes()
    name = str(sidecar(photo))
    assert plan(photo, [CAT], "rcnn").lines() == [name, "  - car", "  - rcnn|vehicle|car", "  + cat", "  + rcnn|animal|cat"]
    assert sidecar(photo).read_bytes() == before


WORDS = st.sampled_from(["dog", "cat", "car", "Zoo & <x>", "犬"])
PATHS = st.lists(st.tuples(st.sampled_from(["animal", "vehicle"]), WORDS), max_size=4)


@settings(max_examples=100, deadline=None)
@given(st.lists(WORDS, max_size=4), st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=3), st.lists(PATHS, max_size=4))
def test_any_tags_in_turn_keep_a_person_s_keywords_and_removing_them_restores_the_file(tmp_path_factory, plain, own, turns):
    photo = tmp_path_factory.mktemp("sidecar") / "photo.jpg"
    escaped = {"Zoo & <x>": "Zoo &amp; &lt;x>"}
    items = "".join(f"\n\t<rdf:li>{escaped.get(word, word)}</rdf:li>" for word in plain)
    paths = "".join(f"<rdf:li >{'|'.join(escaped.get(word, word) for word in path)}</rdf:li>" for path in own)
    keywords = f"<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>" if items else ""
    lists = (
        f'<a:hierarchicalSubject xmlns:a="{NAMESPACES["lr"]}"><rdf:Bag>{paths}</rdf:Bag></a:hierarchicalSubject>'
        if paths
        else ""
    )
    before = put(photo, PACKET.replace("KEYWORDS", keywords + lists))
    for tags in turns:
        tag(photo, *tags)
        assert set(read(photo, "dc:subject")) == set(plain) | {name for _, name in tags}
        assert [k for k in read(photo, "lr:hierarchicalSubject") if not k.startswith("rcnn|")] == sorted(map("|".join, own))
        assert set(read(photo, "digiKam:TagsList")) == {f"rcnn/{kind}/{name}" for kind, name in tags}
    tag(photo)
    assert sidecar(photo).read_bytes() == before


def test_exiftool_reads_and_rewrites_the_sidecar_and_what_it_rewrote_is_merged_again(photo):
    if shutil.which("exiftool") is None:
        pytest.skip("ExifTool is not installed")

    def exiftool(*arguments):
        return subprocess.run(["exiftool", *arguments, sidecar(photo)], capture_output=True, text=True, check=True).stdout

    names = ["-j", "-validate", "-XMP-dc:Subject", "-XMP-lr:HierarchicalSubject", "-XMP-digiKam:TagsList", "-XMP-xmp:Rating"]
    put(photo, PACKET.replace("KEYWORDS", KEYWORDS).replace("<![CDATA[<Rex> & co]]>", "Rex")[1:])  # it knows no CDATA
    tag(photo, DOG, ("Tier & <Co>", "Kätzchen"))
    (found,) = json.loads(exiftool(*names))
    assert found == {
        "SourceFile": str(sidecar(photo)),
        "Validate": "OK",
        "Subject": ["beach", "dog", "Kätzchen"],
        "HierarchicalSubject": ["rcnn|animal|dog", "rcnn|Tier & <Co>|Kätzchen"],
        "TagsList": ["rcnn/animal/dog", "rcnn/Tier & <Co>/Kätzchen"],
        "Rating": 5,
    }
    exiftool("-overwrite_original", "-XMP-dc:Subject+=by hand", "-XMP-xmp:Rating=3")
    tag(photo, CAT)
    (found,) = json.loads(exiftool(*names))
    assert sorted(found["Subject"]) == ["beach", "by hand", "cat", "dog"]
    assert (found["HierarchicalSubject"], found["TagsList"], found["Rating"]) == ("rcnn|animal|cat", "rcnn/animal/cat", 3)
    tag(photo)
    (found,) = json.loads(exiftool(*names))
    assert found.keys() == {"SourceFile", "Validate", "Subject", "Rating"}


RDF = '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">%s</r:RDF>'
ENTITIES = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is not XML in UTF-8: no element found"),
        ("no XML", "it is not XML in UTF-8: syntax error"),
        (PACKET[:500], "it is not XML in UTF-8: no element found|unclosed token"),
        (b"\xff\xd8\xff\xe0 a photo", "it is not XML in UTF-8"),
        (PACKET.encode("utf-16"), "it is not XML in UTF-8"),
        ("<a>\xe9</a>".encode("latin-1"), "it is not XML in UTF-8"),
        ("<?xml version='1.0' encoding='latin-1'?><a/>", "expected UTF-8, but it is declared as 'latin-1'"),
        ("<html><body/></html>", "it is XML, but not XMP: it has no rdf:RDF"),
        (ENTITIES + RDF % "&b;", "it has a DOCTYPE"),
        ("<a>" * 1_000_000, "it has more elements than an XMP file has"),
        (RDF % ("<a/>" * 110_000), "it has more elements than an XMP file has"),
        ("<a>" + " " * (1 << 24), "has more than 16,777,216 bytes"),
        (PACKET.replace("KEYWORDS", "<dc:subject>dog</dc:subject>"), "dc:subject is no rdf:Bag; edit the photo's keywords"),
        (PACKET.replace("KEYWORDS", '<dc:subject rdf:resource="urn:dog"/>'), "dc:subject is no rdf:Bag"),
        (PACKET.replace("xmp:Rating=", "dc:subject="), "dc:subject is no rdf:Bag; edit the photo's keywords"),
        (RDF % "", "RDF has another prefix there"),
        (PACKET.replace("rdf:RDF xm", "rdf:RDF/><rdf:RDF xm"), "it is not XML in UTF-8: unbound prefix"),
        (f'<rdf:RDF xmlns:rdf="{NAMESPACES["rdf"]}"/>', "or no end tag"),
        (
            PACKET.replace(
                "KEYWORDS",
                KEYWORDS.replace("dog", "cow")
                .replace("rdf:", "r:")
                .replace("<r:Bag", f'<r:Bag xmlns:r="{NAMESPACES["rdf"]}" xmlns:rdf="urn:other"'),
            ),
            "dc:subject is no rdf:Bag",
        ),
    ],
    ids=range(19),
)
def test_what_is_no_xmp_that_can_be_changed_is_one_clear_line_with_its_name_and_stays(photo, content, message):
    before = put(photo, content)
    with at_once(), pytest.raises(ValueError, match=rf"{sidecar(photo)}\b.*({message})") as error:
        plan(photo, [DOG], "rcnn")
    assert "\n" not in str(error.value)
    assert sidecar(photo).read_bytes() == before
    assert list(photo.parent.iterdir()) == [sidecar(photo)]


def test_a_pipe_a_folder_and_a_link_in_the_place_of_a_sidecar_are_named(photo):
    (photo.parent / "elsewhere").write_bytes(b"")
    pipe, folder, _ = irregular(photo.parent, "x")
    for source in (pipe, folder):
        source.rename(sidecar(photo))
        with at_once(), pytest.raises(ValueError, match=r"photo\.jpg\.xmp is not a regular file"):
            plan(photo, [DOG], "rcnn")
        sidecar(photo).rename(source)
    for target in ("elsewhere", "nowhere"):
        sidecar(photo).symlink_to(photo.parent / target)
        with pytest.raises(ValueError, match=r"photo\.jpg\.xmp is a symbolic link"):
            plan(photo, [DOG], "rcnn")
        sidecar(photo).unlink()


def test_a_read_only_sidecar_is_left_alone_and_the_permissions_of_another_stay(photo):
    before = put(photo, PACKET.replace("KEYWORDS", KEYWORDS))
    sidecar(photo).chmod(0o444)
    with pytest.raises(ValueError, match=r"photo\.jpg\.xmp is read-only"):
        plan(photo, [DOG], "rcnn").write()
    assert sidecar(photo).read_bytes() == before
    sidecar(photo).chmod(0o640)
    tag(photo, DOG)
    assert sidecar(photo).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("was_there", [True, False])
def test_a_sidecar_that_another_program_writes_meanwhile_is_not_overwritten(photo, was_there):
    if was_there:
        put(photo, PACKET.replace("KEYWORDS", KEYWORDS))
    change = plan(photo, [DOG], "rcnn")
    theirs = put(photo, PACKET.replace("KEYWORDS", ""))
    with pytest.raises(ValueError, match=r"photo\.jpg\.xmp was changed by another program meanwhile"):
        change.write()
    assert sidecar(photo).read_bytes() == theirs


def test_a_full_disk_leaves_the_sidecar_as_it_was_and_names_it(photo):
    before = put(photo, PACKET.replace("KEYWORDS", KEYWORDS))
    program = f"""
import pathlib, resource
from rcnn.tagging.sidecars import plan
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a disk that is full: files of more bytes cannot be written
try:
    plan(pathlib.Path({str(photo)!r}), [("animal", "dog")], "rcnn").write()
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"[Errno 27] File too large: {str(sidecar(photo))!r}\n"
    assert sidecar(photo).read_bytes() == before
    assert list(photo.parent.iterdir()) == [sidecar(photo)]


def test_a_process_killed_at_any_moment_leaves_every_sidecar_as_it_was_or_whole(tmp_path):
    before = PACKET.replace("KEYWORDS", KEYWORDS).encode()
    photos = [tmp_path / f"{i}.jpg" for i in range(50)]
    for photo in photos:
        photo.with_name(photo.name + ".xmp").write_bytes(before)
    after = plan(photos[0], [DOG, CAR], "rcnn").after
    program = f"""
import pathlib
from rcnn.tagging.sidecars import plan
print("begins", flush=True)
while True:
    for i in range(50):
        for tags in ([("animal", "dog"), ("vehicle", "car")], []):
            plan(pathlib.Path({str(tmp_path)!r}, f"{{i}}.jpg"), tags, "rcnn").write()
"""
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(random.uniform(0.05, 0.2))
            process.kill()
        assert process.returncode == -9
        for photo in photos:
            assert photo.with_name(photo.name + ".xmp").read_bytes() in (before, after)
            plan(photo, [], "rcnn").write()
            assert photo.with_name(photo.name + ".xmp").read_bytes() == before


def test_the_hierarchy_is_the_broader_kind_that_most_classes_share_and_of_equals_the_broadest(tmp_path):
    def about(**broader):
        described = {"narrower": [], "attributes": [], "scenes": []}
        classes = {name: {"name": name, "broader": kinds, **described} for name, kinds in broader.items()}
        (tmp_path / "corpus.about.json").write_text(json.dumps({"classes": classes}))
        return hierarchy(tmp_path / "corpus.json")

    assert hierarchy(tmp_path / "corpus.json") == {}
    found = about(dog=["canine", "animal", "being"], cat=["feline", "animal"], car=["motor vehicle", "vehicle"], blue=[])
    assert found == {"dog": ("animal",), "cat": ("animal",), "car": ("vehicle",), "blue": ()}
    shipped = hierarchy(ROOT / "data" / "coco" / "corpus.json")
    assert (shipped["car"], shipped["horse"], shipped["pizza"]) == (("vehicle",), ("animal",), ("food",))
