"""Classifier heads and post-hoc adjustment of their outputs."""

from ltjax.heads._adjust import adjust_logits as adjust_logits
from ltjax.heads._adjust import search_tau as search_tau
from ltjax.heads._adjust import tau_normalize as tau_normalize
from ltjax.heads._etf import simplex_etf as simplex_etf
