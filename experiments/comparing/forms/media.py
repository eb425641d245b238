"""Pictures and films of the groups side by side: of one seed and, as nearly as there are, at the same frames or images.

A block is a plain mapping, for the page and for report.json:
  title, task: text
  items: [{group, name, seed, caption, src, file}], `name` what is shown of the group (with its protocol where it has
    several), `src` a place in the report's folder or a data: URI, `file` where it lies in the run
  notes: what is missing, unlike or left out, in lines
A block may have notes alone. The last one says what `media_limit` left out of all of them.
Grids of samples have the real images in front, where the run's data lie on this machine and are quick to read.
"""

import base64
import collections
import contextlib
import dataclasses
import errno
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from core import files
from experiments.comparing import report, scoring
from experiments.comparing.forms import writing
from experiments.config import build, saved

Mode = Literal["beside", "inside", "none"]
FOLDER = "media"  # in the report's folder
_KINDS = {".png": "image/png", ".mp4": "video/mp4", ".gif": "image/gif"}
_FILE = re.compile(r"(.+)-(\d+)\.(png|mp4|gif)")  # as `core.record` names them: <name>-<frames or images>
_SMALL = 300_000_000  # bytes of a file of images that is read for the real ones


@dataclasses.dataclass(frozen=True)
class _Shown:
    """One picture or film, still in its run."""

    member: scoring.Member
    x: int  # frames or images
    path: Path


