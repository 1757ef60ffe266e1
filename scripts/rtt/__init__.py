"""Unlearning RTT: does an unlearning method remove facts from the weights, or hide them?

RTT (retraining on T) is the test of Deeb & Roger 2024 (arXiv 2410.08827): split independent facts into T and V,
unlearn both, fine-tune on T alone, measure V.
"""

__version__ = "0.1.0"
