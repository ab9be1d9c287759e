"""What all mixers have in common, as modules."""

import pytest
import torch

from rmaat.attention.registry import BUILT_IN


@pytest.mark.parametrize("attention_type", BUILT_IN)
def test_what_lies_under_the_mask_changes_no_token(make_mixer, positions, mask, attention_type):
    mixer = make_mixer(attention_type)
    changed = positions.where(mask[..., None], 100 * torch.randn_like(positions))
    found, wanted = (mixer(y, mask, mixer.shared())[mask] for y in (changed, positions))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("attention_type", BUILT_IN)
def test_bfloat16_autocast_stays_near_float32(make_mixer, positions, mask, attention_type):
    mixer, x = make_mixer(attention_type, torch.float32), positions.float()
    wanted = mixer(x, mask, mixer.shared())[mask]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mixer(x, mask, mixer.shared())[mask]
    assert (found - wanted).norm() < 0.05 * wanted.norm()
