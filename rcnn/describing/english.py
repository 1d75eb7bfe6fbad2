"""Articles and plurals of English phrases, by spelling alone: good for most names, and no dictionary."""

import re

# vowels that are not heard as such at the beginning of a word, and letters that are
CONSONANT = re.compile(r"(?:uni(?!n|m)|us[aeu]|ut[ei]|eu|ewe|one\b|once\b|ufo)", re.IGNORECASE)
VOWEL = re.compile(r"(?:[aeiou]|hour|honest|honou?r|heir|8|11\b|18\b|(?-i:[FHLMNRSX](?:\b|[A-Z0-9])))", re.IGNORECASE)
TAIL = re.compile(r" (?:of|in|on|at|with|for|from|by|to|under|over|near|behind|before|between|and|or|full) .*")
SINGULAR = {"lens", "news", "series", "species", "gallows", "cosmos", "chaos", "yes", "always"}
IRREGULAR = {
    "man": "men", "woman": "women", "person": "people", "child": "children", "foot": "feet", "tooth": "teeth",
    "goose": "geese", "mouse": "mice", "leaf": "leaves", "wolf": "wolves", "knife": "knives", "shelf": "shelves",
    "sheep": "sheep", "deer": "deer", "fish": "fish", "aircraft": "aircraft", "police": "police",
}  # fmt: skip


def with_article(phrase: str) -> str:
    """The phrase with "a" or "an", by its sound; as it is where it is more than one, or has an article."""
    if is_plural(phrase) or re.match(r"(?:an?|the) ", phrase, re.IGNORECASE):
        return phrase
    return ("an " if VOWEL.match(phrase) and not CONSONANT.match(phrase) else "a ") + phrase


def is_plural(phrase: str) -> bool:
    """Whether a noun phrase names more than one: its last word, before "of", "in" and the like."""
    words = TAIL.sub("", phrase.lower()).split()
    last = words[-1] if words else ""
    return last in {*IRREGULAR.values()} - {*IRREGULAR} or (
        last.endswith("s") and not re.search(r"(?:ss|us|is|as|ics|'s)$", last) and len(last) > 3 and last not in SINGULAR
    )


def plural(phrase: str) -> str:
    """The plural of a noun phrase, as it is where it is one."""
    head = TAIL.sub("", phrase)
    before, space, last = head.rpartition(" ")
    if is_plural(phrase) or not last:
        return phrase
    regular = last + "es" if re.search(r"(?:s|x|z|ch|sh)$", last) else re.sub(r"(?<=[^aeiou])y$", "ie", last) + "s"
    return before + space + IRREGULAR.get(last, regular) + phrase[len(head) :]


def plural_verb(clause: str) -> str:
    """A clause about one, about more: "has a tail" -> "have a tail"."""
    first, space, rest = clause.partition(" ")
    return {"is": "are", "has": "have", "appears": "appear"}.get(first, first) + space + rest
