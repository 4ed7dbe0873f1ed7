"""From rows on disk or on the Hub to batches: examples, their order, decoding ahead, one collator for all."""
