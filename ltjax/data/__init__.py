"""Splits, noise, meta sets and samplers (NumPy in, NumPy out)."""

from ltjax.data._counts import class_counts as class_counts
from ltjax.data._counts import class_priors as class_priors
from ltjax.data._counts import exponential_counts as exponential_counts
from ltjax.data._counts import step_counts as step_counts
from ltjax.data._noise import CIFAR100_SUPERCLASSES as CIFAR100_SUPERCLASSES
from ltjax.data._noise import block_noise as block_noise
from ltjax.data._noise import cifar10_asymmetric_noise as cifar10_asymmetric_noise
from ltjax.data._noise import confusion_noise as confusion_noise
from ltjax.data._noise import corrupt_labels as corrupt_labels
from ltjax.data._noise import flip_noise as flip_noise
from ltjax.data._noise import pair_noise as pair_noise
from ltjax.data._noise import uniform_noise as uniform_noise
from ltjax.data._sampling import epoch_indices as epoch_indices
from ltjax.data._sampling import progressive_probabilities as progressive_probabilities
from ltjax.data._sampling import sampling_probabilities as sampling_probabilities
from ltjax.data._splits import Split as Split
from ltjax.data._splits import exponential_split as exponential_split
from ltjax.data._splits import gdw_split as gdw_split
from ltjax.data._splits import meta_split as meta_split
from ltjax.data._splits import step_split as step_split
from ltjax.data._splits import subsample as subsample
from ltjax.data._splits import weight_balancing_split as weight_balancing_split
