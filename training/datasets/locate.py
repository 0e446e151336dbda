"""Where a dataset's files lie, and what to say when they do not."""

from __future__ import annotations

import os
from pathlib import Path

from training.errors import DataError

_ASEN = (
    "meta.json (here or in the parent folder), filenames_{train,valid,test}.txt, label_train.txt, "
    "query_{valid,test}.txt and candidate_{valid,test}.txt"
)
SOURCES = {
    "catalogue": (
        "labels.csv (columns: image, optional split and item, then one per attribute)",
        "A catalogue is your own folder of images with a labels.csv.",
    ),
    "darn": (
        f"{_ASEN}; pic/<dir>/<a>_<b>_<c>.jpg",
        "The label files circulate with the ASEN and ASEN++ projects (Ma et al., AAAI 2020); the "
        "images come from the authors of DARN (Huang et al., ICCV 2015).",
    ),
    "deepfashion": (
        "Anno_coarse/ or Anno/: list_attr_cloth.txt, list_attr_img.txt, list_category_cloth.txt, "
        "list_category_img.txt (list_bbox.txt, list_landmarks.txt); Eval/list_eval_partition.txt; "
        "Img/img/ or img/; or, without Anno, the ASEN files filenames_*, label_*, query_*, "
        "candidate_*.txt; or Anno_fine/ alone: list_attr_cloth.txt, list_category_cloth.txt and "
        "{train,val,test}.txt with _attr.txt and _cate.txt",
        "DeepFashion, Category and Attribute Prediction Benchmark, from the project page of the "
        "Multimedia Laboratory, CUHK (Liu et al., CVPR 2016); its ASEN files from ASEN's project.",
    ),
    "fashionai": (
        f"the ASEN files: {_ASEN}; or the raw form: Annotations/label.csv and Images/ (also one "
        "folder deeper)",
        "FashionAI attributes, from the FashionAI Global Challenge 2018 of Alibaba Tianchi; its "
        "ASEN files from ASEN's project (Ma et al., AAAI 2020).",
    ),
}
"""Adapter name -> the files that it expects, and where the dataset is to be had."""


def expected(name: str) -> str:
    """The part of a message that says which files adapter `name` expects and where to get them."""
    return "expected files: {}. {}".format(*SOURCES[name])


def find_root(name: str, root: Path | None = None) -> Path:
    """The folder of dataset `name`: `root`, else `$RETRIEVE_DATA/<name>`, else `data/<name>`.

    The name of a folder is matched whatever its case (`DARN` serves `darn`). DataError, which says
    where the dataset is to be had, if there is no such folder.
    """
    if root is not None:
        if root.is_dir():
            return root
        raise DataError(f"{root} is not a folder; {expected(name)}")
    bases = [Path(os.environ["RETRIEVE_DATA"])] if os.environ.get("RETRIEVE_DATA") else []
    bases.append(Path("data"))
    for base in bases:
        folders = sorted(p for p in base.iterdir() if p.is_dir()) if base.is_dir() else []
        matching = [p for p in folders if p.name.casefold() == name.casefold()]
        exact = [p for p in matching if p.name == name]
        if matching:
            return (exact or matching)[0]
    tried = " and ".join(str(base / name) for base in bases)
    raise DataError(
        f"dataset {name!r} is not here: looked for {tried}. Say where it is with --root FOLDER or "
        f"$RETRIEVE_DATA (a folder that holds {name}/); {expected(name)}"
    )
