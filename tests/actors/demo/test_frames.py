"""Pictures: a window over a real photograph, the user's own folder, and a clear refusal of anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actors.demo import frames
from actors.demo.frames import FolderFrames, MapTiles, MovingWindow
from actors.demo.packages import require_packages
from messages import ConfigError

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of different kinds and sizes, named against the order in which they are written."""
    Image.new("RGB", (300, 200), (0, 0, 255)).save(tmp_path / "c.png")
    Image.new("L", (2000, 1000), 128).save(tmp_path / "b.JPG", format="JPEG")
    Image.new("RGBA", (50, 80), (255, 0, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


class TestMovingWindow:
    def test_a_frame_is_a_real_picture_of_the_asked_size(self, camera: MovingWindow) -> None:
        picture = camera.read(0)
        assert picture.shape == (320, 320, 3)
        assert picture.dtype == np.dtype(np.uint8)
        assert len(np.unique(picture)) > 200

    def test_the_path_is_smooth_closed_and_stays_on_the_photograph(self, camera: MovingWindow) -> None:
        corners = np.array([camera.corner(frame_id) for frame_id in range(camera.lap_frames + 1)])
        np.testing.assert_array_equal(corners[0], corners[-1])
        assert np.linalg.norm(np.diff(corners, axis=0), axis=1).max() < 32  # a tenth of the window
        assert all(camera.read(frame_id).shape == (320, 320, 3) for frame_id in range(0, 90, 5))
        assert len({tuple(corner) for corner in corners.tolist()}) > 80

    def test_the_next_lap_and_a_life_far_ahead_see_the_same_places(self, camera: MovingWindow) -> None:
        np.testing.assert_array_equal(camera.read(7), camera.read(7 + 90))
        assert camera.read(1_000_007).shape == (320, 320, 3)

    def test_no_consumer_can_write_into_the_photograph(self, camera: MovingWindow) -> None:
        assert not camera.read(0).flags.writeable

    @pytest.mark.parametrize("options", [{"side_px": 0}, {"side_px": 641}, {"lap_frames": 0}])
    def test_a_window_that_does_not_fit_is_refused(self, options: dict[str, int]) -> None:
        pytest.importorskip("sklearn")
        with pytest.raises(ConfigError, match="side_px from 16 to 640 and lap_frames from 1"):
            MovingWindow(**options)

    def test_the_tiles_of_the_map_are_places_along_the_lap(self, camera: MovingWindow) -> None:
        pytest.importorskip("sklearn")
        np.testing.assert_array_equal(MapTiles().read(3), camera.read(27))


class TestFolderFrames:
    def test_pictures_come_in_the_order_of_their_names_and_again_from_the_start(self, folder: Path) -> None:
        source = FolderFrames(str(folder))
        source.check()
        assert [source.read(frame_id).shape for frame_id in range(4)] == [
            (80, 50, 3),
            (320, 640, 3),
            (200, 300, 3),
            (80, 50, 3),
        ]
        assert source.read(2)[0, 0].tolist() == [0, 0, 255]

    def test_a_picture_taken_sideways_is_turned_upright(self, tmp_path: Path) -> None:
        picture = Image.new("RGB", (60, 40))
        turned = Image.Exif()
        turned[0x0112] = 6
        picture.save(tmp_path / "a.jpg", exif=turned)
        assert FolderFrames(str(tmp_path)).read(0).shape == (60, 40, 3)

    def test_fewer_pictures_than_tiles_are_used_again(self, folder: Path) -> None:
        tiles = MapTiles(str(folder))
        assert len({tiles.read(tile).shape for tile in range(10)}) == 3

    def test_a_missing_folder_is_refused_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no-such: expected a folder with pictures, found nothing there"):
            FolderFrames(str(tmp_path / "no-such"))

    def test_a_file_in_place_of_the_folder_is_refused(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="expected a folder with pictures, found a file"):
            FolderFrames(str(folder / "notes.txt"))

    def test_a_folder_without_pictures_is_refused_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"expected 1 to 1000 pictures .*found 0"):
            FolderFrames(str(tmp_path))

    def test_more_pictures_than_the_bound_are_refused(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(frames, "PICTURES_MAX", 2)
        with pytest.raises(ConfigError, match="found 3"):
            FolderFrames(str(folder))

    def test_a_file_that_only_claims_to_be_a_picture_is_refused_by_name(self, folder: Path) -> None:
        (folder / "d.jpg").write_text("no picture")
        with pytest.raises(ConfigError, match=r"d\.jpg: expected a JPEG or PNG picture, found something else"):
            FolderFrames(str(folder))

    def test_a_folder_named_like_a_picture_is_refused_by_name(self, folder: Path) -> None:
        (folder / "d.png").mkdir()
        with pytest.raises(ConfigError, match=r"d\.png: expected a JPEG or PNG picture"):
            FolderFrames(str(folder))

    @pytest.mark.parametrize("suffix", ["jpg", "png"])
    def test_a_picture_cut_off_is_refused_by_name_before_the_flight(self, tmp_path: Path, suffix: str) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
        whole = tmp_path / f"cut.{suffix}"
        Image.fromarray(noise).save(whole)
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        source = FolderFrames(str(tmp_path))
        with pytest.raises(ConfigError, match=rf"cut\.{suffix}: expected a whole picture"):
            source.check()

    def test_a_picture_over_the_bound_is_refused_by_its_header(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(frames, "PICTURE_MAX_PIXELS", 1_000_000)
        with pytest.raises(ConfigError, match=r"b\.JPG: expected at most 1000000 pixels, found 2000 x 1000"):
            FolderFrames(str(folder))

    def test_a_picture_that_would_fill_the_memory_is_refused(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)
        with pytest.raises(ConfigError, match=r"b\.JPG: expected at most .* pixels"):
            FolderFrames(str(folder))


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.demo.packages.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs pillow and scikit-learn.*extra demo"):
        require_packages("PIL", "sklearn")
