"""The official archives of COCO 2014, downloaded and unpacked into one folder."""

from pathlib import Path

from data.archives import fetch, unpack_zip
from data.builder import move_complete, work_folder

# 13.5 GB, 6.6 GB and 0.3 GB; MD5 as published.
ARCHIVES = {
    "http://images.cocodataset.org/zips/train2014.zip": "0da8c0bd3d6becc4dcb32757491aca88",
    "http://images.cocodataset.org/zips/val2014.zip": "a3d79f5ed8d289b7a7554ce06a5782b3",
    "http://images.cocodataset.org/annotations/annotations_trainval2014.zip": "0a379cfc70b0e71301e0f377548639bd",
}
PREFIXES = ("train2014/", "val2014/", "annotations/instances_")
BY_HAND = f"download {', '.join(ARCHIVES)} by other means, unpack all in one folder and give it as data.root"


def download_coco(cache: Path) -> Path:
    """Folder `cache`/COCO2014 with `train2014/`, `val2014/` and `annotations/`; downloaded when not there.

    Raises:
        UserError: an archive cannot be fetched or is not the published one.
    """
    folder = cache / "COCO2014"
    if not folder.is_dir():
        archives = [fetch(url, cache, md5=md5, by_hand=BY_HAND) for url, md5 in ARCHIVES.items()]
        with work_folder(folder) as work:
            for archive in archives:
                unpack_zip(archive, work / "COCO2014", PREFIXES)
            move_complete(work / "COCO2014", folder)
    return folder
