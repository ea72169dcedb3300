"""Zero-shot classification: data sets, class names and templates, the classifier, its accuracy."""
