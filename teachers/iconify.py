"""Emoji pictures of eight styles as SVG, from the icon sets that npm packages hold.

Noto Emoji, its first version, and FxEmoji (Apache-2.0), Twemoji, EmojiOne and Streamline (CC-BY 4.0), Fluent Emoji and
its flat version (MIT). What an emoji is called comes from emojibase-data and emojilib (both MIT).
"""

import json
import re
import subprocess
import tarfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path

STYLES = {
    "noto": "@iconify-json/noto@1.2.9",
    "blob": "@iconify-json/noto-v1@1.2.5",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "fluent": "@iconify-json/fluent-emoji@1.2.7",
    "flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "emojione": "@iconify-json/emojione@1.2.3",
    "fxemoji": "@iconify-json/fxemoji@1.2.2",
    "streamline": "@iconify-json/streamline-emojis@1.2.4",
}
WORDS = {"emojibase": "emojibase-data@17.0.0", "emojilib": "emojilib@4.0.3"}
TONES = {"1f3fb": "light", "1f3fc": "medium light", "1f3fd": "medium", "1f3fe": "medium dark", "1f3ff": "dark"}
PARTS = ("icons.json", "chars.json", "info.json", "en/data.json", "dist/emoji-en-US.json")


@dataclass(frozen=True, kw_only=True)
class Icon:
    """One picture: its SVG, the style and slug it has in its set, and the emoji it shows where that is known."""

    style: str
    slug: str
    svg: str
    code: str | None


@dataclass(frozen=True, kw_only=True)
class Word:
    """What an emoji is called: its name without skin tone, the skin tone, and keywords."""

    name: str
    tone: str
    keywords: tuple[str, ...]


def fetch(cache: Path, package: str) -> Path:
    """Unpack an npm package under `cache`, once, and return its folder."""
    folder = cache / re.sub(r"[@/]+", "-", package).strip("-")
    if not (folder / "package").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", "--pack-destination", folder, package]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            members = [m for m in archive.getmembers() if m.name.removeprefix("package/") in PARTS]
            archive.extractall(folder, members=members, filter="data")
    return folder / "package"


def slugged(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def plain(code: str) -> str:
    """Return a sequence of code points without variation selectors, the form in which sets can be compared."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def words(cache: Path) -> dict[str, Word]:
    """Return what every emoji is called, by its code points."""
    library = json.loads((fetch(cache, WORDS["emojilib"]) / "dist/emoji-en-US.json").read_text(encoding="utf-8"))
    more = {plain("-".join(f"{ord(c):x}" for c in sign)): terms for sign, terms in library.items()}
    found = {}
    for entry in json.loads((fetch(cache, WORDS["emojibase"]) / "en/data.json").read_text(encoding="utf-8")):
        terms = [*entry.get("tags", []), *more.get(plain(entry["hexcode"]), [])]
        keywords = tuple(dict.fromkeys(t.lower().replace("_", " ") for t in terms if re.search("[a-z]{3}", t.lower())))
        for variant in (entry, *entry.get("skins", [])):
            code = plain(variant["hexcode"])
            tones = dict.fromkeys(TONES[part] for part in code.split("-") if part in TONES)
            tone = f" with {' and '.join(tones)} skin tone" if tones else ""
            found[code] = Word(name=spoken(entry["label"]), tone=tone, keywords=keywords)
    return found


def spoken(label: str) -> str:
    """Return a label as one would say it: "flag: Chad" as "flag of chad", "man: beard" as "man with beard"."""
    label = re.sub("[\u201c\u201d]", "", label.lower()).replace("\u2019", "'").replace(": ", ":")
    for kind, joint in {"flag": " of ", "keycap": " ", "family": " of "}.items():
        label = label.replace(f"{kind}:", f"{kind}{joint}")
    return label.replace(":", " with ")


def icons(cache: Path) -> list[Icon]:
    """Return every picture of the eight sets in a fixed order, each once."""
    folders = {style: fetch(cache, package) for style, package in STYLES.items()}
    chars = {style: codes_of(folder) for style, folder in folders.items()}
    known = names_of(words(cache))
    for style in ("flat", "twemoji", "noto"):
        known |= chars[style]
    squashed = {slug.replace("-", ""): code for slug, code in known.items()}
    found = []
    for style, folder in folders.items():
        content = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
        seen = set()
        for slug, icon in sorted(content["icons"].items(), key=lambda item: (item[0] not in chars[style], item[0])):
            if icon["body"] not in seen:
                seen.add(icon["body"])
                code = chars[style].get(slug) or first(known, readings(slug)) or squashed.get(slug.replace("-", ""))
                found.append(Icon(style=style, slug=slug, svg=drawing(icon, content), code=code))
    return found


def names_of(emojis: dict[str, Word]) -> dict[str, str]:
    """Return code points by slug: names of today, and the older ones of Unicode."""
    known = {slugged(word.name.replace("flag of", "flag") + word.tone): code for code, word in reversed(emojis.items())}
    single = [code for code in emojis if "-" not in code]
    return {slugged(unicodedata.name(chr(int(code, 16)), code)): code for code in single} | known


def readings(slug: str) -> list[str]:
    """Return what a set may mean by a slug, likeliest first: some number variants, shorten tones, or say "flag for"."""
    bare = re.sub("-[0-9]$", "", slug)
    toned = re.sub("-((medium-)?(light|dark)|medium)$", r"-\1-skin-tone", slug)
    return [slug, bare, toned, re.sub("^flag-for-(flag-)?", "flag-", bare), f"flag-{bare}"]


def first(known: dict[str, str], slugs: list[str]) -> str | None:
    return next((known[slug] for slug in slugs if slug in known), None)


def codes_of(folder: Path) -> dict[str, str]:
    """Return the code points of a set's slugs, its aliases' too; empty for sets that do not tell."""
    path = folder / "chars.json"
    codes = {slug: plain(code) for code, slug in json.loads(path.read_text()).items()} if path.exists() else {}
    aliases = json.loads((folder / "icons.json").read_text(encoding="utf-8")).get("aliases", {})
    return {alias: codes[a["parent"]] for alias, a in aliases.items() if a["parent"] in codes} | codes


def drawing(icon: dict, content: dict) -> str:
    """Return an icon as a whole SVG document."""
    sizes = {key: icon.get(key, content.get(key, 16)) for key in ("width", "height")}
    left, top = icon.get("left", 0), icon.get("top", 0)
    box = f"{left} {top} {sizes['width']} {sizes['height']}"
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {space} viewBox="{box}" width="64" height="64">{icon["body"]}</svg>'
