"""What people call the splits, the arrays and the classes of their images, in any usual spelling."""

import re
from collections.abc import Iterable

_SPLITS = {
    "train": "train|training|trn",
    "validation": "validation|validate|valid|vali|val|dev|development|evaluation|eval",
    "test": "test|testing|tests|tst",
}
_PLAIN = "|".join(_SPLITS.values())
_BESIDE = "images?|imgs?|pictures?|photos?|files?|data|dataset|sets?|splits?|seg|folder|my"  # train_set, images-test
_FOLDER = re.compile(rf"(?:(?:{_BESIDE})[\W_]*)?({_PLAIN})(?:[\W_]*(?:{_BESIDE}))*[\W_]*\d*", re.IGNORECASE)
_WORD = re.compile(rf"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))(?i:({_PLAIN}))(?![a-z])")  # trainA, ILSVRC2012_val
_ARRAYS = {
    "image": "images?|imgs?|x|data|arr_0",
    "label": "labels?|targets?|y|arr_1",
}
_ARRAY = re.compile(rf"(?:({_PLAIN})[\W_]*)?({'|'.join(_ARRAYS.values())}|groups?)(?:[\W_]*({_PLAIN}))?", re.IGNORECASE)


def split_of(folder: str) -> str | None:
    """train, validation or test, where a folder is called so: Train, test-images, val2017, seg_train; else None."""
    found = _FOLDER.fullmatch(folder)
    return None if found is None else _split(found[1])


def worded(folders: Iterable[str]) -> dict[str, str]:
    """{folder: split} of the folders that have a word for a split in their names, where there are several splits.

    trainA, test_a, ILSVRC2012_val, train.v2; among classes of which one alone is called so, as bullet_train, there are
    none.
    """
    found = {name: split for name in folders if (split := _word(name)) is not None}
    return found if len(set(found.values())) > 1 else {}


def array_of(name: str) -> tuple[str | None, str] | None:
    """(split or None, "image", "label" or "group") for x_train, Images, arr_1, val_labels; else None."""
    found = _ARRAY.fullmatch(name)
    if found is None or (found[1] and found[3]):
        return None
    kinds = [kind for kind, names in _ARRAYS.items() if re.fullmatch(names, found[2], re.IGNORECASE)]
    split = found[1] or found[3]
    return (_split(split) if split else None), (kinds or ["group"])[0]


def official(names: Iterable[str], split: dict[str, str]) -> dict[str, str]:
    """{split: name} for names that stand for splits, as `split` says; test is the validation split where only that is.

    Raises: ValueError for two names of one split, and where there is nothing to train on.
    """
    found: dict[str, str] = {}
    for name in names:
        if split[name] in found:
            raise ValueError(f"{found[split[name]]} and {name} are both the split {split[name]}; keep one of them")
        found[split[name]] = name
    if "train" not in found:
        raise ValueError(f"{' and '.join(found.values())} without a split to train on; add train, or rename")
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    return found


def told(found: dict[str, str]) -> str:
    """What becomes of splits that are not there; "" where all are."""
    train = found["train"]
    if "test" not in found:
        return f"no test split: a tenth of {train} is test, and a tenth validation"
    if _word(found["test"]) == "validation":
        return f"no test split: {found['test']} is used as test, and a tenth of {train} as validation"
    return "" if "validation" in found else f"no validation split: a tenth of {train} is validation"


def natural(name: str) -> tuple[list[str | int], str]:
    """A key to sort by: numbers in names by their value, so that 2 comes before 10 and class_2 before class_10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))], name


def _word(folder: str) -> str | None:
    found = _WORD.search(folder)
    return split_of(folder) or (None if found is None else _split(found[1]))


def _split(name: str) -> str:
    return next(split for split, names in _SPLITS.items() if re.fullmatch(names, name, re.IGNORECASE))
