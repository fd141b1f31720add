"""Partners of all domains, and their amplitudes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from fasttrain.base.errors import ConfigError, SourceError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.loading.batch import Batch, MaskedBatch
from fasttrain.loading.loader import Loader
from fasttrain.loading.order import Sampling
from fasttrain.loading.randomness import Operation, uniforms
from fasttrain.loading.views import train_view
from fasttrain.training.co_teacher.domains import domain_weights, domains_of
from fasttrain.training.co_teacher.partners import PartneredLoader, joined, with_partners_amplitudes

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def pairs(valid: list[bool]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((len(valid), 3, 4, 4), generator=generator)
    shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    images = (torch.nn.functional.interpolate(coarse, (12, 14), mode="bilinear") - shift) / scale
    return Batch(images, torch.arange(len(valid)), torch.arange(len(valid)), torch.tensor(valid))


def test_amplitudes_are_numpys_and_both_of_a_pair_change() -> None:
    batch = pairs([True] * 6)
    moved = with_partners_amplitudes(batch, 0.2, MEAN, STD, seed=3, step=5)
    shift, scale = (np.array(values).reshape(3, 1, 1) for values in (MEAN, STD))
    colours, found = (tensor.numpy() * scale + shift for tensor in (batch.images, moved))
    low = (np.abs(np.fft.fftfreq(12))[:, None] <= 0.1) & (np.abs(np.fft.fftfreq(14))[None] <= 0.1)
    shares = uniforms(3, 5, np.arange(3), Operation.PARTNER_AMPLITUDES)[0]
    for share, one, other in zip(shares, (0, 1, 2), (3, 4, 5), strict=True):
        spectra = [np.fft.fft2(colours[number]) for number in (one, other)]
        for number, mine, theirs in ((one, *spectra), (other, *spectra[::-1])):
            wanted = np.where(low, (1 - share) * np.abs(mine) + share * np.abs(theirs), np.abs(mine))
            image = np.fft.ifft2(wanted * np.exp(1j * np.angle(mine))).real.clip(0, 1)
            np.testing.assert_allclose(found[number], image, atol=1e-5)
    changed = (moved - batch.images).abs().flatten(1).amax(1)
    assert (changed > 0.01).all()


def test_masked_samples_lend_and_take_nothing() -> None:
    batch = pairs([True, False, True, True])
    moved = with_partners_amplitudes(batch, 0.2, MEAN, STD, seed=0, step=0)
    changed = (moved - batch.images).abs().flatten(1).amax(1) > 1e-5
    assert changed.tolist() == [True, False, True, False]


@pytest.fixture(scope="module")
def uneven(colour_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.beton` with a field of numbers: domain 3 has 18 of 24 images, domain 7 the others."""
    root = tmp_path_factory.mktemp("domains")
    lines = [
        f"{colour}/{number}.jpg,{colour},{3 if number < 6 else 7},word\n"
        for colour in ("red", "green", "blue")
        for number in range(8)
    ]
    (root / "list.csv").write_text("path,label,domain,text\n" + "".join(lines))
    samples = read_source(root / "list.csv", root=colour_tree, keep=("domain", "text"))
    build(samples, root / "data.beton", BuildOptions(workers=1))
    return root / "data.beton"


def test_domains_by_field_by_folder_and_by_table(uneven: Path, tmp_path: Path) -> None:
    table = tmp_path / "domains.csv"
    with Loader(uneven, 4, view=train_view(16), threads=1) as loader:
        by_field = domains_of("domain", loader)
        assert Counter(by_field) == {"3": 18, "7": 6}
        names = loader.string_ids(loader.rows)
        assert domains_of("folder", loader) == [name.split("/")[0] for name in names]
        rows = [f"{name},{'sketch' if '1' in name else 'photo'}\n" for name in names[::-1]]
        table.write_text("id,domain\n" + "".join(rows))
        assert domains_of(str(table), loader) == ["sketch" if "1" in name else "photo" for name in names]


def test_samples_without_a_domain_are_named(uneven: Path, colour_tree: Path, tmp_path: Path) -> None:
    table = tmp_path / "domains.csv"
    with Loader(uneven, 4, view=train_view(16), threads=1) as loader:
        names = loader.string_ids(loader.rows)
        table.write_text("id,domain\n" + "".join(f"{name},one\n" for name in names[2:]))
        with pytest.raises(ConfigError, match=rf"2 samples of .* have no domain in .*domains.csv: '{names[0]}', "):
            domains_of(str(table), loader)
        table.write_text("id,domain\n" + "".join(f"{name},one\n" for name in names))
        with pytest.raises(ConfigError, match="are of one domain, 'one'"):
            domains_of(str(table), loader)
        table.write_text("id,place\n")
        with pytest.raises(SourceError, match="has no column 'domain'"):
            domains_of(str(table), loader)
        for field, says in (("text", "holds no numbers"), ("place", "place"), ("label_", "label_")):
            with pytest.raises(ConfigError, match=rf"co_teacher.domains: .*{says}"):
                domains_of(field, loader)
    with (
        Loader(colour_tree / "red", 4, view=train_view(16), threads=1) as loader,
        pytest.raises(ConfigError, match=r"8 samples of .* lie in no folder"),
    ):
        domains_of("folder", loader)


def test_partners_come_from_all_domains_equally_often(uneven: Path) -> None:
    with Loader(uneven, 4, view=train_view(16), threads=1, indices=list(range(22))) as loader:
        domains = domains_of("domain", loader)
        weights = domain_weights(domains, loader.rows, loader.dataset.num_samples)
        assert (weights[22:] == 0).all()
        sampling = Sampling(weights=weights, draws=22)
        options = {"view": train_view(16), "threads": 1, "indices": list(range(22)), "sampling": sampling}
        beside = Loader(uneven, 4, seed=1, **options)  # type: ignore[arg-type]
        of_row = dict(zip(loader.rows.tolist(), domains, strict=True))
        counts: Counter[str] = Counter()
        for batch in PartneredLoader(loader, beside):
            assert len(batch.labels) == 8 and batch.images.shape == (8, 3, 16, 16)
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            counts.update(of_row[row] for row in batch.ids[4:].tolist())
        assert abs(counts["7"] - counts["3"]) <= 4
        beside.close()


def test_masks_are_joined_as_their_images() -> None:
    batch = pairs([True] * 2)
    masks = torch.arange(2, dtype=torch.uint8).view(2, 1, 1).expand(2, 12, 14)
    both = joined(MaskedBatch(*batch, masks), MaskedBatch(*batch, masks + 2))
    assert isinstance(both, MaskedBatch) and both.masks[:, 0, 0].tolist() == [0, 1, 2, 3]
