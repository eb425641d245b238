"""Networks of generative models, and what they are made of."""
