import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskrl.errors import RecipeError
from maskrl.grpo.advantage import advantages as advantages_of
from maskrl.grpo.config import GRPOConfig

ALL = torch.ones(3, dtype=torch.bool)


def advantages(rewards, keep, std, eps):
    """Of the score, whatever its terms are."""
    terms = torch.full((*rewards.shape, 2), torch.nan)
    config = GRPOConfig(advantage_std=std, advantage_eps=eps)
    return advantages_of(rewards, terms, torch.ones(2), keep, config)


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


def each(columns, weights=None, keep=None, std="group", eps=1e-12):
    weights = torch.ones(columns.shape[-1]) if weights is None else torch.tensor(weights)
    keep = torch.ones(len(columns), dtype=torch.bool) if keep is None else keep
    config = GRPOConfig(advantage_of="terms", advantage_std=std, advantage_eps=eps)
    return advantages_of(columns.sum(dim=-1), columns, weights, keep, config)


def by_hand(columns, weights, keep):
    """The paper's three formulas, in a loop, over the kept groups."""
    total = torch.zeros(columns.shape[:2], dtype=torch.float64)
    for column, weight in zip(columns.unbind(-1), weights, strict=True):
        for group, values in enumerate(column.double()):
            total[group] += weight * (values - values.mean()) / values.std(correction=0)
    kept = total[keep]
    return torch.where(keep[:, None], (total - kept.mean()) / kept.std(correction=0), 0.0)


def three_terms(seed=4):
    return torch.stack([rewards(seed + i) * scale for i, scale in enumerate((1.0, 100.0, 1e-3))], dim=-1)


def test_terms_are_standardised_added_by_weight_and_divided_by_the_std_of_the_batch():
    keep = torch.tensor([True, False, True])
    columns, weights = three_terms(), [1.0, 0.5, -2.0]
    torch.testing.assert_close(each(columns, weights, keep), by_hand(columns, weights, keep))


def test_images_of_equal_sums_are_told_apart_by_their_terms():
    """The paper's example: (0, 2) and (1, 1) have one sum; the score cannot tell them from each other."""
    columns = torch.tensor([[[0.0, 2.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]])
    assert advantages(columns.sum(dim=-1), ALL[:1], "group", 1e-12)[0, :2].unique().numel() == 1
    assert each(columns)[0, :2].unique().numel() == 2


def test_the_scale_of_a_term_does_not_matter_and_its_weight_does():
    columns = three_terms()
    scaled = columns * torch.tensor([7.0, 0.01, 300.0]) + torch.tensor([5.0, -1.0, 0.0])
    torch.testing.assert_close(each(scaled), each(columns))
    assert not torch.allclose(each(columns, [1.0, 1.0, 5.0]), each(columns), rtol=0.1)
    torch.testing.assert_close(each(columns, [2.0, 2.0, 2.0]), each(columns))


@pytest.mark.parametrize("std", ["group", "global"])
@pytest.mark.parametrize("level", [0.0, 1.0, 12345.678, -3.3e7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_term_without_spread_adds_exactly_nothing(std, level, dtype):
    columns = three_terms().to(dtype)
    flat = columns.clone()
    flat[1, :, 0] = level  # in one group alone
    assert each(flat, std=std).isfinite().all()
    constant = torch.cat([columns, torch.full((3, 6, 1), level, dtype=dtype)], dim=-1)
    assert torch.equal(each(constant, [1.0, 1.0, 1.0, 9.0], std=std), each(columns, std=std))
    assert (each(torch.full((3, 6, 2), level, dtype=dtype), std=std) == 0).all()
    without = flat[1:2, :, 1:]
    torch.testing.assert_close(each(flat[1:2], std="group"), each(without, std="group"))


def test_one_term_differs_from_the_score_by_the_batch_alone():
    r = rewards(5)
    adv = advantages(r, ALL, "group", 1e-12)
    torch.testing.assert_close(each(r[..., None]), adv / adv.std(correction=0))


@pytest.mark.parametrize("std", ["group", "global"])
def test_terms_of_groups_not_kept_are_zero_and_tell_nothing(std):
    keep = torch.tensor([False, True, False])
    adv = each(three_terms(), keep=keep, std=std)
    assert (adv[~keep] == 0).all()
    assert (adv[keep] != 0).all()
    other = three_terms()
    other[~keep] *= 50
    torch.testing.assert_close(each(other, keep=keep, std=std), adv)
    assert (each(three_terms(), keep=~ALL, std=std) == 0).all()


def test_terms_that_are_not_standardised_are_refused():
    with pytest.raises(ValueError, match="choose 'group' or 'global', or advantage_of = 'score'"):
        GRPOConfig(advantage_of="terms", advantage_std="none")
    for settings in ({"advantage_std": "group"}, {"advantage_std": "global"}):
        assert GRPOConfig(advantage_of="terms", **settings)
    assert GRPOConfig(advantage_of="score", advantage_std="none")
