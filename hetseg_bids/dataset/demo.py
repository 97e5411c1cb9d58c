"""A one-subject BIDS dataset from an image that every install has."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from hetseg_bids.config import BIDS_VERSION
from hetseg_bids.errors import DatasetError
from hetseg_bids.files import atomic_path, write_json, write_text

_MNI152 = "data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def write_demo_dataset(bids_dir: Path) -> Path:
    """Write the MNI152 2009a T1w (1 mm, skull-stripped) as ``sub-mni152``.

    Parameters
    ----------
    bids_dir : Path

    Returns
    -------
    bids_dir : Path

    Raises
    ------
    DatasetError
        If nilearn came without the template.
    """
    template = resources.files("nilearn.datasets").joinpath(_MNI152)
    if not template.is_file():
        raise DatasetError("the installed nilearn has no MNI152 2009a T1w", "install nilearn 0.14")
    target = bids_dir / "sub-mni152" / "anat" / "sub-mni152_T1w.nii.gz"
    with atomic_path(target) as temporary:
        temporary.write_bytes(template.read_bytes())
    write_json(
        bids_dir / "dataset_description.json",
        {
            "Name": "MNI152 2009a symmetric T1w template",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "Authors": ["McConnell Brain Imaging Centre, Montreal Neurological Institute"],
            "HowToAcknowledge": "Fonov et al. 2011, NeuroImage 54:313-327",
        },
    )
    write_text(bids_dir / "README", "One T1w image, written by `hetseg demo`.\n")
    return bids_dir
