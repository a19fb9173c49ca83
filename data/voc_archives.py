"""The official archives of PASCAL VOC 2012 and SBD, downloaded and joined into one devkit folder."""

from pathlib import Path

from data.archives import fetch, unpack_tar
from data.builder import move_complete, work_folder

# 2.0 GB and 1.4 GB.
VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
SBD_URL = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"
VOC_MD5 = "6cd6e144f989b92b3379bac3b3de84fd"
SBD_MD5 = "82b4d87ceb2ed10f6038a1cba92111cb"
BY_HAND = (
    f"download {VOC_URL} and {SBD_URL} by other means, unpack both, move benchmark_RELEASE into VOCdevkit/VOC2012 "
    "and give that folder as data.root"
)


def download_devkit(cache: Path) -> Path:
    """Folder `cache`/VOC2012 with VOC's files and, in `benchmark_RELEASE/`, SBD's; downloaded when not there.

    Raises:
        UserError: an archive cannot be fetched or is not the published one.
    """
    devkit = cache / "VOC2012"
    if not devkit.is_dir():
        voc = fetch(VOC_URL, cache, md5=VOC_MD5, by_hand=BY_HAND)
        sbd = fetch(SBD_URL, cache, md5=SBD_MD5, by_hand=BY_HAND)
        with work_folder(devkit) as work:
            unpack_tar(voc, work, ("VOCdevkit/VOC2012/",))
            unpack_tar(sbd, work / "VOCdevkit/VOC2012", ("benchmark_RELEASE/dataset/cls/",))
            move_complete(work / "VOCdevkit/VOC2012", devkit)
    return devkit