def blocks(found: report.Report, out: Path, mode: Mode, *, limit: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Copies (`beside`) or encodes (`inside`) what is to be seen: the blocks, and what it cost or left out in lines.

    Beside, files go into `out`/media/. Files beyond `limit` bytes are left out.
    """
    if mode == "none":
        return [], []
    made, store = [], _Store(out, mode, limit)
    by_task = collections.defaultdict[str, list[scoring.Member]](list)
    for member in found.members:
        by_task[member.task].append(member)
    for task, members in by_task.items():
        kept = {member.folder: _files(member.folder) for member in members}
        names = {name for own in kept.values() for name in own}
        for name in sorted(names, key=lambda name: (name != "samples", name)):
            made.append(_block(task, name, members, kept, store))
    if beyond := store.beyond():
        made.append({"title": "Left out", "task": "", "items": [], "notes": [beyond]})
    return made, store.told()


def links(made: Sequence[Mapping[str, Any]]) -> str:
    """The blocks in Markdown: what lies beside the page, and all notes."""
    lines = []
    for block in made:
        shown = [item for item in block["items"] if not item["src"].startswith("data:")]
        lines += ["", f"## {writing.escaped(block['title'])}", ""] if shown or block["notes"] else []
        for item in shown:
            text = writing.escaped(f"{item['name']}: {item['caption']}")
            lines += [f"- {text}", "", f"  {'!' * item['src'].endswith('.png')}[{text}]({item['src']})"]
        lines += [f"- {writing.escaped(note)}" for note in block["notes"]]
    return "\n".join(lines) + "\n" if lines else ""


def content(made: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The blocks for report.json, without what lies inside the page."""
    bare = lambda item: {name: value for name, value in item.items() if not str(value).startswith("data:")}
    return [{**block, "items": [bare(item) for item in block["items"]]} for block in made]


def remove(out: Path, made: Any) -> None:
    """Deletes the files that `made`, the blocks of an earlier report.json, names in `out`, and nothing else."""
    with contextlib.suppress(KeyError, AttributeError, TypeError):
        for block in made:
            for item in block["items"]:
                if re.fullmatch(rf"{FOLDER}/[0-9]{{4,}}-[A-Za-z0-9-]*\.(png|mp4|gif)", src := item.get("src", "")):
                    (out / src).unlink(missing_ok=True)


def _files(folder: Path) -> dict[str, dict[int, Path]]:
    """A run's pictures and films: name -> frames or images -> file; of a film as MP4 and GIF the MP4."""
    found = collections.defaultdict[str, dict[int, Path]](dict)
    for place, _, names in os.walk(folder / "media"):
        for file in sorted(names):
            path = Path(place) / file
            if match := _FILE.fullmatch(path.relative_to(folder / "media").as_posix()):
                name, x = match[1], int(match[2])
                if path.suffix != ".gif" or x not in found[name]:
                    found[name][x] = path
    return found


def _block(
    task: str,
    name: str,
    members: Sequence[scoring.Member],
    kept: Mapping[Path, Mapping[str, Mapping[int, Path]]],
    store: "_Store",
) -> dict[str, Any]:
    """One name's pictures of all groups on one task."""
    there = [member for member in members if name in kept[member.folder]]
    groups = collections.defaultdict[tuple[str, str], list[scoring.Member]](list)
    for member in there:
        groups[member.group, member.pool].append(member)
    seeds = collections.Counter(seed for own in groups.values() for seed in {str(member.seed) for member in own})
    seed = seeds.most_common(1)[0][0]
    chosen = [next((m for m in own if str(m.seed) == seed), own[0]) for own in groups.values()]
    at = [kept[member.folder][name] for member in chosen]
    common = set[int].intersection(*map(set, at))
    target = max(common) if common else min(map(max, at))
    shown = [
        _Shown(member, x := min(own, key=lambda x: (abs(x - target), -x)), own[x])
        for member, own in zip(chosen, at, strict=True)
    ]
    unlike = len({member.group for member in chosen}) < len(chosen)
    without = {member.group for member in members} - {group for group, _ in groups}
    notes = [f"{group}: has none" for group in dict.fromkeys(m.group for m in members) if group in without]
    notes += [f"{each.member.group}: has none of seed {seed}" for each in shown if str(each.member.seed) != seed]
    if not common:
        notes.append(f"there are none at the same {chosen[0].unit} in all groups: the nearest are shown")
    items = list(_real(chosen[0], name, store, notes))
    for each in shown:
        group, more = each.member.group, f" (protocol {each.member.pool})" * unlike
        caption = f"seed {each.member.seed}, {each.x:,} {each.member.unit}"
        items += store.add(each.path, group=group, more=more, seed=each.member.seed, caption=caption, notes=notes)
    return {"title": f"{task}: {name}", "task": task, "items": items, "notes": notes}


class _Store:
    """Takes files in, up to a number of bytes."""

    def __init__(self, out: Path, mode: Mode, limit: int):
        self._out, self._mode, self._limit = out, mode, limit
        self._bytes, self._count, self._left = 0, 0, list[int]()

    def add(
        self,
        source: Path | bytes,
        *,
        group: str,
        more: str = "",
        seed: Any,
        caption: str,
        notes: list[str],
        plain: str = "",
    ) -> list[dict[str, Any]]:
        """One item, or none where the file is left out. `more` stands behind the group's name."""
        suffix, name = ".png" if isinstance(source, bytes) else source.suffix, group + more
        try:
            content, size = self._read(source)
            if content is None:
                self._left.append(size)
                notes.append(f"{name}: left out, as all files together may have {self._limit:,} bytes (media_limit)")
                return []
            if not _is_whole(content, suffix):
                notes.append(f"{name}: {source}: is no {suffix[1:].upper()}, or is cut short")
                return []
            src = self._place(content, suffix, plain or f"{Path(str(source)).stem}-{name}")
        except OSError as error:
            notes.append(f"{name}: {source}: {error.strerror}")
            return []
        self._bytes, self._count = self._bytes + size, self._count + 1
        file = "" if isinstance(source, bytes) else str(source)
        return [{"group": group, "name": name, "seed": seed, "caption": caption, "src": src, "file": file}]

    def _read(self, source: Path | bytes) -> tuple[bytes | None, int]:
        """What the file holds, None if there is no room for it, and the bytes that it takes here."""
        beside, left = self._mode == "beside", self._limit - self._bytes
        room = left if beside else left // 4 * 3
        try:
            content = source if isinstance(source, bytes) else files.read(source, most=room)
            size = len(content)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            content, size = None, Path(str(source)).stat().st_size
        return content if size <= room else None, size if beside else 4 * -(-size // 3)

    def _place(self, content: bytes, suffix: str, name: str) -> str:
        if self._mode == "inside":
            return f"data:{_KINDS[suffix]};base64,{base64.b64encode(content).decode()}"
        plain = re.sub("[^A-Za-z0-9]+", "-", name).strip("-")[:80]
        src = f"{FOLDER}/{self._count:04}-{plain}{suffix}"
        (self._out / FOLDER).mkdir(parents=True, exist_ok=True)
        (self._out / src).write_bytes(content)
        return src

    def told(self) -> list[str]:
        where = f"in {self._out / FOLDER}" if self._mode == "beside" else "inside the page"
        lines = [f"media: {self._count} files, {self._bytes:,} bytes {where}"] if self._count else []
        return [*lines, f"media: {beyond}"] if (beyond := self.beyond()) else lines

    def beyond(self) -> str:
        """What is left out; empty if nothing is."""
        if not self._left:
            return ""
        size = f"{len(self._left)} files of {sum(self._left):,} bytes"
        return f"{size} are left out: all together may have {self._limit:,}; media_limit=<bytes> takes more"


def _is_whole(content: bytes, suffix: str) -> bool:
    """Whether it begins, and a PNG or GIF also ends, as its kind does."""
    if suffix == ".png":
        return content.startswith(b"\x89PNG\r\n\x1a\n") and content.rstrip(b"\0")[-12:-4].endswith(b"IEND")
    return content[4:8] == b"ftyp" if suffix == ".mp4" else content[:4] == b"GIF8" and content.endswith(b";")


def _real(member: scoring.Member, name: str, store: _Store, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The real images laid out as the run's grid of samples."""
    if name != "samples" or member.unit != "images":
        return
    from core import media  # here, as agents need none of it

    try:
        config, protocol = saved.read(member.folder)
        node = next(
            n for n in saved.nodes(config["evaluators"]) if n.get("_target_") == "generative.evaluation.Samples"
        )
        samples = build.objects(node, "evaluators.samples")
        if problem := _far(samples.data):
            notes.append(f"no real images: {problem}")
            return
        learner = config["learner"]  # as `generative.drawing.classes` has it
        conditional = learner.get("conditional", False) or learner.get("label_dropout", 1) < 1
        buffer = io.BytesIO()
        media.write_png(buffer, samples.real(len(protocol.get("class_counts", ())) if conditional else 0))
    except Exception as error:  # of data that moved, settings of other versions
        notes.append(f"no real images: {error}".partition("\n")[0])
        return
    caption = f"from the data of {member.folder.name}"
    yield from store.add(buffer.getvalue(), group="real images", seed=None, caption=caption, notes=notes, plain="real")


def _far(data: Any) -> str:
    """Why these data are not read for a look: not here, or large; empty if they are."""
    from core.images import datasets, download

    if isinstance(data, datasets.Digits | datasets.Mnist5k):
        return ""
    if isinstance(data, datasets.Npz):
        size = Path(data.path).stat().st_size
        return "" if size <= _SMALL else f"{data.path} has {size:,} bytes, of which {_SMALL:,} at most are read"
    if isinstance(data, datasets.Idx | datasets.Cifar10):
        name = data.name if isinstance(data, datasets.Idx) else "cifar10"
        known, kept = download.KNOWN[name], download.folder(name)
        here = data.folder or (known.installed and Path(known.installed).is_dir())
        return "" if here or all((kept / file).exists() for file in known.files) else f"{known.title} is not here"
    return f"reading {type(data).__name__} takes long" if data is not None else "the run names no data for them"
