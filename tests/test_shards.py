"""Sharded data sets: made from an ImageFolder, whole or not at all, and what is said of sources that are none."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Icbench
from photos import tiny_registered, write_photo, write_photos
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from icbench import catalog, diagnosis
from icbench.data import imagefolder, shards, store
from icbench.data.imagefolder import resized
from icbench.data.prepare import prepare
from icbench.errors import UserError
from icbench.locks import Lock
from icbench.work import builder

SIDE = 40


@pytest.fixture(autouse=True)
def _tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with tiny_registered(tmp_path_factory.mktemp("module")):
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A directory with `tiny`, prepared, of several shards."""
    folder = tmp_path_factory.mktemp("data")
    with tiny_registered(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROWS", 20)
        told: list[str] = []
        assert prepare("tiny", photos, folder, told.append) == folder / "tiny" / "manifest.json"
        assert told[1].startswith("resizing 48 training and 12 test images to ")
    return folder


def rows(data: Path, split: str) -> pd.DataFrame:
    """All rows of a split's shards, as pandas reads them."""
    return pd.concat(map(pd.read_feather, sorted((data / "tiny").glob(f"{split}-*.arrow"))), ignore_index=True)


def test_labels_and_order_are_image_folders(data: Path, photos: Path) -> None:
    manifest = shards.read_manifest("tiny", data / "tiny")
    assert [shard.rows for shard in manifest.train] == [20, 20, 8]
    for split, folder in (("train", "train"), ("test", "val")):
        theirs = ImageFolder(photos / folder)
        assert list(manifest.classes) == theirs.classes
        expected = [(str(Path(file).relative_to(photos / folder)), label) for file, label in theirs.samples]
        ours = list(rows(data, split)[["source", "label"]].itertuples(index=False, name=None))
        assert sorted(ours) == sorted(expected)
        assert (ours == expected) == (split == "test")
        located = shards.locate(data / "tiny", getattr(manifest, split))
        assert located.labels.tolist() == [label for _, label in ours]
    # Neighbours are of any class.
    assert all(len(set(part["label"])) > 2 for _, part in rows(data, "train").groupby(lambda row: row // 16))


def test_images_are_resized_as_torchvision_does_it(data: Path, photos: Path) -> None:
    resize = transforms.Resize(SIDE)
    kept = 0
    for split, folder in (("train", "train"), ("test", "val")):
        for content, source in rows(data, split)[["image", "source"]].itertuples(index=False):
            with Image.open(photos / folder / source) as original, Image.open(io.BytesIO(content)) as stored:
                assert (stored.format, stored.mode) == ("JPEG", "RGB")
                resize(original.convert("RGB")).save(expected := io.BytesIO(), "JPEG", quality=90)
                if (original.format, original.mode, min(original.size)) == ("JPEG", "RGB", SIDE):
                    assert content == (photos / folder / source).read_bytes()
                    kept += 1
                else:
                    assert content == expected.getvalue()
    assert kept == 4 * (2 + 1)


def test_each_image_is_where_it_is_said_to_be(data: Path) -> None:
    images, _ = store.locate("tiny", data, "test")
    expected = rows(data, "train")["image"]
    for file, begin, length, content in zip(images.file, images.begin, images.length, expected, strict=True):
        assert images.files[file].read_bytes()[begin : begin + length] == content
    last = int(images.row[-1])
    assert shards.source_of(images.files[-1], last) == rows(data, "train")["source"].iloc[-1]


def test_the_held_out_split_is_that_of_other_data_sets(data: Path) -> None:
    images, _ = store.locate("tiny", data, "test")
    train, held_out = store.locate("tiny", data, "heldout")
    arrays = {"x_train": np.arange(48), "y_train": images.labels}
    x, y, x_held, y_held = store.split(arrays, "heldout")
    for part, index, labels in ((train, x, y), (held_out, x_held, y_held)):
        assert part.labels.tolist() == labels.tolist()
        assert part.begin.tolist() == images.begin[index].tolist()
    assert store.train_count("tiny", data, "heldout") == len(x) == 44
    assert store.train_count("tiny", data, "test") == 48


def test_a_damaged_image_is_named_and_nothing_is_left(photos: Path, tmp_path: Path) -> None:
    source = shutil.copytree(photos, tmp_path / "photos")
    damaged = source / "val" / "n10" / "n10_1.JPEG"
    damaged.write_bytes(b"no image at all")
    why = "it is no image that Pillow knows"
    with pytest.raises(UserError, match=rf"val/n10/n10_1.JPEG: this image cannot be packed: {why}. Fetch it again"):
        prepare("tiny", source, tmp_path / "data", lambda _: None)
    assert list((tmp_path / "data").iterdir()) == []


def test_all_damaged_images_are_found(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever shard they are; at most twenty are named. One is too long for a JPEG, once it is resized."""
    monkeypatch.setattr(shards, "ROWS", 20)
    source = shutil.copytree(photos, tmp_path / "photos")
    damaged = [source / "train" / "n02" / f"n02_{number}.JPEG" for number in range(11)]
    damaged += [source / "train" / "n10" / f"n10_{number}.JPEG" for number in range(11)]
    for file in damaged:
        file.write_bytes(b"no image at all")
    Image.new("RGB", (4000, 1)).save(long := source / "train" / "n02" / "n02_0.JPEG", "JPEG")
    told: list[str] = []
    with pytest.raises(UserError) as caught:
        prepare("tiny", source, tmp_path / "data", told.append)
    first, *named, more, remedy = str(caught.value).splitlines()
    assert (first, more, remedy) == ("22 images cannot be packed:", "and 2 more.", "Fetch them again.")
    assert [line.partition(": ")[0] for line in named] == sorted(map(str, damaged))[:20]
    why = "of 160000 x 40 pixels, once it is resized, it is too long for a JPEG."
    assert named[0] == f"{long}: {why}"
    assert named[1].endswith(": it is no image that Pillow knows.")
    assert sum("The others are tried too" in line for line in told) == 1
    assert list((tmp_path / "data").iterdir()) == []


def test_hidden_files_and_folders_are_none(photos: Path, tmp_path: Path) -> None:
    source = shutil.copytree(photos, tmp_path / "photos")
    for folder in (source / "train", source / "val" / "n03"):
        (folder / ".hidden").mkdir()
        (folder / ".hidden" / "a.png").write_bytes(b"no image")
    (source / "val" / "n03" / "._n03_0.JPEG").write_bytes(b"no image")
    train, test = imagefolder.find(source, "")
    assert (train.classes, len(train.images), len(test.images)) == (("n02", "n03", "n1", "n10"), 48, 12)


def test_an_image_cut_short_is_damaged(photos: Path, tmp_path: Path) -> None:
    """Also one that needs no resizing."""
    for number, part in ((0, 0.7), (1, 0.7), (5, 0.7), (0, 0)):
        whole = (photos / "train" / "n02" / f"n02_{number}.JPEG").read_bytes()
        (tmp_path / "cut.JPEG").write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(UserError, match=r"cut.JPEG: this image cannot be packed"):
            resized(tmp_path / "cut.JPEG", SIDE)


def test_preparing_again(data: Path, photos: Path, tmp_path: Path) -> None:
    """What is whole stays; a source makes it anew; what killed ones left behind goes, what others write stays."""
    folder = shutil.copytree(data, tmp_path / "data")
    told: list[str] = []
    prepare("tiny", None, folder, told.append)
    assert told == ["it is there already; --from makes it again"]
    before = (folder / "tiny" / "test-00000.arrow").read_bytes()
    for name in (".tmp-tiny-dead", ".tmp-tiny-alive"):
        (folder / name).mkdir()
        (folder / name / "lock").touch()
    (folder / "tiny" / "test-00000.arrow").write_bytes(b"damaged")
    with Lock.wait(folder / ".tmp-tiny-alive" / "lock", told=lambda: None):
        prepare("tiny", photos, folder, told.append)
    assert (folder / "tiny" / "test-00000.arrow").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == [".tmp-tiny-alive", "tiny", "tiny.py"]
    assert sorted(path.name for path in (folder / "tiny").iterdir()) == [
        "manifest.json",
        "test-00000.arrow",
        "train-00000.arrow",
    ]


@pytest.mark.parametrize("name", ["validation", "test"])
def test_the_test_images_folder_has_several_names(name: str, photos: Path, tmp_path: Path) -> None:
    source = shutil.copytree(photos, tmp_path / "photos")
    (source / "val").rename(source / name)
    assert len(imagefolder.find(source, "")[1].images) == 12


def test_sources_that_are_none(icbench_here: Icbench, photos: Path, tmp_path: Path) -> None:
    shape = "It should have train/ and val/, each with a folder for each of the 4 classes, of 48 and 12 images in all."
    random = np.random.default_rng(0)

    def changed(name: str) -> Path:
        return shutil.copytree(photos, tmp_path / name)

    shutil.rmtree(changed("no-train") / "train")
    shutil.rmtree(changed("no-val") / "val")
    flat = changed("flat") / "val"
    for name in [folder.name for folder in flat.iterdir()]:
        shutil.move(flat / name / f"{name}_0.JPEG", flat)
        shutil.rmtree(flat / name)
    fewer = changed("fewer")
    for split in ("train", "val"):
        shutil.rmtree(fewer / split / "n1")
    shutil.rmtree(changed("other") / "val" / "n1")
    next((changed("missing") / "train" / "n03").iterdir()).unlink()
    for image in (changed("hollow") / "val" / "n03").iterdir():
        image.unlink()
    write_photo(changed("more") / "val" / "n03" / "x.png", ((9, 9), "RGB", "PNG"), random)
    (tmp_path / "f.tar").write_bytes(b"an archive")
    cases = {
        "f.tar": f"f.tar: this is a file; unpack it into a directory. {shape}",
        "nowhere": "nowhere: there is no such directory.",
        "no-train": f"no-train: there is no train/ in it. {shape}",
        "no-val": f"no-val: there is no val/ in it. {shape}",
        "flat": "flat/val: there are no folders of classes here: images such as n",
        "fewer": "fewer/train: there are 3 folders, not 4.",
        "other": "other: train/ and val/ have not the same classes: n1.",
        "missing": f"missing/train: there are 47 images, not 48. Each class should have 12; n03 has 11. {shape}",
        "hollow": "hollow/val/n03: there are no images of this class. Known by: .jpg, ",
        "more": f"more/val: there are 13 images, not 12. Each class should have 3; n03 has 4. {shape}",
    }
    for source, words in cases.items():
        done = icbench_here("data", "prepare", "tiny", "--from", source)
        assert (done.code, done.out) == (2, ""), source
        assert f"icbench: {words}" in done.err, done.err
    assert (
        f"They must be sorted into a folder for each class first. {shape}"
        in icbench_here("data", "prepare", "tiny", "--from", "flat").err
    )
    done = icbench_here("data", "prepare", "tiny")
    assert done.code == 2
    assert f"so that icbench cannot fetch it. Give the folder of its images with --from DIR. {shape}" in done.err
    assert not (tmp_path / "data").exists()


def test_data_that_are_not_whole_are_named(data: Path, tmp_path: Path) -> None:
    remedy = r"again with: icbench data prepare tiny --from DIR --data "
    with pytest.raises(UserError, match=r"tiny is not there \(.*manifest.json does not exist\). Make it with: icbench"):
        store.verify("tiny", tmp_path)
    store.verify("tiny", data)
    shard, manifest = Path("tiny/train-00001.arrow"), Path("tiny/manifest.json")
    whole = json.loads((data / manifest).read_text())
    damages = {
        "absent": (shard, None, "train-00001.arrow: this shard of the data set tiny is missing"),
        "cut": (shard, (data / shard).read_bytes()[:-8], r"train-00001.arrow: this shard of tiny has \d+ bytes, not"),
        "torn": (manifest, b"{", "manifest.json: this is no readable manifest"),
        "later": (manifest, json.dumps(whole | {"format": 2}).encode(), "this is no readable manifest"),
        "side": (
            manifest,
            json.dumps(whole | {"side": 39}).encode(),
            "not the whole data set tiny: short side 39, not 40",
        ),
        "few": (manifest, json.dumps(whole | {"test": []}).encode(), "test images 0, not 12"),
    }
    for name, (file, content, words) in damages.items():
        folder = shutil.copytree(data, tmp_path / name)
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(content)
        with pytest.raises(UserError, match=f"{words}.*{remedy}"):
            store.verify("tiny", folder)
    folder = shutil.copytree(data, tmp_path / "garbled")
    (folder / shard).write_bytes(bytes((data / shard).stat().st_size))
    store.verify("tiny", folder)
    with pytest.raises(UserError, match=f"train-00001.arrow: this is no readable shard: .*{remedy}"):
        store.locate("tiny", folder, "test")


def test_others_know_how_many_training_images_there_are(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who builds nets for a trial counts them, or guesses where there are none yet; doctor looks whether they are."""
    monkeypatch.setenv("ICBENCH_DATA", "nowhere")
    assert builder._train_count.__wrapped__("tiny", "heldout") == 48 - 4
    assert builder._train_count.__wrapped__("tiny", "test") == 48
    monkeypatch.setattr(catalog, "names", lambda kind: ("tiny",))
    assert [each.verdict for each in diagnosis._data_sets(None)] == ["warning"]
    monkeypatch.setenv("ICBENCH_DATA", str(data))
    monkeypatch.setattr(store, "_HELD_OUT", 3)
    assert builder._train_count.__wrapped__("tiny", "heldout") == 48 - 16
    assert [each.verdict for each in diagnosis._data_sets(None)] == ["ok"]
