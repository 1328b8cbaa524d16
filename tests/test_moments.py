"""Mean and variance with a gradient of our own: they are torch's."""

import pytest
import torch

from icbench.nets.moments import moments


@pytest.mark.parametrize("dims", [(0, 2, 3), (2, 3), (1, 2, 3), (0,)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_they_and_their_gradients_are_torch_s(dims: tuple[int, ...], layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = (3 + torch.randn(5, 4, 3, 6, dtype=torch.float64)).to(memory_format=layout).requires_grad_()
    variance, mean = torch.var_mean(x, dim=dims, correction=0)
    ours = moments(x, dims)
    torch.testing.assert_close(ours, (mean, variance))
    weights = torch.randn_like(mean), torch.randn_like(mean)
    (expected,) = torch.autograd.grad((weights[0] * mean + weights[1] * variance).sum(), x)
    (found,) = torch.autograd.grad((weights[0] * ours[0] + weights[1] * ours[1]).sum(), x)
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(lambda x: moments(x, dims), x)


def test_a_large_mean_costs_no_digits() -> None:
    x = 1e4 + torch.randn(64, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    exact = torch.var_mean(x.double(), dim=(0, 2, 3), correction=0)[0].float()
    torch.testing.assert_close(moments(x, (0, 2, 3))[1], exact, rtol=1e-3, atol=0)
