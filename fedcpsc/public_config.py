# SPDX-License-Identifier: Apache-2.0
"""The section of a run's configuration that names the server's own unlabelled pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedcpsc.silo_config import Background, Resize
from fedcpsc.typed_yaml import Positive, Strict

__all__ = ["PublicConfig"]


class PublicConfig(Strict):
    """The server's own unlabelled pictures, a source of query images; a run that draws from it is not free of all data.

    Whether they are the silos' own pictures nobody can see; labels, where there are any, are not read.
    """

    path: Annotated[str, Field(min_length=1)] = Field(
        description="place of the pictures on the server's machine: a folder of picture files (of its folder train/ alone, where it has one), or a parquet file or a folder with train.parquet"
    )
    source: Literal["folder", "parquet"] = Field(
        "folder",
        description="folder: picture files, also in folders below; parquet: rows of images as Hugging Face's hub has them",
    )
    image_column: str = Field("image", description="parquet: the column of images")
    limit: Positive | None = Field(
        None, description="use only so many pictures, drawn by the seed; null: as many as fit into 512 MiB decoded"
    )
    resize: Resize = Field(
        "squash",
        description="way in which pictures are brought to the proportions of the silos' images, as data.resize: squash, crop or pad",
    )
    background: Background = Field(
        "white", description="colour behind what is transparent in a picture, as data.background"
    )
    skip_damaged: bool = Field(
        False,
        description="leave out pictures that cannot be decoded, and say how many; false: they are an error that names them",
    )
    augment: bool = Field(
        True,
        description="make new candidates in every round: random crops, mirror images, mild changes of tone and colour; false: ask about each picture at most once, as it is",
    )
