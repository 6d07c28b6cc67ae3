"""Predictions over HTTP, side by side with peers: the same models, the same client, one run.

    python -m benchmarks.serving                    # Tenantry and a bare Django view
    python -m benchmarks.serving --peers all        # and every peer that can be installed

Each contestant runs alone, one after the other, in several rounds; figures are medians over the rounds.
"""
