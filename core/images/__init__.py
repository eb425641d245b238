"""Images to train on: `datasets` are the recipes, `stream` makes batches of what they load."""
