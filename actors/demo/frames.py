"""Where the demo's pictures come from: a window moving over a photograph, or the user's own folder."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actors.demo.packages import require_packages
from actors.perception.pictures import Picture
from messages import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

PHOTOGRAPH = Path("datasets", "images", "china.jpg")
"""In the package scikit-learn, 640 x 427 pixels; by danielbuechele, CC BY 2.0."""
PHOTOGRAPH_SCALE = 1.5
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
PICTURES_MAX = 1000
PICTURE_MAX_PIXELS = 50_000_000
FRAME_MAX_PX = 640
"""A longer side of a user's picture is scaled down to this: no network of the demo sees more."""


class MovingWindow:
    """A camera that flies in a closed, smooth curve over a real photograph, and comes by the same places each lap.

    `side_px` is the side of the square window on the photograph at 960 x 640 pixels; a lap has `lap_frames` frames.
    The photograph is read at construction. Raises ConfigError where it is not installed or the window does not fit.
    Safe from any thread.
    """

    def __init__(self, side_px: int = 320, lap_frames: int = 90) -> None:
        require_packages("PIL", "sklearn")
        self.lap_frames = lap_frames
        self._side_px = side_px
        self._photograph = _read_photograph()
        height, width, _ = self._photograph.shape
        if not 16 <= side_px <= min(height, width) or lap_frames < 1:
            raise ConfigError(
                f"moving window: expected side_px from 16 to {min(height, width)} and lap_frames from 1,"
                f" found {side_px} and {lap_frames}"
            )

    def read(self, frame_id: int) -> Picture:
        x, y = self.corner(frame_id)
        return self._photograph[y : y + self._side_px, x : x + self._side_px]

    def corner(self, frame_id: int) -> tuple[int, int]:
        """Where the window's upper left corner is, in pixels of the photograph."""
        height, width, _ = self._photograph.shape
        angle = 2.0 * math.pi * frame_id / self.lap_frames
        across, down = (1.0 - math.cos(angle)) / 2.0, (1.0 + math.sin(angle)) / 2.0
        return round(across * (width - self._side_px)), round(down * (height - self._side_px))


class FolderFrames:
    """The user's own pictures in the order of their names, again and again; each at most 640 pixels long.

    `folder` holds 1 to 1,000 JPEG or PNG files of any size up to 50 megapixels; other files are passed over. Raises
    ConfigError where that is not so, naming the folder or the picture; what only decoding shows, `read` raises.
    """

    def __init__(self, folder: str) -> None:
        require_packages("PIL")
        self._pictures = _list_pictures(Path(folder))
        self.lap_frames = len(self._pictures)
        for picture in self._pictures:
            _open_picture(picture).close()

    def read(self, frame_id: int) -> Picture:
        return _decode_picture(self._pictures[frame_id % len(self._pictures)])

    def check(self) -> None:
        """Decode every picture once, before a flight depends on it. Takes some 20 ms a picture."""
        for picture in self._pictures:
            _decode_picture(picture)


def open_frames(folder: str = "") -> MovingWindow | FolderFrames:
    """The user's pictures where a folder is named, the photograph elsewhere."""
    return FolderFrames(folder) if folder else MovingWindow()


class MapTiles:
    """What a map would know of the area: `count` pictures of places along the lap, evenly spaced.

    Of the user's pictures where a folder is named. Raises as `FolderFrames` and `MovingWindow` do.
    """

    def __init__(self, folder: str = "", count: int = 10) -> None:
        self._source = open_frames(folder)
        self._count = count

    def read(self, frame_id: int) -> Picture:
        return self._source.read(frame_id * self._source.lap_frames // self._count)


def _read_photograph() -> Picture:
    from PIL import Image

    # find_spec looks without importing: scikit-learn takes a second to import, and only its photograph is wanted.
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ConfigError("the demo's photograph: expected the package scikit-learn, found it not installed")
    picture = _open_picture(Path(package.origin).parent / PHOTOGRAPH)
    with picture:
        size = (round(picture.width * PHOTOGRAPH_SCALE), round(picture.height * PHOTOGRAPH_SCALE))
        return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))


def _list_pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"frames {folder}: expected a folder with pictures, found {_kind(folder)}")
    try:
        pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    except OSError as error:
        raise ConfigError(f"frames {folder}: expected a readable folder: {error.strerror}") from error
    if not 1 <= len(pictures) <= PICTURES_MAX:
        raise ConfigError(
            f"frames {folder}: expected 1 to {PICTURES_MAX} pictures ({', '.join(PICTURE_SUFFIXES)}),"
            f" found {len(pictures)}"
        )
    return pictures


def _open_picture(path: Path) -> Image:
    """Only the header is read."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(path, formats=("JPEG", "PNG"))
    except (OSError, SyntaxError, ValueError) as error:
        found = "something else" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ConfigError(f"picture {path}: expected a JPEG or PNG picture, found {found}") from error
    except Image.DecompressionBombError as error:
        raise ConfigError(f"picture {path}: expected at most {PICTURE_MAX_PIXELS} pixels: {error}") from error
    if picture.width * picture.height > PICTURE_MAX_PIXELS:
        picture.close()
        raise ConfigError(
            f"picture {path}: expected at most {PICTURE_MAX_PIXELS} pixels, found {picture.width} x {picture.height}"
        )
    return picture


def _decode_picture(path: Path) -> Picture:
    from PIL import ImageOps

    with _open_picture(path) as picture:
        try:
            picture.draft("RGB", (FRAME_MAX_PX, FRAME_MAX_PX))
            upright = ImageOps.exif_transpose(picture).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError(f"picture {path}: expected a whole picture, found {error}") from error
        upright.thumbnail((FRAME_MAX_PX, FRAME_MAX_PX))
        return np.asarray(upright)


def _kind(path: Path) -> str:
    return "a file" if path.exists() else "nothing there"
