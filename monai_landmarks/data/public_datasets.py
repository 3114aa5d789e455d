# Copyright (c) monai_landmarks contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""Public benchmarks of landmark localization: what they hold, whose they are, and which of their files are read here.

Nothing of them is part of this package. A licence is stated as its owners state it; where they do not, that is said. Read the
owners' terms before you download anything.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PUBLIC_DATASETS", "PublicDataset", "public_dataset"]


@dataclass(frozen=True)
class PublicDataset:
    """A public benchmark.

    Args:
        name: short, such as ``isbi2015``.
        title: what it is called.
        images: what the images are, and how many.
        landmarks: in each image; the largest number where it differs.
        licence: as its owners state it.
        citation: what to cite.
        sources: where to get images and landmarks.
        layout: of the official files.
        read_by: what in this package reads them.
        parts: images in each official part; several numbers where it may be either.
        remarks: what one has to know.
    """

    name: str
    title: str
    images: str
    landmarks: int
    licence: str
    citation: tuple[str, ...]
    sources: tuple[str, ...]
    layout: str
    read_by: str
    parts: dict[str, tuple[int, ...]]
    remarks: str = ""


_ISBI2015 = PublicDataset(
    name="isbi2015",
    title="ISBI 2015 cephalograms",
    images="400 lateral cephalograms, 1935 x 2400 pixels of 0.1 mm, each annotated by two doctors",
    landmarks=19,
    licence="none stated; its authors make it available to the research community",
    citation=(
        "Wang CW et al., IEEE Transactions on Medical Imaging 34(9), 2015, doi:10.1109/TMI.2015.2412951",
        "Wang CW et al., Medical Image Analysis 31, 2016, doi:10.1016/j.media.2016.02.004",
        "Lindner C et al., Scientific Reports 6, 2016, doi:10.1038/srep33581",
    ),
    sources=("https://figshare.com/s/37ec464af8e81ae6ebbf",),
    layout="RawImage/{TrainingData,Test1Data,Test2Data}/*.bmp and AnnotationsByMD/{400_senior,400_junior}/*.txt",
    read_by="isbi2015_datalist; format isbi2015 of the annotations",
    parts={"training": (150,), "testing": (150,), "test2": (100,)},
    remarks="Except in test2 the doctors follow different definitions of the soft tissue pogonion; say whose points are the"
    " truth.",
)

_HAND = PublicDataset(
    name="hand",
    title="Digital Hand Atlas",
    images="1400 left-hand radiographs, of which 910 are annotated and 895 are in the folds",
    landmarks=37,
    licence="images offered for research by their owners; landmarks in a repository under GPL-3.0",
    citation=(
        "Gertych A et al., Computerized Medical Imaging and Graphics 31(4-5), 2007, PMC1978493 (the images)",
        "Payer C et al., Medical Image Analysis 54, 2019, doi:10.1016/j.media.2019.03.007 (landmarks and folds)",
    ),
    sources=(
        "https://ipilab.org/BAAweb/",
        "https://github.com/christianpayer/MedicalDataAugmentationTool-HeatmapRegression (hand_xray)",
    ),
    layout="all.csv and cv/set{1,2,3}/{train,test}.txt of the repository, and the images, named by their numbers",
    read_by="format payer of all.csv",
    parts={
        "all.csv": (895, 910),
        "set1 train": (597,),
        "set1 test": (298,),
        "set2 train": (597,),
        "set2 test": (298,),
        "set3 train": (596,),
        "set3 test": (299,),
    },
    remarks="No image knows its pixel size: by convention landmarks 1 and 5 of each image, counted from 0, are 50 mm apart;"
    " some papers take 0 and 4, which makes the same errors look smaller.",
)

_AASCE = PublicDataset(
    name="aasce",
    title="AASCE 2019 spine radiographs (BoostNet, SpineWeb data set 16)",
    images="609 frontal spine radiographs of unknown pixel size, each with three Cobb angles",
    landmarks=68,
    licence="released for research by its owners; no licence is known that covers other uses",
    citation=(
        "Wu H et al., MICCAI 2017, doi:10.1007/978-3-319-66182-7_15",
        "Wang L et al., Medical Image Analysis 72, 2021, doi:10.1016/j.media.2021.102115",
    ),
    sources=("https://aasce19.github.io/",),
    layout="boostnet_labeldata/data/{training,test}/*.jpg and labels/{training,test}/{filenames,landmarks,angles}.csv",
    read_by="aasce_datalist; format aasce of landmarks.csv",
    parts={"training": (481,), "testing": (128,)},
    remarks="Some annotations cannot be right; aasce_datalist corrects or leaves them out, and says so.",
)

