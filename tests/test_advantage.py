import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskrl.errors import RecipeError
from maskrl.grpo.advantage import advantages

ALL = torch.ones(3, dtype=torch.bool)


def rewards(seed, groups=3, size=6):
    return torch.randn(groups, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_group_standardises_with_the_population_std():
    adv = advantages(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), ALL[:1], "group", 1e-12)
    torch.testing.assert_close(adv, torch.tensor([[-3.0, -1.0, 1.0, 3.0]]) / 5**0.5)


@given(st.integers(0, 10**6), st.floats(-100, 100), st.floats(0.1, 100))
def test_shift_and_scale_of_the_reward_do_not_matter(seed, shift, scale):
    r = rewards(seed)
    torch.testing.assert_close(
        advantages(r * scale + shift, ALL, "group", 1e-12), advantages(r, ALL, "group", 1e-12)
    )


def test_rounding_noise_does_not_become_an_advantage():
    noise = 0.3 + 1e-6 * rewards(0)
    assert advantages(noise, ALL, "group", 1e-4).abs().max() < 0.05
    assert advantages(noise, ALL, "group", 1e-8).abs().max() > 1


@pytest.mark.parametrize("std", ["group", "global", "none"])
@pytest.mark.parametrize("reward", [0.7, 1.0, 1e2, 12345.678, 1e4, 1e6, -3.3e7])
def test_equal_rewards_give_exactly_zero(reward, std):
    for dtype in (torch.float32, torch.float64):
        assert (advantages(torch.full((3, 6), reward, dtype=dtype), ALL, std, 1e-4) == 0).all()


@pytest.mark.parametrize("reward", [1.0, 1e2, 12345.678, 1e6])
def test_rewards_that_differ_by_the_rounding_of_fp32_hardly_teach(reward):
    equal = torch.full((3, 6), reward)
    above = torch.nextafter(equal, torch.tensor(torch.inf))
    every_other = torch.where(torch.arange(6) % 2 == 0, equal, above)
    for std in ("group", "global"):
        assert advantages(every_other, ALL, std, 1e-4).abs().max() < 0.51


def test_none_only_centres():
    r = rewards(1)
    torch.testing.assert_close(advantages(r, ALL, "none", 1e-4), r - r.mean(dim=1, keepdim=True))


def test_global_divides_all_kept_groups_by_one_std():
    r, keep = rewards(2), torch.tensor([True, False, True])
    adv = advantages(r, keep, "global", 1e-12)
    centred = r - r.mean(dim=1, keepdim=True)
    torch.testing.assert_close(adv[keep], centred[keep] / centred[keep].std(correction=0))
    changed = r.clone()
    changed[1] *= 100
    torch.testing.assert_close(advantages(changed, keep, "global", 1e-12), adv)


@pytest.mark.parametrize("std", ["group", "global", "none"])
def test_groups_not_kept_get_zero(std):
    keep = torch.tensor([False, True, False])
    adv = advantages(rewards(3), keep, std, 1e-4)
    assert (adv[~keep] == 0).all()
    assert (adv[keep] != 0).all()
    assert (advantages(rewards(3), ~ALL, std, 1e-4) == 0).all()


def test_a_group_of_one_is_an_error():
    with pytest.raises(RecipeError, match="group_size = 1"):
        advantages(torch.zeros(3, 1), ALL, "group", 1e-4)
