"""Errors of a regression, overall or by region of the target."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ltjax import _host

_SMALLEST_ERROR = 1e-12  # keeps one exact prediction from making the product zero


class RegressionErrors(NamedTuple):
    """Three means of the absolute errors, and how many there were."""

    mae: float
    rmse: float
    geometric_mean: float
    num_examples: int


def regression_errors(
    predictions: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None
) -> RegressionErrors:
    r"""Mean, root mean square and geometric mean of the absolute errors.

    .. math::
      \mathrm{MAE} = \frac1N \sum_i |e_i| \qquad
      \mathrm{RMSE} = \Big(\frac1N \sum_i e_i^2\Big)^{1/2} \qquad
      \mathrm{GM} = \exp \frac1N \sum_i \log \max(|e_i|, 10^{-12})

    Args:
      predictions: ``[N]`` predicted values.
      targets: ``[N]`` true values.
      where: ``[N]`` booleans, the examples to look at, for example one region of
        :func:`target_shots`; all by default.

    Returns:
      The three errors and the number of examples; all 0 if there are no examples.

    Raises:
      ValueError: if a value is not finite.

    Examples:
      >>> errors = regression_errors([1.0, 2.0, 7.0], [2.0, 4.0, 3.0])
      >>> f"{errors.mae:.3f} {errors.rmse:.3f} {errors.geometric_mean:.3f}"
      '2.333 2.646 2.000'

    References:
      Yang et al., *Delving into deep imbalanced regression*, ICML 2021, section 4. The
      floor of the geometric mean is ours.
    """
    truth = _host.floats("targets", targets, shape=(None,))
    guess = _host.floats("predictions", predictions, shape=truth.shape)
    errors = np.abs(guess - truth)
    if where is not None:
        errors = errors[_host.mask("where", where, truth.size)]
    if errors.size == 0:
        return RegressionErrors(0.0, 0.0, 0.0, 0)
    scale = max(float(errors.max()), _SMALLEST_ERROR)
    return RegressionErrors(
        mae=float(errors.mean()),
        rmse=scale * float(np.sqrt(np.mean((errors / scale) ** 2))),
        geometric_mean=float(
            np.exp(np.log(np.maximum(errors, _SMALLEST_ERROR)).mean())
        ),
        num_examples=errors.size,
    )