_AFIDS = PublicDataset(
    name="afids",
    title="AFIDs, anatomical fiducials of the brain",
    images="132 T1-weighted MR volumes in four collections",
    landmarks=32,
    licence="landmarks CC BY 4.0; images of LHSCPD and SNSX CC BY 4.0, those of HCP and OASIS under their data use agreements",
    citation=(
        "Taha A et al., Scientific Data, 2023, doi:10.1038/s41597-023-02330-9",
        "Lau JC et al., Human Brain Mapping 40, 2019, doi:10.1002/hbm.24693",
    ),
    sources=("https://github.com/afids/afids-data",),
    layout="data/datasets/<collection>/derivatives/afids_groundtruth/sub-*/anat/*.fcsv beside <collection>/sub-*/anat/*.nii.gz",
    read_by="format afids of the .fcsv files",
    parts={"AFIDs-HCP": (30,), "AFIDs-OASIS": (30,), "LHSCPD": (40,), "SNSX": (32,)},
    remarks="Images come by datalad; one that was not fetched is a link to nothing.",
)

_VERSE = PublicDataset(
    name="verse",
    title="VerSe, vertebrae in CT",
    images="374 CT volumes of 355 patients, with the centroids of the vertebrae that are fully seen",
    landmarks=28,
    licence="CC BY-SA 4.0; the volumes sub-gl* are said to be under CC BY-NC-ND",
    citation=(
        "Sekuboyina A et al., Medical Image Analysis 73, 2021, doi:10.1016/j.media.2021.102166",
        "Löffler M et al., Radiology: Artificial Intelligence, 2020, doi:10.1148/ryai.2020190138",
        "Liebl H, Schinz D et al., Scientific Data, 2021, doi:10.1038/s41597-021-01060-0",
    ),
    sources=("https://github.com/anjany/verse", "https://osf.io/nqjyw/", "https://osf.io/t98fz/"),
    layout="dataset-<part>/rawdata/sub-*/*_ct.nii.gz and dataset-<part>/derivatives/sub-*/*_ctd.json, the structure by subject",
    read_by="verse_datalist; format verse of the centroids, with their image; the challenge's own files (iso-ctd) are refused",
    parts={
        "verse19training": (80,),
        "verse19validation": (40,),
        "verse19test": (40,),
        "verse20training": (61,),
        "verse20validation": (73, 80),
        "verse20test": (73, 80),
    },
    remarks="VerSe'20 by subject leaves out what is in VerSe'19. Of its last two parts one has 73 volumes and the other 80.",
)

_MML = PublicDataset(
    name="mml",
    title="Mandibular molar landmarks",
    images="658 CT volumes by their parts; their authors also speak of 648",
    landmarks=14,
    licence="none stated for the data",
    citation=("Toward Robust Landmark Detection with Anchor Ball Regression Model on CT Volumes, Sichuan University",),
    sources=("https://github.com/ithet1007/mmld_code",),
    layout="mmld_dataset/{train,val,test}/*_volume.nrrd, *_label.npy, *_spacing.npy",
    read_by="format mml of the *_label.npy files; volumes need the extra itk",
    parts={"train": (458,), "val": (100,), "test": (100,)},
    remarks="A molar may be absent, and then its landmarks. The spacing is in *_spacing.npy.",
)

PUBLIC_DATASETS: dict[str, PublicDataset] = {
    dataset.name: dataset for dataset in (_ISBI2015, _HAND, _AASCE, _AFIDS, _VERSE, _MML)
}


def public_dataset(name: str) -> PublicDataset:
    """A benchmark by its short name.

    Raises:
        ValueError: if there is none of this name.

    Example:
        >>> public_dataset("aasce").landmarks
        68
    """
    if name not in PUBLIC_DATASETS:
        raise ValueError(f"there is no data set {name!r}; known are {', '.join(PUBLIC_DATASETS)}.")
    return PUBLIC_DATASETS[name]
