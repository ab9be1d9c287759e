"""The feature map against numpy's exponential in float64, and against torch's elu where 1 + elu has digits left."""

import numpy as np
import torch

from rmaat.ops import feature_map


def test_float32_is_exact_where_elu_plus_one_has_lost_its_digits():
    x = torch.linspace(-80, 80, 4_001)
    wide = x.double().numpy()
    exact = np.where(wide > 0, wide + 1, np.exp(wide))
    assert np.max(np.abs(feature_map(x).double().numpy() / exact - 1)) < 1e-6


def test_it_is_elu_plus_one_with_its_gradients():
    x = torch.tensor([-3.0, -1e-9, 0.0, 1e-9, 0.5, 7.0], dtype=torch.float64, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    found, wanted = feature_map(x), torch.nn.functional.elu(other) + 1
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=0)
    found.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-14, atol=0)


def test_first_and_second_derivatives():
    x = torch.linspace(-2.03, 2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(feature_map, x)
    assert torch.autograd.gradgradcheck(feature_map, x)


def test_not_a_number_stays_one():
    assert feature_map(torch.tensor([torch.nan])).isnan().all()
